package tokenstore

import (
	"context"
	"fmt"

	"github.com/tokenkeep/tokenkeep/codec"
)

// DeleteIfUnchanged removes the record with the ID of t if all fields of the record equal
// those of t. It compares ExpiresAt to the millisecond. If a field differs, DeleteIfUnchanged
// changes nothing, and the error matches ErrConflict. It returns nil if no record has the ID.
// If t has no ID, the error matches ErrInvalidToken. A save between the comparison and the
// removal is not lost.
func (s *Store) DeleteIfUnchanged(ctx context.Context, t Token) error {
	return s.error("delete", t.ID, s.delete(ctx, t.ID, func(now codec.Fields) error {
		if now != t.Fields() {
			return fmt.Errorf("%w: the record is not as it was read", ErrConflict)
		}
		return nil
	}))
}
