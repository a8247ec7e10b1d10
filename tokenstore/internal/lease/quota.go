package lease

import (
	"fmt"

	"github.com/tokenkeep/tokenkeep/internal/stored"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/ledger"
)

const (
	refreshWrites = 2  // of one refresh: the lease and the token
	spareWrites   = 25 // one in so many of a day's writes is left to commits that meet other writers
)

// spare is how many of a day's writes a refresh leaves alone.
func (l *Leases) spare() int { return l.Ledger.Properties.DailyWrites / spareWrites }

// roomForWord reports whether a refresh has its writes left after leaveWord.
func (l *Leases) roomForWord(r stored.Record) bool {
	return l.Ledger.Room(r, 0) > 2*refreshWrites+l.spare()
}

// roomForRefresh returns an error if the service may not take the writes of a refresh.
// It is called before mint, because the result of mint has to be stored.
func (l *Leases) roomForRefresh(r stored.Record) error {
	need := refreshWrites + l.spare()
	if l.Ledger.Room(r, 0) >= need {
		return nil
	}
	later := int64(1)
	for later < ledger.Hours && l.Ledger.Room(r, later) < need {
		later++
	}
	return fmt.Errorf("%w: the record was written so often that the service, which takes %d states of it in a day, has no room for a refresh for the next %d hours",
		driver.ErrUnavailable, l.Ledger.Properties.DailyWrites, later)
}
