package cli

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/fakevault"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

const annJSON = `{
  "user_name": "ann@example.com:6001", "client_id": "1000.CLIENT-OF-ANN-IS-LONG", "client_secret": "s3cret-client",
  "refresh_token": "s3cret-refresh", "access_token": "s3cret-access", "grant_token": "s3cret-grant",
  "expiry_time": 4070908800000, "redirect_url": "https://example.com/cb", "api_domain": "https://www.zohoapis.com"
}`

func TestSaveGetLsRm(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, e env) {
		saved := decode[recordJSON](t, e.ok(t, annJSON, "save", "--json"))
		want := recordJSON{
			ID: saved.ID, UserName: "ann@example.com:6001", ClientID: "1000.CLIENT-OF-ANN-IS-LONG",
			ClientSecret: "[redacted]", RefreshToken: "[redacted]", AccessToken: "[redacted]", GrantToken: "[redacted]",
			ExpiryTime: 4070908800000, RedirectURL: "https://example.com/cb", APIDomain: "https://www.zohoapis.com",
		}
		if saved.ID == "" || saved != want {
			t.Errorf("saved: %+v", saved)
		}
		revealed := want
		revealed.ClientSecret, revealed.RefreshToken = "s3cret-client", "s3cret-refresh"
		revealed.AccessToken, revealed.GrantToken = "s3cret-access", "s3cret-grant"

		for _, args := range [][]string{
			{"get", saved.ID},
			{"get", "--user", want.UserName},
			{"get", "--user", want.UserName, "--client", want.ClientID},
			{"get", "--like", "-"},
		} {
			like := `{"access_token":"s3cret-access"}`
			if got := decode[recordJSON](t, e.ok(t, like, append(args, "--json")...)); got != want {
				t.Errorf("%s: %+v", args, got)
			}
			if got := decode[recordJSON](t, e.ok(t, like, append(args, "--json", "--reveal")...)); got != revealed {
				t.Errorf("%s --reveal: %+v", args, got)
			}
		}
		if got := decode[[]recordJSON](t, e.ok(t, "", "ls", "--json")); len(got) != 1 || got[0] != want {
			t.Errorf("ls: %+v", got)
		}
		if got := decode[[]recordJSON](t, e.ok(t, "", "ls", "--json", "--reveal")); len(got) != 1 || got[0] != revealed {
			t.Errorf("ls --reveal: %+v", got)
		}
		again := e.ok(t, "", "get", saved.ID, "--json", "--reveal")
		if got := decode[recordJSON](t, e.ok(t, again, "save", "--json", "--reveal")); got != revealed {
			t.Errorf("what get printed, saved again: %+v", got)
		}
		if got := e.ok(t, "", "rm", saved.ID); !strings.HasPrefix(got, "removing 1 record of "+e[envStore]+"\nremoved "+saved.ID+"\nremoved 1 of 1 record of ") {
			t.Errorf("rm: %q", got)
		}
		e.fails(t, 3, "", "get", saved.ID)
		e.fails(t, 3, "", "rm", saved.ID)
		if got := decode[[]recordJSON](t, e.ok(t, "", "ls", "--json")); got == nil || len(got) != 0 {
			t.Errorf("ls of nothing: %+v", got)
		}
	})
}

