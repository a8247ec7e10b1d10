package zohoaccounts_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/zohoaccounts"
)

const (
	id     = "1000.CID"
	secret = "SEC"
	us     = "https://accounts.zoho.com"
)

func consent() zohoaccounts.Consent {
	return zohoaccounts.Consent{ClientID: id, Email: "ann@example.com", ZGID: "6001"}
}

type user struct {
	t *testing.T
	*zohoaccounts.Server
	now time.Time
}

func start(t *testing.T, o zohoaccounts.Options) *user {
	t.Helper()
	u := &user{t: t, now: time.Unix(1_800_000_000, 0)}
	o.Now = func() time.Time { return u.now }
	u.Server = zohoaccounts.New(&o)
	u.AddClient(zohoaccounts.Client{ID: id, Secret: secret})
	return u
}

func (u *user) post(to string, form ...string) (int, map[string]any) {
	u.t.Helper()
	values := url.Values{}
	for i := 0; i < len(form); i += 2 {
		values.Set(form[i], form[i+1])
	}
	res, err := u.Client().PostForm(to, values)
	if err != nil {
		u.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	var answer map[string]any
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
		u.t.Fatal(err)
	}
	return res.StatusCode, answer
}

func (u *user) exchange(code string) (int, map[string]any) {
	u.t.Helper()
	return u.post(us+"/oauth/v2/token", "grant_type", "authorization_code", "client_id", id, "client_secret", secret, "code", code)
}

func (u *user) refresh(token string) (int, map[string]any) {
	u.t.Helper()
	return u.post(us+"/oauth/v2/token", "grant_type", "refresh_token", "client_id", id, "client_secret", secret, "refresh_token", token)
}

func (u *user) refused(status int, answer map[string]any, wantStatus int, code string) {
	u.t.Helper()
	if status != wantStatus || answer["error"] != code || answer["access_token"] != nil {
		u.t.Errorf("the answer is %d with the error %v, not %d with %q", status, answer["error"], wantStatus, code)
	}
}

