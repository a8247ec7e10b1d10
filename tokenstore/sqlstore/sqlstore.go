package sqlstore

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"sync/atomic"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/refreshing"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rowset"
)

// MaxRecord is the largest record in bytes: that of the secret managers, so that
// what is kept here can move there. The columns of the SDKs' table in MySQL hold less.
const MaxRecord = rowset.MaxRecord

// Options configures a Store. The zero value, and a nil *Options, are good
// defaults.
type Options struct {
	// Table is the name of the table: letters, digits and underscores, at most 50.
	// Empty means "oauthtoken", which is that of the SDKs unless they are told
	// another.
	Table string

	// AnyID permits IDs of all kinds that the table's column can hold. The
	// official SDKs count with IDs, and their column has room for ten characters.
	AnyID bool

	// LeaseTTL is how long one refresh may take. 0 means 30 seconds; the least is
	// one second.
	LeaseTTL time.Duration

	// LockTimeout is how long a write waits for others. 0 means one minute.
	LockTimeout time.Duration

	// Now is the clock. Nil means time.Now.
	Now func() time.Time

	// Logger gets a record of what an operator may want to know. Never a secret
	// or a user name. Nil means none.
	Logger *slog.Logger
}

const defaultTable = "oauthtoken"

// tables is what the name of a table looks like: the same in both dialects, with
// room for the name of the second table.
var tables = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,49}$`)

// A Store is the TokenStore on a table. It keeps no token in memory between calls
// and starts no goroutine. The *sql.DB stays the caller's, who closes it.
type Store struct {
	db        *sql.DB
	dialect   dialect
	table     table
	anyID     bool
	refresher *refreshing.Refresher

	turn   chan struct{} // held by the goroutine that writes, of those that need a connection for it
	writes atomic.Int64  // how many changes were committed; tests count

	unscrubbed atomic.Bool // the files may hold what was deleted
}

var (
	_ tokenstore.TokenStore = (*Store)(nil)
	_ tokenstore.Refresher  = (*Store)(nil)
)

// New returns a Store on the table in db, which speaks the dialect. It looks at
// the table, and creates it if there is none. opts may be nil.
//
// An error about a table that is not one of the present SDKs says which it is, and
// matches tokenstore.ErrCorrupt. A database that cannot be worked with fails with
// tokenstore.ErrRefused: one of another kind, such as PostgreSQL, one that is not
// there, a character set other than utf8mb4. Nothing is written then.
func New(ctx context.Context, db *sql.DB, dialect Dialect, opts *Options) (*Store, error) {
	if db == nil {
		return nil, errors.New("sqlstore: the database is nil")
	}
	var o Options
	if opts != nil {
		o = *opts
	}
	o.Table = cmp.Or(o.Table, defaultTable)
	if !tables.MatchString(o.Table) {
		return nil, fmt.Errorf("sqlstore: %q is no name for a table", o.Table)
	}
	r, err := refreshing.New("sqlstore", o.LeaseTTL, o.LockTimeout, o.Now, o.Logger)
	if err != nil {
		return nil, err
	}
	d, err := dialect.new(o.Table)
	if err != nil {
		return nil, err
	}
	s := &Store{
		db:        db,
		dialect:   d,
		anyID:     o.AnyID,
		refresher: r,
		turn:      make(chan struct{}, 1),
	}
	s.table.name = o.Table
	if err := s.open(ctx); err != nil {
		return nil, wrap("open", "", err)
	}
	return s, nil
}

// wrap makes the one *tokenstore.Error that a method returns.
func wrap(op, id string, err error) error { return tokenstore.NewError(op, "sqlstore", id, err) }

// FindToken implements tokenstore.TokenStore.
func (s *Store) FindToken(ctx context.Context, like tokenstore.Token) (tokenstore.Token, error) {
	t, err := s.find(ctx, like)
	return t, wrap("find", like.ID, err)
}

// FindTokenByID implements tokenstore.TokenStore.
func (s *Store) FindTokenByID(ctx context.Context, id string) (tokenstore.Token, error) {
	t, err := s.find(ctx, tokenstore.Token{ID: id})
	return t, wrap("find by ID", id, err)
}

func (s *Store) find(ctx context.Context, like tokenstore.Token) (tokenstore.Token, error) {
	if err := ctx.Err(); err != nil {
		return tokenstore.Token{}, err
	}
	if err := tokenstore.Validate(like); err != nil {
		return tokenstore.Token{}, err
	}
	key := like
	if like.ID != "" {
		key = tokenstore.Token{ID: like.ID} // the rest only has to fit
	}
	v, err := s.read(ctx, s.db, describedBy(key))
	if err != nil {
		return tokenstore.Token{}, err
	}
	i, err := v.Choose(like)
	if err != nil {
		return tokenstore.Token{}, err
	}
	return tokenstore.Merge(v.Records[i].Token, like), nil
}

// SaveToken implements tokenstore.TokenStore.
func (s *Store) SaveToken(ctx context.Context, t tokenstore.Token) (tokenstore.Token, error) {
	saved, err := s.save(ctx, t)
	return saved, wrap("save", t.ID, err)
}

func (s *Store) save(ctx context.Context, t tokenstore.Token) (saved tokenstore.Token, err error) {
	if err := ctx.Err(); err != nil {
		return tokenstore.Token{}, err
	}
	if err := tokenstore.Validate(t); err != nil {
		return tokenstore.Token{}, err
	}
	// A save that changes nothing, or cannot be made, needs no lock: what it reads
	// is a state that the table had while it ran.
	v, err := s.read(ctx, s.db, describedBy(t))
	if err != nil {
		return tokenstore.Token{}, err
	}
	p, err := v.Plan(t)
	if err == nil && p.Changed {
		err = s.checkRoom(ctx, p)
	}
	if err != nil || !p.Changed {
		return p.Token, err
	}
	err = s.update(ctx, nil, func(ctx context.Context, x *tx) (changed bool, err error) {
		v, err := x.read(ctx, describedBy(t))
		if err != nil {
			return false, err
		}
		p, err := v.Plan(t)
		saved = p.Token
		if err != nil || !p.Changed {
			return false, err
		}
		saved, err = x.apply(ctx, v, p)
		return true, err
	})
	if err != nil {
		return tokenstore.Token{}, err
	}
	return saved, nil
}

// DeleteToken implements tokenstore.TokenStore. If several rows have the ID, as
// they may in a table without a primary key, none is removed and the error matches
// tokenstore.ErrAmbiguous. In SQLite nothing of the record is left in the files of the
// database afterwards: see "Removing" in the package documentation.
func (s *Store) DeleteToken(ctx context.Context, id string) error {
	return wrap("delete", id, s.delete(ctx, id, nil))
}

// delete removes the row with the ID. If check is not nil it is called with the
// record in the transaction, and its error leaves the table as it is.
func (s *Store) delete(ctx context.Context, id string, check func(tokenstore.Token) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	like := tokenstore.Token{ID: id}
	if err := tokenstore.Validate(like); err != nil {
		return err
	}
	if id == "" {
		return fmt.Errorf("%w: the ID is empty", tokenstore.ErrInvalidToken)
	}
	v, err := s.read(ctx, s.db, describedBy(like))
	if err != nil {
		return err
	}
	if _, err := v.Choose(like); errors.Is(err, tokenstore.ErrNotFound) {
		return s.scrubDeleted(ctx, smallDatabase)
	}
	err = s.update(ctx, nil, func(ctx context.Context, x *tx) (changed bool, err error) {
		v, err := x.read(ctx, describedBy(like))
		if err != nil {
			return false, err
		}
		i, err := v.Choose(like)
		switch {
		case errors.Is(err, tokenstore.ErrNotFound):
			return false, nil
		case err == nil && check != nil:
			err = check(v.Records[i].Token)
		}
		if err != nil {
			return false, err
		}
		s.unscrubbed.Store(true)
		return true, x.remove(ctx, id)
	})
	if err != nil {
		return err
	}
	return s.scrubDeleted(ctx, smallDatabase)
}

// GetTokens implements tokenstore.TokenStore.
func (s *Store) GetTokens(ctx context.Context) ([]tokenstore.Token, error) {
	ts, err := s.list(ctx)
	return ts, wrap("list", "", err)
}

func (s *Store) list(ctx context.Context) ([]tokenstore.Token, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	v, err := s.read(ctx, s.db, all)
	if err != nil {
		return nil, err
	}
	return v.Tokens()
}

// DeleteTokens implements tokenstore.TokenStore. The table stays. In SQLite nothing of
// the records is left in the files of the database afterwards, nor of those that were
// removed before.
func (s *Store) DeleteTokens(ctx context.Context) error {
	return wrap("delete all", "", s.deleteAll(ctx))
}

func (s *Store) deleteAll(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	v, err := s.read(ctx, s.db, all)
	if err != nil {
		return err
	}
	s.unscrubbed.Store(true)
	if len(v.Records) == 0 {
		return s.scrubDeleted(ctx, noLimit)
	}
	var damage error
	err = s.update(ctx, nil, func(ctx context.Context, x *tx) (changed bool, err error) {
		v, err := x.read(ctx, all)
		if err != nil {
			return false, err
		}
		var tokens []tokenstore.Token
		if tokens, damage = v.Tokens(); len(tokens) == 0 {
			return false, nil
		}
		ids := make([]string, 0, len(tokens))
		for _, t := range tokens {
			ids = append(ids, t.ID)
		}
		return true, x.remove(ctx, ids...)
	})
	if err != nil {
		return err
	}
	return errors.Join(damage, s.scrubDeleted(ctx, noLimit))
}
