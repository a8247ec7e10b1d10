package initializer_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/initializer"
	"github.com/tokenkeep/tokenkeep/internal/zohoaccounts"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/filestore"
)

// Environment variables of these tests. With instanceEnv, the test binary runs as a program that a
// test started. With fullEnv, the tests start a hundred processes instead of a few.
const (
	instanceEnv = "TOKENKEEP_TEST_INSTANCE"
	fullEnv     = "TOKENKEEP_FULL"
)

func TestMain(m *testing.M) {
	if os.Getenv(instanceEnv) != "" {
		if err := runInstance(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// An order is the input of a process. The process reads the order from standard input, because
// other users can read arguments.
type order struct {
	Path, Server, ID, Client, Secret, Code string
}

// A result is the output of a process.
type result struct{ ID, User, Access string }

// runInstance is the main function of a process. It uses the store for the first time after all
// processes are ready.
func runInstance(in io.Reader, out io.Writer) error {
	r := bufio.NewReader(in)
	line, err := r.ReadBytes('\n')
	if err != nil {
		return err
	}
	var o order
	if err := json.Unmarshal(line, &o); err != nil {
		return err
	}
	store, err := filestore.New(o.Path, nil)
	if err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, r) // wait until all processes are ready
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := initializer.New(ctx, initializer.Config{
		Environment: initializer.Environment{AccountsURL: o.Server, APIURL: o.Server},
		Store:       store,
		FindUser:    true,
		Token: tokenstore.Token{
			ID: o.ID, ClientID: o.Client, ClientSecret: tokenstore.Secret(o.Secret), GrantToken: tokenstore.Secret(o.Code),
		},
	})
	if err != nil {
		return err
	}
	t, err := c.Token(ctx)
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(result{t.ID, t.UserName, string(t.AccessToken)})
}

func processes() int {
	if os.Getenv(fullEnv) != "" {
		return 100
	}
	return 8
}

// startAll starts n processes with the same order, makes them begin at the same moment, and
// returns their results.
func startAll(t *testing.T, n int, o order) []result {
	t.Helper()
	line, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	type process struct {
		cmd         *exec.Cmd
		in          io.WriteCloser
		out, errors bytes.Buffer
	}
	var all []*process
	for range n {
		p := &process{cmd: exec.CommandContext(t.Context(), os.Args[0])}
		p.cmd.Env = append(os.Environ(), instanceEnv+"=1")
		p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.errors
		if p.in, err = p.cmd.StdinPipe(); err != nil {
			t.Fatal(err)
		}
		if err := p.cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := p.in.Write(append(line, '\n')); err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	for _, p := range all {
		_ = p.in.Close()
	}
	var results []result
	for _, p := range all {
		var r result
		if err := p.cmd.Wait(); err != nil {
			t.Errorf("a process: %v: %s", err, &p.errors)
		} else if err := json.Unmarshal(p.out.Bytes(), &r); err != nil {
			t.Error(err)
		}
		results = append(results, r)
	}
	return results
}

// listen starts the accounts server on a socket, with a slow token endpoint.
func listen(t *testing.T) (*zohoaccounts.Server, string) {
	t.Helper()
	s := zohoaccounts.New(nil)
	s.AddClient(zohoaccounts.Client{ID: clientID, Secret: secret})
	s.Inject(func(r zohoaccounts.Request) *zohoaccounts.Fault {
		if r.Kind == zohoaccounts.Exchange || r.Kind == zohoaccounts.Refresh {
			return &zohoaccounts.Fault{Delay: 571 * time.Millisecond}
		}
		return nil
	})
	base, stop, err := s.Listen()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return s, base
}

func TestRefreshManyProcesses(t *testing.T) {
	t.Parallel()
	s, base := listen(t)
	path := filepath.Join(t.TempDir(), "sdk_tokens.txt")
	store, err := filestore.New(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	refresh, _ := s.Tokens(consent())
	saved, err := store.SaveToken(t.Context(), tokenstore.Token{
		UserName: user, ClientID: clientID, ClientSecret: secret,
		RefreshToken: tokenstore.Secret(refresh), AccessToken: "expired", ExpiresAt: time.Now().Add(-time.Hour),
	})
	if err != nil {
		t.Fatal(err)
	}
	n := processes()
	results := startAll(t, n, order{Path: path, Server: base, ID: saved.ID})
	checkOne(t, s, results)
	if got := s.Count(zohoaccounts.Refresh); got != 1 {
		t.Errorf("%d processes made %d requests", n, got)
	}
	t.Logf("%d processes, 1 refresh", n)
}

func TestExchangeManyProcesses(t *testing.T) {
	t.Parallel()
	s, base := listen(t)
	path := filepath.Join(t.TempDir(), "sdk_tokens.txt")
	n := processes()
	results := startAll(t, n, order{Path: path, Server: base, Client: clientID, Secret: secret, Code: s.Code(consent())})
	checkOne(t, s, results)
	if got := s.Count(zohoaccounts.Exchange, zohoaccounts.Refresh); got != 1 {
		t.Errorf("%d processes made %d requests", n, got)
	}
	store, err := filestore.New(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	tokens, err := store.GetTokens(t.Context())
	if err != nil || len(tokens) != 1 || tokens[0].UserName != user {
		t.Errorf("the file has %d records: %v", len(tokens), err)
	}
	t.Logf("%d processes, 1 exchange, 1 record", n)
}

func checkOne(t *testing.T, s *zohoaccounts.Server, results []result) {
	t.Helper()
	for _, r := range results {
		if r.Access != results[0].Access || !s.Alive(r.Access) {
			t.Fatal("a process has no good token, or one of its own")
		}
	}
}
