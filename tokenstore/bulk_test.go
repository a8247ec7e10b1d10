package tokenstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/memstore"
)

// TestCreate checks that Create creates a record only if the token describes no record by
// its user, ID or tokens. Otherwise, Create must change nothing.
func TestCreate(t *testing.T) {
	t.Parallel()
	user := tokenstore.Token{UserName: "ann", ClientID: "c", RefreshToken: "r", AccessToken: "a"}
	for name, test := range map[string]struct {
		there, new tokenstore.Token
		created    bool
	}{
		"user":                {user, tokenstore.Token{UserName: "ann", ClientID: "c", AccessToken: "b"}, false},
		"other client":        {user, tokenstore.Token{UserName: "ann", ClientID: "d", AccessToken: "b"}, true},
		"user without client": {user, tokenstore.Token{UserName: "ann", AccessToken: "b"}, false},
		"other user":          {user, tokenstore.Token{UserName: "bob", AccessToken: "b"}, true},
		"refresh token":       {user, tokenstore.Token{ClientID: "c", RefreshToken: "r", AccessToken: "b"}, false},
		"other refresh token": {user, tokenstore.Token{ClientID: "c", RefreshToken: "s"}, true},
		"access token":        {user, tokenstore.Token{AccessToken: "a", ExpiresAt: at(1)}, false},
		"other access token":  {user, tokenstore.Token{AccessToken: "b"}, true},
		"ID":                  {tokenstore.Token{ID: "1", UserName: "ann", AccessToken: "a"}, tokenstore.Token{ID: "1", AccessToken: "b"}, false},
		"other ID":            {tokenstore.Token{ID: "1", UserName: "ann", AccessToken: "a"}, tokenstore.Token{ID: "2", UserName: "bob", AccessToken: "b"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := memstore.New(nil)
			there, err := s.SaveToken(t.Context(), test.there)
			if err != nil {
				t.Fatal(err)
			}
			saved, created, err := s.Create(t.Context(), test.new)
			if err != nil || created != test.created {
				t.Fatalf("created: %v, want %v; %v", created, test.created, err)
			}
			all, err := s.GetTokens(t.Context())
			if err != nil || !slices.Contains(all, there) || created != slices.Contains(all, saved) || created != (len(all) == 2) {
				t.Errorf("%v, %v", all, err)
			}
		})
	}
}

// TestCreate_Refused checks the errors for tokens from which no record can be created, and the
// errors of Create and FindTokens without the keys of the store.
func TestCreate_Refused(t *testing.T) {
	t.Parallel()
	s := memstore.New(nil)
	for want, token := range map[error]tokenstore.Token{
		tokenstore.ErrNotFound:     {UserName: "ann", ClientID: "c"},
		tokenstore.ErrInvalidToken: {UserName: "a\nb", ClientID: "c", AccessToken: "a"},
	} {
		if _, created, err := s.Create(t.Context(), token); created || !errors.Is(err, want) {
			t.Errorf("created: %v, %v, want %v", created, err, want)
		}
	}
	keyed := memstore.NewDriver()
	if _, _, err := storeOn(t, keyed, &tokenstore.Options{NameKey: make([]byte, 32)}).Create(t.Context(), tokenstore.Token{UserName: "ann", ClientID: "c", AccessToken: "a"}); err != nil {
		t.Fatal(err)
	}
	other := storeOn(t, keyed.Reopen(), nil)
	if _, created, err := other.Create(t.Context(), tokenstore.Token{UserName: "bob", ClientID: "c", AccessToken: "a"}); created || !errors.Is(err, tokenstore.ErrWrongKeys) {
		t.Errorf("without the keys of the store: created: %v, %v", created, err)
	}
	if _, err := other.FindTokens(t.Context(), []tokenstore.Token{{UserName: "bob", ClientID: "c"}}); !errors.Is(err, tokenstore.ErrWrongKeys) {
		t.Errorf("FindTokens without the keys of the store: %v", err)
	}
}

// A lister is a driver that counts the calls of List and Get. Its ListBatch is batch.
type lister struct {
	driver.Secrets

	batch       int
	lists, gets *atomic.Int32
}

func (l lister) Properties() driver.Properties {
	p := l.Secrets.Properties()
	p.ListBatch = l.batch
	return p
}

func (l lister) List(ctx context.Context) iter.Seq2[driver.Named, error] {
	l.lists.Add(1)
	return l.Secrets.List(ctx)
}

func (l lister) Get(ctx context.Context, name string) (driver.Secret, error) {
	l.gets.Add(1)
	return l.Secrets.Get(ctx, name)
}