func (u *user) call(base, path, token string) (int, string) {
	u.t.Helper()
	req, err := http.NewRequestWithContext(u.t.Context(), http.MethodGet, base+path, nil)
	if err != nil {
		u.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Zoho-oauthtoken "+token)
	res, err := u.Client().Do(req)
	if err != nil {
		u.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		u.t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

func TestCodeReusedOrLate(t *testing.T) {
	t.Parallel()
	u := start(t, zohoaccounts.Options{})
	code, late := u.Code(consent()), u.Code(consent())
	status, answer := u.exchange(code)
	if status != 200 || answer["access_token"] == nil || answer["refresh_token"] == nil || answer["expires_in"] != 3600.0 || answer["api_domain"] != "https://www.zohoapis.com" {
		t.Errorf("the answer is %d %v", status, answer)
	}
	status, answer = u.exchange(code)
	u.refused(status, answer, 200, "invalid_code")
	u.Advance(3 * time.Minute)
	status, answer = u.exchange(late)
	u.refused(status, answer, 200, "invalid_code")
	if u.Count(zohoaccounts.Exchange) != 3 || u.Refused("invalid_code") != 2 {
		t.Errorf("the requests are %+v", u.Requests())
	}
}

func TestCodeOtherClient(t *testing.T) {
	t.Parallel()
	u := start(t, zohoaccounts.Options{})
	u.AddClient(zohoaccounts.Client{ID: "other", Secret: "s", RedirectURL: "https://app/cb"})
	status, answer := u.post(us+"/oauth/v2/token", "grant_type", "authorization_code", "client_id", "other", "client_secret", "s", "code", u.Code(consent()))
	u.refused(status, answer, 200, "invalid_code")
	c := consent()
	c.ClientID = "other"
	status, answer = u.post(us+"/oauth/v2/token", "grant_type", "authorization_code", "client_id", "other", "client_secret", "s", "code", u.Code(c))
	u.refused(status, answer, 200, "invalid_redirect_uri")
}

func TestClientCredentials(t *testing.T) {
	t.Parallel()
	u := start(t, zohoaccounts.Options{})
	for host, want := range map[string]any{"accounts.zoho.com": nil, "accounts.zoho.eu": "invalid_client", "accounts.zohocloud.ca": "invalid_client", "127.0.0.1:8080": nil} {
		_, answer := u.post("http://"+host+"/oauth/v2/token", "grant_type", "authorization_code", "client_id", id, "client_secret", secret, "code", u.Code(consent()))
		if answer["error"] != want {
			t.Errorf("%s: the error is %v", host, answer["error"])
		}
	}
	status, answer := u.post(us+"/oauth/v2/token", "grant_type", "refresh_token", "client_id", id, "client_secret", "wrong")
	u.refused(status, answer, 200, "invalid_client_secret")
}

func TestRefreshRateLimit(t *testing.T) {
	t.Parallel()
	u := start(t, zohoaccounts.Options{})
	refresh, _ := u.Tokens(consent()) // issues the first of ten access tokens
	for i := 2; i <= 10; i++ {
		if _, answer := u.refresh(refresh); answer["access_token"] == nil || answer["refresh_token"] != nil {
			t.Fatalf("the %dth: %v", i, answer)
		}
	}
	status, answer := u.refresh(refresh)
	u.refused(status, answer, 200, "Access Denied")
	u.Advance(10 * time.Minute)
	if _, answer := u.refresh(refresh); answer["access_token"] == nil {
		t.Errorf("ten minutes later: %v", answer)
	}
}

func TestAccessTokenLimit(t *testing.T) {
	t.Parallel()
	u := start(t, zohoaccounts.Options{Mints: 100})
	refresh, first := u.Tokens(consent())
	for i := 2; i <= 15; i++ {
		u.refresh(refresh)
	}
	if !u.Alive(first) {
		t.Error("the first is dead with 15 of them")
	}
	u.refresh(refresh)
	if u.Alive(first) {
		t.Error("the first is alive with 16 of them")
	}
	if status, body := u.call("https://www.zohoapis.com", "/crm/v8/Leads", first); status != 401 || !strings.Contains(body, `"INVALID_TOKEN"`) {
		t.Errorf("the CRM answers %d %s", status, body)
	}
}

func TestRefreshTokenLimit(t *testing.T) {
	t.Parallel()
	u := start(t, zohoaccounts.Options{})
	first, access := u.Tokens(consent())
	for range 19 {
		u.Tokens(consent())
	}
	if _, answer := u.refresh(first); answer["access_token"] == nil {
		t.Errorf("with 20 of them: %v", answer)
	}
	u.Tokens(consent())
	status, answer := u.refresh(first)
	u.refused(status, answer, 200, "invalid_code")
	if u.Alive(access) {
		t.Error("its access token is alive")
	}
}

func TestRevocationEndsWhatComesOfAToken(t *testing.T) {
	t.Parallel()
	u := start(t, zohoaccounts.Options{})
	refresh, access := u.Tokens(consent())
	if _, answer := u.post(us+"/oauth/v2/token/revoke?token="+refresh, "x", "y"); answer["status"] != "success" {
		t.Errorf("the answer is %v", answer)
	}
	status, answer := u.refresh(refresh)
	u.refused(status, answer, 200, "invalid_code")
	if u.Alive(access) {
		t.Error("the access token is alive")
	}
	status, answer = u.post(us+"/oauth/v2/token/revoke", "token", "unknown")
	u.refused(status, answer, 200, "invalid_token")
	_, access = u.Tokens(consent())
	u.post(us+"/oauth/v2/token/revoke", "token", access)
	if u.Alive(access) {
		t.Error("the revoked access token is alive")
	}
}

func TestCRMCurrentUser(t *testing.T) {
	t.Parallel()
	u := start(t, zohoaccounts.Options{})
	c := consent()
	c.Environment, c.Scopes = "sandbox", []string{"ZohoCRM.users.READ"}
	_, access := u.Tokens(c)
	const base = "https://sandbox.zohoapis.com"
	if status, body := u.call(base, "/crm/v8/users?type=CurrentUser", access); status != 200 || !strings.Contains(body, c.Email) {
		t.Errorf("users: %d %s", status, body)
	}
	if status, body := u.call(base, "/crm/v8/org", access); status != 401 || !strings.Contains(body, "OAUTH_SCOPE_MISMATCH") {
		t.Errorf("org: %d %s", status, body)
	}
	for _, elsewhere := range []string{"https://www.zohoapis.com", "https://sandbox.zohoapis.eu"} {
		if status, _ := u.call(elsewhere, "/crm/v8/users?type=CurrentUser", access); status != 401 {
			t.Errorf("%s takes the token", elsewhere)
		}
	}
	u.Advance(time.Hour)
	if status, _ := u.call(base, "/crm/v8/users?type=CurrentUser", access); status != 401 {
		t.Error("an hour later the token is still good")
	}
}

func TestStrictReuse(t *testing.T) {
	t.Parallel()
	u := start(t, zohoaccounts.Options{Strict: true})
	first, _ := u.Tokens(consent())
	_, answer := u.refresh(first)
	second, _ := answer["refresh_token"].(string)
	access, _ := answer["access_token"].(string)
	if second == "" || second == first || !u.Alive(access) {
		t.Fatalf("the answer is %v", answer)
	}
	status, answer := u.refresh(first)
	u.refused(status, answer, 400, "invalid_grant")
	status, answer = u.refresh(second)
	u.refused(status, answer, 400, "invalid_grant")
	if u.Alive(access) {
		t.Error("the access token of the family is alive")
	}

	code := u.Code(consent())
	_, answer = u.exchange(code)
	access, _ = answer["access_token"].(string)
	status, answer = u.exchange(code)
	u.refused(status, answer, 400, "invalid_grant")
	if u.Alive(access) {
		t.Error("the access token of a code that was used twice is alive")
	}
}

func TestOldAnswersHaveMilliseconds(t *testing.T) {
	t.Parallel()
	u := start(t, zohoaccounts.Options{Milliseconds: true})
	if _, answer := u.exchange(u.Code(consent())); answer["expires_in"] != 3600000.0 || answer["expires_in_sec"] != 3600.0 {
		t.Errorf("the answer is %v", answer)
	}
}

func TestFaultsTakeTheAnswersPlace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		u := start(t, zohoaccounts.Options{})
		fault := zohoaccounts.Fault{Delay: 571 * time.Millisecond, Status: 503, Body: `{}`}
		u.Inject(func(zohoaccounts.Request) *zohoaccounts.Fault { return &fault })
		begun := time.Now()
		code := u.Code(consent())
		if status, _ := u.exchange(code); status != 503 || time.Since(begun) != 571*time.Millisecond {
			t.Errorf("the answer is %d after %v", status, time.Since(begun))
		}
		fault = zohoaccounts.Fault{Drop: true, Applied: true}
		if _, err := u.Client().PostForm(us+"/oauth/v2/token", url.Values{"grant_type": {"authorization_code"}, "client_id": {id}, "client_secret": {secret}, "code": {code}}); err == nil {
			t.Error("there is an answer")
		}
		u.Inject(nil)
		status, answer := u.exchange(code) // the earlier exchange was executed, but its response was lost
		u.refused(status, answer, 200, "invalid_code")
	})
}

func TestItListensOnTheLoopbackInterface(t *testing.T) {
	t.Parallel()
	u := start(t, zohoaccounts.Options{})
	base, stop, err := u.Listen()
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	res, err := http.PostForm(base+"/oauth/v2/token", url.Values{"grant_type": {"authorization_code"}, "client_id": {id}, "client_secret": {secret}, "code": {u.Code(consent())}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	var answer map[string]any
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil || answer["api_domain"] != base {
		t.Errorf("the answer is %v: %v", answer, err)
	}
	u.Inject(func(zohoaccounts.Request) *zohoaccounts.Fault { return &zohoaccounts.Fault{Drop: true} })
	if _, err := http.PostForm(base+"/oauth/v2/token", nil); err == nil {
		t.Error("the connection was not broken")
	}
}
