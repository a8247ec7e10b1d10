package rowstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/candidates"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rules"
)

// MaxRecord is the maximum total length of the text fields of a record, in bytes. Packages
// awssm, k8sstore and vaultstore have the same limit, so that records can be migrated to them.
const MaxRecord = 64 << 10

// derived matches the form of the IDs that stores of package tokenstore derive.
var derived = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[ugra][a-z2-7]{32}$`) })

// Check returns an error that matches rules.ErrTooLarge if f is larger than MaxRecord. If
// newID is set and the ID of f has the form of a derived ID, the error matches
// rules.ErrInvalidToken. Stores that derive IDs refuse unknown IDs of this form, so a record
// with such an ID could not be migrated to them.
func Check(f codec.Fields, newID bool) error {
	if newID && derived().MatchString(f.ID) {
		return fmt.Errorf("%w: the ID has the form of a derived ID but is unknown", rules.ErrInvalidToken)
	}
	if size := f.Size(); size > MaxRecord {
		return fmt.Errorf("%w: the record has %d bytes, the limit is %d", rules.ErrTooLarge, size, MaxRecord)
	}
	return nil
}

// A Writer changes rows. It identifies a row by its index in the Rows to which the Writer belongs.
// Indices remain valid until the next call of Reread.
type Writer interface {
	// NextID returns the ID for a new row.
	NextID(ctx context.Context) (string, error)

	// Put stores f in the i-th row or, if i is negative, in a new last row. It returns an
	// error if the table cannot hold f.
	Put(ctx context.Context, i int, f codec.Fields) error

	// Remove removes the rows with the given indices. If erase is set, other programs must not be
	// able to read the removed rows after the next call of Table.Erased.
	Remove(ctx context.Context, rows []int, erase bool) error

	// Reread returns the current rows, with their new indices.
	Reread(ctx context.Context) (*Rows, error)
}

// Rows holds the rows of a table at a single point in time. Several goroutines may read the Rows
// that Source.Read returns.
type Rows struct {
	Writer // nil if Read returned the Rows

	// Numbered is set if IDs are numbers that the table counts up. A record with a larger ID is
	// then newer. If Numbered is not set, a record in a later row is newer.
	Numbered bool

	// Place returns a description of where the i-th row is stored.
	Place func(i int) string

	records []rules.Candidate
	damage  []error // by record: the reason why the record cannot be read, or nil

	searches atomic.Int64
	indexed  sync.Once
	index    candidates.Index
}

// Format prints only the type of r, so that package fmt does not print tokens.
func (r *Rows) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "*rowstore.Rows") }

// Grow makes room for n more rows.
func (r *Rows) Grow(n int) {
	r.records, r.damage = slices.Grow(r.records, n), slices.Grow(r.damage, n)
}

// Add adds a row. damage is the reason why part of the row cannot be read, or nil. A search that
// finds a damaged record by f fails with an error matching tokenstore.ErrCorrupt.
func (r *Rows) Add(f codec.Fields, damage error) {
	i := len(r.records)
	if damage == nil {
		damage = unreadable(&f)
	}
	if damage != nil {
		damage = fmt.Errorf("%w: %s: %w", tokenstore.ErrCorrupt, r.Place(i), damage)
	}
	r.records = append(r.records, r.candidate(i, f))
	r.damage = append(r.damage, damage)
}

func (r *Rows) candidate(i int, f codec.Fields) rules.Candidate {
	age := int64(i)
	if r.Numbered {
		age, _ = codec.IDNumber(f.ID)
	}
	return rules.Candidate{Fields: f, Updated: time.Unix(age, 0)}
}

// few is the largest number of records for which searches never use an index.
const few = 32

// choose returns the index of the record that like describes. From the second search on, it uses a
// search index if there are more records than the constant few. The error is from rules.Select, or
// is the reason why the record cannot be read.
func (r *Rows) choose(like codec.Fields) (i int, err error) {
	if len(r.records) <= few || r.searches.Add(1) == 1 {
		i, err = rules.Select(like, r.records)
	} else {
		r.indexed.Do(func() { r.index = candidates.New(r.records) })
		i, err = r.index.Select(like)
	}
	if err == nil {
		err = r.damage[i]
	}
	return i, err
}

func (r *Rows) plan(f codec.Fields) (rules.Plan, error) {
	return r.readable(rules.PlanSave(f, r.records))
}

// readable returns p and err, the results of planning a save. If p concerns a damaged record,
// readable instead returns the reason why that record cannot be read.
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

// apply executes the plan p, and returns the stored record.
func (r *Rows) apply(ctx context.Context, p rules.Plan) (f codec.Fields, err error) {
	f = p.Fields
	if p.Record < 0 && f.ID == "" {
		f.ID, err = r.NextID(ctx)
	}
	// Remove before Put, because a table may forbid two rows with the same user or token.
	if err == nil && len(p.Absorb) > 0 {
		err = r.Remove(ctx, p.Absorb, false)
	}
	if err == nil {
		err = r.Put(ctx, p.Record, f)
	}
	return f, err
}

// tokens returns the readable records, ordered by ID, and the result of unread.
func (r *Rows) tokens() ([]tokenstore.Token, error) {
	tokens := make([]tokenstore.Token, 0, len(r.records))
	for i, c := range r.records {
		if r.damage[i] == nil {
			tokens = append(tokens, tokenstore.FromFields(c.Fields))
		}
	}
	slices.SortStableFunc(tokens, func(a, b tokenstore.Token) int { return cmp.Compare(a.ID, b.ID) })
	return tokens, r.unread()
}

// unread joins an *UnreadableError for each unreadable record. It returns nil if there are none.
func (r *Rows) unread() error {
	var all []error
	for i, c := range r.records {
		if r.damage[i] != nil {
			all = append(all, &tokenstore.UnreadableError{Name: c.ID, Err: r.damage[i]})
		}
	}
	return errors.Join(all...)
}

// unreadable returns the reason why a row with the fields f cannot be read, or nil.
func unreadable(f *codec.Fields) error {
	if !f.ValidUTF8() {
		return errors.New("it is not valid UTF-8")
	}
	if f.ID == "" {
		return errors.New("the row has no ID")
	}
	if f.ExpiryTime < 0 || time.UnixMilli(f.ExpiryTime).UTC().Year() > 9999 {
		return errors.New("expiry_time is out of range")
	}
	return nil
}
