package gcpsm_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"cloud.google.com/go/secretmanager/apiv1/secretmanagerpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tokenkeep/tokenkeep/internal/fakegcp"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// atOnce is the maximum duration of operations that do not retry. Retries would take 20 seconds.
const atOnce = 10 * time.Second

// refuse makes the server answer calls of the given methods with err if their resource
// starts with path.
func refuse(server *fakegcp.Server, path string, err error, methods ...string) {
	server.Inject(func(c *fakegcp.Call) *fakegcp.Fault {
		if strings.HasPrefix(c.Resource, path) && slices.Contains(methods, c.Method) {
			return &fakegcp.Fault{Err: err}
		}
		return nil
	})
}

// turn sets the state of versions of the secret, as an operator does.
func turn(t testing.TB, server *fakegcp.Server, path string, state secretmanagerpb.SecretVersion_State, numbers ...int) {
	t.Helper()
	for _, n := range numbers {
		name := fmt.Sprintf("%s/versions/%d", path, n)
		var err error
		if state == secretmanagerpb.SecretVersion_DISABLED {
			_, err = server.DisableSecretVersion(t.Context(), &secretmanagerpb.DisableSecretVersionRequest{Name: name})
		} else {
			_, err = server.DestroySecretVersion(t.Context(), &secretmanagerpb.DestroySecretVersionRequest{Name: name})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// A closing is a way to make a secret with two versions unreadable.
type closing struct {
	name  string
	close func(t testing.TB, server *fakegcp.Server, path string)
	class error
	text  string
}

func closings() []closing {
	const disabled, destroyed = secretmanagerpb.SecretVersion_DISABLED, secretmanagerpb.SecretVersion_DESTROYED
	refused := func(code codes.Code, text string, methods ...string) func(testing.TB, *fakegcp.Server, string) {
		return func(_ testing.TB, server *fakegcp.Server, path string) {
			refuse(server, path, status.Error(code, text), methods...)
		}
	}
	turned := func(state secretmanagerpb.SecretVersion_State, numbers ...int) func(testing.TB, *fakegcp.Server, string) {
		return func(t testing.TB, server *fakegcp.Server, path string) {
			t.Helper()
			turn(t, server, path, state, numbers...)
		}
	}
	return []closing{
		{"disabled", turned(disabled, 2), driver.ErrRefused, "DISABLED"},
		{"destroyed", turned(destroyed, 2), driver.ErrRefused, "DESTROYED"},
		{"all disabled", turned(disabled, 1, 2), driver.ErrRefused, "DISABLED"},
		{"all destroyed", turned(destroyed, 1, 2), driver.ErrRefused, "DESTROYED"},
		{"in other words", func(t testing.TB, server *fakegcp.Server, path string) {
			turn(t, server, path, disabled, 2)
			refuse(server, path+"/versions/2", status.Error(codes.FailedPrecondition, "not now"), "AccessSecretVersion")
		}, driver.ErrRefused, "not now"},
		{"key disabled", refused(codes.FailedPrecondition, "Cloud KMS key k is not enabled, current state is: DISABLED.",
			"AccessSecretVersion", "AddSecretVersion"), driver.ErrRefused, "KMS key k"},
		{"key denied", refused(codes.PermissionDenied, "Permission 'cloudkms.cryptoKeyVersions.useToDecrypt' denied on k",
			"AccessSecretVersion"), driver.ErrDenied, "useToDecrypt"},
		{"access denied", refused(codes.PermissionDenied, "Permission 'secretmanager.versions.access' denied",
			"AccessSecretVersion"), driver.ErrDenied, "versions.access"},
	}
}

// TestClosed checks that reads of an unreadable version fail without retries. The errors quote
// the service's reason, and match neither ErrNotFound nor ErrUnavailable.
func TestClosed(t *testing.T) {
	t.Parallel()
	for _, c := range closings() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			s := e.update(e.create("x"), "y")
			c.close(t, e.server, path)
			begun := time.Now()
			for what, d := range map[string]driver.Leaser{"the writer": e.Leaser, "another": e.cold()} {
				_, getErr := d.Get(t.Context(), name)
				_, freshErr := d.Fresh(t.Context(), name, driver.Secret{})
				for op, err := range map[string]error{"Get": getErr, "Fresh": freshErr} {
					is(t, what+": "+op, err, c.class)
					if errors.Is(err, driver.ErrUnavailable) || errors.Is(err, driver.ErrNotFound) || err != nil && !strings.Contains(err.Error(), c.text) {
						t.Errorf("%s: %s: %v; want the text %q", what, op, err, c.text)
					}
				}
			}
			if took := time.Since(begun); took > atOnce {
				t.Errorf("that took %v", took)
			}
			e.server.Inject(nil)
			if m := e.server.Secret(path); m.GetVersionAliases()["current"] != 2 {
				t.Errorf("the alias means version %d", m.GetVersionAliases()["current"])
			}
			if strings.HasPrefix(c.name, "key") || strings.HasPrefix(c.name, "access") {
				e.holds(s)
			}
		})
	}
}

