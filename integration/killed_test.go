package integration

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/zohoaccounts"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

const (
	fullEnv = "TOKENKEEP_FULL" // if set, the tests use larger sizes

	shortLease = 3 * time.Second
	survivors  = 3                      // other processes that need the token
	lanes      = 8                      // concurrent kills
	mintTime   = 300 * time.Millisecond // response time of the accounts server; other processes begin to wait within this time
)

// kills returns the number of processes to kill on each kind of place under each rule of the
// accounts server. kinds is the number of kinds.
func kills(kinds int) int {
	n := 24
	if os.Getenv(fullEnv) != "" {
		n = 200
	}
	return (n + kinds - 1) / kinds
}

// A step is a point in a refresh at which the refreshing process is killed.
type step struct {
	death death
	name  string
}

// steps returns the steps of a refresh that makes the given number of requests to its store.
// There are steps before and after each request, before the request to the accounts server,
// and after the server's answer. If requests is 0, as with a token file, further steps are short
// times after the beginning and after the answer.
func steps(requests int) []step {
	all := []step{{death{Asking: true}, "before it asks the accounts server"}}
	for n := range requests {
		all = append(all,
			step{death{Request: n + 1}, fmt.Sprintf("before request %d", n+1)},
			step{death{Request: n + 1, After: true}, fmt.Sprintf("after request %d", n+1)})
	}
	if requests == 0 {
		for _, d := range []int{50, 200, 800} {
			after := time.Duration(d) * time.Microsecond
			all = append(all, step{death{Started: after}, fmt.Sprintf("%v after the beginning", after)})
		}
		for _, d := range []int{50, 100, 200, 300, 500, 800, 1200, 2000, 5000} {
			after := time.Duration(d) * time.Microsecond
			all = append(all, step{death{Since: after}, fmt.Sprintf("%v after the answer", after)})
		}
	}
	return append(all, step{death{Answered: true}, "when the accounts server has answered"})
}

// A kill is one run: a process that refreshes a token is killed, and other processes need
// the token.
type kill struct {
	on     kindOfPlace
	strict bool // the accounts server replaces refresh tokens
	step   step

	// meanwhile reports whether the other processes start before the process is killed.
	// Otherwise, the other processes start after the kill.
	meanwhile bool
}

type outcome struct {
	killed   bool // whether the process was killed at the step
	requests int  // number of requests to the accounts server
	failed   int  // number of other processes that failed
	wait     time.Duration

	// inWindow reports whether the process was killed after the accounts server had issued the
	// new token and before the token was stored.
	inWindow bool
}

func (k kill) run(t *testing.T, others []*worker) (o outcome) {
	t.Helper()
	at := k.on.at(t)
	accounts := newAccounts(t, k.strict, mintTime)
	asked, shut, look := accounts.gate()
	defer look()
	saved := accounts.expired(t, at)
	s := at.mustOpen(t)
	refresh := job{
		Place: at, Manner: manner{LeaseTTL: shortLease},
		Refresh: saved.ID, Stale: string(saved.AccessToken), Accounts: accounts.base,
	}

	victim := newWorker(t)
	victim.ready(t)
	dying := refresh
	dying.Manner.Death = k.step.death
	if err := victim.give(dying); err != nil {
		t.Error(err)
	}
	dead := make(chan error, 1)
	go func() {
		_, _ = victim.result() // until the worker returns a result or ends
		dead <- victim.end()
	}()
	if k.meanwhile {
		select {
		case <-asked:
		case err := <-dead:
			dead <- err
		}
	}
	results := make([]result, len(others))
	var all sync.WaitGroup
	begin := func() {
		shut()
		for i, w := range others {
			all.Go(func() {
				err := w.give(refresh)
				if err == nil {
					results[i], err = w.result()
				}
				if err != nil {
					t.Errorf("a worker: %v", err)
				}
			})
		}
	}
	if k.meanwhile {
		begin()
	}
	err := <-dead
	died := time.Now()
	o.killed = err != nil
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Error(err)
	}
	now, err := s.FindTokenByID(t.Context(), saved.ID)
	if err != nil {
		t.Errorf("the record is not there: %v", err)
	}
	o.inWindow = accounts.Count(zohoaccounts.Refresh) > 0 && now.AccessToken == saved.AccessToken
	look()
	if !k.meanwhile {
		begin()
	}
	all.Wait()
	o.wait = time.Since(died)
	o.requests = accounts.Count(zohoaccounts.Refresh)
	o.failed = failures(results)
	if o.requests > 2 {
		t.Errorf("the accounts server was asked %d times, want 2 at most", o.requests)
	}
	if k.strict && o.inWindow {
		k.checkLost(t, s, accounts, saved, results)
		return o
	}
	for _, r := range results {
		if r.Failed != "" || !accounts.Alive(r.Access) {
			t.Errorf("a process got no good token: %s", r.Failed)
		}
	}
	k.checkKept(t, s, accounts, saved)
	return o
}

