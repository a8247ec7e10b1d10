package conformance

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// A search is a test case for the table under "Matching" in package tokenstore. The secrets
// in a search are placeholders; a running case replaces each placeholder with a random secret.
type search struct {
	clause  string
	name    string
	records []token // saved in this order
	like    token
	id      int   // number of the record whose ID is in like, counted from 1; 0 means no ID
	found   int   // number of the expected record, counted from 1
	err     error // the expected error if no record is found
}

var (
	none      = tokenstore.ErrNotFound
	several   = tokenstore.ErrAmbiguous
	searching = tokenstore.ErrInvalidToken // the error from a search for a token of row 4
)

// full holds records of two users with all kinds of tokens.
var full = []token{
	{UserName: "ann", ClientID: "c1", ClientSecret: "s1", AccessToken: "a1", RefreshToken: "r1", GrantToken: "g1"},
	{UserName: "bob", ClientID: "c1", ClientSecret: "s1", AccessToken: "a2", RefreshToken: "r2", GrantToken: "g2"},
}

// clients holds records of one user with two clients, and of another user.
var clients = []token{
	{UserName: "ann", ClientID: "c1", RefreshToken: "r1"},
	{UserName: "ann", ClientID: "c2", RefreshToken: "r2"},
	{UserName: "bob", ClientID: "c1", RefreshToken: "r3"},
}

// names holds records whose users and clients are easily confused.
var names = []token{
	{UserName: "ann", RefreshToken: "r1"},
	{UserName: "Ann", RefreshToken: "r2"},
	{UserName: "ann ", RefreshToken: "r3"},
	{UserName: " ann", RefreshToken: "r4"},
	{UserName: "jos\u00e9", RefreshToken: "r5"},
	{UserName: "jose\u0301", RefreshToken: "r6"},
	{UserName: "jose", RefreshToken: "r7"},
	{UserName: "ann%", RefreshToken: "r8"},
	{UserName: "an", ClientID: "nc", RefreshToken: "r9"},
	{UserName: "ann", ClientID: "c", RefreshToken: "r10"},
	{UserName: "ann", ClientID: "C", RefreshToken: "r11"},
	{UserName: `a"n'n`, ClientID: `\,;<&>`, RefreshToken: "r12"},
}

