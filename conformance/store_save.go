package conformance

import (
	"errors"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// mergeCases are cases of SaveToken for the elements of table that match one or more records.
// SaveToken must find the same record as FindToken.
var mergeCases = func() []testCase[*storeEnv] {
	var cases []testCase[*storeEnv]
	for _, line := range table {
		switch {
		case line.err == several:
			cases = append(cases, testCase[*storeEnv]{"TS-10", "SaveToken: " + line.name, func(e *storeEnv) {
				s := e.open()
				saved, like := e.lay(s, line)
				e.search()
				like.APIDomain = "https://new.example"
				e.refuses(s, "a token that several records match", like, tokenstore.ErrAmbiguous)
				e.keeps(s, saved...)
			}})
		case line.found > 0:
			cases = append(cases, testCase[*storeEnv]{"TS-12", "SaveToken: " + line.name, func(e *storeEnv) {
				s := e.open()
				saved, like := e.lay(s, line)
				e.search()
				like.APIDomain = "https://new.example"
				got := e.save(s, like)
				if want := saved[line.found-1]; got.ID != want.ID || got.UserName != want.UserName || got.ClientID != want.ClientID {
					e.Errorf("SaveToken went to the record %q of %q and %q, want %q of %q and %q",
						got.ID, got.UserName, got.ClientID, want.ID, want.UserName, want.ClientID)
				}
				e.has(e.reopen(s), got)
				for i, other := range saved {
					if other.UserName != "" && i != line.found-1 {
						e.has(s, other)
					}
				}
			}})
		}
	}
	return cases
}()

var saveCases = []testCase[*storeEnv]{
	{"TS-12", "a field that the token has replaces the record's and the others stay", func(e *storeEnv) {
		s := e.open()
		record := e.of("ann", "c1")
		record.GrantToken = e.secret()
		record = e.save(s, record)
		for _, key := range []token{{ID: record.ID}, {UserName: "ann", ClientID: "c1"}, {ID: record.ID, UserName: "ann", ClientID: "c1"}} {
			for _, f := range contents {
				if f.name == "AccessToken" {
					continue // see TS-13
				}
				*f.of(&key) = string(e.secret())
				*f.of(&record) = *f.of(&key)
				got := e.save(s, key)
				if err := differ("SaveToken of "+f.name, got, record); err != nil {
					e.Errorf("%v", err)
				}
				*f.of(&key) = ""
			}
			e.has(e.reopen(s), record)
		}
		e.keeps(s, record)
	}},
	{"TS-12", "nothing is cleared", func(e *storeEnv) {
		s := e.open()
		record := e.of("ann", "c1")
		record.GrantToken = e.secret()
		record = e.save(s, record)
		e.search()
		for what, t := range map[string]token{
			"its ID":                     {ID: record.ID},
			"its user":                   {UserName: "ann"},
			"its user and client":        {UserName: "ann", ClientID: "c1"},
			"its access token":           {AccessToken: record.AccessToken},
			"its refresh token, client":  {ClientID: "c1", RefreshToken: record.RefreshToken},
			"its grant token and client": {ClientID: "c1", GrantToken: record.GrantToken},
			"all that it has":            record,
		} {
			got := e.save(s, t)
			if err := differ("SaveToken of "+what, got, record); err != nil {
				e.Errorf("%v", err)
			}
			e.has(e.reopen(s), record)
		}
		e.keeps(s, record)
	}},
	{"TS-12", "a response without a refresh token keeps the stored one", func(e *storeEnv) {
		s := e.open()
		record := e.save(s, e.of("ann", "c1"))
		record.AccessToken, record.ExpiresAt = e.secret(), hour(2)
		got := e.save(s, token{UserName: "ann", ClientID: "c1", AccessToken: record.AccessToken, ExpiresAt: record.ExpiresAt})
		if err := differ("SaveToken", got, record); err != nil {
			e.Errorf("%v", err)
		}
		e.has(e.reopen(s), record)
	}},
	{"TS-13", "a changed access token without an expiry clears the expiry", func(e *storeEnv) {
		s := e.open()
		record := e.save(s, e.of("ann", "c1"))
		step := func(what string, t token, want time.Time) {
			e.TB.Helper()
			t.ID = record.ID
			record.ExpiresAt = want
			if t.AccessToken != "" {
				record.AccessToken = t.AccessToken
			}
			got := e.save(s, t)
			if err := differ("SaveToken of "+what, got, record); err != nil {
				e.Errorf("%v", err)
			}
			e.has(e.reopen(s), record)
		}
		step("the same access token", token{AccessToken: record.AccessToken}, record.ExpiresAt)
		step("another access token", token{AccessToken: e.secret()}, time.Time{})
		step("an expiry", token{ExpiresAt: hour(2)}, hour(2))
		step("another access token with an expiry", token{AccessToken: e.secret(), ExpiresAt: hour(3)}, hour(3))
		step("another expiry", token{ExpiresAt: hour(1)}, hour(1))
		step("another access token", token{AccessToken: e.secret()}, time.Time{})
		step("the same access token with an expiry", token{AccessToken: record.AccessToken, ExpiresAt: hour(4)}, hour(4))
		step("an API domain", token{APIDomain: record.APIDomain}, hour(4))
	}},
	{"TS-14", "a save that changes nothing writes nothing", func(e *storeEnv) {
		if e.b.Writes == nil {
			e.TB.Skipf("Store.Writes is nil")
		}
		s := e.open()
		record := e.of("ann", "c1")
		record.GrantToken = e.secret()
		record = e.save(s, record)
		bare := e.save(s, token{ClientID: "c1", RefreshToken: e.secret()})
		e.search()
		fine := record
		fine.ExpiresAt = record.ExpiresAt.Add(999 * time.Microsecond).In(time.FixedZone("", 3600))
		for what, t := range map[string]token{
			"all of it":                  record,
			"its time in another zone":   fine,
			"its user":                   {UserName: "ann"},
			"its user and a token":       {UserName: "ann", ClientID: "c1", RefreshToken: record.RefreshToken},
			"its ID":                     {ID: record.ID},
			"its access token":           {AccessToken: record.AccessToken},
			"its grant token":            {ClientID: "c1", GrantToken: record.GrantToken},
			"its refresh token":          {ClientID: "c1", RefreshToken: record.RefreshToken},
			"a record without a user":    bare,
			"the token without a user":   {ClientID: "c1", RefreshToken: bare.RefreshToken},
			"the ID of one without user": {ID: bare.ID},
		} {
			before := e.b.Writes(e.TB, s.TokenStore)
			e.save(s, t)
			if n := e.b.Writes(e.TB, s.TokenStore) - before; n != 0 {
				e.Errorf("SaveToken of %s wrote %d times", what, n)
			}
		}
		before := e.b.Writes(e.TB, s.TokenStore)
		e.save(s, token{ID: record.ID, APIDomain: "https://new.example"})
		if n := e.b.Writes(e.TB, s.TokenStore) - before; n == 0 {
			e.Fatalf("Store.Writes does not count: it is 0 after a write")
		}
	}},
	{"TS-15", "a record is created and returned with its ID", func(e *storeEnv) {
		s := e.open()
		var saved []token
		for _, t := range []token{
			e.of("ann", ""), e.of("ann", "c1"), e.of("ann", "c2"), e.of("bob", "c1"),
			{UserName: "cid", AccessToken: e.secret()},
			{UserName: "dan", GrantToken: e.secret()},
			{UserName: "eve", RefreshToken: e.secret()},
			{ClientID: "c1", ClientSecret: e.secret(), GrantToken: e.secret(), RedirectURL: "https://r.example"},
			{ClientID: "c1", RefreshToken: e.secret()},
			{AccessToken: e.secret(), ExpiresAt: hour(1)},
		} {
			got := e.save(s, t)
			t.ID = got.ID
			if err := differ("SaveToken", got, t); err != nil {
				e.Errorf("%v", err)
			}
			e.has(s, got)
			saved = append(saved, got)
		}
		e.keeps(e.reopen(s), saved...)
	}},
	{"TS-15", "the ID of a record with a user stays the same", func(e *storeEnv) {
		s := e.open()
		record := e.save(s, e.of("ann", "c1"))
		for range 3 {
			t := e.of("ann", "c1")
			t.GrantToken = e.secret()
			t.ID = record.ID
			if err := differ("SaveToken", e.save(e.reopen(s), token{UserName: t.UserName, ClientID: t.ClientID, ClientSecret: t.ClientSecret, GrantToken: t.GrantToken, RefreshToken: t.RefreshToken, AccessToken: t.AccessToken, ExpiresAt: t.ExpiresAt, RedirectURL: t.RedirectURL}), t); err != nil {
				e.Errorf("%v", err)
			}
		}
	}},
	{"TS-15", "the ID of a record without a user stays the same", func(e *storeEnv) {
		s := e.open()
		for _, record := range []token{{ClientID: "c1", GrantToken: e.secret()}, {ClientID: "c1", RefreshToken: e.secret()}, {AccessToken: e.secret()}} {
			record = e.save(s, record)
			id := record.ID
			record.RefreshToken = e.secret()
			record.GrantToken = e.secret()
			record.AccessToken = e.secret()
			record = e.save(s, record)
			if record.ID != id {
				e.Errorf("SaveToken returned ID %q, want %q", record.ID, id)
			}
			e.has(e.reopen(s), record)
		}
	}},
	{"TS-17", "an ID or user without a token and without a record is not found", func(e *storeEnv) {
		s := e.open()
		kept := e.save(s, e.of("ann", "c1"))
		for what, t := range map[string]token{
			"a user":                      {UserName: "bob"},
			"a user and a client":         {UserName: "bob", ClientID: "c1", ClientSecret: e.secret()},
			"a user with another client":  {UserName: "ann", ClientID: "c2", APIDomain: "https://a.example"},
			"an ID":                       {ID: e.own(1)},
			"an ID and a user":            {ID: e.own(2), UserName: "bob", RedirectURL: "https://r.example"},
			"an ID, a user and an expiry": {ID: e.own(3), UserName: "bob", ExpiresAt: hour(1)},
		} {
			e.refuses(s, what, t, tokenstore.ErrNotFound)
		}
		e.keeps(s, kept)
	}},
	{"TS-17", "a token that no ID can be derived from is invalid", func(e *storeEnv) {
		s := e.open()
		kept := e.save(s, e.of("ann", "c1"))
		for what, t := range nothing {
			if t.AccessToken == "" && t.RefreshToken == "" && t.GrantToken == "" {
				e.refuses(s, what, t, tokenstore.ErrInvalidToken)
			}
		}
		e.keeps(s, kept)
	}},
	{"TS-17", "an ID or user without a token is enough for a record that exists", func(e *storeEnv) {
		s := e.open()
		record := e.save(s, e.of("ann", "c1"))
		record.APIDomain = "https://one.example"
		if err := differ("SaveToken", e.save(s, token{ID: record.ID, APIDomain: record.APIDomain}), record); err != nil {
			e.Errorf("%v", err)
		}
		record.APIDomain = "https://two.example"
		if err := differ("SaveToken", e.save(s, token{UserName: "ann", ClientID: "c1", APIDomain: record.APIDomain}), record); err != nil {
			e.Errorf("%v", err)
		}
		if _, err := s.SaveToken(e.ctx, token{ID: record.ID, UserName: "ann"}); err != nil {
			e.Errorf("SaveToken of an ID and its user: %v", errors.Unwrap(err))
		}
		e.has(s, record)
	}},
	{"TS-23", "times are kept to the millisecond in UTC", func(e *storeEnv) {
		s := e.open()
		record := e.save(s, e.of("ann", "c1"))
		for _, at := range []time.Time{
			time.Date(2031, 5, 6, 7, 8, 9, 123_456_789, time.FixedZone("far", 5*3600+1800)),
			time.Date(2031, 5, 6, 7, 8, 9, 999_999_999, time.UTC),
			time.Date(2031, 5, 6, 7, 8, 9, 1e6, time.UTC),
			time.Date(2031, 5, 6, 7, 8, 9, 0, time.FixedZone("", -7*3600)),
			time.Date(2031, 5, 6, 7, 8, 9, 0, time.UTC).Local(),
			time.UnixMilli(1),
			time.UnixMilli(1<<31*1000 + 1),
			time.Date(9999, 12, 31, 23, 59, 59, 999e6, time.UTC),
		} {
			record.ExpiresAt = at
			got := e.save(s, record)
			record.ExpiresAt = time.UnixMilli(at.UnixMilli()).UTC()
			if err := differ("SaveToken", got, record); err != nil {
				e.Errorf("%v", err)
			}
			e.has(e.reopen(s), record)
			e.keeps(s, record)
		}
	}},
}
