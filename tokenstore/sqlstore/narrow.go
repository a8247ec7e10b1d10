package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore/doctor"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rules"
)

// A narrowError means that a value does not fit a column. It matches
// tokenstore.ErrTooLarge or, for an ID, tokenstore.ErrInvalidToken.
type narrowError struct {
	error
	column string
}

func (e narrowError) Unwrap() error { return e.error }

// Precheck implements rowstore.Table. If a value does not fit its column, Precheck inspects the
// table again, because another program may have widened the column.
func (db *database) Precheck(ctx context.Context, p rules.Plan) error {
	err := db.check(p.Fields, p.Record < 0)
	if narrow := (narrowError{}); errors.As(err, &narrow) && db.reinspect(ctx) == nil {
		return db.check(p.Fields, p.Record < 0)
	}
	return err
}

// Fits implements rowstore.Table.
func (db *database) Fits(ctx context.Context) (func(codec.Fields) error, error) {
	return func(f codec.Fields) error { return db.Precheck(ctx, rules.Plan{Record: -1, Fields: f}) }, nil
}

// makeRoom widens the column that err reports as too narrow, unless another program has already
// widened the column. It reports whether a retry may succeed. makeRoom does not widen columns in
// ownTypes. Update calls makeRoom for a new token that is stored nowhere else. The authorization
// server may already have invalidated the previous token.
func (l *refreshLock) makeRoom(ctx context.Context, err error) bool {
	narrow := narrowError{}
	if !errors.As(err, &narrow) || ownTypes[narrow.column] != "" {
		return false
	}
	if err := l.reinspect(ctx); err != nil {
		return false
	}
	if limit := l.table.room(narrow.column); limit != 0 && limit < MaxRecord-1 {
		if err := l.dialect.widen(ctx, l.querier(), narrow.column); err != nil {
			l.logger.ErrorContext(ctx, "sqlstore: a column has no room for a new token, and could not be made wider",
				"table", l.table.name, "column", narrow.column, "error", l.failed(ctx, err))
			return false
		}
		l.logger.WarnContext(ctx, "sqlstore: a column had no room for a new token, and was made wider", "table", l.table.name, "column", narrow.column)
	}
	return l.reinspect(ctx) == nil
}

func (d *sqlite) widen(context.Context, querier, string) error { return nil }

// character matches the name of a character set or collation.
var character = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z0-9_]+$`) })

// widen changes the type of a column to text, or to blob for a column of bytes. It keeps the
// character set. It also keeps the collation, unless the collation is binary: see longText. If the
// column has a default, the error matches tokenstore.ErrRefused.
func (d *mysql) widen(ctx context.Context, q querier, name string) error {
	var given, nullable, set, collation sql.NullString
	err := q.QueryRowContext(ctx, "SELECT COLUMN_DEFAULT, IS_NULLABLE, CHARACTER_SET_NAME, COLLATION_NAME FROM information_schema.COLUMNS "+
		"WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = ? AND COLUMN_NAME = ?", d.table, name).Scan(&given, &nullable, &set, &collation)
	if err != nil {
		return err
	}
	if given.Valid && given.String != "NULL" {
		return setUp("the column has a default, which a text cannot have")
	}
	kind := "blob"
	if set.Valid {
		kind = "text"
		if character().MatchString(set.String) {
			kind += " CHARACTER SET " + set.String
		}
		if character().MatchString(collation.String) && !strings.HasSuffix(collation.String, "_bin") {
			kind += " COLLATE " + collation.String
		}
	}
	if nullable.String == "NO" {
		kind += " NOT NULL"
	}
	_, err = q.ExecContext(ctx, fmt.Sprintf("ALTER TABLE `%s` MODIFY `%s` %s", d.table, name, kind))
	return err
}

// room returns the limit of the named column, in characters or bytes. 0 means no known limit.
func (t *table) room(name string) int {
	return (*t.columns.Load())[slices.Index(columnNames, name)].limit
}

// narrow returns a finding about columns that may be too narrow for a token, and reports whether
// there are such columns.
func (t *table) narrow() (doctor.Finding, bool) {
	var names []string
	least := MaxRecord
	for i, name := range columnNames {
		limit := (*t.columns.Load())[i].limit
		if strings.HasSuffix(name, "_token") && limit != 0 && limit < MaxRecord-1 {
			names = append(names, name)
			least = min(least, limit)
		}
	}
	return doctor.Finding{
		Kind: doctor.KindColumnNarrow, Name: t.name, Remedy: doctor.RemedyManual,
		Detail: fmt.Sprintf("%s: a token longer than %d cannot be saved: ALTER TABLE %s MODIFY … text", strings.Join(names, ", "), least, t.name),
	}, names != nil
}