// TestForPeople checks the exact output of save, get, ls and rm without --json.
func TestForPeople(t *testing.T) {
	t.Parallel()
	e := fileStoreEnv(t)
	day := 24 * time.Hour
	expiry := time.Now().Add(30*day + time.Hour).Truncate(time.Second).UTC()
	in := fmt.Sprintf(`{"user_name":"张伟@example.cn:1","client_id":"1000.0123456789ABCDEF0123456789ABCDEF",
		"access_token":"s3cret-access","refresh_token":"s3cret-refresh","expiry_time":%q}`, expiry.Format(time.RFC3339))
	want := `id             1
user_name      张伟@example.cn:1
client_id      1000.0123456789ABCDEF0123456789ABCDEF
client_secret  -
refresh_token  [redacted]
access_token   [redacted]
grant_token    -
expiry_time    ` + expiry.Format("2006-01-02T15:04:05.000Z") + ` (in 30d)
redirect_url   -
api_domain     -
`
	if got := e.ok(t, in, "save"); got != want {
		t.Errorf("save:\n%s", got)
	}
	if got := e.ok(t, "", "get", "1"); got != want {
		t.Errorf("get:\n%s", got)
	}
	want = strings.ReplaceAll(want, "refresh_token  [redacted]", "refresh_token  s3cret-refresh")
	want = strings.ReplaceAll(want, "access_token   [redacted]", "access_token   s3cret-access")
	if got := e.ok(t, "", "get", "1", "--reveal"); got != want {
		t.Errorf("get --reveal:\n%s", got)
	}
	e.ok(t, `{"client_id":"c","grant_token":"s3cret-grant"}`, "save")
	want = `ID  USER               CLIENT       TOKENS          EXPIRES
1   张伟@example.cn:1  1000.0…CDEF  access refresh  in 30d
2   -                  c            grant           -
`
	if got := e.ok(t, "", "ls"); got != want {
		t.Errorf("ls:\n%s", got)
	}
	if got := e.ok(t, "", "rm", "--all", "--yes"); got != "removing all: 2 records of "+e[envStore]+"\nremoved 2 of 2 records of "+e[envStore]+", 0 are left\n"+copiesStay+"\n" {
		t.Errorf("rm --all: %q", got)
	}
	if r := e.tk(t, "", "ls"); r.code != 0 || r.out != "" || r.err != "tokenkeep: there are no records\n" {
		t.Errorf("ls of nothing: %+v", r)
	}
}

func TestRmReportsWhatItDid(t *testing.T) {
	t.Parallel()
	e := fileStoreEnv(t)
	for _, user := range []string{"a", "b"} {
		e.ok(t, `{"user_name":"`+user+`","access_token":"t"}`, "save")
	}
	r := e.tk(t, "", "rm", "1", "77", "2", "--json")
	if got := decode[removal](t, r.out); r.code != 10 || len(got.Removed) != 2 || got.Before != 2 || got.After != 0 || got.Store != e[envStore] || !strings.Contains(r.err, `\"77\"`) {
		t.Errorf("%+v", r)
	}
	if got := e.ok(t, "", "rm", "--all", "--yes", "--json"); !decode[removal](t, got).All {
		t.Errorf("rm --all: %s", got)
	}
}

