package cli

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/zohoaccounts"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/doctor"
)

// stands runs status with --json, and returns the states. It checks the exit code, and checks that
// the output contains no secret.
func (e env) stands(t *testing.T, code int, args ...string) []standing {
	t.Helper()
	r := e.tk(t, "", append([]string{"status", "--json"}, args...)...)
	if r.code != code || shown(r.out+r.err) != "" {
		t.Fatalf("status: exit code %d, want %d\n%s%s", r.code, code, r.out, r.err)
	}
	return decode[[]standing](t, r.out)
}

// TestStatus checks that status shows the states expired, refreshing, valid, refused and dead of
// a record, on every kind of store.
func TestStatus(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, e env) {
		zoho, base, refresh := accounts(t)
		save := func(refresh string) {
			t.Helper()
			e.ok(t, fmt.Sprintf(`{"user_name":"ann","client_id":"1000.C","client_secret":%q,"refresh_token":%q,"access_token":"1000.expired","expiry_time":1}`,
				canary+"secret", refresh), "save")
		}
		ask := []string{"refresh", "--user", "ann", "--client", "1000.C", "--accounts-url", base}
		state := func(code int, want string) standing {
			t.Helper()
			all := e.stands(t, code)
			if len(all) != 1 || all[0].State != want {
				t.Fatalf("the records are %+v, want one that is %s", all, want)
			}
			return all[0]
		}
		save(refresh)
		first := state(0, stateExpired)
		if at, err := time.Parse(time.RFC3339, first.WrittenAt); first.WrittenAt != "" && (err != nil || time.Since(at) > 10*time.Minute || time.Until(at) > time.Minute) {
			t.Errorf("it was written at %s: %v", first.WrittenAt, err)
		}
		if rows := strings.Contains(e[envStore], "file:") || strings.Contains(e[envStore], "sql"); (first.WrittenAt == "") != rows {
			t.Errorf("it was written at %q", first.WrittenAt)
		}

		asked, goOn := make(chan struct{}), make(chan struct{})
		zoho.Inject(func(r zohoaccounts.Request) *zohoaccounts.Fault {
			close(asked)
			return &zohoaccounts.Fault{Wait: goOn, Applied: true}
		})
		ended := make(chan result)
		go func() { ended <- e.tk(t, "", ask...) }()
		select {
		case <-asked:
			state(0, stateRefreshing)
		case r := <-ended:
			t.Errorf("the server was not asked: %+v", r)
			return
		}
		zoho.Inject(nil)
		close(goOn)
		if r := <-ended; r.code != 0 {
			t.Fatalf("refresh: %+v", r)
		}
		state(0, stateValid)

		zoho.Inject(func(zohoaccounts.Request) *zohoaccounts.Fault {
			return &zohoaccounts.Fault{Status: http.StatusOK, Body: `{"error":"Access Denied","status":"failure"}`}
		})
		save(refresh)
		e.fails(t, 8, "", ask...)
		got := state(13, stateRefused)
		if at, err := time.Parse(time.RFC3339, got.Refusal.Retry); err != nil || time.Until(at) < 5*time.Minute || got.Refusal.Code != "Access Denied" || got.Refusal.Permanent {
			t.Errorf("the refusal is %+v", got.Refusal)
		}
		if r := e.tk(t, "", "status"); r.code != 13 || !strings.Contains(r.out, "refused (Access Denied), again in ") {
			t.Errorf("the table is %+v", r)
		}

		zoho.Inject(nil)
		other, _ := zoho.Tokens(zohoaccounts.Consent{ClientID: "1000.C", Email: "ann", ZGID: "6001"})
		save(other)
		state(0, stateExpired) // the refusal applies only to the previous credentials
		zoho.RevokeTokens("1000.C", "ann")
		e.fails(t, 16, "", ask...)
		if got := state(16, stateDead); got.Refusal == nil || !got.Refusal.Permanent || got.Refusal.Retry != "" {
			t.Errorf("the refusal is %+v", got.Refusal)
		}
		e.ok(t, `{"user_name":"bob","client_id":"1000.C","access_token":"a"}`, "save")
		if all := e.stands(t, 0, "--user", "bob", "--client", "1000.C"); len(all) != 1 || all[0].State != stateValid || all[0].User != "bob" {
			t.Errorf("the status of bob is %+v", all)
		}
		if all := e.stands(t, 16, first.ID); len(all) != 1 || all[0].ID != first.ID {
			t.Errorf("the status of the first is %+v", all)
		}
		if all := e.stands(t, 16); len(all) != 2 {
			t.Errorf("there are %d records", len(all))
		}
		e.fails(t, 3, "", "status", "--user", "eve", "--client", "1000.C")
	})
}

