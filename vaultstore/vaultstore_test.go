package vaultstore_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/tokenkeep/tokenkeep/internal/fakevault"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/vaultstore"
)

const (
	app  = "oauth/crm"
	name = "u4fz2k6q3w7x5c2a"
)

type env struct {
	testing.TB
	server *fakevault.Server
	client *api.Client
	driver.Secrets
}

func newEnv(t testing.TB, opts *vaultstore.Options) *env {
	return envOn(t, nil, opts)
}

func envOn(t testing.TB, server *fakevault.Options, opts *vaultstore.Options) *env {
	t.Helper()
	e := &env{TB: t, server: fakevault.New(server)}
	t.Cleanup(e.server.Close)
	e.client = newClient(t, e.server.URL, fakevault.RootToken)
	e.Secrets = newDriver(t, e.client, opts)
	return e
}

func newDriver(t testing.TB, client *api.Client, opts *vaultstore.Options) driver.Secrets {
	t.Helper()
	d, err := vaultstore.NewDriver(client, "secret", app, opts)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// newClient returns a client with its own connections and with short pauses between
// retries.
func newClient(t testing.TB, url, token string) *api.Client {
	t.Helper()
	c := api.DefaultConfig()
	c.Address, c.MinRetryWait, c.MaxRetryWait = url, time.Millisecond, 2*time.Millisecond
	client, err := api.NewClient(c)
	if err != nil {
		t.Fatal(err)
	}
	client.SetToken(token)
	t.Cleanup(c.HttpClient.CloseIdleConnections)
	return client
}

func (e *env) create(data string, labels ...driver.Label) driver.Secret {
	e.Helper()
	p := driver.Payload{Data: []byte(data), Labels: labels}
	v, err := e.Create(e.Context(), name, p)
	if err != nil {
		e.Fatalf("Create: %v", err)
	}
	return driver.Secret{Payload: p, Version: v}
}

func (e *env) update(base driver.Secret, data string, labels ...driver.Label) driver.Secret {
	e.Helper()
	p := driver.Payload{Data: []byte(data), Labels: labels}
	v, err := e.Update(e.Context(), name, base, p)
	if err != nil {
		e.Fatalf("Update: %v", err)
	}
	return driver.Secret{Payload: p, Version: v}
}

func (e *env) remove(base driver.Secret) {
	e.Helper()
	if err := e.Delete(e.Context(), name, base); err != nil {
		e.Fatalf("Delete: %v", err)
	}
}

func (e *env) holds(want driver.Secret) {
	e.Helper()
	got, err := e.Get(e.Context(), name)
	if err != nil || !bytes.Equal(got.Data, want.Data) || got.Version != want.Version {
		e.Errorf("Get returns %q at %q and error %v, want %q at %q", got.Data, got.Version, err, want.Data, want.Version)
	}
}

// vault sends a request directly to the server, as an operator does, and returns the status
// and the body of the response.
func (e *env) vault(method, path, body string) (int, string) {
	e.Helper()
	r, err := http.NewRequestWithContext(e.Context(), method, e.server.URL+"/v1/secret/"+path, strings.NewReader(body))
	if err != nil {
		e.Fatal(err)
	}
	r.Header.Set("X-Vault-Token", fakevault.RootToken)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		e.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var b bytes.Buffer
	if _, err := b.ReadFrom(resp.Body); err != nil {
		e.Fatal(err)
	}
	return resp.StatusCode, b.String()
}

// versionOf requests version n of the secret directly from the server.
func (e *env) versionOf(n int) (int, string) {
	e.Helper()
	return e.vault("GET", fmt.Sprintf("data/%s/tokens/%s?version=%d", app, name, n), "")
}

// is checks that err matches want and no other class. If want is nil, err must match no class.
func is(t testing.TB, op string, err, want error) {
	t.Helper()
	for _, class := range []error{
		driver.ErrNotFound, driver.ErrExists, driver.ErrConflict, driver.ErrDenied, driver.ErrRefused, driver.ErrUnavailable, driver.ErrCorrupt,
		context.Canceled, context.DeadlineExceeded,
	} {
		if errors.Is(err, class) != errors.Is(class, want) {
			t.Errorf("%s returned %v, want %v", op, err, want)
		}
	}
	if want != nil && err == nil {
		t.Errorf("%s succeeded, want %v", op, want)
	}
}

func label(key string, value, nonce byte) driver.Label {
	return driver.Label{Key: key, Value: strings.Repeat(string(value), 32), Nonce: strings.Repeat(string(nonce), 16)}
}

// on returns a function for Inject that injects f only into the nth request with the given
// operation and class, such as "write data".
func on(what string, n int64, f fakevault.Fault) func(*fakevault.Request) *fakevault.Fault {
	var seen atomic.Int64
	return func(q *fakevault.Request) *fakevault.Fault {
		if q.Operation+" "+q.Class != what || seen.Add(1) != n {
			return nil
		}
		return &f
	}
}

func TestConstructorsCheckTheirArguments(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	for _, c := range []struct {
		mount, prefix string
		ok            bool
	}{
		{"secret", "app", true},
		{"teams/kv-2", "oauth/crm.v1/x_y", true},
		{"secret", "a.b-c", true},
		{"", "app", false},
		{"secret", "", false},
		{"/secret", "app", false},
		{"secret/", "app", false},
		{"secret", "a//b", false},
		{"secret", "../a", false},
		{"secret", "a/..", false},
		{"secret", "a/./b", false},
		{"secret", "a..b", false},
		{"secret", "a b", false},
		{"secret", "a*", false},
		{"secret", "a%2f", false},
		{"secret", "ä", false},
		{"secret", "a\n", false},
		{"sec?ret", "a", false},
	} {
		_, err := vaultstore.NewDriver(e.client, c.mount, c.prefix, nil)
		if _, err2 := vaultstore.New(e.client, c.mount, c.prefix, nil); (err == nil) != c.ok || (err2 == nil) != c.ok {
			t.Errorf("mount %q and prefix %q: NewDriver returned %v and New %v, want success %v", c.mount, c.prefix, err, err2, c.ok)
		}
	}
	if _, err := vaultstore.New(nil, "secret", "app", nil); err == nil {
		t.Error("New takes a nil client")
	}
	for _, o := range []vaultstore.Options{{ListLag: -1}, {ReadLag: -1}} {
		if _, err := vaultstore.New(e.client, "secret", "app", &o); err == nil {
			t.Error("New takes a negative lag")
		}
	}
	if n := len(e.server.Requests()); n != 0 {
		t.Errorf("the constructors made %d requests", n)
	}
}

func TestPropertiesSayWhatTheOptionsSay(t *testing.T) {
	t.Parallel()
	e := newEnv(t, &vaultstore.Options{ListLag: time.Second, ReadLag: driver.Unbounded})
	want := driver.Properties{Name: "vaultstore", Place: "vaultstore/secret/oauth/crm", MaxSize: 65536, ListLag: time.Second, ReadLag: driver.Unbounded, LabelBatch: 1}
	if got := e.Properties(); got != want {
		t.Errorf("Properties returns %+v, want %+v", got, want)
	}
}

func TestRecordLayout(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	user, access := label("user", 'a', 'n'), label("access", 'b', 'm')
	e.warm()
	e.server.Reset()
	e.create(`{"v":1}`, access, user)
	var got []string
	for _, q := range e.server.Requests() {
		got = append(got, q.Method+" "+q.Path+" "+string(q.Body))
	}
	slices.Sort(got)
	want := []string{
		"POST secret/metadata/oauth/crm/index/access/" + access.Value + "/" + name + "." + access.Nonce + ` {"custom_metadata":{"name":"` + name + `"}}`,
		"POST secret/metadata/oauth/crm/index/user/" + user.Value + "/" + name + "." + user.Nonce + ` {"custom_metadata":{"name":"` + name + `"}}`,
		"PUT secret/data/oauth/crm/tokens/" + name + ` {"data":{"record":"{\"v\":1}"},"options":{"cas":0}}`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("Create asked for\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestDataThatIsNoTextIsKeptInBase64(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	data := "\xff\x00\xfe"
	e.holds(e.create(data))
	if _, answer := e.versionOf(1); !strings.Contains(answer, `"record_base64":"`+base64.StdEncoding.EncodeToString([]byte(data))+`"`) {
		t.Errorf("the server has %s", answer)
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
			map[string]int{"read data": 1},
		},
		{
			"Fresh", func(e *env) driver.Secret { return e.create("x") },
			func(e *env, s driver.Secret) error { _, err := e.Fresh(ctx, name, s); return err },
			map[string]int{"read data": 1},
		},
		{
			"Create with two labels", func(e *env) driver.Secret { e.warm(); return driver.Secret{} },
			func(e *env, _ driver.Secret) error { e.create("x", first, user); return nil },
			map[string]int{"write metadata": 2, "write data": 1},
		},
		{
			"Create with two labels, by a driver that has read nothing", func(*env) driver.Secret { return driver.Secret{} },
			func(e *env, _ driver.Secret) error { e.create("x", first, user); return nil },
			map[string]int{"read sys": 1, "write metadata": 2, "write data": 1},
		},
		{
			"Get that misses", func(e *env) driver.Secret { e.warm(); return driver.Secret{} },
			func(e *env, _ driver.Secret) error {
				_, err := e.Get(ctx, name)
				is(e, "Get", err, driver.ErrNotFound)
				return nil
			},
			map[string]int{"read data": 1},
		},
		{
			"Get that hits, by a driver that has read nothing", func(e *env) driver.Secret {
				e.create("x")
				e.Secrets = newDriver(e, e.client, nil)
				return driver.Secret{}
			},
			func(e *env, _ driver.Secret) error { _, err := e.Get(ctx, name); return err },
			map[string]int{"read data": 1},
		},
		{
			"List of nothing, by a driver that has read nothing", func(*env) driver.Secret { return driver.Secret{} },
			func(e *env, _ driver.Secret) error { return count(e.List(ctx), 0) },
			map[string]int{"list metadata": 1, "read sys": 1},
		},
		{
			"Update with the same labels", func(e *env) driver.Secret { return e.create("x", first, user) },
			func(e *env, s driver.Secret) error { e.update(s, "y", first, user); return nil },
			map[string]int{"write data": 1},
		},
		{
			"Update with one label changed", func(e *env) driver.Secret { return e.create("x", first, user) },
			func(e *env, s driver.Secret) error { e.update(s, "y", second, user); return nil },
			map[string]int{"write metadata": 1, "write data": 1, "delete metadata": 1},
		},
		{
			"Update that leaves a label", func(e *env) driver.Secret { return e.create("x", first, user) },
			func(e *env, s driver.Secret) error {
				_, err := e.Update(ctx, name, s, driver.Payload{Data: []byte("y"), Labels: []driver.Label{second, user}, Former: []driver.Label{first}})
				return err
			},
			map[string]int{"write metadata": 1, "write data": 1},
		},
		{
			"Update that removes what was left", func(e *env) driver.Secret {
				s := e.create("x", first, user)
				s.Labels, s.Former = []driver.Label{user}, []driver.Label{first}
				return s
			},
			func(e *env, s driver.Secret) error { e.update(s, "y", user); return nil },
			map[string]int{"write data": 1, "delete metadata": 1},
		},
		{
			"Delete", func(e *env) driver.Secret { return e.update(e.create("x"), "y") },
			func(e *env, s driver.Secret) error { return e.Delete(ctx, name, s) },
			map[string]int{"write data": 1, "write destroy": 1},
		},
		{
			"Delete with labels", func(e *env) driver.Secret { return e.create("x", first, user) },
			func(e *env, s driver.Secret) error { return e.Delete(ctx, name, s) },
			map[string]int{"write data": 1, "write destroy": 1, "delete metadata": 2},
		},
		{
			"Create of a deleted name", func(e *env) driver.Secret { e.remove(e.create("x")); return driver.Secret{} },
			func(e *env, _ driver.Secret) error { e.create("y"); return nil },
			map[string]int{"write data": 2, "read data": 1},
		},
		{
			"Create of a live name", func(e *env) driver.Secret { return e.create("x") },
			func(e *env, _ driver.Secret) error {
				_, err := e.Create(ctx, name, driver.Payload{Data: []byte("y")})
				is(e, "Create", err, driver.ErrExists)
				return nil
			},
			map[string]int{"write data": 1, "read data": 1},
		},
		{
			"Update that conflicts", func(e *env) driver.Secret { s := e.create("x"); e.update(s, "y"); return s },
			func(e *env, s driver.Secret) error {
				_, err := e.Update(ctx, name, s, driver.Payload{Data: []byte("z")})
				is(e, "Update", err, driver.ErrConflict)
				return nil
			},
			map[string]int{"write data": 1, "read data": 1},
		},
		{
			"Lookup that hits", func(e *env) driver.Secret { return e.create("x", user) },
			func(e *env, _ driver.Secret) error { return count(e.Lookup(ctx, []driver.Label{user}), 1) },
			map[string]int{"list metadata": 1, "read data": 1},
		},
		{
			"Lookup by two labels of one secret", func(e *env) driver.Secret { return e.create("x", first, user) },
			func(e *env, _ driver.Secret) error { return count(e.Lookup(ctx, []driver.Label{first, user, user}), 1) },
			map[string]int{"list metadata": 2, "read data": 1},
		},
		{
			"Lookup that misses", func(e *env) driver.Secret { return e.create("x", user) },
			func(e *env, _ driver.Secret) error { return count(e.Lookup(ctx, []driver.Label{first}), 0) },
			map[string]int{"list metadata": 1},
		},
		{
			"List of 40", func(e *env) driver.Secret { e.many(40); return driver.Secret{} },
			func(e *env, _ driver.Secret) error { return count(e.List(ctx), 40) },
			map[string]int{"list metadata": 1, "read data": 40},
		},
		{
			"Names of 40", func(e *env) driver.Secret { e.many(40); return driver.Secret{} },
			func(e *env, _ driver.Secret) error { return count(e.Names(ctx), 40) },
			map[string]int{"list metadata": 1},
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
		return fmt.Errorf("%d yielded, want %d", n, want)
	}
	return nil
}

// warm makes a call during which the driver finds out which engine is mounted.
func (e *env) warm() {
	e.Helper()
	if _, err := e.Get(e.Context(), "none"); !errors.Is(err, driver.ErrNotFound) {
		e.Fatalf("Get: %v", err)
	}
}

func (e *env) many(n int) {
	e.Helper()
	for i := range n {
		if _, err := e.Create(e.Context(), fmt.Sprintf("n%04d", i), driver.Payload{Data: []byte("x")}); err != nil {
			e.Fatal(err)
		}
	}
}

func TestDelete(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	user := label("user", 'a', 'n')
	first := e.create("first", user)
	second := e.update(first, "second", user)
	e.remove(second)
	for n, want := range map[int]string{1: `"destroyed":true`, 2: `"destroyed":true`, 3: `"deleted":"`} {
		if _, answer := e.versionOf(n); !strings.Contains(answer, want) || strings.Contains(answer, "record") {
			t.Errorf("version %d is %s", n, answer)
		}
	}
	if status, answer := e.vault("LIST", "metadata/"+app+"/index/user/"+user.Value, ""); status != http.StatusNotFound {
		t.Errorf("there are entries left: %s", answer)
	}
	_, err := e.Get(t.Context(), name)
	is(t, "Get", err, driver.ErrNotFound)

	// The version numbers continue, so that a write over an earlier version is refused.
	e.server.Reset()
	again := e.create("again", user)
	if _, answer := e.versionOf(4); !strings.Contains(answer, `"record":"again"`) {
		t.Errorf("version 4 is %s", answer)
	}
	for _, base := range []driver.Secret{first, second} {
		_, err := e.Update(t.Context(), name, base, driver.Payload{Data: []byte("stale")})
		is(t, "Update of an earlier life", err, driver.ErrConflict)
		is(t, "Delete of an earlier life", e.Delete(t.Context(), name, base), driver.ErrConflict)
	}
	e.holds(again)
	if err := count(e.Lookup(t.Context(), []driver.Label{user}), 1); err != nil {
		t.Error(err)
	}
}

func TestDeleteInterrupted(t *testing.T) {
	t.Parallel()
	for _, f := range []fakevault.Fault{{Status: 403}, {Drop: true}} {
		e := newEnv(t, nil)
		e.client.SetMaxRetries(0)
		s := e.create("x")
		e.server.Inject(on("write destroy", 1, f))
		err := e.Delete(t.Context(), name, s)
		if err == nil || !strings.Contains(err.Error(), "earlier versions") {
			t.Errorf("Delete returned %v", err)
		}
		_, err = e.Get(t.Context(), name)
		is(t, "Get", err, driver.ErrNotFound)
		if status, _ := e.versionOf(1); status != http.StatusOK {
			t.Error("the version was destroyed")
		}
		e.remove(s)
		if _, answer := e.versionOf(1); !strings.Contains(answer, `"destroyed":true`) {
			t.Errorf("version 1 is %s", answer)
		}
	}
}

func TestDeleteManyVersions(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	s := e.create("0")
	for i := range 40 {
		s = e.update(s, fmt.Sprint(i+1))
	}
	e.server.Reset()
	e.remove(s)
	want := map[string]int{"write data": 1, "read metadata": 1, "write destroy": 1}
	if got := e.server.Count(); !maps.Equal(got, want) {
		t.Errorf("%v calls, want %v", got, want)
	}
	body := e.server.Requests()[2].Body
	if string(body) != `{"versions":[33,34,35,36,37,38,39,40,41]}` {
		t.Errorf("it destroys %s", body)
	}
	for n := 33; n <= 41; n++ {
		if _, answer := e.versionOf(n); !strings.Contains(answer, `"destroyed":true`) {
			t.Errorf("version %d is %s", n, answer)
		}
	}
}

func TestCreateAfterPurge(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	before := e.create("before")
	e.vault("DELETE", "metadata/"+app+"/tokens/"+name, "")
	_, err := e.Get(t.Context(), name)
	is(t, "Get", err, driver.ErrNotFound)
	if _, err := e.Fresh(t.Context(), name, before); !errors.Is(err, driver.ErrNotFound) {
		t.Errorf("Fresh returned %v", err)
	}
	if err := e.Delete(t.Context(), name, before); err != nil {
		t.Errorf("Delete of a purged secret: %v", err)
	}
	after := e.create("after")
	if before.Version == after.Version {
		t.Errorf("both lives have version %q", after.Version)
	}
	for range 3 {
		before.Version = e.update(after, "after").Version
		after.Version = before.Version
	}
	e.vault("DELETE", "metadata/"+app+"/tokens/"+name, "")
	e.create("young")
	if got, err := e.Fresh(t.Context(), name, before); err != nil || string(got.Data) != "young" {
		t.Errorf("Fresh, told of a higher number of an earlier life, returned %q, %v", got.Data, err)
	}
}

func TestCreateAfterOperatorDelete(t *testing.T) {
	t.Parallel()
	record := "/" + app + "/tokens/" + name
	for what, leave := range map[string]func(e *env){
		"a soft delete": func(e *env) { e.create("x"); e.vault("DELETE", "data"+record, "") },
		"a soft delete of a tombstone": func(e *env) {
			e.remove(e.create("x"))
			e.vault("DELETE", "data"+record, "")
		},
		"a destroyed version": func(e *env) { e.create("x"); e.vault("PUT", "destroy"+record, `{"versions":[1]}`) },
		"metadata alone":      func(e *env) { e.vault("POST", "metadata"+record, `{"custom_metadata":{"owner":"ops"}}`) },
		"a version that has deleted itself": func(e *env) {
			e.vault("POST", "config", `{"delete_version_after":"1h"}`)
			e.create("x")
			e.server.Advance(2 * time.Hour)
		},
		"a purge": func(e *env) { e.create("x"); e.vault("DELETE", "metadata"+record, "") },
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t, nil)
			leave(e)
			_, err := e.Get(t.Context(), name)
			is(t, "Get", err, driver.ErrNotFound)
			if err := count(e.List(t.Context()), 0); err != nil {
				t.Error(err)
			}
			if err := e.Delete(t.Context(), name, driver.Secret{Version: "1 2025-01-01T00:00:00Z"}); err != nil {
				t.Errorf("Delete: %v", err)
			}
			e.holds(e.create("again"))
		})
	}
}

