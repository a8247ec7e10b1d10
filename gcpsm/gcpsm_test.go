package gcpsm_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	secretmanager "cloud.google.com/go/secretmanager/apiv1"
	"cloud.google.com/go/secretmanager/apiv1/secretmanagerpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tokenkeep/tokenkeep/gcpsm"
	"github.com/tokenkeep/tokenkeep/internal/fakegcp"
	"github.com/tokenkeep/tokenkeep/internal/fakeserver"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

const (
	app  = "crm"
	name = "u4fz2k6q3w7x5c2a"
	path = project + "/secrets/" + app + "-" + name
)

// A clock shows a time that only the test advances.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

type env struct {
	testing.TB
	server *fakegcp.Server
	client *secretmanager.Client
	clock  *clock
	driver.Leaser
}

func newEnv(t testing.TB) *env {
	t.Helper()
	e := &env{TB: t, clock: newClock()}
	e.server = fakegcp.New(&fakegcp.Options{Now: e.clock.Now})
	t.Cleanup(e.server.Close)
	e.client = newClient(t, e.server)
	e.Leaser = e.cold()
	return e
}

// cold returns a new driver for the same secrets, with an empty cache.
func (e *env) cold() driver.Leaser {
	e.Helper()
	d, err := gcpsm.NewDriver(e.client, project, app, nil)
	if err != nil {
		e.Fatal(err)
	}
	return d.(driver.Leaser)
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

// holds checks that a driver with an empty cache reads the state want.
func (e *env) holds(want driver.Secret) {
	e.Helper()
	got, err := e.cold().Get(e.Context(), name)
	if err != nil || !bytes.Equal(got.Data, want.Data) || got.Version != want.Version {
		e.Errorf("Get returns %q at %q and error %v, want %q at %q", got.Data, got.Version, err, want.Data, want.Version)
	}
}

func (e *env) active(want ...int64) {
	e.Helper()
	if got := e.server.Active(path); !slices.Equal(got, want) {
		e.Errorf("the active versions are %v, want %v", got, want)
	}
}

func label(key string, value, nonce byte) driver.Label {
	return driver.Label{Key: key, Value: strings.Repeat(string(value), 32), Nonce: strings.Repeat(string(nonce), 16)}
}

func is(t testing.TB, what string, err, class error) {
	t.Helper()
	if !errors.Is(err, class) {
		t.Errorf("%s: error %v, want %q", what, err, class)
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

func TestConstructorsCheckTheirArguments(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	good := map[string]string{"team": "crm"}
	for what, c := range map[string]struct {
		client         *secretmanager.Client
		parent, prefix string
		opts           *gcpsm.Options
	}{
		"no client":                  {nil, project, app, nil},
		"no parent":                  {e.client, "", app, nil},
		"a project without its kind": {e.client, "crm-prod", app, nil},
		"a secret for a parent":      {e.client, project + "/secrets/x", app, nil},
		"no prefix":                  {e.client, project, "", nil},
		"a prefix with a slash":      {e.client, project, "a/b", nil},
		"a prefix that is too long":  {e.client, project, strings.Repeat("a", 129), nil},
		"replicas in a location":     {e.client, location, app, &gcpsm.Options{Replicas: []gcpsm.Replica{{Location: "europe-west1"}}}},
		"no replicas":                {e.client, project, app, &gcpsm.Options{Replicas: []gcpsm.Replica{}}},
		"a replica nowhere":          {e.client, project, app, &gcpsm.Options{Replicas: []gcpsm.Replica{{}}}},
		"a key for all replicas":     {e.client, project, app, &gcpsm.Options{KMSKey: "k", Replicas: []gcpsm.Replica{{Location: "a"}}}},
		"a key for one replica":      {e.client, project, app, &gcpsm.Options{Replicas: []gcpsm.Replica{{Location: "a", KMSKey: "k"}, {Location: "b"}}}},
		"a label in upper case":      {e.client, project, app, &gcpsm.Options{Labels: map[string]string{"Team": "crm"}}},
		"a label like the index's":   {e.client, project, app, &gcpsm.Options{Labels: map[string]string{"user_" + strings.Repeat("a", 24): "aaaaaaaa"}}},
		"options of the store":       {e.client, project, app, &gcpsm.Options{Store: &tokenstore.Options{NameKey: []byte("short")}}},
	} {
		if s, err := gcpsm.New(c.client, c.parent, c.prefix, c.opts); err == nil || s != nil {
			t.Errorf("%s: New returns %v and error %v", what, s, err)
		}
	}
	if _, err := gcpsm.New(e.client, location, "CRM_prod-1", &gcpsm.Options{KMSKey: "k", Labels: good}); err != nil {
		t.Error(err)
	}
	if n := len(e.server.Requests()); n != 0 {
		t.Errorf("the constructors make %d calls", n)
	}
}

func TestSecretsAreCreatedAsTheOptionsSay(t *testing.T) {
	t.Parallel()
	const key = "projects/k/locations/l/keyRings/r/cryptoKeys/c"
	for what, c := range map[string]struct {
		parent string
		opts   gcpsm.Options
		check  func(m *secretmanagerpb.Secret) bool
	}{
		"nothing": {project, gcpsm.Options{}, func(m *secretmanagerpb.Secret) bool {
			return m.GetReplication().GetAutomatic() != nil && m.GetReplication().GetAutomatic().GetCustomerManagedEncryption() == nil
		}},
		"a key": {project, gcpsm.Options{KMSKey: key}, func(m *secretmanagerpb.Secret) bool {
			return m.GetReplication().GetAutomatic().GetCustomerManagedEncryption().GetKmsKeyName() == key
		}},
		"replicas": {project, gcpsm.Options{Replicas: []gcpsm.Replica{{"europe-west1", key}, {"europe-west4", key}}}, func(m *secretmanagerpb.Secret) bool {
			r := m.GetReplication().GetUserManaged().GetReplicas()
			return len(r) == 2 && r[1].GetLocation() == "europe-west4" && r[1].GetCustomerManagedEncryption().GetKmsKeyName() == key
		}},
		"a key in a location": {location, gcpsm.Options{KMSKey: key}, func(m *secretmanagerpb.Secret) bool {
			return m.GetReplication() == nil && m.GetCustomerManagedEncryption().GetKmsKeyName() == key
		}},
		"labels": {project, gcpsm.Options{Labels: map[string]string{"team": "crm"}}, func(m *secretmanagerpb.Secret) bool {
			return m.GetLabels()["team"] == "crm" && len(m.GetLabels()) == 2
		}},
	} {
		e := newEnv(t)
		d, err := gcpsm.NewDriver(e.client, c.parent, app, &c.opts)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.Create(t.Context(), name, driver.Payload{Data: []byte("x"), Labels: []driver.Label{label("user", 'a', 'n')}}); err != nil {
			t.Errorf("%s: Create: %v", what, err)
		} else if m := e.server.Secret(c.parent + "/secrets/" + app + "-" + name); !c.check(m) {
			t.Errorf("%s: the secret is %v", what, m)
		}
	}
}

func TestRecordLayout(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	s := e.update(e.create("first", label("user", 'a', 'n')), "second", label("user", 'a', 'n'), label("refresh", 'b', 'n'))
	m := e.server.Secret(path)
	wantLabels := map[string]string{
		"user_" + strings.Repeat("a", 24): "aaaaaaaa", "refresh_" + strings.Repeat("b", 24): "bbbbbbbb",
	}
	if !maps.Equal(m.GetLabels(), wantLabels) {
		t.Errorf("the labels are %v", m.GetLabels())
	}
	if !maps.Equal(m.GetVersionAliases(), map[string]int64{"current": 2}) {
		t.Errorf("the aliases are %v", m.GetVersionAliases())
	}
	v, err := e.server.AccessSecretVersion(t.Context(), &secretmanagerpb.AccessSecretVersionRequest{Name: path + "/versions/2"})
	first, data, _ := strings.Cut(string(v.GetPayload().GetData()), "\n")
	life, _, _ := strings.Cut(string(s.Version), ".")
	if err != nil || first != "tokenkeep1 "+life || data != "second" {
		t.Errorf("version 2 holds %q and %q, error %v", first, data, err)
	}
	note := m.GetAnnotations()["tokenkeep"]
	if len(m.GetAnnotations()) != 1 || !strings.Contains(note, `"life":"`+life+`"`) || strings.Contains(note, "second") {
		t.Errorf("the annotations are %v", m.GetAnnotations())
	}
}

func TestWhatAnOperatorHasSetStays(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	s := e.create("first", label("user", 'a', 'n'))
	m := e.server.Secret(path)
	m.Labels["team"], m.Annotations["contact"], m.VersionAliases["audit"] = "crm", "ann", 1
	change(t, e.server, m)
	e.update(s, "second", label("user", 'b', 'n'))
	m = e.server.Secret(path)
	if m.GetLabels()["team"] != "crm" || m.GetAnnotations()["contact"] != "ann" || m.GetVersionAliases()["audit"] != 1 || len(m.GetLabels()) != 2 {
		t.Errorf("the secret is %v", m)
	}
}

// calls parses a list of short names of methods into the number of calls of each method.
func calls(list string) map[string]int {
	n := map[string]int{}
	for m := range strings.FieldsSeq(list) {
		n[map[string]string{
			"access": "AccessSecretVersion", "get": "GetSecret", "add": "AddSecretVersion", "update": "UpdateSecret",
			"create": "CreateSecret", "delete": "DeleteSecret", "destroy": "DestroySecretVersion", "list": "ListSecrets",
			"inspect": "GetSecretVersion",
		}[m]]++
	}
	return n
}

func TestOperationsMakeAsFewCallsAsDocumented(t *testing.T) {
	t.Parallel()
	user, access := label("user", 'a', 'n'), label("access", 'b', 'n')
	for _, c := range []struct {
		name string
		run  func(ctx context.Context, d driver.Leaser, s driver.Secret) error
		hot  string // calls of a driver that has written the secret
		cold string // calls of another driver
	}{
		{"Get", func(ctx context.Context, d driver.Leaser, _ driver.Secret) error {
			_, err := d.Get(ctx, name)
			return err
		}, "access", "access"},
		{"Get of nothing", func(ctx context.Context, d driver.Leaser, _ driver.Secret) error {
			if _, err := d.Get(ctx, "other"); !errors.Is(err, driver.ErrNotFound) {
				return fmt.Errorf("got %w", err)
			}
			return nil
		}, "access", "access"},
		{"Fresh of what is known", func(ctx context.Context, d driver.Leaser, s driver.Secret) error {
			_, err := d.Fresh(ctx, name, s)
			return err
		}, "get", "get"},
		{"Fresh", func(ctx context.Context, d driver.Leaser, _ driver.Secret) error {
			_, err := d.Fresh(ctx, name, driver.Secret{})
			return err
		}, "get access", "get access"},
		{"Create", func(ctx context.Context, d driver.Leaser, _ driver.Secret) error {
			_, err := d.Create(ctx, "other", driver.Payload{Data: []byte("y"), Labels: []driver.Label{user}})
			return err
		}, "create add update", "create add update"},
		{"Create of a live name", func(ctx context.Context, d driver.Leaser, _ driver.Secret) error {
			if _, err := d.Create(ctx, name, driver.Payload{Data: []byte("y")}); !errors.Is(err, driver.ErrExists) {
				return fmt.Errorf("got %w", err)
			}
			return nil
		}, "create get", "create get"},
		{"Update", func(ctx context.Context, d driver.Leaser, s driver.Secret) error {
			_, err := d.Update(ctx, name, s, driver.Payload{Data: []byte("y"), Labels: []driver.Label{user, access}})
			return err
		}, "add update", "get add update"},
		{"Fresh and Note", func(ctx context.Context, d driver.Leaser, s driver.Secret) error {
			base, err := d.Fresh(ctx, name, s)
			if err != nil {
				return err
			}
			return d.Note(ctx, name, base, "lease")
		}, "get update", "get update"},
		{"Delete", func(ctx context.Context, d driver.Leaser, s driver.Secret) error { return d.Delete(ctx, name, s) }, "delete", "get delete"},
		{"Fresh and Delete", func(ctx context.Context, d driver.Leaser, s driver.Secret) error {
			base, err := d.Fresh(ctx, name, s)
			if err != nil {
				return err
			}
			return d.Delete(ctx, name, base)
		}, "get delete", "get delete"},
		{"Lookup by two labels", func(ctx context.Context, d driver.Leaser, _ driver.Secret) error {
			return count(d.Lookup(ctx, []driver.Label{user, access}), 1)
		}, "list access", "list access"},
		{"Lookup that misses", func(ctx context.Context, d driver.Leaser, _ driver.Secret) error {
			return count(d.Lookup(ctx, []driver.Label{access}), 0)
		}, "list", "list"},
		{"List", func(ctx context.Context, d driver.Leaser, _ driver.Secret) error { return count(d.List(ctx), 1) }, "list access", "list access"},
		{"Names", func(ctx context.Context, d driver.Leaser, _ driver.Secret) error { return count(d.Names(ctx), 1) }, "list", "list"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for _, hot := range []bool{true, false} {
				e := newEnv(t)
				s := e.create("x", user)
				d, want := e.Leaser, c.hot
				if !hot {
					d, want = e.cold(), c.cold
				}
				e.server.Reset()
				if err := c.run(t.Context(), d, s); err != nil {
					t.Fatal(err)
				}
				if got := e.server.Count(); !maps.Equal(got, calls(want)) {
					t.Errorf("written by this driver: %v: %v calls, want %s", hot, got, want)
				}
			}
		})
	}
}

func TestStoresMakeAsFewCallsAsDocumented(t *testing.T) {
	t.Parallel()
	for _, n := range []int{10, 10_000} {
		t.Run(fmt.Sprintf("of %d records", n), func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			open := func() *tokenstore.Store {
				s, err := gcpsm.New(e.client, project, app, &tokenstoreOptions)
				if err != nil {
					t.Fatal(err)
				}
				return s
			}
			ann := tokenstore.Token{
				UserName: "ann", ClientID: "c1", ClientSecret: "s", RefreshToken: "r1", AccessToken: "a1",
				ExpiresAt: time.Date(2090, 1, 1, 0, 0, 0, 0, time.UTC),
			}
			saved, err := open().SaveToken(t.Context(), ann)
			if err != nil {
				t.Fatal(err)
			}
			id := func(i int) string { return fmt.Sprintf("%s-u%032d", app, i) }
			err = e.server.Fill(project+"/secrets/"+app+"-"+saved.ID, n-1, id, func(i int) map[string]string {
				return map[string]string{"user_" + strings.Repeat("a", 24): fmt.Sprintf("%08d", i)}
			})
			if err != nil {
				t.Fatal(err)
			}
			ctx := t.Context()
			find := func(like tokenstore.Token) func(s *tokenstore.Store) error {
				return func(s *tokenstore.Store) error { _, err := s.FindToken(ctx, like); return err }
			}
			save := func(t tokenstore.Token) func(s *tokenstore.Store) error {
				return func(s *tokenstore.Store) error { _, err := s.SaveToken(ctx, t); return err }
			}
			// The first search, creation or update by a Store with keys also reads the secret that
			// identifies the keys.
			for _, c := range []struct {
				name string
				run  func(s *tokenstore.Store) error
				want string
			}{
				{"find by ID", func(s *tokenstore.Store) error { _, err := s.FindTokenByID(ctx, saved.ID); return err }, "access"},
				{"find by user and client", find(tokenstore.Token{UserName: "ann", ClientID: "c1"}), "access"},
				{"find by refresh token", find(tokenstore.Token{ClientID: "c1", RefreshToken: "r1"}), "access list access"},
				{"find by user", find(tokenstore.Token{UserName: "ann"}), "access list access"},
				{"find by access token", find(tokenstore.Token{AccessToken: "a1"}), "access list access"},
				{"save of what is stored", save(ann), "access get"},
				{"save of another access token", save(tokenstore.Token{ID: saved.ID, AccessToken: "a2"}), "access access get add update"},
				{"save of another user", save(tokenstore.Token{UserName: "bob", ClientID: "c1", RefreshToken: "r2"}), "access access create add update"},
				{"delete", func(s *tokenstore.Store) error { return s.DeleteToken(ctx, saved.ID) }, "access get delete"},
			} {
				s := open()
				e.server.Reset()
				if err := c.run(s); err != nil {
					t.Fatalf("%s: %v", c.name, err)
				}
				if got := e.server.Count(); !maps.Equal(got, calls(c.want)) {
					t.Errorf("%s: %v calls, want %s", c.name, got, c.want)
				}
			}
		})
	}
}

var tokenstoreOptions = gcpsm.Options{Store: &tokenstore.Options{NameKey: []byte("a key of names, 16 bytes or more")}}

// rounds returns the number of rounds of TestSaveTokenRace: 2, or 200 if TOKENKEEP_FULL is set.
func rounds() int {
	if os.Getenv("TOKENKEEP_FULL") != "" {
		return 200
	}
	return 2
}

func TestSaveTokenRace(t *testing.T) {
	t.Parallel()
	const savers = 50
	for what, opts := range map[string]*fakegcp.Options{"on reads that do not lag": nil, "on reads that lag": lagging(20 * time.Millisecond)} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			b := newBackend(t, project, opts)
			d := b.driver()
			var stores []*tokenstore.Store
			for range savers {
				s, err := tokenstore.New(b.open(t, app), nil)
				if err != nil {
					t.Fatal(err)
				}
				stores = append(stores, s)
			}
			for round := range rounds() {
				user := fmt.Sprintf("user %d", round)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				var wait sync.WaitGroup
				for i, s := range stores {
					wait.Go(func() {
						// Savers with the same i % 5 set the same additional field to the
						// same value.
						saved := tokenstore.Token{UserName: user, ClientID: "c1", RefreshToken: "r"}
						switch i % 5 {
						case 0:
							saved.ClientSecret = "secret"
						case 1:
							saved.AccessToken = "access"
						case 2:
							saved.GrantToken = "grant"
						case 3:
							saved.RedirectURL = "https://crm.example"
						case 4:
							saved.APIDomain = "https://api.example"
						}
						if _, err := s.SaveToken(ctx, saved); err != nil {
							t.Errorf("round %d: SaveToken: %v", round, err)
						}
					})
				}
				wait.Wait()
				cancel()
				d.Settle(t, nil)
				all, err := stores[0].FindToken(t.Context(), tokenstore.Token{UserName: user, ClientID: "c1"})
				if err != nil || all.ClientSecret != "secret" || all.AccessToken != "access" || all.GrantToken != "grant" ||
					all.RedirectURL == "" || all.APIDomain == "" {
					t.Fatalf("round %d: an update was lost: %d, error %v", round, len(all.ClientSecret)+len(all.AccessToken)+len(all.GrantToken), err)
				}
				if n := len(b.server.Names()); n != round+1 {
					t.Fatalf("round %d: there are %d records", round, n)
				}
				// Each write examines at most sixteen versions. After enough writes, only the
				// current version and the previous version are active.
				secret := project + "/secrets/" + app + "-" + all.ID
				versions := len(b.server.Versions(secret))
				writes := versions/16 + 4
				for i := range writes {
					b.server.Advance(3 * time.Hour)
					next := tokenstore.Token{UserName: user, ClientID: "c1", AccessToken: tokenstore.Secret(fmt.Sprintf("access %d", i))}
					if _, err := stores[0].SaveToken(t.Context(), next); err != nil {
						t.Fatal(err)
					}
				}
				if active := b.server.Active(secret); len(active) > 2 {
					t.Errorf("round %d: %d writes after %d versions, versions %v are left", round, writes, versions, active)
				}
			}
		})
	}
}

