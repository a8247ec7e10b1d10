// Package conformance is a test suite for drivers and stores. All drivers and stores of
// this module pass the suite. Other modules can run the suite on their own drivers and stores.
//
// RunDriver tests a driver.Secrets against the promises in package driver, which are numbered
// from DR-01. RunStore tests a tokenstore.TokenStore against the rules in package tokenstore,
// which are numbered from TS-01. Each promise or rule is a clause. Every clause has test cases,
// and every case names its clause. A failing test named
//
//	TestDriver/DR-05_Update_with_a_stale_base_is_refused
//
// prints the unexpected result and the text of DR-05.
//
// # Testing a driver
//
// This code tests a driver, and a store on that driver:
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
// Open creates a namespace for one case: a path or a prefix that no other case uses, on a
// server that may be shared. Reopen returns another handle: a driver on the same namespace, as
// another process would open it. If the two handles share a cache or a lock, the cases about
// several processes prove nothing. The other fields of Driver are optional. If an optional
// function is nil, the suite skips the cases that need the function.
//
// # Testing a store
//
// To test a TokenStore that has no driver, describe the TokenStore in a Store. The fields of the
// Store also declare limits that the rules allow:
//
//	conformance.RunStore(t, conformance.Store{
//		Open:          func(t testing.TB) tokenstore.TokenStore { ... },
//		Reopen:        func(t testing.TB, s tokenstore.TokenStore) tokenstore.TokenStore { ... },
//		ForeignFormat: true,
//		OwnID:         func(i int) string { return strconv.Itoa(1000 * (i + 1)) },
//	})
//
// # Running the suite
//
// Cases run in parallel, each on its own namespace, and fail after the Timeout of the
// Driver or the Store. The flag -parallel limits the number of concurrent cases; -run
// TestMyDriver/DR-14 runs the cases of one clause. Use the flag -race, because the cases of
// DR-26 and TS-33 rely on the race detector.
//
// If the backend declares a lag, the suite calls Settle to make the lag pass. Without
// Settle, the suite waits for lags of up to a minute. The suite only logs a failure that a
// longer lag could explain. The log states the reason for each skipped case, and contains one
// line with the numbers of passed, failed and skipped cases.
//
// A run creates hundreds of secrets and deletes them. No case writes one secret more than
// 60 times, because some services limit the number of versions per day. If the test process
// is killed, its secrets remain.
//
// # What the suite proves
//
// A driver that keeps its promises should pass the suite. A driver that rarely breaks a promise
// may pass, too, because the suite provokes races but does not enumerate them. The tests of
// this package run the suite on a catalog of deliberately broken drivers and stores. For each
// entry in the catalog, a case of the broken clause must fail.
package conformance
