package integration

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// Unavailable skips the test, because there is no such backend as "vault" here.
// It fails the test if TOKENKEEP_REQUIRE says that there has to be: a run that
// tests nothing must not look like one that found nothing.
func Unavailable(t testing.TB, backend, format string, args ...any) {
	t.Helper()
	required := strings.FieldsFunc(os.Getenv("TOKENKEEP_REQUIRE"), func(r rune) bool { return r == ',' || r == ' ' })
	if slices.Contains(required, backend) {
		t.Fatalf("no "+backend+", which TOKENKEEP_REQUIRE asks for: "+format, args...)
	}
	t.Skipf("no "+backend+": "+format, args...)
}
