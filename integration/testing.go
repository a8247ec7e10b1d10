package integration

import (
	"context"
	"testing"
	"time"
)

// Eventually calls f every 20 ms until f returns nil. If f has not returned nil after 30 seconds,
// Eventually fails the test.
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
			t.Fatalf("the condition did not become true: %v", err)
		case <-tick.C:
		}
	}
}
