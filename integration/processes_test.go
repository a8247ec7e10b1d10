package integration

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// A worker is another process that runs the test program.
type worker struct {
	in  io.WriteCloser
	out *bufio.Reader
	end func() error // closes standard input, and waits until the process ends
}

// newWorkers starts n workers and waits until they are ready. The workers end with the
// test.
func newWorkers(t *testing.T, n int) []*worker {
	t.Helper()
	all := make([]*worker, n)
	for i := range all {
		all[i] = newWorker(t)
		t.Cleanup(func() {
			if err := all[i].end(); err != nil {
				t.Errorf("a worker: %v", err)
			}
		})
	}
	for _, w := range all {
		w.ready(t)
	}
	return all
}

// newWorker starts a worker. The caller must call end.
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
	return &worker{in, bufio.NewReader(out), func() error {
		_ = in.Close()
		return cmd.Wait()
	}}
}

func (w *worker) ready(t *testing.T) {
	t.Helper()
	if line, err := w.read(); line != "ready" {
		t.Fatalf("a worker: %q, %v", line, err)
	}
}

// read returns the next line that the worker prints, without the newline.
func (w *worker) read() (string, error) {
	line, err := w.out.ReadString('\n')
	return strings.TrimSpace(line), err
}

func (w *worker) give(j job) error { return json.NewEncoder(w.in).Encode(j) }

// begin lets the worker begin a job that has Wait set.
func (w *worker) begin() error {
	_, err := io.WriteString(w.in, "go\n")
	return err
}

// result returns the result of the job. If the worker has ended, result returns an error.
func (w *worker) result() (result, error) {
	var r result
	line, err := w.read()
	if err == nil {
		err = json.Unmarshal([]byte(line), &r)
	}
	return r, err
}

// do sends a job to the worker and waits for the result. If the job fails, do returns an error.
func (w *worker) do(j job) error {
	if err := w.give(j); err != nil {
		return err
	}
	r, err := w.result()
	if err == nil && r.Failed != "" {
		err = errors.New(r.Failed)
	}
	return err
}

// savers returns 32 tokens: 8 for each of 4 users. Each token sets one additional field. Two
// tokens of a user may set the same field, to the same value.
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

// whole returns the records that result from saving all tokens from savers, by user.
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

// TestTwoProcessesSaveAtOnce checks that concurrent saves of tokens of 4 users result in
// exactly 4 records, without the loss of a field. Two processes with 16 goroutines each save
// the tokens, repeatedly.
func TestTwoProcessesSaveAtOnce(t *testing.T) {
	t.Parallel()
	for _, k := range places {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			k.count(t)
			rounds := 10
			if k.backend == VaultBackend || os.Getenv(fullEnv) != "" {
				rounds = 50
			}
			saveInRounds(t, k.at(t), rounds)
		})
	}
}

func saveInRounds(t *testing.T, at place, rounds int) {
	t.Helper()
	workers := newWorkers(t, 2)
	var slowest time.Duration
	for round := range rounds {
		here := at
		if here.Prefix != "" {
			here.Prefix = fmt.Sprintf("%s-r%d", at.Prefix, round)
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
}

// saveAtOnce distributes the tokens among the workers. The workers save the tokens
// concurrently.
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
			if err := w.do(job{Place: at, Savers: share}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// differences returns the names of the fields in which two tokens differ. differences compares the
// secrets, the URLs, ClientID and ExpiresAt.
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
