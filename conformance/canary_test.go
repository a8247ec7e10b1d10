package conformance

import (
	"encoding/base64"
	"fmt"
	"testing"
)

// TestCanaries checks that canaries detect a secret in each form, and do not report other text.
func TestCanaries(t *testing.T) {
	var cs canaries
	secret := text(20)
	cs.add(text(20))
	cs.add(secret)
	for _, shown := range []string{
		secret, "x" + secret + "y", fmt.Sprintf("%q", secret), fmt.Sprintf("%x", secret), fmt.Sprintf("%X", "a"+secret),
		fmt.Sprintf("%d", []byte("ab"+secret)), fmt.Sprint([]byte(secret)),
		base64.StdEncoding.EncodeToString([]byte(secret)),
		base64.StdEncoding.EncodeToString([]byte("a" + secret)),
		base64.RawURLEncoding.EncodeToString([]byte("ab" + secret + "c")),
	} {
		if !cs.in(shown) {
			t.Errorf("%q is not seen in %q", secret, shown)
		}
	}
	for _, hidden := range []string{"", "[redacted]", secret[1:], secret[:19], text(20), text(2000)} {
		if cs.in(hidden) {
			t.Errorf("a secret is seen in %q", hidden)
		}
	}
}
