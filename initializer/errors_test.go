package initializer

import (
	"errors"
	"net/url"
	"strings"
	"testing"
)

func TestAnErrorDoesNotRepeatASecretAsItGoesOverTheWire(t *testing.T) {
	t.Parallel()
	const secret = "1//0gAbC/dEf+gh"
	for _, text := range []string{secret, url.QueryEscape(secret)} {
		err := unreachable(&url.Error{Op: "Post", URL: "https://example.com/token", Err: errors.New("cannot send " + text)}, secret)
		if strings.Contains(err.Error(), text) {
			t.Errorf("the error says %v", err)
		}
	}
}
