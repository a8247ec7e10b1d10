package cli

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/tokenkeep/tokenkeep/cli/internal/files"
	"github.com/tokenkeep/tokenkeep/internal/fakevault"
	"github.com/tokenkeep/tokenkeep/tokenstore/migrate"
)

// between returns the environment and the arguments of a migration between two stores.
func between(from, to env, flags ...string) (env, []string) {
	e := env{}
	for name, value := range from {
		e[fromPrefix+name] = value
	}
	for name, value := range to {
		e[toPrefix+name] = value
	}
	return e, append([]string{"migrate", "--from", from[envStore], "--to", to[envStore], "--json"}, flags...)
}

// migrates runs a migration, which must succeed, and returns its report.
func migrates(t *testing.T, from, to env, flags ...string) migrateReport {
	t.Helper()
	e, args := between(from, to, flags...)
	return decode[migrateReport](t, e.ok(t, "", args...))
}

// migrateFails runs a migration, which must fail with the code, and returns the report and
// standard error.
func migrateFails(t *testing.T, code int, from, to env, flags ...string) (migrateReport, string) {
	t.Helper()
	e, args := between(from, to, flags...)
	r := e.tk(t, "", args...)
	if r.code != code || r.err == "" {
		t.Fatalf("exit code %d, want %d: %s%s", r.code, code, r.out, r.err)
	}
	if r.out == "" {
		return migrateReport{}, r.err
	}
	return decode[migrateReport](t, r.out), r.err
}

// contents returns all records of a store by ID, including their secrets.
func contents(t *testing.T, e env) map[string]recordJSON {
	t.Helper()
	records := map[string]recordJSON{}
	for _, r := range decode[[]recordJSON](t, e.ok(t, "", "ls", "--json", "--reveal")) {
		records[r.ID] = r
	}
	return records
}

// isEmpty reports whether a store has no records or does not exist.
func isEmpty(t *testing.T, e env) bool {
	t.Helper()
	r := e.tk(t, "", "ls", "--json")
	return r.code == 0 && r.out == "[]\n" || r.code == 1 && strings.Contains(r.err, "there is no ")
}

// renamed returns records with the new IDs in the report r.
func renamed(records map[string]recordJSON, r migrateReport) map[string]recordJSON {
	ids := map[string]string{}
	for _, change := range r.IDs {
		ids[change.From] = change.To
	}
	result := map[string]recordJSON{}
	for id, record := range records {
		if to, ok := ids[id]; ok {
			record.ID = to
		}
		result[record.ID] = record
	}
	return result
}

// TestMigrateBetweenAnyTwoStores checks that migrations from every kind of store to every kind
// preserve the SDK's records, with and without --keep-ids. A second run must not change a record.
func TestMigrateBetweenAnyTwoStores(t *testing.T) {
	t.Parallel()
	for _, a := range storeKinds {
		for _, b := range storeKinds {
			for _, flags := range [][]string{nil, {"--keep-ids"}} {
				t.Run(fmt.Sprint(a.name, " to ", b.name, flags), func(t *testing.T) {
					t.Parallel()
					from, to := a.open(t), b.open(t)
					importSDKFile(t, from, "--keep-ids")
					source := contents(t, from)

					planned := migrates(t, from, to, append(flags, "--dry-run")...)
					if planned.Create != 12 || planned.Written != 0 || !isEmpty(t, to) {
						t.Errorf("dry run: %+v", planned)
					}
					r := migrates(t, from, to, flags...)
					if r.Records != 12 || r.Written != 12 || r.Verified != 12 {
						t.Errorf("report: %+v", r)
					}
					if len(flags) > 0 && len(r.IDs) > 0 {
						t.Errorf("IDs have changed: %v", r.IDs)
					}
					target := contents(t, to)
					if !maps.Equal(target, renamed(source, r)) {
						t.Errorf("the target has %d other records", len(target))
					}
					again := migrates(t, from, to, flags...)
					if again.Written != 0 || again.Unchanged != 12 || again.Verified != 12 || !slices.Equal(again.IDs, r.IDs) {
						t.Errorf("again: %+v", again)
					}
					if !maps.Equal(contents(t, from), source) || !maps.Equal(contents(t, to), target) {
						t.Error("the source, or what was there already, has changed")
					}
				})
			}
		}
	}
}

