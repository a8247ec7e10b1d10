package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenkeep/tokenkeep/cli/internal/files"
	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/internal/fakevault"
	"github.com/tokenkeep/tokenkeep/internal/sdkid"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/migrate"
	"github.com/tokenkeep/tokenkeep/tokenstore/observe"
)

// sdkFile returns a file that the FileStore of Zoho's Python SDK wrote.
func sdkFile(t *testing.T) string {
	t.Helper()
	return readFile(t, "../testdata/zoho-sdk/python_filestore.csv")
}

// importSDKFile imports the file of the Python SDK and returns the report.
func importSDKFile(t *testing.T, e env, flags ...string) importReport {
	t.Helper()
	args := append([]string{"import", "-", "--json"}, flags...)
	return decode[importReport](t, e.ok(t, sdkFile(t), args...))
}

func TestImportExport(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, e env) {
		r := importSDKFile(t, e, "--keep-ids")
		if r.Rows != 12 || r.Imported != 12 || r.New != 12 || len(r.Failed) != 0 || fmt.Sprint(r.Dialects) != "[python]" {
			t.Errorf("report: %+v", r)
		}
		name := filepath.Join(t.TempDir(), "out.csv")
		if got, want := e.ok(t, "", "export", name, "--keep-ids"), name+": 12 records, as python writes them\n"; got != want {
			t.Errorf("export: %q, want %q", got, want)
		}
		if readFile(t, name) != sdkFile(t) {
			t.Errorf("the exported file is not the SDK's:\n%s", readFile(t, name))
		}
		if info, err := os.Stat(name); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
			t.Errorf("mode %v, %v", info.Mode(), err)
		}
		if r := importSDKFile(t, e, "--keep-ids"); r.Imported != 12 || r.Unchanged != 12 {
			t.Errorf("imported again: %+v", r)
		}
	})
}

// TestSDKFilesRoundTrip checks that every kind of store can import the files of the SDKs, export
// them unchanged, and import them again.
func TestSDKFilesRoundTrip(t *testing.T) {
	t.Parallel()
	for _, file := range []struct {
		text, json string
		dialect    codec.Dialect
	}{
		{"python_filestore.csv", "python_filestore.json", codec.Python},
		{"node_filestore.txt", "node_filestore.json", codec.Node},
	} {
		const dir = "../testdata/zoho-sdk/"
		want := map[string]tokenstore.Token{}
		for _, object := range decode[[]json.RawMessage](t, readFile(t, dir+file.json)) {
			token, err := parseRecord(object)
			if err != nil {
				t.Fatal(err)
			}
			token.ExpiresAt = token.ExpiresAt.UTC()
			want[token.ID] = token
		}
		eachStore(t, func(t *testing.T, e env) {
			e.ok(t, "", "import", dir+file.text, "--keep-ids")
			compare := func(got map[string]recordJSON) {
				t.Helper()
				if len(got) != len(want) {
					t.Fatalf("%d records, want %d", len(got), len(want))
				}
				for id, w := range want {
					if got[id] != toJSON(w, true) {
						t.Errorf("record %s of %s differs", id, file.text)
					}
				}
			}
			compare(contents(t, e))
			name := filepath.Join(t.TempDir(), "out")
			e.ok(t, "", "export", name, "--keep-ids", "--dialect", string(file.dialect))
			if readFile(t, name) != readFile(t, dir+file.text) {
				t.Errorf("the exported file is not %s", file.text)
			}
			back := fileStoreEnv(t)
			back.ok(t, "", "import", name, "--keep-ids")
			compare(contents(t, back))
		})
	}
}

