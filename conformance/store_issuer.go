package conformance

import (
	"context"
	"errors"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// owner returns the fields of a token that identify its owner.
func owner(t token) [4]string { return [4]string{t.UserName, t.ClientID, t.Issuer, t.Resource} }

// take saves t and returns the stored record. If the store has a foreign format that cannot hold
// t, take checks that the store refuses t and stays unchanged, and then skips the case.
func (e *storeEnv) take(s *watched, t token) token {
	e.TB.Helper()
	if !e.b.ForeignFormat || t.Issuer+t.Resource+t.Scope+t.TokenType+string(t.IDToken+t.Extra) == "" {
		return e.save(s, t)
	}
	before, err := s.GetTokens(e.ctx)
	if err != nil {
		e.Fatalf("GetTokens: %v", err)
	}
	got, err := s.SaveToken(e.ctx, t)
	switch {
	case errors.Is(err, tokenstore.ErrInvalidToken):
		e.keeps(s, before...)
		e.TB.Skipf("%T has no room for such a record", s.TokenStore)
	case err != nil:
		e.Fatalf("SaveToken: %v", err)
	}
	return got
}

// servers holds records of one user and one ClientID. Each record has a different combination of
// issuer and resource, both of which can be empty.
var servers = []token{
	{UserName: "ann", ClientID: "c1", RefreshToken: "r1", GrantToken: "g1", AccessToken: "a1"},
	{UserName: "ann", ClientID: "c1", Issuer: "https://one.example", RefreshToken: "r2", GrantToken: "g2", AccessToken: "a2"},
	{UserName: "ann", ClientID: "c1", Issuer: "https://two.example", RefreshToken: "r3", GrantToken: "g3", AccessToken: "a3"},
	{UserName: "ann", ClientID: "c1", Issuer: "https://one.example", Resource: "https://api.example", RefreshToken: "r4", GrantToken: "g4", AccessToken: "a4"},
	{UserName: "ann", ClientID: "c1", Resource: "https://api.example", RefreshToken: "r5", GrantToken: "g5", AccessToken: "a5"},
}

// twins holds records of two users at two issuers, with the same refresh token and the same grant
// token.
var twins = []token{
	{UserName: "ann", ClientID: "c1", Issuer: "https://one.example", RefreshToken: "r1", GrantToken: "g1", AccessToken: "a1"},
	{UserName: "bob", ClientID: "c1", Issuer: "https://two.example", RefreshToken: "r1", GrantToken: "g1", AccessToken: "a2"},
}

// at replaces the issuer and resource in the token like with the values from the n-th element of
// servers, counted from 1, and returns the result.
func at(n int, like token) token {
	like.Issuer, like.Resource = servers[n-1].Issuer, servers[n-1].Resource
	return like
}

var (
	annsOfOne = token{UserName: "ann", ClientID: "c1"}
	anyOfAnns = token{UserName: "ann"}
)

// issuerTable continues table with searches by issuer and resource.
var issuerTable = []search{
	{clause: "TS-44", name: "a user and client without an issuer find the record without one", records: servers, like: annsOfOne, found: 1},
	{clause: "TS-44", name: "a user and client at an issuer find their record", records: servers, like: at(2, annsOfOne), found: 2},
	{clause: "TS-44", name: "a user and client at another issuer find another record", records: servers, like: at(3, annsOfOne), found: 3},
	{clause: "TS-44", name: "a user and client at an issuer and for a resource find their record", records: servers, like: at(4, annsOfOne), found: 4},
	{clause: "TS-44", name: "a user and client for a resource find their record", records: servers, like: at(5, annsOfOne), found: 5},
	{clause: "TS-44", name: "a user and client at an unknown issuer find nothing", records: servers, like: token{UserName: "ann", ClientID: "c1", Issuer: "https://three.example"}, err: none},
	{clause: "TS-44", name: "issuers are compared byte by byte", records: servers, like: token{UserName: "ann", ClientID: "c1", Issuer: "https://one.example/"}, err: none},
	{clause: "TS-44", name: "a user and client for a resource at another issuer find nothing", records: servers, like: token{UserName: "ann", ClientID: "c1", Issuer: "https://two.example", Resource: "https://api.example"}, err: none},
	{clause: "TS-44", name: "a user and client do not find a record at an issuer", records: servers[1:3], like: annsOfOne, err: none},
	{clause: "TS-44", name: "an issuer is not taken for a resource", records: servers[1:2], like: token{UserName: "ann", ClientID: "c1", Resource: "https://one.example"}, err: none},
	{clause: "TS-44", name: "a user at an issuer finds the only record there", records: servers, like: at(3, anyOfAnns), found: 3},
	{clause: "TS-44", name: "a user at an issuer and for a resource finds the only record there", records: servers, like: at(4, anyOfAnns), found: 4},
	{clause: "TS-44", name: "a user at an issuer with two records is ambiguous", records: []token{servers[1], servers[3]}, like: at(2, anyOfAnns), err: several},
	{clause: "TS-44", name: "a user at an unknown issuer finds nothing", records: servers, like: token{UserName: "ann", Issuer: "https://three.example"}, err: none},
	{clause: "TS-44", name: "a user without a client and issuer finds the only record", records: servers[1:2], like: anyOfAnns, found: 1},

	{clause: "TS-44", name: "an ID with its issuer finds its record", records: servers, id: 2, like: at(2, token{}), found: 2},
	{clause: "TS-44", name: "an ID finds its record without an issuer", records: servers, id: 4, found: 4},
	{clause: "TS-44", name: "an ID with another issuer finds nothing", records: servers, id: 2, like: at(3, token{}), err: none},
	{clause: "TS-44", name: "an ID with an issuer finds no record without one", records: servers, id: 1, like: at(2, token{}), err: none},
	{clause: "TS-44", name: "an ID with a resource finds no record without one", records: servers, id: 2, like: at(4, token{}), err: none},

	{clause: "TS-44", name: "a refresh token and client at an issuer find their record", records: servers, like: at(2, token{ClientID: "c1", RefreshToken: "r2"}), found: 2},
	{clause: "TS-44", name: "a refresh token of another issuer is not found", records: servers, like: at(2, token{ClientID: "c1", RefreshToken: "r3"}), err: none},
	{clause: "TS-44", name: "a refresh token of an issuer is not found without it", records: servers, like: token{ClientID: "c1", RefreshToken: "r2"}, err: none},
	{clause: "TS-44", name: "a refresh token for another resource is not found", records: servers, like: at(4, token{ClientID: "c1", RefreshToken: "r2"}), err: none},
	{clause: "TS-44", name: "a grant token and client for a resource find their record", records: servers, like: at(5, token{ClientID: "c1", GrantToken: "g5"}), found: 5},
	{clause: "TS-44", name: "a grant token of another issuer is not found", records: servers, like: at(3, token{ClientID: "c1", GrantToken: "g2"}), err: none},
	{clause: "TS-44", name: "one refresh token of two issuers is two", records: twins, like: token{ClientID: "c1", Issuer: "https://two.example", RefreshToken: "r1"}, found: 2},
	{clause: "TS-44", name: "one grant token of two issuers is two", records: twins, like: token{ClientID: "c1", Issuer: "https://one.example", GrantToken: "g1"}, found: 1},
	{clause: "TS-44", name: "an access token finds at every issuer", records: servers, like: token{AccessToken: "a4"}, found: 4},
	{clause: "TS-44", name: "an access token finds whatever the issuer", records: servers, like: at(3, token{AccessToken: "a2"}), found: 2},
}

var issuerCases = []testCase[*storeEnv]{
	{"TS-44", "a save at one issuer changes no record at another", func(e *storeEnv) {
		s := e.open()
		saved := e.allServers(s)
		for i := range saved {
			news := token{UserName: "ann", ClientID: "c1", Issuer: saved[i].Issuer, Resource: saved[i].Resource, AccessToken: e.secret(), ExpiresAt: hour(i)}
			want := tokenstore.Merge(saved[i], news)
			if err := differ("SaveToken", e.save(s, news), want); err != nil {
				e.Errorf("%v", err)
			}
			saved[i] = want
			e.keeps(s, saved...)
		}
	}},
	{"TS-44", "a deletion at one issuer changes no record at another", func(e *storeEnv) {
		s := e.open()
		saved := e.allServers(s)
		for len(saved) > 0 {
			if err := s.DeleteToken(e.ctx, saved[0].ID); err != nil {
				e.Errorf("DeleteToken: %v", err)
			}
			saved = saved[1:]
			e.keeps(s, saved...)
		}
	}},
	{"TS-44", "one code at two issuers is two records", func(e *storeEnv) {
		s := e.open()
		code, refresh := e.secret(), e.secret()
		var saved []token
		for _, n := range []int{1, 2, 3, 4, 5} {
			for _, t := range []token{{ClientID: "c1", GrantToken: code}, {ClientID: "c1", RefreshToken: refresh}, {AccessToken: e.secret()}} {
				saved = append(saved, e.take(s, at(n, t)))
				e.search()
			}
		}
		e.keeps(s, saved...)
		for _, t := range saved {
			if t.ClientID != "" {
				e.finds(s, "its token at its issuer", token{ClientID: "c1", Issuer: t.Issuer, Resource: t.Resource, GrantToken: t.GrantToken, RefreshToken: t.RefreshToken}, t)
			}
		}
	}},
	{"TS-44", "a refresh at one issuer serves no record at another", func(e *storeEnv) {
		s := e.open()
		e.refresher(s)
		saved := e.allServers(s)
		for i := range saved {
			saved[i] = e.save(s, token{ID: saved[i].ID, AccessToken: saved[i].AccessToken, ExpiresAt: time.Now().Add(-time.Hour).UTC().Truncate(time.Millisecond)})
		}
		h := e.reopen(s)
		e.lags(e.b.ReadLag)
		brought := make([]token, len(saved))
		for i := range brought {
			brought[i] = e.minted()
		}
		together(2*len(saved), func(i int) {
			n := i / 2
			got, err := e.refresher([]*watched{s, h}[i%2]).Refresh(e.ctx, saved[n].ID, saved[n].AccessToken, func(_ context.Context, used token) (token, error) {
				if err := differ("mint got", used, saved[n]); err != nil {
					e.Errorf("%v", err)
				}
				return brought[n], nil
			})
			if err != nil {
				e.Errorf("Refresh: %v", err)
			} else if err := differ("Refresh", got, tokenstore.Merge(saved[n], brought[n])); err != nil {
				e.Errorf("%v", err)
			}
		})
		for i := range saved {
			saved[i] = tokenstore.Merge(saved[i], brought[i])
		}
		e.keeps(s, saved...)
	}},
	{"TS-45", "the issuer and resource of a user's record are fixed", func(e *storeEnv) {
		s := e.open()
		saved := e.allServers(s)
		e.search()
		for i, t := range saved {
			for n := range saved {
				if clientPart(servers[n]).within(clientPart(t)) {
					continue
				}
				like := at(n+1, token{AccessToken: e.secret()})
				like.ID = t.ID
				e.refuses(s, "its ID at another issuer or for another resource", like, tokenstore.ErrIDMismatch)
				like.ID, like.AccessToken = "", t.AccessToken
				e.refuses(s, "its access token at another issuer or for another resource", like, tokenstore.ErrIDMismatch)
			}
			e.refuses(s, "another ID for it", token{ID: e.own(i), UserName: "ann", ClientID: "c1", Issuer: t.Issuer, Resource: t.Resource, AccessToken: e.secret()}, tokenstore.ErrIDMismatch)
		}
		e.keeps(s, saved...)
	}},
	{"TS-45", "a record without a user gets an issuer and a resource once", func(e *storeEnv) {
		s := e.open()
		free := e.save(s, token{ClientID: "c1", RefreshToken: e.secret(), ExpiresAt: hour(1)})
		other := e.take(s, at(3, token{UserName: "ann", ClientID: "c1", AccessToken: e.secret()}))
		for _, part := range []token{{Issuer: "https://one.example"}, {Resource: "https://api.example"}} {
			part.ID = free.ID
			free = tokenstore.Merge(free, part)
			if err := differ("SaveToken", e.save(s, part), free); err != nil {
				e.Errorf("%v", err)
			}
			part.Issuer, part.Resource = part.Issuer+part.Resource+"/other", ""
			e.refuses(s, "another issuer", part, tokenstore.ErrIDMismatch)
		}
		e.refuses(s, "another resource", token{ID: free.ID, Resource: "https://other.example"}, tokenstore.ErrIDMismatch)
		e.search()
		e.finds(s, "its refresh token at its issuer", token{ClientID: "c1", Issuer: free.Issuer, Resource: free.Resource, RefreshToken: free.RefreshToken}, free)
		want := tokenstore.Merge(free, token{UserName: "ann"})
		got := e.save(s, token{ID: free.ID, UserName: "ann"})
		want.ID = got.ID
		if err := differ("SaveToken", got, want); err != nil {
			e.Errorf("%v", err)
		}
		e.finds(s, "its user at its issuer", at(4, annsOfOne), want)
		e.finds(s, "the user at the other issuer", at(3, annsOfOne), other)
		e.keeps(s, want, other)
	}},
	{"TS-45", "a record becomes part of its user's record at its issuer", func(e *storeEnv) {
		s := e.open()
		saved := e.allServers(s)
		for n := range saved {
			free := e.take(s, at(n+1, token{ClientID: "c1", RefreshToken: e.secret(), AccessToken: e.secret(), ExpiresAt: hour(9)}))
			e.search()
			got := e.save(s, token{ID: free.ID, UserName: "ann"})
			if got.ID != saved[n].ID || got.AccessToken != free.AccessToken || owner(got) != owner(saved[n]) {
				e.Errorf("it became %q of %q, want %q of %q", got.ID, owner(got), saved[n].ID, owner(saved[n]))
			}
			saved[n] = got
			e.keeps(s, saved...)
		}
	}},
}

// A part holds a ClientID, an Issuer and a Resource, which together identify a client.
type part [3]string

func clientPart(t token) part { return part{t.ClientID, t.Issuer, t.Resource} }

// within reports whether each element of p is empty or equals the corresponding element of other.
func (p part) within(other part) bool {
	for i := range p {
		if p[i] != "" && p[i] != other[i] {
			return false
		}
	}
	return true
}

// allServers saves a record for each element of servers, and checks that the IDs differ.
func (e *storeEnv) allServers(s *watched) []token {
	e.TB.Helper()
	made := map[tokenstore.Secret]tokenstore.Secret{"": ""}
	var saved []token
	for i, t := range servers {
		t = e.real(made, t)
		t.ExpiresAt = hour(i)
		saved = append(saved, e.take(s, t))
	}
	for i, t := range saved {
		for _, other := range saved[:i] {
			if t.ID == other.ID {
				e.Fatalf("the records of %q and %q have one ID", owner(t), owner(other))
			}
		}
	}
	return saved
}
