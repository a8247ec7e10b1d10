package tokenstore

import (
	"context"
	"fmt"

	"github.com/tokenkeep/tokenkeep/codec"
)

// DeleteIfUnchanged removes the record with the ID of t if all fields of the record equal
// those of t, with ExpiresAt compared to the millisecond. If a field differs,
// DeleteIfUnchanged changes nothing, and the error matches ErrConflict. If no record has the
// ID, DeleteIfUnchanged returns nil. If t has no ID, the error matches ErrInvalidToken. If
// another process saves the record between the comparison and the removal,
// DeleteIfUnchanged compares the fields again.
func (s *Store) DeleteIfUnchanged(ctx context.Context, t Token) error {
	return s.error("delete", t.ID, s.delete(ctx, t.ID, func(now codec.Fields) error {
		if now != t.Fields() {
			return fmt.Errorf("%w: the record is not as it was read", ErrConflict)
		}
		return nil
	}))
}
