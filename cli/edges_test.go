package cli

import (
	"bytes"
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/fakevault"
	"github.com/tokenkeep/tokenkeep/vaultstore"
)

// TestRemovedIsRemoved checks that the files of a SQLite database do not contain the bytes of
// removed tokens.
func TestRemovedIsRemoved(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"rm", "--all", "--yes"},
		{"migrate", "--delete-source", "--from", "", "--to", ""},
		{"rm", "1", "2", "3"},
	} {
		dir := t.TempDir()
		e := env{envStore: "sqlite:" + filepath.Join(dir, "tokens.db")}
		for _, user := range []string{"ann", "bob", "cid"} {
			e.ok(t, `{"user_name":"`+user+`","client_id":"c","client_secret":"s3cret-client","refresh_token":"s3cret-refresh-`+user+`"}`, "save")
			e.ok(t, `{"user_name":"`+user+`","client_id":"c","refresh_token":"s3cret-later-`+user+`"}`, "save")
		}
		if !holds(t, dir, "s3cret") {
			t.Fatal("the database does not hold the tokens in the first place")
		}
		for i, arg := range args {
			switch arg {
			case "--from":
				args[i+1] = e[envStore]
			case "--to":
				args[i+1] = fileStoreEnv(t)[envStore]
			}
		}
		e.ok(t, "", args...)
		if holds(t, dir, "s3cret") {
			t.Errorf("after %s the database holds tokens", strings.Join(args, " "))
		}
	}
}

func holds(t *testing.T, dir, text string) bool {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		data, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(data, []byte(text)) {
			return true
		}
	}
	return false
}

// TestOneUnreadable checks that ls, export, migrate, doctor and rm continue if the service denies
// the reads of one secret. Each command must report the secret and the reason from the service,
// and must fail.
func TestOneUnreadable(t *testing.T) {
	t.Parallel()
	e, server := vaultEnv(t)
	for _, user := range []string{"ann", "bob", "cid"} {
		e.ok(t, `{"user_name":"`+user+`","client_id":"c","refresh_token":"`+user+`"}`, "save")
	}
	hidden := decode[recordJSON](t, e.ok(t, "", "get", "--user", "bob", "--client", "c", "--json")).ID
	server.Inject(func(q *fakevault.Request) *fakevault.Fault {
		if q.Class == "data" && q.Operation == "read" && strings.Contains(q.Path, hidden) {
			return &fakevault.Fault{Status: http.StatusForbidden, Errors: []string{"the path of bob is locked"}}
		}
		return nil
	})
	named := func(what, text string) {
		if !strings.Contains(text, hidden) || !strings.Contains(text, "the path of bob is locked") {
			t.Errorf("%s does not name the secret or the reason: %s", what, text)
		}
	}
	r := e.tk(t, "", "ls", "--json")
	if got := decode[[]recordJSON](t, r.out); r.code != 7 || len(got) != 2 {
		t.Errorf("ls: %+v", r)
	}
	named("ls", r.err)
	name := filepath.Join(t.TempDir(), "e.csv")
	named("export", e.fails(t, 10, "", "export", name))
	if text := readFile(t, name); !strings.Contains(text, "ann") || !strings.Contains(text, "cid") {
		t.Errorf("exported: %s", text)
	}
	to := fileStoreEnv(t)
	report, text := migrateFails(t, 10, e, to, "--delete-source")
	if report.Verified != 2 || report.Deleted != 2 {
		t.Errorf("migrate: %+v", report)
	}
	named("migrate", text)
	if got := contents(t, to); len(got) != 2 {
		t.Errorf("migrated: %v", got)
	}
	r = e.tk(t, "", "doctor", "--json")
	if r.code != 13 || decode[doctorReport](t, r.out).Left != 1 {
		t.Errorf("doctor: %+v", r)
	}
	named("doctor", r.out)
	r = e.tk(t, "", "rm", "--all", "--yes")
	if r.code != 7 {
		t.Errorf("rm --all: %+v", r)
	}
	named("rm --all", r.err)
}

// TestDeadCredentials checks that expired credentials are reported with one error and one hint,
// and not as missing permissions.
func TestDeadCredentials(t *testing.T) {
	t.Parallel()
	e, server := vaultEnv(t)
	if err := server.Policy("", "app", vaultstore.Policy("secret", "oauth/test")); err != nil {
		t.Fatal(err)
	}
	e = e.with("VAULT_TOKEN", server.Token("", time.Hour, "app"))
	server.Advance(2 * time.Hour)
	for _, args := range [][]string{{"ls"}, {"doctor"}, {"doctor", "--permissions"}, {"doctor", "--repair"}} {
		r := e.tk(t, "", args...)
		if r.code != 7 || strings.Contains(r.out, "permission") || !strings.Contains(r.err, "vault login") || strings.Contains(r.err, "doctor --permissions") {
			t.Errorf("%v: %+v", args, r)
		}
		if n := strings.Count(r.err, "\n"); n != 2 {
			t.Errorf("%v: %d lines, want the error and a hint: %s", args, n, r.err)
		}
	}
}

