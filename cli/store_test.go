package cli

import (
	"database/sql"
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/go-sql-driver/mysql"

	"github.com/tokenkeep/tokenkeep/cli/internal/files"
	"github.com/tokenkeep/tokenkeep/internal/fakevault"
)

func TestVaultEnvironment(t *testing.T) {
	t.Parallel()
	e, server := vaultEnv(t)
	token := e["VAULT_TOKEN"]

	t.Run("token of vault login", func(t *testing.T) {
		t.Parallel()
		home := t.TempDir()
		if err := os.WriteFile(filepath.Join(home, ".vault-token"), []byte(token+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		e.with("VAULT_TOKEN", "").with("HOME", home).ok(t, "", "rm", "--all", "--yes")
		e.with("VAULT_TOKEN", "").with("HOME", t.TempDir()).fails(t, 7, "", "ls")
	})
	t.Run("namespace", func(t *testing.T) {
		t.Parallel()
		server.Mount("team", "kv", fakevault.Config{})
		e := e.with("VAULT_NAMESPACE", "team").with("VAULT_TOKEN", fakevault.RootToken).with(envStore, "vault:kv/oauth")
		e.ok(t, `{"user_name":"ann","access_token":"a"}`, "save")
		e.ok(t, "", "get", "--user", "ann")
		e.with("VAULT_NAMESPACE", "").fails(t, 14, "", "get", "--user", "ann")
	})
	t.Run("mount with a slash", func(t *testing.T) {
		t.Parallel()
		server.Mount("", "group/kv", fakevault.Config{})
		e := e.with("VAULT_TOKEN", fakevault.RootToken).with(envStore, "vault:group/kv//oauth/crm")
		e.ok(t, `{"user_name":"ann","access_token":"a"}`, "save")
		e.ok(t, "", "get", "--user", "ann")
	})
	t.Run("address", func(t *testing.T) {
		t.Parallel()
		text := e.with("VAULT_ADDR", "http://ann:s3cret@host:port:/").fails(t, 2, "", "ls")
		if !strings.Contains(text, "VAULT_ADDR") || strings.Contains(text, "s3cret") {
			t.Errorf("message: %s", text)
		}
	})
}

func TestKeys(t *testing.T) {
	t.Parallel()
	e, server := vaultEnv(t)
	e = e.with("VAULT_TOKEN", fakevault.RootToken)
	plain := e.with(envStore, "vault:secret/keys")
	plain.ok(t, `{"user_name":"before","access_token":"s3cret-before"}`, "save")

	name := filepath.Join(t.TempDir(), "my keys.json")
	text := e.ok(t, "", "keys", "new", name)
	if !strings.Contains(text, "export "+envKeys+"='"+name+"'") {
		t.Errorf("keys new: %s", text)
	}
	if info, err := os.Stat(name); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	written := readFile(t, name)
	e.fails(t, 2, "", "keys", "new", name)
	if readFile(t, name) != written {
		t.Error("keys were replaced")
	}

	plain.with(envKeys, name).fails(t, 15, `{"user_name":"ann@example.com","access_token":"a"}`, "save") // the store has a record that was written without keys
	plain.with(envKeys, name).fails(t, 15, "", "get", "--user", "ann@example.com")
	plain = e.with(envStore, "vault:secret/keyed")
	keyed := plain.with(envKeys, name)
	server.Reset()
	saved := decode[recordJSON](t, keyed.ok(t, `{"user_name":"ann@example.com","access_token":"s3cret-access"}`, "save", "--json"))
	for _, q := range server.Requests() { // base64 has no "@", and a given sequence of six characters does not occur by chance
		if strings.Contains(string(q.Body), "s3cret") || strings.Contains(string(q.Body), "ann@") {
			t.Errorf("%s %s is not encrypted", q.Operation, q.Path)
		}
	}
	if got := keyed.ok(t, `{"access_token":"s3cret-access"}`, "get", "--like", "-", "--reveal"); !strings.Contains(got, "s3cret-access") {
		t.Errorf("get: %s", got)
	}
	plain.fails(t, 15, "", "get", "--user", "ann@example.com")
	plain.fails(t, 15, `{"user_name":"ann@example.com","access_token":"a"}`, "save")
	plain.fails(t, 9, "", "get", saved.ID)
	if got := decode[[]recordJSON](t, keyed.ok(t, "", "ls", "--json")); len(got) != 1 {
		t.Errorf("there are %d records", len(got))
	}
	rotated := writeFile(t, "rotated.json", strings.NewReplacer(
		`"encryption_keys": [`, `"encryption_keys": ["`+testKey(1, 32)+`",`,
		`"index_keys": [`, `"index_keys": ["`+testKey(2, 32)+`",`,
	).Replace(written))
	if got := plain.with(envKeys, rotated).ok(t, `{"access_token":"s3cret-access"}`, "get", "--like", "-"); !strings.Contains(got, saved.ID) {
		t.Errorf("with further keys: %s", got)
	}
	if got := decode[map[string]string](t, e.ok(t, "", "keys", "new", name+".2", "--json")); got["file"] != name+".2" {
		t.Errorf("keys new --json: %v", got)
	}
}

func testKey(fill byte, size int) string {
	return base64.StdEncoding.EncodeToString([]byte(strings.Repeat(string(rune(fill)), size)))
}

func TestKeysFileIsChecked(t *testing.T) {
	t.Parallel()
	secret := testKey('s', 32)
	for _, test := range []struct{ text, want string }{
		{"", "not a JSON object"},
		{`{"v":1,"name_key":"` + secret, "not a JSON object"},
		{`{"v":1,"name_key":"` + secret + `"} {}`, "not a JSON object"},
		{`{"v":1,"name_key":"` + secret + `!"}`, "not a JSON object"},
		{`{"v":1,"` + secret + `":1}`, "not a JSON object"},
		{`{"v":2,"name_key":"` + secret + `"}`, "version 2"},
		{`{"v":1}`, "no keys"},
		{`{"v":1,"name_key":"` + secret + `","allow_plain":true}`, "allow_plain goes with"},
		{`{"v":1,"name_key":"` + testKey('s', 15) + `"}`, "15 bytes"},
		{`{"v":1,"name_keys":[null]}`, "no keys"},
		{`{"v":1,"name_key":"` + secret + `","name_keys":["` + secret + `"]}`, "both"},
		{`{"v":1,"index_keys":["` + testKey('s', 8) + `"]}`, "8 bytes"},
		{`{"v":1,"encryption_keys":["` + secret + `","` + testKey('s', 16) + `"]}`, "encryption key 2"},
		{`{"v":1,"encryption_keys":[]}`, "is empty"},
		{strings.Repeat(" ", 1<<20+1), "too long"},
	} {
		e := env{envKeys: writeFile(t, "keys.json", test.text)}
		got := e.fails(t, 2, "", "ls", "--store", "mem:")
		if !strings.Contains(got, test.want) || strings.Contains(got, secret) || strings.Contains(got, testKey('s', 15)) {
			t.Errorf("%.60s: %s", test.text, got)
		}
	}
	env{envKeys: filepath.Join(t.TempDir(), "none")}.fails(t, 2, "", "ls", "--store", "mem:")

	if runtime.GOOS == "windows" {
		return
	}
	name := writeFile(t, "keys.json", `{"v":1,"name_key":"`+secret+`"}`)
	for _, mode := range []os.FileMode{0o640, 0o604, 0o620, 0o601} {
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
		if got := (env{envKeys: name}).fails(t, 2, "", "ls", "--store", "mem:"); !strings.Contains(got, "chmod 600") {
			t.Errorf("mode %o: %s", mode, got)
		}
	}
	if err := os.Chmod(name, 0o400); err != nil {
		t.Fatal(err)
	}
	if r := (env{envKeys: name}).tk(t, "", "ls", "--store", "mem:"); r.code != 0 {
		t.Errorf("mode 400: %s", r.err)
	}
}

// TestKeysOfTokenFile checks that the program prints a note that a token file is not encrypted, if
// the environment names a keys file.
func TestKeysOfTokenFile(t *testing.T) {
	t.Parallel()
	e := env{envStore: "file:" + writeFile(t, "tokens.csv", header), envKeys: "unread"}
	if r := e.tk(t, "", "ls", "--json"); r.code != 0 || !strings.Contains(decode[map[string]string](t, r.err)["note"], "not encrypted") {
		t.Errorf("%+v", r)
	}
}

func TestSQLiteFile(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "with space? and %41.db")
	e := env{envStore: "sqlite:" + name + "?table=tokens"}
	e.ok(t, `{"user_name":"ann","access_token":"a"}`, "save")
	if info, err := os.Stat(name); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info, err)
	}
	if got := decode[[]recordJSON](t, e.ok(t, "", "ls", "--json")); len(got) != 1 {
		t.Errorf("%d records", len(got))
	}
	if text := (env{envStore: "sqlite:" + name}).fails(t, 1, "", "ls"); !strings.Contains(text, "there is no table oauthtoken") {
		t.Errorf("another table: %s", text)
	}
	to := fileStoreEnv(t)
	_, text := migrateFails(t, 1, env{envStore: "sqlite:" + name + ".not"}, to)
	if !strings.Contains(text, "there is no file") || files.Exists(name+".not") {
		t.Errorf("message: %s", text)
	}
	migrateFails(t, 1, env{envStore: "file:" + name + ".not"}, to)
	env{envStore: "sqlite:" + name + "?table=a-b"}.fails(t, 2, "", "ls")
	env{envStore: "sqlite:" + name + "?tables=a"}.fails(t, 2, "", "ls")
}