// TestStatusProbe checks that a probe replaces a token that the server invalidated before its
// expiry. If the API refuses the new token too, status must show the state rejected.
func TestStatusProbe(t *testing.T) {
	t.Parallel()
	zoho, base, _ := accounts(t)
	e := fileStoreEnv(t)
	access := map[string]string{}
	for _, user := range []string{"good", "revoked", "dead"} {
		refresh, token := zoho.Tokens(zohoaccounts.Consent{ClientID: "1000.C", Email: user})
		access[user] = token
		e.ok(t, fmt.Sprintf(`{"user_name":%q,"client_id":"1000.C","client_secret":%q,"refresh_token":%q,"access_token":%q,"expiry_time":%d,"api_domain":%q}`,
			user, canary+"secret", refresh, token, time.Now().Add(time.Hour).UnixMilli(), base), "save")
	}
	zoho.Expire(access["revoked"])
	zoho.RevokeTokens("1000.C", "dead")
	e.stands(t, 0) // without a probe, the revocation is not detected
	args := []string{"--accounts-url", base, "--probe", "/crm/v8/org"}
	want := map[string]standing{
		"good":    {State: stateValid, Probe: 200},
		"revoked": {State: stateValid, Probe: 200, Replaced: true},
		"dead":    {State: stateDead},
	}
	for _, s := range e.stands(t, 16, args...) {
		if w := want[s.User]; s.State != w.State || s.Probe != w.Probe || s.Replaced != w.Replaced {
			t.Errorf("%+v, want %+v", s, w)
		}
	}
	// The second run replaces no token, and sends no request for the revoked grant.
	n := zoho.Count(zohoaccounts.Refresh)
	for _, s := range e.stands(t, 0, append(args, "--user", "revoked")...) {
		if s.Replaced || s.Probe != 200 {
			t.Errorf("the second time: %+v", s)
		}
	}
	e.stands(t, 16, args...)
	if got := zoho.Count(zohoaccounts.Refresh); got != n {
		t.Errorf("%d refreshes more", got-n)
	}
	// The API refuses every token.
	zoho.Inject(func(r zohoaccounts.Request) *zohoaccounts.Fault {
		if r.Kind != zohoaccounts.API {
			return nil
		}
		return &zohoaccounts.Fault{Status: http.StatusUnauthorized, Body: `{"code":"INVALID_TOKEN"}`}
	})
	if all := e.stands(t, 13, append(args, "--user", "good")...); len(all) != 1 || all[0].State != stateRejected || all[0].Probe != 401 || !all[0].Replaced {
		t.Errorf("of an API that refuses: %+v", all)
	}
	if r := e.tk(t, "", append([]string{"status", "--user", "good"}, args...)...); r.code != 13 || !strings.Contains(r.out, "rejected, the API says 401, token replaced") {
		t.Errorf("the table is %+v", r)
	}
	for _, args := range [][]string{{"--probe", "crm"}, {"--probe", "http://example.com/"}, {"--accounts-url", base}, {"--client", "c"}} {
		e.fails(t, 2, "", append([]string{"status"}, args...)...)
	}
}

