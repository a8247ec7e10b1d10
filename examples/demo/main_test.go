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

// TestMain makes the test binary behave as the demo where the demo has started it.
func TestMain(m *testing.M) {
	if os.Getenv(envPlace) != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// TestDemo runs the demo in each place.
func TestDemo(t *testing.T) {
	for name, test := range map[string]struct {
		standIn   string
		processes int
		keep      string
	}{
		"HashiCorp Vault":       {"", 100, ""},
		"AWS Secrets Manager":   {"aws", 12, ""},
		"Google Secret Manager": {"gcp", 12, ""},
		"the token file":        {"aws", 12, filepath.Join(t.TempDir(), "tokens.csv")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("DEMO_STORE", test.standIn)
			t.Setenv("VAULT_NAMESPACE", "elsewhere")
			t.Setenv("AWS_SECRET_ACCESS_KEY", "elsewhere")
			var b bytes.Buffer
			err := run(t.Context(), []string{"-processes", fmt.Sprint(test.processes), "-keep", test.keep}, nil, &b)
			out := b.String()
			for _, want := range []string{
				name, "12 of 12 rows are records",
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

// checkText checks that the text is fit to be seen.
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
	t.Setenv("DEMO_STORE", "s3cret")
	for want, args := range map[string][]string{
		"from 1 to 1000":    {"-processes", "0"},
		"to 1000":           {"-processes", "1001"},
		"no arguments":      {"there"},
		"exists":            {"-keep", file},
		"vault, aws or gcp": nil,
	} {
		err := run(t.Context(), args, nil, io.Discard)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%q: %v", args, err)
		}
	}
}

// TestSDKFile checks that the file in this folder is the one that the SDK wrote.
func TestSDKFile(t *testing.T) {
	t.Parallel()
	written, err := os.ReadFile("../../testdata/zoho-sdk/python_filestore.csv")
	if err != nil || !bytes.Equal(written, sdkFile) {
		t.Errorf("sdk_tokens.csv is another file: %v", err)
	}
}

// TestChecks checks that a check that fails is shown, and makes the demo fail.
func TestChecks(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	d := &demo{out: &out}
	d.check(true, "this")
	d.check(false, "that")
	if err := d.closing(); err == nil || !strings.Contains(err.Error(), "1 of the 2 things") {
		t.Errorf("error %v", err)
	}
	if out.String() != "   ok  this\n   WRONG  that\n" {
		t.Errorf("output %q", &out)
	}
}

// TestComplete checks that a lost field would be noticed.
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

// TestTogether checks that a process that fails is a check that fails, and does not
// keep the demo waiting.
func TestTogether(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	d := &demo{out: &out, place: place{Kind: "file", Address: filepath.Join(t.TempDir(), "nowhere", "tokens.csv")}}
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

// TestLife checks that it would be noticed if a program found nothing in the store,
// or asked the accounts server more than once.
func TestLife(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	zoho, err := startZoho()
	if err != nil {
		t.Fatal(err)
	}
	defer zoho.close()
	at := place{Kind: "file", Address: filepath.Join(t.TempDir(), "tokens.csv")}
	s, err := at.open(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	d := &demo{out: &out, place: at, store: s, processes: 2, zoho: zoho}
	for _, step := range []struct {
		what   string
		do     func(context.Context) error
		before func()
		wrong  int
	}{
		{"cold, without a record", d.coldStep, nil, 1},
		{"without a record to expire", d.expiryStep, nil, 1},
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
	// Two programs that share nothing are two refreshes.
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

// TestAnswer checks that input which is not an order is not repeated.
func TestAnswer(t *testing.T) {
	t.Parallel()
	in := strings.NewReader(`{"secret":"s3cret","code":1}`)
	err := answer(in, io.Discard, func(programOrder) (int, error) { return 0, nil })
	if err == nil || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("error %v", err)
	}
}

// TestCommand checks that the arguments of a process, which all users of the machine
// see, say nothing but what it is for.
func TestCommand(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"vault", "aws", "gcp"} {
		at, err := findPlace("", kind)
		if err != nil {
			t.Fatal(err)
		}
		defer at.close()
		cmd, err := (&demo{place: at.place}).command(t.Context(), roleCall)
		if err != nil {
			t.Fatal(err)
		}
		var got place
		text := strings.TrimPrefix(cmd.Env[len(cmd.Env)-1], envPlace+"=")
		if err := json.Unmarshal([]byte(text), &got); err != nil || got != at.place || !slices.Equal(cmd.Args[1:], []string{roleCall}) {
			t.Errorf("%s: arguments %q, place %v, %v", kind, cmd.Args[1:], got, err)
		}
	}
}
