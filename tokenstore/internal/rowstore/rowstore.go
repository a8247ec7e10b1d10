// Package rowstore implements token stores in the formats of the Zoho SDKs: rows of ten columns,
// which concurrent programs change under a lock, the write lock. A Store is a tokenstore.TokenStore
// and a tokenstore.Refresher. It can also search and check its rows, delete a record that has not
// changed, and save or delete many records in one update. A Table implements the parts that differ
// between the formats.
package rowstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/refreshing"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rules"
	"github.com/tokenkeep/tokenkeep/tokenstore/observe"
)

// A Table holds the rows of a Store.
type Table interface {
	Source

	// Lock takes the right to refresh the record with the given ID. It returns nil and no error
	// if the right is already held. It returns an error if the record cannot be written, so that
	// Refresh does not request a token that it could not store.
	Lock(ctx context.Context, id string) (Lock, error)

	// Peek returns the note of the record, as Lock.Note does, and reports whether a process
	// has the right to refresh the record. Peek writes nothing. While a process holds the right,
	// note may be empty.
	Peek(ctx context.Context, id string) (note string, leased bool, err error)

	// Precheck checks, without the write lock, whether the table can hold the fields of the plan p. It
	// may return nil for a plan that Update then refuses.
	Precheck(ctx context.Context, p rules.Plan) error

	// Fits returns a function that returns the reason why the table cannot hold the given fields in a
	// new row, or nil. The function ignores the content of other rows.
	Fits(ctx context.Context) (func(codec.Fields) error, error)

	// Erased is called after a deletion. ids are the IDs of the rows that the deletion was to
	// remove; some of these rows may not have existed, or may have changed. The parameter all is
	// set if the deletion covered several records.
	Erased(ctx context.Context, ids []string, all bool) error
}

// A Source reads and changes rows.
type Source interface {
	// Read returns at least the rows that may match *about, or all rows if about is nil. If *about
	// has a ClientID but no ID, user or token, all rows of the client match. Read does not take the
	// write lock.
	Read(ctx context.Context, about *codec.Fields) (*Rows, error)

	// Update calls the function change under the write lock, with the rows that Read would return
	// for the same Fields. If the function reports that it changed rows, Update stores the changes.
	// If the function returns an error, Update stores nothing and returns that error. If another
	// program writes the rows meanwhile, Update may discard the changes and call the function again
	// with the new rows.
	Update(ctx context.Context, about *codec.Fields, change Change) error
}

// A Change changes rows, and reports whether it changed any.
type Change = func(ctx context.Context, rows *Rows) (changed bool, err error)

// A Lock is the right to refresh a record.
type Lock interface {
	Source

	// Note returns the last text that SetNote stored, or "" if there is no such text or Note
	// cannot read it.
	Note(ctx context.Context) string

	// SetNote stores a text about the record.
	SetNote(ctx context.Context, text string) error

	// Release releases the right, and removes the note unless keep is set. Once ctx is done,
	// Release waits for nothing, and the note may remain.
	Release(ctx context.Context, keep bool)
}

// A Store is a TokenStore on a Table.
type Store struct {
	name   string // the kind of store, for error texts
	table  Table
	o      Options
	engine *refreshing.Engine
}

// Options configures a Store.
type Options struct {
	AnyID       bool          // the IDs of new records need not be numbers
	LeaseTTL    time.Duration // limit for mint in a refresh, and for storing the result
	LockTimeout time.Duration // how long a write waits for other writers
	Now         func() time.Time
	Logger      *slog.Logger
	Observer    *observe.Observer // may be nil
}

const (
	defaultLeaseTTL    = 30 * time.Second
	minLeaseTTL        = time.Second
	defaultLockTimeout = time.Minute
)

