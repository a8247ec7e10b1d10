package integration

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/client"
)

// The tests in this file run other tests in another process, and check the output and the exit
// code of that process.

// runTests returns a command that runs the tests that match the pattern, with the additional
// environment variables env. The tests do not inherit TOKENKEEP_REQUIRE, TOKENKEEP_VAULT_ADDR
// and TESTCONTAINERS_SESSION_ID.
func runTests(ctx context.Context, pattern string, env ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^"+pattern+"$", "-test.timeout=5m")
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(s string) bool {
		return strings.HasPrefix(s, "TOKENKEEP_REQUIRE=") || strings.HasPrefix(s, "TOKENKEEP_VAULT_ADDR=") || strings.HasPrefix(s, "TESTCONTAINERS_SESSION_ID=")
	}), env...)
	return cmd
}

// started matches the line that reports the start of a container.
var started = regexp.MustCompile(`container ([0-9a-f]{12}) of \S+ started`)

// TestRunContainerKilled checks that a suite fails within a minute after its container is killed,
// prints the container's output, and leaves no containers, networks or volumes.
func TestRunContainerKilled(t *testing.T) {
	t.Parallel()
	e, err := docker()
	if reason := (*absentError)(nil); errors.As(err, &reason) {
		t.Skip(reason)
	} else if err != nil {
		t.Fatal(err)
	}
	for _, suite := range []struct {
		test    string
		backend *Backend
		printed string
	}{
		{"TestVaultstoreConforms", VaultBackend, ""},
		{"TestSqlstoreConforms", MySQLBackend, "ready for connections"},
		{"TestAwssmConforms", LocalstackBackend, "listening http"},
	} {
		t.Run(suite.test, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
			defer cancel()
			cmd := runTests(ctx, suite.test)
			cmd.Args = append(cmd.Args, "-test.v") // to follow the progress
			output, stdout := io.Pipe()
			cmd.Stdout, cmd.Stderr = stdout, stdout
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() {
				err := cmd.Wait()
				_ = stdout.Close()
				ended <- err
			}()
			var (
				out    bytes.Buffer
				id     string
				begun  int // number of cases that have begun, of more than a hundred
				killed time.Time
			)
			for lines := bufio.NewScanner(io.TeeReader(output, &out)); lines.Scan(); {
				if m := started.FindStringSubmatch(lines.Text()); m != nil {
					id = m[1]
				}
				if strings.HasPrefix(lines.Text(), "=== CONT  "+suite.test+"/") {
					begun++
				}
				if begun == 20 && killed.IsZero() {
					if _, err := e.ContainerKill(ctx, id, client.ContainerKillOptions{Signal: "KILL"}); err != nil {
						t.Error(err)
					}
					killed = time.Now()
				}
			}
			err := <-ended
			if m := regexp.MustCompile(`(?m)^backend ` + suite.backend.Name + `: did not run: (.*): \d+ skipped$`).FindStringSubmatch(out.String()); m != nil {
				suite.backend.Unavailable(t, m[1])
			}
			if killed.IsZero() {
				t.Fatalf("no container was killed: %v\n%s", err, tail(out.String(), 4<<10))
			}
			took := time.Since(killed)
			if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) {
				t.Errorf("the suite did not fail: %v", err)
			}
			if took > time.Minute {
				t.Errorf("the suite failed after %v", took)
			}
			if !regexp.MustCompile(`has died; it printed:\n(.*\n)*?.*` + suite.printed).MatchString(out.String()) {
				t.Errorf("the log of the container is not in the output:\n%s", tail(out.String(), 4<<10))
			}
			if !strings.Contains(out.String(), "containers, networks and volumes left: 0") {
				t.Errorf("something is left:\n%s", tail(out.String(), 4<<10))
			}
			t.Logf("the suite failed %v after its container was killed", took.Round(time.Millisecond))
		})
	}
}

// nowhere is the address of an engine that does not exist.
const nowhere = "DOCKER_HOST=unix:///nonexistent/docker.sock"

// TestWithoutAnEngineProcessesAreUsed checks that the servers run as processes if no engine is
// available, and that the report names the processes.
func TestWithoutAnEngineProcessesAreUsed(t *testing.T) {
	t.Parallel()
	out, err := runTests(t.Context(), "Test(KV|(MySQL|SecretsManager)BrokenConnections)", nowhere).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, tail(string(out), 4<<10))
	}
	for _, line := range []string{
		`(?m)^backend vault: process vaultdev, Vault \S+, stand-in: .*no Docker engine.*: [1-9]\d* passed, 0 failed, 0 skipped$`,
		`(?m)^backend localstack: process fakes aws, stand-in: .*no Docker engine.*: [1-9]\d* passed, 0 failed, 0 skipped$`,
		`(?m)^backend mysql: (process .*mariadbd, MariaDB \S+, real .*no Docker engine.*: [1-9]\d* passed, 0 failed, 0 skipped|did not run: .*no Docker engine.*)$`,
	} {
		if !regexp.MustCompile(line).Match(out) {
			t.Errorf("no line matches %s:\n%s", line, out)
		}
	}
}

// TestRunRequiredBackend checks that a missing backend fails the run only if the backend is
// required.
func TestRunRequiredBackend(t *testing.T) {
	t.Parallel()
	// Vault is missing because its program is not in the cache and is not built.
	absent := []string{nowhere, "XDG_CACHE_HOME=" + t.TempDir(), "HOME=" + t.TempDir(), "TOKENKEEP_VAULTDEV="}
	for _, test := range []struct {
		require string
		fails   bool
		want    string
	}{
		{"", false, "backend vault: did not run: vaultdev has not been built"},
		{"vault", true, "no vault, which TOKENKEEP_REQUIRE asks for"},
		{"mysql", true, "TOKENKEEP_REQUIRE asks for backends on which no case passed: mysql"},
		{"oracle", true, "TOKENKEEP_REQUIRE asks for backends on which no case passed: oracle"},
	} {
		t.Run(fmt.Sprintf("require %q", test.require), func(t *testing.T) {
			t.Parallel()
			cmd := runTests(t.Context(), "TestKV", append([]string{"TOKENKEEP_REQUIRE=" + test.require}, absent...)...)
			cmd.Args = append(cmd.Args, "-test.short")
			out, err := cmd.CombinedOutput()
			if (err != nil) != test.fails {
				t.Errorf("the run ended with %v\n%s", err, tail(string(out), 4<<10))
			}
			if !strings.Contains(string(out), test.want) {
				t.Errorf("the output lacks %q:\n%s", test.want, tail(string(out), 4<<10))
			}
		})
	}
}

// TestWhatAServerCannotDoIsListed checks that cases that TOKENKEEP_CANNOT names are skipped
// and listed by name.
func TestWhatAServerCannotDoIsListed(t *testing.T) {
	t.Parallel()
	out, err := runTests(t.Context(), "TestGcpsmDriverConforms", "TOKENKEEP_CANNOT=/DR-2[0-8]").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, tail(string(out), 4<<10))
	}
	for _, want := range []string{
		`(?m)^backend gcp: process fakes gcp, .*: [1-9]\d* passed, 0 failed, [1-9]\d* skipped$`,
		`(?m)^backend gcp: cannot: TestGcpsmDriverConforms/DR-28_.*: TOKENKEEP_CANNOT names it$`,
	} {
		if !regexp.MustCompile(want).Match(out) {
			t.Errorf("no line matches %s:\n%s", want, tail(string(out), 4<<10))
		}
	}
}