func TestForeignData(t *testing.T) {
	t.Parallel()
	for _, data := range []string{
		`{}`, `{"note":"x"}`, `{"record":""}`, `{"record":7}`, `{"record":null}`, `{"record":{"a":"b"}}`, `{"record":"x","note":"y"}`,
		`{"record":"x","deleted":"y"}`, `{"record_base64":"***"}`, `{"deleted":""}`, `{"Record":"x"}`,
	} {
		e := newEnv(t, nil)
		e.vault("PUT", "data/"+app+"/tokens/"+name, `{"data":`+data+`}`)
		_, err := e.Get(t.Context(), name)
		is(t, "Get of "+data, err, driver.ErrCorrupt)
		_, err = e.Create(t.Context(), name, driver.Payload{Data: []byte("x")})
		is(t, "Create over "+data, err, driver.ErrExists)
		is(t, "Delete of "+data, e.Delete(t.Context(), name, driver.Secret{}), driver.ErrConflict)
		n := 0
		for s, err := range e.List(t.Context()) {
			is(t, "List with "+data, err, driver.ErrCorrupt)
			if s.Name != name {
				t.Errorf("List with %s yields the name %q", data, s.Name)
			}
			n++
		}
		if status, answer := e.versionOf(1); n != 1 || status != http.StatusOK {
			t.Errorf("List with %s yields %d errors; version 1 is %s", data, n, answer)
		}
	}
}

