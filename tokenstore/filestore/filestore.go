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

// MaxRecord is the maximum total length of the text fields of a record, in bytes. Packages
// awssm, k8sstore and vaultstore have the same limit.
const MaxRecord = rowstore.MaxRecord

// Options configures a Store. A nil *Options is equivalent to the zero value, which selects the
// defaults.
type Options struct {
	// Dialect is the dialect of the SDK that wrote the file or will read it. Empty means the dialect
	// of the existing file, or Python for a new file.
	Dialect codec.Dialect

	// AnyID permits IDs of any form, except the form of the IDs that package tokenstore derives. It
	// also permits values that an SDK would misread, if this package can read them back. The official
	// SDKs fail on a file with an ID that is not a number.
	AnyID bool

	// LeaseTTL is the time limit for the function mint that a caller passes to Refresh, and also
	// the time limit for storing the result of mint. 0 means 30 seconds; the minimum is one second.
	LeaseTTL time.Duration

	// LockTimeout is how long a write waits for the lock, and how long a read of a mounted file waits
	// for a writer. 0 means one minute; a negative value is an error.
	LockTimeout time.Duration

	// Now is the clock. Nil means time.Now.
	Now func() time.Time

	// Logger receives log records for operators. These log records never contain a secret or a user
	// name. Nil means no log.
	Logger *slog.Logger

	// Observer receives the outcomes of refreshes and the durations of calls, for metrics and
	// traces. It never receives a secret, a user name or an ID. Nil means no Observer.
	Observer *tokenstore.Observer
}

// A Store is a tokenstore.TokenStore that keeps its records in a token file. It caches the content
// of the file in memory, and reads the file again if the file may have changed. It keeps no file
// open between calls and starts no goroutine. Its methods are safe for concurrent use.
type Store struct {
	rows *rowstore.Store
	file *file
}

var (
	_ tokenstore.TokenStore = (*Store)(nil)
	_ tokenstore.Refresher  = (*Store)(nil)
	_ doctor.Checker        = (*Store)(nil)
)

// New returns a Store that keeps its records in the file at path. The file need not exist, and New
// does not open it. opts may be nil. New returns an error if path is empty or opts is invalid.
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
	ro, err := rowstore.Options{AnyID: o.AnyID, LeaseTTL: o.LeaseTTL, LockTimeout: o.LockTimeout, Now: o.Now, Logger: o.Logger, Observer: o.Observer}.Complete("filestore")
	if err != nil {
		return nil, err
	}
	// Make the path absolute, because the program may change its working directory later.
	path, err = filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("filestore: %w", err)
	}
	f := &file{path: path, dialect: o.Dialect, anyID: o.AnyID, lockTimeout: ro.LockTimeout, settling: settling}
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

// DeleteToken implements tokenstore.TokenStore. If several rows have the ID, which SDKs without
// locks can cause, DeleteToken removes none of them and the error matches tokenstore.ErrAmbiguous.
func (s *Store) DeleteToken(ctx context.Context, id string) error {
	return s.rows.DeleteToken(ctx, id)
}

// DeleteIfUnchanged removes the record with the ID of t if all fields of the record equal the
// fields of t. If a field differs, the error matches tokenstore.ErrConflict. If no record has the
// ID, DeleteIfUnchanged returns nil. If several rows have the ID, it removes none of them and the
// error matches tokenstore.ErrAmbiguous.
func (s *Store) DeleteIfUnchanged(ctx context.Context, t tokenstore.Token) error {
	return s.rows.DeleteIfUnchanged(ctx, t)
}

// Search returns an iterator over the records that match the token like, ordered by ID. A record
// matches if its UserName, ClientID, Issuer and Resource equal those of the token, except the
// fields that are empty in the token. If the token has neither a UserName nor a ClientID, or has a
// field other than these four, the iterator yields an error matching tokenstore.ErrInvalidToken.
// Search reads the whole file.
//
// After the records, the iterator yields an error for each unreadable row that may match. The error
// wraps a *tokenstore.UnreadableError, and the accompanying Token has only an ID. An error with the
// zero Token ends the iteration.
func (s *Store) Search(ctx context.Context, like tokenstore.Token) iter.Seq2[tokenstore.Token, error] {
	return s.rows.Search(ctx, like)
}

