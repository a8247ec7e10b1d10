package conformance

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"strings"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// all returns e.of(user, "c1") with a new grant token.
func (e *storeEnv) all(user string) token {
	t := e.of(user, "c1")
	t.GrantToken = e.secret()
	return t
}

// hides checks that no secret appears when v is printed, logged or marshaled.
func (e *storeEnv) hides(what string, v any) {
	e.TB.Helper()
	var b bytes.Buffer
	for _, h := range []slog.Handler{slog.NewTextHandler(&b, nil), slog.NewJSONHandler(&b, nil)} {
		slog.New(h).Info("text", "value", v, slog.Group("group", "value", v))
		slog.New(h).With("value", v).Info("text")
	}
	enc := json.NewEncoder(&b)
	_ = enc.Encode(v)
	_ = enc.Encode(map[string]any{"value": v})
	for form, text := range map[string]string{"printed": prints(v), "logged or marshaled": b.String()} {
		if e.secrets.in(text) {
			e.Errorf("%s shows a secret when it is %s", what, form)
		}
	}
}

var secrecyCases = []testCase[*storeEnv]{
	{"TS-31", "no error shows a secret", func(e *storeEnv) {
		s := e.open()
		ann, bob := e.save(s, e.all("ann")), e.all("bob")
		bob.AccessToken, bob.RefreshToken = ann.AccessToken, ann.RefreshToken
		bob = e.save(s, bob)
		e.search()
		errs := map[string]error{
			"an ambiguous access token":  second(s.FindToken(e.ctx, token{AccessToken: ann.AccessToken})),
			"an ambiguous refresh token": second(s.FindToken(e.ctx, token{ClientID: "c1", RefreshToken: ann.RefreshToken})),
			"an ambiguous save":          second(s.SaveToken(e.ctx, token{AccessToken: ann.AccessToken, GrantToken: e.secret()})),
			"an unknown token":           second(s.FindToken(e.ctx, token{ClientID: "c1", GrantToken: e.secret(), RefreshToken: e.secret()})),
			"nothing to search for":      second(s.FindToken(e.ctx, token{ClientSecret: e.secret(), RefreshToken: e.secret()})),
			"another user's ID":          second(s.SaveToken(e.ctx, token{ID: ann.ID, UserName: "bob", RefreshToken: e.secret()})),
			"a new ID":                   second(s.SaveToken(e.ctx, token{ID: e.own(0), UserName: "bob", ClientID: "c1", RefreshToken: e.secret()})),
			"an ID that is refused":      second(s.SaveToken(e.ctx, token{ID: "u" + text(32), UserName: "cid", RefreshToken: e.secret()})),
			"a field that is too large":  second(s.SaveToken(e.ctx, token{UserName: "cid", RefreshToken: e.long(40 << 10)})),
		}
		if large, ok := e.large(); ok {
			errs["a record that is too large"] = second(s.SaveToken(e.ctx, large))
		}
		for _, f := range contents {
			t := e.all("cid")
			*f.of(&t) = string(e.secret()) + "\x00"
			errs["a control character in "+f.name] = second(s.SaveToken(e.ctx, t))
			*f.of(&t) = string(e.secret()) + "\xff"
			errs["invalid UTF-8 in "+f.name] = second(s.SaveToken(e.ctx, t))
		}
		canceled, cancel := context.WithCancel(e.ctx)
		cancel()
		for _, c := range operations(s, ann, e.all("cid")) {
			errs[c.op+" with a context that is done"] = c.do(canceled)
		}
		for what, err := range errs {
			if err != nil {
				e.hides("the error about "+what, err)
			}
		}
	}},
	{"TS-31", "no error about a record that cannot be read shows what it holds", func(e *storeEnv) {
		s, bad, _ := e.corrupted()
		for _, c := range operations(s, bad, e.of(bad.UserName, bad.ClientID)) {
			if err := c.do(e.ctx); err != nil {
				e.hides("the error of "+c.op, err)
			}
		}
	}},
	{"TS-31", "a token shows no secret", func(e *storeEnv) {
		s := e.open()
		saved := e.save(s, e.all("ann"))
		found, err := s.FindTokenByID(e.ctx, saved.ID)
		if err != nil {
			e.Fatalf("FindTokenByID: %v", err)
		}
		for what, v := range map[string]any{
			"a token":             found,
			"a pointer to one":    &found,
			"a list of tokens":    []token{found, saved},
			"a map of tokens":     map[string]token{"a": found},
			"a struct around one": struct{ Token token }{found},
			"a refresh token":     found.RefreshToken,
			"a list of secrets":   []tokenstore.Secret{found.AccessToken, found.GrantToken, found.ClientSecret},
		} {
			e.hides(what, v)
		}
		if found.RefreshToken != saved.RefreshToken || !e.secrets.in(string(found.RefreshToken)) {
			e.Errorf("what is searched for is not the secret")
		}
	}},
	{"TS-31", "no ID shows a secret", func(e *storeEnv) {
		s := e.open()
		for _, t := range []token{e.all("ann"), {ClientID: "c1", GrantToken: e.secret()}, {RefreshToken: e.secret()}, {AccessToken: e.secret()}} {
			if got := e.save(s, t); e.secrets.in(got.ID) {
				e.Errorf("an ID shows a secret: it begins with %q", got.ID[:1])
			}
		}
	}},
	{"TS-31", "no name, label or log record holds a secret", func(e *storeEnv) {
		if e.b.Trace == nil {
			e.TB.Skipf("Store.Trace is nil")
		}
		s := e.open()
		ann := e.save(s, e.all("ann"))
		for range 3 {
			t := e.all("ann")
			t.ID = ann.ID
			e.save(s, t)
		}
		code := e.consent(s)
		e.answer(s, code, hour(9))
		e.save(s, token{ID: code.ID, UserName: "ann"})
		bare := e.save(s, token{AccessToken: e.secret()})
		own := e.all("bob")
		own.ID = e.own(0)
		own = e.save(s, own)
		for _, c := range operations(s, ann, e.all("cid")) {
			_ = c.do(e.ctx)
		}
		e.remove(s, bare.ID)
		e.remove(s, own.ID)
		trace := e.b.Trace(e.TB, s.TokenStore)
		if len(trace) == 0 {
			e.Fatalf("Store.Trace returned nothing")
		}
		for _, text := range trace {
			if e.secrets.in(text) {
				e.Errorf("a secret stands in a name, label or log record of %d bytes", len(text))
			}
		}
	}},
	{"TS-32", "a caller may change what it passed and what it got", func(e *storeEnv) {
		s := e.open()
		t := e.all("ann")
		passed := t
		record := e.save(s, t)
		if t != passed {
			e.Errorf("SaveToken changed the token that it was given")
		}
		other := e.save(s, e.all("bob"))
		e.search()
		for range 2 {
			got, err := s.GetTokens(e.ctx)
			if err != nil {
				e.Fatalf("GetTokens: %v", err)
			}
			for i := range got {
				got[i] = token{ID: strings.Repeat("#", 8)}
			}
			_ = append(got[:0], token{}, token{}, token{})
			found, err := s.FindTokenByID(e.ctx, record.ID)
			if err != nil {
				e.Fatalf("FindTokenByID: %v", err)
			}
			found.UserName, found.RefreshToken = "eve", "#"
			e.keeps(s, record, other)
			e.has(s, record)
		}
	}},
}
