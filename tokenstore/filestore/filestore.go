package filestore

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/doctor"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rowstore"
)

// MaxRecord is the largest record in bytes. It is that of the secret managers, so that
// records can move there.
const MaxRecord = rowstore.MaxRecord

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
	rows *rowstore.Store
	file *file
}

var (
	_ tokenstore.TokenStore = (*Store)(nil)
	_ tokenstore.Refresher  = (*Store)(nil)
	_ doctor.Checker        = (*Store)(nil)
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
	ro, err := rowstore.Options{AnyID: o.AnyID, LeaseTTL: o.LeaseTTL, LockTimeout: o.LockTimeout, Now: o.Now, Logger: o.Logger}.Complete("filestore")
	if err != nil {
		return nil, err
	}
	// The path is resolved before the program changes its directory.
	path, err = filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("filestore: %w", err)
	}
	f := &file{path: path, dialect: o.Dialect, anyID: o.AnyID, lockTimeout: ro.LockTimeout}
	return &Store{rowstore.New("filestore", f, ro), f}, nil
}

// FindToken implements tokenstore.TokenStore.
func (s *Store) FindToken(ctx context.Context, like tokenstore.Token) (tokenstore.Token, error) {
	return s.rows.FindToken(ctx, like)
}

// FindTokenByID implements tokenstore.TokenStore.
func (s *Store) FindTokenByID(ctx context.Context, id string) (tokenstore.Token, error) {
	return s.rows.FindTokenByID(ctx, id)
}

// SaveToken implements tokenstore.TokenStore.
func (s *Store) SaveToken(ctx context.Context, t tokenstore.Token) (tokenstore.Token, error) {
	return s.rows.SaveToken(ctx, t)
}

// DeleteToken implements tokenstore.TokenStore. If several rows have the ID, as an SDK
// that takes no lock may leave them, DeleteToken removes none of them, and the error
// matches tokenstore.ErrAmbiguous.
func (s *Store) DeleteToken(ctx context.Context, id string) error {
	return s.rows.DeleteToken(ctx, id)
}

// DeleteIfUnchanged removes the record with the ID of t if all of its fields are those of
// t, as the method of that name of tokenstore.Store does. If several rows have the ID it
// removes none of them, and the error matches tokenstore.ErrAmbiguous.
func (s *Store) DeleteIfUnchanged(ctx context.Context, t tokenstore.Token) error {
	return s.rows.DeleteIfUnchanged(ctx, t)
}

// GetTokens implements tokenstore.TokenStore.
func (s *Store) GetTokens(ctx context.Context) ([]tokenstore.Token, error) {
	return s.rows.GetTokens(ctx)
}

// DeleteTokens implements tokenstore.TokenStore. The header stays.
func (s *Store) DeleteTokens(ctx context.Context) error { return s.rows.DeleteTokens(ctx) }

// Refresh implements tokenstore.Refresher. See the package documentation under
// "Refreshing".
//
// The context of mint ends after LeaseTTL. Refresh stores mint's result even if the
// caller's context is done: it may be the only copy of a new refresh token. If that
// fails Refresh tries again for LeaseTTL, and then returns the result with an error
// matching tokenstore.ErrNotPersisted. If the record was deleted meanwhile it returns
// that error at once.
func (s *Store) Refresh(ctx context.Context, id string, stale tokenstore.Secret, mint func(context.Context, tokenstore.Token) (tokenstore.Token, error)) (tokenstore.Token, error) {
	return s.rows.Refresh(ctx, id, stale, mint)
}

// SaveAll saves tokens as SaveToken saves each of them, one after the other, but
// reads and replaces the file only once. Either it saves all of them, and returns
// them as they are stored, in their order; or it saves none, and the error says which
// token is the reason.
func (s *Store) SaveAll(ctx context.Context, tokens []tokenstore.Token) ([]tokenstore.Token, error) {
	return s.rows.SaveAll(ctx, tokens)
}

// Fits returns, for each token, why the file cannot hold it, or nil. It is about
// the token alone: other records, and whether its ID is taken, do not matter. An
// ID may be missing. The errors match tokenstore.ErrInvalidToken or
// tokenstore.ErrTooLarge.
func (s *Store) Fits(ctx context.Context, tokens []tokenstore.Token) ([]error, error) {
	return s.rows.Fits(ctx, tokens)
}

// DeleteAll removes the records that are still as they are given, field by field, with
// one replacement of the file, and returns their number. A record that has changed
// since stays.
func (s *Store) DeleteAll(ctx context.Context, tokens []tokenstore.Token) (deleted int, err error) {
	return s.rows.DeleteAll(ctx, tokens)
}

// Check implements doctor.Checker. It reports rows that cannot be read, IDs that
// the SDKs cannot read, records that are the same, a file that others may read, one
// that is a mount point, a lock file of another user, and files that a process left
// when it died while it wrote. Repair sets the file's mode to 0600, gives the lock file
// to its owner and removes what was left; MergeDuplicates merges records that are the
// same. The ID that is given up is forgotten, because the file has no room for it.
// Permissions, Purge and Grace have no meaning here.
func (s *Store) Check(ctx context.Context, opts *doctor.CheckOptions) iter.Seq2[doctor.Finding, error] {
	around := func(o doctor.CheckOptions) rowstore.Findings { return s.file.checkAround(ctx, o) }
	return s.rows.Check(ctx, opts, rowstore.Inspection{Before: around, Corrupt: unreadable})
}