// TestClosedAmongOthers checks that lists yield all readable secrets if one secret is
// unreadable.
func TestClosedAmongOthers(t *testing.T) {
	t.Parallel()
	for _, c := range append(closings(), closing{"alias removed", func(t testing.TB, server *fakegcp.Server, path string) {
		m := server.Secret(path)
		delete(m.VersionAliases, "current")
		change(t, server, m)
	}, driver.ErrCorrupt, "alias"}) {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			user := label("user", 'a', 'n')
			e.update(e.create("x", user), "y", user)
			for i := range 20 {
				if _, err := e.Create(t.Context(), fmt.Sprintf("n%02d", i), driver.Payload{Data: []byte("x"), Labels: []driver.Label{user}}); err != nil {
					t.Fatal(err)
				}
			}
			c.close(t, e.server, path)
			d := e.cold()
			for op, list := range map[string]func(func(driver.Named, error) bool){
				"List": d.List(t.Context()), "Lookup": d.Lookup(t.Context(), []driver.Label{user}),
			} {
				begun, read, unread := time.Now(), 0, 0
				for named, err := range list {
					if err == nil {
						read++
						continue
					}
					unread++
					is(t, op, err, c.class)
					if named.Name != name || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), c.text) {
						t.Errorf("%s yields %q with %v", op, named.Name, err)
					}
				}
				if read != 20 || unread != 1 || time.Since(begun) > atOnce {
					t.Errorf("%s yields %d secrets and %d errors after %v", op, read, unread, time.Since(begun))
				}
			}
		})
	}
}

// TestForeignWithoutVersion checks that List yields ErrCorrupt for another program's secret
// that has the name of a record but no version.
func TestForeignWithoutVersion(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	if _, err := e.server.CreateSecret(t.Context(), &secretmanagerpb.CreateSecretRequest{
		Parent: project, SecretId: app + "-" + name, Secret: &secretmanagerpb.Secret{Replication: &secretmanagerpb.Replication{
			Replication: &secretmanagerpb.Replication_Automatic_{Automatic: &secretmanagerpb.Replication_Automatic{}},
		}},
	}); err != nil {
		t.Fatal(err)
	}
	yields := 0
	for named, err := range e.List(t.Context()) {
		yields++
		is(t, "List", err, driver.ErrCorrupt)
		if named.Name != name {
			t.Errorf("List yields %q", named.Name)
		}
	}
	if yields != 1 {
		t.Errorf("List yields %d secrets", yields)
	}
}

// TestClosedBelowAnOrphan checks that an uncommitted version of a killed writer does not
// make the disabled current version look outdated.
func TestClosedBelowAnOrphan(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	s := e.create("x")
	refuse(e.server, path, status.Error(codes.Unavailable, "down"), "UpdateSecret")
	if _, err := e.Update(t.Context(), name, s, driver.Payload{Data: []byte("orphan")}); err == nil {
		t.Fatal("Update succeeds")
	}
	e.server.Inject(nil)
	turn(t, e.server, path, secretmanagerpb.SecretVersion_DISABLED, 1)
	begun := time.Now()
	_, err := e.cold().Get(t.Context(), name)
	is(t, "Get", err, driver.ErrRefused)
	if took := time.Since(begun); took > atOnce {
		t.Errorf("that took %v", took)
	}
}

