package cli

import (
	"bufio"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/zohoaccounts"
)

func TestToken(t *testing.T) {
	t.Parallel()
	zoho, base, refresh := accounts(t)
	e := fileStoreEnv(t)
	save := func(user, domain string) {
		e.ok(t, fmt.Sprintf(`{"user_name":%q,"client_id":"1000.C","client_secret":%q,"refresh_token":%q,"access_token":"1000.expired","expiry_time":1,"api_domain":%q}`,
			user, canary+"secret", refresh, domain), "save")
	}
	save("ann", "")
	args := []string{"token", "--user", "ann", "--client", "1000.C", "--accounts-url", base}
	first := strings.TrimSpace(e.ok(t, "", args...))
	if !zoho.Alive(first) {
		t.Fatalf("the token is no good one")
	}
	if got := e.ok(t, "", append(args, "--header")...); got != "Authorization: Zoho-oauthtoken "+first+"\n" {
		t.Errorf("the header is %d bytes", len(got))
	}
	whole := decode[map[string]string](t, e.ok(t, "", append(args, "--json")...))
	if whole["access_token"] != first || whole["token_type"] != "Zoho-oauthtoken" || whole["api_domain"] != base || whole["id"] == "" {
		t.Error("the JSON is not that of the token")
	}
	if at, err := time.Parse(time.RFC3339, whole["expires_at"]); err != nil || time.Until(at) < 50*time.Minute {
		t.Errorf("it expires at %v: %v", at, err)
	}
	exec := decode[struct {
		APIVersion, Kind string
		Status           struct{ Token, ExpirationTimestamp string }
	}](t, e.ok(t, "", append(args, "--exec-credential")...))
	if exec.APIVersion != "client.authentication.k8s.io/v1" || exec.Kind != "ExecCredential" || exec.Status.Token != first || exec.Status.ExpirationTimestamp != whole["expires_at"] {
		t.Error("the ExecCredential is not that of the token")
	}
	if by := strings.TrimSpace(e.ok(t, "", "token", whole["id"], "--accounts-url", base)); by != first {
		t.Error("the token by ID is another")
	}
	if n := zoho.Count(zohoaccounts.Refresh); n != 1 {
		t.Errorf("%d refreshes", n)
	}
	zoho.Expire(first)
	second := strings.TrimSpace(e.ok(t, "", append(args, "--rejected")...))
	if second == first || !zoho.Alive(second) {
		t.Error("the rejected token is not replaced")
	}
	third := strings.TrimSpace(e.ok(t, "", append(args, "--lasts", "2h")...))
	if third == second || zoho.Count(zohoaccounts.Refresh) != 3 {
		t.Error("a token that does not last is not replaced")
	}
}

func TestTokenOfARecordThatTellsItsServer(t *testing.T) {
	t.Parallel()
	zoho := zohoaccounts.New(&zohoaccounts.Options{DataCenter: "eu"})
	zoho.AddClient(zohoaccounts.Client{ID: "1000.C", Secret: "s", DataCenter: "eu"})
	refresh, _ := zoho.Tokens(zohoaccounts.Consent{ClientID: "1000.C", Email: "ann", ZGID: "6001"})
	e := fileStoreEnv(t)
	e.ok(t, fmt.Sprintf(`{"user_name":"ann","client_id":"1000.C","client_secret":"s","refresh_token":%q,"api_domain":"https://www.zohoapis.eu"}`, refresh), "save")
	var out, errs strings.Builder
	a := &app{schemes: allSchemes(), env: e.get, lookup: e.lookup, in: strings.NewReader(""), out: bufio.NewWriter(&out), errs: &errs, now: time.Now, http: zoho.Client()}
	if code := a.run(t.Context(), []string{"token", "--user", "ann", "--client", "1000.C"}); code != 0 || !zoho.Alive(strings.TrimSpace(out.String())) {
		t.Errorf("exit code %d: %s", code, errs.String())
	}
	e.ok(t, `{"user_name":"bob","client_id":"1000.C","client_secret":"s","refresh_token":"r"}`, "save")
	e.fails(t, 2, "", "token", "--user", "bob", "--client", "1000.C")
	e.fails(t, 3, "", "token", "--user", "eve", "--client", "1000.C")
	for _, args := range [][]string{
		{}, {"id", "--user", "u"}, {"--user", "u", "--header", "--json"}, {"--user", "u", "--lasts", "0s"}, {"a", "b"},
		{"--user", "ann", "--client", "1000.C", "--data-center", "eu", "--token-url", "https://id.example/token"},
	} {
		e.fails(t, 2, "", append([]string{"token"}, args...)...)
	}
}

