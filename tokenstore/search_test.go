package tokenstore_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/memstore"
)

// searched returns the records that Search yields for the token like, and fails the test after
// an error.
func searched(t *testing.T, s *tokenstore.Store, like token) []token {
	t.Helper()
	var found []token
	for rec, err := range s.Search(t.Context(), like) {
		if err != nil {
			t.Errorf("search for %q of %q: %v", like.UserName, like.ClientID, err)
		}
		found = append(found, rec)
	}
	return found
}

// searchError searches for the token like, and returns the error of the only result. If the
// search does not have exactly one result, the error says how many results the search has.
func searchError(ctx context.Context, s *tokenstore.Store, like token) (err error) {
	n := 0
	for _, err = range s.Search(ctx, like) {
		n++
	}
	if n != 1 {
		return fmt.Errorf("%d results, the last with the error %w", n, err)
	}
	return err
}

// peopleOf saves 200 records of 40 users and 20 clients. Each client has records of ten users.
func peopleOf(t *testing.T, s *tokenstore.Store) (all []token) {
	t.Helper()
	for i := range 200 {
		all = append(all, saved(t, s, token{
			UserName: fmt.Sprintf("user%d", i%40), ClientID: fmt.Sprintf("client%d", (i/40*7+i)%20),
			RefreshToken: tokenstore.Secret(fmt.Sprintf("refresh%d", i)),
		}))
	}
	return all
}

// findsPeople checks that a search for each user, for each client, and for each pair of a user
// and a client yields exactly those elements of the slice all that match.
func findsPeople(t *testing.T, s *tokenstore.Store, all []token) {
	t.Helper()
	users, clients := []string{""}, []string{""}
	for i := range 41 {
		users = append(users, fmt.Sprintf("user%d", i))
	}
	for i := range 21 {
		clients = append(clients, fmt.Sprintf("client%d", i))
	}
	found := 0
	for _, user := range users {
		for _, client := range clients {
			if user+client == "" {
				continue
			}
			var want []token
			for _, rec := range all {
				if (user == "" || rec.UserName == user) && (client == "" || rec.ClientID == client) {
					want = append(want, rec)
				}
			}
			slices.SortFunc(want, func(a, b token) int { return strings.Compare(a.ID, b.ID) })
			got := searched(t, s, token{UserName: user, ClientID: client})
			if !slices.Equal(got, want) {
				t.Errorf("search for %q of %q: %d records, want %d", user, client, len(got), len(want))
			}
			found += len(got)
		}
	}
	if found != 3*len(all) {
		t.Errorf("%d records were found, want %d", found, 3*len(all))
	}
}

func TestSearchOfMany(t *testing.T) {
	t.Parallel()
	s := memstore.New(nil)
	findsPeople(t, s, peopleOf(t, s))
}

// TestSearchWhileKeysChange checks that Search yields the same records before, during and after
// a change of the name key and the index key. During the change, Rekey has renamed some of the
// records, and both name keys are in use.
func TestSearchWhileKeysChange(t *testing.T) {
	t.Parallel()
	d := memstore.NewDriver()
	before := storeOn(t, d, &tokenstore.Options{NameKey: oldKey})
	all := peopleOf(t, before)
	both := &tokenstore.Options{NameKey: newKey, OtherNameKeys: [][]byte{oldKey}, IndexKeys: [][]byte{newKey, oldKey}}
	if err := rekeyed(t.Context(), storeOn(t, d.Reopen(), &tokenstore.Options{
		NameKey: oldKey, OtherNameKeys: [][]byte{newKey}, IndexKeys: [][]byte{oldKey, newKey},
	})); err != nil {
		t.Fatal(err)
	}
	findsPeople(t, storeOn(t, d.Reopen(), both), all)
	// Each rename creates a secret, and the service fails after seventy creations.
	var created atomic.Int64
	fails := &faulty{memory: d.Reopen(), fault: func(op, _ string) fault {
		if op == "create" && created.Add(1) > 70 {
			return failBefore
		}
		return fine
	}}
	if err := rekeyed(t.Context(), storeOn(t, fails, both)); !errors.Is(err, tokenstore.ErrUnavailable) {
		t.Fatalf("Rekey: error %v, want ErrUnavailable", err)
	}
	names := 0
	for _, err := range d.Names(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		names++
	}
	if want := len(all) + 70 + 1; names != want { // the former names are redirects; one more secret is the marker
		t.Fatalf("%d secrets while Rekey is in progress, want %d", names, want)
	}
	findsPeople(t, storeOn(t, d.Reopen(), both), all)
	if err := rekeyed(t.Context(), storeOn(t, d.Reopen(), both)); err != nil {
		t.Fatal(err)
	}
	findsPeople(t, storeOn(t, d.Reopen(), both), all)
	findsPeople(t, storeOn(t, d.Reopen(), &tokenstore.Options{NameKey: newKey}), all)
}