// table has test cases for the rows of the table under "Matching" in package tokenstore.
var table = []search{
	{clause: "TS-01", name: "an ID finds its record", records: full, id: 2, found: 2},
	{clause: "TS-01", name: "an ID finds a record without a user", records: []token{{ClientID: "c1", RefreshToken: "r1"}}, id: 1, found: 1},
	{clause: "TS-01", name: "an ID with its user and client finds its record", records: full, id: 2, like: token{UserName: "bob", ClientID: "c1"}, found: 2},
	{clause: "TS-01", name: "an ID with another user finds nothing", records: full, id: 2, like: token{UserName: "ann"}, err: none},
	{clause: "TS-01", name: "an ID with another client finds nothing", records: full, id: 2, like: token{ClientID: "c2"}, err: none},
	{clause: "TS-01", name: "an ID with its user and another client finds nothing", records: clients, id: 1, like: token{UserName: "ann", ClientID: "c2"}, err: none},
	{clause: "TS-01", name: "an ID with a client finds no record without one", records: []token{{UserName: "ann", RefreshToken: "r1"}}, id: 1, like: token{ClientID: "c1"}, err: none},
	{clause: "TS-01", name: "an ID with a user finds no record without one", records: []token{{ClientID: "c1", RefreshToken: "r1"}}, id: 1, like: token{UserName: "ann"}, err: none},
	{clause: "TS-01", name: "an ID decides though the tokens are another record's", records: full, id: 1, like: token{AccessToken: "a2", RefreshToken: "r2", GrantToken: "g2"}, found: 1},
	{clause: "TS-01", name: "an unknown ID finds nothing though all else matches", records: full, like: token{ID: "no such ID", UserName: "ann", ClientID: "c1", AccessToken: "a1", RefreshToken: "r1", GrantToken: "g1"}, err: none},

	{clause: "TS-02", name: "a user and a client find their record", records: clients, like: token{UserName: "ann", ClientID: "c2"}, found: 2},
	{clause: "TS-02", name: "a user without a client finds the record without one", records: append([]token{{UserName: "ann", RefreshToken: "r9"}}, clients...), like: token{UserName: "ann"}, found: 1},
	{clause: "TS-02", name: "a user with a client does not find the record without one", records: []token{{UserName: "ann", RefreshToken: "r1"}}, like: token{UserName: "ann", ClientID: "c1"}, err: none},
	{clause: "TS-02", name: "a user with another client finds nothing", records: clients, like: token{UserName: "bob", ClientID: "c2"}, err: none},
	{clause: "TS-02", name: "a user finds a record with other tokens", records: full, like: token{UserName: "ann", ClientID: "c1", AccessToken: "a2", RefreshToken: "r9"}, found: 1},

	{clause: "TS-03", name: "a user without a client finds the only record of the user", records: clients, like: token{UserName: "bob"}, found: 3},
	{clause: "TS-03", name: "a user without a client and with two records is ambiguous", records: clients, like: token{UserName: "ann"}, err: several},

	{clause: "TS-04", name: "an unknown user is not found by an access token", records: full, like: token{UserName: "cid", AccessToken: "a1"}, err: none},
	{clause: "TS-04", name: "an unknown user is not found by a refresh token", records: full, like: token{UserName: "cid", ClientID: "c1", RefreshToken: "r1"}, err: none},
	{clause: "TS-04", name: "an unknown user is not found by a grant token", records: full, like: token{UserName: "cid", ClientID: "c1", GrantToken: "g1"}, err: none},
	{clause: "TS-04", name: "a user with an unknown client is not found by a refresh token", records: full, like: token{UserName: "ann", ClientID: "c2", RefreshToken: "r1"}, err: none},
	{clause: "TS-04", name: "a user without a record does not find one without a user", records: []token{{ClientID: "c1", RefreshToken: "r1"}}, like: token{UserName: "ann", ClientID: "c1", RefreshToken: "r1"}, err: none},

	{clause: "TS-05", name: "an access token finds its record", records: full, like: token{AccessToken: "a2"}, found: 2},
	{clause: "TS-05", name: "an access token finds a record without a user", records: []token{{AccessToken: "a1"}, {AccessToken: "a2"}}, like: token{AccessToken: "a2"}, found: 2},
	{clause: "TS-05", name: "an unknown access token finds nothing", records: full, like: token{AccessToken: "a9"}, err: none},
	{clause: "TS-05", name: "an access token decides though a refresh token would match another", records: full, like: token{AccessToken: "a2", RefreshToken: "r1", GrantToken: "g1"}, found: 2},
	{clause: "TS-05", name: "an unknown access token finds nothing though a refresh token would match", records: full, like: token{AccessToken: "a9", RefreshToken: "r1", GrantToken: "g1"}, err: none},
	{clause: "TS-05", name: "an access token with a client is not searched for", records: full, like: token{AccessToken: "a1", ClientID: "c1", RefreshToken: "r9"}, err: none},
	{clause: "TS-05", name: "an access token with a client alone describes nothing", records: full, like: token{AccessToken: "a1", ClientID: "c1"}, err: searching},
	{clause: "TS-05", name: "an access token with a client secret alone describes nothing", records: full, like: token{AccessToken: "a1", ClientSecret: "s1"}, err: searching},

	{clause: "TS-06", name: "a refresh token and a client find their record", records: full, like: token{ClientID: "c1", RefreshToken: "r2"}, found: 2},
	{clause: "TS-06", name: "a grant token and a client find their record", records: full, like: token{ClientID: "c1", GrantToken: "g2"}, found: 2},
	{clause: "TS-06", name: "a refresh token of another client is not found", records: full, like: token{ClientID: "c2", RefreshToken: "r1"}, err: none},
	{clause: "TS-06", name: "a grant token of another client is not found", records: full, like: token{ClientID: "c2", GrantToken: "g1"}, err: none},
	{clause: "TS-06", name: "a refresh token of no client is not found with one", records: []token{{RefreshToken: "r1"}, {UserName: "ann", RefreshToken: "r1"}}, like: token{ClientID: "c1", RefreshToken: "r1"}, err: none},
	{clause: "TS-06", name: "one refresh token of two clients is two", records: []token{{UserName: "ann", ClientID: "c1", RefreshToken: "r1"}, {UserName: "bob", ClientID: "c2", RefreshToken: "r1"}}, like: token{ClientID: "c2", RefreshToken: "r1"}, found: 2},
	{clause: "TS-06", name: "a grant token decides though a refresh token would match another", records: full, like: token{ClientID: "c1", GrantToken: "g1", RefreshToken: "r2"}, found: 1},
	{clause: "TS-06", name: "a refresh token finds if the grant token is unknown", records: full, like: token{ClientID: "c1", GrantToken: "g9", RefreshToken: "r2"}, found: 2},
	{clause: "TS-06", name: "an unknown grant and refresh token find nothing", records: full, like: token{ClientID: "c1", GrantToken: "g9", RefreshToken: "r9"}, err: none},
	{clause: "TS-06", name: "a grant token is not searched for among refresh tokens", records: full, like: token{ClientID: "c1", GrantToken: "r1"}, err: none},
	{clause: "TS-06", name: "the access token does not matter", records: full, like: token{ClientID: "c1", RefreshToken: "r1", AccessToken: "a2"}, found: 1},
	{clause: "TS-06", name: "the client secret does not matter", records: full, like: token{ClientID: "c1", ClientSecret: "s9", RefreshToken: "r1"}, found: 1},

	{clause: "TS-07", name: "a record with a user is preferred by refresh token", records: []token{{ClientID: "c1", RefreshToken: "r1"}, {UserName: "ann", ClientID: "c1", RefreshToken: "r1"}}, like: token{ClientID: "c1", RefreshToken: "r1"}, found: 2},
	{clause: "TS-07", name: "a record with a user is preferred by grant token", records: []token{{ClientID: "c1", GrantToken: "g1"}, {UserName: "ann", ClientID: "c1", GrantToken: "g1"}}, like: token{ClientID: "c1", GrantToken: "g1"}, found: 2},

	{clause: "TS-10", name: "an access token of two users is ambiguous", records: []token{{UserName: "ann", AccessToken: "a1"}, {UserName: "bob", AccessToken: "a1"}}, like: token{AccessToken: "a1"}, err: several},
	{clause: "TS-10", name: "a refresh token of two users is ambiguous", records: []token{{ClientID: "c1", RefreshToken: "r1"}, {UserName: "ann", ClientID: "c1", RefreshToken: "r1"}, {UserName: "bob", ClientID: "c1", RefreshToken: "r1"}}, like: token{ClientID: "c1", RefreshToken: "r1"}, err: several},
	{clause: "TS-10", name: "a grant token of two users is ambiguous", records: []token{{UserName: "ann", ClientID: "c1", GrantToken: "g1"}, {UserName: "bob", ClientID: "c1", GrantToken: "g1"}}, like: token{ClientID: "c1", GrantToken: "g1"}, err: several},
}

