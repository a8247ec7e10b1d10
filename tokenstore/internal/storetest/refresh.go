package storetest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// RefreshOnce refreshes the record with the given ID from several goroutines of one process. Each
// call of mint adds a line to a file, which Asked reads. The parameter log is the path of that
// file. RefreshOnce returns an error if a refresh fails or does not return the access token from
// mint.
func RefreshOnce(s tokenstore.Refresher, id, log string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	const goroutines = 4
	errs := make(chan error, goroutines)
	for range goroutines {
		go func() {
			t, err := s.Refresh(ctx, id, "old", func(context.Context, tokenstore.Token) (tokenstore.Token, error) {
				return tokenstore.Token{AccessToken: "new", ExpiresAt: time.Now().Add(time.Hour)}, note(log)
			})
			if err == nil && t.AccessToken != "new" {
				err = fmt.Errorf("the refresh returned the access token %q", string(t.AccessToken))
			}
			errs <- err
		}()
	}
	var all error
	for range goroutines {
		all = errors.Join(all, <-errs)
	}
	return all
}

func note(log string) error {
	f, err := os.OpenFile(log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString("asked\n")
	return errors.Join(err, f.Close())
}

// Asked checks that all processes together called mint exactly once, as recorded in the file at
// the path log.
func Asked(t *testing.T, log string) {
	t.Helper()
	data, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(data), "\n"); n != 1 {
		t.Errorf("the authorization server was asked %d times, want once", n)
	}
}
