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

// A Driver is how RunDriver gets at a driver. Open and Reopen are required;
// cases that need a hook which is nil are skipped and say so.
type Driver struct {
	// Open returns a driver on an empty namespace of its own. It is called once
	// in each case, from cases that run at the same time, and undoes its work
	// with t.Cleanup.
	Open func(t testing.TB) driver.Secrets

	// Reopen returns a second driver on d's namespace that shares no state with
	// d, as another process would have it: through a client of its own.
	Reopen func(t testing.TB, d driver.Secrets) driver.Secrets

	// Sibling returns a driver on another namespace, whose prefix begins with
	// d's prefix: "app-2" if d was opened with "app".
	Sibling func(t testing.TB, d driver.Secrets) driver.Secrets

	// Tamper puts data in the place of the named secret, behind the driver's
	// back and in a form that the driver does not write, as somebody does who
	// edits a secret by hand. What the secret is found by stays.
	Tamper func(t testing.TB, d driver.Secrets, name string, data []byte)

	// Refuse makes the service refuse to read the named secret, and no other: a
	// disabled version or key, a policy. What the secret is found by stays.
	Refuse func(t testing.TB, d driver.Secrets, name string)

	// Settle makes the lags of the backend pass, for example by moving a fake's
	// clock. For a server that does not lag although the service it stands for
	// does, it does nothing. If it is nil the suite waits for lags of up to a
	// minute, and leaves unchecked, and says so, what would take longer.
	Settle func(t testing.TB, d driver.Secrets)

	// Calls returns how many requests the backend has received so far. Bench
	// reports them.
	Calls func() int64

	// Timeout is how long one case may take. 0 means a minute.
	Timeout time.Duration
}

// A Store is how RunStore gets at a TokenStore. Open and Reopen are required;
// cases that need a hook which is nil are skipped and say so. Driver.Store
// makes one of a Driver.
type Store struct {
	// Open returns an empty store of its own. It is called once in each case,
	// from cases that run at the same time, and undoes its work with t.Cleanup.
	// The store's clock must run.
	Open func(t testing.TB) tokenstore.TokenStore

	// Reopen returns a second store on what s keeps that shares no state with s,
	// as another process would have it.
	Reopen func(t testing.TB, s tokenstore.TokenStore) tokenstore.TokenStore

	// ForeignFormat is set for stores that write a format defined elsewhere, with
	// no room for more than a token (package filestore, package sqlstore). They
	// know no earlier tokens, and forget the ID of a record that was absorbed.
	ForeignFormat bool

	// OwnID returns the i-th of any number of different IDs that the store can
	// hold and does not derive itself, for stores that cannot hold every text of
	// up to 255 bytes. Nil means that the store can.
	OwnID func(i int) string

	// MaxRecord is a number of bytes that all the fields of a record together
	// cannot exceed. 0 means 64 KiB; a negative number means that the store has
	// no such limit. Driver.Store takes it from the driver's Properties.MaxSize.
	MaxRecord int

	// ListLag is how long a save may stay invisible to GetTokens, DeleteTokens
	// and to searches but those by ID and by user with client; ReadLag, how long
	// to those as well, on another handle. See driver.Properties.
	ListLag, ReadLag time.Duration

	// Settle makes the lags pass. See Driver.Settle.
	Settle func(t testing.TB, s tokenstore.TokenStore)

	// Forward puts the clock of all stores on what s keeps forward. Nil: refusals are
	// checked for a moment only.
	Forward func(t testing.TB, s tokenstore.TokenStore, d time.Duration)

	// Corrupt damages the record with the given ID, behind the store's back, so
	// that it cannot be read. What the record is found by stays.
	Corrupt func(t testing.TB, s tokenstore.TokenStore, id string)

	// Refuse makes every read of the record with the given ID, and of no other,
	// fail for the given reason, on all handles; until it is called again with
	// nil.
	Refuse func(t testing.TB, s tokenstore.TokenStore, id string, reason error)

	// Stale remembers the record with the given ID as it is. Once the function that
	// it returns is called, the next read of the record by its name answers so.
	// Nil where reads are never out of date.
	Stale func(t testing.TB, s tokenstore.TokenStore, id string) (arm func())

	// Lose makes the next deletion do nothing, and fail in a way that does not
	// tell what was done.
	Lose func(t testing.TB, s tokenstore.TokenStore)

	// Writes returns how many writes the backend has received from s so far.
	Writes func(t testing.TB, s tokenstore.TokenStore) int64

	// Trace returns all that s has written where it is not protected as secrets
	// are: names, labels, paths, log records. No token may be found there.
	Trace func(t testing.TB, s tokenstore.TokenStore) []string

	// Calls returns how many requests the backend has received so far. Bench
	// reports them.
	Calls func() int64

	// Timeout is how long one case may take. 0 means a minute.
	Timeout time.Duration
}

// RunDriver checks the promises that package driver numbers DR-01 and on, each
// in a subtest that is named after it.
func RunDriver(t *testing.T, b Driver) {
	t.Helper()
	if b.Open == nil || b.Reopen == nil {
		t.Fatal("conformance: Driver.Open and Driver.Reopen are required")
	}
	run(t, "driver", driverCases(), func(c control) *driverEnv { return newDriverEnv(c, b) })
}

// RunStore checks the rules that package tokenstore numbers TS-01 and on, each
// in a subtest that is named after it.
func RunStore(t *testing.T, b Store) {
	t.Helper()
	if b.Open == nil || b.Reopen == nil {
		t.Fatal("conformance: Store.Open and Store.Reopen are required")
	}
	run(t, "store", storeCases(), func(c control) *storeEnv { return newStoreEnv(c, b) })
}

// A testCase checks one thing that a clause says. E is what the case works with.
type testCase[E any] struct {
	clause string
	name   string // a sentence
	run    func(e E)
}

// title is the name of the case's subtest.
func (c testCase[E]) title() string { return c.clause + " " + c.name }

// A control is what the runner gives a case.
type control struct {
	t      testing.TB
	sum    *summary
	clause string
	title  string
}

// run runs the cases side by side, each on a backend of its own, and logs what
// became of them when all of them are done.
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

// runCase runs one case on t, which need not be a *testing.T: the tests of this
// package run cases that are meant to fail.
func runCase[E any](t testing.TB, sum *summary, c testCase[E], newEnv func(control) E) {
	c.run(newEnv(control{t, sum, c.clause, c.title()}))
}

// A summary counts what became of the cases.
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

// String returns the counts in words.
func (s *summary) String() string {
	text := fmt.Sprintf("%d passed, %d failed, %d skipped", s.passed.Load(), s.failed.Load(), s.skipped.Load())
	if n := s.unchecked.Load(); n > 0 {
		text += fmt.Sprintf(", %d assertions left unchecked because of a lag", n)
	}
	return text
}

// quote returns the words of a clause with its number.
func quote(clause string) string {
	words, ok := clauses[clause]
	if !ok {
		return "[" + clause + "]"
	}
	return "[" + clause + "] " + strings.Join(strings.Fields(words), " ")
}
