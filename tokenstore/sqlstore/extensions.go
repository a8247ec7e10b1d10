package sqlstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/doctor"
)

// extensionsSuffix is the suffix of the name of the third table, which the SDKs do not use. The
// table holds the fields for which the SDKs have no column.
const extensionsSuffix = "_tokenkeep_ext"

func (t *table) quotedExtensions() string { return "`" + t.name + extensionsSuffix + "`" }

func createExtensions(name, id, text, options string) string {
	return fmt.Sprintf("CREATE TABLE IF NOT EXISTS `%s%s` (row_id %s NOT NULL, extension %s NOT NULL, primary key (row_id))%s",
		name, extensionsSuffix, id, text, options)
}

// lookForExtensions checks again whether the table of extensions exists, unless an earlier check
// found the table. Another process may have created the table since the last check. A record that
// is read without its extension would seem to have no issuer.
func (db *database) lookForExtensions(ctx context.Context, q querier) error {
	if db.table.extensions.Load() {
		return nil
	}
	columns, err := db.dialect.inspect(ctx, q, db.table.name+extensionsSuffix)
	if err != nil {
		return db.failed(ctx, err)
	}
	db.table.extensions.Store(len(columns) > 0)
	return nil
}

// setExtension stores the extension of r, or removes the stored extension if r has none.
func (x *tx) setExtension(ctx context.Context, r row) error {
	if r.extension == "" {
		return x.dropExtensions(ctx, r.columns[:1])
	}
	_, err := x.exec(ctx, "REPLACE INTO "+x.table.quotedExtensions()+" (row_id, extension) VALUES (?, ?)", r.columns[0], r.extension)
	return err
}

func (x *tx) dropExtensions(ctx context.Context, ids []string) error {
	if !x.table.extensions.Load() {
		return nil
	}
	_, err := x.drop(ctx, x.table.quotedExtensions(), "row_id", ids)
	return err
}

// strays returns the FROM and WHERE clauses that select the extensions without a row in the SDKs'
// table.
func (db *database) strays() string {
	return " FROM " + db.table.quotedExtensions() + " WHERE row_id NOT IN (SELECT " + db.dialect.idText() + " FROM " + db.table.quoted() + " WHERE id IS NOT NULL)"
}

// checkStrays returns the finding about extensions that belong to no row. The finding includes the
// outcome of the repair. If every extension has a row, checkStrays returns the zero Finding.
func (db *database) checkStrays(ctx context.Context, o doctor.CheckOptions) (f doctor.Finding, err error) {
	if !db.table.extensions.Load() {
		return f, nil
	}
	var n int
	err = db.withRetries(ctx, func(ctx context.Context) error {
		return db.failed(ctx, db.pool.QueryRowContext(ctx, "SELECT COUNT(*)"+db.strays()).Scan(&n))
	})
	if err != nil || n == 0 {
		return f, err
	}
	f = doctor.Finding{
		Kind: doctor.KindDue, Name: db.table.name + extensionsSuffix, Remedy: doctor.RemedyPurge, Action: "remove them",
		Detail: fmt.Sprintf("%d rows belong to records that another program has removed", n),
	}
	if !o.Purge {
		return f, nil
	}
	f.Err = db.update(ctx, nil, func(ctx context.Context, x *tx) (bool, error) {
		x.unscrubbed.Store(true)
		_, err := x.exec(ctx, "DELETE"+db.strays())
		return true, err
	})
	f.Repaired = f.Err == nil
	return f, nil
}

// openExtensions creates the table of extensions unless it exists. If the database refuses to
// create the table, openExtensions only logs a warning. Saves of records that need an extension
// then fail with tokenstore.ErrInvalidToken.
func (db *database) openExtensions(ctx context.Context, create string) error {
	columns, err := db.ensure(ctx, db.table.name+extensionsSuffix, create)
	if errors.Is(err, tokenstore.ErrDenied) || errors.Is(err, tokenstore.ErrRefused) {
		db.logger.WarnContext(ctx, "sqlstore: there is no table for the fields that the SDKs do not know, and it may not be created: records with such fields are refused",
			"table", db.table.name+extensionsSuffix)
		return nil
	}
	db.table.extensions.Store(len(columns) > 0)
	return err
}
