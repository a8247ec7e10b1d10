package gcpsm_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	secretmanager "cloud.google.com/go/secretmanager/apiv1"
	"cloud.google.com/go/secretmanager/apiv1/secretmanagerpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tokenkeep/tokenkeep/gcpsm"
	"github.com/tokenkeep/tokenkeep/internal/fakegcp"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/doctor"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// A ward has a store that a test damages and Check repairs. The server's clock is three hours slow,
// so that all versions are at least three hours old for Check.
type ward struct {
	testing.TB
	server *fakegcp.Server
	client *secretmanager.Client
	driver.Secrets
	store *tokenstore.Store
}

func newWard(t testing.TB) *ward {
	w := &ward{TB: t, server: fakegcp.New(&fakegcp.Options{Now: func() time.Time { return time.Now().Add(-3 * time.Hour) }})}
	t.Cleanup(w.server.Close)
	w.client = newClient(t, w.server)
	var err error
	if w.Secrets, err = gcpsm.NewDriver(w.client, project, "crm", nil); err != nil {
		t.Fatal(err)
	}
	if w.store, err = tokenstore.New(w.Secrets, &tokenstore.Options{NameKey: []byte("a key of names, 16 bytes")}); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *ward) save(t tokenstore.Token) tokenstore.Token {
	w.Helper()
	t, err := w.store.SaveToken(w.Context(), t)
	if err != nil {
		w.Fatal(err)
	}
	return t
}

func (w *ward) path(name string) string { return project + "/secrets/crm-" + name }

func (w *ward) change(name, field string, change func(*secretmanagerpb.Secret)) {
	w.Helper()
	m := w.server.Secret(w.path(name))
	change(m)
	if _, err := w.client.UpdateSecret(w.Context(), &secretmanagerpb.UpdateSecretRequest{
		Secret: m, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{field}},
	}); err != nil {
		w.Fatal(err)
	}
}

// finds checks the kinds of the faults that Check finds with another store, as in another
// process. Each repaired fault has the suffix " repaired".
func (w *ward) finds(what string, opts doctor.CheckOptions, want ...string) {
	w.Helper()
	d, err := gcpsm.NewDriver(newClient(w, w.server), project, "crm", nil)
	if err != nil {
		w.Fatal(err)
	}
	s, err := tokenstore.New(d, &tokenstore.Options{NameKey: []byte("a key of names, 16 bytes")})
	if err != nil {
		w.Fatal(err)
	}
	opts.Grace = -1
	got := []string{}
	for f, err := range s.Check(w.Context(), &opts) {
		if err != nil {
			w.Fatalf("Check: %v", err)
		}
		if f.Err != nil {
			w.Errorf("%s: %v", f.Kind, f.Err)
		}
		text := string(f.Kind)
		if f.Repaired {
			text += " repaired"
		}
		got = append(got, text)
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		w.Errorf("%s Check finds %q, want %q", what, got, want)
	}
}

// markerName is the name of the secret that identifies the keys of a store.
const markerName = "keys"

var (
	ann    = tokenstore.Token{UserName: "ann", ClientID: "client", RefreshToken: "refresh1", AccessToken: "access1"}
	look   = doctor.CheckOptions{}
	repair = doctor.CheckOptions{Repair: true}
	purge  = doctor.CheckOptions{Repair: true, Purge: true}
)

