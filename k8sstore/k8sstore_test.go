package k8sstore_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	corev1 "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/tokenkeep/tokenkeep/internal/fakek8s"
	"github.com/tokenkeep/tokenkeep/k8sstore"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

const (
	name = "u4fz2k6q3w7x5c2a"
	full = "crm-" + name
)

// An env is a server with a driver and an operator's client.
type env struct {
	testing.TB
	server *fakek8s.Server
	admin  corev1.SecretInterface
	driver.Secrets
}

func newEnv(t testing.TB, opts *k8sstore.Options) *env {
	t.Helper()
	e := &env{TB: t, server: fakek8s.New(nil)}
	t.Cleanup(e.server.Close)
	client := newClient(t, e.server.URL, fakek8s.AdminToken)
	e.admin = client.Secrets("default")
	var err error
	if e.Secrets, err = k8sstore.NewDriver(client, "default", "crm", opts); err != nil {
		t.Fatal(err)
	}
	return e
}

// create creates the Secret with data and returns the new state.
func (e *env) create(data string, labels ...driver.Label) driver.Secret {
	e.Helper()
	p := driver.Payload{Data: []byte(data), Labels: labels}
	v, err := e.Create(e.Context(), name, p)
	if err != nil {
		e.Fatalf("Create: %v", err)
	}
	return driver.Secret{Payload: p, Version: v}
}

// update replaces base with data and returns the new state.
func (e *env) update(base driver.Secret, data string, labels ...driver.Label) driver.Secret {
	e.Helper()
	p := driver.Payload{Data: []byte(data), Labels: labels}
	v, err := e.Update(e.Context(), name, base, p)
	if err != nil {
		e.Fatalf("Update: %v", err)
	}
	return driver.Secret{Payload: p, Version: v}
}

// holds checks that Get returns the data and version of want.
func (e *env) holds(want driver.Secret) {
	e.Helper()
	got, err := e.Get(e.Context(), name)
	if err != nil || !bytes.Equal(got.Data, want.Data) || got.Version != want.Version {
		e.Errorf("Get returns %q at %q and error %v, want %q at %q", got.Data, got.Version, err, want.Data, want.Version)
	}
}

// object returns the Secret as an operator reads it.
func (e *env) object() *v1.Secret {
	e.Helper()
	o, err := e.admin.Get(e.Context(), full, metav1.GetOptions{})
	if err != nil {
		e.Fatal(err)
	}
	return o
}

// edit changes the Secret with the operator's client.
func (e *env) edit(change func(*v1.Secret)) {
	e.Helper()
	o := e.object()
	change(o)
	if _, err := e.admin.Update(e.Context(), o, metav1.UpdateOptions{}); err != nil {
		e.Fatal(err)
	}
}

// many creates n Secrets with the names u00000, u00001 and so on.
func (e *env) many(n int) {
	e.Helper()
	for i := range n {
		if _, err := e.Create(e.Context(), fmt.Sprintf("u%05d", i), driver.Payload{Data: []byte("x")}); err != nil {
			e.Fatal(err)
		}
	}
}

// is checks that err matches want and no other class. If want is nil, err must match no class.
func is(t testing.TB, op string, err, want error) {
	t.Helper()
	for _, class := range slices.Concat(classes, []error{context.Canceled, context.DeadlineExceeded}) {
		if errors.Is(err, class) != errors.Is(class, want) {
			t.Errorf("%s returned %v, want %v", op, err, want)
		}
	}
	if want != nil && err == nil {
		t.Errorf("%s succeeded, want %v", op, want)
	}
}

// classes are the error classes of package driver, except ErrThrottled.
var classes = []error{
	driver.ErrNotFound, driver.ErrExists, driver.ErrConflict, driver.ErrDenied, driver.ErrRefused, driver.ErrUnavailable, driver.ErrCorrupt,
}

