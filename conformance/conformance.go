package conformance

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// A Driver describes a driver to RunDriver. Open and Reopen are required. If another function
// is nil, RunDriver skips the cases that need the function and logs the reason.
type Driver struct {
	// Open returns a driver on a new, empty namespace. Cases call Open concurrently. The
	// suite deletes the secrets of a case and closes the driver. Open must register all other
	// cleanup with t.Cleanup.
	Open func(t testing.TB) driver.Secrets

	// Reopen returns a second driver on d's namespace, as another process would open it. The
	// second driver must have its own client, and share no state with d except the stored
	// secrets.
	Reopen func(t testing.TB, d driver.Secrets) driver.Secrets

	// Sibling returns a driver with another prefix. That prefix must begin with the prefix of d,
	// as "app-2" begins with "app".
	Sibling func(t testing.TB, d driver.Secrets) driver.Secrets

	// Tamper replaces the content of the named secret with data. The result must not have the
	// form that the driver writes. Tamper must bypass the driver, like an edit with another
	// tool, and keep the labels of the secret.
	Tamper func(t testing.TB, d driver.Secrets, name string, data []byte)

	// Refuse makes the service refuse reads of the named secret, and of no other secret. For
	// example, Refuse disables the version or the key of the secret. Lookup by the labels of the
	// secret must still yield the name of the secret.
	Refuse func(t testing.TB, d driver.Secrets, name string)

	// Throttle makes the service reject all calls on d's namespace as throttled, until the
	// returned function is called.
	Throttle func(t testing.TB, d driver.Secrets) (stop func())

	// Settle makes the lags of the backend pass, for example by advancing the clock of a
	// fake server. For a test server without lags, Settle may be an empty function, even if
	// the real service lags. If Settle is nil, the suite waits for lags of up to a minute. The
	// suite only logs a failure that a longer lag could explain.
	Settle func(t testing.TB, d driver.Secrets)

	// Calls returns the number of requests that the backend has received so far. Bench reports
	// the average number of requests for each operation.
	Calls func() int64

	// Timeout limits the duration of one case. 0 means a minute.
	Timeout time.Duration
}

// A Store describes a TokenStore to RunStore. Open and Reopen are required. If another function
// is nil, RunStore skips the cases that need the function and logs the reason. Driver.Store
// creates a Store from a Driver.
type Store struct {
	// Open returns a new, empty store. Cases call Open concurrently. The suite deletes the
	// records of a case. Open must register all other cleanup with t.Cleanup. The store's clock
	// must advance.
	Open func(t testing.TB) tokenstore.TokenStore

	// Reopen returns a second store on the data of s, as another process would open it. The
	// second store must share no state with s except the stored data.
	Reopen func(t testing.TB, s tokenstore.TokenStore) tokenstore.TokenStore

	// ForeignFormat reports whether the store's format is defined elsewhere and holds only the
	// fields of a token, as in packages filestore and sqlstore. A store with such a format keeps
	// neither earlier tokens nor the ID of a record that was merged into another record.
	ForeignFormat bool

	// OwnID returns the i-th ID of an unlimited sequence of IDs. The store must be able to
	// hold these IDs, and must not derive them itself. If the store cannot hold every text of
	// up to 255 bytes as an ID, OwnID must be set.
	OwnID func(i int) string

	// MaxRecord is the maximum size in bytes of all fields of a record together. 0 means
	// 64 KiB; a negative number means no limit. Driver.Store sets MaxRecord to the driver's
	// Properties.MaxSize.
	MaxRecord int

	// ListLag is the time for which a save may stay invisible to GetTokens, DeleteTokens
	// and weak look-ups. ReadLag is the time for which a save may stay invisible to strong
	// look-ups on another handle. See driver.Properties.
	ListLag, ReadLag time.Duration

	// Settle makes the lags pass. See Driver.Settle.
	Settle func(t testing.TB, s tokenstore.TokenStore)

	// Forward advances the clock of all stores on the data of s by d. If Forward is nil, the
	// suite does not check how long a store keeps a RefreshError.
	Forward func(t testing.TB, s tokenstore.TokenStore, d time.Duration)

	// Corrupt damages the record with the given ID so that reads of the record fail with an
	// error matching tokenstore.ErrCorrupt. Corrupt must bypass the store, and keep the name and
	// the labels by which look-ups find the record.
	Corrupt func(t testing.TB, s tokenstore.TokenStore, id string)

	// Refuse makes reads of the record with the given ID, and only of that record, fail with the
	// error reason on all handles. A call with a nil reason ends the refusal.
	Refuse func(t testing.TB, s tokenstore.TokenStore, id string, reason error)

	// Stale captures the current state of the record with the given ID. After the returned function
	// is called, the next read of the record by its name returns the captured state. Stale is nil
	// if reads are never out of date.
	Stale func(t testing.TB, s tokenstore.TokenStore, id string) (arm func())

	// Lose makes the next deletion fail without deleting the record, with an error that
	// leaves the outcome unknown.
	Lose func(t testing.TB, s tokenstore.TokenStore)

	// Writes returns the number of writes that the backend has received from s and from
	// other handles on the data of s.
	Writes func(t testing.TB, s tokenstore.TokenStore) int64

	// Trace returns all text that s has written to places that are not protected like
	// secrets: names, labels, paths and log records. A case checks that the text contains no
	// token or client secret.
	Trace func(t testing.TB, s tokenstore.TokenStore) []string

	// Calls returns the number of requests that the backend has received so far. Bench reports
	// the average number of requests for each operation.
	Calls func() int64

	// Timeout limits the duration of one case. 0 means a minute.
	Timeout time.Duration
}

