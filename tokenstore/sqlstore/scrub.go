package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/doctor"
)

// scrubAll is scrub of a database of any size, whatever was removed.
func (db *database) scrubAll(ctx context.Context) error {
	db.unscrubbed.Store(true)
	return db.scrub(ctx, noLimit)
}

const (
	noLimit = -1

	// smallDatabase is the size in bytes up to which every deletion rewrites the
	// database. The time that it takes is some milliseconds for each MiB.
	smallDatabase = 64 << 20
)

// scrub is Scrub of a database that has no more bytes than limit. In a larger one
// only the write-ahead log is emptied.
func (db *database) scrub(ctx context.Context, limit int64) error {
	select {
	case db.turn <- struct{}{}:
		defer func() { <-db.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	// Of several deletions that have waited here the first one cleans up for all:
	// they were committed before it began.
	if !db.unscrubbed.Swap(false) {
		return nil
	}
	err := db.dialect.scrub(ctx, db, limit)
	if err != nil {
		db.unscrubbed.Store(true)
	}
	return err
}

// Erased implements rowstore.Table. It scrubs after a deletion that was committed, and
// after one that had nothing to do: an earlier one may have ended before it scrubbed.
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

func (d *mysql) secure(context.Context, *sql.Conn) error             { return nil }
func (d *mysql) scrub(context.Context, *database, int64) error       { return nil }
func (d *mysql) remnants(context.Context, *database) (string, error) { return "", nil }

// secure has the connection overwrite with zeros what it deletes or replaces. It is
// a setting of the connection: programs on an SDK do without, unless they ask for it.
func (d *sqlite) secure(ctx context.Context, conn *sql.Conn) error {
	if d.path == "" {
		return nil
	}
	_, err := conn.ExecContext(ctx, "PRAGMA secure_delete = ON")
	return err
}

// scrub writes the database again, so that no page of it holds what was deleted
// without secure_delete, and leaves neither a journal nor a write-ahead log with
// earlier pages.
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
	err = db.patiently(ctx, func(ctx context.Context) error {
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
	err = db.patiently(ctx, func(ctx context.Context) error {
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

// vacuum writes the database again. A connection that keeps its journal, or has it
// in memory, does so with one that is removed, as is then what others have left
// under its name.
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
	return db.patiently(ctx, func(ctx context.Context) error {
		_, err := conn.ExecContext(ctx, "VACUUM")
		return db.failed(ctx, err)
	})
}

// remnants says what there is in the database that may hold what was deleted.
func (d *sqlite) remnants(ctx context.Context, db *database) (string, error) {
	if d.path == "" {
		return "", nil
	}
	var pages int64
	err := db.patiently(ctx, func(ctx context.Context) error {
		return db.failed(ctx, db.pool.QueryRowContext(ctx, "PRAGMA freelist_count").Scan(&pages))
	})
	if err != nil || pages == 0 {
		return "", err
	}
	return fmt.Sprintf("the database has %d pages without content, which may hold what was deleted without secure_delete", pages), nil
}

// checkRemnants returns the finding that something may be left of what was removed, with
// what has become of it, or the zero Finding.
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
