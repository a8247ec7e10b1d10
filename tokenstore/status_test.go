package tokenstore_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/doctor"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/memstore"
)

// TestStatus checks the status that another process reads during a refresh, and after a
// refresh, a refusal and a crash. Leases are in records or in notes.
func TestStatus(t *testing.T) {
	t.Parallel()
	leases(t, func(t *testing.T, d driver.Secrets) {
		saved := expiredRecord(t, process(t, d, 0))
		status := func() doctor.Status {
			t.Helper()
			s, err := process(t, d, 0).Status(t.Context(), saved.ID)
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		if s := status(); s.Lease != nil || s.Refusal != nil || time.Since(s.Written) > time.Second || s.Written.After(time.Now()) {
			t.Errorf("of a new record: %+v", s)
		}

		begun := time.Now()
		_, err := process(t, d, 0).Refresh(t.Context(), saved.ID, "access0", func(context.Context, tokenstore.Token) (tokenstore.Token, error) {
			if s := status(); s.Lease == nil || s.Lease.Until.Sub(begun) < ttl-time.Second || s.Lease.Until.Sub(begun) > ttl+time.Second {
				t.Errorf("during a refresh: %+v", s.Lease)
			}
			return tokenstore.Token{}, &tokenstore.RefreshError{Code: "slow_down", RetryAfter: time.Minute}
		})
		var refused *tokenstore.RefreshError
		if !errors.As(err, &refused) {
			t.Fatalf("Refresh: %v", err)
		}
		r := status().Refusal
		if r == nil || r.Code != "slow_down" || r.Permanent || r.Count != 1 || !r.Counts || time.Until(r.Retry) > time.Minute || time.Until(r.Retry) < 59*time.Second {
			t.Fatalf("after a refusal: %+v", r)
		}
		<-time.After(2 * time.Minute) // on the bubble's clock
		if r := status().Refusal; r == nil || r.Counts {
			t.Errorf("after the time of a refusal: %+v", r)
		}

		dying(t, d, saved.ID)
		<-time.After(ttl + time.Minute)
		if s := status(); s.Lease == nil || !s.Lease.Until.Before(time.Now()) {
			t.Errorf("after a crash: %+v", s.Lease)
		}
		if _, err := process(t, d, 0).Refresh(t.Context(), saved.ID, "access0", answer("access1")); err != nil {
			t.Fatal(err)
		}
		if s := status(); s.Lease != nil || s.Refusal != nil || time.Since(s.Written) > time.Second {
			t.Errorf("after a refresh: %+v", s)
		}
	})
}

// TestStatusByEarlierID checks the status of a record without a user. The lease on such a record
// is always in the record. The earlier ID must still find the status after the record has got a
// user.
func TestStatusByEarlierID(t *testing.T) {
	t.Parallel()
	s := memstore.New(nil)
	first, err := s.SaveToken(t.Context(), tokenstore.Token{ClientID: client, ClientSecret: "secret", GrantToken: "code"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Refresh(t.Context(), first.ID, "", func(ctx context.Context, u tokenstore.Token) (tokenstore.Token, error) {
		if got, err := s.Status(ctx, first.ID); err != nil || got.Lease == nil {
			t.Errorf("during a refresh: %+v, %v", got, err)
		}
		return answer("access1")(ctx, u)
	})
	if err != nil {
		t.Fatal(err)
	}
	named, err := s.SaveToken(t.Context(), tokenstore.Token{ID: first.ID, UserName: user})
	if err != nil || named.ID == first.ID {
		t.Fatalf("the record is %q: %v", named.ID, err)
	}
	for _, id := range []string{first.ID, named.ID} {
		if got, err := s.Status(t.Context(), id); err != nil || got.Lease != nil || got.Written.IsZero() {
			t.Errorf("%s: %+v, %v", id, got, err)
		}
	}
	for id, class := range map[string]error{"none": tokenstore.ErrNotFound, "": tokenstore.ErrInvalidToken} {
		var of *tokenstore.Error
		if _, err := s.Status(t.Context(), id); !errors.Is(err, class) || !errors.As(err, &of) || of.Op != "status" {
			t.Errorf("%q: %v", id, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Status(t.Context(), named.ID); !errors.Is(err, tokenstore.ErrUnavailable) {
		t.Errorf("of a store that is closed: %v", err)
	}
}
