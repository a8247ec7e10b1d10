package integration

import (
	"context"
	"errors"
	"testing"
)

// A stopper is an instance that counts the calls of stop.
type stopper struct {
	instance
	stops int
}

func (s *stopper) stop(context.Context) error {
	s.stops++
	return nil
}

// TestServerThatIsNotReady checks that a server is stopped, and not returned, if the last step of
// its start fails.
func TestServerThatIsNotReady(t *testing.T) {
	t.Parallel()
	failed := errors.New("the version cannot be read")
	for _, err := range []error{nil, failed} {
		run := &stopper{}
		server, got := (&Server{run: run}).orStop(err)
		if !errors.Is(got, err) || (server != nil) != (err == nil) || (run.stops == 1) != (err != nil) {
			t.Errorf("after the error %v: server %v, error %v, %d stops", err, server, got, run.stops)
		}
	}
	if server, err := (&Server{}).orStop(failed); server != nil || !errors.Is(err, failed) {
		t.Errorf("a server that the tests have not started: %v, %v", server, err)
	}
}