func TestRefreshVersions(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	store, err := tokenstore.New(e.Leaser, &tokenstore.Options{Now: e.clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	now, err := store.SaveToken(ctx, tokenstore.Token{
		UserName: "ann", ClientID: "c1", RefreshToken: "r", AccessToken: "a", ExpiresAt: e.clock.Now().Add(time.Hour),
	})
	if err != nil {
		t.Fatal(err)
	}
	secret := project + "/secrets/" + app + "-" + now.ID
	const hours = 30 * 24
	e.server.Reset()
	for hour := range hours {
		e.clock.pass(time.Hour)
		mint := func(_ context.Context, t tokenstore.Token) (tokenstore.Token, error) {
			return tokenstore.Token{
				AccessToken: tokenstore.Secret(fmt.Sprintf("a%d", hour)), ExpiresAt: e.clock.Now().Add(time.Hour),
			}, nil
		}
		if now, err = store.Refresh(ctx, now.ID, now.AccessToken, mint); err != nil {
			t.Fatal(err)
		}
		if active := e.server.Active(secret); len(active) > 4 {
			t.Fatalf("after %d hours the versions %v are active", hour+1, active)
		}
	}
	n := e.server.Count()
	t.Logf("%d refreshes: %v, active at the end: %v", hours, n, e.server.Active(secret))
	if n["AddSecretVersion"] != hours || n["UpdateSecret"] != 2*hours {
		t.Errorf("%d refreshes make %v calls; want one version and two updates for each", hours, n)
	}
}

func TestUpdateActiveVersions(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	s := e.create("x0")
	for i := range 300 {
		e.clock.pass(time.Minute)
		s = e.update(s, fmt.Sprint("x", i+1))
	}
	// The versions of the last two hours, and older versions that are still due, are active.
	if n := len(e.server.Active(path)); n > 200 {
		t.Errorf("%d versions are active", n)
	}
	for i := range 20 {
		e.clock.pass(3 * time.Hour)
		s = e.update(s, fmt.Sprint("y", i))
	}
	e.active(320, 321)
	e.holds(s)
}

func TestUpdateDestroysOrphans(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	s := e.create("x")
	e.server.Inject(func(c *fakegcp.Call) *fakegcp.Fault {
		if c.Method == "UpdateSecret" {
			return &fakegcp.Fault{Err: status.Error(codes.Unavailable, "down")}
		}
		return nil
	})
	for range 2 {
		_, err := e.Update(t.Context(), name, s, driver.Payload{Data: []byte("lost")})
		is(t, "Update", err, driver.ErrUnavailable)
	}
	e.server.Inject(nil)
	e.active(1, 2, 3)
	s = e.update(s, "y")
	e.active(1, 2, 3, 4)
	e.clock.pass(time.Hour)
	s = e.update(s, "z")
	e.active(1, 2, 3, 4, 5) // replaced versions stay for two hours, because reads may lag
	e.clock.pass(3 * time.Hour)
	s = e.update(s, "1") // destroys the replaced versions, and requests the etags of the uncommitted versions
	e.active(2, 3, 5, 6)
	s = e.update(s, "2")
	e.active(5, 6, 7)
	e.holds(s)
}

func TestUpdateLostRace(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	base := e.create("x")
	other := e.cold()
	var once atomic.Bool
	var won driver.Version
	e.server.Inject(func(c *fakegcp.Call) *fakegcp.Fault {
		if c.Method == "UpdateSecret" && once.CompareAndSwap(false, true) {
			var err error
			if won, err = other.Update(t.Context(), name, base, driver.Payload{Data: []byte("won")}); err != nil {
				t.Errorf("Update: %v", err)
			}
		}
		return nil
	})
	_, err := e.Update(t.Context(), name, base, driver.Payload{Data: []byte("lost")})
	is(t, "Update", err, driver.ErrConflict)
	e.holds(driver.Secret{Payload: driver.Payload{Data: []byte("won")}, Version: won})
	e.active(1, 3)
}

func TestForeignLabelChange(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	base := e.create("x")
	touch := func() {
		m := e.server.Secret(path)
		m.Labels = map[string]string{"team": "crm"}
		change(t, e.server, m)
	}
	touch()
	s := e.update(base, "y")
	touch()
	s.Note = ""
	if err := e.Note(t.Context(), name, s, "lease"); err != nil {
		t.Errorf("Note: %v", err)
	}
	touch()
	if err := e.Delete(t.Context(), name, s); err != nil {
		t.Errorf("Delete: %v", err)
	}
}

func TestCreateAfterCrash(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"AddSecretVersion", "UpdateSecret"} {
		for _, applied := range []bool{false, method == "AddSecretVersion"} {
			e := newEnv(t)
			e.server.Inject(func(c *fakegcp.Call) *fakegcp.Fault {
				if c.Method == method {
					return &fakegcp.Fault{Err: status.Error(codes.Unavailable, "down"), Applied: applied}
				}
				return nil
			})
			_, err := e.Create(t.Context(), name, driver.Payload{Data: []byte("lost")})
			is(t, "Create", err, driver.ErrUnavailable)
			e.server.Inject(nil)
			other := e.cold()
			_, err = other.Get(t.Context(), name)
			is(t, "Get", err, driver.ErrNotFound)
			_, err = other.Fresh(t.Context(), name, driver.Secret{})
			is(t, "Fresh", err, driver.ErrNotFound)
			v, err := other.Create(t.Context(), name, driver.Payload{Data: []byte("x")})
			if err != nil {
				t.Fatalf("Create after a crash at %s: %v", method, err)
			}
			e.holds(driver.Secret{Payload: driver.Payload{Data: []byte("x")}, Version: v})
		}
	}
}

func TestUpdateAcrossDeletion(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"GetSecret", "AddSecretVersion", "UpdateSecret"} {
		e := newEnv(t)
		old := e.create("old")
		writer := e.cold()
		reached, goOn := make(chan struct{}), make(chan struct{})
		var once atomic.Bool
		e.server.Inject(func(c *fakegcp.Call) *fakegcp.Fault {
			if c.Method == method && once.CompareAndSwap(false, true) {
				close(reached)
				return &fakegcp.Fault{Wait: goOn}
			}
			return nil
		})
		result := make(chan error, 1)
		go func() {
			_, err := writer.Update(t.Context(), name, old, driver.Payload{Data: []byte("late")})
			result <- err
		}()
		<-reached
		if err := e.Delete(t.Context(), name, old); err != nil {
			t.Fatal(err)
		}
		s := e.create("new")
		close(goOn)
		if err := <-result; !errors.Is(err, driver.ErrConflict) && !errors.Is(err, driver.ErrNotFound) {
			t.Errorf("an Update that was about to call %s: error %v", method, err)
		}
		e.holds(s)
	}
}

