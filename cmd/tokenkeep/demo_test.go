package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// fewProcesses is for demos that show nothing which the one with all of them does
// not.
const fewProcesses = "--processes=12"

// TestDemo runs the demo on each of its stand-ins and on stores of other kinds.
func TestDemo(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		e         env
		flags     []string
		processes int
	}{
		"Vault":    {env{}, nil, 100},
		"AWS":      {env{envDemo: "aws"}, []string{fewProcesses}, 12},
		"Google":   {env{envDemo: "gcp"}, []string{fewProcesses}, 12},
		"the file": {env{envDemo: "aws"}, []string{fewProcesses, "--store", "file:" + filepath.Join(t.TempDir(), "tokens.csv")}, 12},
		"SQLite":   {env{}, []string{fewProcesses, "--store", "sqlite:" + filepath.Join(t.TempDir(), "tokens.db")}, 12},

		"LocalStack": {env{}, []string{fewProcesses, "--store", localStackEnv(t)[envStore]}, 12},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out := test.e.with(envStore, "file:unused").ok(t, "", append([]string{"demo"}, test.flags...)...)
			for _, want := range []string{
				"12 of 12 rows are records",
				"by its ID", "by its user", "by its refresh token", "by its access token",
				"8 of 8 processes succeeded", "1 record,", "nothing is lost",
				"1 exchange of the code", "the process is gone; its tokens are in the store, under " + lifeUser,
				"the CRM accepts the token that the store has", "0 requests to Zoho's accounts server",
				fmt.Sprintf("%d of %[1]d processes succeeded", test.processes), "1 refresh at Zoho's accounts server",
				fmt.Sprintf("%d calls of the CRM with the same new token", test.processes),
				"14 rows", "12 of 12 rows of the SDK are equal", "byte for byte", "All 18 checks",
			} {
				if !strings.Contains(out, want) {
					t.Errorf("%q is missing", want)
				}
			}
			if len(test.flags) < 2 && !strings.Contains(out, name) {
				t.Error("it does not say where the records are")
			}
			checkDemoText(t, out)
			if t.Failed() {
				t.Log(out)
			}
		})
	}
}

// checkDemoText checks that the text is fit to be seen.
func checkDemoText(t *testing.T, out string) {
	t.Helper()
	if strings.Contains(out, "WRONG") || strings.Contains(out, "\x1b") {
		t.Error("a check failed, or there are colours")
	}
	for line := range strings.Lines(out) {
		if width(line) > 110 {
			t.Errorf("a line is too long: %s", line)
		}
	}
	for i, lines := 0, strings.Split(string(sdkFile), "\r\n")[1:]; i < len(lines)-1; i++ {
		row := strings.Split(lines[i], "1000.")
		for _, secret := range row[2:] {
			if strings.Contains(out, strings.Split(secret, ",")[0]) {
				t.Error("a secret is shown")
			}
		}
	}
}

func TestDemoArguments(t *testing.T) {
	t.Parallel()
	env{}.fails(t, 2, "", "demo", "--store", "mem:")
	env{}.fails(t, 2, "", "demo", "--processes", "0")
	env{}.fails(t, 2, "", "demo", "--processes", "1001")
	if text := (env{envDemo: "s3cret"}).fails(t, 2, "", "demo"); !strings.Contains(text, "vault, aws or gcp") || strings.Contains(text, "s3cret") {
		t.Errorf("message: %s", text)
	}
}

func TestDemoTidiesUp(t *testing.T) {
	t.Parallel()
	e, _ := vaultEnv(t)
	store := e[envStore]
	got := decode[struct {
		OK     bool
		Checks []check
	}](t, e.ok(t, "", "demo", fewProcesses, "--json", "--store", store))
	if !got.OK || len(got.Checks) != 18 {
		t.Errorf("%+v", got)
	}
	if left := decode[[]recordJSON](t, e.ok(t, "", "ls", "--json")); len(left) != 0 {
		t.Errorf("%d records are left", len(left))
	}
	e.ok(t, "", "demo", fewProcesses, "--keep", "--store", store)
	if left := decode[[]recordJSON](t, e.ok(t, "", "ls", "--json")); len(left) != 14 {
		t.Errorf("--keep: %d records are left", len(left))
	}
	if text := e.fails(t, 2, "", "demo", "--store", store); !strings.Contains(text, "this one has 14") {
		t.Errorf("message: %s", text)
	}
	if left := decode[[]recordJSON](t, e.ok(t, "", "ls", "--json")); len(left) != 14 {
		t.Errorf("a demo that was refused has left %d records", len(left))
	}
}