// TestSearchWrongKeys checks that Search fails with ErrWrongKeys if the Options lack a key of the
// store, even if a search with the other keys would find some of the records.
func TestSearchWrongKeys(t *testing.T) {
	t.Parallel()
	d := memstore.NewDriver()
	saved(t, storeOn(t, d, &tokenstore.Options{NameKey: nameKey, IndexKeys: [][]byte{oldKey}}), annsToken)
	saved(t, storeOn(t, d.Reopen(), &tokenstore.Options{NameKey: nameKey, IndexKeys: [][]byte{newKey, oldKey}}), token{UserName: "ann", ClientID: "c2", RefreshToken: "r2"})
	for what, opts := range map[string]*tokenstore.Options{
		"no keys": nil, "a part of the index keys": {NameKey: nameKey, IndexKeys: [][]byte{newKey}}, "another name key": {NameKey: newKey, IndexKeys: [][]byte{newKey, oldKey}},
	} {
		if err := searchError(t.Context(), storeOn(t, d.Reopen(), opts), token{UserName: "ann"}); !errors.Is(err, tokenstore.ErrWrongKeys) {
			t.Errorf("with %s: error %v, want ErrWrongKeys", what, err)
		}
	}
	if got := searched(t, storeOn(t, d.Reopen(), &tokenstore.Options{NameKey: nameKey, IndexKeys: [][]byte{oldKey, newKey}}), token{UserName: "ann"}); len(got) != 2 {
		t.Errorf("with all keys: %d records, want 2", len(got))
	}
}

// A forgetful is a driver that finds nothing by labels, as if searches lagged.
type forgetful struct{ *faulty }

func (f forgetful) Lookup(ctx context.Context, _ []driver.Label) iter.Seq2[driver.Named, error] {
	return f.faulty.Lookup(ctx, nil)
}

// TestSearchWhereListsLag checks that a search for a user and client finds the record by its
// name if searches for labels lag, even if the first read by name does not find the record. If
// searches for labels do not lag, Search must not read by name.
func TestSearchWhereListsLag(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"lists lag", "lists and reads lag", "nothing lags"} {
		f := newFaulty()
		want := saved(t, f.cold(t, nil), annsToken)
		if name != "nothing lags" {
			f.list = time.Minute
		}
		if name == "lists and reads lag" {
			f.lag = time.Second
			f.stale = map[string]driver.Secret{want.ID: {}} // Get does not find the record, but Fresh does
		}
		s := storeOn(t, forgetful{f}, nil)
		got := searched(t, s, token{UserName: "ann", ClientID: "c1"})
		if name == "nothing lags" {
			if len(got) > 0 {
				t.Errorf("%s: a record was read by name", name)
			}
			continue
		}
		if len(got) != 1 || got[0] != want {
			t.Errorf("%s: %d records, want that of the user and client", name, len(got))
		}
		if got := searched(t, s, token{UserName: "ann", ClientID: "c1", Issuer: "https://id.example"}); len(got) > 0 {
			t.Errorf("%s: a search at an issuer yields a record without an issuer", name)
		}
		if got := searched(t, s, token{UserName: "ann"}); len(got) > 0 {
			t.Errorf("%s: a search for a user alone reads a name", name)
		}
	}
}

// TestSearchFails checks that the failure of a call ends a search with a single error. An error
// about the marker of keys does not matter if records are found.
func TestSearchFails(t *testing.T) {
	t.Parallel()
	f := newFaulty()
	saved(t, f.cold(t, nil), annsToken)
	s := storeOn(t, f, nil)
	f.fault = of("lookup", failBefore)
	var e *tokenstore.Error
	if err := searchError(t.Context(), s, token{UserName: "ann"}); !errors.Is(err, tokenstore.ErrUnavailable) || !errors.As(err, &e) || e.Op != "search" || e.ID != "" {
		t.Errorf("error %v, want that of a search", err)
	}
	f.fault = of("get", failBefore)
	if got := searched(t, s, token{UserName: "ann"}); len(got) != 1 {
		t.Errorf("%d records, want 1", len(got))
	}
	f.fault = of("get", failBefore)
	if err := searchError(t.Context(), s, token{UserName: "bob"}); !errors.Is(err, tokenstore.ErrUnavailable) {
		t.Errorf("a search that finds nothing: error %v, want that of the marker", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := searchError(t.Context(), s, token{UserName: "ann"}); !errors.Is(err, tokenstore.ErrUnavailable) {
		t.Errorf("a closed store: error %v, want ErrUnavailable", err)
	}
}
