package tokenstore

import (
	"context"
	"time"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore/doctor"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rules"
)

var _ doctor.StatusReader = (*Store)(nil)

// Status implements doctor.StatusReader. Status makes the same calls as FindTokenByID. If the
// driver is a driver.Leaser and the record itself holds no lease, Status also calls the
// driver's method Fresh.
func (s *Store) Status(ctx context.Context, id string) (doctor.Status, error) {
	status, err := s.status(ctx, id)
	return status, s.error("status", id, err)
}

func (s *Store) status(ctx context.Context, id string) (doctor.Status, error) {
	if err := s.begin(ctx); err != nil {
		return doctor.Status{}, err
	}
	like, err := rules.Canonical(codec.Fields{ID: id})
	if err != nil {
		return doctor.Status{}, err
	}
	e, _, err := s.only(ctx, s.ledger.View(false), like)
	if err != nil {
		return doctor.Status{}, err
	}
	held := e.Lease
	if s.ledger.Leaser != nil && held == nil {
		// A note beside the record may hold the lease, and Get need not return the note.
		newest, err := s.ledger.Newest(ctx, e.Name, e)
		if err != nil {
			return doctor.Status{}, err
		}
		if newest.Target() == nil {
			e = newest
		}
		if held = e.Lease; held == nil {
			held = newest.Noted()
		}
	}
	status := s.engine.Status(e.Failure, e.Token)
	status.Written = time.UnixMilli(e.Updated)
	if held != nil {
		status.Lease = &doctor.Lease{Until: time.UnixMilli(held.Until)}
	}
	return status, nil
}
