package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"github.com/tokenkeep/tokenkeep/internal/authservers"
)

const clientSecret = "canary-secret"

// serve starts an authorization server and an API that accepts its tokens. The authorization
// server revokes all tokens if a refresh token is used twice.
func serve(t *testing.T) (server *authservers.Server, url string) {
	t.Helper()
	server = authservers.New(authservers.Policy{Rotates: true, Revokes: true}, "client", clientSecret, time.Now)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out, err := http.NewRequestWithContext(r.Context(), r.Method, "https://api.example.com/", r.Body)
		if err != nil {
			t.Error(err)
			return
		}
		out.Header = r.Header
		if r.URL.Path == "/token" {
			out.URL, err = out.URL.Parse(authservers.TokenURL)
		}
		if err != nil {
			t.Error(err)
			return
		}
		res, err := server.RoundTrip(out)
		if err != nil {
			t.Error(err)
			return
		}
		for name, values := range res.Header {
			w.Header()[name] = values
		}
		w.WriteHeader(res.StatusCode)
		_, _ = io.Copy(w, res.Body)
		_ = res.Body.Close()
	}))
	t.Cleanup(s.Close)
	return server, s.URL
}

// TestRotation runs each program three times with the tokens of the same consent. The access token
// has expired. The test checks that this program keeps each new refresh token, and that the program
// in the directory "before" does not.
func TestRotation(t *testing.T) {
	t.Parallel()
	for program, keeps := range map[string]bool{"./before": false, ".": true} {
		t.Run(program, func(t *testing.T) {
			t.Parallel()
			server, url := serve(t)
			conf := oauth2.Config{ClientID: "client", ClientSecret: clientSecret, Endpoint: oauth2.Endpoint{TokenURL: url + "/token", AuthStyle: oauth2.AuthStyleInHeader}}
			tok, err := conf.Exchange(t.Context(), server.Code())
			if err != nil {
				t.Fatal(err)
			}
			tok.Expiry = time.Now().Add(-time.Hour)
			server.Expire(tok.AccessToken)
			given, err := json.Marshal(tok)
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			bin := filepath.Join(dir, "program")
			if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", bin, program).CombinedOutput(); err != nil {
				t.Fatalf("go build: %v: %s", err, out)
			}
			run := func() (string, error) {
				cmd := exec.CommandContext(t.Context(), bin)
				cmd.Dir = dir
				cmd.Env = append(os.Environ(), "TOKEN="+string(given), "CLIENT_ID=client", "CLIENT_SECRET="+clientSecret, "TOKEN_URL="+url+"/token", "API_URL="+url+"/api")
				out, err := cmd.CombinedOutput()
				return string(out), err
			}
			for i := range 3 {
				out, err := run()
				if (err == nil) != (keeps || i == 0) {
					t.Fatalf("run %d: %v: %s", i+1, err, out)
				}
				if strings.Contains(out, tok.RefreshToken) || strings.Contains(out, clientSecret) {
					t.Errorf("it printed a secret: %s", out)
				}
				server.ExpireAll()
			}
		})
	}
}
