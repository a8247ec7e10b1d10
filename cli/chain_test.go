package cli

import (
	"bytes"
	"cmp"
	crand "crypto/rand"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/fakeaws"
	"github.com/tokenkeep/tokenkeep/internal/fakegcp"
	"github.com/tokenkeep/tokenkeep/internal/fakevault"
)

// envFull makes TestChain run at full size: 10,000 records, and 50 killed processes for each of
// the two chains.
const envFull = "TOKENKEEP_FULL"

// TestChain uses the Vault server at the address in the variable envVaultAddr, with the token in
// VAULT_TOKEN. Without an address, TestChain uses the fake.
const (
	envVaultAddr  = "TOKENKEEP_VAULT_ADDR"
	envVaultMount = "TOKENKEEP_VAULT_MOUNT" // "secret" if unset
)

// TestChain checks that migrations from a file through every kind of store into a file do not
// lose, duplicate or change a record. The processes that migrate are killed at random points and
// started again.
func TestChain(t *testing.T) {
	t.Parallel()
	records, kills := 300, 8
	if os.Getenv(envFull) != "" {
		records, kills = 10_000, 50
	}
	for _, flags := range [][]string{{"--keep-ids"}, nil} {
		t.Run(fmt.Sprint(flags), func(t *testing.T) {
			if os.Getenv(envFull) == "" {
				t.Parallel() // only in short runs: parallel chains distort the reported times
			}
			chain(t, records, kills, flags)
		})
	}
}

func chain(t *testing.T, records, kills int, flags []string) {
	stores := []chained{{env: bigFile(t, records), calls: new(atomic.Int64)}}
	for _, k := range storeKinds[1:] {
		if k.name == "mysql" && !mysqlInstalled() {
			t.Log("without mysql: there is no server here")
			continue
		}
		stores = append(stores, openChained(t, k))
	}
	stores = append(stores, openChained(t, storeKinds[0]))
	start := contents(t, stores[0].env)
	want, killed := start, 0
	const line = "%-15s  %6s  %6s  %7s  %-14s  %s"
	t.Logf(line, "MOVE", "KILLED", "TIME", "CALLS", "LAST RUN FOUND", "AND TOOK")
	for i := range len(stores) - 1 {
		from, to := stores[i], stores[i+1]
		share := kills/(len(stores)-1) + min(1, max(0, kills%(len(stores)-1)-i))
		kill := killByTime
		if to.watch != nil {
			kill = killByWrites
		}
		arm := kill(t, from, to, share, flags)
		began, calls := time.Now(), from.calls.Load()+to.calls.Load()
		n := killAlong(t, from, to, share, flags, arm)
		killed += n
		r := migrates(t, from.env, to.env, flags...)
		took, calls := time.Since(began), from.calls.Load()+to.calls.Load()-calls
		if r.Records != records || r.Verified != records || len(r.Problems) != 0 {
			t.Fatalf("%s to %s: %d of %d records are verified", from.name(), to.name(), r.Verified, r.Records)
		}
		if len(flags) > 0 && len(r.IDs) > 0 {
			t.Errorf("%s to %s: %d IDs have changed", from.name(), to.name(), len(r.IDs))
		}
		if to.watch != nil && r.Unchanged == records {
			t.Errorf("%s to %s: there was nothing left to do when a process was killed", from.name(), to.name())
		}
		want = renamed(want, r)
		if got := contents(t, to.env); !maps.Equal(got, want) {
			t.Fatalf("%s to %s: %d records, and not those that they should be", from.name(), to.name(), len(got))
		}
		t.Logf(line, from.name()+" to "+to.name(), strconv.Itoa(n), fmt.Sprintf("%.1fs", took.Seconds()), strconv.FormatInt(calls, 10),
			fmt.Sprintf("%d of %d", r.Unchanged, r.Records), steps(r))
	}
	if len(flags) > 0 && !maps.Equal(contents(t, stores[len(stores)-1].env), start) {
		t.Error("the file at the end is not that of the start")
	}
	if killed < kills {
		t.Errorf("%d processes were killed, %d should have been", killed, kills)
	}
	t.Logf("%d records and %d kills, with the flags %v", records, killed, flags)
}

// chained is one store of the chain.
type chained struct {
	env

	open  func(*testing.T) chained // returns a new store of the same kind
	calls *atomic.Int64            // the number of calls to the server of the store

	// watch sets a function that is called before each write request is answered. watch is nil
	// if the store has no server.
	watch func(f func())
}

func (c chained) name() string {
	name, _, _ := strings.Cut(c.env[envStore], ":")
	return name
}

