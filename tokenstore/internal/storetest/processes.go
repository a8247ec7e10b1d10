// Package storetest holds tests that several stores share. Some of these tests run several
// processes on one store; others use several authorization servers.
package storetest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"
)

// env is the name of the environment variable that holds the arguments for a copy of the test
// program.
const env = "TOKENKEEP_STORETEST_CHILD"

// Main is the body of a TestMain, and returns the exit code. If Processes started the program,
// Main calls the function child with the arguments for this process. Otherwise, Main runs the
// tests.
func Main(m *testing.M, child func(args []string) error) int {
	text := os.Getenv(env)
	if text == "" {
		return m.Run()
	}
	var args []string
	err := json.Unmarshal([]byte(text), &args)
	if err == nil {
		err = child(args)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// Processes runs a copy of the test program for each element of args, all concurrently, and
// waits for the copies. It reports failures to t, and returns the time until the last copy
// ended.
func Processes(t *testing.T, args ...[]string) time.Duration {
	t.Helper()
	begin := time.Now()
	var wg sync.WaitGroup
	for i := range args {
		text, err := json.Marshal(args[i])
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^$")
			cmd.Env = append(os.Environ(), env+"="+string(text))
			var out bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &out
			if err := cmd.Run(); err != nil {
				t.Errorf("process %d: %v: %s", i, err, bytes.TrimSpace(out.Bytes()))
			}
		})
	}
	wg.Wait()
	return time.Since(begin)
}
