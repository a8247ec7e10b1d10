package scheme_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/tokenkeep/tokenkeep/cli/scheme"
)

// TestEndpoints checks that ParseEndpoint accepts plain HTTP only on this machine.
func TestEndpoints(t *testing.T) {
	t.Parallel()
	for text, plain := range map[string]bool{
		"http://localhost:4566": true, "http://127.0.0.1:1": true, "http://[::1]:1": true,
		"https://localhost:4566": false, "https://sm.example.com": false, "sm.example.com:443": false,
	} {
		if e, err := scheme.ParseEndpoint(text); err != nil || e.Plain != plain {
			t.Errorf("%s: %+v, %v", text, e, err)
		}
	}
	for _, text := range []string{"http://sm.example.com", "http://10.0.0.1:80", "http://127.0.0.1.example.com", "ftp://localhost", "https://", "https://u:s3cret@h", "://"} {
		if _, err := scheme.ParseEndpoint(text); !errors.Is(err, scheme.ErrUsage) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestQuery checks that Query returns the parameters, and that errors quote no value.
func TestQuery(t *testing.T) {
	t.Parallel()
	rest, params, err := scheme.Query("a/b?x=1&y=%2F", "x", "y", "z")
	if err != nil || rest != "a/b" || len(params) != 2 || params["x"] != "1" || params["y"] != "/" {
		t.Errorf("%q, %v, %v", rest, params, err)
	}
	if rest, params, err := scheme.Query("a/b", "x"); err != nil || rest != "a/b" || len(params) != 0 {
		t.Errorf("%q, %v, %v", rest, params, err)
	}
	for _, text := range []string{"a?", "a?x=", "a?x=1&x=2", "a?s3cret=1", "a?s3cret", "a?x=%zz"} {
		if _, _, err := scheme.Query(text, "x"); !errors.Is(err, scheme.ErrUsage) || !strings.Contains(err.Error(), "are x, each") || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", text, err)
		}
	}
	if _, _, err := scheme.Query("a?x=1"); !errors.Is(err, scheme.ErrUsage) || !strings.Contains(err.Error(), "no parameters") {
		t.Errorf("no names: %v", err)
	}
}
