package integration

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"golang.org/x/oauth2"

	"github.com/tokenkeep/tokenkeep/internal/fakeaws"
	"github.com/tokenkeep/tokenkeep/internal/fakegcp"
	"github.com/tokenkeep/tokenkeep/internal/zohoaccounts"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

const (
	stampede   = 100                    // concurrent processes
	tokenTime  = 571 * time.Millisecond // time that the accounts server takes to issue a token
	clockError = 2 * time.Minute        // clock error of two processes in three: one clock is slow, and one is fast
	accessLife = time.Hour              // lifetime of an access token
	lag        = 2 * time.Second        // lag of reads
)

const (
	userEmail = "ann@example.com"
	userOrg   = "6001"
	userName  = userEmail + ":" + userOrg
)

// accounts is an accounts server that listens on a socket.
type accounts struct {
	*zohoaccounts.Server
	base string
}

func newAccounts(t *testing.T, strict bool, delay time.Duration) accounts {
	t.Helper()
	s := zohoaccounts.New(&zohoaccounts.Options{Strict: strict})
	s.AddClient(zohoaccounts.Client{ID: clientID, Secret: clientSecret})
	s.Inject(func(r zohoaccounts.Request) *zohoaccounts.Fault {
		if r.Kind == zohoaccounts.Exchange || r.Kind == zohoaccounts.Refresh {
			return &zohoaccounts.Fault{Delay: delay}
		}
		return nil
	})
	base, stop, err := s.Listen()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return accounts{s, base}
}

func (a accounts) consent() zohoaccounts.Consent {
	return zohoaccounts.Consent{ClientID: clientID, Email: userEmail, ZGID: userOrg}
}

// expired saves a record whose access token has expired, and advances the accounts server's clock
// by accessLife.
func (a accounts) expired(t *testing.T, at place) tokenstore.Token {
	t.Helper()
	refresh, access := a.Tokens(a.consent())
	saved, err := at.mustOpen(t).SaveToken(t.Context(), tokenstore.Token{
		UserName: userName, ClientID: clientID, ClientSecret: clientSecret,
		RefreshToken: tokenstore.Secret(refresh), AccessToken: tokenstore.Secret(access), ExpiresAt: time.Now().Add(-time.Hour),
	})
	if err != nil {
		t.Fatal(err)
	}
	a.Advance(accessLife)
	return saved
}

// atOnce sends a job to each worker. When all workers are ready, atOnce lets the workers begin,
// and returns their results.
func atOnce(t *testing.T, workers []*worker, jobOf func(i int) job) []result {
	t.Helper()
	for i, w := range workers {
		j := jobOf(i)
		j.Wait = true
		if err := w.give(j); err != nil {
			t.Fatal(err)
		}
	}
	for _, w := range workers {
		if line, err := w.read(); line != "set" {
			t.Fatalf("a worker: %q, %v", line, err)
		}
	}
	results := make([]result, len(workers))
	var wg sync.WaitGroup
	for i, w := range workers {
		wg.Go(func() {
			err := w.begin()
			if err == nil {
				results[i], err = w.result()
			}
			if err != nil {
				t.Errorf("a worker: %v", err)
			}
		})
	}
	wg.Wait()
	return results
}

// allGot checks that all processes got the same token, and that the token is valid.
func (a accounts) allGot(t *testing.T, results []result) {
	t.Helper()
	for _, r := range results {
		if r.Failed != "" {
			t.Errorf("a process: %s", r.Failed)
		} else if r.Access != results[0].Access || !a.Alive(r.Access) {
			t.Error("a process got a token of its own, or one that is not good")
		}
	}
}

func failures(results []result) (n int) {
	for _, r := range results {
		if r.Failed != "" {
			n++
		}
	}
	return n
}

// A table is text in aligned columns. The first row holds the headings.
type table struct {
	text strings.Builder
	rows *tabwriter.Writer
}

func newTable(columns ...string) *table {
	b := &table{}
	b.rows = tabwriter.NewWriter(&b.text, 0, 0, 2, ' ', 0)
	b.row(columns)
	return b
}

func (b *table) row(cells []string) { _, _ = io.WriteString(b.rows, strings.Join(cells, "\t")+"\n") }

func (b *table) add(cells ...any) {
	texts := make([]string, len(cells))
	for i, c := range cells {
		texts[i] = fmt.Sprint(c)
	}
	b.row(texts)
}

func (b *table) String() string {
	_ = b.rows.Flush()
	return b.text.String()
}

