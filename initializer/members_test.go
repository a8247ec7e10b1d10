package initializer_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/initializer"
	"github.com/tokenkeep/tokenkeep/internal/authservers"
	"github.com/tokenkeep/tokenkeep/internal/zohoaccounts"
	"github.com/tokenkeep/tokenkeep/oauth2keep"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/memstore"
)

// An answerer is a transport that answers every request with the same body.
type answerer struct {
	kind, body string
	asked      []http.Header
}

// RoundTrip implements http.RoundTripper.
func (a *answerer) RoundTrip(r *http.Request) (*http.Response, error) {
	a.asked = append(a.asked, r.Header)
	return &http.Response{
		StatusCode: http.StatusOK, ProtoMajor: 1, ProtoMinor: 1, Request: r,
		Header: http.Header{"Content-Type": {a.kind}}, Body: io.NopCloser(strings.NewReader(a.body)),
	}, nil
}

const (
	kindJSON = "application/json;charset=UTF-8"
	kindForm = "application/x-www-form-urlencoded; charset=utf-8"
)

// answers returns token responses of providers, and responses with members that are difficult to
// preserve.
func answers() map[string]answerer {
	all := map[string]answerer{
		"GitHub app, form":   {kind: kindForm, body: "access_token=A1&expires_in=28800&refresh_token=R1&refresh_token_expires_in=15897600&scope=&token_type=bearer"},
		"GitHub OAuth, form": {kind: kindForm, body: "access_token=A1&scope=repo%2Cgist&token_type=bearer"},
		"Google":             {kind: kindJSON, body: `{"access_token":"A1","expires_in":3599,"refresh_token":"R1","scope":"openid https://www.googleapis.com/auth/userinfo.email","token_type":"Bearer","id_token":"eyJ.a.b","refresh_token_expires_in":604799}`},
		"Keycloak":           {kind: kindJSON, body: `{"access_token":"A1","expires_in":300,"refresh_expires_in":1800,"refresh_token":"R1","token_type":"Bearer","id_token":"eyJ.a.b","not-before-policy":0,"session_state":"4f5a","scope":"openid profile"}`},
		"Salesforce":         {kind: kindJSON, body: `{"access_token":"A1","refresh_token":"R1","signature":"c2ln","scope":"refresh_token api","id_token":"eyJ.a.b","instance_url":"https://yourInstance.salesforce.com","id":"https://login.salesforce.com/id/00D/005","token_type":"Bearer","issued_at":"1278448384422","sfdc_community_url":null}`},
		"Slack":              {kind: kindJSON, body: `{"ok":true,"access_token":"xoxb-1","token_type":"Bearer","scope":"commands,incoming-webhook","bot_user_id":"U0","app_id":"A0","expires_in":43200,"refresh_token":"xoxe-1","team":{"name":"T & <b>","id":"T9"},"enterprise":null,"authed_user":{"id":"U1","scope":"chat:write","access_token":"xoxp-1","token_type":"user","expires_in":43200}}`},
		"Twitch":             {kind: kindJSON, body: `{"access_token":"A1","expires_in":14124,"refresh_token":"R1","scope":["channel:moderate","chat:edit"],"token_type":"bearer"}`},
		"Atlassian":          {kind: kindJSON, body: `{"access_token":"A1","expires_in":3600,"token_type":"Bearer","refresh_token":"R1","scope":"offline_access read:jira-work"}`},
		"QuickBooks":         {kind: kindJSON, body: `{"token_type":"bearer","expires_in":3600,"refresh_token":"R1","x_refresh_token_expires_in":15552000,"access_token":"A1"}`},
		"Strava":             {kind: kindJSON, body: `{"token_type":"Bearer","expires_at":1568775134,"expires_in":21600,"refresh_token":"R1","access_token":"A1","athlete":{"id":12345678987654321,"weight":71.5,"clubs":[],"premium":true,"city":null}}`},
		"Notion":             {kind: kindJSON, body: `{"access_token":"A1","token_type":"bearer","bot_id":"b","workspace_name":"Zoë's 🛠","workspace_icon":"","owner":{"type":"user","user":{"object":"user","id":"u"}},"duplicated_template_id":null,"request_id":"r"}`},
		"Pipedrive":          {kind: kindJSON, body: `{"access_token":"A1","token_type":"Bearer","refresh_token":"R1","scope":"deals:read","expires_in":3599,"api_domain":"https://company.pipedrive.com"}`},
		"Facebook, old form": {kind: "text/plain", body: "access_token=A1&expires=5183999"},
		"numbers of a form":  {kind: kindForm, body: "access_token=A1&i=-7&f=1.50&z=0123&e=1e5&big=99999999999999999999&v=1.2.3&s=%20x%20&two=1&two=2"},
		"numbers of JSON":    {kind: kindJSON, body: `{"access_token":"A1","i":-7,"f":1.50,"e":1e5,"e0":12e0,"text":"15","big":99999999999999999999,"deep":{"n":[1,2.5]}}`},
		"case of names":      {kind: kindJSON, body: `{"access_token":"A1","userId":"u","UserID":"v","camelCase":{"A":1,"a":2}}`},
		"no text":            {kind: kindJSON, body: `{"access_token":"A1","scope":7,"id_token":{"a":1},"token_type":"","x":""}`},
		"a member twice":     {kind: kindJSON, body: `{"access_token":"A1","x":1,"x":2,"y":{"a":1,"a":2}}`},
		"control characters": {kind: kindJSON, body: `{"access_token":"A1","x":"a\u0000b\nc\u0085","scope":"a\nb"}`},
	}
	for name, body := range authservers.Answers() {
		all[name] = answerer{kind: kindJSON, body: string(body)}
	}
	return all
}

