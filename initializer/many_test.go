package initializer_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenkeep/tokenkeep/initializer"
	"github.com/tokenkeep/tokenkeep/internal/zohoaccounts"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// many is the number of instances that start at the same time.
const many = 100

// newBubble returns a world on the clock of a synctest bubble. The delay of its token endpoint
// was measured at a real server.
func newBubble(t *testing.T, opts *zohoaccounts.Options) *world {
	t.Helper()
	w := newWorld(t, opts)
	w.clock.base = time.Now
	w.answers(&zohoaccounts.Fault{Delay: 571 * time.Millisecond})
	return w
}

// together runs f in n goroutines, and returns their results and joined errors.
func together[T any](n int, f func(i int) (T, error)) ([]T, error) {
	results, errs := make([]T, n), make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { results[i], errs[i] = f(i) })
	}
	wg.Wait()
	return results, errors.Join(errs...)
}

// instance returns a Client with a separate store, as in another process.
func (w *world) instance(like tokenstore.Token) (*initializer.Client, error) {
	conf := w.config(like)
	conf.Store = w.handle()
	return initializer.New(w.t.Context(), conf)
}

// oneToken checks that all tokens have the same, valid access token.
func (w *world) oneToken(tokens []tokenstore.Token) {
	w.t.Helper()
	for i, t := range tokens {
		if t.AccessToken != tokens[0].AccessToken || !w.zoho.Alive(string(t.AccessToken)) {
			w.t.Fatalf("of %d the %dth has the token %s", len(tokens), i, describe(t))
		}
	}
}

func TestRefreshManyInstances(t *testing.T) {
	t.Parallel()
	for _, strict := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newBubble(t, &zohoaccounts.Options{Strict: strict})
			old := w.saved(true)
			tokens, err := together(many, func(int) (tokenstore.Token, error) {
				c, err := w.instance(tokenstore.Token{ID: old.ID})
				if err != nil {
					return tokenstore.Token{}, err
				}
				return c.Token(t.Context())
			})
			if err != nil {
				t.Fatal(err)
			}
			w.oneToken(tokens)
			w.asked(0, 1)
			w.record()
		})
	}
}

func TestRefreshManyGoroutines(t *testing.T) {
	t.Parallel()
	for name, hide := range map[string]func(tokenstore.TokenStore) tokenstore.TokenStore{
		"a store with Refresh":    func(s tokenstore.TokenStore) tokenstore.TokenStore { return s },
		"a store without Refresh": func(s tokenstore.TokenStore) tokenstore.TokenStore { return simple{s} },
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newBubble(t, nil)
			conf := w.config(tokenstore.Token{ID: w.saved(false).ID})
			conf.Store = hide(w.store)
			c := w.start(conf)
			w.clock.Advance(2 * time.Hour)
			tokens, err := together(many, func(int) (tokenstore.Token, error) { return c.Token(t.Context()) })
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			w.oneToken(tokens)
			w.asked(0, 1)
		})
	}
}

func TestTransportManyRejections(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newBubble(t, nil)
		old := w.saved(false)
		clients, err := together(4, func(int) (*initializer.Client, error) { return w.instance(tokenstore.Token{ID: old.ID}) })
		if err != nil {
			t.Fatal(err)
		}
		w.zoho.Expire(string(old.AccessToken))
		_, err = together(many, func(i int) (struct{}, error) {
			res, err := clients[i%len(clients)].HTTPClient(t.Context()).Get("/crm/v8/Leads")
			if err == nil && res.StatusCode != 200 {
				err = fmt.Errorf("status %d", res.StatusCode)
			}
			return struct{}{}, err
		})
		if err != nil {
			t.Fatal(err)
		}
		w.asked(0, 1)
	})
}

