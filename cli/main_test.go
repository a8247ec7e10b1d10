package cli

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/go-sql-driver/mysql"
	"github.com/hashicorp/vault/api"

	"github.com/tokenkeep/tokenkeep/cli/scheme"
	"github.com/tokenkeep/tokenkeep/cli/stores"
	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/internal/fakeaws"
	"github.com/tokenkeep/tokenkeep/internal/fakegcp"
	"github.com/tokenkeep/tokenkeep/internal/fakevault"
	"github.com/tokenkeep/tokenkeep/internal/mariadb"
	"github.com/tokenkeep/tokenkeep/vaultstore"
)

// envAsMain makes the test binary behave like the program.
const envAsMain = "TOKENKEEP_TEST_AS_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(envAsMain) != "" {
		Main(stores.All()...)
	}
	code := m.Run()
	if s := mysqlServer.running; s != nil {
		if err := s.Stop(); err != nil {
			panic(err)
		}
	}
	os.Exit(code)
}

const (
	envMySQLPassword  = "TOKENKEEP_MYSQL_PASSWORD"
	envAWSKeyID       = "AWS_ACCESS_KEY_ID"
	envAWSSecret      = "AWS_SECRET_ACCESS_KEY"
	gcpEnvCredentials = "GOOGLE_APPLICATION_CREDENTIALS"
)

func allSchemes() []scheme.Scheme { return slices.Concat(builtIn(), stores.All()) }

func run(ctx context.Context, args []string, lookup func(string) (string, bool), stdin io.Reader, stdout, stderr io.Writer) int {
	return Run(ctx, Process{args, lookup, stdin, stdout, stderr}, stores.All()...)
}

func vaultClient(e env) (*api.Client, error) {
	config := api.DefaultConfig()
	config.Address = e["VAULT_ADDR"]
	client, err := api.NewClient(config)
	if err == nil {
		client.SetToken(e["VAULT_TOKEN"])
	}
	return client, err
}

// A result is the exit code and the output of one run of the program.
type result struct {
	code     int
	out, err string
}

// An env is a set of environment variables.
type env map[string]string

// get returns the value of a variable. It ignores the environment of the process.
func (e env) get(name string) string { return e[name] }

func (e env) lookup(name string) (string, bool) {
	value, set := e[name]
	return value, set
}

// with returns a copy of e with a variable added or replaced.
func (e env) with(name, value string) env {
	e = maps.Clone(e)
	if e == nil {
		e = env{}
	}
	e[name] = value
	return e
}

// tk runs the program with stdin as its standard input.
func (e env) tk(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	var out, errs bytes.Buffer
	code := run(t.Context(), args, e.lookup, strings.NewReader(stdin), &out, &errs)
	return result{code, out.String(), errs.String()}
}

// ok runs the program, which must succeed and print nothing on standard error. It returns the
// output.
func (e env) ok(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	r := e.tk(t, stdin, args...)
	if r.code != 0 || r.err != "" {
		t.Fatalf("tokenkeep %s: exit code %d\n%s", strings.Join(args, " "), r.code, r.err)
	}
	return r.out
}

// fails runs the program, which must fail with the code, and returns its standard error.
func (e env) fails(t *testing.T, code int, stdin string, args ...string) string {
	t.Helper()
	r := e.tk(t, stdin, args...)
	if r.code != code {
		t.Fatalf("tokenkeep %s: exit code %d, want %d\n%s%s", strings.Join(args, " "), r.code, code, r.out, r.err)
	}
	if r.err == "" {
		t.Errorf("tokenkeep %s: exit code %d without a word", strings.Join(args, " "), r.code)
	}
	return r.err
}

// decode decodes text, which must be a single JSON document.
func decode[T any](t *testing.T, text string) T {
	t.Helper()
	var v T
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return v
}

// fileStoreEnv returns an environment with a new token file as the store.
func fileStoreEnv(t *testing.T) env {
	t.Helper()
	return env{envStore: "file:" + filepath.Join(t.TempDir(), "tokens.csv")}
}

