package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// TestMain runs the demo instead of the tests if the demo started the test binary as one of its
// processes.
func TestMain(m *testing.M) {
	if os.Getenv(envPlace) != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// TestDemo runs the whole demo on the stand-in for AWS Secrets Manager, and on a token file.
func TestDemo(t *testing.T) {
	for name, test := range map[string]struct {
		processes int
		keep      string
	}{
		"AWS Secrets Manager": {100, ""},
		"the token file":      {12, filepath.Join(t.TempDir(), "tokens.csv")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("AWS_SECRET_ACCESS_KEY", "elsewhere")
			t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
			var b bytes.Buffer
			err := run(t.Context(), []string{"-processes", fmt.Sprint(test.processes), "-keep", test.keep}, nil, &b)
			out := b.String()
			for _, want := range append([]string{
				name, "12 of 12 rows are records",
				"by its ID", "by its user", "by its refresh token", "by its access token",
				"8 of 8 processes succeeded", "1 record,", "nothing is lost",
				"1 exchange of the code", "the process is gone; its tokens are in the store, under " + lifeUser,
				"the CRM accepts the token that the store has", "0 requests to Zoho's accounts server",
				fmt.Sprintf("%d of %[1]d processes succeeded", test.processes), "1 refresh at Zoho's accounts server (",
				fmt.Sprintf("%d calls of the CRM with the same new token", test.processes),
				"14 rows", "12 of 12 rows of the SDK are equal", "byte for byte",
			}, pythonLines(t)...) {
				if !strings.Contains(out, want) {
					t.Errorf("%q is missing", want)
				}
			}
			checkText(t, out)
			if _, kept := os.Stat(test.keep); test.keep != "" && kept != nil {
				t.Error("the file is not kept")
			}
			if err != nil || t.Failed() {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// pythonLines returns the texts that the output must contain on a machine with Python, or
// without Python, if this machine has none.
func pythonLines(t *testing.T) []string {
	t.Helper()
	if findPython(t.Context()) == "" {
		return []string{"left out: there is no Python on this machine", "All 18 checks"}
	}
	return []string{
		"10 of 10 processes succeeded", "1 refresh at Zoho's accounts server, for both machines",
		"10 calls of the CRM with the same new token", "All 21 checks",
	}
}

// TestNoPython checks that the demo omits the Python step, and reports the omission, on a
// machine without Python.
func TestNoPython(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	d := &demo{out: &out}
	if err := d.pythonStep(t.Context()); err != nil || d.checks != 0 || !strings.Contains(out.String(), "left out: there is no Python") {
		t.Errorf("%d checks, error %v\n%s", d.checks, err, &out)
	}
}

// checkText checks that the output contains no failed check, no color, no line of over 110
// characters, and no secret of the SDK's file.
func checkText(t *testing.T, out string) {
	t.Helper()
	if strings.Contains(out, "WRONG") || strings.Contains(out, "\x1b") {
		t.Error("a check failed, or there are colours")
	}
	for line := range strings.Lines(out) {
		if utf8.RuneCountInString(line) > 110 {
			t.Errorf("a line is too long: %s", line)
		}
	}
	rows := strings.Split(string(sdkFile), "\r\n")
	for _, row := range rows[1 : len(rows)-1] {
		for _, secret := range strings.Split(row, "1000.")[2:] {
			if strings.Contains(out, strings.Split(secret, ",")[0]) {
				t.Error("a secret is shown")
			}
		}
	}
}

func TestArguments(t *testing.T) {
	file := filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for want, args := range map[string][]string{
		"from 1 to 1000": {"-processes", "0"},
		"to 1000":        {"-processes", "1001"},
		"no arguments":   {"there"},
		"exists":         {"-keep", file},
	} {
		err := run(t.Context(), args, nil, io.Discard)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", args, err)
		}
	}
}

// TestSDKFile checks that sdk_tokens.csv is a copy of the file that the SDK wrote.
func TestSDKFile(t *testing.T) {
	t.Parallel()
	written, err := os.ReadFile("../../testdata/zoho-sdk/python_filestore.csv")
	if err != nil || !bytes.Equal(written, sdkFile) {
		t.Errorf("sdk_tokens.csv is another file: %v", err)
	}
}

// TestChecks checks that a failed check is shown, and makes the demo fail.
func TestChecks(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	d := &demo{out: &out}
	d.check(true, "this")
	d.check(false, "that")
	if err := d.closing(); err == nil || !strings.Contains(err.Error(), "1 of 2 checks failed") {
		t.Errorf("error %v", err)
	}
	if out.String() != "   ok  this\n   WRONG  that\n" {
		t.Errorf("output %q", &out)
	}
}

// TestComplete checks that complete detects a lost field, and an expiry that belongs to
// another access token.
func TestComplete(t *testing.T) {
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

// TestTogether checks that processes that end before they are ready make a check fail, and
// do not block the demo.
func TestTogether(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	d := &demo{out: &out, place: place{File: filepath.Join(t.TempDir(), "nowhere", "tokens.csv")}}
	answers, err := together[string](t.Context(), d, roleSave, slices.Repeat([]saveOrder{orderOf(contributions()[0])}, racers))
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range answers {
		if o.err == nil || !strings.Contains(o.err.Error(), "exit status 1") {
			t.Errorf("error %v", o.err)
		}
	}
	if left := succeeded(d, answers); len(left) != 0 || d.wrong != 1 || !strings.Contains(out.String(), "WRONG  0 of 8 processes succeeded") {
		t.Errorf("%d succeeded: %s", len(left), &out)
	}
}

// TestFailedSteps checks that steps fail if the store has no record or the tokens are revoked.
// TestFailedSteps also checks that the demo counts two refreshes if two programs do not share
// a refresh.
func TestFailedSteps(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	zoho, err := startZoho()
	if err != nil {
		t.Fatal(err)
	}
	defer zoho.close()
	at := place{File: filepath.Join(t.TempDir(), "tokens.csv")}
	s, err := at.open()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	d := &demo{out: &out, place: at, store: s, processes: 2, zoho: zoho, python: "not asked for"}
	for _, step := range []struct {
		what   string
		do     func(context.Context) error
		before func()
		wrong  int
	}{
		{"cold, without a record", d.coldStep, nil, 1},
		{"without a record to expire", d.expiryStep, nil, 1},
		{"in Python, without a record to expire", d.pythonStep, nil, 1},
		{"with a code", d.codeStep, nil, 0},
		{"cold, with a record", d.coldStep, nil, 0},
		{"with tokens that are revoked", d.expiryStep, func() { zoho.RevokeTokens(lifeClient, lifeEmail) }, 2},
		{"with another code", d.codeStep, nil, 0},
	} {
		if step.before != nil {
			step.before()
		}
		d.wrong = 0
		out.Reset()
		if err := step.do(ctx); err != nil || d.wrong != step.wrong {
			t.Fatalf("%s: %d checks fail, want %d: %v\n%s", step.what, d.wrong, step.wrong, err, &out)
		}
	}
	// Two programs refresh twice, because the token expires before each program starts.
	for range 2 {
		if err := d.expire(ctx); err != nil {
			t.Fatal(err)
		}
		if _, err := together[crmAnswer](ctx, d, roleCall, []programOrder{d.again()}); err != nil {
			t.Fatal(err)
		}
	}
	if n := zoho.tally(); n != (tally{refreshes: 2, calls: 2, tokens: 2}) {
		t.Errorf("%+v", n)
	}
}

// TestAnswer checks that the error for invalid input does not quote the input, which may
// contain a secret.
func TestAnswer(t *testing.T) {
	t.Parallel()
	in := strings.NewReader(`{"secret":"s3cret","code":1}`)
	err := answer(in, io.Discard, func(programOrder) (int, error) { return 0, nil })
	if err == nil || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("error %v", err)
	}
}

// TestCommand checks that the only argument of a process is its role, and that the process
// gets the place in its environment. All users of the machine can see arguments.
func TestCommand(t *testing.T) {
	t.Parallel()
	at, err := findPlace("")
	if err != nil {
		t.Fatal(err)
	}
	defer at.close()
	d := &demo{place: at.place, python: "python3"}
	cmd, err := d.command(t.Context(), roleCall)
	if err != nil {
		t.Fatal(err)
	}
	var got place
	text := strings.TrimPrefix(cmd.Env[len(cmd.Env)-1], envPlace+"=")
	if err := json.Unmarshal([]byte(text), &got); err != nil || got != at.place || !slices.Equal(cmd.Args[1:], []string{roleCall}) {
		t.Errorf("arguments %q, place %v, %v", cmd.Args[1:], got, err)
	}
	// The Python program does not get the place.
	cmd, err = d.command(t.Context(), rolePython)
	if err != nil || cmd.Env != nil || strings.Contains(strings.Join(cmd.Args, " "), at.Secret) {
		t.Errorf("arguments %q, environment %q, %v", cmd.Args[1:], cmd.Env, err)
	}
}