// contextWith returns a context with which x/oauth2 sends its requests through transport.
func contextWith(t *testing.T, transport http.RoundTripper) context.Context {
	t.Helper()
	return context.WithValue(t.Context(), oauth2.HTTPClient, &http.Client{Transport: transport})
}

// same checks that got and want have equal access tokens and types. It also checks that their Extra
// methods return equal values for every member of the response in body.
func same(t *testing.T, what string, got, want *oauth2.Token, body string) {
	t.Helper()
	names := []string{"none", "access_token", "token_type", "scope", "id_token"}
	if !strings.HasPrefix(body, "{") {
		names = nil // for a member that a form does not have, x/oauth2 returns ""
	}
	var members map[string]json.RawMessage
	if json.Unmarshal([]byte(body), &members) != nil {
		members = map[string]json.RawMessage{}
		for pair := range strings.SplitSeq(body, "&") {
			name, _, _ := strings.Cut(pair, "=")
			members[name] = nil
		}
	}
	for name := range members {
		names = append(names, name)
	}
	for _, name := range names {
		if name == "refresh_token" || name == "expires_in" {
			continue // the tokens of a TokenSource have neither of these members
		}
		if g, w := got.Extra(name), want.Extra(name); !reflect.DeepEqual(g, w) {
			t.Errorf("%s: %s is %T(%v), and with x/oauth2 %T(%v)", what, name, g, g, w, w)
		}
	}
	if got.Type() != want.Type() || got.AccessToken != want.AccessToken {
		t.Errorf("%s: it is of the type %q, not %q", what, got.Type(), want.Type())
	}
}

// changed returns the response in body as JSON, with another scope and an additional member.
func changed(body string) string {
	var members map[string]any
	if json.Unmarshal([]byte(body), &members) != nil {
		members = map[string]any{}
		for pair := range strings.SplitSeq(body, "&") {
			name, value, _ := strings.Cut(pair, "=")
			members[name] = value
		}
	}
	members["scope"], members["added"] = "another scope", []any{true, 1}
	text, err := json.Marshal(members)
	if err != nil {
		panic(err) // cannot happen: the values are strings, or were decoded from JSON
	}
	return string(text)
}