// vaultEnv returns an environment with a new fake of Vault as the store, and the fake.
func vaultEnv(t *testing.T) (env, *fakevault.Server) {
	t.Helper()
	server := fakevault.New(nil)
	t.Cleanup(server.Close)
	if err := server.Policy("", "test", vaultstore.Policy("secret", "oauth/test")); err != nil {
		t.Fatal(err)
	}
	return env{
		envStore:      "vault:secret/oauth/test",
		"VAULT_ADDR":  server.URL,
		"VAULT_TOKEN": server.Token("", 0, "test"),
	}, server
}

// A kind describes a kind of store whose records outlive the process.
type kind struct {
	name string
	open func(*testing.T) env // returns the environment of a new store
}

// storeKinds lists all kinds of stores whose records outlive the process. The first three have
// no driver.
var storeKinds = []kind{
	{"file", fileStoreEnv},
	{"sqlite", func(t *testing.T) env { return env{envStore: "sqlite:" + filepath.Join(t.TempDir(), "tokens.db")} }},
	{"mysql", mysqlEnv},
	{"vault", func(t *testing.T) env {
		e, _ := vaultEnv(t)
		return e
	}},
	{"awssm", func(t *testing.T) env {
		e, _ := awsEnv(t)
		return e
	}},
	{"localstack", localStackEnv},
	{"gcpsm", func(t *testing.T) env {
		e, _ := gcpEnv(t)
		return e
	}},
	{"k8s", func(t *testing.T) env {
		e, _ := k8sEnv(t)
		return e
	}},
}

// awsEnv returns an environment with a new fake of AWS Secrets Manager as the store, and the
// fake.
func awsEnv(t *testing.T) (env, *fakeaws.Server) { return awsEnvOn(t, nil) }

// localStackEnv is like awsEnv, with a fake that behaves like LocalStack.
func localStackEnv(t *testing.T) env {
	e, _ := awsEnvOn(t, &fakeaws.Options{LocalStack: true})
	return e
}

func awsEnvOn(t *testing.T, opts *fakeaws.Options) (env, *fakeaws.Server) {
	t.Helper()
	server := fakeaws.New(opts)
	t.Cleanup(server.Close)
	return env{envStore: "awssm:oauth/test?region=eu-central-1&endpoint=" + server.URL}, server
}

// gcpEnv returns an environment with a new fake of Google Secret Manager as the store, and the
// fake.
func gcpEnv(t *testing.T) (env, *fakegcp.Server) {
	t.Helper()
	server := fakegcp.New(nil)
	t.Cleanup(server.Close)
	return env{envStore: "gcpsm:my-project/oauth?endpoint=http://" + server.Addr}, server
}

// mysqlServer is a server that all tests share. Each test has a separate database. The first call
// to mysqlEnv starts the server.
var mysqlServer struct {
	once    sync.Once
	running *mariadb.Server
	err     error
	count   atomic.Int64
}

// mysqlInstalled reports whether the tests can use or start a MySQL server.
func mysqlInstalled() bool {
	_, _, err := mariadb.Find()
	return err == nil || os.Getenv(mariadb.EnvDSN) != ""
}

// mysqlEnv returns an environment with a new MySQL database. If no server is installed,
// mysqlEnv skips the test, unless TOKENKEEP_REQUIRE contains mysql.
func mysqlEnv(t *testing.T) env {
	t.Helper()
	s := &mysqlServer
	s.once.Do(func() { s.running, s.err = mariadb.Start(context.Background()) })
	switch {
	case errors.Is(s.err, mariadb.ErrNotInstalled) && !strings.Contains(os.Getenv("TOKENKEEP_REQUIRE"), "mysql"):
		t.Skip(s.err)
	case s.err != nil:
		t.Fatal(s.err)
	}
	config, err := mysql.ParseDSN(s.running.DSN(""))
	if err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("mysql", s.running.DSN(""))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	name := fmt.Sprintf("tokenkeep_cmd_%d_%d", os.Getpid(), s.count.Add(1))
	if _, err := db.ExecContext(t.Context(), "CREATE DATABASE "+name+" CHARACTER SET utf8mb4"); err != nil {
		t.Fatal(err)
	}
	return env{
		envStore:         fmt.Sprintf("mysql:%s@%s(%s)/%s", config.User, config.Net, config.Addr, name),
		envMySQLPassword: config.Passwd,
	}
}