// label returns a label whose value and nonce each repeat one letter.
func label(key string, value, nonce byte) driver.Label {
	return driver.Label{Key: key, Value: strings.Repeat(string(value), 32), Nonce: strings.Repeat(string(nonce), 16)}
}

// on returns a function for fakek8s.Server.Inject that injects f only into the nth request with
// the given verb.
func on(verb string, n int64, f fakek8s.Fault) func(*fakek8s.Request) *fakek8s.Fault {
	var seen atomic.Int64
	return func(q *fakek8s.Request) *fakek8s.Fault {
		if q.Verb != verb || seen.Add(1) != n {
			return nil
		}
		return &f
	}
}

// count returns an error unless seq yields want values and no error.
func count[T any](seq iter.Seq2[T, error], want int) error {
	n := 0
	for _, err := range seq {
		if err != nil {
			return err
		}
		n++
	}
	if n != want {
		return fmt.Errorf("it yields %d, want %d", n, want)
	}
	return nil
}

func TestConstructorsCheckTheirArguments(t *testing.T) {
	t.Parallel()
	client := newClient(t, "http://127.0.0.1:1", "")
	owner := &metav1.OwnerReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "crm", UID: "1"}
	for _, c := range []struct {
		namespace, prefix string
		opts              *k8sstore.Options
		ok                bool
	}{
		{"default", "crm", nil, true},
		{"team-a", "oauth.crm-2", nil, true},
		{"default", strings.Repeat("a", 188), nil, true},
		{"default", "crm", &k8sstore.Options{Labels: map[string]string{"team": "a", "example.com/b": ""}, Annotations: map[string]string{"c": "any text"}, Owner: owner}, true},
		{"", "crm", nil, false},
		{"a/b", "crm", nil, false},
		{"a.b", "crm", nil, false},
		{"default", "", nil, false},
		{"default", "CRM", nil, false},
		{"default", "a/b", nil, false},
		{"default", "a_b", nil, false},
		{"default", "-a", nil, false},
		{"default", "a-", nil, false},
		{"default", strings.Repeat("a", 189), nil, false},
		{"default", "crm", &k8sstore.Options{Labels: map[string]string{"tokenkeep.dev/x": ""}}, false},
		{"default", "crm", &k8sstore.Options{Annotations: map[string]string{"a.tokenkeep.dev/x": ""}}, false},
		{"default", "crm", &k8sstore.Options{Labels: map[string]string{"a b": ""}}, false},
		{"default", "crm", &k8sstore.Options{Labels: map[string]string{"a": "b c"}}, false},
		{"default", "crm", &k8sstore.Options{Annotations: map[string]string{"": ""}}, false},
		{"default", "crm", &k8sstore.Options{Owner: &metav1.OwnerReference{Kind: "Deployment", Name: "crm", UID: "1"}}, false},
	} {
		_, err := k8sstore.NewDriver(client, c.namespace, c.prefix, c.opts)
		if _, err2 := k8sstore.New(client, c.namespace, c.prefix, c.opts); (err == nil) != c.ok || (err2 == nil) != c.ok {
			t.Errorf("namespace %q, prefix %q, options %+v: NewDriver returned %v and New %v, want success %v", c.namespace, c.prefix, c.opts, err, err2, c.ok)
		}
	}
	if _, err := k8sstore.New[corev1.SecretInterface](nil, "default", "crm", nil); err == nil {
		t.Error("New takes a nil client")
	}
}

func TestPropertiesPromiseNoLag(t *testing.T) {
	t.Parallel()
	want := driver.Properties{Name: "k8sstore", Place: "k8sstore/default/crm", MaxSize: 65536}
	if got := newEnv(t, nil).Properties(); got != want {
		t.Errorf("Properties returns %+v, want %+v", got, want)
	}
}

