package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/tokenkeep/tokenkeep/awssm"
	"github.com/tokenkeep/tokenkeep/examples/internal/readme"
	"github.com/tokenkeep/tokenkeep/initializer"
	"github.com/tokenkeep/tokenkeep/internal/fakeaws"
	"github.com/tokenkeep/tokenkeep/internal/zohoaccounts"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

func TestMain(m *testing.M) { readme.Main(m) }

const prefix = "oauth/crm"

// A world consists of a fake of Secrets Manager, whose reads and lists lag by five minutes,
// and a fake of Zoho with two leads.
type world struct {
	aws  *fakeaws.Server
	zoho *zohoaccounts.Server
	code string // a one-time code for ann@example.com
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{
		aws:  fakeaws.New(&fakeaws.Options{ListLag: 5 * time.Minute, ReadLag: 5 * time.Minute}),
		zoho: zohoaccounts.New(&zohoaccounts.Options{DataCenter: "eu"}),
	}
	t.Cleanup(w.aws.Close)
	if err := w.aws.Policy("function", awssm.Policy("*", "*", prefix, nil)); err != nil {
		t.Fatal(err)
	}
	w.zoho.AddClient(zohoaccounts.Client{ID: "1000.CLIENT", Secret: "secret"})
	w.zoho.Inject(func(r zohoaccounts.Request) *zohoaccounts.Fault {
		if r.Path == "/crm/v8/Leads" && w.zoho.Alive(strings.TrimPrefix(r.Header.Get("Authorization"), "Zoho-oauthtoken ")) {
			return &zohoaccounts.Fault{Status: 200, Body: `{"data":[{"id":"1"},{"id":"2"}]}`}
		}
		return nil
	})
	w.code = w.zoho.Code(zohoaccounts.Consent{ClientID: "1000.CLIENT", Email: "ann@example.com", ZGID: "6001"})
	return w
}

// client returns a client of Secrets Manager with the permissions of role.
func (w *world) client(role string) *secretsmanager.Client {
	return secretsmanager.New(secretsmanager.Options{
		Region: "eu-central-1", BaseEndpoint: &w.aws.URL,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: role, SecretAccessKey: "x"}, nil
		}),
	})
}