// TestLsWidth checks that the line of a Zoho record with a derived ID has at most 80 columns.
func TestLsWidth(t *testing.T) {
	t.Parallel()
	e, _ := vaultEnv(t)
	in := fmt.Sprintf(`{"user_name":"ann:601","client_id":"1000.0123456789ABCDEF0123456789ABCDEF",
		"access_token":"a","refresh_token":"r","expiry_time":%d}`, time.Now().Add(55*time.Minute).UnixMilli())
	e.ok(t, in, "save")
	for line := range strings.Lines(e.ok(t, "", "ls")) {
		if n := width(strings.TrimSuffix(line, "\n")); n > 80 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
}

// TestRmTwoIDsOfOneRecord checks that rm counts a record once if two of the given IDs refer to it.
func TestRmTwoIDsOfOneRecord(t *testing.T) {
	t.Parallel()
	e, _ := vaultEnv(t)
	before := decode[recordJSON](t, e.ok(t, `{"client_id":"c","refresh_token":"s3cret"}`, "save", "--json")).ID
	after := decode[recordJSON](t, e.ok(t, `{"id":"`+before+`","user_name":"ann","client_id":"c"}`, "save", "--json")).ID
	if before == after {
		t.Fatalf("the record has the ID %s alone", before)
	}
	for _, args := range [][]string{{"rm", before, after, "--dry-run", "--json"}, {"rm", before, after, "--json"}} {
		if got := decode[removal](t, e.ok(t, "", args...)); got.Before != 1 || len(got.Removed) > 1 || !got.DryRun && got.After != 0 {
			t.Errorf("%s: %+v", args, got)
		}
	}
	e.fails(t, 3, "", "get", before)
}

// TestRmUnreadable checks that rm --json counts a record that cannot be read, because the record
// still exists.
func TestRmUnreadable(t *testing.T) {
	t.Parallel()
	e, server := vaultEnv(t)
	good := decode[recordJSON](t, e.ok(t, `{"user_name":"ann","access_token":"s3cret"}`, "save", "--json")).ID
	bad := decode[recordJSON](t, e.ok(t, `{"user_name":"bob","access_token":"s3cret"}`, "save", "--json")).ID
	server.Inject(func(q *fakevault.Request) *fakevault.Fault {
		if q.Operation == "read" && strings.Contains(q.Path, bad) {
			return &fakevault.Fault{Status: 403, Errors: []string{"permission denied"}}
		}
		return nil
	})
	for _, args := range [][]string{{"rm", bad, good, "--json", "--dry-run"}, {"rm", bad, good, "--json"}} {
		r := e.tk(t, "", args...)
		if got := decode[removal](t, r.out); r.code == 0 || got.Before != 2 || !got.DryRun && (got.After != 1 || !slices.Equal(got.Removed, []string{good})) {
			t.Errorf("%s: %+v", args, r)
		}
	}
}

// TestRmLooksFirst checks that rm announces a removal only of records that exist, and counts a
// repeated ID once.
func TestRmLooksFirst(t *testing.T) {
	t.Parallel()
	e := fileStoreEnv(t)
	for _, user := range []string{"a", "b"} {
		e.ok(t, `{"user_name":"`+user+`","access_token":"t"}`, "save")
	}
	if r := e.tk(t, "", "rm", "zzz"); r.code != 3 || r.out != "" || strings.Count(r.err, `"zzz"`) != 1 || !strings.Contains(r.err, "not found") {
		t.Errorf("no such record: %+v", r)
	}
	if r := e.tk(t, "", "rm", "zzz", "--json"); r.code != 3 || decode[removal](t, r.out).Before != 0 || decode[removal](t, r.out).After != 0 {
		t.Errorf("no such record, as JSON: %+v", r)
	}
	if r := e.tk(t, "", "rm", "zzz", "1"); r.code != 10 || !strings.HasPrefix(r.out, "removing 1 record of ") || !strings.Contains(r.out, "removed 1 of 1 record ") {
		t.Errorf("one of two: %+v", r)
	}
	if got := e.ok(t, "", "rm", "2", "2"); !strings.Contains(got, "removed 1 of 1 record") {
		t.Errorf("the same twice: %s", got)
	}
}

// TestSaveGivesTheUser checks that save, with a user and the tokens of a record without a user,
// gives the record to the user. If the record has another client or issuer, save must create a
// second record, and print a note with the ID of the first.
func TestSaveGivesTheUser(t *testing.T) {
	t.Parallel()
	const token = `{"access_token":"s3cret-a","refresh_token":"s3cret-r","token_type":"Bearer"}`
	const refreshed = `{"access_token":"s3cret-b","refresh_token":"s3cret-r","token_type":"Bearer"}`
	eachStore(t, func(t *testing.T, e env) {
		for _, c := range []struct {
			name          string
			first, second []string
			again         string
			records       int
		}{
			{"no client", nil, nil, token, 1},
			{"a client later", nil, []string{"--client", "c", "--issuer", "https://id.example"}, token, 1},
			{"the client", []string{"--client", "c"}, []string{"--client", "c"}, token, 1},
			{"the refresh token", []string{"--client", "c"}, []string{"--client", "c"}, refreshed, 1},
			{"another client", []string{"--client", "c"}, []string{"--client", "d"}, token, 2},
			{"another issuer", []string{"--issuer", "https://a.example"}, []string{"--issuer", "https://b.example"}, token, 2},
		} {
			first := decode[recordJSON](t, e.ok(t, token, append([]string{"save", "--json"}, c.first...)...))
			r := e.tk(t, c.again, append([]string{"save", "--json", "--user", "me"}, c.second...)...)
			got := decode[[]recordJSON](t, e.ok(t, "", "ls", "--json"))
			noted := strings.Contains(r.err, first.ID+" without a user")
			if r.code != 0 || len(got) != c.records || noted != (c.records > 1) || strings.Contains(r.err, "s3cret") {
				t.Errorf("%s: %d records, want %d: %+v", c.name, len(got), c.records, r)
			}
			e.ok(t, "", "rm", "--all", "--yes")
		}
	})
}

// TestClasses checks the exit code of each class of errors that arguments and input can cause.
func TestClasses(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, e env) {
		e.ok(t, `{"id":"1","user_name":"ann","client_id":"a","refresh_token":"r1"}`, "save")
		e.ok(t, `{"id":"2","user_name":"ann","client_id":"b","refresh_token":"r2"}`, "save")
		long := strings.Repeat("x", 33<<10)
		for _, test := range []struct {
			code  int
			class string
			stdin string
			args  []string
		}{
			{3, "not_found", "", []string{"get", "--user", "bob"}},
			{3, "not_found", `{"user_name":"bob"}`, []string{"save"}},
			{4, "ambiguous", "", []string{"get", "--user", "ann"}},
			{5, "id_mismatch", `{"id":"1","user_name":"bob","refresh_token":"r3"}`, []string{"save"}},
			{6, "invalid", `{}`, []string{"save"}},
			{6, "invalid", `{"user_name":"bob","access_token":"[redacted]"}`, []string{"save"}},
			{6, "invalid", `{"user_name":"bob","access_token":"a\u0000b"}`, []string{"save"}},
			{6, "invalid", `{"user_name":"bob","access_token":"a","expiry_time":-1}`, []string{"save"}},
			{6, "invalid", `{"refresh_token":"r1"}`, []string{"get", "--like", "-"}},
			{6, "invalid", "", []string{"get", strings.Repeat("9", 256)}},
			{6, "too_large", `{"user_name":"bob","access_token":"` + long + `"}`, []string{"save"}},
		} {
			got := e.fails(t, test.code, test.stdin, append(test.args, "--json")...)
			if class := decode[map[string]any](t, got)["class"]; class != test.class {
				t.Errorf("%s of %.40s: class %v, want %s", test.args, test.stdin, class, test.class)
			}
		}
		if text := e.fails(t, 4, "", "get", "--user", "ann"); !strings.Contains(text, `"1"`) || !strings.Contains(text, `"2"`) {
			t.Errorf("ambiguous without the IDs: %s", text)
		}
	})
}

