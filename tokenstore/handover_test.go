package tokenstore_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/handover"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// A reads is a driver that counts the calls of Get.
type reads struct {
	driver.Secrets
	n int
}

func (r *reads) Get(ctx context.Context, name string) (driver.Secret, error) {
	r.n++
	return r.Secrets.Get(ctx, name)
}

// TestHandover checks a refresh that begins with the record that an earlier FindToken read.
// Between the search and the refresh, another process changes the record.
func TestHandover(t *testing.T) {
	t.Parallel()
	refused := tokenstore.RefreshError{Code: "invalid_grant", Permanent: true}
	like := tokenstore.Token{UserName: user, ClientID: client}
	for name, c := range map[string]struct {
		before, between func(*testing.T, *tokenstore.Store, string)
		want            tokenstore.Secret // the access token of the result
		used            string            // the refresh tokens that mint gets
		err             error
	}{
		"unchanged": {want: "access1", used: "[refresh0]"},
		"saved": {between: func(t *testing.T, s *tokenstore.Store, id string) {
			mustSave(t, s, tokenstore.Token{ID: id, APIDomain: "https://api.example"})
		}, want: "access1", used: "[refresh0]"},
		"a new refresh token": {between: func(t *testing.T, s *tokenstore.Store, id string) {
			mustSave(t, s, tokenstore.Token{ID: id, RefreshToken: "refresh9"})
		}, want: "access1", used: "[refresh9]"},
		"refreshed": {between: func(t *testing.T, s *tokenstore.Store, id string) {
			if _, err := s.Refresh(t.Context(), id, "access0", answer("access9")); err != nil {
				t.Fatal(err)
			}
		}, want: "access9", used: "[]"},
		"deleted": {between: func(t *testing.T, s *tokenstore.Store, id string) {
			if err := s.DeleteToken(t.Context(), id); err != nil {
				t.Fatal(err)
			}
		}, err: tokenstore.ErrNotFound, used: "[]"},
		"created again": {between: func(t *testing.T, s *tokenstore.Store, id string) {
			if err := s.DeleteToken(t.Context(), id); err != nil {
				t.Fatal(err)
			}
			mustSave(t, s, tokenstore.Token{UserName: user, ClientID: client, RefreshToken: "refresh9", AccessToken: "access0", ExpiresAt: time.Now().Add(-time.Minute)})
		}, want: "access1", used: "[refresh9]"},
		"refused before, and consented since": {before: func(t *testing.T, s *tokenstore.Store, id string) {
			_, _ = s.Refresh(t.Context(), id, "access0", refusing(refused))
		}, between: func(t *testing.T, s *tokenstore.Store, id string) {
			mustSave(t, s, tokenstore.Token{ID: id, RefreshToken: "refresh9"})
		}, want: "access1", used: "[refresh9]"},
		"refused before": {before: func(t *testing.T, s *tokenstore.Store, id string) {
			_, _ = s.Refresh(t.Context(), id, "access0", refusing(refused))
		}, err: &refused, used: "[]"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			leases(t, func(t *testing.T, d driver.Secrets) {
				saved := expiredRecord(t, process(t, d, 0))
				step := func(f func(*testing.T, *tokenstore.Store, string)) {
					if f != nil {
						f(t, process(t, d, 0), saved.ID)
					}
				}
				step(c.before)
				ctx, s := handover.Context(t.Context()), process(t, d, 0)
				if _, err := s.FindToken(ctx, like); err != nil {
					t.Fatal(err)
				}
				step(c.between)
				used := []string{}
				got, err := s.Refresh(ctx, saved.ID, "access0", func(ctx context.Context, u tokenstore.Token) (tokenstore.Token, error) {
					used = append(used, string(u.RefreshToken))
					return answer("access1")(ctx, u)
				})
				if got.AccessToken != c.want || fmt.Sprint(used) != c.used {
					t.Errorf("Refresh returned %q after mint got %v, want %q and %s", string(got.AccessToken), used, string(c.want), c.used)
				}
				if c.err == nil && err != nil || c.err != nil && !errors.Is(err, c.err) && !isRefusal(err, c.err) {
					t.Errorf("Refresh: %v, want %v", err, c.err)
				}
			})
		})
	}
}

func isRefusal(err, want error) bool {
	var got, like *tokenstore.RefreshError
	return errors.As(err, &got) && errors.As(want, &like) && got.Code == like.Code
}

func mustSave(t *testing.T, s *tokenstore.Store, tok tokenstore.Token) {
	t.Helper()
	if _, err := s.SaveToken(t.Context(), tok); err != nil {
		t.Fatal(err)
	}
}

// TestHandoverReads checks how often a process reads a record that it finds and refreshes. The
// record that a search has read serves only one refresh, by the same Store.
func TestHandoverReads(t *testing.T) {
	t.Parallel()
	leases(t, func(t *testing.T, d driver.Secrets) {
		if _, ok := d.(driver.Leaser); ok {
			t.Skip("the counting driver is not a driver.Leaser")
		}
		saved := expiredRecord(t, process(t, d, 0))
		r := &reads{Secrets: d}
		s, other := process(t, r, 0), process(t, r, 0)
		for _, c := range []struct {
			name    string
			ctx     context.Context
			by      *tokenstore.Store
			refresh int
			want    int
		}{
			{"without a place for the record", t.Context(), s, 1, 2},
			{"with a place for the record", handover.Context(t.Context()), s, 1, 1},
			{"two refreshes", handover.Context(t.Context()), s, 2, 2},
			{"another store", handover.Context(t.Context()), other, 1, 2},
		} {
			r.n = 0
			now, err := s.FindTokenByID(c.ctx, saved.ID)
			if err != nil {
				t.Fatal(err)
			}
			for range c.refresh {
				if now, err = c.by.Refresh(c.ctx, saved.ID, now.AccessToken, answer(string(now.AccessToken)+"x")); err != nil {
					t.Fatal(err)
				}
			}
			if r.n != c.want {
				t.Errorf("%s: %d reads, want %d", c.name, r.n, c.want)
			}
		}
		if text := fmt.Sprintf("%v %+v %#v", handover.Context(t.Context()), handover.Context(t.Context()), handover.Context(t.Context())); strings.Contains(text, "access0") {
			t.Errorf("a context prints %s", text)
		}
	})
}