// TestDemoFails checks that what comes out otherwise is said, and is the exit
// code.
func TestDemoFails(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	d := &demo{app: &app{out: bufio.NewWriter(&out)}}
	d.check(true, "this")
	d.check(false, "that")
	if err := d.closing(); err == nil || !strings.Contains(err.Error(), "1 of the 2 things") {
		t.Errorf("error %v", err)
	}
	_ = d.out.Flush()
	if out.String() != "   ok  this\n   WRONG  that\n" {
		t.Errorf("output %q", &out)
	}
	d.json = true
	if err := d.closing(); err == nil {
		t.Error("no error with --json")
	}
}

// TestRaceIsJudged checks that a lost field would be noticed.
func TestRaceIsJudged(t *testing.T) {
	t.Parallel()
	brought := contributions()
	all := tokenstore.Token{}
	for _, b := range brought {
		all.UserName, all.ClientID = b.UserName, b.ClientID
		all = tokenstore.Merge(all, b)
	}
	if !complete(all, brought) {
		t.Fatal("a complete record is not")
	}
	for name, lose := range map[string]func(*tokenstore.Token){
		"client secret": func(t *tokenstore.Token) { t.ClientSecret = "" },
		"grant token":   func(t *tokenstore.Token) { t.GrantToken = "" },
		"redirect URL":  func(t *tokenstore.Token) { t.RedirectURL = "" },
		"API domain":    func(t *tokenstore.Token) { t.APIDomain = "" },
		"refresh token": func(t *tokenstore.Token) { t.RefreshToken = "" },
		"access token":  func(t *tokenstore.Token) { t.AccessToken = "" },
		"expiry":        func(t *tokenstore.Token) { t.ExpiresAt = brought[4].ExpiresAt },
	} {
		got := all
		if lose(&got); complete(got, brought) {
			t.Errorf("a record that lacks the %s is complete", name)
		}
	}
}

// TestProcessesFail checks that a process which fails is a check that does, and not
// waited for.
func TestProcessesFail(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	a := &app{env: env{}.get, out: bufio.NewWriter(&out), storeURL: "file:" + t.TempDir()}
	d := &demo{app: a, ctx: t.Context()}
	answers, err := together[recordJSON](d, "demo-save", slices.Repeat([]any{toJSON(contributions()[0], true)}, racers))
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range answers {
		if o.err == nil || !strings.Contains(o.err.Error(), "exit status 1") {
			t.Errorf("error %v", o.err)
		}
	}
	if left := succeeded(d, answers); len(left) != 0 || d.checks[0].OK {
		t.Errorf("%d succeeded: %v", len(left), d.checks)
	}
	if _ = a.out.Flush(); !strings.Contains(out.String(), "WRONG  0 of 8 processes succeeded") {
		t.Errorf("output: %s", &out)
	}
}