func TestEntriesThatAreNoneAreIgnored(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	user := label("user", 'a', 'n')
	e.create("x", user)
	folder := "metadata/" + app + "/index/user/" + user.Value + "/"
	for _, entry := range []string{
		"readme", name, name + ".", name + ".short", name + "." + strings.Repeat("1", 16), "." + user.Nonce, "UP." + user.Nonce,
		strings.Repeat("x", 65) + "." + user.Nonce, name + "." + user.Nonce + ".more", "folder/" + name + "." + user.Nonce,
	} {
		if status, answer := e.vault("POST", folder+entry, `{"custom_metadata":{"x":"y"}}`); status != http.StatusNoContent {
			t.Fatal(answer)
		}
	}
	e.vault("PUT", "data/"+app+"/tokens/Not_A_Name", `{"data":{"record":"x"}}`)
	e.vault("PUT", "data/"+app+"/tokens/folder/x", `{"data":{"record":"x"}}`)
	e.server.Reset()
	if err := count(e.Lookup(t.Context(), []driver.Label{user}), 1); err != nil {
		t.Error(err)
	}
	if got := e.server.Count()["read data"]; got != 1 {
		t.Errorf("Lookup reads %d secrets, want 1", got)
	}
	if err := count(e.List(t.Context()), 1); err != nil {
		t.Error(err)
	}
	if err := count(e.Names(t.Context()), 1); err != nil {
		t.Error(err)
	}
}

