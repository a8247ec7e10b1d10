package main

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"net/url"
	"os"
	"path/filepath"
	"time"

	_ "modernc.org/sqlite" // the driver "sqlite"

	"github.com/tokenkeep/tokenkeep/cli/scheme"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/driverkit"
	"github.com/tokenkeep/tokenkeep/tokenstore/memstore"
)

// open opens the box whose path is o.Rest. It is the function Open of a scheme.Scheme.
func open(ctx context.Context, o *scheme.Opening) (*scheme.Opened, error) {
	path, _, err := scheme.Query(o.Rest)
	if err != nil || path == "" {
		return nil, scheme.Usagef("box: needs a path, without parameters")
	}
	if path, err = filepath.Abs(path); err != nil {
		return nil, err
	}
	create := func(ctx context.Context) (*scheme.Opened, error) {
		b, err := newBox(ctx, path)
		if err != nil {
			return nil, err
		}
		return &scheme.Opened{Driver: b, Place: "box " + path}, nil
	}
	_, err = os.Stat(path)
	switch there := !errors.Is(err, fs.ErrNotExist); {
	case !there && o.MustExist:
		return nil, errors.New("there is no such box")
	case !there && o.ReadOnly: // an empty driver in memory, until the command writes a record
		return &scheme.Opened{Driver: memstore.NewDriver(), Place: "box " + path, Writable: create}, nil
	}
	return create(ctx)
}

// A box is a driver that keeps secrets in a table of a SQLite file. An UPDATE or DELETE of a
// row compares the version of the row, and is therefore a compare-and-swap.
type box struct{ db *sql.DB }

// schema creates the table of the secrets. In the column labels, a space precedes and follows
// each "key=value". A version is random, so that no two states have the same version.
const schema = `CREATE TABLE IF NOT EXISTS secrets (
	name TEXT PRIMARY KEY, version TEXT NOT NULL, data BLOB NOT NULL, labels TEXT NOT NULL, incarnation TEXT NOT NULL, updated INTEGER NOT NULL)`

// newBox returns a driver on the file at path, and creates the file if there is none.
func newBox(ctx context.Context, path string) (*box, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600) // SQLite would create a file that all users can read
	if err != nil {
		return nil, err
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	name := url.URL{Scheme: "file", Path: filepath.ToSlash(path), RawQuery: "_pragma=busy_timeout(10000)&_pragma=secure_delete(1)"}
	db, err := sql.Open("sqlite", name.String())
	if err != nil {
		return nil, err
	}
	b := &box{db}
	if _, err := db.ExecContext(ctx, schema); err != nil {
		return nil, errors.Join(b.failed(ctx, "open", "", err), db.Close())
	}
	return b, nil
}

// failed adds the operation and the name of the secret to err. The error matches ctx.Err() if
// ctx is done, and driver.ErrUnavailable otherwise. The text of err appears in the error,
// because errors of SQLite do not contain the data.
func (b *box) failed(ctx context.Context, operation, name string, err error) error {
	return fmt.Errorf("box: %s %s: %w", operation, name, driverkit.CallError(ctx, err, driver.ErrUnavailable))
}

// Properties implements driver.Secrets.
func (b *box) Properties() driver.Properties { return driver.Properties{Name: "box", MaxSize: 1 << 20} }

// Get implements driver.Secrets.
func (b *box) Get(ctx context.Context, name string) (driver.Secret, error) {
	found, err := b.query(ctx, "name = ?", name)
	if err != nil {
		return driver.Secret{}, b.failed(ctx, "get", name, err)
	}
	if len(found) == 0 {
		return driver.Secret{}, fmt.Errorf("box: get %s: %w", name, driver.ErrNotFound)
	}
	return found[0].Secret, nil
}

// Fresh implements driver.Secrets. It is like Get, because reads do not lag.
func (b *box) Fresh(ctx context.Context, name string, _ driver.Secret) (driver.Secret, error) {
	return b.Get(ctx, name)
}