// TestLifeIsJudged checks that it would be noticed if a program found nothing in
// the store, or asked the accounts server more than once.
func TestLifeIsJudged(t *testing.T) {
	t.Parallel()
	zoho, err := startZoho()
	if err != nil {
		t.Fatal(err)
	}
	defer zoho.close()
	a := &app{
		env: env{}.get, out: bufio.NewWriter(&bytes.Buffer{}), now: time.Now,
		storeURL: "file:" + filepath.Join(t.TempDir(), "tokens.csv"),
	}
	s, err := a.openURL(t.Context(), a.storeURL)
	if err != nil {
		t.Fatal(err)
	}
	d := &demo{app: a, ctx: t.Context(), store: s, processes: 2, zoho: zoho}
	failed := func(step func() error) int {
		t.Helper()
		d.checks = nil
		if err := step(); err != nil {
			t.Fatal(err)
		}
		return len(slices.DeleteFunc(slices.Clone(d.checks), func(c check) bool { return c.OK }))
	}
	if n := failed(d.coldStep); n != 1 {
		t.Errorf("without a record: %d checks of %v fail", n, d.checks)
	}
	if n := failed(d.expiryStep); n != 1 {
		t.Errorf("without a record to expire: %d checks of %v fail", n, d.checks)
	}
	if n := failed(d.codeStep); n != 0 {
		t.Fatalf("with a code: %v", d.checks)
	}
	if n := failed(d.coldStep); n != 0 {
		t.Errorf("with a record: %v", d.checks)
	}
	zoho.RevokeTokens(lifeClient, lifeEmail)
	if n := failed(d.expiryStep); n != 2 {
		t.Errorf("with tokens that are revoked: %d checks of %v fail", n, d.checks)
	}
	if n := failed(d.codeStep); n != 0 {
		t.Errorf("with another code: %v", d.checks)
	}
	// Two programs that share nothing are two refreshes.
	if err := d.expire(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := together[crmReport](d, programCommand, []any{d.again()}); err != nil {
			t.Fatal(err)
		}
		if err := d.expire(); err != nil {
			t.Fatal(err)
		}
	}
	if n := zoho.tally(); n != (tally{refreshes: 2, calls: 2, tokens: 2}) {
		t.Errorf("%+v", n)
	}
}

// TestProgramReadsOrders checks that what is not an order is not repeated.
func TestProgramReadsOrders(t *testing.T) {
	t.Parallel()
	text := fileStoreEnv(t).fails(t, 6, `{"secret":"`+canary+`","code":1}`, programCommand)
	if strings.Contains(text, canary) {
		t.Errorf("message: %s", text)
	}
}

// TestProcessArguments checks that the processes are told nothing in their
// arguments and environment but where the store is.
func TestProcessArguments(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]struct{ store, env string }{
		"vault": {"vault:secret/tokenkeep-demo", "VAULT_ADDR=http://127.0.0.1:"},
		"aws":   {"awssm:tokenkeep-demo?region=eu-central-1&endpoint=http%3A%2F%2F127.0.0.1%3A", "AWS_ACCESS_KEY_ID=AKIATOKENKEEPDEMO"},
		"gcp":   {"gcpsm:demo/tokenkeep-demo?endpoint=http%3A%2F%2F127.0.0.1%3A", ""},
	} {
		standIn, err := startStandIn(name)
		if err != nil {
			t.Fatal(err)
		}
		defer standIn.close()
		hostile := env{
			"VAULT_TOKEN": "s3cret", "VAULT_NAMESPACE": "elsewhere", "AWS_SECRET_ACCESS_KEY": "s3cret", "AWS_ACCESS_KEY_ID": "s3cret",
			"AWS_PROFILE": "elsewhere", gcpEnvCredentials: "elsewhere", envKeys: "elsewhere", envStore: "elsewhere",
		}
		a := (&app{env: hostile.get}).at(standIn)
		for _, command := range []string{"demo-save", programCommand} {
			cmd, err := a.command(t.Context(), command)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := strings.Join(cmd.Args[1:], " "), command+" --json --store "+want.store; !strings.HasPrefix(got, want) {
				t.Errorf("%s: arguments %q, want %q", name, got, want)
			}
			all := strings.Join(cmd.Env, "\n")
			if strings.Contains(all, "s3cret") || strings.Contains(all, "elsewhere") {
				t.Errorf("%s: environment: %s", name, all)
			}
			if !strings.Contains(all, want.env) {
				t.Errorf("%s: environment: %s", name, all)
			}
		}
	}
}

// TestSignal checks that a signal ends the program while it waits for its input.
func TestSignal(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("Windows cannot send an interrupt to one process")
	}
	e := fileStoreEnv(t)
	a := &app{env: e.get, storeURL: e[envStore]}
	cmd, err := a.command(t.Context(), "demo-save")
	if err != nil {
		t.Fatal(err)
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stdin.Close() }()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != readyLine {
		t.Fatalf("%q, %v", line, err)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 130 {
		t.Errorf("exit code %d, want 130", code)
	}
}
