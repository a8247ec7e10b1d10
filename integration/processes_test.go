package integration

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/zohoaccounts"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// A worker is another process of this program.
type worker struct {
	in  io.WriteCloser
	out *bufio.Reader
}

// newWorker starts a worker, which ends with the test.
func newWorker(t *testing.T) *worker {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), workerEnv+"=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("a worker: %v", err)
		}
	})
	return &worker{in, bufio.NewReader(out)}
}

// read returns the next line that the worker prints.
func (w *worker) read() (string, error) {
	line, err := w.out.ReadString('\n')
	return strings.TrimSpace(line), err
}

// do has the worker do a job, and returns its answer.
func (w *worker) do(j job) (string, error) {
	if err := json.NewEncoder(w.in).Encode(j); err != nil {
		return "", err
	}
	answer, err := w.read()
	if err == nil && !strings.HasPrefix(answer, "ok") {
		err = fmt.Errorf("a worker: %s", answer)
	}
	return answer, err
}

// places are where the stores of these tests have their records, each on the
// server that the tests share.
var places = []struct {
	backend *Backend
	at      func(t *testing.T) place
	rounds  int // of TestTwoProcessesSaveAtOnce
}{
	{VaultBackend, func(t *testing.T) place {
		v := SharedVault(t)
		return place{Backend: VaultBackend.Name, Addr: v.Addr, Token: v.RootToken, Mount: v.Mount, Prefix: v.Prefix(t)}
	}, 50},
	{LocalstackBackend, func(t *testing.T) place {
		a := SharedAWS(t)
		return place{Backend: LocalstackBackend.Name, Addr: a.endpoint, Prefix: a.Prefix(t)}
	}, 10},
	{MySQLBackend, func(t *testing.T) place {
		return place{Backend: MySQLBackend.Name, DSN: SharedMySQL(t).Database(t)}
	}, 10},
}

// onEach runs a test on each backend.
func onEach(t *testing.T, test func(t *testing.T, at place, rounds int)) {
	for _, p := range places {
		t.Run(p.backend.Name, func(t *testing.T) {
			t.Parallel()
			p.backend.Count(t)
			test(t, p.at(t), p.rounds)
		})
	}
}

// savers are 32 tokens of 4 users. The 8 of one user have a field each that the
// others do not have, or two of them the same.
func savers(round int) []plainToken {
	var all []plainToken
	for i := range 32 {
		value := func(what string) string { return fmt.Sprintf("%s-%d-%d", what, round, i%4) }
		t := plainToken{UserName: value("user"), ClientID: "client", RefreshToken: value("refresh")}
		switch i / 4 {
		case 0, 1:
			t.AccessToken = value("access")
		case 2, 3:
			t.ClientSecret = value("secret")
		case 4, 5:
			t.RedirectURL = "https://example.com/" + value("redirect")
		case 6:
			t.APIDomain = "https://" + value("api")
		case 7:
			t.GrantToken = value("grant")
		}
		all = append(all, t)
	}
	return all
}

// whole are the records that the savers make together.
func whole(round int) map[string]plainToken {
	all := map[string]plainToken{}
	for _, t := range savers(round) {
		w := all[t.UserName]
		w.UserName, w.ClientID, w.RefreshToken = t.UserName, t.ClientID, t.RefreshToken
		w.AccessToken = cmp.Or(w.AccessToken, t.AccessToken)
		w.ClientSecret = cmp.Or(w.ClientSecret, t.ClientSecret)
		w.RedirectURL = cmp.Or(w.RedirectURL, t.RedirectURL)
		w.APIDomain = cmp.Or(w.APIDomain, t.APIDomain)
		w.GrantToken = cmp.Or(w.GrantToken, t.GrantToken)
		all[t.UserName] = w
	}
	return all
}