// TestMigrateMakesNothingBeforeItWrites checks that a dry run, or a run whose plan has problems,
// does not create the target.
func TestMigrateMakesNothingBeforeItWrites(t *testing.T) {
	t.Parallel()
	good, twice := fileStoreEnv(t), env{envStore: "file:" + writeFile(t, "from.csv", header+"1,ann,c,,r,a,,,,\n2,ann,c,,r,b,,,,\n")}
	importSDKFile(t, good, "--keep-ids")
	for _, scheme := range []string{"file", "sqlite"} {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			to := env{envStore: scheme + ":" + filepath.Join(dir, "new")}
			if r := migrates(t, good, to, "--dry-run", "--keep-ids"); r.Create != 12 || r.Written != 0 {
				t.Errorf("dry run: %+v", r)
			}
			migrateFails(t, 12, twice, to)
			if names := listing(t, dir); len(names) != 0 {
				t.Errorf("nothing was written, but %v", names)
			}
			if r := migrates(t, good, to, "--keep-ids"); r.Verified != 12 || len(contents(t, to)) != 12 {
				t.Errorf("%+v", r)
			}
		})
	}
	t.Run("mysql", func(t *testing.T) {
		t.Parallel()
		to := mysqlEnv(t)
		if r := migrates(t, good, to, "--dry-run", "--keep-ids"); r.Create != 12 || r.Written != 0 {
			t.Errorf("dry run: %+v", r)
		}
		if got := to.fails(t, 1, "", "ls"); !strings.Contains(got, "there is no table") {
			t.Errorf("after the dry run: %s", got)
		}
	})
}

// TestMigrateKeepsIDsThatFit checks that a migration into a file replaces derived IDs, which
// files cannot hold, and that another run recognizes the records.
func TestMigrateKeepsIDsThatFit(t *testing.T) {
	t.Parallel()
	from, _ := vaultEnv(t)
	to := fileStoreEnv(t)
	from.ok(t, `{"id":"7","user_name":"ann","access_token":"a"}`, "save")
	bob := decode[recordJSON](t, from.ok(t, `{"user_name":"bob","access_token":"b"}`, "save", "--json"))
	for range 2 {
		r := migrates(t, from, to, "--keep-ids")
		if want := []migrate.IDChange{{From: bob.ID, To: "8"}}; r.Verified != 2 || !slices.Equal(r.IDs, want) && !slices.Equal(r.IDs, []migrate.IDChange{{From: bob.ID, To: "1"}}) {
			t.Errorf("report: %+v", r)
		}
	}
	if got := contents(t, to); got["7"].UserName != "ann" || len(got) != 2 {
		t.Errorf("target: %v", got)
	}
	// Between two stores that derive IDs, the IDs do not change.
	other, _ := vaultEnv(t)
	if r := migrates(t, from, other, "--keep-ids"); len(r.IDs) != 0 || r.Verified != 2 {
		t.Errorf("to another Vault: %+v", r)
	}
}