// TestOneCauseIsOneLine checks that doctor reports all records in one line if the service denies
// each read of a record.
func TestOneCauseIsOneLine(t *testing.T) {
	t.Parallel()
	e, server := vaultEnv(t)
	importSDKFile(t, e)
	server.Inject(func(q *fakevault.Request) *fakevault.Fault {
		if q.Class == "data" && q.Operation == "read" && strings.Contains(q.Path, "/tokens/") {
			return &fakevault.Fault{Status: http.StatusForbidden, Errors: []string{"locked"}}
		}
		return nil
	})
	r := e.tk(t, "", "doctor")
	if r.code != 13 || strings.Count(r.out, "\nrecord-unreadable  ") != 1 || !strings.Contains(r.out, "12 times, first ") {
		t.Errorf("%+v", r)
	}
}

// TestDoctorCompares checks that doctor detects, for each kind of store, that the store compares
// before it writes. The probes must leave no findings, and must not change the number of records.
func TestDoctorCompares(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, e env) {
		importSDKFile(t, e)
		for _, flags := range [][]string{{"--permissions"}, {"--repair"}, {"--repair", "--permissions"}} {
			r := decode[doctorReport](t, e.ok(t, "", append([]string{"doctor", "--json", "--grace", "0s"}, flags...)...))
			for _, f := range r.Findings {
				if f.Kind == "not-compared" || f.Kind == "secret-tombstone" || f.Kind == "record-empty" {
					t.Errorf("%v: %+v", flags, f)
				}
			}
		}
		if got := len(contents(t, e)); got != 12 {
			t.Errorf("%d records are left, want 12", got)
		}
	})
}

// interrupted returns a context that is canceled at the sixth write of a record.
func interrupted(t *testing.T, server *fakevault.Server) context.Context {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	var writes atomic.Int64
	server.Inject(func(q *fakevault.Request) *fakevault.Fault {
		if q.Operation == "write" && q.Class == "data" && writes.Add(1) == 6 {
			cancel()
		}
		return nil
	})
	return ctx
}

// TestMigrateInterrupted checks that an interrupted migration reports how many records it wrote,
// and that the same command then continues the migration.
func TestMigrateInterrupted(t *testing.T) {
	t.Parallel()
	from := fileStoreEnv(t)
	importSDKFile(t, from)
	to, server := vaultEnv(t)
	ctx := interrupted(t, server)
	e, args := between(from, to)
	var out, errs bytes.Buffer
	code := run(ctx, args, e.lookup, strings.NewReader(""), &out, &errs)
	if code != 130 || !strings.Contains(errs.String(), "of 12 records are written") || !strings.Contains(errs.String(), "the same migration goes on") {
		t.Errorf("exit code %d: %s", code, &errs)
	}
	server.Inject(nil)
	if r := migrates(t, from, to); r.Verified != 12 || r.Unchanged == 0 {
		t.Errorf("again: %+v", r)
	}
}

// TestImportInterrupted checks that an interrupted import reports how many rows were imported and
// how many were not tried. The exit code must be that of an interrupt, even if --skip-bad left out
// a row.
func TestImportInterrupted(t *testing.T) {
	t.Parallel()
	e, server := vaultEnv(t)
	ctx := interrupted(t, server)
	var out, errs bytes.Buffer
	rows := sdkFile(t) + "13,eve,c,,,,,,,\r\n"
	code := run(ctx, []string{"import", "-", "--skip-bad"}, e.lookup, strings.NewReader(rows), &out, &errs)
	if text := errs.String(); code != 130 || !strings.Contains(text, "of 13 rows were imported, ") || !strings.Contains(text, "were not tried") || strings.Contains(text, "migration") {
		t.Errorf("exit code %d: %s", code, text)
	}
	server.Inject(nil)
	if r := importSDKFile(t, e); r.Imported != 12 || r.Unchanged == 0 {
		t.Errorf("again: %+v", r)
	}
}

// TestAWSOptions checks that a new secret in AWS has the tags and the key in the URL of the
// store. Malformed parameters must be rejected.
func TestAWSOptions(t *testing.T) {
	t.Parallel()
	e, server := awsEnv(t)
	e = e.with(envStore, e[envStore]+"&tags=team:crm,stage:live&kms-key=alias/mine")
	e.ok(t, `{"user_name":"ann","client_id":"c","refresh_token":"r"}`, "save")
	found := false
	for _, q := range server.Requests() {
		body := string(q.Body)
		if strings.Contains(body, `"alias/mine"`) && strings.Contains(body, `"team"`) && strings.Contains(body, `"crm"`) && strings.Contains(body, `"stage"`) {
			found = true
		}
	}
	if !found {
		t.Error("no secret is created with the tags and the key")
	}
	for _, wrong := range []string{"tags=team", "tags=team:a,team:b", "keep-deleted=perhaps", "kms=a&kms-key=b"} {
		e.fails(t, 2, "", "ls", "--store", "awssm:x?region=eu-central-1&"+wrong)
	}
}
