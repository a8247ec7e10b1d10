package tokenstore_test

import (
	"testing"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// TestTokenPointerPrinting checks that no verb and no logger prints the secrets of a token
// behind a pointer inside another value.
func TestTokenPointerPrinting(t *testing.T) {
	t.Parallel()
	token := tokenstore.Token{ID: "1", ClientSecret: canary, RefreshToken: canary, AccessToken: canary, GrantToken: canary}
	for what, v := range map[string]any{
		"a list of pointers":  []*tokenstore.Token{&token},
		"a struct around one": struct{ Token *tokenstore.Token }{&token},
		"a map of pointers":   map[string]*tokenstore.Token{"a": &token},
	} {
		if text := shown(v); leaks(text) {
			t.Errorf("%s can be seen:\n%s", what, text)
		}
	}
}