func TestMigrateListsWhatStandsInTheWay(t *testing.T) {
	t.Parallel()
	from := env{envStore: "file:" + writeFile(t, "from.csv", header+
		"1,ann,c,s3cret,r1,a1,,,,\n"+ // the target has ann with another access token
		"2,bob,c,s3cret,r2,a2,,,,\n"+
		"3,bob,c,s3cret,r3,a3,,,,\n"+ // the same user and client as in row 2
		"4,cat,c,s3cret,,,,,,\n"+ // no token
		"5,,d,s3cret,r5,a5,,,,\n"+
		"6,,d,s3cret,r5,a6,,,,\n"+ // the same refresh token as in row 5
		"7,dan,c,s3cret,r7,a7,,soon,,\n"+ // the expiry is not a time
		"8,eve,,s3cret,r8,a8,,,,\n"+ // the target has eve with a client
		"9,fay,c,s3cret,r9,a9,,,,\n"+ // another record of the target has this ID
		"10,gil,c,s3cret,r10,a10,,,,\n"+ // the target has gil under another ID
		"11,hal,c,s3cret,r11,a11,,,,\n")}
	to, server := vaultEnv(t)
	for _, record := range []string{
		`{"id":"1","user_name":"ann","client_id":"c","access_token":"newer"}`,
		`{"user_name":"eve","client_id":"x","access_token":"a8"}`,
		`{"id":"9","user_name":"zoe","client_id":"c","access_token":"z"}`,
		`{"id":"77","user_name":"gil","client_id":"c","client_secret":"s3cret","refresh_token":"r10","access_token":"a10"}`,
	} {
		to.ok(t, record, "save")
	}
	before := contents(t, to)
	server.Reset()
	for _, flags := range [][]string{{"--keep-ids"}, {"--keep-ids", "--dry-run"}} {
		r, text := migrateFails(t, 12, from, to, flags...)
		var got []string
		for _, p := range r.Problems {
			got = append(got, string(p.Kind)+" "+p.ID+" "+p.User)
			if strings.Contains(p.Error, "s3cret") {
				t.Errorf("a secret is in %s", p.Error)
			}
		}
		slices.Sort(got)
		want := []string{
			"conflict 1 ann", "conflict 10 gil", "conflict 8 eve", "conflict 9 fay", "duplicate 3 bob", "duplicate 6 ",
			"unreadable  ", "unusable 4 cat",
		}
		if !slices.Equal(got, want) || r.Records != 11 || r.Create != 3 || r.Written != 0 {
			t.Errorf("problems %q of %+v, want %q", got, r, want)
		}
		if !strings.Contains(text, "7 of 11 records have problems: nothing was written") {
			t.Errorf("message: %s", text)
		}
	}
	for _, q := range server.Requests() {
		if q.Operation != "read" && q.Operation != "list" {
			t.Errorf("a migration that was refused has sent %s %s", q.Operation, q.Path)
		}
	}
	e, args := between(from, to, "--keep-ids")
	text := e.tk(t, "", slices.DeleteFunc(args, func(s string) bool { return s == "--json" })...).out
	for _, want := range []string{"11 records: 3 new, 8 with problems", "PROBLEM", `it is the same record as "2"`, "nothing was written"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in %s", want, text)
		}
	}

	r, text := migrateFails(t, 10, from, to, "--keep-ids", "--skip-bad")
	if r.Written != 3 || r.Verified != 3 || !strings.Contains(text, "3 of 11 records are verified; the others:") || !strings.Contains(text, "line 8: expiry_time") {
		t.Errorf("--skip-bad: %+v, %s", r, text)
	}
	after := contents(t, to)
	if len(after) != len(before)+3 || after["11"].UserName != "hal" {
		t.Errorf("--skip-bad: %v", slices.Collect(maps.Keys(after)))
	}
	for id, record := range before {
		if after[id] != record {
			t.Errorf("the record %s has changed", id)
		}
	}
}

// TestMigrateKeepsAnIDForOneRecord checks that a migration reports two records of the source
// with the same ID, and keeps the ID of only one of them.
func TestMigrateKeepsAnIDForOneRecord(t *testing.T) {
	t.Parallel()
	const rows = header + "1,ann,c,s3cret,r1,a1,,,,\n1,bob,c,s3cret,r2,a2,,,,\n2,,c,s3cret,r3,a3,,,,\n2,,c,s3cret,r4,a4,,,,\n"
	eachStore(t, func(t *testing.T, to env) {
		from := env{envStore: "file:" + writeFile(t, "from.csv", rows)}
		for range 2 {
			r, text := migrateFails(t, 12, from, to, "--keep-ids")
			want := []problem{
				{migrate.KindDuplicate, "1", "bob", `it has the same ID as the record of user "ann"`},
				{migrate.KindDuplicate, "2", "", "another record of the source has the same ID"},
			}
			if !slices.Equal(r.Problems, want) || r.Create != 2 || r.Written != 0 || !strings.Contains(text, "2 of 4 records have problems") {
				t.Errorf("%+v: %s", r, text)
			}
		}
		// With --skip-bad, one record of each ID is written. The source keeps all records,
		// because a removal by ID might remove the wrong record.
		r, _ := migrateFails(t, 10, from, to, "--keep-ids", "--skip-bad", "--delete-source")
		if r.Written != 2 || r.Verified != 2 || r.Deleted != 0 || len(r.Failed) != 2 || !strings.Contains(r.Failed[0].Error, "several records of the source") {
			t.Errorf("--skip-bad: %+v", r)
		}
		if got := contents(t, to); len(got) != 2 || got["1"].UserName != "ann" {
			t.Errorf("--skip-bad: %v", got)
		}
		for range 2 {
			r = migrates(t, from, to, "--keep-ids", "--on-conflict", "newer")
			if r.Verified != 4 || len(r.IDs) != 2 {
				t.Errorf("--on-conflict newer: %+v", r)
			}
		}
		if got := contents(t, to); len(got) != 4 || got["1"].UserName != "ann" {
			t.Errorf("--on-conflict newer: %v", got)
		}
		if readFile(t, strings.TrimPrefix(from[envStore], "file:")) != rows {
			t.Error("the source has changed")
		}
	})
}