func TestCheckRepair(t *testing.T) {
	t.Parallel()
	t.Run("versions are due and no write destroys them", func(t *testing.T) {
		t.Parallel()
		w := newWard(t)
		id := w.save(ann).ID
		for _, access := range []tokenstore.Secret{"access2", "access3", "access4"} {
			w.save(tokenstore.Token{ID: id, AccessToken: access})
		}
		if active := w.server.Active(w.path(id)); len(active) != 4 {
			t.Fatalf("active are %v", active)
		}
		w.finds("at first", look, "versions-due")
		w.finds("then", repair, "versions-due repaired")
		w.finds("afterwards", look)
		if active := w.server.Active(w.path(id)); !slices.Equal(active, []int64{4}) {
			t.Errorf("active are %v", active)
		}
		if got, err := w.store.FindTokenByID(t.Context(), id); err != nil || got.AccessToken != "access4" {
			t.Errorf("the record is not found: %v", err)
		}
		w.save(tokenstore.Token{ID: id, AccessToken: "access5"}) // the driver of w.store has outdated metadata in its cache
	})
	t.Run("an operator has moved the alias back", func(t *testing.T) {
		t.Parallel()
		w := newWard(t)
		id := w.save(ann).ID
		later := w.save(tokenstore.Token{ID: id, AccessToken: "access2"})
		w.change(id, "version_aliases", func(m *secretmanagerpb.Secret) { m.VersionAliases["current"] = 1 })
		w.finds("at first", look, "label-left-over", "label-missing", "secret-rolled-back", "versions-due")
		w.finds("then", repair, "secret-rolled-back repaired", "versions-due repaired")
		w.finds("afterwards", look)
		if got, err := w.store.FindToken(t.Context(), tokenstore.Token{AccessToken: "access2"}); err != nil || got != later {
			t.Errorf("the latest token is not found: %v", err)
		}
	})
	t.Run("a process died while it created a secret", func(t *testing.T) {
		t.Parallel()
		w := newWard(t)
		id := w.save(ann).ID
		w.server.Inject(func(c *fakegcp.Call) *fakegcp.Fault {
			if c.Method == "AddSecretVersion" {
				return &fakegcp.Fault{Err: errors.New("the process died")}
			}
			return nil
		})
		ben := ann
		ben.UserName = "ben"
		if _, err := w.store.SaveToken(t.Context(), ben); err == nil {
			t.Fatal("SaveToken succeeds")
		}
		w.server.Inject(nil)
		w.finds("at first", look, "secret-empty")
		w.finds("then", repair, "secret-empty repaired")
		w.finds("afterwards", look)
		if names := w.server.Names(); !slices.Equal(names, []string{w.path(markerName), w.path(id)}) {
			t.Errorf("there are %q", names)
		}
		w.save(ben)
	})
	t.Run("a process died while it created the marker", func(t *testing.T) {
		t.Parallel()
		w := newWard(t)
		w.server.Inject(func(c *fakegcp.Call) *fakegcp.Fault {
			if c.Method == "AddSecretVersion" {
				return &fakegcp.Fault{Err: errors.New("the process died")}
			}
			return nil
		})
		if _, err := w.store.SaveToken(t.Context(), ann); err == nil {
			t.Fatal("SaveToken succeeds")
		}
		w.server.Inject(nil)
		if names := w.server.Names(); !slices.Equal(names, []string{w.path(markerName)}) {
			t.Fatalf("there are %q", names)
		}
		w.finds("at first", look, "secret-empty")
		w.finds("then", repair, "secret-empty repaired")
		w.finds("afterwards", look)
		if names := w.server.Names(); len(names) != 0 {
			t.Errorf("there are %q", names)
		}
		id := w.save(ann).ID
		w.finds("in the end", look)
		if names := w.server.Names(); !slices.Equal(names, []string{w.path(markerName), w.path(id)}) {
			t.Errorf("there are %q", names)
		}
	})
	t.Run("an operator has set an expiration", func(t *testing.T) {
		t.Parallel()
		w := newWard(t)
		id := w.save(ann).ID
		w.change(id, "expire_time", func(m *secretmanagerpb.Secret) {
			m.Expiration = &secretmanagerpb.Secret_ExpireTime{ExpireTime: timestamppb.New(time.Now().Add(time.Hour))}
		})
		w.finds("at first", repair, "secret-expires")
		w.change(id, "expire_time", func(m *secretmanagerpb.Secret) { m.Expiration = nil })
		w.finds("afterwards", look)
	})
	t.Run("an operator has removed a label and added one", func(t *testing.T) {
		t.Parallel()
		w := newWard(t)
		saved := w.save(ann)
		w.change(saved.ID, "labels", func(m *secretmanagerpb.Secret) {
			for k := range m.Labels {
				if strings.HasPrefix(k, "refresh_") {
					delete(m.Labels, k)
				}
			}
			m.Labels["grant_"+strings.Repeat("a", 24)] = strings.Repeat("b", 8)
			m.Labels["team"] = "crm"
		})
		w.finds("at first", look, "label-left-over", "label-missing")
		w.finds("purging", purge, "label-missing repaired")
		w.finds("afterwards", repair, "versions-due repaired")
		w.finds("in the end", look)
		if got, err := w.store.FindToken(t.Context(), tokenstore.Token{ClientID: "client", RefreshToken: "refresh1"}); err != nil || got != saved {
			t.Errorf("the record is not found: %v", err)
		}
		if team := w.server.Secret(w.path(saved.ID)).Labels["team"]; team != "crm" {
			t.Errorf("the operator's own label is %q", team)
		}
	})
}

// TestProbeMissingPermission removes one permission at a time, and checks that Probe names the
// missing permission. If Probe may delete secrets, no secret is left.
func TestProbeMissingPermission(t *testing.T) {
	t.Parallel()
	for _, permission := range append(gcpsm.Permissions(), "") {
		t.Run(permission, func(t *testing.T) {
			t.Parallel()
			w := newWard(t)
			id := w.save(ann).ID
			w.server.Deny(append(unneeded(), permission)...)
			var refused, want []string
			if permission != "" {
				want = []string{"the permission " + permission}
			}
			for p, err := range w.Secrets.(driver.Inspector).Probe(t.Context()) {
				switch {
				case err != nil:
					t.Fatal(err)
				case errors.Is(p.Err, driver.ErrDenied):
					refused = append(refused, p.Needs)
				case p.Err != nil:
					t.Errorf("%s: %v", p.Call, p.Err)
				}
			}
			if !slices.Equal(refused, want) {
				t.Errorf("Probe says %q, want %q", refused, want)
			}
			names := w.server.Names()
			if permission == "secretmanager.secrets.delete" { // without this permission, the probe's own secret stays
				names = slices.DeleteFunc(names, func(name string) bool { return strings.HasPrefix(name, w.path("tokenkeepprobe")) })
			}
			if !slices.Equal(names, []string{w.path(markerName), w.path(id)}) {
				t.Errorf("there are %q", w.server.Names())
			}
		})
	}
}