// GetTokens implements tokenstore.TokenStore.
func (s *Store) GetTokens(ctx context.Context) ([]tokenstore.Token, error) {
	return s.rows.GetTokens(ctx)
}

// DeleteTokens implements tokenstore.TokenStore. It keeps the records that it cannot read. The
// error then wraps a *tokenstore.UnreadableError, with the line, for each of these records.
func (s *Store) DeleteTokens(ctx context.Context) error { return s.rows.DeleteTokens(ctx) }

// Refresh implements tokenstore.Refresher. See the package documentation under
// "Refreshing".
//
// The context of mint ends after LeaseTTL. Refresh stores mint's result even if the caller's
// context is done, because the result may be the only copy of a new refresh token. If storing
// fails, Refresh retries for up to LeaseTTL, and then returns the new token with an error matching
// tokenstore.ErrNotPersisted. Refresh does not retry after a permanent error or if the record was
// deleted meanwhile.
func (s *Store) Refresh(ctx context.Context, id string, stale tokenstore.Secret, mint func(context.Context, tokenstore.Token) (tokenstore.Token, error)) (tokenstore.Token, error) {
	return s.rows.Refresh(ctx, id, stale, mint)
}

// SaveAll saves tokens in order, as SaveToken does, but replaces the file only once. It returns the
// stored records in the same order. If one of the tokens cannot be saved, SaveAll saves none, and
// the error contains the position of that token.
func (s *Store) SaveAll(ctx context.Context, tokens []tokenstore.Token) ([]tokenstore.Token, error) {
	return s.rows.SaveAll(ctx, tokens)
}

// Fits returns one result for each token: an error that says why the file cannot hold the token, or
// nil. Each of these errors matches tokenstore.ErrInvalidToken or tokenstore.ErrTooLarge. Fits does
// not compare the tokens with stored records. The ID of a token may be empty. If ctx is done or the
// file cannot be read, Fits returns no results and an error.
func (s *Store) Fits(ctx context.Context, tokens []tokenstore.Token) ([]error, error) {
	return s.rows.Fits(ctx, tokens)
}

// DeleteAll removes the records that equal one of the given tokens in every field. It replaces the
// file only once, keeps all other records, and returns the number of removed records.
func (s *Store) DeleteAll(ctx context.Context, tokens []tokenstore.Token) (deleted int, err error) {
	return s.rows.DeleteAll(ctx, tokens)
}

// Status implements doctor.StatusReader.
func (s *Store) Status(ctx context.Context, id string) (doctor.Status, error) {
	return s.rows.Status(ctx, id)
}

// Check implements doctor.Checker. It reports an unreadable file, unreadable rows, duplicate
// records, and records of different users or clients that share a token or an ID. Unless
// Options.AnyID is set, Check also reports IDs that are not numeric. Check reports files that other
// users can access, a mounted token file, and leftover files. Further findings are a lock file
// whose owner differs from the owner of the token file, and entries of the second file that belong
// to no row. Repair sets the mode of the files to 0600, and gives the lock file the owner of the
// token file. Repair also completes a partial token file and removes leftover files.
// MergeDuplicates merges duplicate records. A search for the ID of a merged record then finds no
// record, because the file has no column for earlier IDs. Purge removes the entries that belong to
// no row. Permissions, Compare and Grace have no effect.
func (s *Store) Check(ctx context.Context, opts *doctor.CheckOptions) iter.Seq2[doctor.Finding, error] {
	around := func(o doctor.CheckOptions) rowstore.Findings { return s.file.checkAround(ctx, o) }
	return s.rows.Check(ctx, opts, rowstore.Inspection{Before: around, Corrupt: unreadable})
}
