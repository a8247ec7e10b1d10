package agent_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/tokenkeep/tokenkeep/agent"
	"github.com/tokenkeep/tokenkeep/internal/zohoaccounts"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// TestNoSecretIsLoggedOrInAnError checks that the responses and the log of failing requests
// contain none of the secrets in the requests.
func TestNoSecretIsLoggedOrInAnError(t *testing.T) {
	t.Parallel()
	const canary = "canary"
	w := newWorld(t, nil)
	w.zoho.AddClient(zohoaccounts.Client{ID: "c", Secret: "canary-client-secret"})
	request := object{
		"client_id": "c", "client_secret": "canary-client-secret", "refresh_token": "canary-refresh-token",
		"grant_token": "canary-grant-token", "redirect_url": "https://app.example/",
	}
	check := func(what, answer string) {
		t.Helper()
		if strings.Contains(answer, canary) {
			t.Errorf("%s: the answer has a secret: %s", what, answer)
		}
	}
	for what, fault := range map[string]*zohoaccounts.Fault{
		"refused": nil,
		"repeats": {Status: 200, Body: `{"error":"canary-refresh-token canary-grant-token canary-client-secret"}`},
		"page":    {Status: 500, Body: "canary-refresh-token"},
		"dropped": {Drop: true},
	} {
		w.zoho.Inject(func(zohoaccounts.Request) *zohoaccounts.Fault { return fault })
		for _, op := range []string{"find", "token", "rejected"} {
			with := object{"access_token": "canary-access-token"}
			for name, value := range request {
				with[name] = value
			}
			_, answer := w.post(op, with)
			if answer["class"] == nil {
				t.Errorf("%s: %s succeeds", what, op)
			}
			check(what+" "+op, fmt.Sprint(answer))
		}
	}
	w.secrets.fail(driver.ErrUnavailable, driver.ErrUnavailable)
	for _, op := range []string{"find", "save", "token", "rejected"} {
		_, answer := w.post(op, object{"access_token": "canary-access-token"})
		check("down "+op, fmt.Sprint(answer))
	}
	for _, body := range []string{`{"canary":"canary-token"`, `{"canary":"canary-token"}`, `{"id":["canary-token"]}`, `{"expiry_time":"canary"}`, `canary`, `{"id":"` + strings.Repeat("canary-token", 50) + `"}`} {
		_, answer := w.do(http.MethodPost, "/v1/find", body, nil)
		check(body, answer)
	}
	_, answer := w.do(http.MethodPost, "/v1/canary-token", "{}", map[string]string{agent.TokenHeader: "canary-agent-token"})
	check("path", answer)
	w.do(http.MethodPost, "/v1/find", "{}", map[string]string{agent.TokenHeader: "canary-agent-token"})
	check("handle", fmt.Sprintf("%v %+v %#v", w.h, w.h, w.h))
	for _, secret := range []string{canary, agentToken, clientSecret, userName} {
		if strings.Contains(w.logged.String(), secret) {
			t.Errorf("%q is in the log", secret)
		}
	}
	if w.logged.String() == "" {
		t.Error("nothing is logged")
	}
}