// TestFindTokens checks that FindTokens returns the described records. FindTokens must read
// each of these records, or list all records if a list takes fewer calls.
func TestFindTokens(t *testing.T) {
	t.Parallel()
	const records = 100
	users := func(from, to int) (like []tokenstore.Token) {
		for i := from; i < to; i++ {
			like = append(like, tokenstore.Token{UserName: fmt.Sprint("user", i), ClientID: "c", AccessToken: "other"})
		}
		return like
	}
	for name, test := range map[string]struct {
		batch       int
		like        []tokenstore.Token
		want        []int // numbers of the users; nil means all users
		lists, gets int32
	}{
		"none there":          {0, users(records, 2*records), []int{}, 0, 1},
		"some there":          {0, users(90, 110), []int{90, 91, 92, 93, 94, 95, 96, 97, 98, 99}, 0, 11},
		"all there":           {0, users(0, records), nil, 0, records + 1},
		"all there, in lists": {20, users(0, records), nil, 1, 1},
		"few there, in lists": {20, users(98, 110), []int{98, 99}, 0, 3},
		"user without client": {0, []tokenstore.Token{{UserName: "user7"}}, nil, 1, 1},
		"access token":        {0, []tokenstore.Token{{AccessToken: "a"}}, nil, 1, 1},
		"nothing asked":       {0, nil, []int{}, 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := lister{Secrets: memstore.NewDriver(), batch: test.batch, lists: new(atomic.Int32), gets: new(atomic.Int32)}
			s := storeOn(t, d, nil)
			for _, token := range users(0, records) {
				if _, err := s.SaveToken(t.Context(), token); err != nil {
					t.Fatal(err)
				}
			}
			d.lists.Store(0)
			d.gets.Store(0)
			tokens, err := s.FindTokens(t.Context(), test.like)
			if err != nil || tokens == nil {
				t.Fatalf("%v, %v", tokens, err)
			}
			if lists, gets := d.lists.Load(), d.gets.Load(); lists != test.lists || gets != test.gets {
				t.Errorf("%d lists and %d reads, want %d and %d", lists, gets, test.lists, test.gets)
			}
			want := map[string]bool{}
			for _, i := range test.want {
				want[fmt.Sprint("user", i)] = true
			}
			if test.want == nil {
				for i := range records {
					want[fmt.Sprint("user", i)] = true
				}
			}
			for _, token := range tokens {
				if !want[token.UserName] || token.ID == "" {
					t.Errorf("found %q", token.UserName)
				}
				delete(want, token.UserName)
			}
			if len(want) > 0 {
				t.Errorf("not found: %v", want)
			}
		})
	}
	byID := memstore.New(nil)
	saved, err := byID.SaveToken(t.Context(), users(1, 2)[0])
	if err != nil {
		t.Fatal(err)
	}
	if tokens, err := byID.FindTokens(t.Context(), []tokenstore.Token{{ID: saved.ID}}); err != nil || len(tokens) != 1 {
		t.Errorf("by ID: %v, %v", tokens, err)
	}
}

// TestFindTokens_Unreadable checks that FindTokens returns the other described records if one
// of the described records cannot be read.
func TestFindTokens_Unreadable(t *testing.T) {
	t.Parallel()
	d := memstore.NewDriver()
	s := storeOn(t, d, nil)
	ann, bob := tokenstore.Token{UserName: "ann", ClientID: "c", AccessToken: "a"}, tokenstore.Token{UserName: "bob", ClientID: "c", AccessToken: "b"}
	for _, token := range []*tokenstore.Token{&ann, &bob} {
		var err error
		if *token, err = s.SaveToken(t.Context(), *token); err != nil {
			t.Fatal(err)
		}
	}
	secret, err := d.Get(t.Context(), ann.ID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Update(t.Context(), ann.ID, secret, driver.Payload{Data: []byte("damaged")}); err != nil {
		t.Fatal(err)
	}
	tokens, err := s.FindTokens(t.Context(), []tokenstore.Token{{UserName: "ann", ClientID: "c"}, {UserName: "bob", ClientID: "c"}})
	var unreadable *tokenstore.UnreadableError
	if len(tokens) != 1 || tokens[0].UserName != "bob" || !errors.As(err, &unreadable) || unreadable.Name != ann.ID {
		t.Errorf("%v, %v", tokens, err)
	}
}

// A slow is a driver that accepts a burst of ten updates and then ten updates per second, and
// throttles all other updates.
type slow struct {
	driver.Secrets

	mu       sync.Mutex
	last     time.Time
	left     float64
	refused  int
	accepted int
}

func (d *slow) Update(ctx context.Context, name string, base driver.Secret, p driver.Payload) (driver.Version, error) {
	if !d.take() {
		return "", fmt.Errorf("%w: ten updates a second", driver.ErrThrottled)
	}
	return d.Secrets.Update(ctx, name, base, p)
}

func (d *slow) take() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	d.left = min(10, d.left+10*now.Sub(d.last).Seconds())
	d.last = now
	if d.left < 1 {
		d.refused++
		return false
	}
	d.left--
	d.accepted++
	return true
}

// TestRekey_Throttled checks that one call of Rekey rewrites every record even if the service
// throttles updates, in little more time than the service requires.
func TestRekey_Throttled(t *testing.T) {
	t.Parallel()
	const records = 200
	synctest.Test(t, func(t *testing.T) {
		memory := memstore.NewDriver()
		before := storeOn(t, memory, &tokenstore.Options{NameKey: make([]byte, 32)})
		for i := range records {
			if _, err := before.SaveToken(t.Context(), tokenstore.Token{UserName: fmt.Sprint("user", i), ClientID: "c", AccessToken: "a"}); err != nil {
				t.Fatal(err)
			}
		}
		d := &slow{Secrets: memory.Reopen(), left: 10, last: time.Now()}
		index := [][]byte{bytes.Repeat([]byte{1}, 32), make([]byte, 32)}
		began, rewritten := time.Now(), 0
		for r, err := range storeOn(t, d, &tokenstore.Options{NameKey: make([]byte, 32), IndexKeys: index}).Rekey(t.Context(), nil) {
			if err != nil {
				t.Fatal(err)
			}
			if r.Rewritten {
				rewritten++
			}
		}
		took := time.Since(began)
		if rewritten != records || d.refused == 0 || took > time.Duration(d.accepted)*120*time.Millisecond {
			t.Errorf("%d rewritten, %d updates accepted and %d throttled, in %v", rewritten, d.accepted, d.refused, took)
		}
	})
}