// TestMigrateVerifiesThatAnIDIsOneRecords checks that a record does not count as moved if the
// target has another record with the same ID.
func TestMigrateVerifiesThatAnIDIsOneRecords(t *testing.T) {
	t.Parallel()
	from := env{envStore: "file:" + writeFile(t, "from.csv", header+"1,ann,c,s3cret,r1,a1,,,,\n")}
	to := env{envStore: "file:" + writeFile(t, "to.csv", header+"1,ann,c,s3cret,r1,a1,,,,\n1,bob,c,s3cret,r2,a2,,,,\n")}
	r, _ := migrateFails(t, 10, from, to, "--delete-source")
	if r.Verified != 0 || r.Deleted != 0 || len(r.Failed) != 1 || !strings.Contains(r.Failed[0].Error, "several records of the target") {
		t.Errorf("%+v", r)
	}
}

func TestMigrateSettlesConflicts(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		policy            string
		update, kept      int
		ann, bob, refresh string // access tokens, and bob's refresh token
	}{
		{string(migrate.Source), 2, 0, "source", "source", "source"},
		{string(migrate.Target), 0, 2, "target", "target", ""},
		{string(migrate.Newer), 2, 0, "source", "target", "source"}, // bob's record in the target lacks only the refresh token
	} {
		t.Run(test.policy, func(t *testing.T) {
			t.Parallel()
			from := fileStoreEnv(t)
			to, _ := vaultEnv(t)
			from.ok(t, `{"user_name":"ann","access_token":"source","expiry_time":2000}`, "save")
			from.ok(t, `{"user_name":"bob","access_token":"source","expiry_time":1000,"refresh_token":"source"}`, "save")
			to.ok(t, `{"user_name":"ann","access_token":"target","expiry_time":1000}`, "save")
			to.ok(t, `{"user_name":"bob","access_token":"target","expiry_time":2000}`, "save")
			r := migrates(t, from, to, "--on-conflict", test.policy, "--keep-ids")
			if r.Update != test.update || r.Kept != test.kept || r.Verified != 2 || len(r.IDs) != 2 {
				t.Errorf("report: %+v", r)
			}
			got := map[string]recordJSON{}
			for _, record := range contents(t, to) {
				got[record.UserName] = record
			}
			if len(got) != 2 || got["ann"].AccessToken != test.ann || got["bob"].AccessToken != test.bob || got["bob"].RefreshToken != test.refresh {
				t.Errorf("target: %+v", got)
			}
			again := migrates(t, from, to, "--on-conflict", test.policy, "--keep-ids")
			if again.Written != 0 || again.Verified != 2 {
				t.Errorf("again: %+v", again)
			}
		})
	}
}

func TestMigrateMergesDuplicates(t *testing.T) {
	t.Parallel()
	from := env{envStore: "file:" + writeFile(t, "from.csv", header+
		"1,ann,c,s,,older,,1000,,\n"+
		"2,bob,c,,r2,b,,,,\n"+
		"3,ann,c,,r1,newer,,2000,,https://example.com\n"+
		"4,,c,,r2,,g,,,\n")}
	to := fileStoreEnv(t)
	r := migrates(t, from, to, "--merge-duplicates", "--keep-ids", "--delete-source")
	if r.Records != 4 || r.Merged != 2 || r.Create != 2 || r.Verified != 2 || r.Deleted != 4 {
		t.Errorf("report: %+v", r)
	}
	if want := []migrate.IDChange{{From: "3", To: "1"}, {From: "4", To: "2"}}; !slices.Equal(r.IDs, want) {
		t.Errorf("IDs: %v, want %v", r.IDs, want)
	}
	got := contents(t, to)
	if want := (recordJSON{
		ID: "1", UserName: "ann", ClientID: "c", ClientSecret: "s", RefreshToken: "r1", AccessToken: "newer",
		ExpiryTime: 2000, APIDomain: "https://example.com",
	}); got["1"] != want {
		t.Errorf("ann: %+v", got["1"])
	}
	if got["2"].RefreshToken != "r2" || got["2"].GrantToken != "g" || len(got) != 2 {
		t.Errorf("bob: %+v", got)
	}
	if left := contents(t, from); len(left) != 0 {
		t.Errorf("left in the source: %v", left)
	}
}