// Complete returns o with defaults in place of zero values, or an error if another value is
// out of range. name is the kind of store, for error texts.
func (o Options) Complete(name string) (Options, error) {
	o.LeaseTTL = cmp.Or(o.LeaseTTL, defaultLeaseTTL)
	o.LockTimeout = cmp.Or(o.LockTimeout, defaultLockTimeout)
	switch {
	case o.LeaseTTL < minLeaseTTL:
		return o, fmt.Errorf("%s: LeaseTTL is %v, the minimum is %v", name, o.LeaseTTL, minLeaseTTL)
	case o.LockTimeout < 0:
		return o, fmt.Errorf("%s: LockTimeout is %v", name, o.LockTimeout)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o, nil
}

var (
	_ tokenstore.TokenStore = (*Store)(nil)
	_ tokenstore.Refresher  = (*Store)(nil)
)

// New returns a Store of the named kind. o must be a result of Complete.
func New(name string, table Table, o Options) *Store {
	return &Store{name: name, table: watched(name, table, o.Observer), o: o, engine: engine(name, o)}
}

// Wrap returns err as a *tokenstore.Error for the operation, or nil if err is nil.
func (s *Store) Wrap(op, id string, err error) error {
	return tokenstore.NewError(op, s.name, id, err)
}

// wrap replaces *err with the result of Wrap.
func (s *Store) wrap(err *error, op, id string) { *err = s.Wrap(op, id, *err) }

// FindToken implements tokenstore.TokenStore.
func (s *Store) FindToken(ctx context.Context, like tokenstore.Token) (tokenstore.Token, error) {
	return s.find(ctx, "find", like)
}

// FindTokenByID implements tokenstore.TokenStore.
func (s *Store) FindTokenByID(ctx context.Context, id string) (tokenstore.Token, error) {
	return s.find(ctx, "find by ID", tokenstore.Token{ID: id})
}

func (s *Store) find(ctx context.Context, op string, like tokenstore.Token) (t tokenstore.Token, err error) {
	defer s.wrap(&err, op, like.ID)
	fields, err := ready(ctx, like.Fields())
	if err != nil {
		return t, err
	}
	key := fields
	if key.ID != "" {
		key = codec.Fields{ID: key.ID} // the other fields only restrict the result
	}
	rows, err := s.table.Read(ctx, &key)
	if err != nil {
		return t, err
	}
	i, err := rows.choose(fields)
	if err != nil {
		return t, err
	}
	return tokenstore.FromFields(rules.Merge(rows.records[i].Fields, fields)), nil
}

// ready returns f in canonical form, or an error if the context is done or f is invalid.
func ready(ctx context.Context, f codec.Fields) (codec.Fields, error) {
	if err := ctx.Err(); err != nil {
		return codec.Fields{}, err
	}
	return rules.Canonical(f)
}

// SaveToken implements tokenstore.TokenStore.
func (s *Store) SaveToken(ctx context.Context, t tokenstore.Token) (_ tokenstore.Token, err error) {
	defer s.wrap(&err, "save", t.ID)
	fields, err := ready(ctx, t.Fields())
	if err != nil {
		return tokenstore.Token{}, err
	}
	// A save that changes nothing, or that must fail, needs no lock: the rows read here were
	// current at some time during the call.
	rows, err := s.table.Read(ctx, &fields)
	if err != nil {
		return tokenstore.Token{}, err
	}
	p, err := rows.plan(fields)
	if err == nil && p.Action != rules.Nothing {
		err = s.table.Precheck(ctx, p)
	}
	if err == nil && p.Action != rules.Nothing {
		err = s.table.Update(ctx, &fields, func(ctx context.Context, rows *Rows) (bool, error) {
			p, err = rows.plan(fields)
			if err != nil || p.Action == rules.Nothing {
				return false, err
			}
			p.Fields, err = rows.apply(ctx, p)
			return true, err
		})
	}
	if err != nil {
		return tokenstore.Token{}, err
	}
	return tokenstore.FromFields(p.Fields), nil
}

// DeleteToken implements tokenstore.TokenStore. If several rows have the ID, it removes
// none of them, and the error matches tokenstore.ErrAmbiguous.
func (s *Store) DeleteToken(ctx context.Context, id string) error {
	return s.delete(ctx, id, nil)
}

// DeleteIfUnchanged removes the record with the ID of t if all of its fields equal those of t.
// If a field differs, the error matches tokenstore.ErrConflict. If no record has the ID,
// DeleteIfUnchanged returns nil. If several rows have the ID, it removes none of them, and the
// error matches tokenstore.ErrAmbiguous.
func (s *Store) DeleteIfUnchanged(ctx context.Context, t tokenstore.Token) error {
	want := t.Fields()
	return s.delete(ctx, t.ID, &want)
}

// delete removes the row with the ID. If want is not nil, delete removes the row only if each
// field equals that of want.
func (s *Store) delete(ctx context.Context, id string, want *codec.Fields) (err error) {
	defer s.wrap(&err, "delete", id)
	like := codec.Fields{ID: id}
	if _, err := ready(ctx, like); err != nil {
		return err
	}
	if id == "" {
		return fmt.Errorf("%w: the ID is empty", tokenstore.ErrInvalidToken)
	}
	rows, err := s.table.Read(ctx, &like)
	if err != nil {
		return err
	}
	if _, err := rows.choose(like); errors.Is(err, tokenstore.ErrNotFound) {
		return s.table.Erased(ctx, nil, false)
	}
	err = s.table.Update(ctx, &like, func(ctx context.Context, rows *Rows) (bool, error) {
		i, err := rows.choose(like)
		switch {
		case errors.Is(err, tokenstore.ErrNotFound):
			return false, nil
		case err == nil && want != nil && rows.records[i].Fields != *want:
			err = fmt.Errorf("%w: the record is not as it was read", tokenstore.ErrConflict)
		}
		if err != nil {
			return false, err
		}
		return true, rows.Remove(ctx, []int{i}, true)
	})
	if err != nil {
		return err
	}
	return s.table.Erased(ctx, []string{id}, false)
}

// GetTokens implements tokenstore.TokenStore.
func (s *Store) GetTokens(ctx context.Context) (tokens []tokenstore.Token, err error) {
	defer s.wrap(&err, "list", "")
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	rows, err := s.table.Read(ctx, nil)
	if err != nil {
		return nil, err
	}
	return rows.tokens()
}

// DeleteTokens implements tokenstore.TokenStore.
func (s *Store) DeleteTokens(ctx context.Context) (err error) {
	defer s.wrap(&err, "delete all", "")
	if err := ctx.Err(); err != nil {
		return err
	}
	rows, err := s.table.Read(ctx, nil)
	if err != nil {
		return err
	}
	var ids []string
	var damage error
	if len(rows.records) > 0 {
		err = s.table.Update(ctx, nil, func(ctx context.Context, rows *Rows) (changed bool, err error) {
			damage = rows.unread()
			ids, err = rows.erase(ctx, func(codec.Fields) bool { return true })
			return len(ids) > 0, err
		})
	}
	if err != nil {
		return err
	}
	return errors.Join(damage, s.table.Erased(ctx, ids, true))
}
