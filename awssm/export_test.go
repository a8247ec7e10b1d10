package awssm

import (
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// SetClock makes d take the time from now.
func SetClock(d driver.Secrets, now func() time.Time) { d.(*secrets).now = now }

// Next returns the version that the one after v has.
func Next(v driver.Version) driver.Version {
	at, _ := parse(v)
	return at.next().version()
}
