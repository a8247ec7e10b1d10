package vaultstore_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/tokenkeep/tokenkeep/internal/fakevault"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/doctor"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/vaultstore"
)

const canary = "s3cret-record"

// operations calls each operation of the driver, and returns the errors by operation. Each call
// uses a new driver, which has not yet found out which engine is mounted.
func operations(e *env) map[string]error {
	ctx := e.Context()
	user := label("user", 'a', 'n')
	base := driver.Secret{Payload: driver.Payload{Data: []byte(canary)}, Version: "1 2030-01-01T00:00:00Z"}
	payload := driver.Payload{Data: []byte(canary), Labels: []driver.Label{user}}
	open := func() driver.Secrets { return newDriver(e, e.client, nil) }
	_, get := open().Get(ctx, name)
	_, fresh := open().Fresh(ctx, name, driver.Secret{})
	_, create := open().Create(ctx, name, payload)
	_, bare := open().Create(ctx, name, driver.Payload{Data: []byte(canary)})
	_, update := open().Update(ctx, name, base, payload)
	return map[string]error{
		"Get": get, "Fresh": fresh, "Create": create, "Create without labels": bare, "Update": update,
		"Delete": open().Delete(ctx, name, base),
		"List":   count(open().List(ctx), 0), "Names": count(open().Names(ctx), 0),
		"Lookup":  count(open().Lookup(ctx, []driver.Label{user}), 0),
		"Inspect": count(open().(driver.Inspector).Inspect(ctx), 0),
		"Probe":   count(open().(driver.Inspector).Probe(ctx), 0),
	}
}

// hide returns a function for Inject that denies requests whose path starts with one of
// paths.
func hide(paths ...string) func(*fakevault.Request) *fakevault.Fault {
	return func(q *fakevault.Request) *fakevault.Fault {
		for _, p := range paths {
			if strings.HasPrefix(q.Path, p) {
				return &fakevault.Fault{Status: http.StatusForbidden, Errors: []string{"1 error occurred:\n\t* permission denied\n\n"}}
			}
		}
		return nil
	}
}

// TestKV1 checks that operations on a mount of KV version 1 fail and send no record to the
// server. Reads need not fail if the token's permissions hide the version.
func TestKV1(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		policy bool
		hidden []string
	}{
		{"root", false, nil},
		{"the policy", true, nil},
		{"the policy, and a proxy", true, []string{"sys/"}},
		{"root, and a proxy", false, []string{"sys/"}},
		{"nothing to look at", true, []string{"sys/", "secret/config"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t, nil)
			e.server.Mount("", "secret", fakevault.Config{KV1: true})
			if c.policy {
				if err := e.server.Policy("", "app", vaultstore.Policy("secret", app)); err != nil {
					t.Fatal(err)
				}
				e.client.SetToken(e.server.Token("", 0, "app"))
			}
			e.server.Inject(hide(c.hidden...))
			sees := len(c.hidden) < 2 && !(c.policy && c.hidden != nil)
			for op, err := range operations(e) {
				if !sees && !strings.HasPrefix(op, "Create") && op != "Update" && op != "Delete" {
					continue // reads cannot find out the version
				}
				is(t, op, err, driver.ErrRefused)
				if err == nil || !strings.Contains(err.Error(), "not a KV version 2 secrets engine") {
					t.Errorf("%s: %v", op, err)
				}
			}
			for _, q := range e.server.Requests() {
				if strings.Contains(string(q.Body), canary) || strings.Contains(q.Path, "/index/") && q.Operation == "write" {
					t.Errorf("sent: %s %s", q.Method, q.Path)
				}
			}
		})
	}
}

// TestKV1WithWhatLooksLikeARecord checks that operations on a mount of KV version 1 fail
// even if the mount holds data in the form of records.
func TestKV1WithWhatLooksLikeARecord(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	e.server.Mount("", "secret", fakevault.Config{KV1: true})
	user := label("user", 'a', 'n')
	for path, body := range map[string]string{
		"data/" + app + "/tokens/" + name:                                               `{"data":{"record":"x"},"options":{"cas":0}}`,
		"metadata/" + app + "/tokens/" + name:                                           `{"current_version":1}`,
		"metadata/" + app + "/index/user/" + user.Value + "/" + name + "." + user.Nonce: `{"custom_metadata":{"name":"x"}}`,
	} {
		if status, text := e.vault("PUT", path, body); status != http.StatusNoContent {
			t.Fatalf("%d %s", status, text)
		}
	}
	for op, err := range operations(e) {
		is(t, op, err, driver.ErrRefused)
	}
}