// TestAnswerMembers checks that Extra returns the same values as with x/oauth2 alone. It checks
// tokens after an exchange, tokens of the record, and tokens after refreshes with and without the
// members.
func TestAnswerMembers(t *testing.T) {
	t.Parallel()
	for name, answer := range answers() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conf := &oauth2.Config{ClientID: clientID, ClientSecret: secret, Endpoint: oauth2.Endpoint{TokenURL: "https://id.example.com/token", AuthStyle: oauth2.AuthStyleInHeader}}
			ctx := contextWith(t, &answer)
			want, err := conf.Exchange(ctx, "code")
			if err != nil {
				t.Fatal(err)
			}
			clock := newClock()
			store, err := tokenstore.New(memstore.NewDriver(), &tokenstore.Options{Now: clock.Now})
			if err != nil {
				t.Fatal(err)
			}
			keep := oauth2keep.New(store, oauth2keep.As{User: user}).With(initializer.Config{Now: clock.Now})
			first, err := keep.Exchange(ctx, conf, "code")
			if err != nil {
				t.Fatal(err)
			}
			same(t, "the answer", first, want, answer.body)
			of := func(what string, tok *oauth2.Token) {
				t.Helper()
				ts, err := keep.TokenSource(ctx, conf, tok)
				if err != nil {
					t.Fatal(err)
				}
				got, err := ts.Token()
				if err != nil {
					t.Fatal(err)
				}
				same(t, what, got, want, answer.body)
			}
			of("the record", nil)
			of("the record, offered the answer of x/oauth2", want)

			// A token that is converted to a record and back has the same members.
			given, err := oauth2keep.FromOAuth2(want)
			if err != nil {
				t.Fatal(err)
			}
			back := oauth2keep.ToOAuth2(given)
			same(t, "converted there and back", back, want, answer.body)
			if again, err := oauth2keep.FromOAuth2(back); err != nil || again != given || back.RefreshToken != want.RefreshToken || !back.Expiry.Equal(want.Expiry) {
				t.Errorf("converted twice it is\n%v, not\n%v: %v", again, given, err)
			}

			// A refresh response without the members does not change the members.
			if want.RefreshToken == "" || want.Expiry.IsZero() {
				return
			}
			clock.Advance(400 * 24 * time.Hour) // longer than the lifetime of any token
			full := answer.body
			answer.kind, answer.body = kindJSON, `{"access_token":"A2","expires_in":60}`
			given.AccessToken = "A2"
			want = oauth2keep.ToOAuth2(given)
			ts, err := keep.TokenSource(ctx, conf, nil)
			if err != nil {
				t.Fatal(err)
			}
			got, err := ts.Token()
			if err != nil {
				t.Fatal(err)
			}
			same(t, "after a refresh without members", got, want, full)

			// A refresh response with the members replaces the members, and adds another member.
			clock.Advance(400 * 24 * time.Hour)
			answer.body = changed(full)
			if want, err = conf.Exchange(ctx, "code"); err != nil {
				t.Fatal(err)
			}
			if got, err = ts.Token(); err != nil {
				t.Fatal(err)
			}
			same(t, "after a refresh with members", got, want, answer.body)
		})
	}
}

// TestAnswerTooLarge checks that the tokens of a response are stored even if its other members
// do not fit.
func TestAnswerTooLarge(t *testing.T) {
	t.Parallel()
	long := func(n int) string { return strconv.Quote(strings.Repeat("x", n)) }
	for what, c := range map[string]struct {
		answer string
		lacks  []string
	}{
		"a large member":          {`{"access_token":"canary-new","refresh_token":"canary-2","small":1,"large":` + long(17000) + `}`, []string{"large"}},
		"of two the larger one":   {`{"access_token":"canary-new","refresh_token":"canary-2","small":1,"large":` + long(9000) + `,"larger":` + long(9001) + `}`, []string{"larger"}},
		"a large ID token":        {`{"access_token":"canary-new","refresh_token":"canary-2","small":1,"id_token":` + long(40000) + `}`, []string{"id_token"}},
		"a large scope":           {`{"access_token":"canary-new","refresh_token":"canary-2","small":1,"scope":` + long(40000) + `}`, []string{"scope"}},
		"a deep member":           {`{"access_token":"canary-new","refresh_token":"canary-2","small":1,"deep":` + strings.Repeat("[", 200) + strings.Repeat("]", 200) + `}`, []string{"deep"}},
		"one that was there":      {`{"access_token":"canary-new","refresh_token":"canary-2","small":1,"before":` + long(17000) + `}`, []string{"before"}},
		"the room is nearly full": {`{"access_token":"canary-new","refresh_token":"canary-2","small":1,"more":` + long(16000) + `}`, []string{"more"}},
	} {
		eachKind(t, func(t *testing.T, w *world, old tokenstore.Token, conf initializer.Config) {
			before := tokenstore.Secret(`{"before":"old","kept":` + long(1000) + `}`)
			if _, err := w.store.SaveToken(t.Context(), tokenstore.Token{ID: old.ID, Extra: before}); err != nil {
				t.Fatal(err)
			}
			w.answers(ok(c.answer))
			tok, err := w.start(conf).TokenSource(t.Context()).Token()
			if err != nil {
				t.Fatal(err)
			}
			rec := w.record()
			if rec.RefreshToken != "canary-2" || rec.AccessToken != "canary-new" || len(rec.Extra) > codec.MaxExtra {
				t.Errorf("%s: the record is %s", what, describe(rec))
			}
			for _, name := range c.lacks {
				if tok.Extra(name) != nil {
					t.Errorf("%s: %s is there", what, name)
				}
			}
			if tok.Extra("small") != 1.0 || tok.Extra("kept") == nil || (tok.Extra("before") == nil) != (c.lacks[0] == "before") {
				t.Errorf("%s: a member is not there", what)
			}
			if !strings.Contains(w.logs.String(), "no room") && c.lacks[0] != "deep" {
				t.Errorf("%s: nothing is logged: %s", what, w.logs.String())
			}
		})
	}
}