// TestMigrateTellsUsersAndClientsApart checks that a migration merges none of these records: with a
// user and a client, with only a user, and with only a client. The target distinguishes these
// records only if the migration saves them in the right order.
func TestMigrateTellsUsersAndClientsApart(t *testing.T) {
	t.Parallel()
	for _, k := range storeKinds {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			var rows strings.Builder
			rows.WriteString(header)
			for i := range 40 {
				_, _ = fmt.Fprintf(&rows, "%d,user%d,c,,r%d,a%d,,,,\n%d,user%d,,,s%d,b%d,,,,\n%d,,x,,t%d,c%d,,,,\n",
					3*i+1, i, i, i, 3*i+2, i, i, i, 3*i+3, i, i)
			}
			from, to := env{envStore: "file:" + writeFile(t, "from.csv", rows.String())}, k.open(t)
			r := migrates(t, from, to, "--keep-ids")
			if r.Verified != 120 || !maps.Equal(contents(t, from), contents(t, to)) {
				t.Errorf("report: %+v", r)
			}
		})
	}
}

func TestMigrateDeletesTheSource(t *testing.T) {
	t.Parallel()
	for _, a := range storeKinds {
		t.Run(a.name, func(t *testing.T) {
			t.Parallel()
			from, to := a.open(t), fileStoreEnv(t)
			importSDKFile(t, from, "--keep-ids")
			source := contents(t, from)
			r := migrates(t, from, to, "--keep-ids", "--delete-source")
			if r.Deleted != 12 || r.Verified != 12 {
				t.Errorf("report: %+v", r)
			}
			if len(contents(t, from)) != 0 || !maps.Equal(contents(t, to), source) {
				t.Error("the records are not where they should be")
			}
			if r := migrates(t, from, to, "--keep-ids", "--delete-source"); r.Records != 0 || r.Deleted != 0 {
				t.Errorf("again: %+v", r)
			}
		})
	}
}

// TestMigrateLeavesWhatHasChanged checks that a record that changes during the migration is not
// removed from the source.
func TestMigrateLeavesWhatHasChanged(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "tokens.csv")
	for name, from := range map[string]env{"file": {envStore: "file:" + file}, "vault": func() env { e, _ := vaultEnv(t); return e }()} {
		to, server := vaultEnv(t)
		importSDKFile(t, from, "--keep-ids")
		var changed atomic.Bool
		server.Inject(func(q *fakevault.Request) *fakevault.Fault {
			if q.Operation == "write" && q.Class == "data" && changed.CompareAndSwap(false, true) {
				from.ok(t, `{"id":"7","access_token":"newer"}`, "save")
			}
			return nil
		})
		r, text := migrateFails(t, 10, from, to, "--keep-ids", "--delete-source")
		if r.Verified != 12 || r.Deleted != 11 || len(r.Failed) != 1 || r.Failed[0].ID != "7" {
			t.Errorf("%s: %+v", name, r)
		}
		if !strings.Contains(text, "it has changed in the source") {
			t.Errorf("%s: %s", name, text)
		}
		if left := contents(t, from); len(left) != 1 || left["7"].AccessToken != "newer" {
			t.Errorf("%s: left: %v", name, left)
		}
		server.Inject(nil)
		if r := migrates(t, from, to, "--keep-ids", "--delete-source", "--on-conflict", "source"); r.Update != 1 || r.Deleted != 1 {
			t.Errorf("%s: again: %+v", name, r)
		}
		if got := contents(t, to); len(got) != 12 || got["7"].AccessToken != "newer" {
			t.Errorf("%s: target: %v", name, got)
		}
	}
}

