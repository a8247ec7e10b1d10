package filestore

import (
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// A view is the file at one moment: the i-th row is the i-th record.
type view struct {
	file    *codec.TokenFile
	info    fs.FileInfo // of the file; nil: there was none
	records []tokenstore.Candidate
	damage  []error // why a record cannot be read; nil: it can

	used    int64 // the biggest ID of the records that were deleted before
	removed int64 // and of those that are removed now
}

// look makes a view of a parsed file. Of two records the one further down is
// taken for the newer one: the SDKs append.
func look(file *codec.TokenFile, info fs.FileInfo) *view {
	v := &view{file: file, info: info}
	for i := range file.Len() {
		t, err := token(file.Row(i))
		if err != nil {
			err = fmt.Errorf("%w: line %d: %w", tokenstore.ErrCorrupt, file.Line(i), err)
		}
		v.records = append(v.records, tokenstore.Candidate{Token: t, Updated: time.Unix(int64(i), 0)})
		v.damage = append(v.damage, err)
	}
	return v
}

// token returns the token that a row holds. If part of it cannot be read, the
// rest is returned with the error: it is still what the record is found by.
func token(r codec.Row) (t tokenstore.Token, err error) {
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
		return t, fmt.Errorf("it is not valid UTF-8")
	}
	if t.ID == "" {
		return t, fmt.Errorf("the row has no ID")
	}
	if r.ExpiryTime != "" {
		ms, err := strconv.ParseInt(r.ExpiryTime, 10, 64)
		if err != nil {
			return t, fmt.Errorf("expiry_time is not a number")
		}
		if ms != 0 {
			t.ExpiresAt = time.UnixMilli(ms).UTC()
		}
		if ms < 0 || t.ExpiresAt.Year() > 9999 {
			return t, fmt.Errorf("expiry_time is out of range")
		}
	}
	return t, nil
}

// row returns the row that holds a token.
func row(t tokenstore.Token) codec.Row {
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

// choose returns the index of the record that like describes.
func (v *view) choose(like tokenstore.Token) (int, error) {
	i, err := tokenstore.Select(like, v.records)
	if err == nil {
		err = v.damage[i]
	}
	return i, err
}

// plan decides what saving t does. A damaged record is not merged into.
func (v *view) plan(t tokenstore.Token) (tokenstore.Plan, error) {
	p, err := tokenstore.PlanSave(t, v.records)
	if err != nil {
		return tokenstore.Plan{}, err
	}
	if p.Record >= 0 {
		for _, i := range append([]int{p.Record}, p.Absorb...) {
			if v.damage[i] != nil {
				return tokenstore.Plan{}, v.damage[i]
			}
		}
	}
	return p, nil
}

// apply does what the plan says, and returns what is stored.
func (v *view) apply(p tokenstore.Plan, anyID bool) (tokenstore.Token, error) {
	t := p.Token
	if p.Record < 0 {
		if anyID && derived.MatchString(t.ID) {
			return t, fmt.Errorf("%w: the ID has the form of a derived one, and is not known", tokenstore.ErrInvalidToken)
		}
		if t.ID == "" {
			id, err := v.file.NextID(v.used)
			if err != nil {
				return t, fmt.Errorf("%w: %w", tokenstore.ErrInvalidToken, err)
			}
			t.ID = id
		}
	}
	if err := v.put(p.Record, t); err != nil {
		return t, err
	}
	for _, i := range slices.Backward(slices.Sorted(slices.Values(p.Absorb))) {
		v.remove(i)
	}
	return t, nil
}

// put stores t in the i-th row, or in a new one if i is negative.
func (v *view) put(i int, t tokenstore.Token) error {
	size := len(t.ID) + len(t.UserName) + len(t.ClientID) + len(t.ClientSecret) + len(t.RefreshToken) +
		len(t.AccessToken) + len(t.GrantToken) + len(t.RedirectURL) + len(t.APIDomain)
	if size > MaxRecord {
		return fmt.Errorf("%w: the record has %d bytes, the limit is %d", tokenstore.ErrTooLarge, size, MaxRecord)
	}
	var err error
	if i < 0 {
		err = v.file.Append(row(t))
	} else {
		err = v.file.Set(i, row(t))
	}
	if err != nil {
		return fmt.Errorf("%w: %w", tokenstore.ErrInvalidToken, err)
	}
	return nil
}

// remove removes the i-th row from the file. The records of the view stay as
// they were read.
func (v *view) remove(i int) {
	if n, ok := codec.IDNumber(v.records[i].Token.ID); ok {
		v.removed = max(v.removed, n)
	}
	v.file.Delete(i)
}
