package tokenstore

import (
	"context"
)

// SameAs reports whether s and store keep their records in one place, such as one mount
// under two addresses, whatever keys they are opened with. It creates an entry without
// a token through s, tries to create it through store, and removes it again. Records
// are not touched. If a process is killed and leaves the entry behind, a later call
// removes it, and Check reports it as KindEmpty.
//
// Writes prove the answer, whatever the lag of reads. If store may not create secrets
// its reads decide, and where they lag the error matches ErrDenied or ErrRefused. A
// store of another kind is another store. A store that embeds a *Store counts as that
// Store.
func (s *Store) SameAs(ctx context.Context, store TokenStore) (bool, error) {
	embedding, ok := store.(interface{ portable() *Store })
	if !ok {
		return false, nil
	}
	other := embedding.portable()
	if s.ledger.Driver == other.ledger.Driver {
		return true, nil
	}
	err := s.begin(ctx)
	if err == nil {
		err = other.begin(ctx)
	}
	is := false
	if err == nil {
		is, err = s.ledger.SameAs(ctx, other.ledger)
	}
	return is, s.error("compare with another store", "", err)
}

func (s *Store) portable() *Store { return s }