func TestExchangeManyInstances(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ strict, lag bool }{{false, false}, {false, true}, {true, false}, {true, true}} {
		synctest.Test(t, func(t *testing.T) {
			strict := c.strict
			w := newBubble(t, &zohoaccounts.Options{Strict: strict})
			w.outages.lag(c.lag)
			w.store = w.handle()
			code := w.zoho.Code(consent())
			tokens, err := together(many, func(int) (tokenstore.Token, error) {
				conf := w.config(byCode(code))
				if strict {
					conf = w.standard(tokenstore.Token{UserName: user, GrantToken: tokenstore.Secret(code)})
				}
				conf.Store = w.handle()
				c, err := initializer.New(t.Context(), conf)
				if err != nil {
					return tokenstore.Token{}, err
				}
				return c.Token(t.Context())
			})
			if err != nil {
				t.Fatal(err)
			}
			w.oneToken(tokens)
			w.asked(1, 0)
			if rec := w.record(); rec.UserName != user || rec.RefreshToken == "" {
				t.Errorf("the record is %s", describe(rec))
			}
		})
	}
}

func TestTwoConsentsAtOnceAreOneRecord(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ known, lag bool }{{false, false}, {false, true}, {true, false}, {true, true}} {
		synctest.Test(t, func(t *testing.T) {
			w := newBubble(t, nil)
			w.outages.lag(c.lag)
			if c.known {
				w.saved(false)
			}
			codes := []string{w.zoho.Code(consent()), w.zoho.Code(consent())}
			clients, err := together(2, func(i int) (*initializer.Client, error) { return w.instance(byCode(codes[i])) })
			if err != nil {
				t.Fatal(err)
			}
			rec := w.record()
			if rec.UserName != user || !w.zoho.Alive(string(rec.AccessToken)) {
				t.Errorf("the record is %s", describe(rec))
			}
			w.asked(2, 0)

			// Both clients continue with the record, and either code finds the record. Two hours
			// exceed the ListLag of the driver, so searches find the record.
			w.clock.Advance(2 * time.Hour)
			w.outages.lag(false)
			for i, c := range clients {
				if got := w.token(c); got.ID != rec.ID {
					t.Errorf("client %d has %s", i, describe(got))
				}
				if again, err := w.instance(byCode(codes[i])); err != nil || w.token(again).ID != rec.ID {
					t.Errorf("code %d: %v", i, err)
				}
			}
			w.asked(2, 1)
		})
	}
}

// TestWhoWaitsDoesNotGiveUpWithTheOther checks that a goroutine that waits for a refresh in another
// goroutine does not get the error from the other goroutine's context.
func TestWhoWaitsDoesNotGiveUpWithTheOther(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newBubble(t, nil)
		c := w.open(tokenstore.Token{ID: w.saved(false).ID})
		w.clock.Advance(2 * time.Hour)
		hang := 20 * time.Second // delay of the first request, which is abandoned
		w.zoho.Inject(func(zohoaccounts.Request) *zohoaccounts.Fault {
			f := &zohoaccounts.Fault{Delay: hang}
			hang = 0
			return f
		})
		begun := time.Now()
		results, _ := together(3, func(i int) (error, error) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			<-time.After(time.Duration(i) * time.Millisecond) // the first goroutine leads
			if i < 2 {
				time.AfterFunc(time.Second, cancel)
			}
			_, err := c.Token(ctx)
			if took := time.Since(begun); i == 1 && took > 2*time.Second {
				t.Errorf("the one that waits gave up after %v", took)
			}
			return err, nil
		})
		if !errors.Is(results[0], context.Canceled) || !errors.Is(results[1], context.Canceled) || results[2] != nil {
			t.Errorf("the errors are %v", results)
		}
		w.asked(0, 1)
	})
}

func TestCloseDuringRefresh(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newBubble(t, nil)
		c := w.open(tokenstore.Token{ID: w.saved(false).ID})
		w.clock.Advance(2 * time.Hour)
		time.AfterFunc(100*time.Millisecond, func() { _ = c.Close() })
		results, _ := together(3, func(int) (error, error) {
			_, err := c.Token(t.Context())
			return err, nil
		})
		for _, err := range results {
			w.wants(err, initializer.ErrClosed)
		}
		if rec := w.record(); !w.zoho.Alive(string(rec.AccessToken)) {
			t.Error("what was got is not stored")
		}
	})
}