// Two processes of 16 goroutines each save 4 users at once, again and again. There
// are 4 records then, and no field of any is lost.
func TestTwoProcessesSaveAtOnce(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, at place, rounds int) {
		workers := []*worker{newWorker(t), newWorker(t)}
		for _, w := range workers {
			if line, err := w.read(); line != "ready" {
				t.Fatalf("a worker: %q, %v", line, err)
			}
		}
		var slowest time.Duration
		for round := range rounds {
			here := at
			if here.Prefix != "" {
				here.Prefix = fmt.Sprintf("%s/r%d", at.Prefix, round)
			}
			began := time.Now()
			saveAtOnce(t, workers, here, savers(round))
			slowest = max(slowest, time.Since(began))
			s, err := here.open(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			records, err := s.GetTokens(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if len(records) != 4 {
				t.Fatalf("round %d: %d records", round, len(records))
			}
			for _, r := range records {
				want := whole(round)[r.UserName].token()
				want.ID = r.ID
				if r != want {
					t.Errorf("round %d: a field of %s is lost: %v", round, r.UserName, differences(r, want))
				}
			}
			if err := s.DeleteTokens(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		t.Logf("%d rounds; the slowest took %v", rounds, slowest)
	})
}

// saveAtOnce has each worker save every other token.
func saveAtOnce(t *testing.T, workers []*worker, at place, tokens []plainToken) {
	t.Helper()
	var wg sync.WaitGroup
	for i, w := range workers {
		var share []plainToken
		for k, token := range tokens {
			if k/4%len(workers) == i {
				share = append(share, token)
			}
		}
		wg.Go(func() {
			if _, err := w.do(job{Place: at, Savers: share}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// differences returns the names of the fields in which two tokens differ.
func differences(a, b tokenstore.Token) []string {
	var names []string
	for name, same := range map[string]bool{
		"AccessToken": a.AccessToken == b.AccessToken, "RefreshToken": a.RefreshToken == b.RefreshToken, "GrantToken": a.GrantToken == b.GrantToken,
		"ClientSecret": a.ClientSecret == b.ClientSecret, "RedirectURL": a.RedirectURL == b.RedirectURL, "APIDomain": a.APIDomain == b.APIDomain,
		"ClientID": a.ClientID == b.ClientID, "ExpiresAt": a.ExpiresAt.Equal(b.ExpiresAt),
	} {
		if !same {
			names = append(names, name)
		}
	}
	return names
}

// stampede is how many processes find the same token expired.
const stampede = 100

// A hundred processes find the same token expired: the accounts server is asked
// once, and all of them get what it answered.
func TestAHundredProcessesRefreshOnce(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, at place, _ int) {
		accounts := zohoaccounts.New(nil)
		base, stop, err := accounts.Listen()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(stop)
		accounts.AddClient(zohoaccounts.Client{ID: "client", Secret: "client-secret"})
		refresh, stale := accounts.Tokens(zohoaccounts.Consent{ClientID: "client", Email: "ann@example.com", ZGID: "6001"})
		s, err := at.open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		saved, err := s.SaveToken(t.Context(), tokenstore.Token{
			UserName: "ann@example.com:6001", ClientID: "client", ClientSecret: "client-secret",
			RefreshToken: tokenstore.Secret(refresh), AccessToken: tokenstore.Secret(stale), ExpiresAt: time.Now().Add(-time.Minute),
		})
		if err != nil {
			t.Fatal(err)
		}
		before := accounts.Count(zohoaccounts.Refresh)

		workers := make([]*worker, stampede)
		for i := range workers {
			workers[i] = newWorker(t)
		}
		for _, w := range workers {
			if line, err := w.read(); line != "ready" {
				t.Fatalf("a worker: %q, %v", line, err)
			}
		}
		began, answers := time.Now(), make([]string, stampede)
		var wg sync.WaitGroup
		for i, w := range workers {
			wg.Go(func() {
				answer, err := w.do(job{Place: at, Refresh: saved.ID, Stale: stale, Accounts: base})
				if err != nil {
					t.Error(err)
				}
				answers[i] = answer
			})
		}
		wg.Wait()
		if asked := accounts.Count(zohoaccounts.Refresh) - before; asked != 1 {
			t.Errorf("the accounts server was asked %d times", asked)
		}
		for _, a := range answers {
			if a != answers[0] || a == "ok "+stale {
				t.Fatal("not all got the same new token")
			}
		}
		t.Logf("%d processes, 1 request, %v", stampede, time.Since(began).Round(time.Millisecond))
	})
}