// instance returns a new instance with the settings in the README.
func (w *world) instance(t *testing.T) *function {
	t.Helper()
	settings := map[string]string{
		"TOKEN_PREFIX": prefix, "TOKEN_USER": "ann@example.com", "TOKEN_CLIENT": "1000.CLIENT", "ZOHO_DATA_CENTER": "eu",
	}
	f, err := newFunction(func(name string) string { return settings[name] }, w.client("function"), w.zoho.Client())
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// record returns the record that the operator stores according to the README.
func (w *world) record() tokenstore.Token {
	return tokenstore.Token{UserName: "ann@example.com", ClientID: "1000.CLIENT", ClientSecret: "secret", GrantToken: tokenstore.Secret(w.code)}
}

func (w *world) save(t *testing.T, r tokenstore.Token) {
	t.Helper()
	s, err := awssm.New(w.client("operator"), prefix, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.SaveToken(t.Context(), r); err != nil {
		t.Fatal(err)
	}
}

// secrets returns the number of secrets. It first advances the clock by more than the lag of
// lists.
func (w *world) secrets(t *testing.T) int {
	t.Helper()
	w.aws.Advance(time.Hour)
	out, err := w.client("operator").ListSecrets(t.Context(), &secretsmanager.ListSecretsInput{})
	if err != nil {
		t.Fatal(err)
	}
	return len(out.SecretList)
}

const payload, leads = `{"module":"Leads"}`, `{"ids":["1","2"]}`

// invoke calls the handler of f as the runtime of Lambda does.
func invoke(ctx context.Context, f *function) (string, error) {
	answer, err := lambda.NewHandler(f.handle).Invoke(ctx, []byte(payload))
	return string(answer), err
}

func mustInvoke(t *testing.T, f *function) {
	t.Helper()
	if answer, err := invoke(t.Context(), f); err != nil || answer != leads {
		t.Fatalf("the function answers %s: %v", answer, err)
	}
}

// variables matches the value of the flag --environment of create-function.
var variables = regexp.MustCompile(`^Variables=\{(.*)\}$`)

// cloud returns a program that simulates the aws commands in the README.
func (w *world) cloud(t *testing.T) readme.Program {
	settings := map[string]string{}
	return func(c readme.Call) (string, error) {
		if len(c.Args) < 2 || c.Args[0] != "lambda" {
			return "", fmt.Errorf("unexpected arguments %q", c.Args)
		}
		switch c.Args[1] {
		case "create-function":
			m := variables.FindStringSubmatch(c.Flag("environment"))
			if m == nil || c.Flag("function-name") != "crm" || c.Flag("handler") != "bootstrap" {
				return "", fmt.Errorf("unexpected arguments %q", c.Args)
			}
			for pair := range strings.SplitSeq(m[1], ",") {
				name, value, _ := strings.Cut(pair, "=")
				settings[name] = value
			}
			return "", nil
		case "invoke":
			if c.Flag("function-name") != "crm" || c.Flag("payload") != payload || !slices.Contains(c.Args, "/dev/stdout") {
				return "", fmt.Errorf("unexpected arguments %q", c.Args)
			}
			f, err := newFunction(func(name string) string { return settings[name] }, w.client("function"), w.zoho.Client())
			if err != nil {
				return "", err
			}
			return invoke(t.Context(), f)
		}
		return "", errors.New("unknown command")
	}
}

// exchange simulates "tokenkeep token" with the fake of Zoho.
func (w *world) exchange(t *testing.T, c readme.Call) (string, error) {
	s, err := awssm.New(w.client("operator"), strings.TrimPrefix(c.Flag("store"), "awssm:"), nil)
	if err != nil {
		return "", err
	}
	client, err := initializer.New(t.Context(), initializer.Config{
		Environment: initializer.DataCenter(c.Flag("data-center")).Production(),
		Store:       s,
		Token:       tokenstore.Token{UserName: c.Flag("user"), ClientID: c.Flag("client")},
		HTTPClient:  w.zoho.Client(),
	})
	if err != nil {
		return "", err
	}
	token, err := client.Token(t.Context())
	return string(token.AccessToken) + "\n", err
}

func TestREADME(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	blocks := readme.Blocks(t, "README.md")
	dir := t.TempDir()
	token := strings.NewReplacer(`"client_secret":"…"`, `"client_secret":"secret"`, `"1000.…"`, `"`+w.code+`"`).Replace(readme.Only(blocks, "json"))
	if strings.Contains(token, "…") {
		t.Fatalf("token.json has a member that this test does not know: %s", token)
	}
	if err := os.WriteFile(filepath.Join(dir, "token.json"), []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	build := func(c readme.Call) (string, error) {
		if got := strings.Join(c.Args, " "); got != "build -o bootstrap ./examples/lambda" {
			return "", fmt.Errorf("unexpected arguments %q", got)
		}
		return "", nil
	}
	command := readme.Binary(readme.Tokenkeep(t), func(args []string) []string { return args })
	tokenkeep := func(c readme.Call) (string, error) {
		if c.Args[0] == "token" { // in this process, because the program would send the code to Zoho
			return w.exchange(t, c)
		}
		return command(c)
	}
	out := readme.Run(t, dir, readme.Only(blocks, "sh"), map[string]readme.Program{
		"tokenkeep": tokenkeep,
		"go":        build,
		"zip":       func(readme.Call) (string, error) { return "", nil },
		"aws":       w.cloud(t),
	}, "AWS_ENDPOINT_URL="+w.aws.URL, "AWS_REGION=eu-central-1", "AWS_ACCESS_KEY_ID=operator", "AWS_SECRET_ACCESS_KEY=x")
	if !strings.HasSuffix(out, leads) {
		t.Errorf("the blocks print %s, want %s at the end", out, leads)
	}
	if strings.Contains(out, w.code) {
		t.Errorf("the blocks print the code: %s", out)
	}
	if n := w.zoho.Count(zohoaccounts.Exchange, zohoaccounts.Refresh); n != 1 {
		t.Errorf("the code was exchanged %d times", n)
	}
	if n := w.secrets(t); n != 1 {
		t.Errorf("%d secrets are billed for one token", n)
	}
}

func TestInstancesShareOneToken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.save(t, w.record())
	first := w.instance(t)
	mustInvoke(t, first)
	for range 3 {
		mustInvoke(t, w.instance(t))
	}
	if n := w.zoho.Count(zohoaccounts.Exchange, zohoaccounts.Refresh); n != 1 {
		t.Errorf("four instances made %d requests for tokens", n)
	}
	before := len(w.aws.Requests())
	mustInvoke(t, first)
	if n := len(w.aws.Requests()) - before; n != 0 {
		t.Errorf("a warm invocation made %d calls of Secrets Manager", n)
	}
	if n := w.secrets(t); n != 1 {
		t.Errorf("%d secrets are billed for one token", n)
	}
}

func TestStartAfterFailure(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	f := w.instance(t)
	if _, err := invoke(t.Context(), f); err == nil {
		t.Fatal("it works without a record")
	}
	w.save(t, w.record())
	mustInvoke(t, f)
}
