package rules_test

import (
	"testing"

	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rules"
)

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
	with := func(t token, alter func(*token)) token { alter(&t); return t }
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

// TestPlanRefreshKeepsWhatWasSaved saves each field that does not identify the record
// or the credential while mint runs.
func TestPlanRefreshKeepsWhatWasSaved(t *testing.T) {
	t.Parallel()
	used := token{ID: "1", UserName: "ann", ClientID: "c", RefreshToken: "r", AccessToken: "stale"}
	decided := map[string]bool{"ID": true, "UserName": true, "ClientID": true, "RefreshToken": true, "AccessToken": true, "ExpiryTime": true}
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
