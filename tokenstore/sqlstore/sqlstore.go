package sqlstore

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"regexp"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/doctor"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rowstore"
)

// MaxRecord is the largest record in bytes. It is that of the secret managers, so that
// records can move there. The columns of the SDKs' table in MySQL hold less.
const MaxRecord = rowstore.MaxRecord

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
	rows *rowstore.Store
	db   *database
}

var (
	_ tokenstore.TokenStore = (*Store)(nil)
	_ tokenstore.Refresher  = (*Store)(nil)
	_ doctor.Checker        = (*Store)(nil)
)

// New returns a Store on the table in db, which speaks the dialect. It looks at
// the table, and creates it if it does not exist. opts may be nil.
//
// An error about a table that is not one of the present SDKs says which it is, and
// matches tokenstore.ErrCorrupt. A database that cannot be worked with fails with
// tokenstore.ErrRefused: one of another kind, such as PostgreSQL, one that does not
// exist, a character set other than utf8mb4. Nothing is written then.
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
	ro, err := rowstore.Options{AnyID: o.AnyID, LeaseTTL: o.LeaseTTL, LockTimeout: o.LockTimeout, Now: o.Now, Logger: o.Logger}.Complete("sqlstore")
	if err != nil {
		return nil, err
	}
	d, err := dialect.new(o.Table)
	if err != nil {
		return nil, err
	}
	b := &database{pool: db, dialect: d, anyID: o.AnyID, lockTimeout: ro.LockTimeout, logger: ro.Logger, turn: make(chan struct{}, 1)}
	b.table.name = o.Table
	s := &Store{rowstore.New("sqlstore", b, ro), b}
	if err := b.open(ctx); err != nil {
		return nil, s.rows.Wrap("open", "", err)
	}
	return s, nil
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

// DeleteToken implements tokenstore.TokenStore. If several rows have the ID, as
// they may in a table without a primary key, DeleteToken removes none of them, and the
// error matches tokenstore.ErrAmbiguous. In SQLite nothing of the record is left in the
// files of the database afterwards: see "Removing" in the package documentation.
func (s *Store) DeleteToken(ctx context.Context, id string) error {
	return s.rows.DeleteToken(ctx, id)
}

// DeleteIfUnchanged removes the record with the ID of t if all of its fields are those of
// t, as the method of that name of tokenstore.Store does. The comparison and the removal
// are one transaction.
func (s *Store) DeleteIfUnchanged(ctx context.Context, t tokenstore.Token) error {
	return s.rows.DeleteIfUnchanged(ctx, t)
}

// GetTokens implements tokenstore.TokenStore.
func (s *Store) GetTokens(ctx context.Context) ([]tokenstore.Token, error) {
	return s.rows.GetTokens(ctx)
}

// DeleteTokens implements tokenstore.TokenStore. The table stays. In SQLite nothing of
// the records is left in the files of the database afterwards, nor of records that were
// removed before.
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
// in one transaction, and without a search of the table for each. Either it saves all
// of them, and returns them as they are stored, in their order; or it saves none, and
// the error says which token is the reason. Other writers wait meanwhile.
func (s *Store) SaveAll(ctx context.Context, tokens []tokenstore.Token) ([]tokenstore.Token, error) {
	return s.rows.SaveAll(ctx, tokens)
}

// Fits returns, for each token, why the table cannot hold it, or nil. It is about
// the token alone: other records, and whether its ID is taken, do not matter. An
// ID may be missing. The errors match tokenstore.ErrInvalidToken or
// tokenstore.ErrTooLarge. Other values that the database refuses, such as a character
// that a column lacks, show when they are saved.
func (s *Store) Fits(ctx context.Context, tokens []tokenstore.Token) ([]error, error) {
	return s.rows.Fits(ctx, tokens)
}

// DeleteAll removes the records that are still as they are given, field by field, in
// one transaction, and returns their number. A record that has changed since stays. In
// SQLite nothing of the removed ones is left in the files of the database. If that
// fails they are removed all the same, and the error says so.
func (s *Store) DeleteAll(ctx context.Context, tokens []tokenstore.Token) (deleted int, err error) {
	return s.rows.DeleteAll(ctx, tokens)
}

// Check implements doctor.Checker. It reports rows that cannot be read, IDs that
// the SDKs cannot read, columns with little room, and records that are the same.
// MergeDuplicates merges those records, in one transaction. The ID that is given up is
// forgotten, because the SDKs' table has no room for it. Purge is Scrub, if the
// database has room that may hold what was removed. Permissions and Grace have no
// meaning here: New has looked at the table already.
func (s *Store) Check(ctx context.Context, opts *doctor.CheckOptions) iter.Seq2[doctor.Finding, error] {
	return s.rows.Check(ctx, opts, rowstore.Inspection{After: func(o doctor.CheckOptions) rowstore.Findings {
		return func(yield func(doctor.Finding, error) bool) {
			if f, is := s.db.table.narrow(); is && !yield(f, nil) {
				return
			}
			if f, err := s.checkRemnants(ctx, o); err != nil || f.Kind != "" {
				yield(f, err)
			}
		}
	}})
}

// Scrub removes from the files of a SQLite database what is left there of rows and
// values that are not in the table any more: it writes the database again (VACUUM)
// and empties the write-ahead log. DeleteTokens and DeleteAll do so themselves, and
// DeleteToken does in a database of at most 64 MiB. Scrub is for a larger one, and for
// what programs on an SDK have removed.
//
// It fails with tokenstore.ErrUnavailable if another connection holds the database for
// longer than LockTimeout, and can be called again. In MySQL it does nothing: see
// "Removing" in the package documentation.
func (s *Store) Scrub(ctx context.Context) error {
	return s.rows.Wrap("scrub", "", s.db.scrubAll(ctx))
}
