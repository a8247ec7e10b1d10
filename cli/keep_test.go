package cli

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/zohoaccounts"
)

// A keepWorld is a store with records of users at one accounts server.
type keepWorld struct {
	env
	t    *testing.T
	zoho *zohoaccounts.Server
	base string
}

func newKeepWorld(t *testing.T, e env) *keepWorld {
	t.Helper()
	zoho, base, _ := accounts(t)
	return &keepWorld{e, t, zoho, base}
}

// adds saves a record of the user with an access token that expires after the given duration.
func (w *keepWorld) adds(user string, expires time.Duration) {
	w.t.Helper()
	refresh, access := w.zoho.Tokens(zohoaccounts.Consent{ClientID: "1000.C", Email: user})
	w.ok(w.t, fmt.Sprintf(`{"user_name":%q,"client_id":"1000.C","client_secret":%q,"refresh_token":%q,"access_token":%q,"expiry_time":%d}`,
		user, canary+"secret", refresh, access, time.Now().Add(expires).UnixMilli()), "save")
}

// keep runs keep with --json, and returns the report. It checks the exit code, and that the output
// contains no secret.
func (w *keepWorld) keep(code int, args ...string) kept {
	w.t.Helper()
	r := w.tk(w.t, "", append([]string{"keep", "--json", "--jitter", "1ms", "--accounts-url", w.base}, args...)...)
	if r.code != code || shown(r.out+r.err) != "" || strings.Contains(r.out+r.err, "1000.") && !strings.Contains(r.out, `"client_id": "1000.C"`) {
		w.t.Fatalf("keep: exit code %d, want %d\n%s%s", r.code, code, r.out, r.err)
	}
	return decode[kept](w.t, r.out)
}

func TestKeep(t *testing.T) {
	t.Parallel()
	w := newKeepWorld(t, fileStoreEnv(t))
	w.adds("soon", 5*time.Minute)
	w.adds("late", 50*time.Minute)
	w.adds("over", -time.Hour)
	w.adds("idle", -40*24*time.Hour)
	w.adds("dead", -time.Minute)
	w.zoho.RevokeTokens("1000.C", "dead")
	w.ok(t, `{"user_name":"else","client_id":"c","issuer":"https://login.example.com","refresh_token":"r","access_token":"a","expiry_time":1}`, "save")
	count := func() int { return w.zoho.Count(zohoaccounts.Refresh) }

	if got := w.keep(0, "--within", "0s", "--idle", "720h"); got.Due != 2 || got.Skipped != 1 || got.Refreshed != 1 || got.Records != 6 || count() != 1 {
		t.Errorf("of what is idle: %+v, %d refreshes", got, count())
	}
	got := w.keep(16)
	if got.Due != 4 || got.Refreshed != 2 || got.Skipped != 1 || len(got.Failed) != 0 || len(got.Dead) != 1 || got.Dead[0].User != "dead" || got.Dead[0].Code != "invalid_code" {
		t.Errorf("of what expires soon: %+v", got)
	}
	// The second run refreshes no record, and sends no request for the revoked grant.
	before := count()
	if got := w.keep(16); got.Due != 2 || got.Refreshed != 0 || len(got.Dead) != 1 || count() != before {
		t.Errorf("the second time: %+v, %d refreshes more", got, count()-before)
	}
	r := w.tk(t, "", "keep", "--jitter", "0s", "--accounts-url", w.base)
	if r.code != 16 || !strings.Contains(r.out, "dead   invalid_code\n") || !strings.Contains(r.out, "2 of 6 records due: 0 refreshed, 1 dead, 0 failed, 0 later, 1 skipped") || !strings.Contains(r.err, "1 record is dead") ||
		!strings.Contains(r.err, "1 record is skipped, because the authorization server is not named") {
		t.Errorf("the table is %+v", r)
	}
	if got := w.keep(0, "--client", "c"); got.Due != 1 || got.Skipped != 1 {
		t.Errorf("of one client: %+v", got)
	}
	for _, args := range [][]string{{"x"}, {"--within", "0s"}, {"--within", "-1s"}, {"--parallel", "0"}, {"--jitter", "-1s"}} {
		w.fails(t, 2, "", append([]string{"keep"}, args...)...)
	}
}

