package tokenstore

import (
	"context"
)

// SameAs reports whether s and store keep their records in the same place, such as one
// mount under two addresses. The keys of s and store may differ. SameAs creates an entry
// without a token through s, tries to create the same entry through store, and removes the
// entry. It neither reads nor changes records. If a process is killed and leaves the entry
// behind, a later call removes the entry, and Check reports it as doctor.KindEmpty.
//
// The result depends on writes, which do not lag. If the service denies or refuses the
// creation through store, SameAs reads the entry through store instead. If this read does
// not find the entry, but reads of store may lag, the error matches ErrDenied or
// ErrRefused. If store neither is nor embeds a *Store, SameAs returns false and no error.
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
