package rowstore

import (
	"context"
	"encoding/json"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/internal/stored"
	"github.com/tokenkeep/tokenkeep/tokenstore/doctor"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rules"
)

var _ doctor.StatusReader = (*Store)(nil)

// Status implements doctor.StatusReader.
func (s *Store) Status(ctx context.Context, id string) (doctor.Status, error) {
	status, err := s.status(ctx, id)
	return status, s.Wrap("status", id, err)
}

func (s *Store) status(ctx context.Context, id string) (doctor.Status, error) {
	f, err := ready(ctx, codec.Fields{ID: id})
	if err == nil && rules.KeyOf(f) == rules.KeyNone {
		_, err = rules.Select(f, nil)
	}
	if err != nil {
		return doctor.Status{}, err
	}
	r := &record{Store: s, id: id}
	now, err := r.Read(ctx, false)
	if err != nil {
		return doctor.Status{}, err
	}
	note, leased, err := s.table.Peek(ctx, id)
	if err != nil {
		return doctor.Status{}, err
	}
	var last *stored.Failure
	if f := (stored.Failure{}); json.Unmarshal([]byte(note), &f) == nil {
		last = &f
	}
	status := s.engine.Status(last, now.Fields)
	if leased {
		status.Lease = &doctor.Lease{}
	}
	return status, nil
}