func TestHundredProcesses(t *testing.T) { // not parallel, because its processes starve other tests
	workers := newWorkers(t, stampede)
	t.Run("refresh an expired token once", func(t *testing.T) { refreshAtOnce(t, workers) })
	t.Run("exchange a code once", func(t *testing.T) { startAtOnce(t, workers) })
	t.Run("refresh once though clocks are wrong and reads lag", func(t *testing.T) { refreshWithWrongClocks(t, workers) })
}

// polls describes the reads of the processes that waited for the process with the lease. middle is
// the median pause between two reads of a process, and longest is the longest pause.
type polls struct {
	reads, after    int // most reads of one process: in total, and after the commit of the new token
	middle, longest time.Duration
}

// pollsOf returns the polls of the waiters in results. pollsOf checks that no waiter reads more
// than twice after the commit, and that the median pause is short. took is the duration of the
// whole run.
func pollsOf(t *testing.T, results []result, took time.Duration) (p polls) {
	t.Helper()
	var committed int64
	for _, r := range results {
		committed = max(committed, r.Committed)
	}
	if committed == 0 {
		t.Fatal("no process has committed")
	}
	var pauses []time.Duration
	for _, r := range results {
		if r.Committed != 0 {
			continue
		}
		after := 0
		for i, read := range r.Reads {
			if read.Begin > committed {
				after++
			}
			if i > 0 {
				pauses = append(pauses, time.Duration(read.Begin-r.Reads[i-1].End))
			}
		}
		p.reads, p.after = max(p.reads, len(r.Reads)), max(p.after, after)
	}
	if p.after > 2 {
		t.Errorf("a process read the record %d times after the commit, want 2 at most", p.after)
	}
	if len(pauses) > 0 {
		slices.Sort(pauses)
		p.middle, p.longest = pauses[len(pauses)/2], pauses[len(pauses)-1]
	}
	// The longest intended pause is half a second. The load of a hundred processes on one
	// machine makes pauses longer.
	if p.middle > max(time.Second, took/2) {
		t.Errorf("half of the pauses between two reads were longer than %v, want half a second at most", p.middle)
	}
	return p
}

// String returns p as three cells of a table.
func (p polls) String() string {
	if p.longest == 0 {
		return fmt.Sprintf("-\t%d\t-", p.after)
	}
	return fmt.Sprintf("%d\t%d\t%d / %d ms", p.reads, p.after, p.middle.Milliseconds(), p.longest.Milliseconds())
}

func refreshAtOnce(t *testing.T, workers []*worker) {
	t.Helper()
	ours := newTable("store", "requests", "succeeded", "reads", "after commit", "pause, median / longest", "all done after")
	naive := newTable("store", "accounts server", "requests", "failed", "the token stored in the end")
	onEach(t, func(t *testing.T, k kindOfPlace) {
		at := k.at(t)
		accounts := newAccounts(t, false, tokenTime)
		saved := accounts.expired(t, at)
		began := time.Now()
		results := atOnce(t, workers, func(int) job {
			return job{Place: at, Refresh: saved.ID, Stale: string(saved.AccessToken), Accounts: accounts.base}
		})
		took := time.Since(began)
		accounts.allGot(t, results)
		asked := accounts.Count(zohoaccounts.Refresh)
		if asked != 1 {
			t.Errorf("the accounts server was asked %d times", asked)
		}
		ours.add(k.name, asked, fmt.Sprintf("%d of %d", stampede-failures(results), stampede), pollsOf(t, results, took), took.Round(time.Millisecond))

		for _, strict := range []bool{false, true} {
			rule, end := "Zoho's rule", "revoked"
			if strict {
				rule = "rotation"
			}
			asked, failed, alive := naiveAtOnce(t, workers, at, strict)
			if alive {
				end = "good"
			}
			naive.add(k.name, rule, asked, failed, end)
		}
	})
	t.Logf("%d processes find a token expired; the accounts server takes %v\n%s", stampede, tokenTime, ours)
	t.Logf("the same with golang.org/x/oauth2 and get and put of one secret\n%s", naive)
}