// gate returns a channel that is closed when the accounts server gets the first refresh request,
// and two functions. Refresh requests after shut get no response until open is called. The
// accounts server answers other refresh requests after mintTime.
func (a accounts) gate() (asked <-chan struct{}, shut, open func()) {
	first, opened := make(chan struct{}), make(chan struct{})
	tell := sync.OnceFunc(func() { close(first) })
	var isShut atomic.Bool
	a.Inject(func(r zohoaccounts.Request) *zohoaccounts.Fault {
		if r.Kind != zohoaccounts.Refresh {
			return nil
		}
		tell()
		if isShut.Load() {
			return &zohoaccounts.Fault{Delay: mintTime, Wait: opened}
		}
		return &zohoaccounts.Fault{Delay: mintTime}
	})
	return first, func() { isShut.Store(true) }, sync.OnceFunc(func() { close(opened) })
}

// checkLost checks that all other processes get the refusal of the accounts server, and that the
// refusal soon becomes permanent. At first the refusal is temporary, because the process whose
// lease expired might still store its new token.
func (kill) checkLost(t *testing.T, s store, accounts accounts, saved tokenstore.Token, results []result) {
	t.Helper()
	for _, r := range results {
		if r.Code != "invalid_grant" {
			t.Errorf("a process got %q, and not the refusal: %s", r.Code, r.Failed)
		}
	}
	Eventually(t, func() error {
		_, err := s.Refresh(t.Context(), saved.ID, saved.AccessToken, job{Accounts: accounts.base}.mint)
		if refusal := (*tokenstore.RefreshError)(nil); !errors.As(err, &refusal) || !refusal.Permanent {
			return fmt.Errorf("the refusal is not final: %w", err)
		}
		return nil
	})
}

// checkKept checks that the store has one record, and that the record's refresh token still
// obtains an access token.
func (k kill) checkKept(t *testing.T, s store, accounts accounts, saved tokenstore.Token) {
	t.Helper()
	records, err := s.GetTokens(t.Context())
	if err != nil || len(records) != 1 || records[0].ID != saved.ID {
		t.Fatalf("%d records, want 1: %v", len(records), err)
	}
	next, err := s.Refresh(t.Context(), saved.ID, records[0].AccessToken, job{Accounts: accounts.base}.mint)
	if err != nil || !accounts.Alive(string(next.AccessToken)) {
		t.Errorf("what is stored is not good for another token: %v", err)
	}
}

// alone measures nine refreshes without other processes. requests is the largest number of
// requests that a refresh makes to the store. window is the median time from the accounts server's
// response until the token is stored.
func alone(t *testing.T, k kindOfPlace, w *worker, strict bool) (requests int, window time.Duration) {
	t.Helper()
	var windows []time.Duration
	for range 9 {
		at := k.at(t)
		accounts := newAccounts(t, strict, 0)
		saved := accounts.expired(t, at)
		if err := w.give(job{Place: at, Refresh: saved.ID, Stale: string(saved.AccessToken), Accounts: accounts.base}); err != nil {
			t.Fatal(err)
		}
		r, err := w.result()
		if err != nil || r.Failed != "" {
			t.Fatalf("a refresh: %s, %v", r.Failed, err)
		}
		requests = max(requests, r.Requests)
		windows = append(windows, time.Duration(r.Committed-r.Answered))
	}
	slices.Sort(windows)
	return requests, windows[len(windows)/2]
}

