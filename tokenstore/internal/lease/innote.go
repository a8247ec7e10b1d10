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

// noteReads is the number of times per TTL that a waiter reads the note with another
// process's lease. Ordinary reads do not return the note.
const noteReads = 3

// A noted is a lease of another process, as it was read from a note.
type noted struct {
	lease *stored.Lease
	on    ledger.Entry // the entry, which was read with the note
	at    time.Time    // when the note was read
}

// recent returns the lease, or nil if n has no lease or the lease was read at least
// ttl/noteReads ago.
func (n noted) recent(ttl time.Duration) *stored.Lease {
	if n.lease == nil || time.Since(n.at) >= ttl/noteReads {
		return nil
	}
	return n.lease
}

var (
	errNoted = errors.New("another process has the lease")

	errContended = errors.New("another process has changed the note")
)

// An inNote is a place: it stores a lease in the note beside a record.
type inNote struct {
	*record
	leaser driver.Leaser
}

func (p inNote) take(ctx context.Context, rec ledger.Entry, lease stored.Lease) (ledger.Entry, bool, error) {
	e, err := p.Ledger.Newest(ctx, rec.Name, rec)
	if err != nil {
		return ledger.Entry{}, false, ledger.Lost(err)
	}
	p.noted = noted{}
	if e.Secret().Version != rec.Secret().Version {
		return ledger.Entry{}, false, ledger.Again(fmt.Errorf("%w: %q", driver.ErrConflict, rec.Name))
	}
	if p.note(e) {
		return ledger.Entry{}, false, errNoted
	}
	abandoned := e.Noted() != nil
	mine := ledger.Note(lease)
	err = p.leaser.Note(ctx, string(rec.Name), e.Secret(), mine)
	var other *driver.NoteError
	switch {
	case errors.As(err, &other) && p.note(e.WithNote(other.Note)):
		return ledger.Entry{}, false, errNoted
	case errors.Is(err, driver.ErrConflict):
		return ledger.Entry{}, false, fmt.Errorf("%w: %w", errContended, err)
	case errors.Is(err, driver.ErrThrottled):
		// If the service applied an earlier attempt at the same call, the next read of the note
		// finds this lease. This process then treats the lease as lapsed, because record.take
		// marked the lease as given up.
		return ledger.Entry{}, false, err
	case err != nil && !certain(err):
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

// note reports whether the note beside e holds a lease that belongs to another process and has not
// lapsed. If so, note stores the lease in p.noted.
func (p inNote) note(e ledger.Entry) bool {
	other := e.Noted()
	if other == nil || p.lapsed(*other) {
		return false
	}
	p.noted = noted{lease: other, on: e, at: time.Now()}
	return true
}

// certain reports whether err shows that a note was not stored and never will be.
func certain(err error) bool {
	for _, class := range []error{driver.ErrConflict, driver.ErrNotFound, driver.ErrDenied, driver.ErrRefused} {
		if errors.Is(err, class) {
			return true
		}
	}
	return false
}

func (p inNote) extend(ctx context.Context, _ ledger.Entry, lease stored.Lease) error {
	return p.leaser.Note(ctx, string(p.noted.on.Name), p.noted.on.Secret(), ledger.Note(lease))
}

func (p inNote) release(ctx context.Context, e ledger.Entry, _ stored.Lease) error {
	return p.leaser.Note(ctx, string(e.Name), e.Secret(), "")
}
