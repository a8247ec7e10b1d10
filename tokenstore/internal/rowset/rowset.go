// Package rowset is what the stores on the Zoho SDKs' own formats have in common:
// records that are rows of ten columns, some of which may be damaged.
package rowset

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// MaxRecord is the largest record in bytes: that of the secret managers, so that
// what is kept in a row can move there.
const MaxRecord = 64 << 10

// derived is the form of the IDs that stores of package tokenstore derive.
var derived = regexp.MustCompile(`^[ugra][a-z2-7]{32}$`)

// CheckNewID returns an error if the ID of a record that is about to be created
// has the form of a derived one. The stores that derive IDs refuse one that they
// do not know, and so do these, so that every record can move there.
func CheckNewID(id string) error {
	if derived.MatchString(id) {
		return fmt.Errorf("%w: the ID has the form of a derived one, and is not known", tokenstore.ErrInvalidToken)
	}
	return nil
}

// CheckSize returns an error if t is larger than MaxRecord.
func CheckSize(t tokenstore.Token) error {
	size := len(t.ID) + len(t.UserName) + len(t.ClientID) + len(t.ClientSecret) + len(t.RefreshToken) +
		len(t.AccessToken) + len(t.GrantToken) + len(t.RedirectURL) + len(t.APIDomain)
	if size > MaxRecord {
		return fmt.Errorf("%w: the record has %d bytes, the limit is %d", tokenstore.ErrTooLarge, size, MaxRecord)
	}
	return nil
}

// A View is rows as they were at one moment: the i-th row is the i-th record.
type View struct {
	Records []tokenstore.Candidate
	Damage  []error // why a record cannot be read; nil: it can
}

// Add adds a row. The place is where it stands, for the error about a row that
// cannot be read. Of two records the one with the later time is the newer one.
func (v *View) Add(r codec.Row, place string, updated time.Time) {
	t, err := Token(r)
	if err != nil {
		err = fmt.Errorf("%w: %s: %w", tokenstore.ErrCorrupt, place, err)
	}
	v.Records = append(v.Records, tokenstore.Candidate{Token: t, Updated: updated})
	v.Damage = append(v.Damage, err)
}

// Choose returns the index of the record that like describes.
func (v *View) Choose(like tokenstore.Token) (int, error) {
	i, err := tokenstore.Select(like, v.Records)
	if err == nil {
		err = v.Damage[i]
	}
	return i, err
}

// Plan decides what saving t does. A damaged record is not merged into.
func (v *View) Plan(t tokenstore.Token) (tokenstore.Plan, error) {
	p, err := tokenstore.PlanSave(t, v.Records)
	if err != nil {
		return tokenstore.Plan{}, err
	}
	if p.Record >= 0 {
		for _, i := range append([]int{p.Record}, p.Absorb...) {
			if v.Damage[i] != nil {
				return tokenstore.Plan{}, v.Damage[i]
			}
		}
	}
	return p, nil
}

// Tokens returns the records that can be read, ordered by ID, and why the others
// cannot.
func (v *View) Tokens() ([]tokenstore.Token, error) {
	tokens := make([]tokenstore.Token, 0, len(v.Records))
	for i, r := range v.Records {
		if v.Damage[i] == nil {
			tokens = append(tokens, r.Token)
		}
	}
	slices.SortStableFunc(tokens, func(a, b tokenstore.Token) int { return cmp.Compare(a.ID, b.ID) })
	return tokens, errors.Join(v.Damage...)
}

// Token returns the token that a row holds. If part of it cannot be read, the
// rest is returned with the error: it is still what the record is found by.
func Token(r codec.Row) (t tokenstore.Token, err error) {
	t = tokenstore.Token{
		ID:           r.ID,
		UserName:     r.UserName,
		ClientID:     r.ClientID,
		ClientSecret: tokenstore.Secret(r.ClientSecret),
		RefreshToken: tokenstore.Secret(r.RefreshToken),
		AccessToken:  tokenstore.Secret(r.AccessToken),
		GrantToken:   tokenstore.Secret(r.GrantToken),
		RedirectURL:  r.RedirectURL,
		APIDomain:    r.APIDomain,
	}
	text := []string{t.ID, t.UserName, t.ClientID, string(t.ClientSecret), string(t.RefreshToken),
		string(t.AccessToken), string(t.GrantToken), t.RedirectURL, t.APIDomain}
	if slices.ContainsFunc(text, func(s string) bool { return !utf8.ValidString(s) }) {
		return t, errors.New("it is not valid UTF-8")
	}
	if t.ID == "" {
		return t, errors.New("the row has no ID")
	}
	if r.ExpiryTime != "" {
		ms, err := codec.ParseExpiry(r.ExpiryTime)
		if err != nil {
			return t, err
		}
		if ms != 0 {
			t.ExpiresAt = time.UnixMilli(ms).UTC()
		}
		if ms < 0 || t.ExpiresAt.Year() > 9999 {
			return t, errors.New("expiry_time is out of range")
		}
	}
	return t, nil
}

// Row returns the row that holds a token.
func Row(t tokenstore.Token) codec.Row {
	r := codec.Row{
		ID:           t.ID,
		UserName:     t.UserName,
		ClientID:     t.ClientID,
		ClientSecret: string(t.ClientSecret),
		RefreshToken: string(t.RefreshToken),
		AccessToken:  string(t.AccessToken),
		GrantToken:   string(t.GrantToken),
		RedirectURL:  t.RedirectURL,
		APIDomain:    t.APIDomain,
	}
	if !t.ExpiresAt.IsZero() {
		r.ExpiryTime = strconv.FormatInt(t.ExpiresAt.UnixMilli(), 10)
	}
	return r
}

// Unchanged returns a function that compares what a row holds with t, as it was
// read. Where they differ the error matches tokenstore.ErrConflict.
func Unchanged(t tokenstore.Token) func(now tokenstore.Token) error {
	return func(now tokenstore.Token) error {
		if Row(now) != Row(t) {
			return fmt.Errorf("%w: the record is not as it was read", tokenstore.ErrConflict)
		}
		return nil
	}
}
