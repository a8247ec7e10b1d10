package tokenstore

import (
	"context"
	"fmt"
	"time"
)

// A ConditionalDeleter is a TokenStore that can remove a record on the condition
// that it is still as the caller has read it.
type ConditionalDeleter interface {
	// DeleteIfUnchanged removes the record with the ID of t if all of its fields are
	// those of t, times to the millisecond. Otherwise nothing is changed and the
	// error matches ErrConflict. It returns nil if there is no record with the ID.
	// A save that comes between the comparison and the removal is not lost.
	DeleteIfUnchanged(ctx context.Context, t Token) error
}

var _ ConditionalDeleter = (*Store)(nil)

// DeleteIfUnchanged implements ConditionalDeleter.
func (s *Store) DeleteIfUnchanged(ctx context.Context, t Token) error {
	want := t
	if !t.ExpiresAt.IsZero() {
		want.ExpiresAt = time.UnixMilli(t.ExpiresAt.UnixMilli())
	}
	return s.error("delete", t.ID, s.delete(ctx, t.ID, func(rec record) error {
		if !same(rec.current, want) {
			return fmt.Errorf("%w: the record is not as it was read", ErrConflict)
		}
		return nil
	}))
}
