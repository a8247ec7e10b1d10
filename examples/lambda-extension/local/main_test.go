package main

import (
	"bytes"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/tokenkeep/tokenkeep/internal/languages"
)

// TestRun_Time checks that each instance gets a response from the API, and that the instances
// together make one request for a token. It also checks that Lambda would refuse no request, and
// that the extensions exit in time.
func TestRun_Time(t *testing.T) {
	if testing.Short() {
		t.Skip("it measures times")
	}
	languages.Python().Need(t)
	var out bytes.Buffer
	if err := run(t.Context(), &out, "../../..", 4); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	for _, want := range []string{
		`first invocation +4 of 4 instances answer \{"status": 200\}\n.*requests for a token: 1;`,
		`second invocation +4 of 4 instances answer \{"status": 200\}\n.*requests for a token: 0;`,
		`shutdown +4 of 4 extensions exited in time`,
	} {
		if !regexp.MustCompile(want).MatchString(out.String()) {
			t.Errorf("nothing matches %q in\n%s", want, out.String())
		}
	}
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), "go run ./examples/lambda-extension/local\n") {
		t.Error("README.md does not have the command")
	}
}

func TestRunRefuses(t *testing.T) {
	t.Parallel()
	if err := run(t.Context(), &bytes.Buffer{}, "../../..", 0); err == nil {
		t.Error("no instance is not refused")
	}
	if err := run(t.Context(), &bytes.Buffer{}, t.TempDir(), 1); err == nil || !strings.Contains(err.Error(), "-root") {
		t.Errorf("a directory without the repository: %v", err)
	}
}