func TestGetDestroyedVersion(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	s := e.create("x")
	for i := range 4 {
		e.clock.pass(2 * time.Hour)
		s = e.update(s, fmt.Sprint("y", i))
	}
	e.active(4, 5)
	behind := func(metadata bool) {
		e.server.Inject(func(c *fakegcp.Call) *fakegcp.Fault {
			if strings.HasSuffix(c.Resource, "/versions/current") || metadata && c.Method == "GetSecret" {
				return &fakegcp.Fault{Stale: 7 * time.Hour}
			}
			return nil
		})
	}
	behind(false)
	e.holds(s)
	behind(true)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err := e.cold().Get(ctx, name)
	if err == nil || errors.Is(err, driver.ErrNotFound) {
		t.Errorf("Get with metadata that are behind too: error %v", err)
	}
	// The driver of e has written the record, and returns the newest state despite stale reads.
	got, err := e.Get(t.Context(), name)
	if err != nil || got.Version != s.Version {
		t.Errorf("Get returns version %q and error %v, want %q", got.Version, err, s.Version)
	}
}

// TestLostAnswersDoubleNothing checks that an operation succeeds, in the first or the second
// attempt, even though the response to one call is lost. The operation leaves the expected number
// of records. In each run of an operation, the response to a different call is lost.
func TestLostAnswersDoubleNothing(t *testing.T) {
	t.Parallel()
	ann := tokenstore.Token{UserName: "ann", ClientID: "c1", RefreshToken: "r1", AccessToken: "a1"}
	for _, c := range []struct {
		name  string
		first bool // whether a record exists before the operation
		run   func(ctx context.Context, s *tokenstore.Store) error
		left  int
	}{
		{"create", false, func(ctx context.Context, s *tokenstore.Store) error { _, err := s.SaveToken(ctx, ann); return err }, 1},
		{"update", true, func(ctx context.Context, s *tokenstore.Store) error {
			_, err := s.SaveToken(ctx, tokenstore.Token{UserName: "ann", ClientID: "c1", AccessToken: "a2"})
			return err
		}, 1},
		{"refresh", true, func(ctx context.Context, s *tokenstore.Store) error {
			found, err := s.FindToken(ctx, tokenstore.Token{UserName: "ann", ClientID: "c1"})
			if err != nil || found.AccessToken != "a1" {
				return err
			}
			_, err = s.Refresh(ctx, found.ID, "a1", func(context.Context, tokenstore.Token) (tokenstore.Token, error) {
				return tokenstore.Token{AccessToken: "a2", ExpiresAt: time.Date(2090, 1, 1, 0, 0, 0, 0, time.UTC)}, nil
			})
			return err
		}, 1},
		{"find", true, func(ctx context.Context, s *tokenstore.Store) error {
			_, err := s.FindToken(ctx, tokenstore.Token{ClientID: "c1", RefreshToken: "r1"})
			return err
		}, 1},
		{"list", true, func(ctx context.Context, s *tokenstore.Store) error { _, err := s.GetTokens(ctx); return err }, 1},
		{"delete", true, func(ctx context.Context, s *tokenstore.Store) error {
			found, err := s.FindToken(ctx, tokenstore.Token{UserName: "ann", ClientID: "c1"})
			if errors.Is(err, tokenstore.ErrNotFound) {
				return nil
			}
			if err != nil {
				return err
			}
			return s.DeleteToken(ctx, found.ID)
		}, 0},
	} {
		for _, code := range []codes.Code{codes.Unavailable, codes.DeadlineExceeded, codes.Internal} {
			t.Run(c.name+" with "+code.String(), func(t *testing.T) {
				t.Parallel()
				for at := int64(0); ; at++ {
					e := newEnv(t)
					s, err := tokenstore.New(e.Leaser, &tokenstore.Options{LeaseTTL: time.Second})
					if err != nil {
						t.Fatal(err)
					}
					if c.first {
						if _, err := s.SaveToken(t.Context(), ann); err != nil {
							t.Fatal(err)
						}
					}
					var n atomic.Int64
					var method atomic.Value
					e.server.Inject(func(call *fakegcp.Call) *fakegcp.Fault {
						if n.Add(1)-1 != at {
							return nil
						}
						method.Store(call.Method)
						return &fakegcp.Fault{Applied: true, Err: status.Error(code, "lost")}
					})
					cold, err := tokenstore.New(e.cold(), &tokenstore.Options{LeaseTTL: time.Second})
					if err != nil {
						t.Fatal(err)
					}
					if err := c.run(t.Context(), cold); err != nil {
						if !errors.Is(err, tokenstore.ErrUnavailable) && !errors.Is(err, tokenstore.ErrNotPersisted) {
							t.Errorf("call %d, %v, is lost: error %v", at, method.Load(), err)
						}
						if err := c.run(t.Context(), cold); err != nil {
							t.Errorf("call %d, %v, is lost, and the operation repeated: error %v", at, method.Load(), err)
						}
					}
					e.server.Inject(nil)
					if all, err := cold.GetTokens(t.Context()); err != nil || len(all) != c.left {
						t.Errorf("call %d, %v, is lost: %d records are left, error %v", at, method.Load(), len(all), err)
					}
					if n.Load() <= at {
						return
					}
				}
			})
		}
	}
}