// TestWhoIsDeniedIsToldOfDoctor checks that a command that lacks permissions recommends "doctor
// --permissions", and that "doctor --permissions" itself does not.
func TestWhoIsDeniedIsToldOfDoctor(t *testing.T) {
	t.Parallel()
	const hint = "doctor --permissions"
	e, server := vaultEnv(t)
	e = e.with("VAULT_TOKEN", server.Token("", time.Hour, "default"))
	source := fileStoreEnv(t)
	importSDKFile(t, source)
	record := `{"user_name":"ann","access_token":"a"}`
	for _, args := range [][]string{
		{"ls"}, {"get", "1"}, {"save"}, {"rm", "1"}, {"doctor"}, {"export", filepath.Join(t.TempDir(), "e.csv")},
		{"migrate", "--from", source[envStore], "--to", e[envStore]}, {"migrate", "--from", e[envStore], "--to", source[envStore]},
	} {
		if text := e.fails(t, 7, record, args...); strings.Count(text, hint) != 1 {
			t.Errorf("%v: %s", args, text)
		}
		got := decode[map[string]any](t, e.fails(t, 7, record, append(args, "--json")...))
		if text, _ := got["hint"].(string); !strings.Contains(text, hint) || strings.Contains(got["error"].(string), hint) {
			t.Errorf("%v --json: %v", args, got)
		}
	}
	if text := e.tk(t, "", "doctor", "--permissions").err; strings.Contains(text, hint) {
		t.Errorf("doctor --permissions: %s", text)
	}
	if text := e.fails(t, 7, sdkFile(t), "import", "-"); !strings.Contains(text, hint) {
		t.Errorf("import: %s", text)
	}
	if r := source.tk(t, "", "get", "77", "--json"); r.code != 3 || strings.Contains(r.err, "hint") {
		t.Errorf("%+v", r)
	}
}

// TestTokenGivenAsID checks that errors quote the IDs that stores derive, and do not quote a
// token that is given as an ID.
func TestTokenGivenAsID(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, e env) {
		saved := decode[recordJSON](t, e.ok(t, `{"user_name":"ann","access_token":"a"}`, "save", "--json"))
		e.ok(t, "", "rm", saved.ID)
		token := "1000.0123456789abcdef0123456789abcdef.0123456789abcdef0123456789abcdef"
		for _, command := range []string{"get", "rm"} {
			for _, given := range []string{token, token + "\"\n", strings.Repeat("x"+token, 9)} {
				r := e.tk(t, "", command, given)
				if r.code == 0 || r.err == "" || strings.Contains(r.out+r.err, "0123456789abcdef") {
					t.Errorf("%s: %+v", command, r)
				}
			}
			if text := e.fails(t, 3, "", command, saved.ID); !strings.Contains(text, saved.ID) {
				t.Errorf("%s without the ID: %s", command, text)
			}
		}
	})
}

