package sqlstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

func (db *database) open(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	err := db.withRetries(ctx, func(ctx context.Context) error {
		err := db.dialect.open(ctx, db.pool)
		if err != nil && ctx.Err() == nil {
			if other := db.otherKind(ctx); other != nil {
				return other
			}
		}
		return db.failed(ctx, err)
	})
	if err != nil {
		return err
	}
	createTable, createNotes, createExtensions := db.dialect.create()
	columns, err := db.ensure(ctx, db.table.name, createTable)
	if err != nil {
		return err
	}
	if err := db.table.adopt(columns); err != nil {
		return err
	}
	err = db.withRetries(ctx, func(ctx context.Context) error { return db.failed(ctx, db.dialect.check(ctx, db.pool)) })
	if err != nil {
		return err
	}
	notes, err := db.ensure(ctx, db.table.name+notesSuffix, createNotes)
	if errors.Is(err, tokenstore.ErrDenied) || errors.Is(err, tokenstore.ErrRefused) {
		db.logger.WarnContext(ctx, "sqlstore: there is no table for notes, and it may not be created: refusals are not kept, and IDs may be used again",
			"table", db.table.name+notesSuffix)
		err = nil
	}
	if err != nil {
		return err
	}
	db.table.notes = len(notes) > 0
	if err := db.openExtensions(ctx, createExtensions); err != nil {
		return err
	}
	return db.index(ctx)
}

// index creates missing indexes. If index fails before ctx is done, it only logs a warning,
// because searches work without indexes.
func (db *database) index(ctx context.Context) error {
	var missing []string
	err := db.withRetries(ctx, func(ctx context.Context) (err error) {
		missing, err = db.dialect.missingIndexes(ctx, db.pool)
		return db.failed(ctx, err)
	})
	if err == nil && len(missing) > 0 {
		err = db.update(ctx, nil, func(ctx context.Context, x *tx) (bool, error) {
			for _, column := range missing {
				if _, err := x.exec(ctx, createIndex(db.table.name, column)); err != nil {
					return false, err
				}
			}
			return true, nil
		})
	}
	if err != nil && ctx.Err() == nil {
		db.logger.WarnContext(ctx, "sqlstore: indexes could not be created: searches read all rows", "table", db.table.name, "error", err)
		return nil
	}
	return err
}

// indexed lists the columns that FindToken and SaveToken compare, except the primary key.
var indexed = []string{"user_name", "access_token", "refresh_token", "grant_token"}

func createIndex(table, column string) string {
	return fmt.Sprintf("CREATE INDEX IF NOT EXISTS `%s%s_%s` ON `%s` (%s)", table, notesSuffix, column, table, column)
}

// otherKind returns an error if it detects a database of another kind than the dialect.
func (db *database) otherKind(ctx context.Context) error {
	var version string
	if db.pool.QueryRowContext(ctx, "SELECT sqlite_version()").Scan(&version) == nil {
		if _, ok := db.dialect.(*sqlite); !ok {
			return setUp("the database is SQLite: the dialect must be SQLite")
		}
		return nil
	}
	if db.pool.QueryRowContext(ctx, "SELECT version()").Scan(&version) != nil {
		return nil
	}
	switch _, ok := db.dialect.(*mysql); {
	case strings.Contains(version, "PostgreSQL"), strings.Contains(version, "Cockroach"):
		return setUp("the database is PostgreSQL, which is not supported: MySQL, MariaDB and SQLite are")
	case !ok:
		return setUp("the database is MySQL or MariaDB: the dialect must be MySQL")
	}
	return nil
}

// reinspect reads the columns of the table again, because another program may have widened
// them.
func (db *database) reinspect(ctx context.Context) error {
	return db.withRetries(ctx, func(ctx context.Context) error {
		have, err := db.dialect.inspect(ctx, db.pool, db.table.name)
		if err != nil {
			return db.failed(ctx, err)
		}
		return db.table.adopt(have)
	})
}

// ensure returns the columns of the named table. If the table does not exist, ensure first
// creates the table with the statement in create.
func (db *database) ensure(ctx context.Context, table, create string) ([]found, error) {
	for range 2 {
		var columns []found
		err := db.withRetries(ctx, func(ctx context.Context) (err error) {
			columns, err = db.dialect.inspect(ctx, db.pool, table)
			return db.failed(ctx, err)
		})
		if err != nil || len(columns) > 0 {
			return columns, err
		}
		err = db.update(ctx, nil, func(ctx context.Context, x *tx) (bool, error) {
			_, err := x.exec(ctx, create)
			return true, err
		})
		if err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("%w: the table %q was created but does not exist", tokenstore.ErrUnavailable, table)
}

// adopt stores in t the limits of the columns of an existing table. If columns are missing, the
// error matches tokenstore.ErrCorrupt.
func (t *table) adopt(have []found) error {
	names := make([]string, 0, len(have))
	for i := range have {
		have[i].name = strings.ToLower(have[i].name) // column names are case-insensitive
		names = append(names, have[i].name)
	}
	var missing []string
	known := make([]column, len(columnNames))
	for i, name := range columnNames {
		if j := slices.Index(names, name); j >= 0 {
			known[i] = have[j].column
		} else {
			missing = append(missing, name)
		}
	}
	if missing == nil {
		t.columns.Store(&known)
		return nil
	}
	return fmt.Errorf("%w: the table %q is %s: it lacks %s", tokenstore.ErrCorrupt, t.name, generation(names), strings.Join(missing, ", "))
}

// generation returns a text that describes the older SDK whose table has the given columns, or says
// that no Zoho SDK has such a table.
func generation(names []string) string {
	has := func(name string) bool { return slices.Contains(names, name) }
	switch {
	case has("useridentifier") && has("accesstoken"):
		return "that of the first SDK for PHP"
	case has("user_mail") && !has("client_secret"):
		return "that of the SDKs of generation 2 for Node and PHP"
	case has("user_mail"):
		return "that of the SDKs of generations 2 to 4"
	case has("user_name") && has("access_token") && !has("api_domain"):
		return "that of an SDK before generation 8"
	}
	return "not one of the Zoho SDKs"
}