// TestSecretsAreWhatTheDocumentationSays checks that Secrets have the documented form. The test
// also checks that Update sends one request, with the UID and the resource version of the base.
func TestSecretsAreWhatTheDocumentationSays(t *testing.T) {
	t.Parallel()
	owner := metav1.OwnerReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "crm", UID: "1"}
	e := newEnv(t, &k8sstore.Options{Labels: map[string]string{"team": "a"}, Annotations: map[string]string{"note": "text"}, Owner: &owner})
	user, first, second := label("user", 'a', 'n'), label("access", 'b', 'n'), label("access", 'c', 'n')
	p := driver.Payload{Data: []byte("\xff{}"), Labels: []driver.Label{first, user}, Incarnation: "one"}
	v, err := e.Create(e.Context(), name, p)
	if err != nil {
		t.Fatal(err)
	}
	o := e.object()
	wantLabels := map[string]string{"team": "a", user.Value + ".tokenkeep.dev/user.label": "", first.Value + ".tokenkeep.dev/access.label": ""}
	wantNotes := map[string]string{"note": "text", "tokenkeep.dev/incarnation": "one"}
	if o.Type != "tokenkeep.dev/record" || !maps.Equal(o.Labels, wantLabels) || !maps.Equal(o.Annotations, wantNotes) ||
		len(o.Data) != 1 || string(o.Data["record"]) != "\xff{}" || !slices.Equal(o.OwnerReferences, []metav1.OwnerReference{owner}) {
		t.Errorf("the Secret is %+v", o)
	}
	e.server.Reset()
	p.Data, p.Labels = []byte("next"), []driver.Label{second, user}
	if _, err := e.Update(e.Context(), name, driver.Secret{Payload: driver.Payload{Labels: []driver.Label{first, user}}, Version: v}, p); err != nil {
		t.Fatal(err)
	}
	all := e.server.Requests()
	var sent struct {
		Metadata struct{ UID, ResourceVersion string }
		Data     map[string][]byte
	}
	if len(all) != 1 || json.Unmarshal(all[0].Body, &sent) != nil || all[0].Verb != "patch" || sent.Metadata.UID+" "+sent.Metadata.ResourceVersion != string(v) ||
		string(sent.Data["record"]) != "next" {
		t.Errorf("Update sent %+v", all)
	}
	delete(wantLabels, first.Value+".tokenkeep.dev/access.label")
	wantLabels[second.Value+".tokenkeep.dev/access.label"] = ""
	if o := e.object(); !maps.Equal(o.Labels, wantLabels) || !maps.Equal(o.Annotations, wantNotes) || len(o.OwnerReferences) != 1 {
		t.Errorf("after Update the Secret is %+v", o)
	}
}