func TestClassesOfStores(t *testing.T) {
	t.Parallel()
	t.Run("denied", func(t *testing.T) {
		t.Parallel()
		e, _ := vaultEnv(t)
		for _, token := range []string{"", "hvs.wrong"} {
			e.with("VAULT_TOKEN", token).fails(t, 7, "", "ls")
		}
		e.with(envStore, "vault:secret/elsewhere").fails(t, 7, "", "ls")
	})
	t.Run("unavailable", func(t *testing.T) {
		t.Parallel()
		env{}.fails(t, 8, "", "ls", "--store", "mysql://ann@127.0.0.1:1/db")
	})
	t.Run("no such path", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		for _, scheme := range []string{"file:", "sqlite:"} {
			for path, want := range map[string]string{dir: "is a directory", filepath.Join(dir, "nowhere", "x"): "there is no directory"} {
				if text := (env{}).fails(t, 1, `{"user_name":"ann","access_token":"a"}`, "save", "--store", scheme+path); !strings.Contains(text, want) {
					t.Errorf("%s%s: %s", scheme, path, text)
				}
				migrateFails(t, 1, env{envStore: "mem:"}, env{envStore: scheme + path}, "--dry-run")
			}
		}
	})
	t.Run("corrupt", func(t *testing.T) {
		t.Parallel()
		name := writeFile(t, "tokens.csv", "these are no tokens\n")
		if r := (env{}).tk(t, "", "ls", "--json", "--store", "file:"+name); r.code != 9 || r.out != "" {
			t.Errorf("ls --json: %+v", r) // [] would say that there are no records
		}
		env{}.fails(t, 9, "", "ls", "--store", "file:"+name)
		if readFile(t, name) != "these are no tokens\n" {
			t.Error("the file was changed")
		}
	})
	t.Run("partly corrupt", func(t *testing.T) {
		t.Parallel()
		e := fileStoreEnv(t)
		e.ok(t, `{"user_name":"ann","access_token":"s3cret"}`, "save")
		e.ok(t, `{"user_name":"bob","access_token":"s3cret"}`, "save")
		name := strings.TrimPrefix(e[envStore], "file:")
		spoiled := strings.Replace(readFile(t, name), "s3cret,,,", "s3cret,,soon,", 1)
		if err := os.WriteFile(name, []byte(spoiled), 0o600); err != nil {
			t.Fatal(err)
		}
		r := e.tk(t, "", "ls", "--json")
		if got := decode[[]recordJSON](t, r.out); r.code != 9 || len(got) != 1 || got[0].UserName != "bob" {
			t.Errorf("%+v", r)
		}
		exported := filepath.Join(t.TempDir(), "x.csv")
		if text := e.fails(t, 10, "", "export", exported); !strings.Contains(text, "1 record") || !strings.Contains(text, "line 2") {
			t.Errorf("export: %s", text)
		}
		if text := readFile(t, exported); !strings.Contains(text, "bob") {
			t.Errorf("exported: %s", text)
		}
	})
}

func TestParseRecord(t *testing.T) {
	t.Parallel()
	want := tokenstore.Token{UserName: "ann", AccessToken: "a", ExpiresAt: time.UnixMilli(1767225600123).UTC()}
	for _, text := range []string{
		`{"user_name":"ann","access_token":"a","expiry_time":1767225600123}`,
		`{"user_name":"ann","access_token":"a","expiry_time":"1767225600123"}`,
		`{"user_name":"ann","access_token":"a","expiry_time":"2026-01-01T00:00:00.123Z"}`,
		`{"user_name":"ann","access_token":"a","expiry_time":"2026-01-01T01:00:00.123+01:00","id":"","api_domain":null}`,
		"\ufeff{\"user_name\":\"ann\",\r\n\"access_token\":\"a\",\"expiry_time\":1767225600123}\r\n",
	} {
		if got, err := parseRecord([]byte(text)); err != nil || got.Fields() != want.Fields() {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, test := range []struct{ text, want string }{
		{"", "empty"},
		{" \n", "empty"},
		{"s3cret", "not JSON"},
		{`{"access_token":"s3cret"`, "not JSON"},
		{`{"access_token":"s3cret"} {}`, "not JSON"},
		{"{\"access_token\":\"s3cret\xff\"}", "not JSON"},
		{`["s3cret"]`, "not a JSON object"},
		{`"s3cret"`, "not a JSON object"},
		{`{"AccessToken":"s3cret"}`, `"AccessToken" is not known; there are id,`},
		{`{"s3cret":"x"}`, "with an odd name is not known"},
		{`{"access_token":"s3cret","access_token":"s3cret"}`, `"access_token" stands twice`},
		{`{"access_token":["s3cret"]}`, `"access_token" is not a string`},
		{`{"id":5}`, `"id" is not a string`},
		{`{"access_token":"s3cret\ud800"}`, `"access_token" has characters that were damaged`},
		{`{"expiry_time":"s3cret"}`, `"expiry_time" is neither`},
		{`{"expiry_time":1e3}`, `"expiry_time" is neither`},
		{`{"expiry_time":["s3cret"]}`, `"expiry_time" is neither`},
		{`{"expiry_time":12345678901234567890}`, `"expiry_time" is neither`},
	} {
		_, err := parseRecord([]byte(test.text))
		if classOf(err).name != "invalid" || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", test.text, err)
		}
	}
}

// TestNotTyped checks that a command reads input without a prompt unless the input is a terminal.
func TestNotTyped(t *testing.T) {
	t.Parallel()
	if text := (env{}).fails(t, 2, "", "save", "--store", "mem:"); strings.Contains(text, "Ctrl-D") {
		t.Errorf("from a pipe: %s", text)
	}
	record, err := os.Open(writeFile(t, "record.json", `{"user_name":"ann","access_token":"a"}`))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = record.Close() }()
	var errs strings.Builder
	if code := run(t.Context(), []string{"save", "--store", "mem:"}, env{}.lookup, record, io.Discard, &errs); code != 0 || errs.String() != "" {
		t.Errorf("from a file: exit code %d, %s", code, &errs)
	}
}

