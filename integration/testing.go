package integration

import (
	"context"
	"testing"
	"time"
)

// Eventually calls f until it returns nil, and fails the test if that takes more
// than a while.
func Eventually(t testing.TB, f func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), callTimeout)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("it did not come to pass: %v", err)
		case <-tick.C:
		}
	}
}