// TestMigrateKnowsAStoreByItsOtherName checks that --delete-source is refused if source and
// target are the same store under two names.
func TestMigrateKnowsAStoreByItsOtherName(t *testing.T) {
	t.Parallel()
	t.Run("link", func(t *testing.T) {
		t.Parallel()
		e := fileStoreEnv(t)
		importSDKFile(t, e)
		link := filepath.Join(t.TempDir(), "link.csv")
		if err := os.Symlink(strings.TrimPrefix(e[envStore], "file:"), link); err != nil {
			t.Skip("no symbolic links here: ", err)
		}
		_, text := migrateFails(t, 2, e, env{envStore: "file:" + link}, "--delete-source")
		if !strings.Contains(text, "the same store") || len(contents(t, e)) != 12 {
			t.Errorf("message: %s", text)
		}
	})
	t.Run("address", func(t *testing.T) {
		t.Parallel()
		e, _ := vaultEnv(t)
		importSDKFile(t, e)
		before := contents(t, e)
		other := e.with("VAULT_ADDR", strings.Replace(e["VAULT_ADDR"], "127.0.0.1", "localhost", 1))
		_, text := migrateFails(t, 2, e, other, "--keep-ids", "--delete-source")
		if !strings.Contains(text, "the same store") || !maps.Equal(contents(t, e), before) {
			t.Errorf("message: %s, %d records", text, len(contents(t, e)))
		}
	})
}

// TestMigrateProbesOneStore checks that the probe for two names of one store changes no record.
// Each record must be found by the same tokens and IDs as before the probe.
func TestMigrateProbesOneStore(t *testing.T) {
	t.Parallel()
	e, server := vaultEnv(t)
	record := decode[recordJSON](t, e.ok(t, `{"client_id":"c","client_secret":"s","refresh_token":"r1"}`, "save", "--json"))
	e.ok(t, `{"id":"`+record.ID+`","refresh_token":"r2"}`, "save")
	e.ok(t, `{"id":"my own","client_id":"c","refresh_token":"o1"}`, "save")
	moved := decode[recordJSON](t, e.ok(t, `{"client_id":"c","grant_token":"g"}`, "save", "--json"))
	e.ok(t, `{"id":"`+moved.ID+`","refresh_token":"r3"}`, "save")
	e.ok(t, `{"id":"`+moved.ID+`","user_name":"ann"}`, "save")
	find := func() string {
		var all string
		for _, like := range []string{
			`{"client_id":"c","refresh_token":"r1"}`, `{"id":"` + record.ID + `"}`, `{"id":"my own"}`,
			`{"id":"` + moved.ID + `"}`, `{"client_id":"c","grant_token":"g"}`,
		} {
			all += e.ok(t, like, "get", "--like", "-", "--json", "--reveal")
		}
		return all
	}
	before := find()
	other := e.with("VAULT_ADDR", strings.Replace(e["VAULT_ADDR"], "127.0.0.1", "localhost", 1))
	for range 2 {
		server.Reset()
		r, text := migrateFails(t, 2, e, other, "--delete-source")
		if !strings.Contains(text, "the same store") || r.Deleted != 0 || r.Written != 0 {
			t.Errorf("%+v: %s", r, text)
		}
		for _, q := range server.Requests() {
			if q.Operation != "read" && q.Operation != "list" && !strings.Contains(q.Path, "tokenkeepprobe") {
				t.Errorf("%s %s", q.Operation, q.Path)
			}
		}
		if after := find(); after != before {
			t.Errorf("before:\n%s\nafter:\n%s", before, after)
		}
	}
}

// TestMigrateKnowsFilesByTheirNames checks that --delete-source is refused for two names of one
// file, and allowed for two files.
func TestMigrateKnowsFilesByTheirNames(t *testing.T) {
	t.Parallel()
	for _, scheme := range []string{"file:", "sqlite:"} {
		dir := t.TempDir()
		e := env{envStore: scheme + filepath.Join(dir, "tokens")}
		importSDKFile(t, e)
		before := contents(t, e)
		if err := os.Link(filepath.Join(dir, "tokens"), filepath.Join(dir, "other")); err != nil {
			t.Skip("no hard links here: ", err)
		}
		r, text := migrateFails(t, 2, e, env{envStore: scheme + filepath.Join(dir, "other")}, "--keep-ids", "--delete-source")
		if r.Deleted != 0 || !strings.Contains(text, "the same store") || !maps.Equal(contents(t, e), before) {
			t.Errorf("%s %+v: %s", scheme, r, text)
		}
		if r := migrates(t, e, env{envStore: scheme + filepath.Join(dir, "third")}, "--keep-ids", "--delete-source"); r.Deleted != 12 {
			t.Errorf("%s another file: %+v", scheme, r)
		}
	}
}

