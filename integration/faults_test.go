package integration

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/hashicorp/vault/api"

	"github.com/tokenkeep/tokenkeep/k8sstore"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/vaultstore"
)

// faultUsers is the number of records in the tests of faults.
const faultUsers = 6

// A victim is a store whose server or connections break. The writes of each record are numbered
// from 1.
type victim struct {
	store tokenstore.TokenStore
	cold  func(t *testing.T) tokenstore.TokenStore // opens an independent store on the same records
	last  [faultUsers]int                          // the last write that was acknowledged
	tried [faultUsers]int                          // the last attempted write
}

func newVictim(t *testing.T, s tokenstore.TokenStore, cold func(t *testing.T) tokenstore.TokenStore) *victim {
	t.Helper()
	v := &victim{store: s, cold: cold}
	for i := range faultUsers {
		if err := v.save(t.Context(), i, mustSucceed); err != nil {
			t.Fatal(err)
		}
	}
	return v
}

func faultUser(i int) string { return fmt.Sprintf("user-%d@example.com", i) }

// Limits of a save. The limit for a save that must succeed is generous, because the machine is
// busy.
const (
	mustSucceed = time.Minute
	mayFail     = 15 * time.Second
)

// save writes the next state of record i, within limit.
func (v *victim) save(ctx context.Context, i int, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	v.tried[i]++
	_, err := v.store.SaveToken(ctx, tokenstore.Token{
		UserName: faultUser(i), ClientID: "client", RefreshToken: tokenstore.Secret("refresh-" + faultUser(i)),
		AccessToken: tokenstore.Secret(fmt.Sprintf("access-%d", v.tried[i])),
	})
	if err == nil {
		v.last[i] = v.tried[i]
	}
	return err
}

// suffer saves all records concurrently during a fault, each within limit, and returns the
// number of failed saves. suffer checks that saves fail only with the documented errors, and that
// no error contains a token.
func (v *victim) suffer(t *testing.T, limit time.Duration) (failed int) {
	t.Helper()
	var (
		errs [faultUsers]error
		wg   sync.WaitGroup
	)
	for i := range faultUsers {
		wg.Go(func() { errs[i] = v.save(t.Context(), i, limit) })
	}
	wg.Wait()
	for _, err := range errs {
		if err == nil {
			continue
		}
		failed++
		if !errors.Is(err, tokenstore.ErrUnavailable) && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("save: %v, want ErrUnavailable", err)
		}
		if text := err.Error(); strings.Contains(text, "access-") || strings.Contains(text, "refresh-") {
			t.Errorf("the error of a save holds a token")
		}
	}
	return failed
}

// intact checks that each record exists once, and that saves succeed again. The state of a
// record must not be older than the last acknowledged write, nor newer than the last
// attempted write.
func (v *victim) intact(t *testing.T) {
	t.Helper()
	v.check(t)
	for i := range faultUsers {
		if err := v.save(t.Context(), i, mustSucceed); err != nil {
			t.Errorf("save after the fault: %v", err)
		}
	}
	v.check(t)
}

