package conformance

import (
	"errors"
	"fmt"
	"strings"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// own returns the i-th ID of a sequence of IDs that the store can hold.
func (e *storeEnv) own(i int) string {
	if e.b.OwnID != nil {
		return e.b.OwnID(i)
	}
	return fmt.Sprintf("own ID/%d", i)
}

// ids are IDs that a caller might choose.
var ids = []string{
	"1", "2", "10", "01", "-1", "+1", "1.0", "1e3", "0", " ", "  ", " 1", "1 ", "a b", "A B", "a", "A",
	"id", "ID", "user_name", "null", "nil", ".", "..", "../a", "/", "//", "/a", "a/", "a/b", `a\b`, `\n`,
	"%2F", "%", "a%20b", "?a=b&c=d#e", "*", "a*", "_", "'", `"`, `'; drop table oauthtoken; --`, "`", ",", `a,"b",c`, "=1+1",
	"é", "e\u0301", "日本語", "\U0001f511", "\ufeff", "a\u2028b", "\u202e",
	"ann@example.com:6001", "arn:aws:secretsmanager:eu-west-1:1:secret:a-AbCdEf", "tokenkeep:user:a",
	strings.Repeat("x", 255), strings.Repeat("é", 127) + "x", strings.Repeat("/", 255), strings.Repeat("x", 254) + "y",
	"u" + strings.Repeat("a", 31), "u" + strings.Repeat("a", 33), "x" + strings.Repeat("a", 32), "u" + strings.Repeat("1", 32), "U" + strings.Repeat("A", 32),
}

// likeDerived returns IDs that have the form of derived IDs.
func likeDerived() []string {
	return []string{"u" + text(32), "g" + text(32), "r" + text(32), "a" + text(32), "u" + strings.Repeat("a", 32), "a" + strings.Repeat("7", 32)}
}

var idCases = []testCase[*storeEnv]{
	{"TS-16", "another user's or client's ID is refused", func(e *storeEnv) {
		s := e.open()
		ann, bob := e.save(s, e.of("ann", "c1")), e.save(s, e.of("bob", ""))
		free := e.save(s, token{ClientID: "c1", RefreshToken: e.secret()})
		e.search()
		for what, t := range map[string]token{
			"another user with an ID":                   {ID: ann.ID, UserName: "bob"},
			"another user with an ID and its client":    {ID: ann.ID, UserName: "bob", ClientID: "c1", AccessToken: e.secret()},
			"an unknown user with an ID":                {ID: ann.ID, UserName: "cid", RefreshToken: e.secret()},
			"another client with an ID":                 {ID: ann.ID, ClientID: "c2"},
			"another client with an ID and its user":    {ID: ann.ID, UserName: "ann", ClientID: "c2", RefreshToken: e.secret()},
			"a client with the ID of one without":       {ID: bob.ID, ClientID: "c1"},
			"a client with the ID and user of one":      {ID: bob.ID, UserName: "bob", ClientID: "c1", AccessToken: e.secret()},
			"another client with an ID without a user":  {ID: free.ID, ClientID: "c2", AccessToken: e.secret()},
			"a user and another client with such an ID": {ID: free.ID, UserName: "cid", ClientID: "c2", AccessToken: e.secret()},
		} {
			e.refuses(s, what, t, tokenstore.ErrIDMismatch)
			e.has(s, ann)
			e.has(s, bob)
			e.has(s, free)
		}
		e.keeps(s, ann, bob, free)
	}},
	{"TS-16", "a new ID for a user or token that has a record is refused", func(e *storeEnv) {
		s := e.open()
		ann, bob := e.save(s, e.of("ann", "c1")), e.save(s, e.of("bob", ""))
		owned := e.of("cid", "c1")
		owned.ID = e.own(0)
		cid := e.save(s, owned)
		free := e.save(s, token{ClientID: "c1", RefreshToken: e.secret()})
		bare := e.save(s, token{AccessToken: e.secret()})
		e.search()
		for what, t := range map[string]token{
			"a user and client":      {UserName: "ann", ClientID: "c1", AccessToken: e.secret()},
			"a user":                 {UserName: "bob", AccessToken: e.secret()},
			"a user with another ID": {UserName: "cid", ClientID: "c1", AccessToken: e.secret()},
			"a refresh token":        {ClientID: "c1", RefreshToken: free.RefreshToken},
			"an access token":        {AccessToken: bare.AccessToken},
		} {
			t.ID = e.own(1)
			e.refuses(s, "a new ID for "+what, t, tokenstore.ErrIDMismatch)
			e.lacks(s, t.ID)
		}
		e.keeps(s, ann, bob, cid, free, bare)
	}},
	{"TS-16", "a user's second client is a second record", func(e *storeEnv) {
		s := e.open()
		ids := map[string]bool{}
		var saved []token
		for _, client := range []string{"", "c1", "c2", "C1"} {
			t := e.of("ann", client)
			saved = append(saved, e.save(s, t))
			ids[saved[len(saved)-1].ID] = true
		}
		if len(ids) != len(saved) {
			e.Errorf("%d records have %d IDs", len(saved), len(ids))
		}
		e.keeps(s, saved...)
	}},
	{"TS-16", "the user and client of a record may be given with its ID", func(e *storeEnv) {
		s := e.open()
		for _, t := range []token{e.of("ann", "c1"), e.of("bob", "")} {
			record := e.save(s, t)
			record.AccessToken = e.secret()
			if err := differ("SaveToken", e.save(s, record), record); err != nil {
				e.Errorf("%v", err)
			}
			e.has(s, record)
		}
	}},
	{"TS-21", "an ID of the caller's own is kept", func(e *storeEnv) {
		s := e.open()
		var saved []token
		for i, t := range []token{e.of("ann", "c1"), e.of("bob", ""), {ClientID: "c1", RefreshToken: e.secret()}, {AccessToken: e.secret()}, {ClientID: "c1", GrantToken: e.secret()}} {
			t.ID = e.own(i)
			got := e.save(s, t)
			if err := differ("SaveToken", got, t); err != nil {
				e.Errorf("%v", err)
			}
			saved = append(saved, got)
		}
		for _, h := range []*watched{s, e.reopen(s)} {
			for _, t := range saved {
				e.has(h, t)
			}
			e.finds(h, "user and client", token{UserName: "ann", ClientID: "c1"}, saved[0])
			e.finds(h, "refresh token", token{ClientID: "c1", RefreshToken: saved[2].RefreshToken}, saved[2])
		}
		e.search()
		for _, t := range saved {
			t.APIDomain = "https://new.example"
			if err := differ("SaveToken", e.save(e.reopen(s), t), t); err != nil {
				e.Errorf("%v", err)
			}
			bare := t
			bare.ID = ""
			if err := differ("SaveToken without the ID", e.save(e.reopen(s), bare), t); err != nil {
				e.Errorf("%v", err)
			}
		}
	}},
	{"TS-21", "an ID is any text of up to 255 bytes, or refused before anything is written", func(e *storeEnv) {
		s := e.open()
		var saved []token
		for i, id := range ids {
			t := token{ID: id, UserName: fmt.Sprintf("user %d", i), RefreshToken: e.secret()}
			got, err := s.SaveToken(e.ctx, t)
			if err != nil && e.b.OwnID == nil {
				e.Errorf("SaveToken with the ID %q: %v", id, err)
			} else if err != nil && !errors.Is(err, tokenstore.ErrInvalidToken) {
				e.Errorf("SaveToken with an ID that the store cannot hold, %q, returned error %v, want %q", id, err, tokenstore.ErrInvalidToken)
			}
			if err == nil {
				if err := differ(fmt.Sprintf("SaveToken with the ID %q", id), got, t); err != nil {
					e.Errorf("%v", err)
				}
				saved = append(saved, got)
			} else {
				e.misses(s, "the user of what was refused", token{UserName: t.UserName}, tokenstore.ErrNotFound)
			}
		}
		for _, t := range saved {
			e.has(s, t)
		}
		e.keeps(e.reopen(s), saved...)
	}},
	{"TS-21", "the first save with an ID decides", func(e *storeEnv) {
		s := e.open()
		t := e.of("ann", "c1")
		t.ID = e.own(0)
		record := e.save(s, t)
		e.search()
		record.AccessToken = e.secret()
		if err := differ("SaveToken without the ID", e.save(s, token{UserName: "ann", ClientID: "c1", AccessToken: record.AccessToken, ExpiresAt: record.ExpiresAt}), record); err != nil {
			e.Errorf("%v", err)
		}
		e.refuses(s, "another ID", token{ID: e.own(1), UserName: "ann", ClientID: "c1", AccessToken: e.secret()}, tokenstore.ErrIDMismatch)
		e.refuses(s, "the ID for another user", token{ID: e.own(0), UserName: "bob", AccessToken: e.secret()}, tokenstore.ErrIDMismatch)
		e.keeps(s, record)
	}},
	{"TS-21", "two saves with one ID at once mix nothing up", func(e *storeEnv) {
		s := e.open()
		hs := []*watched{s, e.reopen(s)}
		for i := range 4 {
			brought := []token{e.of(fmt.Sprintf("ann %d", i), "c1"), e.of(fmt.Sprintf("bob %d", i), "c1")}
			kept := make([]bool, len(brought))
			together(len(brought), func(j int) {
				brought[j].ID = e.own(i)
				_, err := hs[j].SaveToken(e.ctx, brought[j])
				kept[j] = err == nil
				if err != nil && !errors.Is(err, tokenstore.ErrIDMismatch) {
					e.Errorf("SaveToken: %v", err)
				}
			})
			if !kept[0] && !kept[1] {
				e.Errorf("neither of two saves with one ID is kept")
			}
			e.search()
			for j, t := range brought {
				if like := (token{UserName: t.UserName, ClientID: "c1"}); kept[j] {
					e.finds(s, "user and client", like, t)
				} else {
					e.misses(s, "user and client", like, tokenstore.ErrNotFound)
				}
			}
			got, err := s.FindTokenByID(e.ctx, e.own(i))
			switch {
			case kept[0] && kept[1] && !e.b.ForeignFormat:
				if !errors.Is(err, tokenstore.ErrAmbiguous) {
					e.Errorf("FindTokenByID of the ID of two records returned %v, want ErrAmbiguous", err)
				}
			case err != nil || kept[0] && kept[1]:
				e.Errorf("FindTokenByID: %v; kept: %v", err, kept)
			default:
				for j, t := range brought {
					if kept[j] {
						if err := differ("FindTokenByID", got, t); err != nil {
							e.Errorf("%v", err)
						}
					}
				}
			}
		}
	}},
	{"TS-21", "an ID in the form of a derived one that is not known is refused", func(e *storeEnv) {
		s := e.open()
		kept := e.save(s, e.of("ann", "c1"))
		for _, id := range likeDerived() {
			e.refuses(s, "a user with an unknown ID in the form of a derived one", token{ID: id, UserName: "bob", RefreshToken: e.secret()}, tokenstore.ErrInvalidToken)
			e.refuses(s, "a token with an unknown ID in the form of a derived one", token{ID: id, ClientID: "c1", RefreshToken: e.secret()}, tokenstore.ErrInvalidToken)
			e.lacks(s, id)
			if err := s.DeleteToken(e.ctx, id); err != nil {
				e.Errorf("DeleteToken of an unknown ID in the form of a derived one: %v", err)
			}
		}
		e.keeps(s, kept)
	}},
}
