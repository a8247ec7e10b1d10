package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

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
	s.unscrubbed.Store(true)
	return wrap("scrub", "", s.scrub(ctx, noLimit))
}

const (
	noLimit = -1

	// smallDatabase is the size in bytes up to which every deletion rewrites the
	// database. The time that it takes is some milliseconds for each MiB.
	smallDatabase = 64 << 20
)

// scrub is Scrub of a database that has no more bytes than limit. In a larger one
// only the write-ahead log is emptied.
func (s *Store) scrub(ctx context.Context, limit int64) error {
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	// Of several deletions that have waited here the first one cleans up for all:
	// they were committed before it began.
	if !s.unscrubbed.Swap(false) {
		return nil
	}
	err := s.dialect.scrub(ctx, s, limit)
	if err != nil {
		s.unscrubbed.Store(true)
	}
	return err
}

// scrubDeleted is scrub after a deletion that was committed, or that had nothing to
// do because an earlier one got no further than that.
func (s *Store) scrubDeleted(ctx context.Context, limit int64) error {
	if err := s.scrub(ctx, limit); err != nil {
		return fmt.Errorf("the records are removed, but their bytes may still be in the files of the database: %w", err)
	}
	return nil
}

func (d *mysql) secure(context.Context, *sql.Conn) error          { return nil }
func (d *mysql) scrub(context.Context, *Store, int64) error       { return nil }
func (d *mysql) remnants(context.Context, *Store) (string, error) { return "", nil }

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
func (d *sqlite) scrub(ctx context.Context, s *Store, limit int64) error {
	if d.path == "" {
		return nil
	}
	conn, err := s.db.Conn(ctx)
	if err != nil {
		return s.failed(ctx, err)
	}
	defer conn.Close()
	var mode string
	var size int64
	err = s.patiently(ctx, func(ctx context.Context) error {
		return s.failed(ctx, errors.Join(
			conn.QueryRowContext(ctx, "PRAGMA journal_mode").Scan(&mode),
			conn.QueryRowContext(ctx, "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size").Scan(&size)))
	})
	if err != nil {
		return err
	}
	if limit == noLimit || size <= limit {
		if err := d.vacuum(ctx, s, conn, mode); err != nil {
			return err
		}
	}
	if mode != "wal" {
		return nil
	}
	err = s.patiently(ctx, func(ctx context.Context) error {
		var busy, pages, moved int
		err := conn.QueryRowContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &pages, &moved)
		if err == nil && busy != 0 {
			return ofClass(errBusy, errors.New("the log is in use"))
		}
		return s.failed(ctx, err)
	})
	if errors.Is(err, tokenstore.ErrUnavailable) {
		return fmt.Errorf("another connection is reading an earlier state from the write-ahead log: %w", err)
	}
	return err
}

// vacuum writes the database again. A connection that keeps its journal, or has it
// in memory, does so with one that is removed, as is then what others have left
// under its name.
func (d *sqlite) vacuum(ctx context.Context, s *Store, conn *sql.Conn, mode string) error {
	if mode != "wal" && mode != "delete" {
		if _, err := conn.ExecContext(ctx, "PRAGMA journal_mode = DELETE"); err != nil {
			return s.failed(ctx, err)
		}
		defer func() {
			end, cancel := ending(ctx)
			defer cancel()
			if _, err := conn.ExecContext(end, "PRAGMA journal_mode = "+mode); err != nil {
				discard(conn)
			}
		}()
	}
	return s.patiently(ctx, func(ctx context.Context) error {
		_, err := conn.ExecContext(ctx, "VACUUM")
		return s.failed(ctx, err)
	})
}

// remnants says what there is in the database that may hold what was deleted.
func (d *sqlite) remnants(ctx context.Context, s *Store) (string, error) {
	if d.path == "" {
		return "", nil
	}
	var pages int64
	err := s.patiently(ctx, func(ctx context.Context) error {
		return s.failed(ctx, s.db.QueryRowContext(ctx, "PRAGMA freelist_count").Scan(&pages))
	})
	if err != nil || pages == 0 {
		return "", err
	}
	return fmt.Sprintf("the database has %d pages without content, which may hold what was deleted without secure_delete", pages), nil
}
