// Package conformance is the test that every driver and every store of this
// module passes, for others to run on their own.
//
// RunDriver checks a driver.Secrets against the promises that package driver
// numbers DR-01 and on, and RunStore a tokenstore.TokenStore against the rules
// that package tokenstore numbers TS-01 and on. Every clause has its cases and
// every case names its clause: a test called
//
//	TestDriver/DR-05_Update_with_a_stale_base_is_refused
//
// that fails prints what was seen and the words of DR-05.
//
// # The test of a driver
//
// This is all that a test of a driver needs, and of the store on it:
//
//	var backend = conformance.Driver{
//		Open: func(t testing.TB) driver.Secrets {
//			return memstore.NewDriver()
//		},
//		Reopen: func(t testing.TB, d driver.Secrets) driver.Secrets {
//			return d.(*memstore.Driver).Reopen()
//		},
//	}
//
//	func TestMyDriver(t *testing.T) { conformance.RunDriver(t, backend) }
//
//	func TestMyStore(t *testing.T) { conformance.RunStore(t, backend.Store(t, nil)) }
//
//	func BenchmarkMyStore(b *testing.B) { conformance.Bench(b, backend.Store(b, nil)) }
//
// Open makes a namespace for one case: a path or a prefix that nobody else uses,
// on a server that may be shared. Reopen is asked for wherever a promise is about
// several processes; a second handle that shares a cache or a lock with the first
// proves nothing. The other fields of Driver are hooks without which some cases
// are skipped.
//
// # The test of a store
//
// A TokenStore that is not made of a driver is given as a Store. What it cannot
// do, as far as the rules allow that, is said there as data:
//
//	conformance.RunStore(t, conformance.Store{
//		Open:          func(t testing.TB) tokenstore.TokenStore { ... },
//		Reopen:        func(t testing.TB, s tokenstore.TokenStore) tokenstore.TokenStore { ... },
//		ForeignFormat: true,
//		OwnID:         func(i int) string { return strconv.Itoa(1000 * (i + 1)) },
//	})
//
// # Running it
//
// Cases run in parallel, each on a backend of its own, and end after
// Driver.Timeout. -parallel limits how many do; -run TestMyDriver/DR-14 runs the
// cases of one clause. Use -race: the cases of DR-26 and TS-33 rely on it.
//
// Nothing sleeps. Where the backend declares a lag, Settle makes it pass; without
// Settle the suite looks again and again until the lag is over, and what a lag of
// more than a minute may explain is logged and not failed. Skipped cases say why,
// and when all are done one line of the log counts them.
//
// A run creates some hundreds of secrets and deletes them. No case writes one
// secret more than 60 times, so that services which keep a day's versions can be
// tested. Deletion is what Open has to see to if a case is killed.
//
// # What it proves
//
// The suite should not fail a driver that keeps its promises. It may pass one
// that breaks a promise rarely: races are tried, not searched for. That it finds
// mistakes which were made is shown by its own tests, which run it on a catalogue
// of drivers and stores that are broken on purpose, most of them like a program
// that exists, and demand that each is caught by the clause it breaks.
package conformance
