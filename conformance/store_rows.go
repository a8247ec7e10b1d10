package conformance

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

var rowCases = []testCase[*storeEnv]{
	{"TS-01", "FindTokenByID finds each record as it was saved", func(e *storeEnv) {
		s := e.open()
		var saved []token
		for i := range 5 {
			saved = append(saved, e.save(s, e.of(fmt.Sprintf("user %d", i), "c1")))
		}
		saved = append(saved, e.save(s, token{ClientID: "c1", GrantToken: e.secret()}), e.save(s, token{AccessToken: e.secret()}))
		for _, h := range []*watched{s, e.reopen(s)} {
			for _, want := range saved {
				e.has(h, want)
				e.finds(h, "ID", token{ID: want.ID}, want)
			}
		}
	}},
	{"TS-03", "after a record was deleted the other is the only one", func(e *storeEnv) {
		s := e.open()
		one, two := e.save(s, e.of("ann", "c1")), e.save(s, e.of("ann", "c2"))
		e.misses(s, "a user with two records", token{UserName: "ann"}, tokenstore.ErrAmbiguous)
		if err := s.DeleteToken(e.ctx, one.ID); err != nil {
			e.Fatalf("DeleteToken: %v", err)
		}
		e.finds(s, "a user with one record", token{UserName: "ann"}, two)
	}},
	{"TS-07", "of records without a user the newest is preferred", func(e *storeEnv) {
		s := e.open()
		refresh := e.secret()
		one := e.save(s, token{ClientID: "c1", GrantToken: e.secret(), RefreshToken: refresh})
		two := e.save(s, token{ClientID: "c1", GrantToken: e.secret()})
		like := token{ClientID: "c1", RefreshToken: refresh}
		e.tick()
		two = e.save(s, token{ID: two.ID, RefreshToken: refresh})
		e.finds(s, "the refresh token of two records", like, two)
		if e.b.ForeignFormat {
			return // foreign formats do not store the time of a save
		}
		e.tick()
		one = e.save(s, token{ID: one.ID, AccessToken: e.secret(), ExpiresAt: hour(-1)})
		e.finds(s, "the refresh token of two records", like, one)
	}},
	{"TS-08", "a record is found by its first and its last earlier refresh token", func(e *storeEnv) {
		e.earlier(func(t *token) *tokenstore.Secret { return &t.RefreshToken })
	}},
	{"TS-08", "a record is found by its first and its last earlier grant token", func(e *storeEnv) {
		e.earlier(func(t *token) *tokenstore.Secret { return &t.GrantToken })
	}},
	{"TS-08", "a save by an earlier refresh token goes to the record", func(e *storeEnv) {
		if e.b.ForeignFormat {
			e.TB.Skipf("Store.ForeignFormat: no room for earlier tokens")
		}
		s := e.open()
		old := e.of("ann", "c1")
		e.save(s, old)
		now := e.save(s, token{UserName: "ann", ClientID: "c1", RefreshToken: e.secret()})
		e.search()
		now.APIDomain = "https://other.example"
		got := e.save(s, token{ClientID: "c1", RefreshToken: old.RefreshToken, APIDomain: now.APIDomain})
		if err := differ("SaveToken by an earlier refresh token", got, now); err != nil {
			e.Errorf("%v", err)
		}
		e.keeps(s, now)
	}},
	{"TS-09", "FindToken by nothing that can be searched for is invalid", func(e *storeEnv) {
		s := e.open()
		made := map[tokenstore.Secret]tokenstore.Secret{"": ""}
		for range 2 { // first in an empty store, and then in a store with a record
			for what, like := range nothing {
				if got, err := s.FindToken(e.ctx, e.real(made, like)); !errors.Is(err, tokenstore.ErrInvalidToken) {
					e.Errorf("FindToken by %s returned ID %q and error %v, want %q", what, got.ID, err, tokenstore.ErrInvalidToken)
				}
			}
			e.save(s, e.real(made, full[0]))
		}
	}},
	{"TS-09", "SaveToken by nothing that can be searched for goes to no user's record", func(e *storeEnv) {
		s := e.open()
		made := map[tokenstore.Secret]tokenstore.Secret{"": ""}
		ann := e.save(s, e.real(made, full[0]))
		e.search()
		for what, like := range nothing {
			like = e.real(made, like)
			credential := like.AccessToken != "" || like.RefreshToken != "" || like.GrantToken != ""
			got, err := s.SaveToken(e.ctx, like)
			switch {
			case !credential && !errors.Is(err, tokenstore.ErrInvalidToken):
				e.Errorf("SaveToken of %s returned ID %q and error %v, want %q", what, got.ID, err, tokenstore.ErrInvalidToken)
			case credential && err != nil:
				e.Errorf("SaveToken of %s: %v", what, err)
			case credential && (got.ID == ann.ID || got.UserName != ""):
				e.Errorf("SaveToken of %s went to the record of %q", what, ann.UserName)
			}
			e.has(s, ann)
		}
	}},
	{"TS-09", "SaveToken of the same token again goes to the record it created", func(e *storeEnv) {
		s := e.open()
		var saved []token
		for what, t := range map[string]token{
			"a refresh token alone":           {RefreshToken: e.secret()},
			"a grant token alone":             {GrantToken: e.secret()},
			"an access token":                 {AccessToken: e.secret()},
			"an access token and a client":    {AccessToken: e.secret(), ClientID: "c1"},
			"a refresh token and a client":    {RefreshToken: e.secret(), ClientID: "c1"},
			"a grant token and a client":      {GrantToken: e.secret(), ClientID: "c1"},
			"a grant token and the rest":      {GrantToken: e.secret(), RefreshToken: e.secret(), AccessToken: e.secret(), ClientID: "c1"},
			"a refresh token and a secret":    {RefreshToken: e.secret(), ClientSecret: e.secret()},
			"an access token and a secret":    {AccessToken: e.secret(), ClientSecret: e.secret()},
			"a refresh token, without client": {RefreshToken: e.secret(), APIDomain: "https://a.example"},
		} {
			first := e.save(s, t)
			e.lags(e.b.ReadLag)
			second := e.save(e.reopen(s), t)
			if err := differ("the second SaveToken of "+what, second, first); err != nil {
				e.Errorf("%v", err)
			}
			saved = append(saved, first)
		}
		e.keeps(s, saved...)
	}},
	{"TS-09", "SaveToken of a token that a record without a user holds goes to that record", func(e *storeEnv) {
		s := e.open()
		one := e.save(s, token{ClientID: "c1", RefreshToken: e.secret(), AccessToken: e.secret()})
		two := e.save(s, token{GrantToken: e.secret(), RefreshToken: e.secret()})
		e.search()
		for _, record := range []*token{&one, &two} {
			like := token{ClientID: record.ClientID, AccessToken: record.AccessToken, APIDomain: "https://other.example"}
			if like.ClientID == "" {
				like.RefreshToken = record.RefreshToken
			}
			record.APIDomain = like.APIDomain
			if err := differ("SaveToken", e.save(e.reopen(s), like), *record); err != nil {
				e.Errorf("%v", err)
			}
		}
		e.keeps(s, one, two)
	}},
	{"TS-09", "SaveToken of another client's access token is refused", func(e *storeEnv) {
		s := e.open()
		record := e.save(s, token{ClientID: "c1", AccessToken: e.secret(), ExpiresAt: hour(1)})
		e.search()
		e.refuses(s, "another client's access token", token{ClientID: "c2", AccessToken: record.AccessToken}, tokenstore.ErrIDMismatch)
		e.keeps(s, record)
	}},
	{"TS-09", "SaveToken of what another's record was created with is refused", func(e *storeEnv) {
		if e.b.ForeignFormat {
			e.TB.Skipf("Store.ForeignFormat: no room for what a record was created with")
		}
		s := e.open()
		refresh, access := e.save(s, token{RefreshToken: e.secret()}), e.save(s, token{AccessToken: e.secret()})
		client := e.save(s, token{ID: refresh.ID, ClientID: "c1", RefreshToken: e.secret()})
		user := e.of("ann", "c1")
		user.ID = access.ID
		user = e.save(s, user)
		e.search()
		e.refuses(s, "the refresh token of what is another client's", token{RefreshToken: refresh.RefreshToken}, tokenstore.ErrIDMismatch)
		e.refuses(s, "the access token of what is a user's", token{ClientID: "c1", AccessToken: access.AccessToken}, tokenstore.ErrIDMismatch)
		e.hasBy(s, access.ID, user)
		e.keeps(s, client, user)
	}},
	{"TS-09", "SaveToken of what was made part of a user's record is refused", func(e *storeEnv) {
		if e.b.ForeignFormat {
			e.TB.Skipf("Store.ForeignFormat: no room for what a record was created with")
		}
		s := e.open()
		bare := e.save(s, token{AccessToken: e.secret()})
		user := e.of("ann", "c1")
		user.AccessToken = bare.AccessToken
		user = e.save(s, user)
		e.search()
		user.APIDomain = "https://other.example"
		if err := differ("SaveToken", e.save(e.reopen(s), token{AccessToken: bare.AccessToken, APIDomain: user.APIDomain}), user); err != nil {
			e.Errorf("%v", err)
		}
		e.search()
		e.refuses(s, "the access token", token{ClientSecret: e.secret(), AccessToken: bare.AccessToken}, tokenstore.ErrIDMismatch)
		e.keeps(s, user)
	}},
	{"TS-10", "in an empty store nothing is found", func(e *storeEnv) {
		s := e.open()
		for _, line := range table {
			if line.err != searching && line.id == 0 {
				e.misses(s, line.name, e.real(map[tokenstore.Secret]tokenstore.Secret{"": ""}, line.like), tokenstore.ErrNotFound)
			}
		}
		e.lacks(s, "no such ID", "1", "u"+text(32))
	}},
	{"TS-10", "a weak look-up that finds nothing says how far it may be out of date", func(e *storeEnv) {
		if e.b.ListLag == 0 {
			e.TB.Skipf("Store.ListLag is 0")
		}
		s := e.open()
		e.save(s, e.of("ann", "c1"))
		lag := e.b.ListLag.String()
		if e.b.ListLag == driver.Unbounded {
			lag = "no documented bound"
		}
		for what, like := range map[string]token{
			"own ID": {ID: e.own(7)}, "user": {UserName: "bob"}, "access token": {AccessToken: e.secret()},
			"grant token": {ClientID: "c1", GrantToken: e.secret()}, "refresh token": {ClientID: "c1", RefreshToken: e.secret()},
		} {
			if _, err := s.FindToken(e.ctx, like); !errors.Is(err, tokenstore.ErrNotFound) || !strings.Contains(err.Error(), lag) {
				e.Errorf("FindToken by an unknown %s returned %v, want ErrNotFound and %q in the text", what, err, lag)
			}
		}
		for what, like := range map[string]token{"user and client": {UserName: "bob", ClientID: "c1"}, "derived ID": {ID: "u" + text(32)}} {
			if _, err := s.FindToken(e.ctx, like); !errors.Is(err, tokenstore.ErrNotFound) || strings.Contains(err.Error(), lag) {
				e.Errorf("FindToken by an unknown %s returned %v, want ErrNotFound and no lag in the text", what, err)
			}
		}
	}},
	{"TS-10", "an access token of a record with a user and one without is ambiguous", func(e *storeEnv) {
		s := e.open()
		access := e.secret()
		e.save(s, token{AccessToken: access})
		e.save(s, token{UserName: "ann", AccessToken: access})
		e.misses(s, "an access token of two records", token{AccessToken: access}, tokenstore.ErrAmbiguous)
	}},
	{"TS-11", "the fields of like are laid over the record", func(e *storeEnv) {
		s := e.open()
		record := e.save(s, e.of("ann", "c1"))
		for _, f := range contents {
			like := token{ID: record.ID}
			want := record
			*f.of(&like) = string(e.secret())
			*f.of(&want) = *f.of(&like)
			if f.name == "AccessToken" {
				want.ExpiresAt = time.Time{}
			}
			e.finds(s, "an ID, with another "+f.name, like, want)
			like.ID, like.UserName, like.ClientID = "", "ann", "c1"
			e.finds(s, "a user and a client, with another "+f.name, like, want)
		}
		e.has(s, record)
	}},
	{"TS-11", "another access token does not inherit the expiry", func(e *storeEnv) {
		s := e.open()
		record := e.save(s, e.of("ann", "c1"))
		same, bare, timed, moved := record, record, record, record
		bare.AccessToken, bare.ExpiresAt = e.secret(), time.Time{}
		timed.AccessToken, timed.ExpiresAt = bare.AccessToken, hour(2)
		moved.ExpiresAt = hour(3)
		like := token{UserName: "ann", ClientID: "c1"}
		e.finds(s, "a user", like, record)
		like.AccessToken = record.AccessToken
		e.finds(s, "a user, with the access token", like, same)
		like.AccessToken = bare.AccessToken
		e.finds(s, "a user, with another access token", like, bare)
		like.ExpiresAt = hour(2)
		e.finds(s, "a user, with another access token and its expiry", like, timed)
		e.finds(s, "a user, with another expiry", token{UserName: "ann", ClientID: "c1", ExpiresAt: hour(3)}, moved)
		e.finds(s, "an access token", token{AccessToken: record.AccessToken}, record)
		e.has(s, record)
	}},
	{"TS-11", "an earlier token is not laid over the current one", func(e *storeEnv) {
		if e.b.ForeignFormat {
			e.TB.Skipf("Store.ForeignFormat: no room for earlier tokens")
		}
		s := e.open()
		first := e.of("ann", "c1")
		first.GrantToken = e.secret()
		e.save(s, first)
		now := e.save(s, token{UserName: "ann", ClientID: "c1", RefreshToken: e.secret(), GrantToken: e.secret()})
		e.finds(s, "an earlier refresh token", token{ClientID: "c1", RefreshToken: first.RefreshToken}, now)
		e.finds(s, "an earlier grant token", token{ClientID: "c1", GrantToken: first.GrantToken}, now)
		e.finds(s, "a user, with earlier tokens", token{UserName: "ann", ClientID: "c1", GrantToken: first.GrantToken, RefreshToken: first.RefreshToken}, now)
		e.finds(s, "an ID, with earlier tokens", token{ID: now.ID, GrantToken: first.GrantToken, RefreshToken: first.RefreshToken}, now)
	}},
}

// earlier checks that FindToken finds a record by the first, the second-to-last and the current
// value of a field.
func (e *storeEnv) earlier(of func(*token) *tokenstore.Secret) {
	if e.b.ForeignFormat {
		e.TB.Skipf("Store.ForeignFormat: no room for earlier tokens")
	}
	s := e.open()
	for _, record := range []token{{UserName: "ann", ClientID: "c1"}, {ClientID: "c1"}} {
		var values []tokenstore.Secret
		for range 4 {
			value := e.secret()
			*of(&record) = value
			record = e.save(s, record)
			values = append(values, value)
			for _, i := range []int{0, max(len(values)-2, 0), len(values) - 1} {
				like := token{ClientID: "c1"}
				*of(&like) = values[i]
				e.finds(s, fmt.Sprintf("value %d of %d", i+1, len(values)), like, record)
				e.finds(e.reopen(s), fmt.Sprintf("value %d of %d", i+1, len(values)), like, record)
			}
		}
	}
}

// tick waits for at least two milliseconds, because stores record times with a resolution of one
// millisecond.
func (e *storeEnv) tick() {
	for begin := time.Now(); time.Since(begin) < 2*time.Millisecond; {
		e.pause(time.Millisecond)
	}
}
