package lease

import (
	"context"
	"fmt"

	"github.com/tokenkeep/tokenkeep/internal/stored"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/ledger"
)

// An inRecord is a place: it stores a lease in the record itself.
type inRecord struct{ *record }

var errLost = fmt.Errorf("%w: another process has the lease", driver.ErrConflict)

func (p inRecord) take(ctx context.Context, e ledger.Entry, lease stored.Lease) (ledger.Entry, bool, error) {
	next := e.Record
	next.Lease = &lease
	written, err := p.Ledger.WriterOf(lease.ID).Update(ctx, e, next)
	if err != nil {
		return ledger.Entry{}, false, ledger.Lost(err)
	}
	// If the response to the write was lost, other processes may have written the record
	// since. The lease must be on the current state of the record.
	now, err := p.Ledger.ViewOf(append([]ledger.Entry{written}, e.Frozen...)...).Resolve(ctx, written)
	if err != nil {
		p.giveBack(ctx, written, lease, nil)
		return ledger.Entry{}, false, ledger.Lost(err)
	}
	if !has(now, lease) {
		return ledger.Entry{}, false, ledger.Again(errLost)
	}
	return now, e.Lease != nil, nil
}

func (p inRecord) extend(ctx context.Context, e ledger.Entry, lease stored.Lease) error {
	next := e.Record
	next.Lease = &lease
	_, err := p.Ledger.Writer().Update(ctx, e, next)
	return err
}

func (p inRecord) release(ctx context.Context, e ledger.Entry, lease stored.Lease) error {
	e = without(e, lease)
	_, err := p.Ledger.WriterOf(lease.ID).Update(ctx, e, e.Record)
	return err
}