// TestMissingStore checks that commands that need an existing store fail if the store does not
// exist, and create no file.
func TestMissingStore(t *testing.T) {
	t.Parallel()
	keys := filepath.Join(t.TempDir(), "keys.json")
	env{}.ok(t, "", "keys", "new", keys)
	for _, scheme := range []string{"file", "sqlite"} {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			e := env{envStore: scheme + ":" + filepath.Join(dir, "typo"), envKeys: keys}
			for _, args := range [][]string{
				{"ls"}, {"ls", "--json"}, {"get", "1"}, {"rm", "1"}, {"rm", "--all", "--yes"}, {"export", filepath.Join(dir, "e.csv")},
				{"doctor"}, {"doctor", "--repair"}, {"doctor", "--permissions"}, {"rekey"}, {"migrate", "--from", e[envStore], "--to", "mem:"},
				{"migrate", "--delete-source", "--from", e[envStore], "--to", "mem:"},
			} {
				r := e.tk(t, "", args...)
				if r.code != 1 || r.out != "" || !strings.Contains(r.err, "there is no file") {
					t.Errorf("%v: %+v", args, r)
				}
			}
			if names := listing(t, dir); len(names) != 0 {
				t.Errorf("made %v", names)
			}
		})
	}
	for name, text := range map[string]string{"an empty file": "", "another table": "make"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := writeFile(t, "empty.csv", "")
			if text != "" {
				env{envStore: "sqlite:" + path + "?table=other"}.ok(t, `{"user_name":"ann","access_token":"a"}`, "save")
			}
			before := readFile(t, path)
			for _, args := range [][]string{{"ls"}, {"get", "1"}, {"rm", "--all", "--yes"}, {"doctor"}, {"doctor", "--repair"}} {
				got := env{envStore: "sqlite:" + path}.fails(t, 1, "", args...)
				if !strings.Contains(got, "there is no table") {
					t.Errorf("%v: %s", args, got)
				}
			}
			if readFile(t, path) != before {
				t.Error("the file has changed")
			}
		})
	}
	t.Run("mysql", func(t *testing.T) {
		t.Parallel()
		e := mysqlEnv(t)
		for range 2 {
			for _, args := range [][]string{{"ls"}, {"rm", "--all", "--yes"}, {"doctor", "--repair"}} {
				if got := e.fails(t, 1, "", args...); !strings.Contains(got, "there is no table") {
					t.Errorf("%v: %s", args, got)
				}
			}
		}
	})
}