func TestUpdateKeepsWhatOthersHaveAdded(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	e.create("one")
	e.edit(func(o *v1.Secret) {
		o.Labels = map[string]string{"velero.io/x": "y"}
		o.Annotations = map[string]string{"others": "text"}
		o.Finalizers = []string{"example.com/hold"}
	})
	s, err := e.Get(e.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	e.holds(e.update(s, "two", label("user", 'a', 'n')))
	if o := e.object(); o.Labels["velero.io/x"] != "y" || o.Annotations["others"] != "text" || len(o.Finalizers) != 1 {
		t.Errorf("the Secret is %+v", o)
	}
}

func TestOperationsMakeAsFewCallsAsDocumented(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	user, first, second := label("user", 'a', 'n'), label("access", 'b', 'n'), label("access", 'c', 'm')
	for _, c := range []struct {
		name    string
		prepare func(e *env) driver.Secret
		run     func(e *env, s driver.Secret) error
		want    map[string]int
	}{
		{
			"Get", func(e *env) driver.Secret { return e.create("x") },
			func(e *env, _ driver.Secret) error { _, err := e.Get(ctx, name); return err },
			map[string]int{"get": 1},
		},
		{
			"Fresh", func(e *env) driver.Secret { return e.create("x") },
			func(e *env, s driver.Secret) error { _, err := e.Fresh(ctx, name, s); return err },
			map[string]int{"get": 1},
		},
		{
			"Create with labels", func(*env) driver.Secret { return driver.Secret{} },
			func(e *env, _ driver.Secret) error { e.create("x", first, user); return nil },
			map[string]int{"create": 1},
		},
		{
			"Create of a name that exists", func(e *env) driver.Secret { return e.create("x") },
			func(e *env, _ driver.Secret) error {
				_, err := e.Create(ctx, name, driver.Payload{Data: []byte("y")})
				is(e, "Create", err, driver.ErrExists)
				return nil
			},
			map[string]int{"create": 1, "get": 1},
		},
		{
			"Update with a label changed", func(e *env) driver.Secret { return e.create("x", first, user) },
			func(e *env, s driver.Secret) error { e.update(s, "y", second, user); return nil },
			map[string]int{"patch": 1},
		},
		{
			"Update that conflicts", func(e *env) driver.Secret { s := e.create("x"); e.update(s, "y"); return s },
			func(e *env, s driver.Secret) error {
				_, err := e.Update(ctx, name, s, driver.Payload{Data: []byte("z")})
				is(e, "Update", err, driver.ErrConflict)
				return nil
			},
			map[string]int{"patch": 1},
		},
		{
			"Delete", func(e *env) driver.Secret { return e.create("x", user) },
			func(e *env, s driver.Secret) error { return e.Delete(ctx, name, s) },
			map[string]int{"delete": 1},
		},
		{
			"Lookup", func(e *env) driver.Secret { return e.create("x", user) },
			func(e *env, _ driver.Secret) error { return count(e.Lookup(ctx, []driver.Label{user}), 1) },
			map[string]int{"list": 1},
		},
		{
			"Lookup by two labels of one Secret", func(e *env) driver.Secret { return e.create("x", first, user) },
			func(e *env, _ driver.Secret) error {
				return count(e.Lookup(ctx, []driver.Label{first, user, label("user", 'a', 'o')}), 1)
			},
			map[string]int{"list": 2},
		},
		{
			"List of 501", func(e *env) driver.Secret { e.many(501); return driver.Secret{} },
			func(e *env, _ driver.Secret) error { return count(e.List(ctx), 501) },
			map[string]int{"list": 2},
		},
		{
			"Names of 500", func(e *env) driver.Secret { e.many(500); return driver.Secret{} },
			func(e *env, _ driver.Secret) error { return count(e.Names(ctx), 500) },
			map[string]int{"list": 1},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t, nil)
			s := c.prepare(e)
			e.server.Reset()
			if err := c.run(e, s); err != nil {
				t.Fatal(err)
			}
			if got := e.server.Count(); !maps.Equal(got, c.want) {
				t.Errorf("%v calls, want %v", got, c.want)
			}
		})
	}
}