// RunDriver tests a driver against the promises in package driver, which are numbered from DR-01.
// The name of each subtest begins with the number of a promise. The subtests run in parallel.
func RunDriver(t *testing.T, b Driver) {
	t.Helper()
	if b.Open == nil || b.Reopen == nil {
		t.Fatal("conformance: Driver.Open and Driver.Reopen are required")
	}
	run(t, "driver", driverCases(), func(c control) *driverEnv { return newDriverEnv(c, b) })
}

// RunStore tests a store against the rules in package tokenstore, which are numbered from TS-01.
// The name of each subtest begins with the number of a rule. The subtests run in parallel.
func RunStore(t *testing.T, b Store) {
	t.Helper()
	if b.Open == nil || b.Reopen == nil {
		t.Fatal("conformance: Store.Open and Store.Reopen are required")
	}
	run(t, "store", storeCases(), func(c control) *storeEnv { return newStoreEnv(c, b) })
}

// A testCase checks one statement of a clause. E is the type of the case's environment.
type testCase[E any] struct {
	clause string
	name   string // a sentence
	run    func(e E)
}

func (c testCase[E]) title() string { return c.clause + " " + c.name }

// A control holds the values that the runner passes to a case.
type control struct {
	t      testing.TB
	sum    *summary
	clause string
	title  string
}

// run runs the cases in parallel, each in an environment from newEnv. After the last case, run
// logs a summary.
func run[E any](t *testing.T, kind string, cases []testCase[E], newEnv func(control) E) {
	t.Helper()
	var sum summary
	clauses := map[string]bool{}
	for _, c := range cases {
		clauses[c.clause] = true
		t.Run(c.title(), func(t *testing.T) {
			t.Parallel()
			t.Cleanup(func() { sum.add(t) })
			runCase(t, &sum, c, newEnv)
		})
	}
	t.Cleanup(func() {
		t.Logf("conformance: %s: %d cases of %d clauses: %s", kind, len(cases), len(clauses), &sum)
	})
}

// runCase runs one case on t. t may be a recorder of failures, because the tests of this package
// run cases that must fail.
func runCase[E any](t testing.TB, sum *summary, c testCase[E], newEnv func(control) E) {
	c.run(newEnv(control{t, sum, c.clause, c.title()}))
}

type summary struct {
	passed, failed, skipped, unchecked atomic.Int64
}

func (s *summary) add(t testing.TB) {
	switch {
	case t.Failed():
		s.failed.Add(1)
	case t.Skipped():
		s.skipped.Add(1)
	default:
		s.passed.Add(1)
	}
}

func (s *summary) String() string {
	text := fmt.Sprintf("%d passed, %d failed, %d skipped", s.passed.Load(), s.failed.Load(), s.skipped.Load())
	if n := s.unchecked.Load(); n > 0 {
		text += fmt.Sprintf(", %d assertions left unchecked because of a lag", n)
	}
	return text
}

// quote returns the number and the text of a clause, or only the number if the clause is
// unknown.
func quote(clause string) string {
	words, ok := clauses[clause]
	if !ok {
		return "[" + clause + "]"
	}
	return "[" + clause + "] " + strings.Join(strings.Fields(words), " ")
}