// TestRepeatedWrite checks that a write succeeds if Vault applies the first attempt and refuses
// a repetition. The driver finds its own data in the version.
func TestRepeatedWrite(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	for what, fault := range map[string]fakevault.Fault{
		"an answer that was lost":        {Applied: true, Drop: true},
		"an error in place of an answer": {Applied: true, Status: 502, Body: "<html>"},
		"a repetition on the way":        {Applied: true, Status: 400, Errors: []string{"check-and-set parameter did not match the current version"}},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t, nil)
			inject := func() { e.server.Inject(on("write data", 1, fault)) }
			inject()
			s := e.create("first")
			e.holds(s)
			inject()
			s = e.update(s, "second")
			e.holds(s)
			inject()
			e.remove(s)
			_, err := e.Get(ctx, name)
			is(t, "Get", err, driver.ErrNotFound)
			if _, answer := e.versionOf(2); !strings.Contains(answer, `"destroyed":true`) {
				t.Errorf("version 2 is %s", answer)
			}
			// The versions of the previous record are destroyed. If the response to the first
			// attempt is lost, Create cannot find out whether that attempt created one of these
			// versions.
			inject()
			v, err := e.Create(ctx, name, driver.Payload{Data: []byte("third")})
			if fault.Status != http.StatusBadRequest {
				is(t, "Create", err, driver.ErrUnavailable)
				v = e.create("third").Version
			}
			e.holds(driver.Secret{Payload: driver.Payload{Data: []byte("third")}, Version: v})
		})
	}
}

// TestRepeatedWriteAfterOthers checks writes that the client repeats after other processes have
// written. If Vault still has the version that the write created, the write succeeds. Otherwise the
// error matches ErrUnavailable.
func TestRepeatedWriteAfterOthers(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	for _, later := range []int{1, 3, 12} {
		for what, write := range map[string]func(e *env, base driver.Secret) error{
			"Create": func(e *env, _ driver.Secret) error {
				v, err := e.Create(ctx, name, driver.Payload{Data: []byte("mine")})
				if err == nil && !strings.HasPrefix(string(v), "1 ") {
					e.Errorf("Create returned version %q", v)
				}
				return err
			},
			"Update": func(e *env, base driver.Secret) error {
				v, err := e.Update(ctx, name, base, driver.Payload{Data: []byte("mine")})
				if err == nil && !strings.HasPrefix(string(v), "2 ") {
					e.Errorf("Update returned version %q", v)
				}
				return err
			},
			"Delete": func(e *env, base driver.Secret) error { return e.Delete(ctx, name, base) },
		} {
			t.Run(fmt.Sprintf("%s behind %d", what, later), func(t *testing.T) {
				t.Parallel()
				e := newEnv(t, nil)
				var base driver.Secret
				if what != "Create" {
					base = e.create("base")
				}
				var seen atomic.Int64
				e.server.Inject(func(q *fakevault.Request) *fakevault.Fault {
					if q.Operation+" "+q.Class != "write data" || !bytes.Contains(q.Body, []byte("cas")) {
						return nil
					}
					switch seen.Add(1) {
					case 1:
						return &fakevault.Fault{Applied: true, Status: 500}
					case 2:
						for range later { // a write without cas does not trigger the fault again
							e.vault("PUT", "data/"+app+"/tokens/"+name, `{"data":{"record":"theirs"}}`)
						}
					}
					return nil
				})
				err := write(e, base)
				if later < 12 {
					is(t, what, err, nil)
				} else {
					is(t, what, err, driver.ErrUnavailable) // Vault has removed the version, so the outcome is unknown
				}
				if got, err := e.Get(ctx, name); err != nil || string(got.Data) != "theirs" {
					t.Errorf("the secret holds %q, %v", got.Data, err)
				}
			})
		}
	}
}

// TestStaleWriteVersionGone checks that a stale write never causes ErrUnavailable if Vault could
// apply only one of its requests. Vault may have removed the version after the base.
func TestStaleWriteVersionGone(t *testing.T) {
	t.Parallel()
	expire := func(e *env) { e.server.Advance(2 * time.Hour) }
	bao := &fakevault.Options{OpenBao: true}
	for what, c := range map[string]struct {
		server *fakevault.Options
		before func(*env) // runs before each stale write
	}{
		"one request":                      {nil, func(*env) {}},
		"a login":                          {nil, expire},
		"a look-up of the token, a login":  {bao, expire},
		"a redirection to the active node": {nil, func(e *env) { e.redirect(e.server.URL) }},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			e := newLoginEnv(t, c.server, time.Hour, "app")
			base := e.create("0")
			s := base
			for i := range 20 {
				s = e.update(s, fmt.Sprint(i+1))
			}
			c.before(e)
			_, err := e.Update(t.Context(), name, base, driver.Payload{Data: []byte("stale")})
			is(t, "Update", err, driver.ErrConflict)
			c.before(e)
			is(t, "Delete", e.Delete(t.Context(), name, base), driver.ErrConflict)
			c.before(e)
			_, err = e.Create(t.Context(), name, driver.Payload{Data: []byte("stale")})
			is(t, "Create", err, driver.ErrExists)
			e.holds(s)
		})
	}
}