// TestClosedInALaterIncarnation checks that Fresh finds the current state even though the first
// read of metadata shows an earlier incarnation. The stale metadata name a version that is
// destroyed in the current incarnation.
func TestClosedInALaterIncarnation(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	s := e.create("x")
	e.clock.pass(time.Minute)
	if err := e.Delete(t.Context(), name, s); err != nil {
		t.Fatal(err)
	}
	s = e.update(e.create("y"), "z")
	turn(t, e.server, path, secretmanagerpb.SecretVersion_DESTROYED, 1)
	var stale atomic.Bool
	e.server.Inject(func(c *fakegcp.Call) *fakegcp.Fault {
		if c.Method == "GetSecret" && stale.CompareAndSwap(false, true) {
			return &fakegcp.Fault{Stale: 30 * time.Second}
		}
		return nil
	})
	got, err := e.cold().Fresh(t.Context(), name, driver.Secret{})
	if err != nil || got.Version != s.Version {
		t.Errorf("Fresh: %v, %v; want the version %q", got, err, s.Version)
	}
}

// TestClosedRecord checks that saves, refreshes and deletions of an unreadable record fail with
// the class of the read error, and do not change the record.
func TestClosedRecord(t *testing.T) {
	t.Parallel()
	for _, c := range closings() {
		if c.name == "destroyed" || c.name == "all destroyed" {
			continue // the record is lost
		}
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWard(t)
			w.save(ann)
			saved := w.save(tokenstore.Token{UserName: ann.UserName, ClientID: ann.ClientID, AccessToken: "access2"})
			c.close(t, w.server, w.path(saved.ID))
			begun, minted := time.Now(), 0
			_, saveErr := w.store.SaveToken(t.Context(), tokenstore.Token{ID: saved.ID, AccessToken: "access3"})
			_, userErr := w.store.SaveToken(t.Context(), tokenstore.Token{UserName: ann.UserName, ClientID: ann.ClientID, AccessToken: "access3"})
			_, refreshErr := w.store.Refresh(t.Context(), saved.ID, "access2", func(context.Context, tokenstore.Token) (tokenstore.Token, error) {
				minted++
				return tokenstore.Token{AccessToken: "access4", ExpiresAt: time.Now().Add(time.Hour)}, nil
			})
			for op, err := range map[string]error{"save by ID": saveErr, "save by user": userErr, "refresh": refreshErr, "delete": w.store.DeleteToken(t.Context(), saved.ID)} {
				is(t, op, err, c.class)
				if err != nil && !strings.Contains(err.Error(), c.text) {
					t.Errorf("%s: %v; want the text %q", op, err, c.text)
				}
			}
			if took := time.Since(begun); took > atOnce || minted > 0 {
				t.Errorf("that took %v, and %d requests for a token", took, minted)
			}
			w.server.Inject(nil)
			for i, v := range w.server.Versions(w.path(saved.ID)) {
				if v.GetState() == secretmanagerpb.SecretVersion_DISABLED {
					if _, err := w.server.EnableSecretVersion(t.Context(), &secretmanagerpb.EnableSecretVersionRequest{
						Name: fmt.Sprintf("%s/versions/%d", w.path(saved.ID), i+1),
					}); err != nil {
						t.Fatal(err)
					}
				}
			}
			if got, err := w.store.FindTokenByID(t.Context(), saved.ID); err != nil || got != saved {
				t.Errorf("afterwards it is %v, and error %v", got, err)
			}
		})
	}
}

func TestAliasRemovedIsRepaired(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	saved := w.save(ann)
	w.change(saved.ID, "version_aliases", func(m *secretmanagerpb.Secret) { m.VersionAliases = nil })
	var kinds []string
	for f, err := range w.store.Check(t.Context(), &look) {
		if err != nil {
			t.Fatal(err)
		}
		if f.Name == saved.ID {
			kinds = append(kinds, string(f.Kind))
		}
	}
	if !slices.Contains(kinds, "secret-rolled-back") {
		t.Errorf("Check finds %q", kinds)
	}
	w.finds("then", repair, "secret-rolled-back repaired")
	w.finds("afterwards", look)
	if got, err := w.store.FindTokenByID(t.Context(), saved.ID); err != nil || got != saved {
		t.Errorf("afterwards it is %v, and error %v", got, err)
	}
}