// killsOf returns n runs, one for each step in turn. If there are more steps than runs, killsOf
// selects evenly spaced steps. In about half of the runs, the other processes start before the
// kill.
func killsOf(k kindOfPlace, n, requests int, strict bool) []kill {
	all, runs := steps(requests), make([]kill, n)
	for i := range runs {
		which := i % len(all)
		if n < len(all) {
			which = i * len(all) / n
		}
		runs[i] = kill{on: k, strict: strict, step: all[which], meanwhile: (i+i/len(all))%2 == 0}
	}
	return runs
}

// A series holds the runs on one kind of place under one rule of the accounts server, and their
// outcomes.
type series struct {
	runs     []kill
	requests int           // requests to the store in one refresh
	window   time.Duration // median time from the answer until the token is stored

	mu                                                      sync.Mutex
	killed, inWindow, extra, succeeded, lost, lostElsewhere int
	wait                                                    time.Duration
}

// TestLeaseHolderKilled checks that other processes get a token, with at most one more
// request, if a process is killed at any step of a refresh. If the server replaces refresh
// tokens, a token may be lost only if the process is killed between the server's response and
// the commit.
func TestLeaseHolderKilled(t *testing.T) {
	t.Parallel()
	idle := make(chan []*worker, lanes)
	workers := newWorkers(t, lanes*survivors)
	for some := range slices.Chunk(workers, survivors) {
		idle <- some
	}
	kinds := slices.DeleteFunc(slices.Clone(places), func(k kindOfPlace) bool { return k.backend == MySQLBackend })
	each := kills(len(kinds))
	var all []*series
	for _, k := range kinds {
		t.Run("no kill on "+k.name, func(t *testing.T) {
			k.count(t)
			for _, strict := range []bool{false, true} {
				requests, window := alone(t, k, workers[0], strict)
				all = append(all, &series{runs: killsOf(k, each, requests, strict), requests: requests, window: window})
			}
		})
	}
	t.Run("at", func(t *testing.T) {
		for _, s := range all {
			for _, k := range s.runs {
				t.Run(k.String(), func(t *testing.T) {
					t.Parallel()
					k.on.count(t)
					others := <-idle
					defer func() { idle <- others }()
					s.add(k.run(t, others))
				})
			}
		}
	})
	report(t, all)
}

func (k kill) String() string {
	rule := "Zoho's rule"
	if k.strict {
		rule = "rotation"
	}
	return fmt.Sprintf("%s, %s, %s", k.on.name, rule, k.step.name)
}

func (s *series) add(o outcome) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o.killed {
		s.killed++
	}
	if o.inWindow {
		s.inWindow++
	}
	if o.requests > 1 {
		s.extra++
	}
	if o.failed > 0 {
		s.lost++
		if !o.inWindow {
			s.lostElsewhere++
		}
	}
	s.succeeded += survivors - o.failed
	s.wait = max(s.wait, o.wait)
}

func report(t *testing.T, all []*series) {
	t.Helper()
	lenient := newTable("store", "requests of a refresh", "runs", "killed", "answered, not stored", "one request more", "others succeeded", "longest wait")
	strict := newTable("store", "requests of a refresh", "runs", "killed", "answered, not stored", "tokens lost", "of them elsewhere", "longest wait", "from the answer to the store")
	for _, s := range all {
		k, runs, wait := s.runs[0], len(s.runs), s.wait.Round(10*time.Millisecond)
		if s.killed == 0 {
			t.Errorf("%v: no process was killed", k)
		}
		if k.strict {
			strict.add(k.on.name, requestsText(s.requests), runs, s.killed, s.inWindow, s.lost, s.lostElsewhere, wait, s.window.Round(10*time.Microsecond))
		} else {
			lenient.add(k.on.name, requestsText(s.requests), runs, s.killed, s.inWindow, s.extra, fmt.Sprintf("%d of %d", s.succeeded, runs*survivors), wait)
		}
	}
	t.Logf("processes killed while they refresh a token; LeaseTTL is %v\n%s", shortLease, lenient)
	t.Logf("the same where the server replaces refresh tokens and takes a second use for theft\n%s", strict)
}

// requestsText returns n in decimal, or "-" if n is 0, which means that requests cannot be
// observed.
func requestsText(n int) string {
	if n == 0 {
		return "-"
	}
	return strconv.Itoa(n)
}