func TestStatusUsage(t *testing.T) {
	t.Parallel()
	e := fileStoreEnv(t)
	e.ok(t, `{"user_name":"ann","client_id":"c","access_token":"a","expiry_time":1}`, "save")
	for _, args := range [][]string{{"a", "b"}, {"1", "--user", "ann"}, {"--client", "c"}} {
		e.fails(t, 2, "", append([]string{"status"}, args...)...)
	}
	// The record has no refresh token.
	if all := e.stands(t, 16); len(all) != 1 || all[0].State != stateDead || all[0].Refusal != nil {
		t.Errorf("the status is %+v", all)
	}
}

func TestStandings(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	good := tokenstore.Token{ID: "1", RefreshToken: "r", AccessToken: "a", ExpiresAt: now.Add(time.Hour)}
	lease := func(until time.Duration) *doctor.Lease { return &doctor.Lease{Until: now.Add(until)} }
	for _, c := range []struct {
		want   string
		status doctor.Status
	}{
		{stateValid, doctor.Status{}},
		{stateRefreshing, doctor.Status{Lease: lease(time.Second)}},
		{stateRefreshing, doctor.Status{Lease: &doctor.Lease{}}},
		{stateAbandoned, doctor.Status{Lease: lease(-time.Second)}},
		{stateRefused, doctor.Status{Refusal: &doctor.Refusal{Counts: true}}},
		{stateValid, doctor.Status{Refusal: &doctor.Refusal{}}},
		{stateDead, doctor.Status{Refusal: &doctor.Refusal{Counts: true, Permanent: true}, Lease: lease(time.Second)}},
	} {
		if got := standingOf(good, c.status, now); got.State != c.want {
			t.Errorf("%+v is %s, want %s", c.status, got.State, c.want)
		}
	}
	abandoned := standingOf(good, doctor.Status{Lease: lease(-time.Minute)}, now)
	if err := worst([]standing{abandoned}); !errors.Is(err, errFindings) {
		t.Errorf("the error is %v", err)
	}
}

func TestRefresh(t *testing.T) {
	t.Parallel()
	zoho, base, refresh := accounts(t)
	e := fileStoreEnv(t)
	e.ok(t, fmt.Sprintf(`{"user_name":"ann","client_id":"1000.C","client_secret":%q,"refresh_token":%q}`, canary+"secret", refresh), "save")
	args := []string{"refresh", "--user", "ann", "--client", "1000.C", "--accounts-url", base}
	token := func() string {
		return decode[recordJSON](t, e.ok(t, "", "get", "--user", "ann", "--client", "1000.C", "--json", "--reveal")).AccessToken
	}
	last := ""
	for i, c := range []struct {
		more      []string
		refreshed bool
	}{
		{[]string{"--within", "5m"}, true}, // there is no access token
		{[]string{"--within", "5m"}, false},
		{nil, true},
		{[]string{"--within", "2h"}, true},
	} {
		text := e.ok(t, "", append(append(args, "--json"), c.more...)...)
		got, now := decode[refreshResult](t, text), token()
		if got.Refreshed != c.refreshed || (now != last) != c.refreshed || strings.Contains(text, now) || !zoho.Alive(now) {
			t.Errorf("%d: %s", i, text)
		}
		if at, err := time.Parse(time.RFC3339, got.ExpiresAt); err != nil || time.Until(at) < 50*time.Minute {
			t.Errorf("%d: it expires at %v", i, at)
		}
		last = now
	}
	if text := e.ok(t, "", args...); !strings.Contains(text, "refreshed, expires in ") || strings.Contains(text, token()) {
		t.Errorf("it says %s", text)
	}
	if text := e.ok(t, "", append(args, "--within", "1m")...); !strings.Contains(text, "left as it is") {
		t.Errorf("it says %s", text)
	}
	// If the server refuses, refresh must fail even if the current access token is valid.
	zoho.RevokeTokens("1000.C", "ann")
	e.fails(t, 16, "", args...)
	e.fails(t, 2, "", append(args, "--within", "-1m")...)
	e.fails(t, 2, "", "refresh")
	e.fails(t, 3, "", "refresh", "99", "--accounts-url", base)
}
