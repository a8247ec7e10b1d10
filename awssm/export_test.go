package awssm

import (
	"time"

	"github.com/aws/aws-sdk-go-v2/service/secretsmanager/types"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// SetClock makes now the clock of d.
func SetClock(d driver.Secrets, now func() time.Time) { d.(*secrets).now = now }

// Next returns the version that follows v.
func Next(v driver.Version) driver.Version {
	at, _ := parse(v)
	return at.next().version()
}

// Tags returns the tags of labels, with the driver's current time as their value.
func Tags(d driver.Secrets, labels ...driver.Label) []types.Tag {
	return tagsOf(labels, d.(*secrets).now())
}

// First returns the ID of the first version of the secret at path.
func First(path string) string { return first(path) }