// nothing holds tokens to which row 4 of the table applies. Such tokens describe no record.
var nothing = map[string]token{
	"nothing":                           {},
	"a client":                          {ClientID: "c1"},
	"a client secret":                   {ClientSecret: "s1"},
	"a client and its secret":           {ClientID: "c1", ClientSecret: "s1"},
	"a redirect URL and an API domain":  {RedirectURL: "https://r.example", APIDomain: "https://a.example"},
	"an expiry":                         {ExpiresAt: hour(1)},
	"a refresh token alone":             {RefreshToken: "r1"},
	"a grant token alone":               {GrantToken: "g1"},
	"a refresh token and a secret":      {RefreshToken: "r1", ClientSecret: "s1"},
	"an access token and a client":      {AccessToken: "a1", ClientID: "c1"},
	"an access token with its secret":   {AccessToken: "a1", ClientSecret: "s1"},
	"an access token and both of those": {AccessToken: "a1", ClientID: "c1", ClientSecret: "s1"},
}

// findCases returns cases of FindToken for each element of table, issuerTable and names.
func findCases() []testCase[*storeEnv] {
	var cases []testCase[*storeEnv]
	for _, line := range slices.Concat(table, issuerTable) {
		cases = append(cases, testCase[*storeEnv]{line.clause, line.name, func(e *storeEnv) { e.find(line) }})
	}
	for i, line := range names {
		like := token{UserName: line.UserName, ClientID: line.ClientID}
		name := fmt.Sprintf("names that look alike are told apart, %d", i+1)
		cases = append(cases, testCase[*storeEnv]{"TS-02", name, func(e *storeEnv) {
			e.find(search{records: names, like: like, found: i + 1})
		}})
	}
	return cases
}

