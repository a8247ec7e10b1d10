package initializer_test

import (
	"errors"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/initializer"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

func TestRejected(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	c, old := w.client()
	other := w.open(tokenstore.Token{ID: old.ID})
	w.zoho.Expire(string(old.AccessToken))
	first, err := c.Rejected(t.Context(), old.AccessToken)
	if err != nil || !w.zoho.Alive(string(first.AccessToken)) {
		t.Fatalf("the token was not replaced: %v", err)
	}
	for _, each := range []*initializer.Client{c, other} {
		if again, err := each.Rejected(t.Context(), old.AccessToken); err != nil || again.AccessToken != first.AccessToken {
			t.Errorf("the token is not that of the store: %v", err)
		}
	}
	w.asked(0, 1)
	if got, err := c.Rejected(t.Context(), first.AccessToken); !errors.Is(err, initializer.ErrThrottled) || got.AccessToken != "" {
		t.Errorf("a token that replaced another is replaced at once: %v", err)
	}
	w.clock.Advance(2 * time.Minute)
	if second, err := c.Rejected(t.Context(), first.AccessToken); err != nil || second.AccessToken == first.AccessToken {
		t.Errorf("the token was not replaced: %v", err)
	}
	w.asked(0, 2)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Rejected(t.Context(), first.AccessToken); !errors.Is(err, initializer.ErrClosed) {
		t.Errorf("a Client that is closed: %v", err)
	}
}
