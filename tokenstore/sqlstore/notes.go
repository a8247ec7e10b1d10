package sqlstore

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"strconv"
)

// A note is a row of the second table, which the SDKs do not use. The row holds a refusal, a probe
// of SameAs, or the largest ID of a deleted record. If the database refuses to create the table,
// there are no notes.
const (
	notesSuffix = "_tokenkeep" // suffix of the name of the second table
	usedNote    = "used"       // name of the note with the largest ID of a deleted record
)

func refusalNote(id string) string {
	digest := sha256.Sum256([]byte(id))
	return "refusal " + hex.EncodeToString(digest[:16])
}

func (t *table) quotedNotes() string { return "`" + t.name + notesSuffix + "`" }

// note returns the text of the named note, or "" if there is no such note.
func (db *database) note(ctx context.Context, q querier, name string) (text string, err error) {
	if !db.table.notes {
		return "", nil
	}
	var note sql.NullString
	err = q.QueryRowContext(ctx, "SELECT note FROM "+db.table.quotedNotes()+" WHERE name = ?", name).Scan(&note)
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	return note.String, db.failed(ctx, err)
}

func (x *tx) setNote(ctx context.Context, name, text string) error {
	if !x.table.notes {
		return errors.New("there is no table for notes")
	}
	_, err := x.exec(ctx, "REPLACE INTO "+x.table.quotedNotes()+" (name, note) VALUES (?, ?)", name, text)
	return err
}

func (x *tx) dropNotes(ctx context.Context, names ...string) error {
	if !x.table.notes {
		return nil
	}
	_, err := x.drop(ctx, x.table.quotedNotes(), "name", names)
	return err
}

// used returns the largest known ID of a deleted record, or 0 if no such ID is known.
func (x *tx) used(ctx context.Context) (int64, error) {
	text, err := x.note(ctx, x.conn, usedNote)
	if err != nil {
		return 0, err
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return n, nil
	}
	return 0, nil
}

// forget removes the refusals of the deleted records with the given ids. It also stores the
// parameter last, the largest number among ids, unless a larger ID is already stored.
func (x *tx) forget(ctx context.Context, ids []string, last int64) error {
	if !x.table.notes {
		return nil
	}
	var names []string
	for _, id := range ids {
		names = append(names, refusalNote(id))
	}
	if err := x.dropNotes(ctx, names...); err != nil {
		return err
	}
	used, err := x.used(ctx)
	if err != nil || last <= used {
		return err
	}
	return x.setNote(ctx, usedNote, strconv.FormatInt(last, 10))
}
