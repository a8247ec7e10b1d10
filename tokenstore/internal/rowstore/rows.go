package rowstore

import (
	"cmp"
	"context"
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

// MaxRecord is the largest record in bytes. It is that of the secret managers, so
// that a record in a row can move there.
const MaxRecord = 64 << 10

// derived is the form of the IDs that stores of package tokenstore derive.
var derived = regexp.MustCompile(`^[ugra][a-z2-7]{32}$`)

// CheckNewID returns an error if the ID of a new record has the form of a derived
// one. Stores that derive IDs refuse such an ID, and every record can move there.
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

// A Writer changes rows. It names a row by its index in the Rows that it belongs to,
// which stays until Reread.
type Writer interface {
	// NextID returns the ID for a new row.
	NextID(ctx context.Context) (string, error)

	// Put stores t in the i-th row, or in a new one behind the others if i is negative.
	// It returns an error if the table cannot hold t.
	Put(ctx context.Context, i int, t tokenstore.Token) error

	// Remove removes rows. If erase is set nothing of them may be left for others to
	// read after the next call of Table.Erased.
	Remove(ctx context.Context, rows []int, erase bool) error

	// Reread returns the rows as they are now, with their new indices.
	Reread(ctx context.Context) (*Rows, error)
}

// Rows are rows as they were at one moment.
type Rows struct {
	Writer // nil in what Read returns

	// Numbered is set if IDs are counted up: of two records the one with the bigger
	// number is the newer one. Otherwise the one further down is.
	Numbered bool

	// Current reports whether the rows are known to be as they were read. Nil: that
	// takes another Read.
	Current func() bool

	records []tokenstore.Candidate
	damage  []error // why a record cannot be read; nil: it can
	places  []string
}

// Add adds a row, which stands at a place that people can find.
func (r *Rows) Add(row codec.Row, place string) {
	t, err := Token(row)
	if err != nil {
		err = fmt.Errorf("%w: %s: %w", tokenstore.ErrCorrupt, place, err)
	}
	r.records = append(r.records, r.candidate(len(r.records), t))
	r.damage = append(r.damage, err)
	r.places = append(r.places, place)
}

func (r *Rows) candidate(i int, t tokenstore.Token) tokenstore.Candidate {
	age := int64(i)
	if r.Numbered {
		age, _ = codec.IDNumber(t.ID)
	}
	return tokenstore.Candidate{Token: t, Updated: time.Unix(age, 0)}
}

// choose returns the index of the record that like describes.
func (r *Rows) choose(like tokenstore.Token) (int, error) {
	i, err := tokenstore.Select(like, r.records)
	if err == nil {
		err = r.damage[i]
	}
	return i, err
}

// plan decides what saving t does.
func (r *Rows) plan(t tokenstore.Token) (tokenstore.Plan, error) {
	return r.readable(tokenstore.PlanSave(t, r.records))
}

// readable returns the plan, or an error if a record that it touches is damaged.
func (r *Rows) readable(p tokenstore.Plan, err error) (tokenstore.Plan, error) {
	if err == nil && p.Record >= 0 {
		for _, i := range append([]int{p.Record}, p.Absorb...) {
			err = cmp.Or(err, r.damage[i])
		}
	}
	if err != nil {
		return tokenstore.Plan{}, err
	}
	return p, nil
}

// apply carries out the plan, and returns what is stored.
func (r *Rows) apply(ctx context.Context, p tokenstore.Plan) (t tokenstore.Token, err error) {
	t = p.Token
	if p.Record < 0 && t.ID == "" {
		t.ID, err = r.NextID(ctx)
	}
	// The others go first: a table may forbid that two rows hold one user or token.
	if err == nil && len(p.Absorb) > 0 {
		err = r.Remove(ctx, p.Absorb, false)
	}
	if err == nil {
		err = r.Put(ctx, p.Record, t)
	}
	return t, err
}

// tokens returns the records that can be read, ordered by ID, and why the others
// cannot.
func (r *Rows) tokens() ([]tokenstore.Token, error) {
	tokens := make([]tokenstore.Token, 0, len(r.records))
	for i, c := range r.records {
		if r.damage[i] == nil {
			tokens = append(tokens, c.Token)
		}
	}
	slices.SortStableFunc(tokens, func(a, b tokenstore.Token) int { return cmp.Compare(a.ID, b.ID) })
	return tokens, errors.Join(r.damage...)
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