// TestReadingMakesNoTable checks that reading the table of an SDK does not change its SQLite
// database.
func TestReadingMakesNoTable(t *testing.T) {
	t.Parallel()
	path := writeFile(t, "zohooauth.db", readFile(t, "../tokenstore/sqlstore/testdata/zohooauth.db"))
	before := readFile(t, path)
	sqlite, to := env{envStore: "sqlite:" + path}, fileStoreEnv(t)
	sqlite.ok(t, "", "ls")
	sqlite.ok(t, "", "export", filepath.Join(t.TempDir(), "e.csv"))
	migrates(t, sqlite, to)
	importSDKFile(t, to)
	migrates(t, to, sqlite, "--dry-run", "--on-conflict", "source")
	if readFile(t, path) != before || len(listing(t, filepath.Dir(path))) != 1 {
		t.Error("the database has changed")
	}
}

// TestReadingMakesNoTableInMySQL checks that reading the table of an SDK creates no table in its
// MySQL database.
func TestReadingMakesNoTableInMySQL(t *testing.T) {
	t.Parallel()
	e, from := mysqlEnv(t), fileStoreEnv(t)
	importSDKFile(t, from)
	migrates(t, from, e)
	config, err := mysql.ParseDSN(strings.TrimPrefix(e[envStore], "mysql:"))
	if err != nil {
		t.Fatal(err)
	}
	config.Passwd = e[envMySQLPassword]
	db, err := sql.Open("mysql", config.FormatDSN())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	tables := func() (n int) {
		t.Helper()
		if err := db.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = DATABASE()").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if tables() != 3 {
		t.Fatalf("%d tables, want the records', that of the notes and that of further fields", tables())
	}
	if _, err := db.ExecContext(t.Context(), "DROP TABLE oauthtoken_tokenkeep"); err != nil {
		t.Fatal(err)
	}
	e.ok(t, "", "ls")
	migrates(t, e, fileStoreEnv(t))
	migrates(t, from, e, "--dry-run", "--on-conflict", "source")
	if tables() != 2 {
		t.Error("reading has made a table")
	}
	e.ok(t, `{"user_name":"new","access_token":"new"}`, "save")
	if tables() != 3 {
		t.Error("writing has made no table")
	}
}