// TestStaleWriteRepeatedBeforeLogin checks that the outcome of a stale write is unknown if Vault
// could apply a request before Vault denied the repetition of that request.
func TestStaleWriteRepeatedBeforeLogin(t *testing.T) {
	t.Parallel()
	e := newLoginEnv(t, nil, time.Hour, "app")
	base := e.create("0")
	s := base
	for i := range 20 {
		s = e.update(s, fmt.Sprint(i+1))
	}
	var seen atomic.Int64
	e.server.Inject(func(q *fakevault.Request) *fakevault.Fault {
		if q.Operation+" "+q.Class != "write data" {
			return nil
		}
		switch seen.Add(1) {
		case 1:
			return &fakevault.Fault{Status: 500}
		case 2:
			return &fakevault.Fault{Status: 403, Errors: []string{"permission denied", "invalid token"}}
		}
		return nil
	})
	_, err := e.Update(t.Context(), name, base, driver.Payload{Data: []byte("stale")})
	is(t, "Update", err, driver.ErrUnavailable)
	e.holds(s)
}

// redirect makes the client call a node that redirects each request to url, as a standby node that
// may not forward requests does.
func (e *env) redirect(url string) {
	e.Helper()
	node := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, url+r.URL.RequestURI(), http.StatusTemporaryRedirect)
	}))
	e.Cleanup(node.Close)
	if err := e.client.SetAddress(node.URL); err != nil {
		e.Fatal(err)
	}
}

func TestWriteUnknownOutcome(t *testing.T) {
	t.Parallel()
	for what, fault := range map[string]fakevault.Fault{
		"a lost answer":            {Applied: true, Drop: true},
		"a lost request":           {Drop: true},
		"an error that hides it":   {Applied: true, Status: 500, Errors: []string{"internal error"}},
		"an answer that is none":   {Applied: true, Status: 200, Body: "<html>"},
		"an answer that is cut":    {Applied: true, Status: 200, Body: `{"data":`},
		"a redirection to nowhere": {Applied: true, Status: 304},
		"a sealed server":          {Status: 503, Errors: []string{"Vault is sealed"}},
		"a quota":                  {Status: 429, Errors: []string{"rate limit quota exceeded"}},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t, nil)
			e.client.SetMaxRetries(0)
			e.server.Inject(on("write data", 1, fault))
			_, err := e.Create(t.Context(), name, driver.Payload{Data: []byte("x")})
			is(t, "Create", err, driver.ErrUnavailable)
			e.server.Inject(nil)
			s, err := e.Fresh(t.Context(), name, driver.Secret{})
			if fault.Applied != (err == nil) {
				t.Fatalf("Fresh returned %v", err)
			}
			if !fault.Applied {
				s = e.create("x")
			}
			e.server.Inject(on("write data", 1, fault))
			_, err = e.Update(t.Context(), name, s, driver.Payload{Data: []byte("y")})
			is(t, "Update", err, driver.ErrUnavailable)
			e.server.Inject(nil)
			if s, err = e.Fresh(t.Context(), name, s); err != nil {
				t.Fatal(err)
			}
			e.server.Inject(on("write data", 1, fault))
			is(t, "Delete", e.Delete(t.Context(), name, s), driver.ErrUnavailable)
		})
	}
}

func TestUpdateEntryNotWritten(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	s := e.create("x")
	e.server.Inject(on("write metadata", 1, fakevault.Fault{Status: 403, Errors: []string{"permission denied"}}))
	_, err := e.Update(t.Context(), name, s, driver.Payload{Data: []byte("y"), Labels: []driver.Label{label("user", 'a', 'n')}})
	is(t, "Update", err, driver.ErrDenied)
	e.holds(s)
}

func TestUpdateEntryNotRemoved(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	old, fresh := label("access", 'a', 'n'), label("access", 'b', 'm')
	s := e.create("x", old)
	e.server.Inject(func(q *fakevault.Request) *fakevault.Fault {
		if q.Operation == "delete" {
			return &fakevault.Fault{Status: 403, Errors: []string{"permission denied"}}
		}
		return nil
	})
	s = e.update(s, "y", fresh)
	e.holds(s)
	// Update succeeds even if ctx is canceled after the commit.
	ctx, cancel := context.WithCancel(t.Context())
	e.server.Inject(func(q *fakevault.Request) *fakevault.Fault {
		if q.Operation == "delete" {
			cancel()
			return &fakevault.Fault{Hold: make(chan struct{})}
		}
		return nil
	})
	v, err := e.Update(ctx, name, s, driver.Payload{Data: []byte("z"), Labels: []driver.Label{old}})
	if err != nil {
		t.Fatalf("Update returned %v though it was committed", err)
	}
	e.holds(driver.Secret{Payload: driver.Payload{Data: []byte("z")}, Version: v})
	if err := count(e.Lookup(t.Context(), []driver.Label{old}), 1); err != nil {
		t.Error(err)
	}
}

func TestClientUnchanged(t *testing.T) {
	t.Parallel()
	e := newEnv(t, &vaultstore.Options{Auth: appRole{"r", "s"}})
	e.server.AppRole("", "r", "s", 0, "root")
	e.server.Mount("team", "secret", fakevault.Config{})
	e.server.AppRole("team", "r", "s", 0, "root")
	s := e.create("root namespace")
	e.client.SetNamespace("team")
	e.client.AddHeader("X-Trace", "7")
	_, err := e.Get(t.Context(), name)
	is(t, "Get in another namespace", err, driver.ErrNotFound)
	if q := e.server.Requests()[2]; q.Header.Get("X-Trace") != "7" || q.Namespace != "team/" {
		t.Errorf("the request has headers %v", q.Header)
	}
	e.client.ClearToken()
	e.create("team namespace") // logs in
	if e.client.Token() != "" || e.client.Namespace() != "team" || len(e.client.Headers()) != 3 {
		t.Errorf("the client has token %q, namespace %q and headers %v", e.client.Token(), e.client.Namespace(), e.client.Headers())
	}
	// A token that the caller sets replaces the token of the login.
	e.client.SetToken(fakevault.RootToken)
	e.client.ClearNamespace()
	e.holds(s)
	last := e.server.Requests()[len(e.server.Requests())-1]
	if got := last.Header.Get("X-Vault-Token"); got != fakevault.RootToken {
		t.Errorf("the request has token %q", got)
	}
}

// appRole is a short version of the auth method in
// github.com/hashicorp/vault/api/auth/approle.
type appRole struct{ roleID, secretID string }

func (a appRole) Login(ctx context.Context, client *api.Client) (*api.Secret, error) {
	s, err := client.Logical().WriteWithContext(ctx, "auth/approle/login",
		map[string]any{"role_id": a.roleID, "secret_id": a.secretID})
	if err != nil {
		return nil, fmt.Errorf("unable to log in with app role auth: %w", err)
	}
	client.SetToken("spoilt by the auth method")
	return s, nil
}

func (e *env) logins() (logins, lookups int) {
	return e.server.Count()["write auth"], e.server.Count()["read auth"]
}

// onBoth runs a test on a server with the error texts of Vault, and on a server with the error
// texts of OpenBao.
func onBoth(t *testing.T, test func(t *testing.T, server *fakevault.Options)) {
	t.Helper()
	for _, bao := range []bool{false, true} {
		t.Run(map[bool]string{false: "Vault", true: "OpenBao"}[bao], func(t *testing.T) {
			t.Parallel()
			test(t, &fakevault.Options{OpenBao: bao})
		})
	}
}