// eachStore runs a test on every kind of store in storeKinds.
func eachStore(t *testing.T, test func(*testing.T, env)) {
	t.Helper()
	for _, k := range storeKinds {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			test(t, k.open(t))
		})
	}
}

// writeFile writes a file that only its owner can read, and returns its name.
func writeFile(t *testing.T, name, text string) string {
	t.Helper()
	name = filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestUsage(t *testing.T) {
	t.Parallel()
	store := "--store=mem:"
	tests := []struct {
		args []string
		want string // a part of the message
	}{
		{[]string{"frob"}, `there is no command "frob"`},
		{[]string{"keys", "old"}, `there is no command "old"`},
		{[]string{"help", "frob"}, `there is no command or topic "frob"`},
		{[]string{"help", "keys", "old"}, `there is no command or topic "old"`},
		{[]string{"help", "S3cret"}, "no command or topic of that name"},
		{[]string{"ls", "--frob"}, "unknown flag: --frob"},
		{[]string{"ls", "-x"}, "unknown flag: -x"},
		{[]string{"ls", "--json=perhaps"}, "--json takes true or false"},
		{[]string{"ls", "--store"}, "--store needs a value"},
		{[]string{"ls", "--=x"}, "a flag is malformed"},
		{[]string{"ls"}, "no store"},
		{[]string{"ls", store, "extra"}, "takes no arguments"},
		{[]string{"ls", store, "--reveal"}, "--json only"},
		{[]string{"ls", "--store", "tokens.csv"}, "no scheme"},
		{[]string{"ls", "--store", "ftp:x"}, `no kind of store called "ftp"`},
		{[]string{"ls", "--store", "mem:x"}, "takes nothing after"},
		{[]string{"ls", "--store", "file:"}, "needs a path"},
		{[]string{"ls", "--store", "file:x?dialect=cobol"}, "no such dialect"},
		{[]string{"ls", "--store", "file:x?dialct=php"}, `file: has no parameter "dialct": it has dialect`},
		{[]string{"ls", "--store", "vault:secret"}, "vault:MOUNT/PREFIX"},
		{[]string{"ls", "--store", "k8s:default"}, "k8s:NAMESPACE/PREFIX"},
		{[]string{"ls", "--store", "k8s:default/crm"}, "no cluster"},
		{[]string{"get", store}, "one of"},
		{[]string{"get", store, "1", "--user", "ann"}, "one of"},
		{[]string{"get", store, "1", "2"}, "get takes one ID, and 2 are given"},
		{[]string{"get", store, "1", "--client", "c"}, "--client, --issuer and --resource require --user"},
		{[]string{"rm", store}, "IDs, or --all"},
		{[]string{"rm", store, "1", "--all"}, "IDs, or --all"},
		{[]string{"rm", store, "--all"}, "--yes"},
		{[]string{"import", store}, "import takes one FILE, and 0 are given"},
		{[]string{"import", store, "-", "--dialect", "cobol"}, "no such dialect"},
		{[]string{"export", store, "-"}, "--reveal"},
		{[]string{"export", store, "-", "--reveal", "--json"}, "not both"},
		{[]string{"export", store, "x", "--dialect", "cobol"}, "no such dialect"},
		{[]string{"migrate", "--from", "mem:"}, "takes --from and --to"},
		{[]string{"migrate", "--to", "mem:"}, "takes --from and --to"},
		{[]string{"migrate", "--from", "mem:", "--to", "mem:", "--on-conflict", "perhaps"}, "one of stop, source, target, newer"},
		{[]string{"migrate", "--from", "mem:", "--to", "mem:", "--dry-run", "--delete-source"}, "cannot be used together"},
		{[]string{"migrate", "--from", "mem:x", "--to", "mem:"}, "--from: mem: takes nothing"},
		{[]string{"migrate", "--from", "mem:", "--to", "mem:x"}, "--to: mem: takes nothing"},
		{[]string{"migrate", "--from", "mem:", "--to", "mem:", "--store", "mem:"}, "not from --store"},
		{[]string{"lst"}, `"lst" (did you mean "ls"?)`},
		{[]string{"help", "store"}, `"store" (did you mean "stores"?)`},
		{[]string{"ls", "--jsno"}, `--jsno (did you mean "--json"?)`},
		{[]string{"ls", "--store", "vaul:secret/x"}, `"vaul" (did you mean "vault"?)`},
		{[]string{"ls", "--store", "vault://secret"}, "a mount and a prefix are needed"},
		{[]string{"import", store, "x", "--dialect", "rubi"}, `did you mean "ruby"?`},
		{[]string{"serve", store, "--data-center", "euu", "--listen", "unix:/x"}, `did you mean "eu"?`},
		{[]string{"policy", "vualt"}, `did you mean "vault"?`},
		{[]string{"policy", "vault", "vault:secret/oauth"}, "policy vault takes MOUNT/PREFIX, which is a part of the store's URL"},
		{[]string{"policy", "aws", "awssm://oauth"}, "policy aws takes PREFIX"},
		{[]string{"policy", store}, "policy uses no store: leave out --store"},
		{[]string{"policy", "vault", "secret/oauth", store}, "policy vault uses no store"},
		{[]string{"version", store}, "version uses no store"},
		{[]string{"man", ".", store}, "man uses no store"},
		{[]string{"keys", "new", "k.json", store}, "keys new uses no store"},
		{[]string{"help", "ls", store}, "help uses no store"},
		{[]string{"completion", "bash", store}, "completion bash uses no store"},
		{[]string{"rm", store, "--client", "c"}, "require --user"},
		{[]string{"rm", store, "1", "--user", "ann"}, "one of: IDs"},
		{[]string{"ls", store, "--limit", "-1"}, "--limit is negative"},
		{[]string{"ls", "--store", "sqlite://x.db"}, `sqlite: takes no "//" after it`},
		{[]string{"ls", store, "--timeout", "-1s"}, "--timeout is negative"},
		{[]string{"doctor", store, "--grace", "soon"}, "--grace takes a time such as 90s or 5m"},
		{[]string{"rm", store, "--all", "--yes", "--dry-run"}, "cannot be used together"},
		{[]string{"--json"}, "--json needs a command"},
		{[]string{"keys", "--json"}, "--json needs a command"},
		{[]string{"help", "--json"}, "--json needs a command"},
		{[]string{"ls", "--store", "ftp:x"}, "there are mem, file, sqlite, mysql, vault, awssm, gcpsm, k8s: see 'tokenkeep help stores'"},
		{[]string{"token", store, "1", "--token-url", "https://x/token", "--lasts", "-1s"}, "--lasts is negative"},
	}
	for _, test := range tests {
		got := (env{}).fails(t, 2, "", test.args...)
		if !strings.Contains(got, test.want) {
			t.Errorf("tokenkeep %s: %q is not in %q", strings.Join(test.args, " "), test.want, got)
		}
		if len(test.args) > 2 && test.args[1] == "--store" && len(got) > 170 {
			t.Errorf("tokenkeep %s: the message is too long: %s", strings.Join(test.args, " "), got)
		}
	}
}

func TestHelp(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		args []string
		want []string
	}{
		{nil, []string{"ls ", "get ", "save ", "rm ", "migrate ", "import ", "export ", "keys ", "TOKENKEEP_STORE", "exit-codes"}},
		{[]string{"help", "exit-codes"}, []string{"not_found", "ambiguous", "id_mismatch", "too_large", "denied", "unavailable", "corrupt", "partial", "130"}},
		{[]string{"help", "stores"}, []string{"mem:", "file:PATH", "vault:MOUNT/PREFIX", "VAULT_ADDR", "TOKENKEEP_KEYS_FILE"}},
		{[]string{"help", "records"}, codec.ColumnNames()},
		{[]string{"import", "--help"}, []string{"--keep-ids", "--skip-bad", "python"}},
		{[]string{"keys"}, []string{"name_key", "new "}},
		{[]string{"help"}, []string{"TOKENKEEP_STORE", "help ", "\n  completion  "}},
		{[]string{"help", "keys", "new"}, []string{"keys new FILE", "--help"}},
		{[]string{"--version"}, []string{"tokenkeep "}},
		{[]string{"version"}, []string{"tokenkeep ", "go1."}},
		{[]string{"completion", "bash"}, []string{"tokenkeep"}},
	} {
		out := (env{}).ok(t, "", test.args...)
		for _, want := range test.want {
			if !strings.Contains(out, want) {
				t.Errorf("tokenkeep %s: %q is missing", strings.Join(test.args, " "), want)
			}
		}
		for line := range strings.Lines(out) {
			if len([]rune(line)) > 110 && !strings.HasPrefix(line, "      --") && test.args != nil && test.args[0] != "completion" {
				t.Errorf("tokenkeep %s: a line is too long: %s", strings.Join(test.args, " "), line)
			}
		}
	}
	if v := decode[map[string]string](t, (env{}).ok(t, "", "version", "--json")); v["version"] == "" || v["go"] == "" {
		t.Errorf("version --json: %v", v)
	}
}

