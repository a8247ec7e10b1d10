package k8sstore_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"

	"github.com/tokenkeep/tokenkeep/internal/fakek8s"
	"github.com/tokenkeep/tokenkeep/k8sstore"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/doctor"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

func (e *env) inspect() []driver.Inspection {
	e.Helper()
	var all []driver.Inspection
	for i, err := range e.Secrets.(driver.Inspector).Inspect(e.Context()) {
		if err != nil {
			e.Fatal(err)
		}
		all = append(all, i)
	}
	return all
}

func TestInspect(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	user, access := label("user", 'a', 'n'), label("access", 'b', 'm')
	e.create("one", access, user)
	all := e.inspect()
	want := []driver.Label{{Key: "user", Value: user.Value}, {Key: "access", Value: access.Value}}
	if len(all) != 1 || all[0].Name != name || !slices.Equal(all[0].Labels, want) || len(all[0].Faults) > 0 {
		t.Fatalf("Inspect yields %+v", all)
	}

	inspector := e.Secrets.(driver.Inspector)
	there, err := inspector.Present(t.Context(), name, []driver.Label{user, label("user", 'c', 'n')})
	if err != nil || !slices.Equal(there, []driver.Label{user}) {
		t.Errorf("Present returns %v and error %v", there, err)
	}
	for range 2 { // the second call does not find the label
		if err := inspector.Unlabel(t.Context(), name, []driver.Label{access}); err != nil {
			t.Fatal(err)
		}
	}
	if got := e.inspect()[0].Labels; !slices.Equal(got, want[:1]) {
		t.Errorf("after Unlabel the labels are %v", got)
	}
	if there, err := inspector.Present(t.Context(), "none", []driver.Label{user}); err != nil || len(there) > 0 {
		t.Errorf("Present of no Secret returns %v and error %v", there, err)
	}
	if err := inspector.Unlabel(t.Context(), "none", []driver.Label{user}); err != nil {
		t.Errorf("Unlabel of no Secret: %v", err)
	}
}

func TestInspectReportsWhatAFinalizerHolds(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	e.create("one")
	e.edit(func(o *v1.Secret) { o.Finalizers = []string{"example.com/hold"} })
	s, err := e.Get(t.Context(), name)
	if err == nil {
		err = e.Delete(t.Context(), name, s)
	}
	if err != nil {
		t.Fatal(err)
	}
	all := e.inspect()
	if len(all) != 1 || len(all[0].Faults) != 1 || all[0].Faults[0].Kind != driver.FaultDeleted || !strings.Contains(all[0].Faults[0].Detail, "example.com/hold") {
		t.Errorf("Inspect yields %+v", all)
	}
}

// TestDoctorRepairsLabels checks that a repair adds labels that another tool has removed,
// and removes labels that another tool has added.
func TestDoctorRepairsLabels(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	s, err := tokenstore.New(e.Secrets, &tokenstore.Options{NameKey: []byte("a key of names, 16 bytes or more")})
	if err != nil {
		t.Fatal(err)
	}
	saved, err := s.SaveToken(t.Context(), tokenstore.Token{UserName: "ann", ClientID: "app", RefreshToken: "refresh", AccessToken: "access"})
	if err != nil {
		t.Fatal(err)
	}
	var record string
	for n, err := range e.Names(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(n, "u") {
			record = n
		}
	}
	o := get(e, "crm-"+record)
	o.Labels = map[string]string{strings.Repeat("z", 32) + ".tokenkeep.dev/user.label": ""}
	put(e, o)
	kinds := func(opts *doctor.CheckOptions) (kinds []doctor.Kind) {
		for f, err := range s.Check(t.Context(), opts) {
			if err := errors.Join(err, f.Err); err != nil {
				t.Fatal(err)
			}
			kinds = append(kinds, f.Kind)
		}
		return kinds
	}
	want := []doctor.Kind{doctor.KindLabelMissing, doctor.KindLabelLeftOver}
	if got := kinds(&doctor.CheckOptions{Repair: true, Purge: true, Grace: -1}); !slices.Equal(got, want) {
		t.Errorf("the findings are %q, want %q", got, want)
	}
	if got := kinds(&doctor.CheckOptions{Grace: -1}); len(got) > 0 {
		t.Errorf("then they are %q", got)
	}
	found, err := s.FindToken(t.Context(), tokenstore.Token{AccessToken: "access"})
	if err != nil || found.ID != saved.ID {
		t.Errorf("FindToken returns %q and error %v", found.ID, err)
	}
}

// TestProbe checks that Probe yields ErrDenied only for the missing verb, and writes no Secret.
func TestProbe(t *testing.T) {
	t.Parallel()
	verbs := []string{"list", "get", "create", "patch", "delete"}
	for i, missing := range append(verbs, "none") {
		t.Run(missing, func(t *testing.T) {
			t.Parallel()
			server := fakek8s.New(nil)
			t.Cleanup(server.Close)
			server.Account("app", "default", "app")
			role := strings.Replace(k8sstore.Policy("default", "tokens"), fmt.Sprintf("%q, ", missing), "", 1)
			role = strings.Replace(role, fmt.Sprintf(", %q]", missing), "]", 1)
			if err := server.Bind("app", role); err != nil {
				t.Fatal(err)
			}
			d, err := k8sstore.NewDriver(newClient(t, server.URL, "app"), "default", "crm", nil)
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for p, err := range d.(driver.Inspector).Probe(t.Context()) {
				if err != nil {
					t.Fatal(err)
				}
				if denied := errors.Is(p.Err, driver.ErrDenied); denied != (n == i) || p.Err != nil && !denied {
					t.Errorf("%s: %v", p.Call, p.Err)
				}
				if !strings.Contains(p.Needs, fmt.Sprintf("%q", verbs[n])) {
					t.Errorf("%s needs %s, want %q", p.Call, p.Needs, verbs[n])
				}
				n++
			}
			if n != len(verbs) {
				t.Errorf("%d calls, want %d", n, len(verbs))
			}
			if err := count(open(t, server, fakek8s.AdminToken).List(t.Context()), 0); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestProbeEndsWithoutCredentials(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	d := open(t, e.server, "unknown")
	for p, err := range d.(driver.Inspector).Probe(t.Context()) {
		if !errors.Is(err, driver.ErrCredentials) {
			t.Errorf("Probe yields %+v and error %v", p, err)
		}
	}
}
