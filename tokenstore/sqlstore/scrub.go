package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/doctor"
)

func (db *database) scrubAll(ctx context.Context) error {
	db.unscrubbed.Store(true)
	return db.scrub(ctx, noLimit)
}

const (
	noLimit = -1

	// smallDatabase is the maximum size, in bytes, of a database that every deletion
	// rewrites. A rewrite takes some milliseconds per MiB.
	smallDatabase = 64 << 20
)

// scrub is like Scrub, but if the database has more than limit bytes, scrub only empties the
// write-ahead log. noLimit permits any size. If db has deleted nothing since the last successful
// scrub, scrub does nothing.
func (db *database) scrub(ctx context.Context, limit int64) error {
	select {
	case db.turn <- struct{}{}:
		defer func() { <-db.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	// If several deletions waited for db.turn, the first scrub serves all of them, because all
	// deletions were committed before the scrub began.
	if !db.unscrubbed.Swap(false) {
		return nil
	}
	err := db.dialect.scrub(ctx, db, limit)
	if err != nil {
		db.unscrubbed.Store(true)
	}
	return err
}

// Erased implements rowstore.Table. It calls scrub even if the deletion found no row, because an
// earlier deletion may have failed between its commit and its scrub.
func (db *database) Erased(ctx context.Context, _ []string, all bool) error {
	limit := int64(smallDatabase)
	if all {
		db.unscrubbed.Store(true)
		limit = noLimit
	}
	if err := db.scrub(ctx, limit); err != nil {
		return fmt.Errorf("the records are removed, but their bytes may still be in the files of the database: %w", err)
	}
	return nil
}

func (d *mysql) prepare(context.Context, *sql.Conn) error            { return nil }
func (d *mysql) scrub(context.Context, *database, int64) error       { return nil }
func (d *mysql) remnants(context.Context, *database) (string, error) { return "", nil }

// prepare configures a connection to a file. SQLite then overwrites deleted and replaced data with
// zeros, and keeps pages in memory until the commit. If SQLite spilled pages before the commit, a
// change to many rows would write and reread each page of a token index many times. The settings
// apply only to conn, not to the connections of programs that use an SDK.
func (d *sqlite) prepare(ctx context.Context, conn *sql.Conn) error {
	if d.path == "" {
		return nil
	}
	for _, setting := range []string{"PRAGMA secure_delete = ON", "PRAGMA cache_spill = OFF"} {
		if _, err := conn.ExecContext(ctx, setting); err != nil {
			return err
		}
	}
	return nil
}

// scrub rewrites a database of at most limit bytes. After the rewrite, no page contains data
// that was deleted without secure_delete, and no journal remains. In a database of any size,
// scrub empties the write-ahead log.
func (d *sqlite) scrub(ctx context.Context, db *database, limit int64) error {
	if d.path == "" {
		return nil
	}
	conn, err := db.pool.Conn(ctx)
	if err != nil {
		return db.failed(ctx, err)
	}
	defer conn.Close()
	var mode string
	var size int64
	err = db.withRetries(ctx, func(ctx context.Context) error {
		return db.failed(ctx, errors.Join(
			conn.QueryRowContext(ctx, "PRAGMA journal_mode").Scan(&mode),
			conn.QueryRowContext(ctx, "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size").Scan(&size)))
	})
	if err != nil {
		return err
	}
	if limit == noLimit || size <= limit {
		if err := d.vacuum(ctx, db, conn, mode); err != nil {
			return err
		}
	}
	if mode != "wal" {
		return nil
	}
	err = db.withRetries(ctx, func(ctx context.Context) error {
		var busy, pages, moved int
		err := conn.QueryRowContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &pages, &moved)
		if err == nil && busy != 0 {
			return ofClass(errBusy, errors.New("the log is in use"))
		}
		return db.failed(ctx, err)
	})
	if errors.Is(err, tokenstore.ErrUnavailable) {
		return fmt.Errorf("another connection is reading an earlier state from the write-ahead log: %w", err)
	}
	return err
}

// vacuum rewrites the database. In a journal mode other than WAL or DELETE, the connection might
// leave the journal file in place. vacuum therefore uses mode DELETE during the rewrite. The change
// of mode also removes journals that other programs left. If vacuum cannot restore the mode, it
// closes conn.
func (d *sqlite) vacuum(ctx context.Context, db *database, conn *sql.Conn, mode string) error {
	if mode != "wal" && mode != "delete" {
		if _, err := conn.ExecContext(ctx, "PRAGMA journal_mode = DELETE"); err != nil {
			return db.failed(ctx, err)
		}
		defer func() {
			end, cancel := ending(ctx)
			defer cancel()
			if _, err := conn.ExecContext(end, "PRAGMA journal_mode = "+mode); err != nil {
				discard(conn)
			}
		}()
	}
	return db.withRetries(ctx, func(ctx context.Context) error {
		_, err := conn.ExecContext(ctx, "VACUUM")
		return db.failed(ctx, err)
	})
}

// remnants returns a description of the pages of the database that may contain deleted data, or ""
// if there are none.
func (d *sqlite) remnants(ctx context.Context, db *database) (string, error) {
	if d.path == "" {
		return "", nil
	}
	var pages int64
	err := db.withRetries(ctx, func(ctx context.Context) error {
		return db.failed(ctx, db.pool.QueryRowContext(ctx, "PRAGMA freelist_count").Scan(&pages))
	})
	if err != nil || pages == 0 {
		return "", err
	}
	return fmt.Sprintf("the database has %d pages without content, which may hold what was deleted without secure_delete", pages), nil
}

// checkRemnants returns the finding that deleted data may remain, with the outcome of the
// repair. It returns the zero Finding if there is no such data.
func (s *Store) checkRemnants(ctx context.Context, o doctor.CheckOptions) (doctor.Finding, error) {
	what, err := s.db.dialect.remnants(ctx, s.db)
	if err != nil || what == "" {
		return doctor.Finding{}, err
	}
	f := doctor.Finding{Kind: doctor.KindDue, Detail: what, Remedy: doctor.RemedyPurge, Action: "write the database again"}
	if o.Purge {
		f.Err = s.Scrub(ctx)
		f.Repaired = f.Err == nil
	}
	return f, nil
}