func TestThrottledCalls(t *testing.T) {
	t.Parallel()
	for what, call := range map[string]func(ctx context.Context, e *env, s driver.Secret) error{
		"Get":   func(ctx context.Context, e *env, _ driver.Secret) error { _, err := e.Get(ctx, name); return err },
		"Fresh": func(ctx context.Context, e *env, s driver.Secret) error { _, err := e.Fresh(ctx, name, s); return err },
		"Create": func(ctx context.Context, e *env, _ driver.Secret) error {
			_, err := e.Create(ctx, "other", driver.Payload{Data: []byte("y")})
			return err
		},
		"Update": func(ctx context.Context, e *env, s driver.Secret) error {
			_, err := e.Update(ctx, name, s, driver.Payload{Data: []byte("y")})
			return err
		},
		"Note":   func(ctx context.Context, e *env, s driver.Secret) error { return e.Note(ctx, name, s, "lease") },
		"Delete": func(ctx context.Context, e *env, s driver.Secret) error { return e.Delete(ctx, name, s) },
		"Names":  func(ctx context.Context, e *env, _ driver.Secret) error { return count(e.Names(ctx), 1) },
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			s := e.create("x")
			throttle := func(times int64) {
				var n atomic.Int64
				e.server.Inject(func(*fakegcp.Call) *fakegcp.Fault {
					if n.Add(1) > times {
						return nil
					}
					return &fakegcp.Fault{Err: status.Error(codes.ResourceExhausted, "quota exceeded")}
				})
			}
			throttle(1 << 40)
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			e.server.Reset()
			is(t, "all calls throttled", call(ctx, e, s), driver.ErrThrottled)
			if n := len(e.server.Requests()); n < 2 {
				t.Errorf("%d calls while all are throttled", n)
			}
			e.server.Reset()
			is(t, "throttled without retries", call(driver.WithoutRetries(t.Context()), e, s), driver.ErrThrottled)
			if n := len(e.server.Requests()); n != 1 {
				t.Errorf("%d calls without retries, want 1", n)
			}
			throttle(2)
			if err := call(t.Context(), e, s); err != nil {
				t.Errorf("two calls throttled: %v", err)
			}
		})
	}
}