// TestStoresMakeAsFewCallsAsDocumented checks that the operations of a store make the
// documented number of calls, for stores of 10 and of 1000 records.
func TestStoresMakeAsFewCallsAsDocumented(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	ann := tokenstore.Token{UserName: "ann", ClientID: "app", RefreshToken: "refresh", AccessToken: "access0"}
	for _, size := range []int{10, 1000} {
		e := newEnv(t, nil)
		s, err := tokenstore.New(e.Secrets, nil)
		if err != nil {
			t.Fatal(err)
		}
		e.many(size - 1)
		saved, err := s.SaveToken(ctx, ann)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			name string
			do   func() error
			want map[string]int
		}{
			{"find", func() error {
				_, err := s.FindToken(ctx, tokenstore.Token{UserName: "ann", ClientID: "app"})
				return err
			}, map[string]int{"get": 1}},
			{"find by ID", func() error { _, err := s.FindTokenByID(ctx, saved.ID); return err }, map[string]int{"get": 1}},
			{"find by a label", func() error { _, err := s.FindToken(ctx, tokenstore.Token{UserName: "ann"}); return err }, map[string]int{"get": 1, "list": 1}},
			{"save a change", func() error {
				_, err := s.SaveToken(ctx, tokenstore.Token{UserName: "ann", ClientID: "app", AccessToken: "access1"})
				return err
			}, map[string]int{"get": 1, "patch": 1}},
			{"save no change", func() error {
				_, err := s.SaveToken(ctx, tokenstore.Token{UserName: "ann", ClientID: "app", AccessToken: "access1"})
				return err
			}, map[string]int{"get": 1}},
			{"refresh", func() error {
				_, err := s.Refresh(ctx, saved.ID, "access1", func(context.Context, tokenstore.Token) (tokenstore.Token, error) {
					return tokenstore.Token{AccessToken: "access2"}, nil
				})
				return err
			}, map[string]int{"get": 1, "patch": 2}},
			{"save a new user", func() error {
				_, err := s.SaveToken(ctx, tokenstore.Token{UserName: "bob", ClientID: "app", AccessToken: "access3"})
				return err
			}, map[string]int{"get": 2, "create": 1}}, // one GET reads the secret that identifies the store's keys
			{"delete", func() error { return s.DeleteToken(ctx, saved.ID) }, map[string]int{"get": 1, "delete": 1}},
		} {
			e.server.Reset()
			if err := c.do(); err != nil {
				t.Fatal(err)
			}
			if got := e.server.Count(); !maps.Equal(got, c.want) {
				t.Errorf("%s among %d records: %v calls, want %v", c.name, size, got, c.want)
			}
		}
	}
}

// unreachable returns the response that the API server sends if etcd does not respond. The
// client repeats a request after this response.
func unreachable() *metav1.Status {
	return &metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusInternalServerError, Reason: metav1.StatusReasonServerTimeout,
		Message: "The operation against secrets could not be completed at this time, please try again.",
		Details: &metav1.StatusDetails{Kind: "secrets", RetryAfterSeconds: 1},
	}
}

// TestWritesThatTheClientRepeats checks writes that the client repeats even though the server
// applied the first attempt. A repeated write succeeds unless another process has changed or
// deleted the Secret in the meantime.
func TestWritesThatTheClientRepeats(t *testing.T) {
	t.Parallel()
	applied := fakek8s.Fault{Status: unreachable(), Applied: true}
	t.Run("Create", func(t *testing.T) {
		t.Parallel()
		e := newEnv(t, nil)
		e.server.Inject(on("create", 1, applied))
		e.holds(e.create("one"))
	})
	t.Run("Update", func(t *testing.T) {
		t.Parallel()
		e := newEnv(t, nil)
		s := e.create("one")
		e.server.Inject(on("patch", 1, applied))
		e.holds(e.update(s, "two"))
	})
	t.Run("Delete", func(t *testing.T) {
		t.Parallel()
		e := newEnv(t, nil)
		s := e.create("one")
		e.server.Inject(on("delete", 1, applied))
		if err := e.Delete(e.Context(), name, s); err != nil {
			t.Error(err)
		}
	})
	// overtaken runs the function change, a write by another process, between the two attempts of
	// the client.
	overtaken := func(e *env, verb string, change func()) {
		var once sync.Once
		e.server.Inject(func(q *fakek8s.Request) *fakek8s.Fault {
			var fault *fakek8s.Fault
			if q.Verb == verb {
				once.Do(func() { fault = &applied })
			}
			if fault == nil && q.Verb == verb {
				e.server.Inject(nil)
				change()
			}
			return fault
		})
	}
	written := func(e *env) func() {
		return func() { e.edit(func(o *v1.Secret) { o.Data = map[string][]byte{"record": []byte("another's")} }) }
	}
	deleted := func(e *env) func() {
		return func() {
			if err := e.admin.Delete(e.Context(), e.object().Name, metav1.DeleteOptions{}); err != nil {
				e.Error(err)
			}
		}
	}
	t.Run("Create, and another has written", func(t *testing.T) {
		t.Parallel()
		e := newEnv(t, nil)
		overtaken(e, "create", written(e))
		_, err := e.Create(e.Context(), name, driver.Payload{Data: []byte("one")})
		is(t, "Create", err, driver.ErrUnavailable)
	})
	t.Run("Update, and another has written", func(t *testing.T) {
		t.Parallel()
		e := newEnv(t, nil)
		s := e.create("one")
		overtaken(e, "patch", written(e))
		_, err := e.Update(e.Context(), name, s, driver.Payload{Data: []byte("two")})
		is(t, "Update", err, driver.ErrUnavailable)
	})
	t.Run("Update, and another has deleted", func(t *testing.T) {
		t.Parallel()
		e := newEnv(t, nil)
		s := e.create("one")
		overtaken(e, "patch", deleted(e))
		_, err := e.Update(e.Context(), name, s, driver.Payload{Data: []byte("two")})
		is(t, "Update", err, driver.ErrUnavailable)
	})
}

