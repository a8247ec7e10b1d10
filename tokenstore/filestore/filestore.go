package filestore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/refreshing"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rowset"
)

// MaxRecord is the largest record in bytes: that of the secret managers, so that
// what is kept here can move there.
const MaxRecord = rowset.MaxRecord

// Options configures a Store. The zero value, and a nil *Options, are good
// defaults.
type Options struct {
	// Dialect is that of the SDK which wrote the file or is to read it. Empty
	// means that of the existing file, and Python for a new one.
	Dialect codec.Dialect

	// AnyID permits IDs of all kinds. The official SDKs fail on a file with an ID
	// that is not a number.
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

// A Store is the TokenStore on a token file. It keeps no token in memory between
// calls and no file open, and starts no goroutine.
type Store struct {
	path      string
	o         Options
	refresher *refreshing.Refresher
	writes    atomic.Int64 // how often the file was replaced; tests count
}

var (
	_ tokenstore.TokenStore = (*Store)(nil)
	_ tokenstore.Refresher  = (*Store)(nil)
)

// New returns a Store on the file at path, which need not exist. It does no I/O.
// opts may be nil.
func New(path string, opts *Options) (*Store, error) {
	if path == "" {
		return nil, errors.New("filestore: the path is empty")
	}
	var o Options
	if opts != nil {
		o = *opts
	}
	if o.Dialect != "" && !o.Dialect.Known() {
		return nil, fmt.Errorf("filestore: unknown dialect %q", string(o.Dialect))
	}
	r, err := refreshing.New("filestore", o.LeaseTTL, o.LockTimeout, o.Now, o.Logger)
	if err != nil {
		return nil, err
	}
	// What the path means is settled now, not after a change of the directory.
	path, err = filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("filestore: %w", err)
	}
	return &Store{path: path, o: o, refresher: r}, nil
}

// wrap makes the one *tokenstore.Error that a method returns.
func wrap(op, id string, err error) error { return tokenstore.NewError(op, "filestore", id, err) }

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
	v, err := s.read(ctx)
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
	// A save that changes nothing needs no lock: what it reads is a state that
	// the file had while it ran.
	v, err := s.read(ctx)
	if err != nil {
		return tokenstore.Token{}, err
	}
	if p, err := v.Plan(t); err != nil || !p.Changed {
		return p.Token, err
	}
	err = s.update(ctx, func(v *view) (changed bool, err error) {
		p, err := v.Plan(t)
		saved = p.Token
		if err != nil || !p.Changed {
			return false, err
		}
		saved, err = v.apply(p, s.o.AnyID)
		return true, err
	})
	if err != nil {
		return tokenstore.Token{}, err
	}
	return saved, nil
}

// DeleteToken implements tokenstore.TokenStore. If several rows have the ID, as
// an SDK that takes no lock may leave them, none is removed and the error matches
// tokenstore.ErrAmbiguous.
func (s *Store) DeleteToken(ctx context.Context, id string) error {
	return wrap("delete", id, s.delete(ctx, id, nil))
}

// delete removes the row with the ID. If check is not nil it is called with the
// record under the lock, and its error leaves the file as it is.
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
	v, err := s.read(ctx)
	if err != nil {
		return err
	}
	if _, err := v.Choose(like); errors.Is(err, tokenstore.ErrNotFound) {
		return nil
	}
	err = s.update(ctx, func(v *view) (changed bool, err error) {
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
		v.remove(i)
		return true, nil
	})
	if err == nil {
		s.forgetRefusal(id)
	}
	return err
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
	v, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	return v.Tokens()
}

// DeleteTokens implements tokenstore.TokenStore. The header stays.
func (s *Store) DeleteTokens(ctx context.Context) error {
	return wrap("delete all", "", s.deleteAll(ctx))
}

func (s *Store) deleteAll(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	v, err := s.read(ctx)
	if err != nil || len(v.Records) == 0 {
		return err
	}
	var ids []string
	var damage error
	err = s.update(ctx, func(v *view) (changed bool, err error) {
		damage = errors.Join(v.Damage...)
		for i := len(v.Records) - 1; i >= 0; i-- {
			if v.Damage[i] == nil {
				ids = append(ids, v.Records[i].Token.ID)
				v.remove(i)
				changed = true
			}
		}
		return changed, nil
	})
	if err != nil {
		return err
	}
	for _, id := range ids {
		s.forgetRefusal(id)
	}
	return damage
}
