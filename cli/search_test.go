package cli

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/tokenkeep/tokenkeep/internal/fakevault"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// lsUsers returns the user and client of each record in r, the result of ls with --json.
func lsUsers(t *testing.T, r result) string {
	t.Helper()
	var got []string
	for _, rec := range decode[[]recordJSON](t, r.out) {
		got = append(got, rec.UserName+" "+rec.ClientID)
	}
	return strings.Join(got, ",")
}

// TestLsSearches checks that ls with --user or --client lists exactly the matching records of the
// store, also in pages.
func TestLsSearches(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, e env) {
		for i := range 6 {
			e.ok(t, fmt.Sprintf(`{"user_name":"user%d","client_id":"client%d","access_token":"a%d"}`, i%3, i%2, i), "save")
		}
		all := decode[[]recordJSON](t, e.ok(t, "", "ls", "--json"))
		for _, who := range []identity{
			{user: "user1"}, {client: "client1"}, {user: "user1", client: "client1"}, {user: "eve"}, {client: "client"},
			{client: "client1", issuer: "https://id.example"}, {user: "bad\x01user"},
		} {
			args := []string{"ls", "--json"}
			for flag, value := range map[string]string{"--user": who.user, "--client": who.client, "--issuer": who.issuer} {
				if value != "" {
					args = append(args, flag, value)
				}
			}
			var want []string
			for _, rec := range all {
				if (who.user == "" || rec.UserName == who.user) && (who.client == "" || rec.ClientID == who.client) && who.issuer == "" {
					want = append(want, rec.UserName+" "+rec.ClientID)
				}
			}
			r := e.tk(t, "", args...)
			if got := lsUsers(t, r); r.code != 0 || got != strings.Join(want, ",") {
				t.Errorf("%q: exit code %d, records %q, want %q", args, r.code, got, want)
			}
		}
		args, last := []string{"ls", "--json", "--client", "client0"}, ""
		whole := decode[[]recordJSON](t, e.ok(t, "", args...))
		for i, want := range whole {
			page := decode[[]recordJSON](t, e.tk(t, "", append(args, "--limit", "1")...).out)
			if len(page) != 1 || page[0].ID != want.ID {
				t.Errorf("page %d: %d records, want that of %s", i+1, len(page), want.UserName)
			}
			args, last = append(args[:4:4], "--after", want.ID), want.ID
		}
		if r := e.tk(t, "", args...); len(whole) != 3 || r.code != 0 || strings.TrimSpace(r.out) != "[]" {
			t.Errorf("after %s, the last of %d records: %+v", last, len(whole), r)
		}
	})
}

// TestSearchReadsOnlyTheUser checks that ls and forget, with a user, neither list the store nor
// read records of other users. An unreadable record of another user must have no effect. For an
// unreadable record of the user, the error must be the same as for ls of all records.
func TestSearchReadsOnlyTheUser(t *testing.T) {
	t.Parallel()
	e, server := vaultEnv(t)
	w := newForgetWorld(t, e, nil)
	w.adds("ann", "of-eu", eu)
	w.adds("ann", "of-us", us)
	w.adds("bob", "of-eu", eu)
	ids := map[string]string{}
	for _, rec := range decode[[]recordJSON](t, e.ok(t, "", "ls", "--json")) {
		ids[rec.UserName+" "+rec.ClientID] = rec.ID
	}
	var mu sync.Mutex
	var denied, paths string
	server.Inject(func(q *fakevault.Request) *fakevault.Fault {
		mu.Lock()
		defer mu.Unlock()
		paths += q.Operation + " " + q.Path + "\n"
		if denied != "" && strings.HasSuffix(q.Path, "/tokens/"+denied) {
			return &fakevault.Fault{Status: http.StatusForbidden, Errors: []string{"locked"}}
		}
		return nil
	})
	deny := func(id string) {
		mu.Lock()
		defer mu.Unlock()
		denied, paths = id, ""
	}
	deny(ids["bob of-eu"])
	if r := e.tk(t, "", "ls", "--user", "ann", "--json"); r.code != 0 || strings.Count(r.out, `"id"`) != 2 {
		t.Errorf("ls of a user beside another's unreadable record: %+v", r)
	}
	if r := w.forget("--user", "ann", "--client", "of-us", "--dry-run"); r.code != 0 {
		t.Errorf("forget of a user beside another's unreadable record: %+v", r)
	}
	if strings.Contains(paths, ids["bob of-eu"]) || strings.Contains(paths, "list secret/metadata/oauth/test/tokens") {
		t.Errorf("the store was listed, or another user's record was read:\n%s", paths)
	}
	deny(ids["ann of-eu"])
	whole, some := e.tk(t, "", "ls"), e.tk(t, "", "ls", "--user", "ann")
	if whole.code != some.code || whole.err != some.err || !strings.Contains(some.err, ids["ann of-eu"]) || some.code == 0 {
		t.Errorf("ls: exit code %d, %q\nls --user: exit code %d, %q", whole.code, whole.err, some.code, some.err)
	}
	if r := e.tk(t, "", "ls", "--user", "bob"); r.code != 0 {
		t.Errorf("ls of another user: %+v", r)
	}
	if r := w.forget("--user", "ann", "--yes"); r.code != 10 || !strings.Contains(r.err, "unreadable records were skipped") || !strings.Contains(r.err, ids["ann of-eu"]) {
		t.Errorf("forget beside an unreadable record of the user: %+v", r)
	}
	deny("")
	if got := lsUsers(t, e.tk(t, "", "ls", "--json")); !strings.Contains(got, "ann of-eu") || !strings.Contains(got, "bob of-eu") || strings.Contains(got, "of-us") {
		t.Errorf("records %q are left", got)
	}
}

