package authservers_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/authservers"
)

// A bench is a server with a clock that only the tests advance.
type bench struct {
	*authservers.Server
	t *testing.T
}

type answer struct {
	Access    string `json:"access_token"`
	Refresh   string `json:"refresh_token"`
	ExpiresIn *int   `json:"expires_in"`
	Error     string `json:"error"`
}

func newBench(t *testing.T, p authservers.Policy) *bench {
	t.Helper()
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return &bench{authservers.New(p, "id", "secret", func() time.Time { return start }), t}
}

// ask sends form to a URL, with the client's ID and the given secret.
func (b *bench) ask(to, secret string, form url.Values) (got answer) {
	b.t.Helper()
	req, err := http.NewRequestWithContext(b.t.Context(), http.MethodPost, to, strings.NewReader(form.Encode()))
	if err != nil {
		b.t.Fatal(err)
	}
	req.SetBasicAuth("id", secret)
	res, err := b.RoundTrip(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(&got); err != nil {
		b.t.Fatal(err)
	}
	return got
}

func (b *bench) exchange(code string) answer {
	b.t.Helper()
	return b.ask(authservers.TokenURL, "secret", url.Values{"grant_type": {"authorization_code"}, "code": {code}})
}

func (b *bench) refresh(token string) answer {
	b.t.Helper()
	return b.ask(authservers.TokenURL, "secret", url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}})
}

func (b *bench) refused(what string, a answer) {
	b.t.Helper()
	if a.Error != "invalid_grant" || a.Access != "" {
		b.t.Errorf("%s: the answer is %+v", what, a)
	}
}

func TestSources(t *testing.T) {
	t.Parallel()
	names := map[string]bool{}
	for _, p := range authservers.Policies() {
		if u, err := url.Parse(p.Source); err != nil || u.Host == "" || p.Name == "" || names[p.Name] {
			t.Errorf("the policy %q has the source %q", p.Name, p.Source)
		}
		names[p.Name] = true
	}
}

func TestPolicies(t *testing.T) {
	t.Parallel()
	for _, p := range authservers.Policies() {
		t.Run(p.Name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, p)
			code := b.Code()
			first := b.exchange(code)
			if (first.ExpiresIn == nil) != p.Unstated || !b.Alive(first.Access) || first.Refresh == "" {
				t.Fatalf("the answer is %+v", first)
			}
			second := b.refresh(first.Refresh)
			if (second.Refresh != "") != p.Rotates || second.Access == first.Access || b.Alive(first.Access) == p.Supersedes {
				t.Errorf("the answer is %+v", second)
			}
			if p.Rotates {
				b.replaced(p, first, second)
			}
			b.refused("a code that was used", b.exchange(code))
			if !p.Revokes && p.RevokesCode == b.Alive(second.Access) {
				t.Error("the tokens of the code live on, or do not")
			}
		})
	}
}

// replaced checks that a replaced refresh token works during p.Grace, and that the server refuses
// the token afterwards. It also checks that the late use revokes the family if p.Revokes is set,
// and only then.
func (b *bench) replaced(p authservers.Policy, first, second answer) {
	b.t.Helper()
	if p.Grace > 0 {
		if a := b.refresh(first.Refresh); a.Access == "" || (a.Access == second.Access) != p.Repeats {
			b.t.Errorf("a retry answers %+v", a)
		}
	}
	b.Advance(p.Grace)
	b.refused("a token past its grace", b.refresh(first.Refresh))
	if b.Alive(second.Access) == p.Revokes {
		b.t.Error("the family lives on, or does not")
	}
}

func TestGraceEndsWithASuccessorInUse(t *testing.T) {
	t.Parallel()
	b := newBench(t, authservers.Policy{Rotates: true, Grace: time.Minute, Revokes: true})
	first := b.exchange(b.Code())
	third := b.refresh(b.refresh(first.Refresh).Refresh)
	b.refused("the token before the previous one", b.refresh(first.Refresh))
	if b.Alive(third.Access) {
		t.Error("the family lives on")
	}
}

func TestIdleness(t *testing.T) {
	t.Parallel()
	b := newBench(t, authservers.Policy{Idle: time.Hour})
	first := b.exchange(b.Code())
	for range 3 {
		b.Advance(59 * time.Minute)
		if a := b.refresh(first.Refresh); !b.Alive(a.Access) {
			t.Fatalf("the answer is %+v", a)
		}
	}
	b.Advance(time.Hour)
	b.refused("an idle token", b.refresh(first.Refresh))
}

func TestRefusalsAndRevocation(t *testing.T) {
	t.Parallel()
	b := newBench(t, authservers.Policy{})
	late := b.Code()
	b.Advance(10 * time.Minute)
	b.refused("a code that has expired", b.exchange(late))
	first := b.exchange(b.Code())
	if a := b.ask(authservers.TokenURL, "wrong", url.Values{"grant_type": {"refresh_token"}}); a.Error != "invalid_client" {
		t.Errorf("another client: %+v", a)
	}
	b.ask(authservers.RevokeURL, "secret", url.Values{"token": {first.Refresh}})
	b.refused("a token that was revoked", b.refresh(first.Refresh))
	if b.Alive(first.Access) {
		t.Error("the access token lives on")
	}
}

func TestAPI(t *testing.T) {
	t.Parallel()
	b := newBench(t, authservers.Policy{})
	first := b.exchange(b.Code())
	for _, want := range []int{http.StatusOK, http.StatusUnauthorized} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://api.example.com/", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+first.Access)
		res, err := b.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("the API answers %d, not %d", res.StatusCode, want)
		}
		b.Expire(first.Access)
	}
}
