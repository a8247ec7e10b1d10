package tokenstore

import (
	"context"
)

// SameAs reports whether s and store keep their records in the same place, such as one
// mount under two addresses. The keys of s and store may differ. SameAs creates an entry
// without a token through s, tries to create it through store, and removes it again. SameAs
// does not touch records. If a process is killed and leaves the entry behind, a later call
// removes it, and Check reports it as KindEmpty.
//
// The result is proved by writes, and does not depend on the lag of reads. If store may not
// create secrets, SameAs looks for the entry through store instead. If store does not show
// the entry and its reads lag, the error matches ErrDenied or ErrRefused. SameAs returns
// false for a store of another type. A store that embeds a *Store counts as that Store.
func (s *Store) SameAs(ctx context.Context, store TokenStore) (bool, error) {
	embedding, ok := store.(interface{ portable() *Store })
	if !ok {
		return false, nil
	}
	other := embedding.portable()
	if s.driver == other.driver {
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