// TestTokenType checks that a token is sent with the scheme for its type, and that a token of an
// unknown type is not sent.
func TestTokenType(t *testing.T) {
	t.Parallel()
	const none = ""
	own := map[string]string{"bot": "Bearer", "Custom": "X-Custom"}
	for kind, c := range map[string]struct{ other, zoho, x string }{
		"":                {"Bearer", "Zoho-oauthtoken", "Bearer"},
		"Bearer":          {"Bearer", "Zoho-oauthtoken", "Bearer"},
		"bearer":          {"Bearer", "Zoho-oauthtoken", "Bearer"},
		"BEARER":          {"Bearer", "Zoho-oauthtoken", "Bearer"},
		"zoho-oauthtoken": {"Zoho-oauthtoken", "Zoho-oauthtoken", "Zoho-oauthtoken"},
		"bot":             {"Bearer", "Bearer", "Bearer"},
		"custom":          {"X-Custom", "X-Custom", "X-Custom"},
		"DPoP":            {none, none, "DPoP"},
		"mac":             {none, none, "MAC"},
		"PoP":             {none, none, "PoP"},
		"N_A":             {none, none, "N_A"},
		"Basic":           {none, none, "Basic"},
		"canary-kind":     {none, none, "canary-kind"},
		"a type, long":    {none, none, "a type, long"},
	} {
		for name, want := range map[string]string{"other": c.other, "zoho": c.zoho} {
			seen := &answerer{kind: kindJSON, body: "{}"}
			conf := initializer.Config{
				Environment: initializer.EU.Production(), Store: memstore.New(nil), HTTPClient: &http.Client{Transport: seen}, TokenTypes: own,
				Token: tokenstore.Token{UserName: "ann", ClientID: "c", AccessToken: "canary-access", TokenType: kind},
			}
			if name == "other" {
				conf.Environment = initializer.Environment{}
				conf.OAuth2 = &oauth2.Config{ClientID: "c", Endpoint: oauth2.Endpoint{TokenURL: "https://id.example.com/token"}}
			}
			client, err := initializer.New(t.Context(), conf)
			if err != nil {
				t.Fatal(err)
			}
			tok, err := client.TokenSource(t.Context()).Token()
			if wantType := map[bool]string{true: want, false: c.x}[want != none]; err != nil || tok.Type() != wantType {
				t.Errorf("%s: the TokenSource has the type %q, not %q: %v", kind, tok.Type(), wantType, err)
			}
			res, err := client.HTTPClient(t.Context()).Get("https://www.zohoapis.eu/x")
			if want == none {
				if !errors.Is(err, initializer.ErrTokenType) || len(seen.asked) > 0 || strings.Contains(err.Error(), "canary-access") {
					t.Errorf("%s, %q: %d requests, and the error is %v", name, kind, len(seen.asked), err)
				}
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			_ = res.Body.Close()
			if got := seen.asked[0].Get("Authorization"); got != want+" canary-access" {
				t.Errorf("%s, %q: sent was %q", name, kind, got)
			}
		}
	}
	for kind, scheme := range map[string]string{"dpop": "Bearer", "MAC": "Bearer", "": "Bearer", "bot": "", "user": "Bea rer", "x": "B\u00e9"} {
		conf := initializer.Config{Environment: initializer.EU.Production(), Store: memstore.New(nil), TokenTypes: map[string]string{kind: scheme}, Token: tokenstore.Token{UserName: "ann"}}
		if _, err := initializer.New(t.Context(), conf); err == nil || errors.Is(err, initializer.ErrReauthRequired) {
			t.Errorf("New took the scheme %q for the type %q: %v", scheme, kind, err)
		}
	}
}

// TestTokenTypeChanges checks that a new token of a type that cannot be sent is stored, but not
// sent.
func TestTokenTypeChanges(t *testing.T) {
	t.Parallel()
	w := newWorld(t, &zohoaccounts.Options{Strict: true})
	w.saved(false)
	c := w.start(w.standard(byUser()))
	w.zoho.Expire(string(w.record().AccessToken))
	w.answers(ok(`{"access_token":"canary-new","token_type":"DPoP"}`))
	for range 2 {
		_, err := c.HTTPClient(t.Context()).Get(apiURL)
		w.wants(err, initializer.ErrTokenType)
	}
	if rec := w.record(); rec.AccessToken != "canary-new" || rec.TokenType != "DPoP" {
		t.Errorf("the record is %s, of the type %q", describe(rec), rec.TokenType)
	}
	for _, r := range w.zoho.Requests() {
		if strings.Contains(r.Header.Get("Authorization"), "canary-new") {
			t.Error("the token was sent")
		}
	}
}
