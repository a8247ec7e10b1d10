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

// A Backend is a kind of server that suites run on, and what became of them.
type Backend struct {
	// Name is how TOKENKEEP_REQUIRE calls it: "vault".
	Name string

	mu                      sync.Mutex
	shared                  *Server // nil until somebody asks for it
	err                     error   // why there is none
	ran                     string  // what the cases ran on, in words
	why                     string  // why none ran
	passed, failed, skipped int
	absent                  int      // the tests that were skipped because no server can be had
	cannot                  []string // what the server cannot do: "case: reason"
}

// The backends there are.
var (
	VaultBackend      = &Backend{Name: "vault"}
	LocalstackBackend = &Backend{Name: "localstack"}
	GCPBackend        = &Backend{Name: "gcp"}
	MySQLBackend      = &Backend{Name: "mysql"}

	backends = []*Backend{VaultBackend, LocalstackBackend, GCPBackend, MySQLBackend}
)

// An absentError says why there is no such server here.
type absentError struct{ reason string }

func (e *absentError) Error() string { return e.reason }

// absent returns the error of a server that cannot be had here.
func absent(format string, args ...any) error { return &absentError{fmt.Sprintf(format, args...)} }

// required reports whether TOKENKEEP_REQUIRE names the backend.
func (b *Backend) required() bool {
	return slices.Contains(requirements(), b.Name)
}

// requirements returns the names that TOKENKEEP_REQUIRE has.
func requirements() []string {
	return strings.FieldsFunc(os.Getenv("TOKENKEEP_REQUIRE"), func(r rune) bool { return r == ',' || r == ' ' })
}

// Unavailable skips the test, because there is no such backend here. It fails the
// test if TOKENKEEP_REQUIRE says that there has to be: a run that tests nothing
// must not look like one that found nothing.
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

// must ends the test if err is not nil: as a failure, or as skipped if the server
// cannot be had here.
func (b *Backend) must(t testing.TB, err error) {
	t.Helper()
	if reason := (*absentError)(nil); errors.As(err, &reason) {
		b.Unavailable(t, reason.reason)
	} else if err != nil {
		t.Fatalf("%s: %v", b.Name, err)
	}
}

// sharedServer returns the server that all tests share which do not hurt it. The first
// call starts it with start; it is stopped when all tests are over.
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

// ranOn has the run say that cases ran on the server, unless there is a shared
// one.
func (b *Backend) ranOn(s *Server) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ran = cmp.Or(b.ran, s.String())
}

// stopShared stops the shared server.
func (b *Backend) stopShared() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.shared == nil {
		return nil
	}
	if b.failed > 0 {
		b.shared.bury()
	}
	err := b.shared.stop()
	b.shared, b.err = nil, absent("the tests are over")
	return err
}

// Count counts the test among the cases of the backend when it is over, and skips
// it if TOKENKEEP_CANNOT says so. A test that has subtests is not to be counted but
// they.
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

// Cannot skips the test, because the server cannot do what it asks for, and has
// the run list it.
func (b *Backend) Cannot(t testing.TB, reason string) {
	t.Helper()
	b.mu.Lock()
	b.cannot = append(b.cannot, t.Name()+": "+reason)
	b.mu.Unlock()
	t.Skipf("the server cannot do this: %s", reason)
}

// line says what became of the backend.
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

// Report prints a line for each backend, what its server cannot do below it, and
// returns the names of the backends that TOKENKEEP_REQUIRE has and of which no
// case passed.
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
