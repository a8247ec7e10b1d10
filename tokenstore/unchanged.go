package tokenstore

import (
	"context"
	"fmt"

	"github.com/tokenkeep/tokenkeep/codec"
)

// DeleteIfUnchanged removes the record with the ID of t if all of its fields equal
// those of t, times to the millisecond. Otherwise nothing is changed and the error
// matches ErrConflict. It returns nil if no record has the ID. A save between the
// comparison and the removal is not lost.
func (s *Store) DeleteIfUnchanged(ctx context.Context, t Token) error {
	return s.error("delete", t.ID, s.delete(ctx, t.ID, func(now codec.Fields) error {
		if now != t.Fields() {
			return fmt.Errorf("%w: the record is not as it was read", ErrConflict)
		}
		return nil
	}))
}
