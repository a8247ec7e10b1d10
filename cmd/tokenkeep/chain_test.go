package main

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// envFull makes TestChain as long as it can be: 10,000 records and 50 kills, along
// each of the two chains.
const envFull = "TOKENKEEP_FULL"

// TestChain moves records from a file through every kind of store into a file,
// with their IDs and without. The processes that move them are killed at random
// points, and begun again, before each move is allowed to come to its end. No
// record may be lost, doubled or changed.
func TestChain(t *testing.T) {
	t.Parallel()
	records, kills := 300, 8
	if os.Getenv(envFull) != "" {
		records, kills = 10_000, 50
	}
	for _, flags := range [][]string{{"--keep-ids"}, nil} {
		t.Run(fmt.Sprint(flags), func(t *testing.T) {
			if os.Getenv(envFull) == "" {
				t.Parallel() // otherwise one would slow the other down, and the times mean nothing
			}
			chain(t, records, kills, flags)
		})
	}
}

func chain(t *testing.T, records, kills int, flags []string) {
	stores := []env{bigFile(t, records)}
	for _, k := range storeKinds[1:] {
		if e := openOrSkip(t, k); e != nil {
			stores = append(stores, e)
		}
	}
	stores = append(stores, fileStoreEnv(t))
	start := contents(t, stores[0])
	want, killed := start, 0
	for i := range len(stores) - 1 {
		from, to := stores[i], stores[i+1]
		share := kills/(len(stores)-1) + min(1, max(0, kills%(len(stores)-1)-i))
		n := killAlong(t, from, to, share, flags)
		killed += n
		began := time.Now()
		r := migrates(t, from, to, flags...)
		if r.Records != records || r.Verified != records || len(r.Problems) != 0 {
			t.Fatalf("%s to %s: %d of %d records are verified", schemeOf(from), schemeOf(to), r.Verified, r.Records)
		}
		if len(flags) > 0 && len(r.IDs) > 0 {
			t.Errorf("%s to %s: %d IDs have changed", schemeOf(from), schemeOf(to), len(r.IDs))
		}
		want = renamed(want, r)
		if got := contents(t, to); !maps.Equal(got, want) {
			t.Fatalf("%s to %s: %d records, and not those that they should be", schemeOf(from), schemeOf(to), len(got))
		}
		t.Logf("%s to %s: killed %d times; the last run took %v and found %d of %d there: %s",
			schemeOf(from), schemeOf(to), n, time.Since(began).Round(time.Millisecond), r.Unchanged, r.Records, steps(r))
	}
	if len(flags) > 0 && !maps.Equal(contents(t, stores[len(stores)-1]), start) {
		t.Error("the file at the end is not that of the start")
	}
	if killed < kills {
		t.Errorf("%d processes were killed, %d should have been", killed, kills)
	}
}

// openOrSkip returns a new store, or nil if this machine has no server for it.
func openOrSkip(t *testing.T, k kind) env {
	t.Helper()
	if k.name == "mysql" && !mysqlInstalled() {
		t.Log("without mysql: there is no server here")
		return nil
	}
	return k.open(t)
}

// schemeOf returns the scheme of a store.
func schemeOf(e env) string {
	name, _, _ := strings.Cut(e[envStore], ":")
	return name
}

// steps returns the steps of a report in a line.
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

// killAlong starts a migration, kills it at a random point, and starts it again,
// until that was done so many times or the migration has come to its end. It
// returns how many processes were killed while they were at work; the last ones,
// if there is nothing left to do, are at work reading and comparing.
func killAlong(t *testing.T, from, to env, kills int, flags []string) int {
	t.Helper()
	const tries = 20
	// The points are spread over the time that a whole run takes, which shows when
	// one comes to its end.
	killed, longest := 0, 300*time.Millisecond
	for range kills * tries {
		if killed == kills {
			break
		}
		e, args := between(from, to, flags...)
		cmd := process(t, e, args...)
		var out, errs bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errs
		began := time.Now()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(rand.N(longest), func() { _ = cmd.Process.Kill() })
		err := cmd.Wait()
		if timer.Stop() {
			longest = time.Since(began) // it was faster than that
			if err != nil {
				t.Fatalf("%v: %s%s", err, &out, &errs)
			}
			continue
		}
		if cmd.ProcessState.ExitCode() == -1 {
			killed++
			longest *= 2
		}
	}
	return killed
}

// process returns the program as a process of its own.
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