// TestSearchUnreadableRow checks that ls of a user with an unreadable row fails with the same
// error as ls of all records, and ignores the unreadable rows of other users.
func TestSearchUnreadableRow(t *testing.T) {
	t.Parallel()
	e := fileStoreEnv(t)
	e.ok(t, `{"user_name":"ann","client_id":"c","access_token":"a"}`, "save")
	e.ok(t, `{"user_name":"bob","client_id":"c","access_token":"b"}`, "save")
	name := strings.TrimPrefix(e[envStore], "file:")
	if err := os.WriteFile(name, []byte(strings.Replace(readFile(t, name), ",a,,,", ",a,,soon,", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	whole, some, other := e.tk(t, "", "ls"), e.tk(t, "", "ls", "--user", "ann"), e.tk(t, "", "ls", "--user", "bob")
	if whole.code != 9 || some.code != 9 || whole.err != some.err || some.out != "" {
		t.Errorf("ls: %+v\nls --user ann: %+v", whole, some)
	}
	if other.code != 0 || !strings.Contains(other.out, "bob") {
		t.Errorf("ls --user bob: %+v", other)
	}
}

// TestSearchLacksKeys checks that ls with a user lists the whole store if the program has no keys,
// so that the result does not depend on labels.
func TestSearchLacksKeys(t *testing.T) {
	t.Parallel()
	e, _ := vaultEnv(t)
	name := filepath.Join(t.TempDir(), "keys.json")
	e.ok(t, "", "keys", "new", name)
	keyed := e.with(envKeys, name)
	keyed.ok(t, `{"user_name":"ann","client_id":"c","access_token":"a"}`, "save")
	whole, some := e.tk(t, "", "ls"), e.tk(t, "", "ls", "--user", "ann")
	if whole.code != some.code || whole.err != some.err || whole.code == 0 {
		t.Errorf("ls: %+v\nls --user ann: %+v", whole, some)
	}
}

// TestSelectedWithoutSearch checks that selected lists the store if the store has no method Search,
// or if neither user nor client is given.
func TestSelectedWithoutSearch(t *testing.T) {
	t.Parallel()
	e := fileStoreEnv(t)
	w := newForgetWorld(t, e, nil)
	w.adds("ann", "of-eu", eu)
	w.adds("bob", "of-eu", eu)
	s := w.store(t)
	plain := *s
	plain.TokenStore = struct{ tokenstore.TokenStore }{s.TokenStore}
	for _, c := range []struct {
		name string
		s    *store
		like tokenstore.Token
		all  bool
		n    int
	}{
		{"with Search", s, tokenstore.Token{UserName: "ann"}, false, 1},
		{"without Search", &plain, tokenstore.Token{UserName: "ann"}, true, 2},
		{"by an issuer", s, tokenstore.Token{Issuer: "https://id.example"}, true, 2},
	} {
		tokens, all, unreadable, err := c.s.selected(t.Context(), c.like)
		if err != nil || unreadable != nil || all != c.all || len(tokens) != c.n {
			t.Errorf("%s: %d tokens, all %v, errors %v and %v", c.name, len(tokens), all, unreadable, err)
		}
	}
}

// TestOtherIssuers checks the error of a search by user and client that finds no record. The error
// must name the flags that select the user's records of the client with another issuer or resource.
// If the user has no such records, the error must name no flags.
func TestOtherIssuers(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, e env) {
		for i, issuer := range []string{`"issuer":"https://a.example"`, `"issuer":"https://b.example","resource":"https://api.example"`} {
			e.ok(t, fmt.Sprintf(`{"user_name":"ann","client_id":"c","access_token":"a%d",%s}`, i, issuer), "save")
		}
		e.ok(t, `{"user_name":"bob","client_id":"c","access_token":"s3cret"}`, "save")
		const want = "give --issuer https://a.example, or --issuer https://b.example --resource https://api.example"
		for _, command := range []string{"get", "token", "refresh", "status", "rm"} {
			text := e.fails(t, 3, "", command, "--user", "ann", "--client", "c")
			if strings.Count(text, want) != 1 || strings.Contains(text, "s3cret") {
				t.Errorf("%s: %s", command, text)
			}
		}
		if text := e.fails(t, 3, "", "get", "--user", "bob", "--client", "c", "--issuer", "https://a.example"); !strings.Contains(text, "give neither --issuer") {
			t.Errorf("get with an issuer that the record has not: %s", text)
		}
		for _, args := range [][]string{{"--user", "eve"}, {"--user", "ann", "--client", "other"}} {
			if text := e.fails(t, 3, "", append([]string{"get"}, args...)...); strings.Contains(text, "--issuer") {
				t.Errorf("get %s: %s", args, text)
			}
		}
		e.ok(t, "", "get", "--user", "ann", "--client", "c", "--issuer", "https://a.example")
	})
}

// TestOtherIssuersOfSeveralClients checks that the error of a search by a user without a client
// tells the records of different clients apart, and that the flags in the error find the records.
func TestOtherIssuersOfSeveralClients(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, e env) {
		for client, issuer := range map[string]string{"c": "https://a.example", "d": "https://a.example", "e": "https://b.example"} {
			e.ok(t, fmt.Sprintf(`{"user_name":"ann","client_id":%q,"access_token":"a of %s","issuer":%q}`, client, client, issuer), "save")
		}
		const want = "give --client c --issuer https://a.example, or --client d --issuer https://a.example, or --client e --issuer https://b.example"
		if text := e.fails(t, 3, "", "get", "--user", "ann", "--issuer", "https://z.example"); !strings.Contains(text, want) {
			t.Errorf("get: %s", text)
		}
		e.ok(t, "", "get", "--user", "ann", "--client", "d", "--issuer", "https://a.example")
	})
}
