package languages

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/zohoaccounts"
)

// threads is the number of callers on each agent of a herd.
const threads = 5

// agents returns the number of agents in a herd. The number is larger if TOKENKEEP_FULL is set.
func agents() int {
	if os.Getenv("TOKENKEEP_FULL") != "" {
		return 20
	}
	return 3
}

// A Herd is a set of callers that request the same token from several agents at the same time.
type Herd struct {
	Code bool // the token has a one-time code; otherwise its access token has expired
	Kill bool // agents are killed during the calls, and started again
}

type answer struct {
	AccessToken string `json:"access_token"`
	Error       string `json:"error"`
}

// Herd starts agents on the store of b, and processes of p that make the calls of h. It checks that
// every call succeeds, and that the token endpoint gets exactly one request.
func (p Program) Herd(t testing.TB, b *Bed, h Herd) {
	t.Helper()
	o := order{Threads: threads, Calls: 2, Token: b.token(h)}
	if h.Kill {
		o.Calls, o.Pause = 30, 0.1
	}
	calls := agents() * threads * o.Calls
	processes := 1
	if !p.Threads {
		processes, o.Threads = threads, 1
	}
	var all []*Agent
	var herd []*Process
	for range agents() {
		a := b.Serve("")
		all = append(all, a)
		for range processes {
			herd = append(herd, p.start(t, b, a.Address, o))
		}
	}
	for _, r := range herd {
		r.ready(t)
	}
	begin := time.Now()
	answers := gather(t, b, herd, all, h.Kill, calls)
	took := time.Since(begin)
	good := 0
	for _, a := range answers {
		if b.Zoho.Alive(a.AccessToken) {
			good++
		} else if a.Error != "" {
			t.Errorf("a call failed: %s", a.Error)
		}
	}
	n := b.Zoho.Count(zohoaccounts.Refresh, zohoaccounts.Exchange)
	service, _, _ := strings.Cut(b.Store, ":")
	t.Logf("%s, %s: %d agents x %d callers x %d calls: %d of %d succeeded, %d requests at the token endpoint, in %v",
		p.Name, service, agents(), threads, o.Calls, good, calls, n, took.Round(time.Millisecond))
	want := zohoaccounts.Refresh
	if h.Code {
		want = zohoaccounts.Exchange
	}
	if good != calls || len(answers) != calls || b.Zoho.Count(want) != n || n != 1 {
		t.Errorf("%d of %d calls succeeded, with %d requests at the token endpoint", good, calls, n)
	}
}

// token returns the token that a herd requests. Unless h.Code is set, it stores a record
// with an expired access token.
func (b *Bed) token(h Herd) map[string]string {
	b.t.Helper()
	if h.Code {
		return map[string]string{"client_id": ClientID, "client_secret": ClientSecret, "grant_token": b.Zoho.Code(Consent())}
	}
	refresh, _ := b.Zoho.Tokens(Consent())
	b.Run(fmt.Sprintf(`{"user_name":"ann","client_id":%q,"client_secret":%q,"refresh_token":%q,"access_token":"1000.expired","expiry_time":1}`,
		ClientID, ClientSecret, refresh), "save")
	return map[string]string{"user_name": "ann", "client_id": ClientID, "client_secret": ClientSecret}
}

// gather runs the processes of a herd, and returns the results of their calls. If kill is set,
// gather kills and restarts each agent while the processes run.
func gather(t testing.TB, b *Bed, herd []*Process, all []*Agent, kill bool, calls int) (answers []answer) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	var done atomic.Int64
	for _, r := range herd {
		wg.Go(func() {
			got, err := r.run(&done)
			mu.Lock()
			defer mu.Unlock()
			if answers = append(answers, got...); err != nil {
				t.Error(err)
			}
		})
	}
	if kill {
		wg.Go(func() {
			for i, a := range all { // at equal intervals during the calls
				awaitCount(t, &done, calls*(i+1)/(len(all)+2))
				a.Kill()
				b.Serve(a.Address)
			}
		})
	}
	wg.Wait()
	return answers
}

// run tells a process to begin, and returns the results of its calls when the process has
// ended. It increments n for each result.
func (r *Process) run(n *atomic.Int64) (answers []answer, err error) {
	_, err = io.WriteString(r.in, "go\n")
	for {
		var a answer
		next := r.read(&a)
		if errors.Is(next, io.EOF) {
			return answers, err
		}
		if next != nil {
			return answers, errors.Join(err, next)
		}
		answers = append(answers, a)
		n.Add(1)
	}
}

// awaitCount waits until n reaches the value of the parameter most. It fails the test after two
// minutes.
func awaitCount(t testing.TB, n *atomic.Int64, most int) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(2 * time.Minute); n.Load() < int64(most); <-tick.C {
		if time.Now().After(end) {
			t.Errorf("after two minutes there are %d answers, and not %d", n.Load(), most)
			return
		}
	}
}