func listing(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// TestMySQLNames checks that invalid names of databases are usage errors that do not quote the
// name.
func TestMySQLNames(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, want string }{
		{"//ann:s3cret@h/d", envMySQLPassword},
		{"//ann:@h/d", envMySQLPassword},
		{"ann:s3cret@tcp(h)/d", envMySQLPassword},
		{"//ann@h", "needs a database"},
		{"ann@tcp(h)/", "needs a database"},
		{"//", "must have the form"},
		{"//ann@h:s3cret/d", "must have the form"},
		{"s3cret", "must have the form"},
		{"//ann@h/d?%zz", "must have the form"},
	} {
		text := env{}.fails(t, 2, "", "ls", "--store", "mysql:"+test.name)
		if !strings.Contains(text, test.want) || strings.Contains(text, "s3cret") {
			t.Errorf("%s: %s", test.name, text)
		}
	}
}

// TestEndpoints checks that endpoints across a network require HTTPS, and that malformed URLs of
// stores are rejected.
func TestEndpoints(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"http://sm.example.com", "http://10.0.0.1:80", "http://127.0.0.1.example.com", "ftp://localhost", "https://", "https://u:s3cret@h", "://"} {
		for _, store := range []string{"awssm:x?region=r&endpoint=", "gcpsm:p/x?endpoint="} {
			if said := (env{}).fails(t, 2, "", "ls", "--store", store+text); strings.Contains(said, "s3cret") {
				t.Errorf("%s: %s", text, said)
			}
		}
	}
	for _, store := range []string{"awssm:x?regions=r", "awssm:x?", "awssm:x?region=a&region=b", "awssm:?region=r", "gcpsm:p", "gcpsm:/x", "gcpsm:p/x?kms=k"} {
		env{}.fails(t, 2, "", "ls", "--store", store)
	}
}