func openChained(t *testing.T, k kind) chained {
	t.Helper()
	c := chained{calls: new(atomic.Int64), open: func(t *testing.T) chained { return openChained(t, k) }}
	var onWrite atomic.Pointer[func()]
	count := func(writes bool) {
		c.calls.Add(1)
		if f := onWrite.Load(); f != nil && writes {
			(*f)()
		}
	}
	c.watch = func(f func()) { onWrite.Store(&f) }
	reads := func(operation string) bool {
		return slices.ContainsFunc([]string{"Get", "List", "Access", "Describe", "Batch"}, func(verb string) bool {
			return strings.HasPrefix(operation, verb)
		})
	}
	switch k.name {
	case "vault":
		if addr := os.Getenv(envVaultAddr); addr != "" {
			c.env = givenVaultEnv(t, addr, count)
			break
		}
		e, server := vaultEnv(t)
		c.env = e
		server.Inject(func(q *fakevault.Request) *fakevault.Fault {
			count(q.Operation != "read" && q.Operation != "list")
			return nil
		})
	case "awssm":
		e, server := awsEnv(t)
		c.env = e
		server.Inject(func(q *fakeaws.Request) *fakeaws.Fault { count(!reads(q.Operation)); return nil })
	case "gcpsm":
		e, server := gcpEnv(t)
		c.env = e
		server.Inject(func(q *fakegcp.Call) *fakegcp.Fault { count(!reads(q.Method)); return nil })
	default:
		c.env, c.watch = k.open(t), nil
	}
	return c
}

// givenVaultEnv returns an environment with a new prefix on an external server. A proxy in front
// of the server counts each request.
func givenVaultEnv(t *testing.T, addr string, count func(writes bool)) env {
	t.Helper()
	target, err := url.Parse(addr)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ error) { // the client was killed
		w.WriteHeader(http.StatusBadGateway)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		count(r.Method != http.MethodGet && r.Method != "LIST")
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return env{
		envStore:      "vault:" + cmp.Or(os.Getenv(envVaultMount), "secret") + "/chain-" + crand.Text(),
		"VAULT_ADDR":  server.URL,
		"VAULT_TOKEN": os.Getenv("VAULT_TOKEN"),
	}
}

func steps(r migrateReport) string {
	var all []string
	for _, s := range r.Steps {
		text := fmt.Sprintf("%s %.2fs", s.Name, s.Seconds)
		if s.Calls != nil {
			text += fmt.Sprintf(" %d calls", *s.Calls)
		}
		all = append(all, text)
	}
	return strings.Join(all, ", ")
}

// killAlong starts processes that migrate, and kills each process at a point chosen by arm. It
// stops after the given number of kills, or after kills*tries processes, and returns the number of
// killed processes.
//
// If to.watch is set, each point is a write request, and a process that completes fails the
// test. Otherwise the points are moments, and a process may complete before its moment.
func killAlong(t *testing.T, from, to chained, kills int, flags []string, arm arming) int {
	t.Helper()
	const tries = 20
	killed := 0
	for range kills * tries {
		if killed == kills {
			break
		}
		e, args := between(from.env, to.env, flags...)
		cmd := process(t, e, args...)
		var out, errs bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errs
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		disarm := arm(sync.OnceFunc(func() { _ = cmd.Process.Kill() }))
		err := cmd.Wait()
		disarm()
		switch {
		case cmd.ProcessState.ExitCode() == -1:
			killed++
		case err != nil:
			t.Fatalf("%v: %s%s", err, &out, &errs)
		case to.watch != nil:
			t.Fatalf("a process has come to its end, and %d of %d were killed", killed, kills)
		}
	}
	return killed
}

// An arming arranges a call to kill during the run of the process that was started last. The
// function disarm cancels the call.
type arming func(kill func()) (disarm func())

// killByWrites returns an arming that kills at a random write request. Together, the killed runs
// send at most as many writes as one uninterrupted run.
func killByWrites(t *testing.T, from, to chained, kills int, flags []string) arming {
	t.Helper()
	// The difference between two runs excludes writes that do not depend on the number of
	// records.
	const few = 20
	writes := func(records int) int64 {
		other := to.open(t)
		var n atomic.Int64
		other.watch(func() { n.Add(1) })
		migrates(t, bigFile(t, records), other.env, flags...)
		return n.Load()
	}
	most := (writes(2*few) - writes(few)) * int64(len(contents(t, from.env))) / few / int64(kills)
	return func(kill func()) func() {
		var n atomic.Int64
		at := 1 + rand.N(most)
		to.watch(func() {
			if n.Add(1) == at {
				kill()
			}
		})
		return func() { to.watch(func() {}) }
	}
}

// killByTime returns an arming that kills at a random moment soon after the write step of an
// uninterrupted run would begin. If a process completes before its moment, later moments are
// within the time that the process took.
func killByTime(t *testing.T, from, to chained, kills int, flags []string) arming {
	t.Helper()
	began := time.Now()
	r := migrates(t, from.env, to.open(t).env, flags...)
	all := time.Since(began)
	write := all
	for _, s := range r.Steps {
		if s.Name == "write" {
			write = time.Duration(s.Seconds * float64(time.Second))
		}
	}
	first, span := all-write, max(2*write/time.Duration(kills), time.Millisecond)
	return func(kill func()) func() {
		began := time.Now()
		timer := time.AfterFunc(first+rand.N(span), kill)
		return func() {
			if timer.Stop() { // the process completed earlier, because fewer records were left
				first, span = 0, time.Since(began)
			}
		}
	}
}

// process returns a command that runs the program as a separate process.
func process(t *testing.T, e env, args ...string) *exec.Cmd {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Env = []string{envAsMain + "=1"}
	for name, value := range e {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	return cmd
}
