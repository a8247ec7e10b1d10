package conformance

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// consent saves a record without a user, with a grant token that has not been exchanged.
func (e *storeEnv) consent(s *watched) token {
	e.TB.Helper()
	return e.save(s, token{ClientID: "c1", ClientSecret: e.secret(), GrantToken: e.secret(), RedirectURL: "https://r.example"})
}

// answer saves new tokens in the given record, as after an exchange of the record's grant token.
// The parameter expires is the expiry time of the access token.
func (e *storeEnv) answer(s *watched, code token, expires time.Time) token {
	e.TB.Helper()
	return e.save(s, token{ID: code.ID, RefreshToken: e.secret(), AccessToken: e.secret(), ExpiresAt: expires})
}

// one checks that s contains only the given record, and that look-ups by the record's ID, by its
// user and client, and by its access token find the record. Look-ups by the grant token of each
// token in others must also find the record. If the format of the store is not foreign, look-ups by
// the ID of each token in others must find the record as well.
func (e *storeEnv) one(s *watched, record token, others ...token) {
	e.TB.Helper()
	e.keeps(s, record)
	e.has(s, record)
	for _, other := range others {
		if other.ID != record.ID && !e.b.ForeignFormat {
			e.hasBy(s, other.ID, record)
		}
		e.finds(s, "the grant token that the user's record came from", token{ClientID: "c1", GrantToken: other.GrantToken}, record)
	}
	e.finds(s, "user and client", token{UserName: record.UserName, ClientID: record.ClientID}, record)
	e.finds(s, "access token", token{AccessToken: record.AccessToken}, record)
}