func (v *victim) check(t *testing.T) {
	t.Helper()
	records, err := v.cold(t).GetTokens(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(records) != faultUsers {
		t.Fatalf("%d records, want %d", len(records), faultUsers)
	}
	for i := range faultUsers {
		got, err := v.cold(t).FindToken(t.Context(), tokenstore.Token{UserName: faultUser(i), ClientID: "client"})
		if err != nil {
			t.Errorf("find %s: %v", faultUser(i), err)
			continue
		}
		var n int
		if _, err := fmt.Sscanf(string(got.AccessToken), "access-%d", &n); err != nil || n < v.last[i] || n > v.tried[i] {
			t.Errorf("%s has state %d, want %d to %d", faultUser(i), n, v.last[i], v.tried[i])
		}
		if got.RefreshToken != tokenstore.Secret("refresh-"+faultUser(i)) {
			t.Errorf("%s has lost its refresh token", faultUser(i))
		}
		if found, err := v.cold(t).FindToken(t.Context(), tokenstore.Token{ClientID: "client", RefreshToken: got.RefreshToken}); err != nil || found.ID != got.ID {
			t.Errorf("find by the refresh token: %q, %v, want %q", found.ID, err, got.ID)
		}
	}
}

// connect opens a store on v that connects to url.
func (v *Vault) connect(t *testing.T, url, token, prefix string, opts *vaultstore.Options) tokenstore.TokenStore {
	t.Helper()
	at := *v
	at.Addr = url
	s, err := vaultstore.New(at.Client(t, token), v.Mount, prefix, opts)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// newVaultVictim returns a victim that reaches v through the proxy p.
func newVaultVictim(t *testing.T, v *Vault, p *Proxy) *victim {
	t.Helper()
	prefix := v.Prefix(t)
	token := v.Token(t, vaultstore.Policy(v.Mount, prefix), 0)
	return newVictim(t, v.connect(t, "http://"+p.Addr, token, prefix, nil), func(t *testing.T) tokenstore.TokenStore {
		return v.connect(t, v.Addr, token, prefix, nil)
	})
}

func ownVault(t *testing.T) (*Vault, *Proxy) {
	t.Helper()
	VaultBackend.Count(t)
	v := StartVault(t)
	return v, NewProxy(t, v.Server.Addr)
}

func TestVaultSealed(t *testing.T) {
	t.Parallel()
	v, p := ownVault(t)
	s := newVaultVictim(t, v, p)
	v.Seal(t)
	if failed := s.suffer(t, mayFail); failed != faultUsers {
		t.Errorf("%d saves failed on a sealed server, want %d", failed, faultUsers)
	}
	v.Unseal(t)
	v.waitForKV(t)
	s.intact(t)
}

// whileSaving calls the function restart three times while a store saves records, and checks that
// saves fail only with the documented errors and that the records are intact.
func whileSaving(t *testing.T, s *victim, restart func()) {
	t.Helper()
	for range 3 {
		var (
			stop atomic.Bool
			wg   sync.WaitGroup
			errs []error
		)
		started := make(chan struct{})
		wg.Go(func() {
			for n := 0; !stop.Load(); n++ {
				if err := s.save(t.Context(), n%faultUsers, mayFail); err != nil {
					errs = append(errs, err)
				}
				if n == 2*faultUsers {
					close(started)
				}
			}
		})
		<-started
		restart()
		stop.Store(true)
		wg.Wait()
		for _, err := range errs {
			if !errors.Is(err, tokenstore.ErrUnavailable) && !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("save: %v, want ErrUnavailable", err)
			}
		}
		s.intact(t)
	}
}

func TestVaultKilled(t *testing.T) {
	t.Parallel()
	v, p := ownVault(t)
	s := newVaultVictim(t, v, p)
	whileSaving(t, s, func() {
		v.Kill(t)
		v.Start(t)
		p.Move(t, v.Server.Addr)
	})
}

func TestMySQLKilled(t *testing.T) {
	t.Parallel()
	MySQLBackend.Count(t)
	m := StartMySQL(t)
	p := NewProxy(t, m.Addr)
	s := newMySQLVictim(t, m, p)
	whileSaving(t, s, func() {
		m.Kill(t)
		m.Start(t)
		m.config.Addr = m.Addr
		p.Move(t, m.Addr)
	})
}

func newMySQLVictim(t *testing.T, m *MySQL, p *Proxy) *victim {
	t.Helper()
	config, err := mysql.ParseDSN(m.Database(t))
	if err != nil {
		t.Fatal("the data source name cannot be read")
	}
	open := func(t *testing.T, addr string) tokenstore.TokenStore {
		t.Helper()
		c := config.Clone()
		c.Addr, c.Timeout, c.ReadTimeout = addr, 30*time.Second, 30*time.Second
		s, err := place{Backend: MySQLBackend.Name, DSN: c.FormatDSN()}.open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	return newVictim(t, open(t, p.Addr), func(t *testing.T) tokenstore.TokenStore { return open(t, m.Addr) })
}

// A countingLogin logs in with a role, and counts the logins.
type countingLogin struct {
	role  AppRole
	count atomic.Int64
	last  atomic.Pointer[string]
}

func (l *countingLogin) Login(ctx context.Context, client *api.Client) (*api.Secret, error) {
	l.count.Add(1)
	secret, err := client.Logical().WriteWithContext(ctx, "auth/"+l.role.Mount+"/login",
		map[string]any{"role_id": l.role.RoleID, "secret_id": l.role.SecretID})
	if err == nil {
		l.last.Store(&secret.Auth.ClientToken)
	}
	return secret, err
}

// newLoginVictim returns a victim that logs in with a role. The tokens of the role expire
// after ttl.
func newLoginVictim(t *testing.T, ttl time.Duration) (*Vault, *victim, *countingLogin) {
	t.Helper()
	VaultBackend.Count(t)
	v := SharedVault(t)
	prefix := v.Prefix(t)
	policy := vaultstore.Policy(v.Mount, prefix)
	login := &countingLogin{role: v.AppRole(t, policy, ttl)}
	s := newVictim(t, v.connect(t, v.Addr, "", prefix, &vaultstore.Options{Auth: login}), func(t *testing.T) tokenstore.TokenStore {
		return v.connect(t, v.Addr, v.Token(t, policy, 0), prefix, nil)
	})
	return v, s, login
}

func TestVaultLoginAfterRevocation(t *testing.T) {
	t.Parallel()
	v, s, login := newLoginVictim(t, time.Hour)
	before := login.count.Load()
	v.Revoke(t, *login.last.Load())
	if failed := s.suffer(t, mustSucceed); failed != 0 {
		t.Errorf("%d saves failed", failed)
	}
	if got := login.count.Load() - before; got != 1 {
		t.Errorf("%d logins, want 1", got)
	}
	s.intact(t)
}

func TestVaultLoginAfterExpiry(t *testing.T) {
	t.Parallel()
	_, s, login := newLoginVictim(t, 2*time.Second)
	before := login.count.Load()
	Eventually(t, func() error {
		if failed := s.suffer(t, mustSucceed); failed != 0 {
			t.Fatalf("%d saves failed", failed)
		}
		if got := login.count.Load() - before; got < 2 {
			return fmt.Errorf("%d logins so far", got)
		}
		return nil
	})
	s.intact(t)
}

func TestVaultTokenRevoked(t *testing.T) {
	t.Parallel()
	VaultBackend.Count(t)
	v := SharedVault(t)
	prefix := v.Prefix(t)
	policy := vaultstore.Policy(v.Mount, prefix)
	token := v.Token(t, policy, 0)
	s := newVictim(t, v.connect(t, v.Addr, token, prefix, nil), func(t *testing.T) tokenstore.TokenStore {
		return v.connect(t, v.Addr, v.Token(t, policy, 0), prefix, nil)
	})
	v.Revoke(t, token)
	for i := range faultUsers {
		if err := s.save(t.Context(), i, mustSucceed); !errors.Is(err, tokenstore.ErrDenied) {
			t.Errorf("save: %v, want ErrDenied", err)
		}
	}
	s.check(t)
	s.store = s.cold(t)
	s.intact(t)
}

func TestVaultRateLimit(t *testing.T) {
	t.Parallel()
	v, p := ownVault(t)
	s := newVaultVictim(t, v, p)
	const quota = "sys/quotas/rate-limit/tests"
	v.write(t, quota, map[string]any{"path": v.Mount + "/", "rate": 1, "interval": "30s"})
	if failed := s.suffer(t, mayFail); failed == 0 {
		t.Error("no save failed")
	}
	if _, err := v.Client(t, v.RootToken).Logical().DeleteWithContext(t.Context(), quota); err != nil {
		t.Fatal(err)
	}
	s.intact(t)
}

// notOwn says why some tests do not run on an external server.
const notOwn = "a proxy does not stand before a server that is not the tests' own"

// breakages are faults of connections. If succeed is set, all saves must succeed during the fault;
// otherwise, at least one save must fail.
var breakages = []struct {
	name       string
	kind       string
	stream     string
	attributes map[string]any
	succeed    bool
}{
	{"slow connections", "latency", "downstream", map[string]any{"latency": 100, "jitter": 50}, true},
	{"connections that are reset", "reset_peer", "downstream", map[string]any{"timeout": 0}, false},
	{"connections that are reset after a while", "reset_peer", "downstream", map[string]any{"timeout": 20}, false},
	{"requests that are cut", "limit_data", "upstream", map[string]any{"bytes": 40}, false},
	{"answers that are cut at once", "limit_data", "downstream", map[string]any{"bytes": 1}, false},
	{"answers that are cut later", "limit_data", "downstream", map[string]any{"bytes": 200}, false},
}

// brokenConnections saves the records of a victim during each of the breakages, and checks the
// records afterwards.
func brokenConnections(t *testing.T, backend *Backend, newServer func(t *testing.T) (upstream string, victim func(t *testing.T, p *Proxy) *victim)) {
	for _, b := range breakages {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			backend.Count(t)
			upstream, victim := newServer(t)
			p := NewProxy(t, upstream)
			s := victim(t, p)
			repair := p.Break(t, b.kind, b.stream, b.attributes)
			limit := mayFail
			if b.succeed {
				limit = mustSucceed
			}
			failed := s.suffer(t, limit)
			repair()
			if b.succeed != (failed == 0) {
				t.Errorf("%d of %d saves failed", failed, faultUsers)
			}
			s.intact(t)
		})
	}
}

