package tokenstore

import (
	"context"
)

// SameAs reports whether s and store keep their records in the same place, such as one mount
// under two addresses. The keys of s and store may differ. SameAs creates a secret without a
// token through s, tries to create a secret with the same name through store, and then removes
// the secrets that it created. SameAs neither reads nor changes records. If a process is
// killed and leaves the secret behind, a later call removes the secret, and Check reports the
// secret as doctor.KindEmpty.
//
// The result depends on writes, which do not lag. If the service denies or refuses the
// creation through store, SameAs instead reads the secret through store. If this read does
// not find the secret of s, but reads through store may lag, the error matches ErrDenied or
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