func TestTokenThatIsRefused(t *testing.T) {
	t.Parallel()
	zoho, base, refresh := accounts(t)
	e := fileStoreEnv(t)
	e.ok(t, fmt.Sprintf(`{"user_name":"ann","client_id":"1000.C","client_secret":%q,"refresh_token":%q}`, canary+"secret", refresh), "save")
	zoho.RevokeTokens("1000.C", "ann")
	args := []string{"token", "--user", "ann", "--client", "1000.C", "--accounts-url", base}
	for range 2 {
		if text := e.fails(t, 16, "", args...); strings.Contains(text, refresh) {
			t.Error("the error has a token")
		}
	}
	zoho.Inject(func(zohoaccounts.Request) *zohoaccounts.Fault {
		return &zohoaccounts.Fault{Status: http.StatusBadGateway}
	})
	e.ok(t, fmt.Sprintf(`{"user_name":"ann","client_id":"1000.C","refresh_token":%q}`, refresh+"x"), "save")
	e.fails(t, 8, "", args...)
}

func TestPolicy(t *testing.T) {
	t.Parallel()
	aws := env{}.ok(t, "", "policy", "aws", "oauth/crm", "--region", "eu-central-1", "--account", "123456789012", "--tag", "team")
	policy := decode[map[string]any](t, aws)
	if policy["Version"] != "2012-10-17" || !strings.Contains(aws, "arn:aws:secretsmanager:eu-central-1:123456789012:secret:oauth/crm/*") || !strings.Contains(aws, `"team"`) {
		t.Errorf("%s", aws)
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"aws", "oauth", "--terraform"}, "resource \"aws_iam_policy\" \"tokenkeep\" {\n  name   = \"tokenkeep\"\n  policy = <<-JSON\n    {\n"},
		{[]string{"gcp", "crm-prod"}, "gcloud iam roles create tokenkeep --project=crm-prod"},
		{[]string{"gcp", "crm-prod", "--terraform"}, "    \"secretmanager.versions.access\",\n"},
		{[]string{"vault", "secret/oauth/crm"}, "path \"secret/data/oauth/crm/tokens/*\""},
		{[]string{"vault", "secret/oauth", "--terraform"}, "  policy = <<-HCL\n    # The records.\n"},
		{[]string{"k8s", "crm"}, "kind: Role\nmetadata:\n  namespace: crm\n  name: tokenkeep\n"},
		{[]string{"k8s", "crm", "--terraform"}, "  manifest = yamldecode(<<-YAML\n    apiVersion: rbac.authorization.k8s.io/v1\n"},
	} {
		if got := (env{}).ok(t, "", append([]string{"policy"}, c.args...)...); !strings.Contains(got, c.want) {
			t.Errorf("policy %v: %s", c.args, got)
		}
	}
	for _, args := range [][]string{
		{"aws"}, {"aws", "a*"}, {"aws", "a", "--kms-key", "alias/x"}, {"gcp", `p" x`}, {"vault", "secret"}, {"vault", "secret/${x}"}, {"k8s"}, {"k8s", "a: b"}, {"azure", "x"},
	} {
		env{}.fails(t, 2, "", append([]string{"policy"}, args...)...)
	}
}

// TestTokenIssuer checks that token finds the record of the server that the flags name. It must
// not send the tokens of a record to another server.
func TestTokenIssuer(t *testing.T) {
	t.Parallel()
	zoho, base, refresh := accounts(t)
	e := fileStoreEnv(t)
	endpoint := base + "/oauth/v2/token"
	save := func(user, issuer, refresh string) {
		t.Helper()
		e.ok(t, fmt.Sprintf(`{"user_name":%q,"client_id":"1000.C","client_secret":%q,"refresh_token":%q,"issuer":%q}`, user, canary+"secret", refresh, issuer), "save")
	}
	save("ann", endpoint, refresh)
	save("ann", "https://other.example", "r-other")
	e = e.with(envClientSecret, canary+"secret")
	args := []string{"token", "--user", "ann", "--client", "1000.C", "--token-url", endpoint}
	e.ok(t, "", args...)
	save("bob", "https://other.example", "r-bob")
	before := len(zoho.Requests())
	e.fails(t, 3, "", "token", "--user", "bob", "--client", "1000.C", "--token-url", endpoint)
	e.fails(t, 2, "", "token", "3", "--token-url", endpoint) // the record of bob
	if n := len(zoho.Requests()); n != before {
		t.Errorf("the server was asked %d times", n-before)
	}
	// With --issuer, the user confirms that the server at --token-url belongs to the issuer, so
	// token sends the request.
	e.fails(t, 16, "", append(args, "--issuer", "https://other.example")...)
}