// Create implements driver.Secrets.
func (b *box) Create(ctx context.Context, name string, p driver.Payload) (driver.Version, error) {
	version := rand.Text()
	changed, err := b.exec(ctx, "INSERT OR IGNORE INTO secrets (name, version, data, labels, incarnation, updated) VALUES (?, ?, ?, ?, ?, ?)",
		name, version, p.Data, labels(p.Labels), p.Incarnation, time.Now().UnixMilli())
	if err != nil {
		return "", b.failed(ctx, "create", name, err)
	}
	if !changed {
		return "", fmt.Errorf("box: create %s: %w", name, driver.ErrExists)
	}
	return driver.Version(version), nil
}

// Update implements driver.Secrets.
func (b *box) Update(ctx context.Context, name string, base driver.Secret, p driver.Payload) (driver.Version, error) {
	version := rand.Text()
	changed, err := b.exec(ctx, "UPDATE secrets SET version = ?, data = ?, labels = ?, updated = ? WHERE name = ? AND version = ?",
		version, p.Data, labels(p.Labels), time.Now().UnixMilli(), name, string(base.Version))
	if err != nil {
		return "", b.failed(ctx, "update", name, err)
	}
	if !changed {
		return "", fmt.Errorf("box: update %s: %w", name, driver.ErrConflict)
	}
	return driver.Version(version), nil
}

// Delete implements driver.Secrets.
func (b *box) Delete(ctx context.Context, name string, base driver.Secret) error {
	changed, err := b.exec(ctx, "DELETE FROM secrets WHERE name = ? AND version = ?", name, string(base.Version))
	if err != nil {
		return b.failed(ctx, "delete", name, err)
	}
	if changed {
		return nil
	}
	if _, err := b.Get(ctx, name); !errors.Is(err, driver.ErrNotFound) {
		return errors.Join(fmt.Errorf("box: delete %s: %w", name, driver.ErrConflict), err)
	}
	return nil
}

// Lookup implements driver.Secrets.
func (b *box) Lookup(ctx context.Context, wanted []driver.Label) iter.Seq2[driver.Named, error] {
	where, args := "FALSE", []any{}
	for _, l := range wanted {
		where, args = where+" OR instr(labels, ?)", append(args, labels([]driver.Label{l}))
	}
	return b.each(ctx, where, args...)
}

// List implements driver.Secrets.
func (b *box) List(ctx context.Context) iter.Seq2[driver.Named, error] { return b.each(ctx, "TRUE") }

// Names implements driver.Secrets.
func (b *box) Names(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for s, err := range b.List(ctx) {
			if !yield(s.Name, err) {
				return
			}
		}
	}
}

// Close implements driver.Secrets.
func (b *box) Close() error { return b.db.Close() }

// labels returns the value of the column labels. It omits the field Nonce of each label,
// because Lookup ignores Nonce.
func labels(all []driver.Label) string {
	text := " "
	for _, l := range all {
		text += l.Key + "=" + l.Value + " "
	}
	return text
}

// exec runs a statement, and reports whether the statement changed a row.
func (b *box) exec(ctx context.Context, statement string, args ...any) (changed bool, err error) {
	result, err := b.db.ExecContext(ctx, statement, args...)
	if err != nil {
		return false, err
	}
	n, err := result.RowsAffected()
	return n > 0, err
}

// query returns the secrets of the rows that match a condition.
func (b *box) query(ctx context.Context, where string, args ...any) (found []driver.Named, err error) {
	rows, err := b.db.QueryContext(ctx, "SELECT name, version, data, incarnation, updated FROM secrets WHERE "+where, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var s driver.Named
		var updated int64
		if err := rows.Scan(&s.Name, &s.Version, &s.Data, &s.Incarnation, &updated); err != nil {
			return nil, errors.New("the row of a secret has another form") // the error of Scan can quote the row
		}
		s.Updated = time.UnixMilli(updated)
		found = append(found, s)
	}
	return found, rows.Err()
}

// each yields the secrets of the rows that match a condition. It stops with an error if the
// query fails or ctx is done.
func (b *box) each(ctx context.Context, where string, args ...any) iter.Seq2[driver.Named, error] {
	return func(yield func(driver.Named, error) bool) {
		found, err := b.query(ctx, where, args...)
		if err != nil {
			yield(driver.Named{}, b.failed(ctx, "list", "", err))
			return
		}
		for _, s := range found {
			if err := ctx.Err(); err != nil {
				yield(driver.Named{}, err)
				return
			}
			if !yield(s, nil) {
				return
			}
		}
	}
}