// TestServerThatDrops checks that Create and Probe fail with ErrRefused on a server that does
// not store all fields. Create then leaves no secret.
func TestServerThatDrops(t *testing.T) {
	t.Parallel()
	for _, drops := range [][]string{{"version_aliases"}, {"annotations"}, {"etag"}, {"version_aliases", "etag"}} {
		t.Run(strings.Join(drops, " "), func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			e.server = fakegcp.New(&fakegcp.Options{Drops: drops})
			t.Cleanup(e.server.Close)
			e.client = newClient(t, e.server)
			e.Leaser = e.cold()
			_, err := e.Create(t.Context(), name, driver.Payload{Data: []byte("x")})
			is(t, "Create", err, driver.ErrRefused)
			if err != nil && !strings.Contains(err.Error(), "the server does not store") {
				t.Errorf("Create: %v", err)
			}
			if names := e.server.Names(); len(names) > 0 {
				t.Errorf("left are %q", names)
			}
			found := 0
			for p, err := range e.Leaser.(driver.Inspector).Probe(t.Context()) {
				if err != nil {
					t.Fatal(err)
				}
				if errors.Is(p.Err, driver.ErrRefused) {
					found++
				}
			}
			if found == 0 {
				t.Error("Probe finds nothing")
			}
		})
	}
}

// TestRefusedWritesAreUndone checks that a permanently refused write destroys the version that the
// write added. A refused Create also deletes the secret.
func TestRefusedWritesAreUndone(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"AddSecretVersion", "UpdateSecret"} {
		for _, refusal := range []error{
			status.Error(codes.FailedPrecondition, "Constraint constraints/custom.x violated for [orgpolicy:projects/1]"),
			status.Error(codes.PermissionDenied, "denied"),
		} {
			t.Run(method+" "+status.Code(refusal).String(), func(t *testing.T) {
				t.Parallel()
				e := newEnv(t)
				refuse(e.server, path, refusal, method)
				begun := time.Now()
				if _, err := e.Create(t.Context(), name, driver.Payload{Data: []byte("x")}); err == nil || errors.Is(err, driver.ErrUnavailable) || errors.Is(err, driver.ErrConflict) {
					t.Errorf("Create: %v", err)
				}
				if names := e.server.Names(); len(names) > 0 {
					t.Errorf("left are %q", names)
				}
				e.server.Inject(nil)
				s := e.create("x")
				refuse(e.server, path, refusal, method)
				if _, err := e.Update(t.Context(), name, s, driver.Payload{Data: []byte("y")}); err == nil || errors.Is(err, driver.ErrUnavailable) || errors.Is(err, driver.ErrConflict) {
					t.Errorf("Update: %v", err)
				}
				if took := time.Since(begun); took > atOnce {
					t.Errorf("that took %v", took)
				}
				e.server.Inject(nil)
				e.active(1)
				e.holds(s)
			})
		}
	}
}

// TestListOfAServiceThatIsDown checks that a list stops early, with an error that names no
// secret, if the service is unavailable or does not accept the credentials.
func TestListOfAServiceThatIsDown(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err error
		max int
	}{
		{status.Error(codes.Unauthenticated, "no"), 1},
		{status.Error(codes.Internal, "down"), 40},
	} {
		t.Run(status.Code(c.err).String(), func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			for i := range 60 {
				if _, err := e.Create(t.Context(), fmt.Sprintf("n%02d", i), driver.Payload{Data: []byte("x")}); err != nil {
					t.Fatal(err)
				}
			}
			refuse(e.server, project, c.err, "AccessSecretVersion")
			yields, last := 0, driver.Named{}
			for named, err := range e.cold().List(t.Context()) {
				if err == nil {
					t.Fatal("a secret is read")
				}
				last = named
				yields++
			}
			if last.Name != "" || yields > c.max {
				t.Errorf("%d errors are yielded, the last with the name %q", yields, last.Name)
			}
		})
	}
}

// TestRefusalInUnknownWords checks that Update does not retry a refusal with the code of an
// outdated etag if the secret is unchanged. The error matches ErrConflict and quotes the service.
func TestRefusalInUnknownWords(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	s := e.create("x")
	var updates atomic.Int64
	e.server.Inject(func(c *fakegcp.Call) *fakegcp.Fault {
		if c.Method == "UpdateSecret" {
			updates.Add(1)
			return &fakegcp.Fault{Err: status.Error(codes.FailedPrecondition, "the moon is full")}
		}
		return nil
	})
	_, err := e.Update(t.Context(), name, s, driver.Payload{Data: []byte("y")})
	is(t, "Update", err, driver.ErrConflict)
	if err == nil || !strings.Contains(err.Error(), "the moon is full") || updates.Load() != 1 {
		t.Errorf("Update: %v, after %d attempts", err, updates.Load())
	}
}