// TestAWSEnvironment checks that requests are signed with the credentials and the region in the
// environment.
func TestAWSEnvironment(t *testing.T) {
	t.Parallel()
	e, server := awsEnv(t)
	e = e.with("AWS_ACCESS_KEY_ID", "AKIATOKENKEEP").with("AWS_SECRET_ACCESS_KEY", "s3cret").with("AWS_REGION", "eu-north-1")
	e[envStore] = strings.Replace(e[envStore], "region=eu-central-1&", "", 1)
	e.ok(t, "", "rm", "--all", "--yes")
	for _, q := range server.Requests() {
		if q.AccessKey != "AKIATOKENKEEP" || q.Region != "eu-north-1" {
			t.Errorf("%s: %s in %s", q.Operation, q.AccessKey, q.Region)
		}
	}
}

// TestNoCredentialsOfAWS checks that missing credentials are a usage error.
func TestNoCredentialsOfAWS(t *testing.T) {
	nothing := filepath.Join(t.TempDir(), "nothing")
	for name, value := range map[string]string{
		"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": nothing, "AWS_SHARED_CREDENTIALS_FILE": nothing,
		envAWSKeyID: "", envAWSSecret: "", "AWS_PROFILE": "", "AWS_WEB_IDENTITY_TOKEN_FILE": "",
		"AWS_CONTAINER_CREDENTIALS_FULL_URI": "", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "",
	} {
		t.Setenv(name, value)
	}
	if text := (env{}).fails(t, 2, "", "ls", "--store", "awssm:x?region=eu-central-1"); !strings.Contains(text, "no AWS credentials") {
		t.Errorf("message: %s", text)
	}
}

func TestFileURLs(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "with space?.csv")
	e := env{envStore: "file:" + name}
	e.ok(t, `{"user_name":"ann","access_token":"a"}`, "save")
	if !files.Exists(name) {
		t.Error("the file is elsewhere")
	}
	if runtime.GOOS != "windows" {
		env{}.ok(t, "", "get", "1", "--store", "file://"+name)
	}
	env{envStore: "ftp:x"}.ok(t, "", "get", "1", "--store", "file:"+name)
}

// TestServerWithoutTLS checks the error about a server without TLS whose address says https. The
// error must say that the address is wrong, whether the server speaks http or is another service.
// The client of Vault must not retry.
func TestServerWithoutTLS(t *testing.T) {
	t.Parallel()
	plain := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(plain.Close)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	var accepted atomic.Int64
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			accepted.Add(1)
			_, _ = io.WriteString(c, "220 this is another service\r\n")
			_ = c.Close()
		}
	}()
	for _, addr := range []string{plain.Listener.Addr().String(), listener.Addr().String()} {
		accepted.Store(0)
		vault := env{envStore: "vault:secret/oauth", "VAULT_ADDR": "https://" + addr, "VAULT_TOKEN": "t"}
		if text := vault.fails(t, 14, "", "ls"); !strings.Contains(text, "its address says https") || accepted.Load() > 1 {
			t.Errorf("Vault, after %d connections: %s", accepted.Load(), text)
		}
		aws := env{envStore: "awssm:oauth?region=eu-central-1&endpoint=https://" + addr, envAWSKeyID: "k", envAWSSecret: "s"}
		if text := aws.fails(t, 14, "", "ls"); !strings.Contains(text, "its address says https") {
			t.Errorf("AWS: %s", text)
		}
	}
}