// TestSaveDash checks that save accepts the argument "-". An empty standard input, or the null
// device, must be a usage error without a prompt.
func TestSaveDash(t *testing.T) {
	t.Parallel()
	e := fileStoreEnv(t)
	e.ok(t, `{"user_name":"ann","access_token":"a"}`, "save", "-")
	e.fails(t, 2, `{"user_name":"ann","access_token":"a"}`, "save", "-", "-")
	e.fails(t, 2, `{"user_name":"ann","access_token":"a"}`, "save", "record.json")
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = null.Close() }()
	for _, in := range []io.Reader{null, strings.NewReader(""), strings.NewReader(" \n")} {
		var errs strings.Builder
		code := run(t.Context(), []string{"save"}, e.lookup, in, io.Discard, &errs)
		if code != 2 || !strings.HasPrefix(errs.String(), "tokenkeep: standard input is empty") {
			t.Errorf("exit code %d: %s", code, &errs)
		}
	}
}

func TestReadRecordFromFile(t *testing.T) {
	t.Parallel()
	e := fileStoreEnv(t)
	e.ok(t, annJSON, "save")
	name := writeFile(t, "like.json", `{"access_token":"s3cret-access"}`)
	if got := e.ok(t, "", "get", "--like", name); !strings.Contains(got, "ann@example.com:6001") {
		t.Errorf("get --like FILE: %s", got)
	}
	e.fails(t, 1, "", "get", "--like", name+".not")
	e.fails(t, 6, strings.Repeat(" ", maxRecord+1), "save")
}

func TestClassOf(t *testing.T) {
	t.Parallel()
	for _, c := range classes {
		got := classOf(fmt.Errorf("outer: %w", tokenstore.NewError("save", "x", "1", c.is)))
		if got.code != c.code || got.name != c.name {
			t.Errorf("%v: %d %s, want %d %s", c.is, got.code, got.name, c.code, c.name)
		}
	}
	if c := classOf(os.ErrNotExist); c.code != 1 || c.name != "other" {
		t.Errorf("another error: %+v", c)
	}
}

func TestTable(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for _, test := range []struct {
		d    time.Duration
		want string
	}{
		{90 * time.Second, "in 1m"}, {time.Second, "in 1s"}, {-time.Second, "1s ago"}, {47 * time.Hour, "in 47h"}, {-50 * time.Hour, "2d ago"},
	} {
		if got := relative(now.Add(test.d), now); got != test.want {
			t.Errorf("relative %v: %s, want %s", test.d, got, test.want)
		}
	}
	for in, want := range map[string]string{
		"ann":              "ann",
		"o'neil, \"x\" 张伟": "o'neil, \"x\" 张伟",
		"a\x1b[2Jb":        `"a\x1b[2Jb"`,
		"a\u202eb":         `"a\u202eb"`,
		"a\nb":             `"a\nb"`,
		"a\xffb":           `"a\xffb"`,
	} {
		if got := clean(in); got != want {
			t.Errorf("clean(%q) = %s, want %s", in, got, want)
		}
	}
	if w := width("e\u0301张ｆ"); w != 5 {
		t.Errorf("width %d, want 5", w)
	}
}
