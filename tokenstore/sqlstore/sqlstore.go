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
	"sync"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/doctor"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rowstore"
)

// MaxRecord is the maximum total length of the text fields of a record, in bytes. Packages
// awssm, k8sstore and vaultstore have the same limit. The columns of the SDKs' table in MySQL
// hold less.
const MaxRecord = rowstore.MaxRecord

// Options configures a Store. A nil *Options is equivalent to the zero value, which selects the
// defaults.
type Options struct {
	// Table is the name of the table: at most 50 letters, digits and underscores, without a
	// leading digit. Empty means "oauthtoken", the default of the SDKs.
	Table string

	// AnyID permits IDs of any form that the table's column can hold, except the form of the IDs that
	// package tokenstore derives. Otherwise, the ID of a new record must be a number from 1 to
	// 9999999999 without leading zeros, because the SDKs increment IDs.
	AnyID bool

	// LeaseTTL is the time limit for the function mint that a caller passes to Refresh, and also
	// the time limit for storing the result of mint. 0 means 30 seconds; the minimum is one second.
	LeaseTTL time.Duration

	// LockTimeout is how long an operation waits while other programs lock the table. 0 means one
	// minute; a negative value is an error.
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

const defaultTable = "oauthtoken"

// tables matches valid table names. The limit of 50 characters leaves room for the suffixes of the
// second and the third table.
var tables = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,49}$`) })

// A Store is a tokenstore.TokenStore that keeps its records in a table. It keeps no token in memory
// between calls and starts no goroutine. Its methods are safe for concurrent use. The caller closes
// the *sql.DB.
type Store struct {
	rows *rowstore.Store
	db   *database
}

var (
	_ tokenstore.TokenStore = (*Store)(nil)
	_ tokenstore.Refresher  = (*Store)(nil)
	_ doctor.Checker        = (*Store)(nil)
)

// New returns a Store that keeps its records in a table of db, a database of the given dialect. New
// creates missing tables and, in SQLite, missing indexes: see the package documentation. opts may
// be nil.
//
// If an existing table lacks columns of the current SDKs, the error matches tokenstore.ErrCorrupt
// and names the columns. If the table belongs to an older SDK, the error also describes that SDK.
// If the database is unsuitable, the error matches tokenstore.ErrRefused. Examples are a database
// of another kind, such as PostgreSQL, and a connection whose character set is not utf8mb4.
func New(ctx context.Context, db *sql.DB, dialect Dialect, opts *Options) (*Store, error) {
	if db == nil {
		return nil, errors.New("sqlstore: the database is nil")
	}
	var o Options
	if opts != nil {
		o = *opts
	}
	o.Table = cmp.Or(o.Table, defaultTable)
	if !tables().MatchString(o.Table) {
		return nil, fmt.Errorf("sqlstore: %q is not a table name", o.Table)
	}
	ro, err := rowstore.Options{AnyID: o.AnyID, LeaseTTL: o.LeaseTTL, LockTimeout: o.LockTimeout, Now: o.Now, Logger: o.Logger, Observer: o.Observer}.Complete("sqlstore")
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

// DeleteToken implements tokenstore.TokenStore. In a table without a primary key, several
// rows may have the ID. DeleteToken then removes none of them, and the error matches
// tokenstore.ErrAmbiguous. In SQLite, a deletion also removes the record from the files of
// the database: see "Removing" in the package documentation.
func (s *Store) DeleteToken(ctx context.Context, id string) error {
	return s.rows.DeleteToken(ctx, id)
}

// DeleteIfUnchanged removes the record with the ID of t if all fields of the record equal the
// fields of t. The comparison and the removal are one transaction. If a field differs, the error
// matches tokenstore.ErrConflict. If no record has the ID, DeleteIfUnchanged returns nil. If
// several rows have the ID, it removes none of them, and the error matches tokenstore.ErrAmbiguous.
func (s *Store) DeleteIfUnchanged(ctx context.Context, t tokenstore.Token) error {
	return s.rows.DeleteIfUnchanged(ctx, t)
}

// Search returns an iterator over the records that match the token like, ordered by ID. A record
// matches if its UserName, ClientID, Issuer and Resource equal those of the token, except the
// fields that are empty in the token. If the token has neither a UserName nor a ClientID, or has a
// field other than these four, the iterator yields an error matching tokenstore.ErrInvalidToken.
// Search selects rows by user_name or, without a UserName, by client_id.
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
// error then wraps a *tokenstore.UnreadableError for each of these records. If no other error
// occurs, no data from the removed records remains in the files of a SQLite database.
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

// SaveAll saves tokens in order, as SaveToken does, but in one transaction and without a search of
// the table for each token. It returns the stored records in the same order. If one of the tokens
// cannot be saved, SaveAll saves none, and the error contains the position of that token. Other
// writers wait until the transaction ends.
func (s *Store) SaveAll(ctx context.Context, tokens []tokenstore.Token) ([]tokenstore.Token, error) {
	return s.rows.SaveAll(ctx, tokens)
}

// Fits returns one result for each token: an error that says why the table cannot hold the token,
// or nil. Each of these errors matches tokenstore.ErrInvalidToken or tokenstore.ErrTooLarge. Fits
// does not compare the tokens with stored records. The ID of a token may be empty. Fits does not
// detect every value that the database refuses, such as a character that a column cannot hold. If
// ctx is done, Fits returns no results and the error from ctx.
func (s *Store) Fits(ctx context.Context, tokens []tokenstore.Token) ([]error, error) {
	return s.rows.Fits(ctx, tokens)
}

// DeleteAll removes, in one transaction, the records that equal one of the given tokens in every
// field. It keeps all other records, and returns the number of removed records. Afterwards, no data
// from the removed records remains in the files of a SQLite database. If only the rewrite of the
// files fails, the error says that the records are removed.
func (s *Store) DeleteAll(ctx context.Context, tokens []tokenstore.Token) (deleted int, err error) {
	return s.rows.DeleteAll(ctx, tokens)
}

// Status implements doctor.StatusReader.
func (s *Store) Status(ctx context.Context, id string) (doctor.Status, error) {
	return s.rows.Status(ctx, id)
}

// Check implements doctor.Checker. It reports unreadable rows, narrow columns, duplicate records,
// and records of different users or clients that share a token or an ID. Unless Options.AnyID is
// set, Check also reports IDs that are not numeric. Further findings are rows of the third table
// whose record another program removed, and free pages that may contain deleted data.
// MergeDuplicates merges duplicates in one transaction. A search for the ID of a merged record then
// finds no record, because the SDKs' table has no column for earlier IDs. Purge removes the rows of
// the third table whose record was removed, and runs Scrub if Check finds free pages. Permissions,
// Compare and Grace have no effect.
func (s *Store) Check(ctx context.Context, opts *doctor.CheckOptions) iter.Seq2[doctor.Finding, error] {
	return s.rows.Check(ctx, opts, rowstore.Inspection{After: func(o doctor.CheckOptions) rowstore.Findings {
		return func(yield func(doctor.Finding, error) bool) {
			if f, is := s.db.table.narrow(); is && !yield(f, nil) {
				return
			}
			for _, check := range []func(context.Context, doctor.CheckOptions) (doctor.Finding, error){s.db.checkStrays, s.checkRemnants} {
				f, err := check(ctx, o)
				if (err != nil || f.Kind != "") && !yield(f, err) || err != nil {
					return
				}
			}
		}
	}})
}

// Scrub removes the remains of deleted rows and replaced values from the files of a SQLite
// database. It rewrites the database (VACUUM) and empties the write-ahead log. DeleteTokens and
// DeleteAll do the same, and so do DeleteToken and DeleteIfUnchanged in a database of at most 64
// MiB. Call Scrub after deletions from a larger database, and after a program that uses an SDK has
// removed rows.
//
// If another connection uses the database for longer than LockTimeout, the error matches
// tokenstore.ErrUnavailable, and Scrub can be repeated. In MySQL, Scrub does nothing: see
// "Removing" in the package documentation.
func (s *Store) Scrub(ctx context.Context) error {
	return s.rows.Wrap("scrub", "", s.db.scrubAll(ctx))
}