// TestTokenURLFromIssuer checks that an issuer that is a token endpoint is used as such, and that
// for any other issuer, the error names the flag. The server that a record names must not get the
// client's secret in the environment, unless --issuer names the server too.
func TestTokenURLFromIssuer(t *testing.T) {
	t.Parallel()
	zoho, base, refresh := accounts(t)
	endpoint := base + "/oauth/v2/token"
	e := fileStoreEnv(t)
	for user, issuer := range map[string]string{"ann": endpoint, "bob": base} {
		e.ok(t, fmt.Sprintf(`{"user_name":%q,"client_id":"1000.C","client_secret":%q,"refresh_token":%q,"issuer":%q}`, user, canary+"secret", refresh, issuer), "save")
	}
	e.ok(t, fmt.Sprintf(`{"user_name":"eve","client_id":"1000.C","refresh_token":%q,"issuer":%q}`, refresh, endpoint), "save")
	foreign := e.with(envClientSecret, canary+"secret of another server")
	if r := foreign.tk(t, "", "keep", "--jitter", "0s"); !strings.Contains(r.out, "3 skipped") || len(zoho.Requests()) != 0 {
		t.Errorf("keep: %+v", r)
	}
	if got := strings.TrimSpace(foreign.ok(t, "", "token", "--user", "ann")); !zoho.Alive(got) {
		t.Error("the token is no good one")
	}
	if got := foreign.ok(t, "", "refresh", "--user", "ann"); !strings.Contains(got, "refreshed") {
		t.Errorf("refresh: %s", got)
	}
	foreign.tk(t, "", "token", "--user", "eve")
	for _, q := range zoho.Requests() {
		if strings.Contains(fmt.Sprint(q), "another server") {
			t.Error("the server of the record has got the secret in the environment")
		}
	}
	for _, command := range []string{"token", "refresh"} {
		if text := foreign.fails(t, 2, "", command, "--user", "bob"); !strings.Contains(text, "issuer "+base+" is unknown: give --token-url") {
			t.Errorf("%s: %s", command, text)
		}
	}
	own := e.with(envClientSecret, canary+"secret")
	own.ok(t, "", "token", "--user", "eve", "--issuer", endpoint)
	own.ok(t, "", "token", "--user", "bob", "--token-url", endpoint, "--issuer", base)
}

// TestExecCredentialType checks that a token whose type is not Bearer is not printed for
// Kubernetes, which would send the token as Bearer.
func TestExecCredentialType(t *testing.T) {
	t.Parallel()
	e := fileStoreEnv(t)
	for _, kind := range []string{"DPoP", "Bearer"} {
		e.ok(t, fmt.Sprintf(`{"user_name":%q,"client_id":"c","access_token":%q,"refresh_token":%q,"expiry_time":%q,"token_type":%q,"issuer":"https://login.example/token"}`,
			kind, canary+kind, canary+"r"+kind, fmt.Sprint(time.Now().Add(time.Hour).UnixMilli()), kind), "save")
	}
	e.ok(t, "", "token", "--user", "Bearer", "--exec-credential")
	if r := e.tk(t, "", "token", "--user", "DPoP", "--exec-credential"); r.code != 14 || r.out != "" || !strings.Contains(r.err, "DPoP") {
		t.Errorf("%+v", r)
	}
	if got := e.ok(t, "", "token", "--user", "DPoP", "--header"); !strings.Contains(got, "DPoP "+canary) {
		t.Error("the header is not that of the type")
	}
}

func TestIsEndpoint(t *testing.T) {
	t.Parallel()
	for issuer, want := range map[string]bool{
		"https://login.example.com/token": true, "https://github.com/login/oauth/access_token": true,
		"https://id.example/v2/token?v=1": true, "http://127.0.0.1:8080/token": true,
		"": false, "https://login.example.com": false, "https://login.example.com/": false, "https://id.example/realms/tokens": false,
		"HTTPS://login.example.com/token": false, "https://login.example.com:443/token": false, "login.example.com/token": false,
		"http://id.example/token": false, "https://me@id.example/token": false, "https://id.example/token/": false,
	} {
		if got := isEndpoint(issuer); got != want {
			t.Errorf("%s: %v", issuer, got)
		}
	}
}