var userCases = []testCase[*storeEnv]{
	{"TS-20", "a record gets a user", func(e *storeEnv) {
		s := e.open()
		code := e.consent(s)
		want := e.answer(s, code, hour(1))
		want.UserName = "ann"
		got := e.save(e.reopen(s), token{ID: code.ID, UserName: "ann"})
		want.ID = got.ID
		if err := differ("SaveToken", got, want); err != nil {
			e.Errorf("%v", err)
		}
		e.one(s, want, code)
		e.one(e.reopen(s), want, code)
	}},
	{"TS-20", "a record gets a user together with the tokens", func(e *storeEnv) {
		s := e.open()
		code := e.consent(s)
		t := e.of("ann", "c1")
		t.ID = code.ID
		got := e.save(s, t)
		t.ID, t.GrantToken = got.ID, code.GrantToken
		if err := differ("SaveToken", got, t); err != nil {
			e.Errorf("%v", err)
		}
		e.one(e.reopen(s), t, code)
	}},
	{"TS-20", "a record without a client gets a user and a client", func(e *storeEnv) {
		s := e.open()
		bare := e.save(s, token{AccessToken: e.secret(), ExpiresAt: hour(1)})
		want := bare
		want.UserName, want.ClientID = "ann", "c1"
		got := e.save(s, token{ID: bare.ID, UserName: "ann", ClientID: "c1"})
		want.ID = got.ID
		if err := differ("SaveToken", got, want); err != nil {
			e.Errorf("%v", err)
		}
		e.keeps(s, want)
		e.finds(s, "user and client", token{UserName: "ann", ClientID: "c1"}, want)
		if !e.b.ForeignFormat {
			e.hasBy(s, bare.ID, want)
		}
	}},
	{"TS-20", "a record with an ID of the caller's own gets a user", func(e *storeEnv) {
		s := e.open()
		free := e.save(s, token{ID: e.own(0), ClientID: "c1", RefreshToken: e.secret(), ExpiresAt: hour(1)})
		e.search()
		got := e.save(s, token{ID: free.ID, UserName: "ann"})
		free.UserName = "ann"
		if !e.b.ForeignFormat {
			e.hasBy(s, free.ID, got)
		}
		free.ID = got.ID
		if err := differ("SaveToken", got, free); err != nil {
			e.Errorf("%v", err)
		}
		e.finds(s, "user and client", token{UserName: "ann", ClientID: "c1"}, got)
		e.keeps(e.reopen(s), got)
	}},
	{"TS-20", "a second consent of a user that expires later replaces the first", func(e *storeEnv) {
		s := e.open()
		first := e.save(s, e.of("ann", "c1"))
		code := e.consent(s)
		second := e.answer(s, code, first.ExpiresAt.Add(time.Hour))
		got := e.save(s, token{ID: code.ID, UserName: "ann"})
		want := second
		want.ID, want.UserName, want.APIDomain = first.ID, "ann", first.APIDomain
		if err := differ("SaveToken", got, want); err != nil {
			e.Errorf("%v", err)
		}
		e.one(e.reopen(s), want, code)
	}},
	{"TS-20", "a second consent of a user that expires earlier leaves the tokens of the first", func(e *storeEnv) {
		s := e.open()
		first := e.save(s, e.of("ann", "c1"))
		code := e.consent(s)
		second := e.answer(s, code, first.ExpiresAt.Add(-time.Hour))
		got := e.save(s, token{ID: code.ID, UserName: "ann"})
		want := first
		want.GrantToken = second.GrantToken
		if err := differ("SaveToken", got, want); err != nil {
			e.Errorf("%v", err)
		}
		e.one(e.reopen(s), want, code)
	}},
	{"TS-20", "a record gets a user who holds the same code already", func(e *storeEnv) {
		s := e.open()
		code := e.consent(s)
		first := e.of("ann", "c1")
		first.GrantToken = code.GrantToken
		first = e.save(s, first)
		e.has(s, code)
		got := e.save(e.reopen(s), token{ID: code.ID, UserName: "ann"})
		if err := differ("SaveToken", got, first); err != nil {
			e.Errorf("%v", err)
		}
		e.one(e.reopen(s), first, code)
	}},
	{"TS-20", "both IDs find the record after it changed", func(e *storeEnv) {
		s := e.open()
		first := e.save(s, e.of("ann", "c1"))
		code := e.consent(s)
		e.answer(s, code, hour(5))
		record := e.save(s, token{ID: code.ID, UserName: "ann"})
		id := code.ID
		if e.b.ForeignFormat {
			id = first.ID
		}
		for _, by := range []token{{ID: id}, {ID: first.ID}, {UserName: "ann", ClientID: "c1"}, {ID: id, UserName: "ann"}} {
			by.AccessToken, by.ExpiresAt = e.secret(), hour(6)
			record.AccessToken, record.ExpiresAt = by.AccessToken, by.ExpiresAt
			if err := differ("SaveToken", e.save(e.reopen(s), by), record); err != nil {
				e.Errorf("%v", err)
			}
			e.one(s, record, code)
		}
	}},
	{"TS-20", "an ID that found a record goes on finding it, however many there are", func(e *storeEnv) {
		if e.b.ForeignFormat {
			e.TB.Skipf("the store forgets the IDs of records that were absorbed")
		}
		s := e.open()
		var ids []string
		var record token
		for i := range 14 {
			code := token{ClientID: "c1", GrantToken: e.secret(), RefreshToken: e.secret(), ExpiresAt: hour(i)}
			if i%2 == 0 {
				code.ID = e.own(i)
			}
			code = e.save(s, code)
			e.search()
			record = e.save(s, token{ID: code.ID, UserName: "ann"})
			ids = append(ids, code.ID)
		}
		e.search()
		for i, id := range ids {
			e.hasBy(s, id, record)
			if i%4 == 0 {
				record = e.save(e.reopen(s), token{ID: id, UserName: "ann", AccessToken: e.secret(), ExpiresAt: record.ExpiresAt})
			}
		}
		for _, id := range ids {
			e.hasBy(e.reopen(s), id, record)
		}
		e.remove(s, ids[2])
		e.lacks(s, append(ids, record.ID)...)
		e.keeps(s)
	}},
	{"TS-20", "a cold start with the same code finds the user's record", func(e *storeEnv) {
		s := e.open()
		code := e.consent(s)
		e.answer(s, code, hour(1))
		record := e.save(s, token{ID: code.ID, UserName: "ann"})
		again := token{ClientID: "c1", ClientSecret: code.ClientSecret, GrantToken: code.GrantToken, RedirectURL: code.RedirectURL}
		e.lags(e.b.ReadLag) // a save that changes nothing may return an outdated record
		for range 2 {       // first within the lag of searches, and then after that lag
			if err := differ("SaveToken of the same code", e.save(e.reopen(s), again), record); err != nil {
				e.Errorf("%v", err)
			}
			e.one(s, record, code)
		}
	}},
	{"TS-20", "two consents of a user at once become one record", func(e *storeEnv) {
		for range 4 {
			e.consents(2)
		}
	}},
	{"TS-20", "several consents of a user at once become one record", func(e *storeEnv) {
		e.consents(5)
	}},
	{"TS-20", "one consent saved by several processes at once becomes one record", func(e *storeEnv) {
		s := e.open()
		t := token{ClientID: "c1", ClientSecret: e.secret(), GrantToken: e.secret()}
		refresh, access := e.secret(), e.secret()
		handles := []*watched{s, e.reopen(s), e.reopen(s)}
		together(len(handles), func(i int) {
			code, err := handles[i].SaveToken(e.ctx, t)
			if err != nil {
				e.Errorf("SaveToken of the code: %v", err)
				return
			}
			_, err = handles[i].SaveToken(e.ctx, token{ID: code.ID, UserName: "ann", RefreshToken: refresh, AccessToken: access, ExpiresAt: hour(1)})
			if err != nil && !(e.b.ForeignFormat && (errors.Is(err, tokenstore.ErrNotFound) || errors.Is(err, tokenstore.ErrIDMismatch))) {
				e.Errorf("SaveToken of the user: %v", err)
			}
		})
		want := t
		want.UserName, want.RefreshToken, want.AccessToken, want.ExpiresAt = "ann", refresh, access, hour(1)
		e.lags(max(e.b.ReadLag, e.b.ListLag))
		got, err := s.FindToken(e.ctx, token{UserName: "ann", ClientID: "c1"})
		if err != nil {
			e.Fatalf("FindToken: %v", err)
		}
		want.ID = got.ID
		e.one(s, want, want)
	}},
}