// TestImportManyIntoAFile checks that many rows can be imported into a file, and that a repeated
// import changes no record. A row that cannot be saved must not prevent the import of the others.
func TestImportManyIntoAFile(t *testing.T) {
	t.Parallel()
	const n = 3000
	e := fileStoreEnv(t)
	big := strings.TrimPrefix(bigFile(t, n)[envStore], "file:")
	e.ok(t, "", "import", big, "--keep-ids")
	if got := e.ok(t, "", "import", big, "--keep-ids"); !strings.HasSuffix(got, fmt.Sprintf("imported %d of %d: 0 new, %d there already\n", n, n, n)) {
		t.Errorf("again: %s", got)
	}
	node := fileStoreEnv(t)
	node[envStore] += "?dialect=node"
	r := node.tk(t, header+"1,ann,c,s,r,a,,,,\n2,\"o'neil, sean\",c,s,r2,a2,,,,\n3,bob,c,s,r3,a3,,,,\n", "import", "-", "--json")
	if got := decode[importReport](t, r.out); r.code != 10 || got.Imported != 2 || got.New != 2 || len(got.Failed) != 1 || got.Failed[0].Line != 3 {
		t.Errorf("%+v", r)
	}
}

// TestImportDropsNumbers checks that imported records get new IDs from the store, and that
// import and export preserve all other fields.
func TestImportDropsNumbers(t *testing.T) {
	t.Parallel()
	e, _ := vaultEnv(t)
	importSDKFile(t, e)
	for _, r := range decode[[]recordJSON](t, e.ok(t, "", "ls", "--json")) {
		if _, ok := sdkid.Number(r.ID); ok {
			t.Errorf("a record has the SDK's ID %s", r.ID)
		}
	}
	text := e.ok(t, "", "export", "-", "--reveal")
	if len(text) != len(sdkFile(t)) {
		t.Errorf("%d bytes, want %d", len(text), len(sdkFile(t)))
	}
	want := rowsByToken(t, []byte(sdkFile(t)))
	for token, got := range rowsByToken(t, []byte(text)) {
		w := want[token]
		got.ID, w.ID = "", ""
		if got != w {
			t.Errorf("a row of %s has changed", got.UserName)
		}
		delete(want, token)
	}
	if len(want) != 0 {
		t.Errorf("%d rows are missing", len(want))
	}
}

func rowsByToken(t *testing.T, data []byte) map[string]codec.Fields {
	t.Helper()
	f, err := parseFile(data, "")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]codec.Fields{}
	for i := range f.Len() {
		r, _ := f.Row(i)
		rows[r.AccessToken] = r
	}
	return rows
}

// TestDialects checks that import and export preserve the records in each dialect.
func TestDialects(t *testing.T) {
	t.Parallel()
	for _, d := range codec.Dialects() {
		e := fileStoreEnv(t)
		for _, record := range []string{
			`{"user_name":"ann","client_id":"c","access_token":"a1","refresh_token":"r1","expiry_time":1767225600000}`,
			`{"client_id":"c","refresh_token":"r2"}`,
		} {
			e.ok(t, record, "save")
		}
		name := filepath.Join(t.TempDir(), "out")
		e.ok(t, "", "export", name, "--dialect", string(d))
		back := fileStoreEnv(t)
		got := decode[importReport](t, back.ok(t, "", "import", name, "--dialect", string(d), "--json"))
		if got.Imported != 2 || got.Dialects[0] != d {
			t.Errorf("%s: %+v", d, got)
		}
		if a, b := e.ok(t, "", "ls", "--json", "--reveal"), back.ok(t, "", "ls", "--json", "--reveal"); a != b {
			t.Errorf("%s: %s became %s", d, a, b)
		}
		onFile := env{envStore: "file:" + name + "?dialect=" + string(d)}
		if a, b := e.ok(t, "", "ls", "--json", "--reveal"), onFile.ok(t, "", "ls", "--json", "--reveal"); a != b {
			t.Errorf("%s: %s as a store is %s", d, a, b)
		}
	}
}

const header = "id,user_name,client_id,client_secret,refresh_token,access_token,grant_token,expiry_time,redirect_url,api_domain\n"

