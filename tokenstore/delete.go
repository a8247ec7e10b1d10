package tokenstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/ledger"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rules"
)

// DeleteToken implements TokenStore.
func (s *Store) DeleteToken(ctx context.Context, id string) error {
	return s.error("delete", id, s.delete(ctx, id, nil))
}

// delete deletes the record with the given ID, and returns nil if no record has the ID. If
// check is not nil, delete first calls check with the record, in the newest state that the
// driver can prove. If check returns an error, delete returns that error and does not change
// the record.
func (s *Store) delete(ctx context.Context, id string, check func(codec.Fields) error) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	like := codec.Fields{ID: id}
	if err := rules.Validate(like); err != nil {
		return err
	}
	if id == "" {
		return fmt.Errorf("%w: the ID is empty", ErrInvalidToken)
	}
	return s.ledger.Retry(ctx, "delete", func(v *ledger.View) error {
		if check != nil {
			v = s.ledger.View(true) // an outdated state may lack a change
		}
		rec, _, err := s.only(ctx, v, like)
		switch {
		case errors.Is(err, ErrNotFound) && ledger.Name(id).Derived():
			return s.deleteRest(ctx, v, ledger.Name(id))
		case errors.Is(err, ErrNotFound):
			return nil
		case err == nil && check != nil:
			err = check(rec.Token)
		}
		if err != nil {
			return err
		}
		return s.ledger.DeleteRecord(ctx, rec)
	})
}

// deleteRest deletes remnants of a deleted record under the given name, after a search found no
// record. An abandoned deletion may have left earlier states of the secret. The named entry may
// also lead to a deleted record.
func (s *Store) deleteRest(ctx context.Context, v *ledger.View, name ledger.Name) error {
	e, exists := v.Known(name)
	switch {
	case !exists:
		return s.ledger.CompleteDelete(ctx, name, driver.Secret{})
	case e.Target() == nil:
		return nil // the entry was created as the destination of a record with another ID
	}
	return s.ledger.Writer().RemoveDead(ctx, e)
}

// DeleteTokens implements TokenStore.
func (s *Store) DeleteTokens(ctx context.Context) error {
	err := s.begin(ctx)
	if err == nil {
		err = s.ledger.DeleteAll(ctx)
	}
	return s.error("delete all", "", err)
}