// TestRefreshClockSkew checks that instances whose clocks are up to two minutes fast or slow
// send one refresh in total. Some instances consider an expired token valid until the API
// rejects it.
func TestRefreshClockSkew(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newBubble(t, nil)
		old := w.saved(true)
		_, err := together(many, func(i int) (struct{}, error) {
			skew := time.Duration(i*4-2*many) * time.Minute / many // between -2 and 2 minutes
			now := func() time.Time { return w.clock.Now().Add(skew) }
			conf := w.config(tokenstore.Token{ID: old.ID})
			store, err := tokenstore.New(w.driver.Reopen(), &tokenstore.Options{Now: now})
			if err != nil {
				return struct{}{}, err
			}
			conf.Store, conf.Now = store, now
			c, err := initializer.New(t.Context(), conf)
			if err != nil {
				return struct{}{}, err
			}
			res, err := c.HTTPClient(t.Context()).Get("/crm/v8/Leads")
			if err == nil && res.StatusCode != 200 {
				err = fmt.Errorf("clock %v: status %d", skew, res.StatusCode)
			}
			return struct{}{}, err
		})
		if err != nil {
			t.Fatal(err)
		}
		w.asked(0, 1)
	})
}

// TestNotPersistedSharedStore checks that two Clients of one store share a token that could not be
// stored.
func TestNotPersistedSharedStore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, &zohoaccounts.Options{Strict: true})
		conf := w.standard(tokenstore.Token{ID: w.saved(false).ID, ClientID: clientID})
		clients := []*initializer.Client{w.start(conf), w.start(conf)}
		w.clock.Advance(2 * time.Hour)
		w.zoho.Inject(func(r zohoaccounts.Request) *zohoaccounts.Fault {
			w.outages.set(false, true)
			return &zohoaccounts.Fault{Delay: time.Second}
		})
		tokens, err := together(2, func(i int) (tokenstore.Token, error) { return clients[i].Token(t.Context()) })
		if !errors.Is(err, tokenstore.ErrNotPersisted) {
			t.Fatalf("the error is %v", err)
		}
		w.oneToken(tokens)
		w.outages.set(false, false)
		w.zoho.Inject(nil)
		for _, i := range []int{1, 0} {
			if got := w.token(clients[i]); got.AccessToken != tokens[0].AccessToken || got.RefreshToken != w.record().RefreshToken {
				t.Errorf("client %d has %s", i, describe(got))
			}
		}
		w.clock.Advance(2 * time.Hour)
		w.token(clients[0])
		w.token(clients[1])
		w.asked(0, 2)
	})
}

// TestLeaseHolderDies checks that New waits for the holder of a lease, and refreshes the token
// itself if the holder does not release the lease.
func TestLeaseHolderDies(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newBubble(t, nil)
		old := w.saved(true)
		died := make(chan struct{})
		asked := false
		w.zoho.Inject(func(r zohoaccounts.Request) *zohoaccounts.Fault {
			if r.Kind == zohoaccounts.Refresh && !asked {
				asked = true
				w.outages.set(true, true) // the holder's store stays down
				return &zohoaccounts.Fault{Drop: true}
			}
			return nil
		})
		go func() {
			defer close(died)
			_, _ = w.instance(tokenstore.Token{ID: old.ID})
		}()
		<-died
		w.outages.set(false, false)
		begun := time.Now()
		c, err := w.instance(tokenstore.Token{ID: old.ID})
		if err != nil {
			t.Fatal(err)
		}
		w.token(c)
		if took := time.Since(begun); took < 5*time.Second || took > 10*time.Second {
			t.Errorf("the take-over took %v", took)
		}
		w.asked(0, 2)
	})
}