// TestKeepOnce checks that concurrent instances refresh each record once, on every kind of
// store.
func TestKeepOnce(t *testing.T) {
	t.Parallel()
	const users, instances = 6, 3
	eachStore(t, func(t *testing.T, e env) {
		w := newKeepWorld(t, e)
		for i := range users {
			w.adds(fmt.Sprintf("user-%d", i), -time.Minute)
		}
		var all sync.WaitGroup
		for range instances {
			all.Go(func() {
				r := w.tk(t, "", "keep", "--jitter", "5ms", "--accounts-url", w.base, "--parallel", "2")
				if r.code != 0 {
					t.Errorf("exit code %d: %s%s", r.code, r.out, r.err)
				}
			})
		}
		all.Wait()
		if n := w.zoho.Count(zohoaccounts.Refresh); n != users {
			t.Errorf("%d refreshes of %d records", n, users)
		}
	})
}

// TestKeepTroubled checks that keep stops after mostTurned throttled requests, and that keep
// reports every record as failed if the server fails.
func TestKeepTroubled(t *testing.T) {
	t.Parallel()
	const users = 12
	world := func() *keepWorld {
		w := newKeepWorld(t, fileStoreEnv(t))
		for i := range users {
			w.adds(fmt.Sprintf("user-%d", i), -time.Minute)
		}
		return w
	}
	w := world()
	w.zoho.Inject(func(zohoaccounts.Request) *zohoaccounts.Fault {
		return &zohoaccounts.Fault{Status: http.StatusTooManyRequests, Body: `{"error":"slow_down"}`}
	})
	if got, n := w.keep(0, "--parallel", "1"), w.zoho.Count(zohoaccounts.Refresh); got.Later != users || got.Refreshed != 0 || n != mostTurned {
		t.Errorf("%d requests: %+v", n, got)
	}
	w = world()
	w.zoho.Inject(func(zohoaccounts.Request) *zohoaccounts.Fault {
		return &zohoaccounts.Fault{Status: http.StatusBadGateway}
	})
	if got := w.keep(8); len(got.Failed) != users || got.Later != 0 || len(got.Dead) != 0 {
		t.Errorf("with a server that fails: %+v", got)
	}
}

func TestKeepMetrics(t *testing.T) {
	t.Parallel()
	w := newKeepWorld(t, fileStoreEnv(t))
	w.adds("soon", 5*time.Minute)
	w.adds("idle", -40*24*time.Hour)
	w.adds("older", -100*24*time.Hour)
	w.adds("dead", -50*24*time.Hour)
	w.zoho.RevokeTokens("1000.C", "dead")
	file := filepath.Join(t.TempDir(), "keep.prom")
	w.keep(16, "--within", "0s", "--idle", "1080h", "--metrics", file) // 45 days
	text := readFile(t, file)
	for _, want := range []string{
		`tokenkeep_keep_records{tokenkeep_store="file"} 4`,
		`tokenkeep_keep_results{keep_result="refreshed",tokenkeep_store="file"} 1`,
		`tokenkeep_keep_results{keep_result="dead",tokenkeep_store="file"} 1`,
		`tokenkeep_keep_results{keep_result="later",tokenkeep_store="file"} 0`,
		`tokenkeep_keep_idle_records{idle_days="30",tokenkeep_store="file"} 2`,
		`tokenkeep_keep_idle_records{idle_days="45",tokenkeep_store="file"} 1`,
		`tokenkeep_keep_idle_records{idle_days="60",tokenkeep_store="file"} 0`,
		`tokenkeep_keep_last_run_timestamp_seconds{tokenkeep_store="file"}`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the metrics lack %s:\n%s", want, text)
		}
	}
	for _, secret := range []string{canary, "1000.", "older", "soon"} {
		if strings.Contains(text, secret) {
			t.Error("the metrics hold a part of a record")
		}
	}
	w.fails(t, 2, "", "keep", "--metrics", file+".txt")
	w.fails(t, 1, "", "keep", "--jitter", "0s", "--within", "0s", "--idle", "9999h", "--metrics", filepath.Join(t.TempDir(), "no", "keep.prom"))
}