// naiveAtOnce lets the workers refresh a token concurrently without coordination. It
// returns the number of requests to the accounts server, the number of failed workers, and
// whether the stored token is valid in the end.
func naiveAtOnce(t *testing.T, workers []*worker, at place, strict bool) (asked, failed int, alive bool) {
	t.Helper()
	accounts := newAccounts(t, strict, tokenTime)
	refresh, access := accounts.Tokens(accounts.consent())
	name := "zoho"
	if strict {
		name = "strict"
	}
	accounts.Advance(accessLife)
	seen := &probe{}
	defer seen.close()
	b, err := at.box(t.Context(), name, seen)
	if err != nil {
		t.Fatal(err)
	}
	if err := fill(t.Context(), b, &oauth2.Token{AccessToken: access, RefreshToken: refresh, Expiry: time.Now().Add(-time.Hour)}); err != nil {
		t.Fatal(err)
	}
	results := atOnce(t, workers, func(int) job { return job{Place: at, Naive: name, Accounts: accounts.base} })
	stored, err := readBox(t.Context(), b)
	if err != nil {
		t.Logf("what is stored in the end cannot be read: %v", err)
		stored = &oauth2.Token{}
	}
	return accounts.Count(zohoaccounts.Refresh), failures(results), accounts.Alive(stored.AccessToken)
}

func startAtOnce(t *testing.T, workers []*worker) {
	t.Helper()
	table := newTable("store", "exchanges", "refreshes", "calls to find the user", "succeeded", "records", "all done after")
	onEach(t, func(t *testing.T, k kindOfPlace) {
		at := k.at(t)
		accounts := newAccounts(t, false, tokenTime)
		code := accounts.Code(accounts.consent())
		began := time.Now()
		results := atOnce(t, workers, func(int) job { return job{Place: at, Code: code, Accounts: accounts.base} })
		took := time.Since(began)
		accounts.allGot(t, results)
		exchanges, refreshes := accounts.Count(zohoaccounts.Exchange), accounts.Count(zohoaccounts.Refresh)
		if exchanges != 1 || refreshes != 0 {
			t.Errorf("%d exchanges and %d refreshes, want 1 and 0", exchanges, refreshes)
		}
		s := at.mustOpen(t)
		var records []tokenstore.Token
		Eventually(t, func() (err error) { // lists may lag
			records, err = s.GetTokens(t.Context())
			if err == nil && len(records) != 1 {
				err = fmt.Errorf("%d records, want 1", len(records))
			}
			return err
		})
		if records[0].UserName != userName {
			t.Error("the record has not got its user")
		}
		table.add(k.name, exchanges, refreshes, accounts.Count(zohoaccounts.API), fmt.Sprintf("%d of %d", stampede-failures(results), stampede),
			len(records), took.Round(time.Millisecond))
	})
	t.Logf("%d processes start with the same code\n%s", stampede, table)
}

var lagging = []struct {
	name  string
	start func(t *testing.T) (at place, passTime func())
}{
	{"aws", func(t *testing.T) (place, func()) {
		t.Helper()
		s := fakeaws.New(&fakeaws.Options{ReadLag: lag, ListLag: 2 * lag})
		t.Cleanup(s.Close)
		return place{Backend: LocalstackBackend.Name, Addr: s.URL, Prefix: unique()}, func() { s.Advance(time.Hour) }
	}},
	{"gcp", func(t *testing.T) (place, func()) {
		t.Helper()
		s := fakegcp.New(&fakegcp.Options{Lag: fakegcp.Lag{Alias: lag, Metadata: lag, List: 2 * lag, Uneven: true}})
		t.Cleanup(s.Close)
		return place{Backend: GCPBackend.Name, Addr: s.Addr, Parent: "projects/lagging", Prefix: unique()}, func() { s.Advance(time.Hour) }
	}},
}

func refreshWithWrongClocks(t *testing.T, workers []*worker) {
	t.Helper()
	table := newTable("store", "requests", "succeeded", "all done after")
	for _, l := range lagging {
		t.Run(l.name, func(t *testing.T) {
			at, passTime := l.start(t)
			accounts := newAccounts(t, false, tokenTime)
			saved := accounts.expired(t, at)
			passTime()
			began := time.Now()
			results := atOnce(t, workers, func(i int) job {
				return job{Place: at, Manner: manner{Off: time.Duration(i%3-1) * clockError}, Refresh: saved.ID, Stale: string(saved.AccessToken), Accounts: accounts.base}
			})
			took := time.Since(began)
			accounts.allGot(t, results)
			asked := accounts.Count(zohoaccounts.Refresh)
			if asked != 1 {
				t.Errorf("the accounts server was asked %d times", asked)
			}
			table.add(l.name, asked, fmt.Sprintf("%d of %d", stampede-failures(results), stampede), took.Round(time.Millisecond))
		})
	}
	t.Logf("%d processes whose clocks are %v late, right or %v early; reads lag by %v\n%s", stampede, clockError, clockError, lag, table)
}