// TestHiddenMount checks that a driver works even if the token may not read the paths under
// sys/ that show the mounted engine.
func TestHiddenMount(t *testing.T) {
	t.Parallel()
	for _, bao := range []bool{false, true} {
		t.Run(fmt.Sprint(bao), func(t *testing.T) {
			t.Parallel()
			e := envOn(t, &fakevault.Options{OpenBao: bao}, nil)
			if err := e.server.Policy("", "app", vaultstore.Policy("secret", app)); err != nil {
				t.Fatal(err)
			}
			e.client.SetToken(e.server.Token("", 0, "app"))
			e.server.Inject(hide("sys/"))
			_, err := e.Get(t.Context(), name)
			is(t, "Get", err, driver.ErrNotFound)
			if err := count(e.List(t.Context()), 0); err != nil {
				t.Errorf("List: %v", err)
			}
			s := e.create("x", label("user", 'a', 'n'))
			e.holds(s)
			e.server.Reset()
			e.holds(e.update(s, "y"))
			if n := e.server.Count()["read sys"]; n > 0 {
				t.Errorf("%d looks at a mount that is known", n)
			}
		})
	}
}

func TestNoEngine(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	for mount, want := range map[string]string{
		"nomount": `no KV version 2 engine at "nomount"`, "v1/secret": `no KV version 2 engine at "v1/secret"`,
		"secret/data": `no KV version 2 engine at "secret/data": that path is in the engine at "secret"`,
	} {
		for _, policy := range []bool{false, true} {
			if err := e.server.Policy("", mount, vaultstore.Policy(mount, app)); err != nil {
				t.Fatal(err)
			}
			token := fakevault.RootToken
			if policy {
				token = e.server.Token("", 0, mount)
			}
			d, err := vaultstore.NewDriver(newClient(t, e.server.URL, token), mount, app, nil)
			if err != nil {
				t.Fatal(err)
			}
			_, get := d.Get(t.Context(), name)
			_, create := d.Create(t.Context(), name, driver.Payload{Data: []byte("x")})
			for op, err := range map[string]error{"Get": get, "Create": create, "List": count(d.List(t.Context()), 0)} {
				is(t, op, err, driver.ErrRefused)
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%s with a policy %v: %v, want %s", op, policy, err, want)
				}
			}
		}
	}
}

// TestPrefixOfTheAPI checks that New refuses a prefix whose first element belongs to Vault's
// API.
func TestPrefixOfTheAPI(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	for _, prefix := range []string{"data/oauth", "metadata/oauth", "destroy/x", "delete/x", "undelete/x", "subkeys/x", "data"} {
		first, _, _ := strings.Cut(prefix, "/")
		if _, err := vaultstore.New(e.client, "secret", prefix, nil); err == nil || !strings.Contains(err.Error(), "leave it out") || !strings.Contains(err.Error(), first+"/") {
			t.Errorf("%s: %v", prefix, err)
		}
	}
	if _, err := vaultstore.New(e.client, "secret", "oauth/data", nil); err != nil {
		t.Error(err)
	}
}

// TestDeniedAmongOthers checks that lists and checks continue with the other secrets if a
// policy denies one secret.
func TestDeniedAmongOthers(t *testing.T) {
	t.Parallel()
	for _, class := range []string{"data", "metadata"} {
		t.Run(class, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t, nil)
			user := label("user", 'a', 'n')
			e.create("x", user)
			for i := range 20 {
				if _, err := e.Create(t.Context(), fmt.Sprintf("n%02d", i), driver.Payload{Data: []byte("x"), Labels: []driver.Label{user}}); err != nil {
					t.Fatal(err)
				}
			}
			deny := "path \"secret/" + class + "/" + app + "/tokens/" + name + "\" {\n  capabilities = [\"deny\"]\n}\n"
			if err := e.server.Policy("", "app", vaultstore.Policy("secret", app)+deny); err != nil {
				t.Fatal(err)
			}
			d := newDriver(t, newClient(t, e.server.URL, e.server.Token("", 0, "app")), nil)
			yields := func(op string, yield func(func(name string, err error) bool)) {
				read, unread := 0, 0
				yield(func(at string, err error) bool {
					if err == nil {
						read++
						return true
					}
					unread++
					is(t, op, err, driver.ErrDenied)
					if at != name || !strings.Contains(err.Error(), name) {
						t.Errorf("%s yields %q with %v", op, at, err)
					}
					return true
				})
				want := 1
				if class == "metadata" && op != "Inspect" {
					want = 0
				}
				if read != 21-want || unread != want {
					t.Errorf("%s yields %d secrets and %d errors", op, read, unread)
				}
			}
			yields("List", func(f func(string, error) bool) {
				d.List(t.Context())(func(n driver.Named, err error) bool { return f(n.Name, err) })
			})
			yields("Lookup", func(f func(string, error) bool) {
				d.Lookup(t.Context(), []driver.Label{user})(func(n driver.Named, err error) bool { return f(n.Name, err) })
			})
			yields("Inspect", func(f func(string, error) bool) {
				d.(driver.Inspector).Inspect(t.Context())(func(i driver.Inspection, err error) bool { return f(i.Name, err) })
			})
		})
	}
}