// find runs one search of the table on two handles.
func (e *storeEnv) find(line search) {
	s := e.open()
	saved, like := e.lay(s, line)
	for _, h := range []*watched{s, e.reopen(s)} {
		e.after(e.lag(like), func() error {
			got, err := h.FindToken(e.ctx, like)
			if line.err != nil {
				if !errors.Is(err, line.err) {
					return fmt.Errorf("FindToken returned ID %q and error %v, want %q", got.ID, err, line.err)
				}
				return nil
			}
			if err != nil {
				return fmt.Errorf("FindToken: %w", err)
			}
			if want := saved[line.found-1]; got.ID != want.ID || owner(got) != owner(want) {
				return fmt.Errorf("FindToken returned the record %q of %q, want %q of %q", got.ID, owner(got), want.ID, owner(want))
			}
			return nil
		})
		if line.err == several {
			e.names(h, like, saved)
		}
	}
	e.keeps(s, saved...)
}

// lay saves the records of one search, and returns the saved records and the token to search for.
func (e *storeEnv) lay(s *watched, line search) (saved []token, like token) {
	e.TB.Helper()
	made := map[tokenstore.Secret]tokenstore.Secret{"": ""}
	for _, t := range line.records {
		saved = append(saved, e.take(s, e.real(made, t)))
	}
	like = e.real(made, line.like)
	if line.id > 0 {
		like.ID = saved[line.id-1].ID
	}
	return saved, like
}

// real returns t with random secrets in place of the placeholders. The map made holds the secrets
// by placeholder.
func (e *storeEnv) real(made map[tokenstore.Secret]tokenstore.Secret, t token) token {
	for _, of := range []*tokenstore.Secret{&t.ClientSecret, &t.AccessToken, &t.RefreshToken, &t.GrantToken} {
		if _, ok := made[*of]; !ok {
			made[*of] = e.secret()
		}
		*of = made[*of]
	}
	return t
}

// names checks that the text of the error from an ambiguous search contains the IDs of the
// matching records that have a user.
func (e *storeEnv) names(s *watched, like token, saved []token) {
	e.TB.Helper()
	_, err := s.FindToken(e.ctx, like)
	for _, t := range saved {
		matches := t.UserName != "" && (like.UserName == "" || like.UserName == t.UserName)
		if err != nil && matches && !strings.Contains(err.Error(), t.ID) {
			e.Errorf("the error of an ambiguous search does not name the ID %q: %v", t.ID, err)
		}
	}
}