// consents assigns one user to n records concurrently, and checks that the n records become one
// record.
func (e *storeEnv) consents(n int) {
	e.TB.Helper()
	s := e.open()
	var codes []token
	var handles []*watched
	for i := range n {
		handles = append(handles, e.reopen(s))
		code := e.consent(s)
		e.answer(s, code, hour(i))
		codes = append(codes, code)
	}
	e.search()
	var mu sync.Mutex
	var results []token
	together(n, func(i int) {
		got, err := handles[i].SaveToken(e.ctx, token{ID: codes[i].ID, UserName: "ann"})
		if err != nil {
			e.Errorf("SaveToken of consent %d: %v", i, err)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		results = append(results, got)
	})
	e.search()
	all, err := s.GetTokens(e.ctx)
	if err != nil || len(all) != 1 {
		e.Fatalf("after %d consents of one user GetTokens returned %d tokens and error %v, want 1", n, len(all), err)
	}
	record := all[0]
	if record.UserName != "ann" || !record.ExpiresAt.Equal(hour(n-1)) {
		e.Errorf("the record is of %q and expires at %v, want the tokens that expire last, at %v", record.UserName, record.ExpiresAt, hour(n-1))
	}
	for _, got := range results {
		if got.ID != record.ID && !e.b.ForeignFormat {
			e.Errorf("SaveToken returned ID %q, the record has %q", got.ID, record.ID)
		}
	}
	for i, code := range codes {
		if !e.b.ForeignFormat {
			e.hasBy(s, code.ID, record)
			e.after(e.lag(token{}), func() error {
				got, err := s.FindToken(e.ctx, token{ClientID: "c1", GrantToken: code.GrantToken})
				if err == nil && got.ID != record.ID {
					return fmt.Errorf("the code of consent %d finds %q, want %q", i, got.ID, record.ID)
				}
				return nil // the record keeps only some of its earlier grant tokens
			})
		}
	}
}
