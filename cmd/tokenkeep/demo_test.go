package main

import (
	"bufio"
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

func TestDemo(t *testing.T) {
	t.Parallel()
	for name, flags := range map[string][]string{
		"stand-in": nil,
		"file":     {"--store", "file:" + filepath.Join(t.TempDir(), "tokens.csv")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out := env{envStore: "file:unused"}.ok(t, "", append([]string{"demo"}, flags...)...)
			for _, want := range []string{
				"12 of 12 rows of the file are records",
				"found by its ID", "found by its user", "found by its refresh token", "found by its access token",
				"8 of 8 saves succeeded", "they made 1 record", "nothing that one of them brought is lost",
				"12 of 12 rows of the SDK are equal", "byte for byte", "All 11 checks", "tokenkeep help",
			} {
				if !strings.Contains(out, want) {
					t.Errorf("%q is missing", want)
				}
			}
			if strings.Contains(out, "WRONG") || strings.Contains(out, "\x1b") {
				t.Error("a check failed, or there are colours")
			}
			for line := range strings.Lines(out) {
				if len([]rune(line)) > 121 {
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
		})
	}
}

func TestDemoTidiesUp(t *testing.T) {
	t.Parallel()
	e, _ := vaultEnv(t)
	store := e[envStore]
	got := decode[struct {
		OK     bool
		Checks []check
	}](t, e.ok(t, "", "demo", "--json", "--store", store))
	if !got.OK || len(got.Checks) != 11 {
		t.Errorf("%+v", got)
	}
	if left := decode[[]recordJSON](t, e.ok(t, "", "ls", "--json")); len(left) != 0 {
		t.Errorf("%d records are left", len(left))
	}
	e.ok(t, "", "demo", "--keep", "--store", store)
	if left := decode[[]recordJSON](t, e.ok(t, "", "ls", "--json")); len(left) != 13 {
		t.Errorf("--keep: %d records are left", len(left))
	}
	if text := e.fails(t, 2, "", "demo", "--store", store); !strings.Contains(text, "this one has 13") {
		t.Errorf("message: %s", text)
	}
	if left := decode[[]recordJSON](t, e.ok(t, "", "ls", "--json")); len(left) != 13 {
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

// TestRacersFail checks that a process which fails is an error, and not waited
// for.
func TestRacersFail(t *testing.T) {
	t.Parallel()
	a := &app{env: env{}.get, out: bufio.NewWriter(&bytes.Buffer{}), storeURL: "file:" + t.TempDir()}
	d := &demo{app: a, ctx: t.Context()}
	results, err := d.race(contributions())
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		if r.err == nil || !strings.Contains(r.err.Error(), "exit status 8") {
			t.Errorf("error %v", r.err)
		}
	}
}

// TestRacerArguments checks that the processes are told nothing in their
// arguments and environment but where the store is.
func TestRacerArguments(t *testing.T) {
	t.Parallel()
	standIn, err := startStandIn()
	if err != nil {
		t.Fatal(err)
	}
	defer standIn.close()
	hostile := env{"VAULT_TOKEN": "s3cret", "VAULT_NAMESPACE": "elsewhere", envKeys: "elsewhere", envStore: "elsewhere"}
	a := (&app{env: hostile.get}).at(standIn)
	cmd, err := a.command(t.Context(), "demo-save")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(cmd.Args[1:], " "), "demo-save --json --store vault:secret/tokenkeep-demo"; got != want {
		t.Errorf("arguments %q, want %q", got, want)
	}
	all := strings.Join(cmd.Env, "\n")
	if strings.Contains(all, "s3cret") || strings.Contains(all, envKeys) || strings.Contains(all, "NAMESPACE") {
		t.Errorf("environment: %s", all)
	}
	if !strings.Contains(all, "VAULT_ADDR="+standIn.server.URL) {
		t.Errorf("environment: %s", all)
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
