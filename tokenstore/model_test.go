package tokenstore_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/memstore"
)

// A pair identifies a user's record.
type pair struct{ user, client string }

// overlay returns the record r with the changes that a save of t must make. overlay does not
// use the code under test.
func overlay(r, t token) token {
	if t.AccessToken != "" && t.AccessToken != r.AccessToken {
		r.AccessToken, r.ExpiresAt = t.AccessToken, t.ExpiresAt
	} else if !t.ExpiresAt.IsZero() {
		r.ExpiresAt = t.ExpiresAt
	}
	for _, f := range []struct{ to, from *tokenstore.Secret }{
		{&r.ClientSecret, &t.ClientSecret}, {&r.RefreshToken, &t.RefreshToken}, {&r.GrantToken, &t.GrantToken},
	} {
		if *f.from != "" {
			*f.to = *f.from
		}
	}
	if t.RedirectURL != "" {
		r.RedirectURL = t.RedirectURL
	}
	if t.APIDomain != "" {
		r.APIDomain = t.APIDomain
	}
	return r
}

// FuzzStore checks that a store and a map hold the same records after each operation on
// records of users. Each operation uses a new Store, so that operations share only the stored
// secrets.
func FuzzStore(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 1, 1, 2, 0, 1, 1, 3, 0, 1, 1, 4, 5})
	f.Add([]byte{0, 0, 0, 1, 0, 1, 2, 1, 1, 0, 0, 0, 0, 0, 2, 2, 0, 1, 2, 1, 1, 0, 0, 0, 3, 0, 1, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 400 {
			return
		}
		memory, model, d := memstore.NewDriver(), map[pair]token{}, dealer{data}
		for len(d.bytes) > 0 {
			s := storeOn(t, memory.Reopen(), nil)
			op, given := d.next(6), token{}
			if op < 4 {
				given = d.token()
				given.ID = ""
				given.UserName = "u" + given.UserName
			}
			key := pair{given.UserName, given.ClientID}
			record, known := model[key]
			if !known && key.client == "" {
				// Skip the operation, because a token with a user but no client may describe a
				// record with a client. A look-up in the map does not find such a record.
				for other := range model {
					if other.user == key.user {
						op = 5
					}
				}
			}
			switch op {
			case 0, 1:
				got, err := s.SaveToken(t.Context(), given)
				if !known && given.AccessToken == "" && given.RefreshToken == "" && given.GrantToken == "" {
					if !errors.Is(err, tokenstore.ErrNotFound) {
						t.Fatalf("a save without a token: error %v, want ErrNotFound", err)
					}
					continue
				}
				want := overlay(record, given)
				want.ID, want.UserName, want.ClientID = got.ID, key.user, key.client
				if err != nil || got != want || known && got.ID != record.ID {
					t.Fatalf("saved as %+v, error %v, want\n%+v", got, err, want)
				}
				model[key] = got
			case 2:
				got, err := s.FindToken(t.Context(), token{UserName: key.user, ClientID: key.client})
				if known && (err != nil || got != record) || !known && !errors.Is(err, tokenstore.ErrNotFound) {
					t.Fatalf("found %+v, error %v, want\n%+v", got, err, record)
				}
			case 3:
				if known {
					if err := s.DeleteToken(t.Context(), record.ID); err != nil {
						t.Fatal(err)
					}
					delete(model, key)
				}
			case 4:
				if d.next(8) == 0 {
					if err := s.DeleteTokens(t.Context()); err != nil {
						t.Fatal(err)
					}
					clear(model)
				}
			}
			var want []token
			for _, r := range model {
				want = append(want, r)
			}
			slices.SortFunc(want, func(a, b token) int { return strings.Compare(a.ID, b.ID) })
			if got, err := s.GetTokens(t.Context()); err != nil || !slices.Equal(got, want) {
				t.Fatalf("the store holds %+v, error %v, want\n%+v", got, err, want)
			}
		}
	})
}