func newLoginEnv(t testing.TB, server *fakevault.Options, ttl time.Duration, policies ...string) *env {
	t.Helper()
	e := envOn(t, server, &vaultstore.Options{Auth: appRole{"r", "s"}})
	if err := e.server.Policy("", "app", vaultstore.Policy("secret", app)); err != nil {
		t.Fatal(err)
	}
	e.server.AppRole("", "r", "s", ttl, policies...)
	e.client.ClearToken()
	return e
}

func TestLogin(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, server *fakevault.Options) {
		e := newLoginEnv(t, server, time.Hour, "app")
		s := e.create("x")
		e.holds(s)
		e.server.Advance(2 * time.Hour) // expired
		s = e.update(s, "y")
		e.holds(s)
		if n, _ := e.logins(); n != 2 {
			t.Errorf("%d logins, want 2", n)
		}
		e.client.SetToken("hvs.unknown") // revoked, or never valid
		e.holds(s)
		e.holds(s)
		if n, _ := e.logins(); n != 3 {
			t.Errorf("%d logins, want 3", n)
		}
		e.client.SetToken("hvs.another")
		e.holds(s)
		if n, _ := e.logins(); n != 4 {
			t.Errorf("%d logins, want 4", n)
		}
	})
}

func TestLoginOldVault(t *testing.T) {
	t.Parallel()
	e := newLoginEnv(t, nil, time.Hour, "app")
	e.client.SetToken("hvs.unknown")
	e.server.Inject(func(q *fakevault.Request) *fakevault.Fault {
		if q.Header.Get("X-Vault-Token") == "hvs.unknown" { // as Vault before 1.17 does
			return &fakevault.Fault{Status: 403, Errors: []string{"permission denied"}}
		}
		return nil
	})
	e.holds(e.create("x"))
	if logins, lookups := e.logins(); logins != 1 || lookups != 1 {
		t.Errorf("%d logins and %d lookups, want one each", logins, lookups)
	}
}

func TestLoginPermissionDenied(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, server *fakevault.Options) {
		t.Run("with the policy default", func(t *testing.T) {
			t.Parallel()
			e := newLoginEnv(t, server, time.Hour)
			for range 3 {
				_, err := e.Get(t.Context(), name)
				is(t, "Get", err, driver.ErrDenied)
			}
			if logins, lookups := e.logins(); logins != 1 || lookups != 3 {
				t.Errorf("%d logins and %d lookups, want 1 and 3", logins, lookups)
			}
		})
		t.Run("without it", func(t *testing.T) {
			t.Parallel()
			e := newLoginEnv(t, server, time.Hour, "-default")
			var elapsed atomic.Int64
			vaultstore.SetClock(e.Secrets, func() time.Time { return time.Unix(elapsed.Load(), 0) })
			for range 3 {
				_, err := e.Get(t.Context(), name)
				is(t, "Get", err, driver.ErrDenied)
			}
			if logins, _ := e.logins(); logins != 1 {
				t.Errorf("%d logins, want 1", logins)
			}
			elapsed.Add(3600)
			_, err := e.Get(t.Context(), name)
			is(t, "Get", err, driver.ErrDenied)
			if logins, _ := e.logins(); logins != 2 {
				t.Errorf("%d logins after the token has expired, want 2", logins)
			}
		})
		t.Run("without an auth method", func(t *testing.T) {
			t.Parallel()
			e := newEnv(t, nil)
			e.client.SetToken("hvs.unknown")
			_, err := e.Get(t.Context(), name)
			is(t, "Get", err, driver.ErrDenied)
			if n := len(e.server.Requests()); n != 1 {
				t.Errorf("%d requests, want 1", n)
			}
		})
	})
}

func TestManyCallsLogInOnce(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, server *fakevault.Options) {
		e := newLoginEnv(t, server, time.Hour, "app")
		s := e.create("x")
		e.server.Advance(2 * time.Hour)
		e.server.Reset()
		var calls sync.WaitGroup
		for range 20 {
			calls.Go(func() { e.holds(s) })
		}
		calls.Wait()
		if n, _ := e.logins(); n != 1 {
			t.Errorf("%d logins, want 1", n)
		}
	})
}

func TestLoginRefused(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, server *fakevault.Options) {
		e := newLoginEnv(t, server, time.Hour, "app")
		var elapsed atomic.Int64
		vaultstore.SetClock(e.Secrets, func() time.Time { return time.Unix(0, elapsed.Load()) })
		e.server.AppRole("", "r", "changed", time.Hour, "app")
		var calls sync.WaitGroup
		for range 10 {
			calls.Go(func() {
				_, err := e.Get(t.Context(), name)
				is(t, "Get", err, driver.ErrDenied)
			})
		}
		calls.Wait()
		if n, _ := e.logins(); n != 1 {
			t.Errorf("%d logins, want 1", n)
		}
		e.server.AppRole("", "r", "s", time.Hour, "app")
		elapsed.Add(int64(vaultstore.LoginPause))
		e.create("x")
		if n, _ := e.logins(); n != 2 {
			t.Errorf("%d logins, want 2", n)
		}
	})
}

func TestLoginRetry(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, server *fakevault.Options) {
		e := newLoginEnv(t, server, time.Hour, "app")
		e.client.SetMaxRetries(0)
		e.server.Inject(on("write auth", 1, fakevault.Fault{Status: 503, Errors: []string{"Vault is sealed"}}))
		_, err := e.Get(t.Context(), name)
		is(t, "Get", err, driver.ErrUnavailable)
		e.create("x")

		// If a login ends because the context of its caller is done, the callers that wait for
		// the login do not fail.
		e.server.Advance(2 * time.Hour)
		ctx, cancel := context.WithCancel(t.Context())
		waiting := make(chan struct{})
		e.server.Inject(func(q *fakevault.Request) *fakevault.Fault {
			if q.Class == "auth" && ctx.Err() == nil {
				close(waiting)
				return &fakevault.Fault{Wait: make(chan struct{})}
			}
			return nil
		})
		var calls sync.WaitGroup
		calls.Go(func() {
			_, err := e.Get(ctx, name)
			is(t, "Get", err, context.Canceled)
		})
		<-waiting
		calls.Go(func() {
			_, err := e.Get(t.Context(), name)
			is(t, "Get", err, nil)
		})
		cancel()
		calls.Wait()
	})
}