func TestVaultBrokenConnections(t *testing.T) {
	t.Parallel()
	brokenConnections(t, VaultBackend, func(t *testing.T) (string, func(*testing.T, *Proxy) *victim) {
		v := SharedVault(t)
		if !v.own() {
			VaultBackend.Cannot(t, notOwn)
		}
		return v.Server.Addr, func(t *testing.T, p *Proxy) *victim { return newVaultVictim(t, v, p) }
	})
}

func TestMySQLBrokenConnections(t *testing.T) {
	t.Parallel()
	brokenConnections(t, MySQLBackend, func(t *testing.T) (string, func(*testing.T, *Proxy) *victim) {
		m := SharedMySQL(t)
		return m.Addr, func(t *testing.T, p *Proxy) *victim { return newMySQLVictim(t, m, p) }
	})
}

func TestSecretsManagerBrokenConnections(t *testing.T) {
	t.Parallel()
	brokenConnections(t, LocalstackBackend, func(t *testing.T) (string, func(*testing.T, *Proxy) *victim) {
		a := SharedAWS(t)
		if !a.own() {
			LocalstackBackend.Cannot(t, notOwn)
		}
		return a.Addr, func(t *testing.T, p *Proxy) *victim {
			prefix := a.Prefix(t)
			open := func(t *testing.T, addr string) tokenstore.TokenStore {
				t.Helper()
				s, err := place{Backend: LocalstackBackend.Name, Addr: "http://" + addr, Prefix: prefix}.open(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				return s
			}
			return newVictim(t, open(t, p.Addr), func(t *testing.T) tokenstore.TokenStore { return open(t, a.Addr) })
		}
	})
}

func newKubernetesVictim(t *testing.T, k *Kubernetes, p *Proxy) *victim {
	t.Helper()
	namespace := k.Namespace(t)
	token := k.Account(t, namespace, k8sstore.Policy(namespace, "tokens"))
	open := func(t *testing.T, url string) tokenstore.TokenStore {
		t.Helper()
		s, err := place{Backend: KubernetesBackend.Name, Addr: url, CA: k.CA, Token: token, Mount: namespace, Prefix: "crm"}.open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	return newVictim(t, open(t, "https://"+p.Addr), func(t *testing.T) tokenstore.TokenStore { return open(t, k.URL()) })
}

func TestKubernetesKilled(t *testing.T) {
	t.Parallel()
	KubernetesBackend.Count(t)
	k := StartKubernetes(t, 5*time.Minute)
	p := NewProxy(t, k.Addr)
	s := newKubernetesVictim(t, k, p)
	whileSaving(t, s, func() {
		k.Kill(t)
		k.Start(t)
		p.Move(t, k.Addr)
	})
}
