package rules_test

import (
	"strings"
	"testing"

	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rules"
)

func with(t token, alter func(*token)) token { alter(&t); return t }

func TestFresh(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		t    token
		want bool
	}{
		{"no token", token{}, false},
		{"the stale one", token{AccessToken: "stale"}, false},
		{"no expiry", token{AccessToken: "a"}, true},
		{"later", token{AccessToken: "a", ExpiryTime: ms(11)}, true},
		{"now", token{AccessToken: "a", ExpiryTime: ms(10)}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if got := rules.Fresh(test.t, "stale", at(10)); got != test.want {
				t.Errorf("%v, want %v", got, test.want)
			}
		})
	}
}

func TestPlanRefresh(t *testing.T) {
	t.Parallel()
	used := token{ID: "1", UserName: "ann", ClientID: "c", RefreshToken: "r", AccessToken: "stale", ExpiryTime: ms(1)}
	minted := token{ID: "9", UserName: "bob", AccessToken: "new", ExpiryTime: ms(20)}
	next := with(used, func(t *token) { t.AccessToken, t.ExpiryTime = "new", ms(20) })
	for _, test := range []struct {
		name           string
		used, now      token
		want           token
		changed, again bool
	}{
		{"unchanged meanwhile", used, used, next, true, false},
		{"another user's by now", used, with(used, func(t *token) { t.UserName = "bob" }), with(used, func(t *token) { t.UserName = "bob" }), false, true},
		{"another client's by now", used, with(used, func(t *token) { t.ClientID = "c2" }), with(used, func(t *token) { t.ClientID = "c2" }), false, true},
		{"a user's by now", with(used, func(t *token) { t.UserName = "" }), used, next, true, false},
		{"another refresh token", used, with(used, func(t *token) { t.RefreshToken = "r2" }), with(used, func(t *token) { t.RefreshToken = "r2" }), false, true},
		{"another refresh token and a fresh access token", used, with(used, func(t *token) { t.RefreshToken, t.AccessToken, t.ExpiryTime = "r2", "saved", ms(30) }),
			with(used, func(t *token) { t.RefreshToken, t.AccessToken, t.ExpiryTime = "r2", "saved", ms(30) }), false, false},
		{"a fresh access token was saved", used, with(used, func(t *token) { t.AccessToken, t.ExpiryTime = "saved", ms(15) }),
			with(used, func(t *token) { t.AccessToken, t.ExpiryTime = "saved", ms(15) }), false, false},
		{"an expired access token was saved", used, with(used, func(t *token) { t.AccessToken, t.ExpiryTime = "saved", ms(2) }), next, true, false},
		{"nothing says what was used", token{ID: "1", AccessToken: "stale"}, token{ID: "1", AccessToken: "other"}, token{ID: "1", AccessToken: "other"}, false, false},
		{"a code that was exchanged meanwhile", token{ID: "1", ClientID: "c", GrantToken: "g"}, token{ID: "1", ClientID: "c", GrantToken: "g", RefreshToken: "r"},
			token{ID: "1", ClientID: "c", GrantToken: "g", RefreshToken: "r"}, false, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			p := rules.PlanRefresh(test.used, test.now, minted, "stale", at(10))
			if p.Fields != test.want || p.Changed != test.changed || p.Again != test.again {
				t.Errorf("%+v, changed %v, again %v; want %+v, %v, %v", shown(p.Fields), p.Changed, p.Again, shown(test.want), test.changed, test.again)
			}
		})
	}
}

// TestPlanRefreshKeepsWhatWasSaved checks that PlanRefresh keeps a field that was saved while
// mint ran. The test covers each field for which PlanRefresh has no special rule.
func TestPlanRefreshKeepsWhatWasSaved(t *testing.T) {
	t.Parallel()
	used := token{ID: "1", UserName: "ann", ClientID: "c", RefreshToken: "r", AccessToken: "stale"}
	decided := map[string]bool{"ID": true, "UserName": true, "ClientID": true, "RefreshToken": true, "AccessToken": true, "ExpiryTime": true,
		"Issuer": true, "Resource": true, "Scope": true, "TokenType": true, "Extra": true}
	for field := range used.All() {
		if decided[field.Name] {
			continue
		}
		now, minted := used, token{AccessToken: "new"}
		if field.Set(&now, "saved") != nil || field.Set(&minted, "minted") != nil {
			t.Fatal(field.Name)
		}
		if p := rules.PlanRefresh(used, now, minted, "stale", at(10)); field.Text(p.Fields) != "saved" || p.AccessToken != "new" {
			t.Errorf("%s is %q after it was saved", field.Name, field.Text(p.Fields))
		}
		if p := rules.PlanRefresh(used, used, minted, "stale", at(10)); field.Text(p.Fields) != "minted" {
			t.Errorf("%s is %q, though it was minted", field.Name, field.Text(p.Fields))
		}
	}
}

