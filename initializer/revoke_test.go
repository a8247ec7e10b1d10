package initializer_test

import (
	"errors"
	"testing"

	"github.com/tokenkeep/tokenkeep/initializer"
	"github.com/tokenkeep/tokenkeep/internal/zohoaccounts"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

func TestEnvironmentOf(t *testing.T) {
	t.Parallel()
	for domain, want := range map[string]string{
		"https://www.zohoapis.eu":      "https://accounts.zoho.eu",
		"https://sandbox.zohoapis.com": "https://accounts.zoho.com",
		"https://www.zohoapis.com.cn":  "https://accounts.zoho.com.cn",
		"https://zohoapis.example.com": "",
		"http://www.zohoapis.eu":       "",
		"":                             "",
	} {
		e, ok := initializer.EnvironmentOf(domain)
		if e.AccountsURL != want || ok != (want != "") {
			t.Errorf("%s: %v, %v", domain, e, ok)
		}
	}
}

func TestRevokeTokenNeedsNoStore(t *testing.T) {
	t.Parallel()
	zoho := zohoaccounts.New(nil)
	zoho.AddClient(zohoaccounts.Client{ID: "c", Secret: "s", DataCenter: "eu"})
	refresh, access := zoho.Tokens(zohoaccounts.Consent{ClientID: "c", Email: "ann"})
	record := tokenstore.Token{ID: "1", ClientID: "c", RefreshToken: tokenstore.Secret(refresh), AccessToken: "an old one", APIDomain: "https://www.zohoapis.eu"}
	conf := initializer.Config{Environment: initializer.US.Production(), HTTPClient: zoho.Client()}
	zoho.Inject(func(zohoaccounts.Request) *zohoaccounts.Fault { return &zohoaccounts.Fault{Drop: true} })
	if err := initializer.RevokeToken(t.Context(), conf, record); !errors.Is(err, initializer.ErrServer) {
		t.Errorf("without an answer: %v", err)
	}
	zoho.Inject(nil)
	for range 2 { // revoking again is not an error
		if err := initializer.RevokeToken(t.Context(), conf, record); err != nil || zoho.Alive(access) {
			t.Errorf("RevokeToken: %v", err)
		}
	}
	for _, r := range zoho.Requests() {
		if r.Host != "accounts.zoho.eu" || r.Kind != zohoaccounts.Revoke {
			t.Errorf("%s was asked to %s", r.Host, r.Kind)
		}
	}
	if err := initializer.RevokeToken(t.Context(), initializer.Config{}, record); err == nil {
		t.Error("no server is configured, and there is no error")
	}
	if err := initializer.RevokeToken(t.Context(), conf, tokenstore.Token{ID: "1", UserName: "ann"}); err != nil {
		t.Errorf("a record without tokens: %v", err)
	}
}