func TestImportChecksFirst(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, rows string
		flags      []string
		want       []string // a part of the message
		good       int      // number of rows that --skip-bad imports
	}{
		{name: "one user twice", rows: "1,ann,c,s,s3cret1,s3cret2,,,,\n2,bob,c,s,r,b,,,,\n3,ann,c,s,s3cret3,s3cret4,,,,\n",
			want: []string{"1 of 3 rows", "line 4, user ann: ", "same record as line 2"}, good: 2},
		{name: "one user with two clients", rows: "1,ann,c,,,a,,,,\n2,ann,d,,,b,,,,\n", good: 2},
		{name: "one token twice", rows: "1,,c,s,s3cret1,,,,,\n2,,c,s,s3cret1,,,,,\n",
			want: []string{"line 3: ", "same record as line 2"}, good: 1},
		{name: "one number twice", rows: "1,ann,c,s,s3cret1,,,,,\n1,bob,c,s,s3cret2,,,,,\n", flags: []string{"--keep-ids"},
			want: []string{"line 3, user bob", "same ID as line 2"}, good: 1},
		{name: "one number twice, dropped", rows: "1,ann,c,s,s3cret1,,,,,\n1,bob,c,s,s3cret2,,,,,\n", good: 2},
		{name: "no tokens", rows: "1,ann,c,s3cret,,,,,,\n2,bob,c,,,a,,,,\n", want: []string{"line 2, user ann", "no access, refresh or grant token"}, good: 1},
		{name: "no time", rows: "1,ann,c,s,,a,,s3cret,,\n2,bob,c,,,a2,,0,,\n", want: []string{"line 2, user ann", "not a number"}, good: 1},
		{name: "a redacted token", rows: "1,ann,c,s,,[redacted],,,,\n2,bob,c,,,a,,0,,\n", want: []string{"line 2, user ann", "redacted"}, good: 1},
		{name: "several", rows: "1,ann,c,s,,a,,s3cret,,\n2,bob,c,,,a2,,s3cret,,\n3,ann,c,s,,b,,s3cret,,\n4,eve,c,,,e,,,,\n",
			want: []string{"3 of 4 rows", "line 2, user ann", "line 3, user bob", "line 4, user ann"}, good: 1},
		{name: "cut off", rows: "1,ann,c,s,s3cret\n", want: []string{"line 2 has 5 of 9 or 10 columns"}, good: -1},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			e := fileStoreEnv(t)
			args := append([]string{"import", "-"}, test.flags...)
			if test.want != nil {
				text := e.fails(t, 6, header+test.rows, args...)
				for _, want := range test.want {
					if !strings.Contains(text, want) {
						t.Errorf("%q is not in %q", want, text)
					}
				}
				if strings.Contains(text, "s3cret") {
					t.Errorf("a secret is in %q", text)
				}
				if !isEmpty(t, e) {
					t.Error("some records were imported")
				}
			} else {
				e.ok(t, header+test.rows, args...)
			}
			if test.good < 0 {
				return
			}
			code := 0
			if test.want != nil {
				code = 10
			}
			r := e.tk(t, header+test.rows, append(args, "--skip-bad", "--json")...)
			report := decode[importReport](t, r.out)
			if r.code != code || report.Imported != test.good || report.Imported+len(report.Failed) != report.Rows {
				t.Errorf("--skip-bad: exit code %d, %+v", r.code, report)
			}
		})
	}
}

// TestImportStops checks that an import reports failed and untried rows if the store begins to
// deny writes. It also checks that another run imports the remaining rows.
func TestImportStops(t *testing.T) {
	t.Parallel()
	e, server := vaultEnv(t)
	var writes atomic.Int64
	server.Inject(func(q *fakevault.Request) *fakevault.Fault {
		if q.Operation == "write" && q.Class == "data" {
			if writes.Add(1) > 3 {
				return &fakevault.Fault{Status: http.StatusForbidden, Errors: []string{"permission denied"}}
			}
		}
		return nil
	})
	r := e.tk(t, sdkFile(t), "import", "-")
	if r.code != 10 || r.out != "standard input: 12 rows, as python writes them\nimported 3 of 12: 3 new\n" {
		t.Errorf("exit code %d: %s", r.code, r.out)
	}
	for _, want := range []string{"3 of 12 rows were imported, 8 were not tried", "line 5: ", "denied"} {
		if !strings.Contains(r.err, want) {
			t.Errorf("%q is not in %q", want, r.err)
		}
	}
	e.fails(t, 7, sdkFile(t), "import", "-", "--keep-ids") // nothing more can be written

	server.Inject(nil)
	if got, want := e.ok(t, sdkFile(t), "import", "-"), "imported 12 of 12: 9 new, 3 there already\n"; !strings.HasSuffix(got, want) {
		t.Errorf("repeated: %s", got)
	}
}

