package conformance_test

import (
	"testing"

	"github.com/tokenkeep/tokenkeep/conformance"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/memstore"
)

// This is the example in the package documentation, as code that runs.

var backend = conformance.Driver{
	Open: func(t testing.TB) driver.Secrets {
		return memstore.NewDriver()
	},
	Reopen: func(t testing.TB, d driver.Secrets) driver.Secrets {
		return d.(*memstore.Driver).Reopen()
	},
}

func TestMyDriver(t *testing.T) { conformance.RunDriver(t, backend) }

func TestMyStore(t *testing.T) { conformance.RunStore(t, backend.Store(t, nil)) }

func BenchmarkMyStore(b *testing.B) { conformance.Bench(b, backend.Store(b, nil)) }