func TestProjectQuota(t *testing.T) {
	t.Parallel()
	clock := newClock()
	server := fakegcp.New(&fakegcp.Options{Now: clock.Now, Quota: fakegcp.Quota{Access: fakeserver.PerMinute(3)}})
	t.Cleanup(server.Close)
	store, err := gcpsm.New(newClient(t, server), project, app, nil)
	if err != nil {
		t.Fatal(err)
	}
	saved, err := store.SaveToken(t.Context(), tokenstore.Token{UserName: "ann", RefreshToken: "r"})
	if err != nil {
		t.Fatal(err)
	}
	clock.pass(time.Minute)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	for err == nil {
		_, err = store.FindTokenByID(ctx, saved.ID)
	}
	is(t, "FindTokenByID", err, tokenstore.ErrThrottled)
	clock.pass(time.Minute)
	if _, err := store.FindTokenByID(t.Context(), saved.ID); err != nil {
		t.Errorf("in the next minute: %v", err)
	}
}

func TestPermissionsAreAllNeeded(t *testing.T) {
	t.Parallel()
	exercise := func(deny ...string) error {
		e := newEnv(t)
		e.server.Deny(append(unneeded(), deny...)...)
		ctx := t.Context()
		s := driver.Secret{}
		var err error
		if s.Version, err = e.Create(ctx, name, driver.Payload{Data: []byte("x")}); err != nil {
			return err
		}
		var failed []error
		e.server.Inject(func(c *fakegcp.Call) *fakegcp.Fault {
			if c.Method == "UpdateSecret" {
				e.server.Inject(nil)
				return &fakegcp.Fault{Err: status.Error(codes.Unavailable, "down")}
			}
			return nil
		})
		_, _ = e.Update(ctx, name, s, driver.Payload{Data: []byte("orphan")})
		for i := range 5 {
			if s.Version, err = e.Update(ctx, name, s, driver.Payload{Data: []byte(fmt.Sprint(i))}); err != nil {
				return err
			}
			e.clock.pass(3 * time.Hour)
		}
		if n := len(e.server.Active(path)); n > 2 {
			failed = append(failed, fmt.Errorf("%w: %d versions are left", driver.ErrDenied, n))
		}
		_, err = e.cold().Fresh(ctx, name, driver.Secret{})
		failed = append(failed, err, count(e.List(ctx), 1), e.Delete(ctx, name, s))
		return errors.Join(failed...)
	}
	if err := exercise(); err != nil {
		t.Errorf("the permissions do not suffice: %v", err)
	}
	for _, p := range gcpsm.Permissions() {
		if err := exercise(p); !errors.Is(err, driver.ErrDenied) {
			t.Errorf("without %s everything works: %v", p, err)
		}
	}
}