func TestLostAnswers(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	s := e.create("one")
	e.server.Inject(on("patch", 1, fakek8s.Fault{Drop: true, Applied: true}))
	_, err := e.Update(e.Context(), name, s, driver.Payload{Data: []byte("two")})
	is(t, "Update", err, driver.ErrUnavailable)
	if got, err := e.Fresh(e.Context(), name, s); err != nil || string(got.Data) != "two" {
		t.Errorf("Fresh returns %q and error %v", got.Data, err)
	}
}

// TestFinalizers checks that readers do not find a deleted Secret with a finalizer, and that
// Create waits until the finalizer is removed.
func TestFinalizers(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	e.create("one", label("user", 'a', 'n'))
	e.edit(func(o *v1.Secret) { o.Finalizers = []string{"example.com/hold"} })
	s, err := e.Get(e.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	s.Labels = []driver.Label{label("user", 'a', 'n')}
	if err := e.Delete(e.Context(), name, s); err != nil {
		t.Fatal(err)
	}
	_, err = e.Get(e.Context(), name)
	is(t, "Get", err, driver.ErrNotFound)
	if err := errors.Join(count(e.List(e.Context()), 0), count(e.Lookup(e.Context(), s.Labels), 0)); err != nil {
		t.Error(err)
	}
	_, err = e.Update(e.Context(), name, s, driver.Payload{Data: []byte("two")})
	is(t, "Update", err, driver.ErrConflict)

	ctx, cancel := context.WithTimeout(e.Context(), 200*time.Millisecond)
	defer cancel()
	_, err = e.Create(ctx, name, driver.Payload{Data: []byte("three")})
	is(t, "Create while it is held", err, context.DeadlineExceeded)

	created := make(chan error)
	e.server.Reset()
	go func() {
		_, err := e.Create(e.Context(), name, driver.Payload{Data: []byte("four")})
		created <- err
	}()
	for len(e.server.Requests()) < 2 { // until Create has found the name in use
		select {
		case err := <-created:
			t.Fatalf("Create returned %v", err)
		case <-time.After(time.Millisecond):
		}
	}
	e.edit(func(o *v1.Secret) { o.Finalizers = nil })
	if err := <-created; err != nil {
		t.Errorf("Create: %v", err)
	}
}

func TestListsGoOnAfterACompaction(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	e.many(1100)
	var seen []string
	for n, err := range e.List(e.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		seen = append(seen, n.Name)
		if len(seen) == 250 || len(seen) == 750 {
			// Delete one Secret after the current position. Create one Secret before that
			// position, and one after it.
			gone, err := e.Get(e.Context(), fmt.Sprintf("u%05d", len(seen)+300))
			if err == nil {
				err = e.Delete(e.Context(), fmt.Sprintf("u%05d", len(seen)+300), gone)
			}
			_, err1 := e.Create(e.Context(), fmt.Sprintf("a%05d", len(seen)), driver.Payload{Data: []byte("x")})
			_, err2 := e.Create(e.Context(), fmt.Sprintf("z%05d", len(seen)), driver.Payload{Data: []byte("x")})
			if err := errors.Join(err, err1, err2); err != nil {
				t.Fatal(err)
			}
			e.server.Compact()
		}
	}
	if !slices.IsSorted(seen) || len(slices.Compact(slices.Clone(seen))) != len(seen) {
		t.Error("a name is listed twice, or out of order")
	}
	for i := range 1100 {
		if n := fmt.Sprintf("u%05d", i); i != 550 && i != 1050 && !slices.Contains(seen, n) {
			t.Errorf("%s is missing", n)
		}
	}
}

func TestOthersSecretsAreLeftAlone(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	other := &v1.Secret{ObjectMeta: metav1.ObjectMeta{Name: full}, Data: map[string][]byte{"record": []byte("x")}}
	if _, err := e.admin.Create(e.Context(), other, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	_, err := e.Get(e.Context(), name)
	is(t, "Get", err, driver.ErrCorrupt)
	_, err = e.Create(e.Context(), name, driver.Payload{Data: []byte("one")})
	is(t, "Create", err, driver.ErrExists)
	if err := count(e.List(e.Context()), 0); err != nil {
		t.Error(err)
	}
	if o := e.object(); o.Type != v1.SecretTypeOpaque || string(o.Data["record"]) != "x" {
		t.Errorf("the Secret is %+v", o)
	}
}

// TestVersionsNameTheIncarnation checks that Update and Delete refuse malformed versions, and a
// version that has the current revision but the UID of another incarnation.
func TestVersionsNameTheIncarnation(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	s := e.create("one")
	_, revision, _ := strings.Cut(string(s.Version), " ")
	s.Version = driver.Version(types.UID("another") + types.UID(" "+revision))
	_, err := e.Update(e.Context(), name, s, driver.Payload{Data: []byte("two")})
	if err == nil {
		t.Error("Update changed another incarnation")
	}
	is(t, "Delete", e.Delete(e.Context(), name, s), driver.ErrConflict)
	for _, v := range []driver.Version{"", "x", "x ", " 1"} {
		_, err := e.Update(e.Context(), name, driver.Secret{Version: v}, driver.Payload{Data: []byte("two")})
		is(t, "Update", err, driver.ErrConflict)
		is(t, "Delete", e.Delete(e.Context(), name, driver.Secret{Version: v}), driver.ErrConflict)
	}
}

// open returns a driver whose client uses the given token.
func open(t testing.TB, server *fakek8s.Server, token string) driver.Secrets {
	t.Helper()
	d, err := k8sstore.NewDriver(newClient(t, server.URL, token), "default", "crm", nil)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func get(e *env, full string) *v1.Secret {
	e.Helper()
	o, err := e.admin.Get(e.Context(), full, metav1.GetOptions{})
	if err != nil {
		e.Fatal(err)
	}
	return o
}

func put(e *env, o *v1.Secret) {
	e.Helper()
	if _, err := e.admin.Update(e.Context(), o, metav1.UpdateOptions{}); err != nil {
		e.Fatal(err)
	}
}

// TestNamespaces checks that Create is refused in a namespace that does not exist or is being
// deleted.
func TestNamespaces(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	for _, c := range []struct {
		name  string
		there func()
		want  error
	}{
		{"missing", func() {}, driver.ErrRefused},
		{"going", func() { e.server.Namespace("going", true) }, driver.ErrRefused},
		{"there", func() { e.server.Namespace("there", false) }, nil},
	} {
		c.there()
		d, err := k8sstore.NewDriver(newClient(t, e.server.URL, fakek8s.AdminToken), c.name, "crm", nil)
		if err != nil {
			t.Fatal(err)
		}
		_, err = d.Create(t.Context(), name, driver.Payload{Data: []byte("x")})
		is(t, "Create in a namespace that is "+c.name, err, c.want)
	}
}