// TestImportIntoADamagedFile checks that an import into a damaged file fails with the class
// "corrupt", and not with "partial".
func TestImportIntoADamagedFile(t *testing.T) {
	t.Parallel()
	e := env{envStore: "file:" + writeFile(t, "tokens.csv", "garbage,\"")}
	text := e.fails(t, 9, sdkFile(t), "import", "-")
	if !strings.Contains(text, "nothing was imported") || !strings.Contains(text, "line 2, user ") {
		t.Errorf("message: %s", text)
	}
}

func TestImportUpdates(t *testing.T) {
	t.Parallel()
	e := fileStoreEnv(t)
	e.ok(t, header+"1,ann,c,s,r,a,,,,\n", "import", "-")
	got := e.ok(t, header+"7,ann,c,s,r,newer,,,,\n8,bob,c,s,r2,b,,,,\n", "import", "-")
	if want := "imported 2 of 2: 1 new, 1 updated\n"; !strings.HasSuffix(got, want) {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := e.ok(t, "", "get", "1", "--reveal"); !strings.Contains(got, "newer") {
		t.Errorf("not updated: %s", got)
	}
}

func TestExportRefuses(t *testing.T) {
	t.Parallel()
	e := fileStoreEnv(t)
	e.ok(t, `{"user_name":"o'neil, sean","refresh_token":"s3cret"}`, "save")
	dir := t.TempDir()
	name := filepath.Join(dir, "out")

	text := e.fails(t, 6, "", "export", name, "--dialect", "node")
	if !strings.Contains(text, `record "1"`) || !strings.Contains(text, "user_name") || strings.Contains(text, "sean") {
		t.Errorf("message: %s", text)
	}
	if files.Exists(name) {
		t.Error("a file was written")
	}

	if err := os.WriteFile(name, []byte("precious"), 0o644); err != nil {
		t.Fatal(err)
	}
	e.fails(t, 2, "", "export", name)
	if readFile(t, name) != "precious" {
		t.Error("the file was replaced")
	}
	e.ok(t, "", "export", name, "--force")
	if info, err := os.Stat(name); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	e.fails(t, 1, "", "export", filepath.Join(dir, "nowhere", "out"))
	e.fails(t, 1, "", "export", filepath.Join(dir, "nowhere", "out"), "--force")
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("left over: %v, %v", left, err)
	}
	if got := decode[map[string]any](t, e.ok(t, "", "export", name, "--force", "--json")); got["records"] != 1.0 || got["dialect"] != "python" {
		t.Errorf("report: %v", got)
	}
}

// someRecords is a migrate.Reader that returns its elements.
type someRecords []tokenstore.Token

func (r someRecords) GetTokens(context.Context) ([]tokenstore.Token, error) { return r, nil }

func TestExportNumbers(t *testing.T) {
	t.Parallel()
	var source someRecords
	for _, id := range []string{"10", "9", "007", "0", "-3", "x", "12345678901", "u4"} {
		source = append(source, tokenstore.Token{ID: id, AccessToken: tokenstore.Secret(id)})
	}
	source = append(source, tokenstore.Token{ID: "9", AccessToken: "9, too"}, tokenstore.Token{ID: "x, too", AccessToken: "9"})
	for _, test := range []struct {
		keep bool
		want string
	}{
		{false, "9=1 9, too=2 10=3 -3=4 0=5 007=6 12345678901=7 u4=8 x=9 9=10"},
		{true, "9=9 10=10 9, too=11 -3=12 0=13 007=14 12345678901=15 u4=16 x=17 9=18"},
	} {
		f, err := newExportFile(codec.Python)
		if err != nil {
			t.Fatal(err)
		}
		m, err := migrate.Plan(t.Context(), source, f, &migrate.Options{KeepIDs: test.keep, OnConflict: migrate.Newer, Duplicates: migrate.Keep})
		if err != nil {
			t.Fatal(err)
		}
		if r, err := m.Run(t.Context()); err != nil || r.Verified != len(source) {
			t.Errorf("%+v, %v", r, err)
		}
		var got []string
		for _, token := range f.tokens {
			got = append(got, string(token.AccessToken)+"="+token.ID)
		}
		if strings.Join(got, " ") != test.want {
			t.Errorf("keep %v: %v, want %s", test.keep, got, test.want)
		}
	}
}