func TestPermissionsDocumented(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range gcpsm.Permissions() {
		if !strings.Contains(string(text), p) {
			t.Errorf("doc.go does not show %s", p)
		}
	}
}

func TestAliasMoved(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	first := e.create("x")
	second := e.update(first, "y")
	point(t, e.server, path, 1)
	got, err := e.cold().Get(t.Context(), name)
	if err != nil || string(got.Data) != "x" {
		t.Fatalf("Get returns %q and error %v", got.Data, err)
	}
	_, err = e.cold().Update(t.Context(), name, second, driver.Payload{Data: []byte("z")})
	is(t, "Update of what was rolled back", err, driver.ErrConflict)
	v, err := e.cold().Update(t.Context(), name, got, driver.Payload{Data: []byte("z")})
	if err != nil {
		t.Fatalf("Update of what was rolled back to: %v", err)
	}
	e.holds(driver.Secret{Payload: driver.Payload{Data: []byte("z")}, Version: v})
}

func TestGetDamagedPayload(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	wrong := int64(1)
	_, err := e.server.CreateSecret(t.Context(), &secretmanagerpb.CreateSecretRequest{
		Parent: project, SecretId: "x", Secret: &secretmanagerpb.Secret{Replication: &secretmanagerpb.Replication{
			Replication: &secretmanagerpb.Replication_Automatic_{Automatic: &secretmanagerpb.Replication_Automatic{}},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = e.server.AddSecretVersion(t.Context(), &secretmanagerpb.AddSecretVersionRequest{
		Parent: project + "/secrets/x", Payload: &secretmanagerpb.SecretPayload{Data: []byte("x"), DataCrc32C: &wrong},
	})
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("a version with a wrong checksum is added: %v", err)
	}
	e.create("secret payload")
	e.server.Inject(func(c *fakegcp.Call) *fakegcp.Fault {
		if c.Method != "AccessSecretVersion" {
			return nil
		}
		return &fakegcp.Fault{Damage: true}
	})
	_, err = e.Get(t.Context(), name)
	is(t, "Get", err, driver.ErrUnavailable)
	if strings.Contains(fmt.Sprint(err), "ecret payload") {
		t.Errorf("the error shows the payload: %v", err)
	}
}

// TestUpdateAfterRollback checks that a writer with stale metadata does not destroy a version that
// a rollback made the state again. The writer destroys replaced versions only after a successful
// commit, and its commit fails.
func TestUpdateAfterRollback(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	s := e.create("y1")
	for i := range 3 {
		e.clock.pass(70 * time.Minute)
		s = e.update(s, fmt.Sprint("y", i+2))
	}
	e.clock.pass(70 * time.Minute)
	point(t, e.server, path, 2)
	if _, err := e.Update(t.Context(), name, s, driver.Payload{Data: []byte("z")}); !errors.Is(err, driver.ErrConflict) {
		t.Errorf("Update of the state before the roll-back: %v", err)
	}
	if got, err := e.cold().Get(t.Context(), name); err != nil || string(got.Data) != "y2" {
		t.Errorf("after the roll-back Get returns %q and error %v", got.Data, err)
	}
}
