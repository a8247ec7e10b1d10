package integration

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

// A Backend is a kind of server on which the suites run. It also records the outcomes of the cases.
// Its methods are safe for concurrent use.
type Backend struct {
	// Name is the name of the backend in TOKENKEEP_REQUIRE, such as "vault".
	Name string

	mu                      sync.Mutex
	shared                  *Server // nil unless the shared server is available
	err                     error   // why the shared server is not available
	ran                     string  // server on which the cases ran
	why                     string  // reason from the first call of Unavailable
	passed, failed, skipped int
	absent                  int      // number of tests that found no server
	cannot                  []string // cases that the server cannot pass, as "case: reason"
}

// The backends of the suites.
var (
	VaultBackend      = &Backend{Name: "vault"}
	OpenBaoBackend    = &Backend{Name: "openbao"}
	LocalstackBackend = &Backend{Name: "localstack"}
	GCPBackend        = &Backend{Name: "gcp"}
	MySQLBackend      = &Backend{Name: "mysql"}
	KubernetesBackend = &Backend{Name: "kubernetes"}

	backends = []*Backend{VaultBackend, OpenBaoBackend, LocalstackBackend, GCPBackend, MySQLBackend, KubernetesBackend}
)

// An absentError says why a server is not available on this machine.
type absentError struct{ reason string }

func (e *absentError) Error() string { return e.reason }

func absent(format string, args ...any) error { return &absentError{fmt.Sprintf(format, args...)} }

func (b *Backend) required() bool {
	return slices.Contains(requirements(), b.Name)
}

func requirements() []string {
	return strings.FieldsFunc(os.Getenv("TOKENKEEP_REQUIRE"), func(r rune) bool { return r == ',' || r == ' ' })
}

// Unavailable skips the test because the backend is not available on this machine. If
// TOKENKEEP_REQUIRE names the backend, Unavailable fails the test instead, so that a run
// without the backend does not look like a successful run.
func (b *Backend) Unavailable(t testing.TB, reason string) {
	t.Helper()
	b.mu.Lock()
	b.why = cmp.Or(b.why, reason)
	b.absent++
	b.mu.Unlock()
	if b.required() {
		t.Fatalf("no %s, which TOKENKEEP_REQUIRE asks for: %s", b.Name, reason)
	}
	t.Skipf("no %s: %s", b.Name, reason)
}

// must ends the test if err is not nil: it calls Unavailable if err contains an absentError, and
// otherwise fails the test.
func (b *Backend) must(t testing.TB, err error) {
	t.Helper()
	if reason := (*absentError)(nil); errors.As(err, &reason) {
		b.Unavailable(t, reason.reason)
	} else if err != nil {
		t.Fatalf("%s: %v", b.Name, err)
	}
}

// sharedServer returns the server shared by all tests that do not disrupt it. The first call of
// sharedServer calls the function start, which starts the server. stopShared stops the server
// after all tests. If the function start fails, each call of sharedServer ends its test.
func (b *Backend) sharedServer(t testing.TB, start func(ctx context.Context) (*Server, error)) *Server {
	t.Helper()
	b.mu.Lock()
	if b.shared == nil && b.err == nil {
		b.shared, b.err = start(context.Background())
		if b.err == nil {
			b.ran = b.shared.String()
		}
	}
	server, err := b.shared, b.err
	b.mu.Unlock()
	b.must(t, err)
	return server
}

// ranOn records that cases ran on s, unless a server is already recorded.
func (b *Backend) ranOn(s *Server) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ran = cmp.Or(b.ran, s.String())
}

func (b *Backend) stopShared() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.shared == nil {
		return nil
	}
	if b.failed > 0 {
		b.shared.report()
	}
	err := b.shared.stop()
	b.shared, b.err = nil, absent("the tests are over")
	return err
}

// Count adds the test to the cases of the backend when the test ends. A test with subtests
// counts as one case. If TOKENKEEP_CANNOT matches the name of the test, Count skips the test.
func (b *Backend) Count(t testing.TB) {
	t.Helper()
	t.Cleanup(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		switch {
		case t.Failed():
			b.failed++
		case t.Skipped():
			b.skipped++
		default:
			b.passed++
		}
	})
	if pattern := os.Getenv("TOKENKEEP_CANNOT"); pattern != "" {
		cannot, err := regexp.Compile(pattern)
		if err != nil {
			t.Fatalf("TOKENKEEP_CANNOT: %v", err)
		}
		if cannot.MatchString(t.Name()) {
			b.Cannot(t, "TOKENKEEP_CANNOT names it")
		}
	}
}

// Cannot skips the test because the server cannot pass it, for the given reason. The report lists
// the test and the reason.
func (b *Backend) Cannot(t testing.TB, reason string) {
	t.Helper()
	b.mu.Lock()
	b.cannot = append(b.cannot, t.Name()+": "+reason)
	b.mu.Unlock()
	t.Skipf("the server cannot do this: %s", reason)
}

// line returns the report's line about the backend. The caller must hold b.mu.
func (b *Backend) line() string {
	switch ran := b.passed + b.failed + b.skipped; {
	case ran > 0 && b.ran != "":
		return fmt.Sprintf("backend %s: %s: %d passed, %d failed, %d skipped", b.Name, b.ran, b.passed, b.failed, b.skipped)
	case b.absent > 0:
		return fmt.Sprintf("backend %s: did not run: %s: %d skipped", b.Name, b.why, b.absent)
	case b.err != nil:
		return fmt.Sprintf("backend %s: did not run: %v", b.Name, b.err)
	default:
		return fmt.Sprintf("backend %s: did not run: no test asked for it", b.Name)
	}
}

// Report writes to w a line for each backend, followed by the cases that the backend's server
// cannot pass. Report returns the names in TOKENKEEP_REQUIRE for which no case passed, including
// the names of unknown backends.
func Report(w io.Writer) (missing []string) {
	known := map[string]bool{}
	for _, b := range backends {
		known[b.Name] = true
		b.mu.Lock()
		fmt.Fprintln(w, b.line())
		for _, c := range b.cannot {
			fmt.Fprintf(w, "backend %s: cannot: %s\n", b.Name, c)
		}
		if b.passed == 0 && b.required() {
			missing = append(missing, b.Name)
		}
		b.mu.Unlock()
	}
	for _, name := range requirements() {
		if !known[name] {
			missing = append(missing, name)
		}
	}
	return missing
}