// TestListOfAServerThatIsDown checks that a list stops early if the server does not accept
// the token or is unavailable.
func TestListOfAServerThatIsDown(t *testing.T) {
	t.Parallel()
	for status, most := range map[int]int{http.StatusInternalServerError: 40, http.StatusUnauthorized: 1} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			t.Parallel()
			e := newEnv(t, nil)
			e.many(60)
			e.client.SetMaxRetries(0)
			e.server.Inject(func(q *fakevault.Request) *fakevault.Fault {
				if q.Class != "data" {
					return nil
				}
				return &fakevault.Fault{Status: status, Errors: []string{"down"}}
			})
			yields, last := 0, driver.Named{}
			for named, err := range e.List(t.Context()) {
				if err == nil {
					t.Fatal("a secret is read")
				}
				yields++
				last = named
			}
			if last.Name != "" || yields > most {
				t.Errorf("%d errors are yielded, the last with the name %q", yields, last.Name)
			}
		})
	}
}

// TestDeleteVersionAfterIsFound checks that Inspect reports delete_version_after on the mount and
// on a secret.
func TestDeleteVersionAfterIsFound(t *testing.T) {
	t.Parallel()
	for _, on := range []string{"mount", "secret"} {
		t.Run(on, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t, nil)
			path := "config"
			if on == "secret" {
				path = "metadata/" + app + "/tokens/" + name
			}
			if status, text := e.vault("PUT", path, `{"delete_version_after":"24h"}`); status != http.StatusNoContent {
				t.Fatalf("%d %s", status, text)
			}
			s := e.create("x")
			found := func() (kinds []string) {
				for i, err := range e.Secrets.(driver.Inspector).Inspect(t.Context()) {
					if err != nil {
						t.Fatal(err)
					}
					for _, f := range i.Faults {
						kinds = append(kinds, f.Kind)
						if f.Kind == driver.FaultExpires && (!strings.Contains(f.Detail, "delete_version_after") || !strings.Contains(f.Detail, time.Now().UTC().Add(24*time.Hour).Format(time.DateOnly))) {
							t.Errorf("the detail is %q", f.Detail)
						}
					}
				}
				return kinds
			}
			if got := found(); len(got) != 1 || got[0] != driver.FaultExpires {
				t.Errorf("found are %q", got)
			}
			if status, text := e.vault("PUT", path, `{"delete_version_after":"0s"}`); status != http.StatusNoContent {
				t.Fatalf("%d %s", status, text)
			}
			e.update(s, "y")
			if got := found(); len(got) != 0 {
				t.Errorf("afterwards found are %q", got)
			}
		})
	}
}

// TestCredentialsThatAreNotAccepted checks that an invalid token, a missing token and a refused
// login cause an error matching ErrCredentials.
func TestCredentialsThatAreNotAccepted(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	for token, want := range map[string]string{"": "no token: set VAULT_TOKEN or log in", "hvs.unknown": "invalid token", "hvs.\x01": "non-printable"} {
		_, err := newDriver(t, newClient(t, e.server.URL, token), nil).Get(t.Context(), name)
		is(t, "Get", err, driver.ErrDenied)
		if !errors.Is(err, driver.ErrCredentials) || !strings.Contains(err.Error(), want) {
			t.Errorf("with the token %q: %v, want %s", token, err, want)
		}
	}
	login := envOn(t, nil, &vaultstore.Options{Auth: appRole{"r", "wrong"}})
	login.server.AppRole("", "r", "s", time.Hour)
	login.client.ClearToken()
	_, err := login.Get(t.Context(), name)
	is(t, "Get", err, driver.ErrDenied)
	if !errors.Is(err, driver.ErrCredentials) {
		t.Errorf("a login that is refused: %v", err)
	}
}

// TestProbeWithAnInvalidToken checks that Probe yields a single error for an invalid token,
// instead of one result for each capability.
func TestProbeWithAnInvalidToken(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, server *fakevault.Options) {
		e := envOn(t, server, nil)
		e.client.SetToken("hvs.unknown")
		n := 0
		for _, err := range e.Secrets.(driver.Inspector).Probe(t.Context()) {
			n++
			is(t, "Probe", err, driver.ErrDenied)
			if !errors.Is(err, driver.ErrCredentials) {
				t.Errorf("Probe: %v", err)
			}
		}
		if n != 1 {
			t.Errorf("Probe yields %d times", n)
		}
		// A valid token without the store's policy lacks all capabilities.
		e.client.SetToken(e.server.Token("", 0))
		n = 0
		for p, err := range e.Secrets.(driver.Inspector).Probe(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			if errors.Is(p.Err, driver.ErrDenied) {
				n++
			}
		}
		if n < 5 {
			t.Errorf("%d calls are denied", n)
		}
	})
}

