package lease

import (
	"fmt"

	"github.com/tokenkeep/tokenkeep/internal/stored"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/ledger"
)

const (
	refreshWrites = 2  // writes of one refresh: the lease and the token
	spareWrites   = 25 // a refresh leaves 1/spareWrites of a day's writes unused, for commits that conflict with other writers
)

// spare returns the number of a day's writes that a refresh must leave unused.
func (l *Leases) spare() int { return l.Ledger.Properties.DailyWrites / spareWrites }

// roomForWord reports whether a write by leaveWord leaves room for the writes of two
// refreshes and for the spare writes.
func (l *Leases) roomForWord(r stored.Record) bool {
	return l.Ledger.Room(r, 0) > 2*refreshWrites+l.spare()
}

// roomForRefresh returns an error that matches driver.ErrUnavailable if the service might not
// accept the writes of a refresh. Call roomForRefresh before mint, because the result of mint
// must be stored.
func (l *Leases) roomForRefresh(r stored.Record) error {
	need := refreshWrites + l.spare()
	if l.Ledger.Room(r, 0) >= need {
		return nil
	}
	later := int64(1)
	for later < ledger.Hours && l.Ledger.Room(r, later) < need {
		later++
	}
	return fmt.Errorf("%w: the service accepts %d states of the record in a day, and has no room for a refresh in the next %d hours",
		driver.ErrUnavailable, l.Ledger.Properties.DailyWrites, later)
}
