package sqlstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

const probeNote = "probe "

// probeAge is the age at which SameAs assumes that a probe was left by a killed process.
const probeAge = time.Hour

// SameAs reports whether s and other use the same table, even if they connect through different
// host names. SameAs writes a note into the second table of s, looks for the note in the second
// table of other, and removes the note. It does not change records. It also removes notes that
// killed calls left more than an hour ago. If s or other has no second table, the error matches
// tokenstore.ErrDenied. SameAs returns false for a store of another kind. A store that embeds a
// *Store counts as the embedded Store.
func (s *Store) SameAs(ctx context.Context, other tokenstore.TokenStore) (bool, error) {
	embedding, ok := other.(interface{ tokenTable() *database })
	if !ok {
		return false, nil
	}
	is, err := s.db.sameAs(ctx, embedding.tokenTable())
	return is, s.rows.Wrap("compare with another store", "", err)
}

func (s *Store) tokenTable() *database { return s.db }

func (db *database) sameAs(ctx context.Context, other *database) (is bool, err error) {
	if !db.table.notes || !other.table.notes {
		return false, fmt.Errorf("%w: a table for notes is missing, which may not be created", tokenstore.ErrDenied)
	}
	name := fmt.Sprintf("%s%d %s", probeNote, time.Now().Unix(), rand.Text())
	err = db.update(ctx, nil, func(ctx context.Context, x *tx) (bool, error) {
		old := fmt.Sprintf("%s%d", probeNote, time.Now().Add(-probeAge).Unix())
		if _, err := x.exec(ctx, "DELETE FROM "+x.table.quotedNotes()+" WHERE name > ? AND name < ?", probeNote, old); err != nil {
			return false, err
		}
		return true, x.setNote(ctx, name, "is this one table?")
	})
	if err != nil {
		return false, err
	}
	defer func() {
		ctx, cancel := ending(ctx)
		defer cancel()
		err = errors.Join(err, db.update(ctx, nil, func(ctx context.Context, x *tx) (bool, error) {
			return true, x.dropNotes(ctx, name)
		}))
	}()
	found, err := other.note(ctx, other.pool, name)
	return found != "", err
}