// TestMigrateKeepsALateSave checks that a migration does not remove a record from the source if a
// program saves the record between the last read and the removal.
func TestMigrateKeepsALateSave(t *testing.T) {
	t.Parallel()
	from, source := vaultEnv(t)
	to, _ := vaultEnv(t)
	importSDKFile(t, from)
	var saves sync.Map
	source.Inject(func(q *fakevault.Request) *fakevault.Fault {
		id := path.Base(q.Path)
		if q.Operation == "read" || q.Operation == "list" || q.Class != "data" || strings.Contains(id, "tokenkeepprobe") {
			return nil
		}
		if _, saved := saves.LoadOrStore(id, true); !saved {
			from.ok(t, `{"id":"`+id+`","access_token":"newer"}`, "save")
		}
		return nil
	})
	r, text := migrateFails(t, 10, from, to, "--delete-source")
	if r.Verified != 12 || r.Deleted != 0 || len(r.Failed) != 12 || !strings.Contains(text, "it has changed in the source") {
		t.Errorf("%+v: %s", r, text)
	}
	source.Inject(nil)
	left := contents(t, from)
	for id, record := range left {
		if record.AccessToken != "newer" {
			t.Errorf("record %s of the source has lost what was saved", id)
		}
	}
	if len(left) != 12 {
		t.Errorf("%d records are left in the source, want 12", len(left))
	}
}

// TestMigrateWithTwoEnvironments checks that a migration from a store without keys to another
// server with keys preserves the records.
func TestMigrateWithTwoEnvironments(t *testing.T) {
	t.Parallel()
	from, _ := vaultEnv(t)
	to, _ := vaultEnv(t)
	keys := filepath.Join(t.TempDir(), "keys.json")
	to.ok(t, "", "keys", "new", keys)
	to = to.with(envKeys, keys)
	importSDKFile(t, from)
	r := migrates(t, from, to, "--keep-ids")
	if r.Verified != 12 || len(r.IDs) != 12 {
		t.Errorf("report: %+v", r) // derived IDs depend on the keys
	}
	if !maps.Equal(contents(t, to), renamed(contents(t, from), r)) {
		t.Error("the records differ")
	}
	to.with(envKeys, "").fails(t, 9, "", "ls")
}

// TestMigrateCountsCalls checks that the calls in the report add up to the requests that the
// servers received.
func TestMigrateCountsCalls(t *testing.T) {
	t.Parallel()
	from, source := vaultEnv(t)
	to, target := vaultEnv(t)
	importSDKFile(t, from)
	source.Reset()
	r := migrates(t, from, to, "--delete-source")
	calls := map[string]int64{}
	var all int64
	for _, s := range r.Steps {
		if s.Calls != nil {
			calls[string(s.Name)] = *s.Calls
			all += *s.Calls
		}
	}
	if want := int64(len(source.Requests()) + len(target.Requests())); all != want {
		t.Errorf("the steps count %d calls, the servers have seen %d", all, want)
	}
	if calls["read source"] != 13 || calls["verify"] < 12 || calls["delete source"] == 0 {
		t.Errorf("calls: %v", calls)
	}
}