func TestReadForwarding(t *testing.T) {
	t.Parallel()
	user := label("user", 'a', 'n')
	for _, c := range []struct {
		opts             vaultstore.Options
		get, fresh, list bool
	}{
		{vaultstore.Options{}, false, false, false},
		{vaultstore.Options{ReadLag: time.Second}, false, true, true},
		{vaultstore.Options{ListLag: time.Second}, true, true, false},
		{vaultstore.Options{ReadLag: time.Second, ListLag: time.Second}, false, true, false},
	} {
		e := envOn(t, &fakevault.Options{Forward: fakevault.ForwardDone}, &c.opts)
		s := e.create("x", user)
		forwarded := func(what string, want bool, f func() error) {
			t.Helper()
			e.server.Reset()
			if err := f(); err != nil {
				t.Error(err)
			}
			for _, q := range e.server.Requests() {
				if got := q.Header.Get("X-Vault-Forward") == "active-node"; got != (want && q.Operation != "write") {
					t.Errorf("with %+v, %s: %s %s is forwarded: %v, want %v", c.opts, what, q.Operation, q.Path, got, want)
				}
			}
		}
		forwarded("Get", c.get, func() error { _, err := e.Get(t.Context(), name); return err })
		forwarded("Fresh", c.fresh, func() error { _, err := e.Fresh(t.Context(), name, s); return err })
		forwarded("Lookup", c.list, func() error { return count(e.Lookup(t.Context(), []driver.Label{user}), 1) })
		forwarded("List", c.list, func() error { return count(e.List(t.Context()), 1) })
		forwarded("Create", c.fresh, func() error {
			_, err := e.Create(t.Context(), name, driver.Payload{Data: []byte("y")})
			is(t, "Create", err, driver.ErrExists)
			return nil
		})
	}
}

func TestFreshForwardingRefused(t *testing.T) {
	t.Parallel()
	e := newEnv(t, &vaultstore.Options{ReadLag: time.Second})
	s := e.create("x")
	for _, want := range []int{2, 1} { // the second Fresh does not request forwarding
		e.server.Reset()
		if _, err := e.Fresh(t.Context(), name, s); err != nil {
			t.Error(err)
		}
		if n := len(e.server.Requests()); n != want {
			t.Errorf("%d requests, want %d", n, want)
		}
	}
}

func TestFreshWaitsForANodeThatIsBehind(t *testing.T) {
	t.Parallel()
	var reads atomic.Int64
	e := envOn(t, &fakevault.Options{Lag: time.Minute, Forward: fakevault.ForwardIgnored}, &vaultstore.Options{ReadLag: time.Minute})
	e.server.Inject(func(q *fakevault.Request) *fakevault.Fault {
		if q.Operation == "read" && reads.Add(1)%3 == 0 {
			e.server.Advance(time.Minute)
		}
		return nil
	})
	s := e.create("first")
	for i := range 2 {
		if got, err := e.Fresh(t.Context(), name, s); err != nil || got.Version != s.Version {
			t.Fatalf("Fresh returned %q, %v; want %q", got.Version, err, s.Version)
		}
		s = e.update(s, fmt.Sprint(i))
	}
	if n := reads.Load(); n != 6 {
		t.Errorf("%d reads, want 6", n)
	}

	// Fresh fails if the node does not catch up within ten seconds.
	var elapsed atomic.Int64
	vaultstore.SetClock(e.Secrets, func() time.Time { return time.Unix(elapsed.Add(4), 0) })
	e.server.Inject(nil)
	_, err := e.Fresh(t.Context(), name, s)
	is(t, "Fresh", err, driver.ErrUnavailable)
	ctx, cancel := context.WithCancel(t.Context())
	e.server.Inject(func(*fakevault.Request) *fakevault.Fault { cancel(); return &fakevault.Fault{} })
	_, err = e.Fresh(ctx, name, s)
	is(t, "Fresh", err, context.Canceled)
}

func TestReadsRunSixteenAtATime(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	e.many(40)
	labels := make([]driver.Label, 24)
	for i := range labels {
		labels[i] = label("user", byte('a'+i), 'n')
	}
	gate := func(what string) {
		var under atomic.Int64
		full := make(chan struct{})
		e.server.Inject(func(q *fakevault.Request) *fakevault.Fault {
			if q.Operation+" "+q.Class != what {
				return nil
			}
			if under.Add(1) == 16 {
				close(full)
			}
			return &fakevault.Fault{Wait: full}
		})
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	gate("read data")
	if err := count(e.List(ctx), 40); err != nil {
		t.Error(err)
	}
	gate("write metadata")
	if _, err := e.Create(ctx, name, driver.Payload{Data: []byte("x"), Labels: labels}); err != nil {
		t.Error(err)
	}
	gate("list metadata")
	if err := count(e.Lookup(ctx, labels), 1); err != nil {
		t.Error(err)
	}
}

func TestIteratorBreak(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	e.many(100)
	e.server.Reset()
	for _, err := range e.List(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		break
	}
	if err := count(e.Names(t.Context()), 100); err != nil {
		t.Error(err)
	}
	for range e.Names(t.Context()) {
		break
	}
	if n := e.server.Count()["read data"]; n > 40 {
		t.Errorf("a List that was left after the first secret has read %d", n)
	}
	seq := e.List(t.Context()) // a second loop over an iterator lists again
	for range 2 {
		if err := count(seq, 100); err != nil {
			t.Error(err)
		}
	}
}

func TestCallContextCanceled(t *testing.T) {
	t.Parallel()
	user := label("user", 'a', 'n')
	for what, call := range map[string]func(e *env, ctx context.Context, s driver.Secret) error{
		"Get":   func(e *env, ctx context.Context, _ driver.Secret) error { _, err := e.Get(ctx, name); return err },
		"Fresh": func(e *env, ctx context.Context, s driver.Secret) error { _, err := e.Fresh(ctx, name, s); return err },
		"Create": func(e *env, ctx context.Context, _ driver.Secret) error {
			_, err := e.Create(ctx, "other", driver.Payload{Data: []byte("y"), Labels: []driver.Label{user}})
			return err
		},
		"Update": func(e *env, ctx context.Context, s driver.Secret) error {
			_, err := e.Update(ctx, name, s, driver.Payload{Data: []byte("y"), Labels: []driver.Label{user}})
			return err
		},
		"Delete": func(e *env, ctx context.Context, s driver.Secret) error { return e.Delete(ctx, name, s) },
		"Lookup": func(e *env, ctx context.Context, _ driver.Secret) error {
			return count(e.Lookup(ctx, []driver.Label{user}), 0)
		},
		"List":  func(e *env, ctx context.Context, _ driver.Secret) error { return count(e.List(ctx), 0) },
		"Names": func(e *env, ctx context.Context, _ driver.Secret) error { return count(e.Names(ctx), 0) },
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t, nil)
			s := e.create("x")
			e.server.Reset()
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			is(t, what, call(e, ctx, s), context.Canceled)
			if n := len(e.server.Requests()); n != 0 {
				t.Errorf("%d requests with a context that was done", n)
			}
			// The context ends while the server processes the request.
			ctx, cancel = context.WithCancel(t.Context())
			defer cancel()
			e.server.Inject(func(*fakevault.Request) *fakevault.Fault {
				cancel()
				return &fakevault.Fault{Hold: make(chan struct{})}
			})
			is(t, what, call(e, ctx, s), context.Canceled)
			// The context ends while the client waits before a retry.
			e.client.SetMinRetryWait(time.Hour)
			e.client.SetMaxRetryWait(2 * time.Hour)
			ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			e.server.Inject(func(*fakevault.Request) *fakevault.Fault { return &fakevault.Fault{Status: 500} })
			is(t, what, call(e, ctx, s), context.DeadlineExceeded)
		})
	}
}

func TestClientTimeout(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	e.client.SetClientTimeout(20 * time.Millisecond)
	e.server.Inject(func(*fakevault.Request) *fakevault.Fault { return &fakevault.Fault{Hold: make(chan struct{})} })
	_, err := e.Get(t.Context(), name)
	is(t, "Get", err, driver.ErrUnavailable)
}

