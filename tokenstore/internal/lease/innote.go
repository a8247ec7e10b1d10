package lease

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/stored"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/ledger"
)

// noteReads is how often within TTL a waiter reads the note with another process's
// lease. Ordinary reads do not return the note.
const noteReads = 3

// noted is another process's lease in a note.
type noted struct {
	lease *stored.Lease
	on    ledger.Entry // as it was read with the note
	at    time.Time    // when it was read
}

// recent returns the lease, or nil if the note has to be read again.
func (n noted) recent(ttl time.Duration) *stored.Lease {
	if n.lease == nil || time.Since(n.at) >= ttl/noteReads {
		return nil
	}
	return n.lease
}

// errNoted means that another process has its lease in the note.
var errNoted = errors.New("another process has the lease")

// inNote keeps a lease in the note beside a record.
type inNote struct {
	*record
	leaser driver.Leaser
}

// take implements place.
func (p inNote) take(ctx context.Context, rec ledger.Entry, lease stored.Lease) (ledger.Entry, bool, error) {
	e, err := p.Ledger.Newest(ctx, rec.Name, rec)
	if err != nil {
		return ledger.Entry{}, false, ledger.Lost(err)
	}
	p.noted = noted{}
	if e.Secret().Version != rec.Secret().Version {
		return ledger.Entry{}, false, ledger.Again(fmt.Errorf("%w: %q", driver.ErrConflict, rec.Name))
	}
	if other := e.Noted(); other != nil && !p.lapsed(*other) {
		p.noted = noted{lease: other, on: e, at: time.Now()}
		return ledger.Entry{}, false, errNoted
	}
	abandoned := e.Noted() != nil
	mine := ledger.Note(lease)
	err = p.leaser.Note(ctx, string(rec.Name), e.Secret(), mine)
	if err != nil && !certain(err) {
		seen, readErr := p.Ledger.Newest(ctx, rec.Name, e)
		if readErr != nil || seen.Secret().Note != mine || seen.Secret().Version != e.Secret().Version {
			return ledger.Entry{}, false, err
		}
		e, err = seen, nil
	}
	if err != nil {
		return ledger.Entry{}, false, ledger.Lost(err)
	}
	return rec.Over(e.Secret()).WithNote(mine), abandoned, nil
}

// certain reports whether err shows that a Note was not stored and never will be.
func certain(err error) bool {
	for _, class := range []error{driver.ErrConflict, driver.ErrNotFound, driver.ErrDenied, driver.ErrRefused} {
		if errors.Is(err, class) {
			return true
		}
	}
	return false
}

// extend implements place.
func (p inNote) extend(ctx context.Context, _ ledger.Entry, lease stored.Lease) error {
	return p.leaser.Note(ctx, string(p.noted.on.Name), p.noted.on.Secret(), ledger.Note(lease))
}

// release implements place.
func (p inNote) release(ctx context.Context, e ledger.Entry, _ stored.Lease) error {
	return p.leaser.Note(ctx, string(e.Name), e.Secret(), "")
}