// TestMigrateStops checks that the report of a migration lists the failures of a target that
// denies writes, and that another run writes the remaining records.
func TestMigrateStops(t *testing.T) {
	t.Parallel()
	from := fileStoreEnv(t)
	importSDKFile(t, from)
	to, server := vaultEnv(t)
	first := to["VAULT_TOKEN"]
	var writes atomic.Int64
	server.Inject(func(q *fakevault.Request) *fakevault.Fault {
		if q.Operation == "write" && q.Class == "data" && q.Header.Get("X-Vault-Token") == first {
			if writes.Add(1) > 5 {
				return &fakevault.Fault{Status: http.StatusForbidden, Errors: []string{"permission denied"}}
			}
		}
		return nil
	})
	r, text := migrateFails(t, 10, from, to)
	if r.Written > 5 || r.Verified != 0 || len(r.Failed) == 0 || !strings.Contains(text, "denied") {
		t.Errorf("%+v: %s", r, text)
	}
	// A delayed write of the first run can reach the server during the second run, and must be
	// denied too. The second run therefore has another token.
	to["VAULT_TOKEN"] = server.Token("", 0, "test")
	if r := migrates(t, from, to); r.Unchanged != 5 || r.Written != 7 || r.Verified != 12 {
		t.Errorf("again: %+v", r)
	}
}

// TestMigrateFindsWhatTheListLacks checks that a record of the target is not overwritten even if
// the target's list does not contain it yet.
func TestMigrateFindsWhatTheListLacks(t *testing.T) {
	t.Parallel()
	from := fileStoreEnv(t)
	from.ok(t, `{"user_name":"ann","client_id":"c","access_token":"source"}`, "save")
	from.ok(t, `{"user_name":"bob","client_id":"c","access_token":"same"}`, "save")
	to, server := vaultEnv(t)
	to.ok(t, `{"user_name":"ann","client_id":"c","access_token":"target"}`, "save")
	to.ok(t, `{"user_name":"bob","client_id":"c","access_token":"same"}`, "save")
	before := contents(t, to)
	server.Inject(func(q *fakevault.Request) *fakevault.Fault {
		if q.Operation == "list" {
			return &fakevault.Fault{Status: http.StatusNotFound}
		}
		return nil
	})
	r, text := migrateFails(t, 10, from, to)
	if r.Create != 2 || r.Written != 0 || r.Verified != 1 || !strings.Contains(text, "in another state") {
		t.Errorf("%+v: %s", r, text)
	}
	server.Inject(nil)
	if !maps.Equal(contents(t, to), before) {
		t.Error("the target has changed")
	}
}

// TestMigrateManyIntoAFile checks that a migration of many records into a file preserves the
// records. A store that rewrote the file for each record would be too slow for this test.
func TestMigrateManyIntoAFile(t *testing.T) {
	t.Parallel()
	const n = 3000
	from, to := bigFile(t, n), fileStoreEnv(t)
	r := migrates(t, from, to, "--keep-ids")
	if r.Verified != n {
		t.Errorf("report: %+v", r)
	}
	if a, b := contents(t, from), contents(t, to); !maps.Equal(a, b) {
		t.Error("the records differ")
	}
}

// bigFile returns an environment with a token file of n records as the store. Some records have no
// user, and some user names contain quotes, commas or Chinese characters.
func bigFile(t *testing.T, n int) env {
	t.Helper()
	var rows strings.Builder
	rows.WriteString(header)
	for i := range n {
		user, grant, expiry := fmt.Sprintf("user-%d@example.com:60%06d", i, i), "", 1767225600000+i
		switch i % 10 {
		case 3: // no user
			user, grant = "", fmt.Sprintf("1000.grant.%d", i)
		case 5:
			user = fmt.Sprintf(`"müller, %d ""jr.""@example.de"`, i)
		case 7:
			user = fmt.Sprintf("张伟%d@example.cn", i)
		}
		_, _ = fmt.Fprintf(&rows, "%d,%s,1000.CLIENT%d,secret-%d,1000.refresh.%d,1000.access.%d,%s,%d,https://example.com/cb,https://www.zohoapis.com\n",
			i+1, user, i%7, i%7, i, i, grant, expiry)
	}
	return env{envStore: "file:" + writeFile(t, "big.csv", rows.String())}
}

func TestRealPath(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("links need a privilege on Windows")
	}
	dir := t.TempDir()
	real, link := filepath.Join(dir, "real"), filepath.Join(dir, "link")
	if err := errors.Join(os.Mkdir(real, 0o700), os.Symlink(real, link)); err != nil {
		t.Fatal(err)
	}
	if a, b := files.Real(filepath.Join(real, "x")), files.Real(filepath.Join(link, ".", "x")); a != b {
		t.Errorf("%s and %s", a, b)
	}
}