// TestPlanRefreshOfTheType checks that PlanRefresh keeps the token type and the scope together
// with their access token.
func TestPlanRefreshOfTheType(t *testing.T) {
	t.Parallel()
	used := token{ID: "1", UserName: "ann", ClientID: "c", RefreshToken: "r", AccessToken: "stale", TokenType: "Bearer", Scope: "a"}
	minted := token{AccessToken: "new", TokenType: "DPoP", Scope: "a b"}
	now := with(used, func(r *token) { r.TokenType, r.Scope = "other", "c" })
	if p := rules.PlanRefresh(used, now, minted, "stale", at(10)); p.AccessToken != "new" || p.TokenType != "DPoP" || p.Scope != "a b" {
		t.Errorf("the minted token has the type %q and the scope %q", p.TokenType, p.Scope)
	}
	now.AccessToken = "saved"
	if p := rules.PlanRefresh(used, now, minted, "stale", at(10)); p.AccessToken != "saved" || p.TokenType != "other" || p.Scope != "c" {
		t.Errorf("the saved token has the type %q and the scope %q", p.TokenType, p.Scope)
	}
}

func TestPlanRefreshOfExtra(t *testing.T) {
	t.Parallel()
	long := func(name string, size int) string { return `{"` + name + `":"` + strings.Repeat("x", size) + `"}` }
	for _, test := range []struct{ what, used, now, minted, want string }{
		{"none", "", "", "", ""},
		{"of the answer", "", "", `{"a":1}`, `{"a":1}`},
		{"of the record", `{"a":1}`, `{"a":1}`, "", `{"a":1}`},
		{"of both", `{"a":1,"b":1}`, `{"a":1,"b":1}`, `{"b":2,"c":2}`, `{"a":1,"b":2,"c":2}`},
		{"saved while mint runs", `{"a":1,"b":1}`, `{"a":1,"b":3,"d":3}`, `{"a":2,"b":2,"c":2,"d":2}`, `{"a":2,"b":3,"c":2,"d":3}`},
		{"too large together", long("a", 9<<10), long("a", 9<<10), long("b", 9<<10), long("b", 9<<10)},
		{"too large by a save", "", long("a", 9<<10), long("b", 9<<10), long("b", 9<<10)},
	} {
		used := token{ID: "1", UserName: "ann", RefreshToken: "r", AccessToken: "stale", Extra: test.used}
		now := with(used, func(r *token) { r.Extra = test.now })
		p := rules.PlanRefresh(used, now, token{AccessToken: "new", RefreshToken: "r2", Extra: test.minted}, "stale", at(10))
		if p.Extra != test.want || p.RefreshToken != "r2" {
			t.Errorf("%s: Extra is %.60s, want %.60s", test.what, p.Extra, test.want)
		}
	}
}

func TestAnswer(t *testing.T) {
	t.Parallel()
	good := token{AccessToken: "a", RefreshToken: "r", Scope: "s", IDToken: "i", Extra: `{"a":1}`}
	for _, test := range []struct {
		what       string
		in, want   token
		isRejected bool
	}{
		{"all of it", with(good, func(t *token) { t.Extra = "{\n\"a\": 1}" }), good, false},
		{"Extra that is no object", with(good, func(t *token) { t.Extra = "[]" }), with(good, func(t *token) { t.Extra = "" }), false},
		{"Extra that is too large", with(good, func(t *token) { t.Extra = `{"a":"` + strings.Repeat("x", 16<<10) + `"}` }), with(good, func(t *token) { t.Extra = "" }), false},
		{"a large ID token", with(good, func(t *token) { t.IDToken = strings.Repeat("x", 33<<10) }), with(good, func(t *token) { t.IDToken = "" }), false},
		{"a scope with a control character", with(good, func(t *token) { t.Scope = "\n" }), with(good, func(t *token) { t.Scope = "" }), false},
		{"an access token with a control character", with(good, func(t *token) { t.AccessToken = "\n" }), token{}, true},
		{"a type with a control character", with(good, func(t *token) { t.TokenType = "\n" }), token{}, true},
	} {
		got, err := rules.Answer(test.in)
		if got != test.want || (err != nil) != test.isRejected {
			t.Errorf("%s: %+v, %v", test.what, shown(got), err)
		}
	}
}