// TestWrongScheme checks that an address with the wrong scheme, or an untrusted certificate,
// causes an error matching ErrRefused.
func TestWrongScheme(t *testing.T) {
	t.Parallel()
	encrypted := httptest.NewUnstartedServer(http.NotFoundHandler())
	encrypted.Config.ErrorLog = log.New(io.Discard, "", 0)
	encrypted.StartTLS()
	t.Cleanup(encrypted.Close)
	plain := fakevault.New(nil)
	t.Cleanup(plain.Close)
	for address, want := range map[string]string{
		strings.Replace(encrypted.URL, "https:", "http:", 1): "the server speaks https",
		strings.Replace(plain.URL, "http:", "https:", 1):     "the server speaks http,",
		encrypted.URL: "certificate",
	} {
		_, err := newDriver(t, newClient(t, address, "t"), nil).Get(t.Context(), name)
		is(t, "Get", err, driver.ErrRefused)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", address, err, want)
		}
	}
}

func TestRevokedTokenIsReplaced(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, server *fakevault.Options) {
		for _, policies := range [][]string{{"app"}, {"app", "-default"}} {
			e := newLoginEnv(t, server, time.Hour, policies...)
			elapsed := time.Unix(0, 0)
			vaultstore.SetClock(e.Secrets, func() time.Time { return elapsed })
			s := e.create("x")
			last := e.server.Requests()[len(e.server.Requests())-1]
			e.server.Revoke(last.Header.Get("X-Vault-Token"))
			if len(policies) > 1 {
				elapsed = elapsed.Add(vaultstore.TokenPause)
			}
			e.holds(s)
			if n, _ := e.logins(); n != 2 {
				t.Errorf("%q: %d logins, want 2", policies, n)
			}
		}
	})
}

// TestDefaultPolicyWithoutLookup checks that only the first denied call logs in again if the
// policy "default" does not allow a token to look itself up.
func TestDefaultPolicyWithoutLookup(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, server *fakevault.Options) {
		e := newLoginEnv(t, server, time.Hour)
		if err := e.server.Policy("", "default", `path "auth/token/renew-self" { capabilities = ["update"] }`); err != nil {
			t.Fatal(err)
		}
		for range 5 {
			_, err := e.Get(t.Context(), name)
			is(t, "Get", err, driver.ErrDenied)
		}
		if n, _ := e.logins(); n > 2 {
			t.Errorf("%d logins", n)
		}
	})
}

// TestStoreWithADeniedRecord checks that the store returns the readable records, and that
// errors and findings name the unreadable record.
func TestStoreWithADeniedRecord(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	open := func(c *api.Client) *tokenstore.Store {
		s, err := vaultstore.New(c, "secret", app, nil)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	var ids []string
	for _, user := range []string{"ann", "ben", "cid"} {
		saved, err := open(e.client).SaveToken(t.Context(), tokenstore.Token{UserName: user, ClientID: "c", RefreshToken: "r"})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, saved.ID)
	}
	deny := "path \"secret/data/" + app + "/tokens/" + ids[1] + "\" {\n  capabilities = [\"deny\"]\n}\n"
	if err := e.server.Policy("", "app", vaultstore.Policy("secret", app)+deny); err != nil {
		t.Fatal(err)
	}
	s := open(newClient(t, e.server.URL, e.server.Token("", 0, "app")))
	got, err := s.GetTokens(t.Context())
	is(t, "GetTokens", err, driver.ErrDenied)
	if len(got) != 2 || err == nil || !strings.Contains(err.Error(), ids[1]) {
		t.Errorf("%d tokens, %v", len(got), err)
	}
	var unread []string
	for f, err := range s.Check(t.Context(), nil) {
		if err != nil {
			t.Fatal(err)
		}
		if f.Kind == doctor.KindUnreadable {
			unread = append(unread, f.Name)
		}
	}
	if len(unread) != 1 || unread[0] != ids[1] {
		t.Errorf("unreadable are %q", unread)
	}
}

// TestServerThatDoesNotCompare checks that Probe and a write over an outdated version fail if
// the server does not compare versions.
func TestServerThatDoesNotCompare(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	s := e.create("x")
	e.update(s, "y")
	e.server.Inject(func(q *fakevault.Request) *fakevault.Fault {
		q.Body = bytes.ReplaceAll(q.Body, []byte(`"options"`), []byte(`"ignored"`))
		return nil
	})
	_, err := e.Update(t.Context(), name, s, driver.Payload{Data: []byte("z")})
	is(t, "Update", err, driver.ErrRefused)
	var last error
	for _, err := range e.Secrets.(driver.Inspector).Probe(t.Context()) {
		last = err
	}
	is(t, "Probe", last, driver.ErrRefused)
}