// TestErrorsAsJSON checks that commands with --json print errors as JSON objects, with the
// class and the exit code.
func TestErrorsAsJSON(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		code  int
		class string
		args  []string
	}{
		{3, "not_found", []string{"get", "7", "--store", "mem:", "--json"}},
		{2, "usage", []string{"frob", "--json"}},
		{2, "usage", []string{"ls", "--frob", "--json"}},
	} {
		r := (env{}).tk(t, "", test.args...)
		got := decode[struct {
			Error, Class string
			Code         int
		}](t, r.err)
		if r.code != test.code || got.Code != test.code || got.Class != test.class || got.Error == "" || r.out != "" {
			t.Errorf("tokenkeep %s: exit code %d, %+v, output %q", strings.Join(test.args, " "), r.code, got, r.out)
		}
	}
}

func TestWriteError(t *testing.T) {
	t.Parallel()
	var errs bytes.Buffer
	if code := run(t.Context(), []string{"version"}, env{}.lookup, strings.NewReader(""), broken{}, &errs); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	if !strings.Contains(errs.String(), "standard output") {
		t.Errorf("message: %s", &errs)
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, os.ErrClosed }

// endless is an input whose reads block until ctx is done.
type endless struct{ ctx context.Context }

func (e endless) Read([]byte) (int, error) {
	<-e.ctx.Done()
	return 0, e.ctx.Err()
}

// TestSignal checks that a signal ends the program while it is reading its input.
func TestSignal(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("Windows cannot send an interrupt to one process")
	}
	cmd := process(t, fileStoreEnv(t), "save")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stdin.Close() }()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// The text does not fit into the buffer of a pipe, so WriteString returns only after the
	// program has begun to read.
	if _, err := io.WriteString(stdin, strings.Repeat(" ", maxRecord/2)); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 130 {
		t.Errorf("exit code %d, want 130", code)
	}
}

func TestInterrupted(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"save", "--store", "mem:"},
		{"get", "--like", "-", "--store", "mem:"},
		{"import", "-", "--store", "mem:"},
		{"ls", "--store", "mem:"},
		{"rm", "--all", "--yes", "--store", "mem:"},
		{"export", filepath.Join(t.TempDir(), "x.csv"), "--store", "mem:"},
		{"migrate", "--from", "mem:", "--to", "mem:"},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		var out, errs bytes.Buffer
		if code := run(ctx, args, env{}.lookup, endless{t.Context()}, &out, &errs); code != 130 {
			t.Errorf("tokenkeep %s: exit code %d, want 130: %s", strings.Join(args, " "), code, &errs)
		}
	}
}

func (r *recordJSON) UnmarshalJSON(data []byte) error {
	t, err := parseRecord(data)
	*r = recordJSON(t.Fields())
	return err
}
