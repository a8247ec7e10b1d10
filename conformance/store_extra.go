package conformance

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// maxExtra is the maximum size of Token.Extra in bytes.
const maxExtra = 16 << 10

// answered returns a token for the user ann with all members of a token response.
func (e *storeEnv) answered() token {
	t := e.of("ann", "c1")
	t.Scope, t.TokenType, t.IDToken = "openid offline_access https://api.example/read", "DPoP", e.secret()
	t.Extra = tokenstore.Secret(fmt.Sprintf(`{"ext_expires_in":3599.0,"team":{"id":%q,"names":["é王",null,true]}}`, string(e.secret())))
	return t
}

// extra returns an Extra with one member, which has the given name. The value of the member is a
// new secret of n bytes.
func (e *storeEnv) extra(name string, n int) tokenstore.Secret {
	return tokenstore.Secret(fmt.Sprintf(`{%q:%q}`, name, string(e.long(n))))
}

var extraCases = []testCase[*storeEnv]{
	{"TS-46", "all members of a token response are kept", func(e *storeEnv) {
		s := e.open()
		want := e.answered()
		got := e.take(s, want)
		want.ID = got.ID
		if err := differ("SaveToken", got, want); err != nil {
			e.Errorf("%v", err)
		}
		for _, h := range []*watched{s, e.reopen(s)} {
			e.finds(h, "user and client", token{UserName: "ann", ClientID: "c1"}, want)
			e.finds(h, "ID", token{ID: want.ID}, want)
			e.keeps(h, want)
		}
		want.Scope, want.TokenType, want.IDToken = "openid", "Bearer", e.secret()
		news := token{UserName: "ann", ClientID: "c1", Scope: want.Scope, TokenType: want.TokenType, IDToken: want.IDToken}
		if err := differ("SaveToken", e.save(s, news), want); err != nil {
			e.Errorf("%v", err)
		}
		e.keeps(s, want)
	}},
	{"TS-46", "members of Extra replace others of their name", func(e *storeEnv) {
		s := e.open()
		record := e.answered()
		record.Extra = `{"a":1,"b":{"c":2}}`
		record = e.take(s, record)
		for _, step := range []struct{ save, want tokenstore.Secret }{
			{`{"b":{"d":3}}`, `{"a":1,"b":{"d":3}}`},
			{" {\n\"e\" : null , \"a\": 10.00 } ", `{"a":10.00,"b":{"d":3},"e":null}`},
			{`{}`, `{"a":10.00,"b":{"d":3},"e":null}`},
			{"", `{"a":10.00,"b":{"d":3},"e":null}`},
		} {
			record.Extra = step.want
			record.Scope += " x"
			if err := differ("SaveToken", e.save(s, token{ID: record.ID, Scope: record.Scope, Extra: step.save}), record); err != nil {
				e.Errorf("%v", err)
			}
			e.finds(s, "ID", token{ID: record.ID}, record)
		}
		laid := record
		laid.Extra = `{"a":11,"b":{"d":3},"e":null}`
		e.finds(s, "ID and an Extra", token{ID: record.ID, Extra: `{ "a":11 }`}, laid)
		e.keeps(s, record)
	}},
	{"TS-46", "an invalid Extra is refused", func(e *storeEnv) {
		s := e.open()
		record := e.take(s, e.answered())
		for _, key := range []token{{ID: record.ID}, {UserName: "bob"}} {
			for what, extra := range map[string]string{
				"an array": `["%s"]`, "a string": `"%s"`, "null": "null", "text": "%s", "a member twice": `{"a":"%s","a":1}`,
				"a member twice, within": `{"a":[{"b":"%s","b":1}]}`, "half a character": `{"a":"%s\ud800"}`, "a control character": "{\"a\":\"%s\n\"}",
			} {
				t := key
				t.RefreshToken = e.secret()
				t.Extra = tokenstore.Secret(strings.ReplaceAll(extra, "%s", string(e.secret())))
				e.refuses(s, "an Extra that is "+what, t, tokenstore.ErrInvalidToken)
			}
			t := key
			t.RefreshToken, t.Extra = e.secret(), e.extra("a", maxExtra)
			e.refuses(s, "an Extra that is too large", t, tokenstore.ErrTooLarge)
		}
		e.keeps(s, record)
	}},
	{"TS-46", "two Extras that are too large together are refused", func(e *storeEnv) {
		s := e.open()
		record := e.answered()
		record.Extra = e.extra("a", maxExtra*2/3)
		record = e.take(s, record)
		e.refuses(s, "too much together", token{ID: record.ID, Extra: e.extra("b", maxExtra*2/3)}, tokenstore.ErrTooLarge)
		e.keeps(s, record)
	}},
	{"TS-46", "a refresh keeps the members of the response and of the record", func(e *storeEnv) {
		s := e.open()
		r := e.refresher(s)
		record := e.answered()
		record.ExpiresAt = time.Now().Add(-time.Hour).UTC().Truncate(time.Millisecond)
		record.Extra = `{"a":1,"b":1}`
		record = e.take(s, record)
		for _, brought := range []token{
			{Extra: `{"b":2, "c":2}`},
			{Scope: "less", TokenType: "Bearer", IDToken: e.secret()},
			{Extra: e.extra("d", maxExtra-100)},
			{Extra: e.extra("e", maxExtra-100), RefreshToken: e.secret()},
			{Issuer: "https://other.example", Resource: "https://other.example"},
		} {
			if len(brought.Extra) > e.maxRecord()/2 && e.maxRecord() >= 0 {
				continue
			}
			brought.AccessToken, brought.ExpiresAt = e.secret(), hour(2)
			want := tokenstore.Merge(record, brought)
			want.Issuer, want.Resource = record.Issuer, record.Resource
			if brought.RefreshToken != "" {
				want.Extra = brought.Extra // the two Extras together are too large
			}
			got, err := r.Refresh(e.ctx, record.ID, record.AccessToken, func(context.Context, token) (token, error) { return brought, nil })
			if err != nil {
				e.Fatalf("Refresh: %v", err)
			}
			if err := differ("Refresh", got, want); err != nil {
				e.Errorf("%v", err)
			}
			e.has(s, want)
			record = want
		}
	}},
}
