package initializer

import (
	"errors"
	"net/url"
	"strings"
	"testing"
)

func TestUnreachableHidesSecret(t *testing.T) {
	t.Parallel()
	const secret = "1//0gAbC/dEf+gh"
	for _, text := range []string{secret, url.QueryEscape(secret)} {
		err := unreachable(&url.Error{Op: "Post", URL: "https://example.com/token", Err: errors.New("cannot send " + text)}, secret)
		if strings.Contains(err.Error(), text) {
			t.Errorf("the error says %v", err)
		}
	}
}

func TestCodesStandOnce(t *testing.T) {
	t.Parallel()
	for _, row := range codes {
		for _, code := range row.codes {
			if !codeForm().MatchString(code) {
				t.Errorf("%s: %q does not look like a code", row.source, code)
			}
			if found, m, ok := (book{}).look(code); !ok || found != code || m != row.meaning {
				t.Errorf("%s: %q is found as %q", row.source, code, found)
			}
		}
	}
}

func TestHoldsAny(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text, secret string
		want         bool
	}{
		{"connection refused", "r", false},
		{"invalid_code", "code", false},
		{"map[code:[code]]", "code", true},
		{"the secret is a&b", "a&b", true},
		{"form a%26b=", "a&b", true},
		{"xcode code_ code", "code", true},
		{"x1000.canary-secret-x", "1000.canary-secret", true},
		{"anything", "", false},
		{"é", "é", true},
	} {
		if got := holdsAny(c.text, []string{c.secret}); got != c.want {
			t.Errorf("%q holds %q: %t", c.text, c.secret, got)
		}
	}
}