func TestNoErrorAndNoPathHoldsAPayload(t *testing.T) {
	t.Parallel()
	const canary = "1000.canary.a7f3c9e1b5"
	for _, data := range []string{`{"refresh_token":"` + canary + `"}`, "\xff" + canary} {
		for what, fault := range map[string]func(q *fakevault.Request) *fakevault.Fault{
			"the request as an error": func(q *fakevault.Request) *fakevault.Fault {
				return &fakevault.Fault{Status: 400, Errors: []string{"bad: " + string(q.Body)}}
			},
			"the request as a page": func(q *fakevault.Request) *fakevault.Fault {
				return &fakevault.Fault{Status: 502, Body: "<pre>" + string(q.Body)}
			},
			"the request as an answer": func(q *fakevault.Request) *fakevault.Fault {
				return &fakevault.Fault{Status: 200, Body: string(q.Body) + "!"}
			},
			"a secret that is no answer": func(*fakevault.Request) *fakevault.Fault {
				return &fakevault.Fault{Status: 200, Body: `{"data":{"data":{"record":"` + canary + `"`}
			},
			"a secret of another form": func(*fakevault.Request) *fakevault.Fault {
				return &fakevault.Fault{Status: 200, Body: `{"data":{"data":{"record":["` + canary + `"]},"metadata":{"version":1}}}`}
			},
			"a secret of another engine": func(*fakevault.Request) *fakevault.Fault {
				return &fakevault.Fault{Status: 200, Body: `{"data":{"data":{"record":"` + canary + `"}}}`}
			},
		} {
			e := newEnv(t, nil)
			e.client.SetMaxRetries(0)
			s := e.create(data, label("user", 'a', 'n'))
			e.server.Inject(fault)
			_, get := e.Get(t.Context(), name)
			_, update := e.Update(t.Context(), name, s, driver.Payload{Data: []byte(data)})
			_, create := e.Create(t.Context(), name, driver.Payload{Data: []byte(data)})
			remove := e.Delete(t.Context(), name, s)
			list := count(e.List(t.Context()), 0)
			for _, err := range []error{get, update, create, remove, list} {
				encoded := base64.StdEncoding.EncodeToString([]byte(data))
				for text := fmt.Sprintf("%v %+v %#v", err, err, err); err != nil; err = errors.Unwrap(err) {
					if strings.Contains(text+err.Error(), canary) || strings.Contains(text+err.Error(), encoded[:16]) {
						t.Errorf("%s: the error shows the payload: %v", what, err)
					}
				}
			}
			for _, q := range e.server.Requests() {
				header := fmt.Sprint(q.Header)
				if strings.Contains(q.Path+q.Query.Encode()+header, canary) || q.Class != "data" && bytes.Contains(q.Body, []byte(canary)) {
					t.Errorf("%s %s shows the payload", q.Method, q.Path)
				}
			}
		}
	}
}

// TestPolicyMinimal checks that the capabilities in Policy suffice, and that a call fails if one of
// these capabilities is missing.
func TestPolicyMinimal(t *testing.T) {
	t.Parallel()
	full := vaultstore.Policy("secret", app)
	var lines []int
	for i, line := range strings.Split(full, "\n") {
		if strings.Contains(line, "capabilities") {
			lines = append(lines, i)
		}
	}
	n := 0
	for _, i := range lines {
		split := strings.Split(full, "\n")
		var capabilities []string
		if err := json.Unmarshal([]byte(split[i][strings.Index(split[i], "["):]), &capabilities); err != nil {
			t.Fatal(err)
		}
		for _, c := range capabilities {
			n++
			less := slices.DeleteFunc(slices.Clone(capabilities), func(s string) bool { return s == c })
			text, err := json.Marshal(append(less, "sudo"))
			if err != nil {
				t.Fatal(err)
			}
			changed := slices.Clone(split)
			changed[i] = "  capabilities = " + string(text)
			path := changed[i-1]
			t.Run(fmt.Sprintf("%s of %s", c, path), func(t *testing.T) {
				t.Parallel()
				if err := exercise(t, strings.Join(changed, "\n")); !errors.Is(err, driver.ErrDenied) {
					t.Errorf("without %q of %s everything works: %v", c, path, err)
				}
			})
		}
	}
	if n != 10 {
		t.Errorf("the policy has %d capabilities", n)
	}
	if err := exercise(t, full); err != nil {
		t.Errorf("the policy does not suffice: %v", err)
	}
}

func TestPolicyDocumented(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	paths := func(text string) []string {
		var found []string
		for _, m := range regexp.MustCompile(`path "([^"]*)"\s*\{\s*capabilities = (\[[^]]*\])\s*\}`).FindAllStringSubmatch(text, -1) {
			found = append(found, m[1]+" "+m[2])
		}
		return found
	}
	if got, want := paths(string(doc)), paths(vaultstore.Policy("secret", "oauth/crm")); !slices.Equal(got, want) || len(got) == 0 {
		t.Errorf("the documentation shows\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// exercise makes all calls of a driver with a token that has the given policy. exercise returns
// the first error, and also an error if Update could not remove an index entry.
func exercise(t *testing.T, policy string) error {
	t.Helper()
	e := newEnv(t, nil)
	if err := e.server.Policy("", "p", policy); err != nil {
		t.Fatal(err)
	}
	e.client.SetToken(e.server.Token("", 0, "p"))
	ctx := t.Context()
	user, access := label("user", 'a', 'n'), label("access", 'b', 'n')
	s := driver.Secret{Payload: driver.Payload{Data: []byte("0"), Labels: []driver.Label{access, user}}}
	var err error
	if s.Version, err = e.Create(ctx, name, s.Payload); err != nil {
		return err
	}
	if _, err := e.Create(ctx, name, s.Payload); err != nil && !errors.Is(err, driver.ErrExists) {
		return err // the second Create needs the capability update to write the index entries again
	}
	for i := range 40 {
		p := driver.Payload{Data: fmt.Append(nil, i), Labels: []driver.Label{user}}
		if s.Version, err = e.Update(ctx, name, s, p); err != nil {
			return err
		}
		s.Payload = p
	}
	if n := e.server.Count()["delete metadata"]; n != 1 {
		t.Fatalf("%d clean-ups", n)
	}
	if status, _ := e.vault("LIST", "metadata/"+app+"/index/access/"+access.Value, ""); status == http.StatusOK {
		return fmt.Errorf("%w: the clean-up", driver.ErrDenied)
	}
	if _, err := e.Get(ctx, name); err != nil {
		return err
	}
	if err := count(e.Lookup(ctx, []driver.Label{user}), 1); err != nil {
		return err
	}
	if err := count(e.List(ctx), 1); err != nil {
		return err
	}
	return e.Delete(ctx, name, s)
}

func TestWrapTTLEnvironment(t *testing.T) {
	t.Setenv("VAULT_WRAP_TTL", "5m")
	e := newEnv(t, nil)
	e.holds(e.create("x"))
	for _, q := range e.server.Requests() {
		if q.Header.Get("X-Vault-Wrap-TTL") != "" {
			t.Errorf("%s %s asks for a wrapped answer", q.Method, q.Path)
		}
	}
}