func TestProgress(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	now := time.Unix(1, 0)
	b := &bar{out: &out, now: func() time.Time { return now }, what: "importing", all: 4, began: now}
	for n := range 3 {
		b.set(n + 1)
		now = now.Add(redraw / 2)
	}
	now = now.Add(2*time.Second - 3*redraw/2)
	b.set(3)
	b.done()
	if want := "\rimporting: 1 of 4\x1b[K\rimporting: 3 of 4\x1b[K\rimporting: 3 of 4, 1.5/s, 1s left\x1b[K\r\x1b[K"; out.String() != want {
		t.Errorf("%q, want %q", &out, want)
	}
	a := &app{schemes: allSchemes(), errs: &out, now: time.Now}
	if b := a.progress("importing", 4); !b.log {
		t.Error("the bar of a terminal is shown where there is none")
	}
	if a.json = true; a.progress("importing", 4) != nil {
		t.Error("progress is shown with --json")
	}
	t.Run("terminal", func(t *testing.T) {
		_, terminal := openTerminal(t)
		a := &app{schemes: allSchemes(), errs: terminal, now: time.Now}
		if a.progress("importing", 4).log {
			t.Error("lines are shown on a terminal")
		}
	})
}

// TestProgressInLog checks that without a terminal, progress is one line every half minute. Work
// that ends earlier must print no line.
func TestProgressInLog(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var errs bytes.Buffer
		a := &app{errs: &errs, now: time.Now}
		b := a.progress("writing", 100)
		for n := range 70 {
			b.set(n)
			<-time.After(time.Second)
		}
		b.done()
		if want := "tokenkeep: writing: 30 of 100, 1.0/s, 1m10s left\ntokenkeep: writing: 60 of 100, 1.0/s, 40s left\n"; errs.String() != want {
			t.Errorf("it says %q, want %q", &errs, want)
		}
		errs.Reset()
		b = a.progress("verifying", 0)
		<-time.After(logLine - 1)
		b.set(9)
		if b.done(); errs.Len() > 0 {
			t.Errorf("it says %q", &errs)
		}
	})
}

// TestSlowStore checks that a slowStore prints one note about slow calls, and no note after a bar
// was shown.
func TestSlowStore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var errs bytes.Buffer
		a := &app{schemes: allSchemes(), errs: &errs, now: time.Now}
		call := func(s *slowStore, takes time.Duration) {
			_, done := s.observer().Call(t.Context(), observe.Call{})
			<-time.After(takes)
			synctest.Wait()
			done(observe.Called{})
		}
		shown := &slowStore{note: a.note}
		b := &bar{out: io.Discard, now: time.Now, slow: shown}
		b.set(1)
		call(shown, 2*patience)
		s := &slowStore{note: a.note}
		call(s, patience-1)
		<-time.After(patience)
		synctest.Wait()
		if errs.Len() > 0 {
			t.Errorf("it says %q", &errs)
		}
		call(s, patience)
		call(s, 2*patience)
		if want := "tokenkeep: waiting for the store; --timeout limits this\n"; errs.String() != want {
			t.Errorf("it says %q, want %q", &errs, want)
		}
	})
}

// TestSlowStoreOnTerminal checks that a command times its calls only if standard error is a
// terminal and --json is not set.
func TestSlowStoreOnTerminal(t *testing.T) {
	t.Parallel()
	times := func(t *testing.T, errs io.Writer, json, want bool) {
		a := &app{schemes: allSchemes(), env: env{}.get, errs: errs}
		root := a.rootCommand()
		a.json = json
		if err := a.begin(root, nil); err != nil {
			t.Fatal(err)
		}
		opts, err := a.storeOptions()
		if err != nil || (opts.Observer != nil) != want {
			t.Errorf("with JSON %t: the observer is %v, %v", json, opts.Observer, err)
		}
	}
	times(t, io.Discard, false, false)
	t.Run("terminal", func(t *testing.T) {
		_, terminal := openTerminal(t)
		times(t, terminal, false, true)
		times(t, terminal, true, false)
	})
}

