package rowstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rules"
)

// MaxRecord is the largest record in bytes. It is the limit of the secret managers, so
// that a record in a row can move there.
const MaxRecord = 64 << 10

// derived matches the IDs that stores of package tokenstore derive.
var derived = regexp.MustCompile(`^[ugra][a-z2-7]{32}$`)

// Check returns an error if f is larger than MaxRecord, or if newID is set and the ID
// of f has the form of a derived one. Stores that derive IDs refuse such an ID if they
// do not know the record. With this check every record can move there.
func Check(f codec.Fields, newID bool) error {
	if newID && derived.MatchString(f.ID) {
		return fmt.Errorf("%w: the ID has the form of a derived one, and is not known", rules.ErrInvalidToken)
	}
	if size := f.Size(); size > MaxRecord {
		return fmt.Errorf("%w: the record has %d bytes, the limit is %d", rules.ErrTooLarge, size, MaxRecord)
	}
	return nil
}

// A Writer changes rows. It names a row by its index in the Rows that it belongs to.
// The index stays until Reread.
type Writer interface {
	// NextID returns the ID for a new row.
	NextID(ctx context.Context) (string, error)

	// Put stores f in the i-th row or, if i is negative, in a new row behind the
	// others. It returns an error if the table cannot hold f.
	Put(ctx context.Context, i int, f codec.Fields) error

	// Remove removes rows. If erase is set, other programs must not be able to read them
	// after the next call of Table.Erased.
	Remove(ctx context.Context, rows []int, erase bool) error

	// Reread returns the rows as they are now, with their new indices.
	Reread(ctx context.Context) (*Rows, error)
}

// Rows are rows as they were at one moment.
type Rows struct {
	Writer // nil in what Read returns

	// Numbered is set if IDs are counted up: of two records the one with the larger
	// number is newer. Otherwise the row further down is newer.
	Numbered bool

	// Current reports whether the rows are known to be as they were read. If it is nil,
	// only another Read can tell.
	Current func() bool

	records []rules.Candidate
	damage  []error // the reason why a record cannot be read; nil if it can
	places  []string
}

// Format prints r as its type. Package fmt would print the tokens within it.
func (r *Rows) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "*rowstore.Rows") }

// Add adds a row. place tells people where the row is. damage is the reason why part of
// the row cannot be read; the record is still found by f.
func (r *Rows) Add(f codec.Fields, damage error, place string) {
	if damage = cmp.Or(damage, unreadable(f)); damage != nil {
		damage = fmt.Errorf("%w: %s: %w", tokenstore.ErrCorrupt, place, damage)
	}
	r.records = append(r.records, r.candidate(len(r.records), f))
	r.damage = append(r.damage, damage)
	r.places = append(r.places, place)
}

func (r *Rows) candidate(i int, f codec.Fields) rules.Candidate {
	age := int64(i)
	if r.Numbered {
		age, _ = codec.IDNumber(f.ID)
	}
	return rules.Candidate{Fields: f, Updated: time.Unix(age, 0)}
}

// choose returns the index of the record that like describes.
func (r *Rows) choose(like codec.Fields) (int, error) {
	i, err := rules.Select(like, r.records)
	if err == nil {
		err = r.damage[i]
	}
	return i, err
}

// plan decides what saving f does.
func (r *Rows) plan(f codec.Fields) (rules.Plan, error) {
	return r.readable(rules.PlanSave(f, r.records))
}

// readable returns the plan, or an error if a record that it touches is damaged.
func (r *Rows) readable(p rules.Plan, err error) (rules.Plan, error) {
	if err != nil || p.Record < 0 {
		return p, err
	}
	for _, i := range append([]int{p.Record}, p.Absorb...) {
		if r.damage[i] != nil {
			return rules.Plan{}, r.damage[i]
		}
	}
	return p, nil
}

// apply carries out the plan, and returns the fields as stored.
func (r *Rows) apply(ctx context.Context, p rules.Plan) (f codec.Fields, err error) {
	f = p.Fields
	if p.Record < 0 && f.ID == "" {
		f.ID, err = r.NextID(ctx)
	}
	// Remove first: a table may forbid that two rows hold one user or token.
	if err == nil && len(p.Absorb) > 0 {
		err = r.Remove(ctx, p.Absorb, false)
	}
	if err == nil {
		err = r.Put(ctx, p.Record, f)
	}
	return f, err
}

// tokens returns the readable records, ordered by ID, and an error for the others.
func (r *Rows) tokens() ([]tokenstore.Token, error) {
	tokens := make([]tokenstore.Token, 0, len(r.records))
	for i, c := range r.records {
		if r.damage[i] == nil {
			tokens = append(tokens, tokenstore.FromFields(c.Fields))
		}
	}
	slices.SortStableFunc(tokens, func(a, b tokenstore.Token) int { return cmp.Compare(a.ID, b.ID) })
	return tokens, errors.Join(r.damage...)
}

// unreadable returns the reason why a row with the fields cannot be read, or nil if it
// can.
func unreadable(f codec.Fields) error {
	for _, text := range f.All() {
		if !utf8.ValidString(text) {
			return errors.New("it is not valid UTF-8")
		}
	}
	if f.ID == "" {
		return errors.New("the row has no ID")
	}
	if f.ExpiryTime < 0 || time.UnixMilli(f.ExpiryTime).UTC().Year() > 9999 {
		return errors.New("expiry_time is out of range")
	}
	return nil
}