// TestExport_OddFiles checks that export numbers the records of unusual files, such as files that
// people have edited. If no number is left, export must fail.
func TestExport_OddFiles(t *testing.T) {
	t.Parallel()
	const head = "id,user_name,client_id,client_secret,refresh_token,access_token,grant_token,expiry_time,redirect_url,api_domain\n"
	for name, test := range map[string]struct {
		rows string
		code int
		want string // a part of the file or of the error
	}{
		"a user without a token": {"1,ann,c,,r,,,,,\n4,eve,c,,,,,,,\n", 0, "1,ann,c,,r,,,,,\n4,eve,c,,,,,,,\n"},
		"nothing but a client":   {"4,,c,,,,,,,\nx,,,,,,,,,\n", 0, "4,,c,,,,,,,\n5,,,,,,,,,\n"},
		"two with one ID":        {"1,ann,c,,r,,,,,\n1,bob,c,,s,,,,,\n", 0, "1,ann,c,,r,,,,,\n2,bob,c,,s,,,,,\n"},
		"an ID that no SDK has":  {"99999999999,ann,c,,r,,,,,\n7,bob,c,,s,,,,,\n", 0, "7,bob,c,,s,,,,,\n8,ann,c,,r,,,,,\n"},
		"no number is left": {
			"9999999999,ann,c,,r,,,,,\n7,bob,c,,s,,,,,\nx,eve,c,,t,,,,,\n", 6,
			"tokenkeep: nothing was written: record \"x\": the dialect of the token file cannot represent it: no number is left after 9999999999\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := fileStoreEnv(t)
			if err := os.WriteFile(strings.TrimPrefix(e[envStore], "file:"), []byte(head+test.rows), 0o600); err != nil {
				t.Fatal(err)
			}
			r := e.tk(t, "", "export", "-", "--reveal", "--keep-ids", "--dialect", "ruby")
			got := strings.TrimPrefix(r.out, head)
			if test.code != 0 {
				got = r.out + r.err
			}
			if r.code != test.code || got != test.want {
				t.Errorf("exit code %d, %q, want %d, %q; %s", r.code, got, test.code, test.want, r.err)
			}
		})
	}
}

// TestExportFileConcurrently checks that an export keeps all concurrent saves, with distinct IDs.
func TestExportFileConcurrently(t *testing.T) {
	t.Parallel()
	f, err := newExportFile(codec.Python)
	if err != nil {
		t.Fatal(err)
	}
	const n = 200
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			if _, err := f.SaveToken(t.Context(), tokenstore.Token{AccessToken: "a"}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	ids := map[string]bool{}
	for _, token := range f.tokens {
		ids[token.ID] = true
	}
	if len(f.tokens) != n || len(ids) != n {
		t.Errorf("%d records with %d IDs are kept, want %d", len(f.tokens), len(ids), n)
	}
}

func TestExportFile(t *testing.T) {
	t.Parallel()
	f, err := newExportFile(codec.Python)
	if err != nil {
		t.Fatal(err)
	}
	var s tokenstore.TokenStore = f
	for range 2 { // both are added: SaveToken does not merge records
		if _, err := s.SaveToken(t.Context(), tokenstore.Token{AccessToken: "a"}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.FindToken(t.Context(), tokenstore.Token{AccessToken: "a"}); !errors.Is(err, tokenstore.ErrNotFound) {
		t.Error(err)
	}
	if got, err := s.FindTokenByID(t.Context(), "2"); err != nil || got.AccessToken != "a" {
		t.Errorf("%v, %v", got, err)
	}
	if err := s.DeleteToken(t.Context(), "2"); err != nil {
		t.Error(err)
	}
	if all, err := s.GetTokens(t.Context()); err != nil || len(all) != 1 || all[0].ID != "1" {
		t.Errorf("%v, %v", all, err)
	}
	if err := s.DeleteTokens(t.Context()); err != nil || len(f.tokens) != 0 {
		t.Errorf("%v, %v", f.tokens, err)
	}
}
