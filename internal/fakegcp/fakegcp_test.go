package fakegcp_test

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	secretmanager "cloud.google.com/go/secretmanager/apiv1"
	"cloud.google.com/go/secretmanager/apiv1/secretmanagerpb"
	"github.com/googleapis/gax-go/v2/apierror"
	"google.golang.org/api/iterator"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/tokenkeep/tokenkeep/internal/fakegcp"
	"github.com/tokenkeep/tokenkeep/internal/fakeserver"
)

const project = "projects/p"

// A service is a server and a client of the server. By default, only Advance moves the clock of
// the server.
type service struct {
	testing.TB
	server *fakegcp.Server
	*secretmanager.Client
}

func newService(t testing.TB, opts fakegcp.Options) *service {
	t.Helper()
	if opts.Now == nil {
		opts.Now = func() time.Time { return time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC) }
	}
	s := &service{TB: t, server: fakegcp.New(&opts)}
	t.Cleanup(s.server.Close)
	client, err := secretmanager.NewClient(t.Context(), s.server.ClientOptions()...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	s.Client = client
	return s
}

func (s *service) create(id string, labels map[string]string) *secretmanagerpb.Secret {
	s.Helper()
	m, err := s.CreateSecret(s.Context(), &secretmanagerpb.CreateSecretRequest{
		Parent: project, SecretId: id, Secret: &secretmanagerpb.Secret{Labels: labels, Replication: automatic},
	})
	if err != nil {
		s.Fatal(err)
	}
	return m
}

var automatic = &secretmanagerpb.Replication{
	Replication: &secretmanagerpb.Replication_Automatic_{Automatic: &secretmanagerpb.Replication_Automatic{}},
}

func (s *service) add(id, data string) *secretmanagerpb.SecretVersion {
	s.Helper()
	v, err := s.AddSecretVersion(s.Context(), &secretmanagerpb.AddSecretVersionRequest{
		Parent: project + "/secrets/" + id, Payload: &secretmanagerpb.SecretPayload{Data: []byte(data)},
	})
	if err != nil {
		s.Fatal(err)
	}
	return v
}

// update changes the labels, annotations and aliases of a secret.
func (s *service) update(m *secretmanagerpb.Secret) (*secretmanagerpb.Secret, error) {
	return s.UpdateSecret(s.Context(), &secretmanagerpb.UpdateSecretRequest{
		Secret: m, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"labels", "annotations", "version_aliases"}},
	})
}

func (s *service) access(id, version string) (string, error) {
	r, err := s.AccessSecretVersion(s.Context(), &secretmanagerpb.AccessSecretVersionRequest{Name: project + "/secrets/" + id + "/versions/" + version})
	return string(r.GetPayload().GetData()), err
}

// is checks that the code of err is the code want.
func is(t testing.TB, what string, err error, want codes.Code) {
	t.Helper()
	if got := status.Code(err); got != want {
		t.Errorf("%s: %v (%v), want %v", what, got, err, want)
	}
}

func TestWhatIsNotLegalIsRefused(t *testing.T) {
	t.Parallel()
	s := newService(t, fakegcp.Options{})
	create := func(parent, id string, m *secretmanagerpb.Secret) error {
		_, err := s.CreateSecret(t.Context(), &secretmanagerpb.CreateSecretRequest{Parent: parent, SecretId: id, Secret: m})
		return err
	}
	with := func(f func(m *secretmanagerpb.Secret)) *secretmanagerpb.Secret {
		m := &secretmanagerpb.Secret{Replication: automatic, Labels: map[string]string{}, Annotations: map[string]string{}}
		f(m)
		return m
	}
	plain := with(func(*secretmanagerpb.Secret) {})
	many := map[string]string{}
	for i := range 65 {
		many[fmt.Sprint("k", i)] = ""
	}
	for what, err := range map[string]error{
		"an ID with a dot":           create(project, "a.b", plain),
		"an ID that is too long":     create(project, strings.Repeat("a", 256), plain),
		"a parent that is none":      create("p", "a", plain),
		"no replication":             create(project, "a", &secretmanagerpb.Secret{}),
		"replication in a location":  create(project+"/locations/l", "a", plain),
		"a label key in upper case":  create(project, "a", with(func(m *secretmanagerpb.Secret) { m.Labels["A"] = "" })),
		"a label key of 64":          create(project, "a", with(func(m *secretmanagerpb.Secret) { m.Labels[strings.Repeat("a", 64)] = "" })),
		"a label value of 64":        create(project, "a", with(func(m *secretmanagerpb.Secret) { m.Labels["a"] = strings.Repeat("a", 64) })),
		"65 labels":                  create(project, "a", with(func(m *secretmanagerpb.Secret) { m.Labels = many })),
		"an annotation key":          create(project, "a", with(func(m *secretmanagerpb.Secret) { m.Annotations["-a"] = "" })),
		"16 KiB of annotations":      create(project, "a", with(func(m *secretmanagerpb.Secret) { m.Annotations["a"] = strings.Repeat("a", 16<<10-1) })),
		"an alias without a version": create(project, "a", with(func(m *secretmanagerpb.Secret) { m.VersionAliases = map[string]int64{"current": 1} })),
	} {
		is(t, what, err, codes.InvalidArgument)
	}
	is(t, "a secret", create(project, "a", plain), codes.OK)
	is(t, "a secret that exists", create(project, "a", plain), codes.AlreadyExists)
	is(t, "a regional secret", create(project+"/locations/l", "a", &secretmanagerpb.Secret{}), codes.OK)
	m := s.server.Secret(project + "/secrets/a")
	s.add("a", "x")
	for alias, want := range map[string]codes.Code{"latest": codes.InvalidArgument, "1a": codes.InvalidArgument, "NEW": codes.InvalidArgument, "current": codes.OK} {
		m.VersionAliases, m.Etag = map[string]int64{alias: 1}, ""
		_, err := s.update(m)
		is(t, "the alias "+alias, err, want)
	}
	_, err := s.UpdateSecret(t.Context(), &secretmanagerpb.UpdateSecretRequest{Secret: m})
	is(t, "an update without a mask", err, codes.InvalidArgument)
	sum := int64(7)
	for what, p := range map[string]*secretmanagerpb.SecretPayload{
		"no data": {}, "too much data": {Data: make([]byte, 64<<10+1)}, "a wrong checksum": {Data: []byte("x"), DataCrc32C: &sum},
	} {
		_, err := s.AddSecretVersion(t.Context(), &secretmanagerpb.AddSecretVersionRequest{Parent: project + "/secrets/a", Payload: p})
		is(t, what, err, codes.InvalidArgument)
	}
}

func TestEtagsDecide(t *testing.T) {
	t.Parallel()
	s := newService(t, fakegcp.Options{})
	old := s.create("a", nil)
	v := s.add("a", "x")
	if now := s.server.Secret(old.GetName()); now.GetEtag() != old.GetEtag() {
		t.Errorf("a new version changes the secret's etag")
	}
	now, err := s.update(old)
	is(t, "an update with the etag", err, codes.OK)
	if now.GetEtag() == old.GetEtag() {
		t.Errorf("an update that changes nothing leaves the etag as it was")
	}
	_, err = s.update(old)
	is(t, "an update with an old etag", err, codes.FailedPrecondition)
	is(t, "a deletion with an old etag", s.DeleteSecret(t.Context(), &secretmanagerpb.DeleteSecretRequest{Name: old.GetName(), Etag: old.GetEtag()}), codes.FailedPrecondition)
	destroy := func(etag string) error {
		_, err := s.DestroySecretVersion(t.Context(), &secretmanagerpb.DestroySecretVersionRequest{Name: v.GetName(), Etag: etag})
		return err
	}
	is(t, "a destruction with a wrong etag", destroy(`"x"`), codes.FailedPrecondition)
	is(t, "a destruction", destroy(v.GetEtag()), codes.OK)
	is(t, "a second destruction", destroy(v.GetEtag()), codes.FailedPrecondition)
	_, err = s.access("a", "1")
	is(t, "an access to what is destroyed", err, codes.FailedPrecondition)
	_, err = s.access("a", "2")
	is(t, "an access to what never was", err, codes.NotFound)
	is(t, "a deletion", s.DeleteSecret(t.Context(), &secretmanagerpb.DeleteSecretRequest{Name: old.GetName(), Etag: now.GetEtag()}), codes.OK)
	if again := s.create("a", nil); again.GetEtag() == old.GetEtag() || s.add("a", "y").GetName() != v.GetName() {
		t.Errorf("a secret created again has the old etag, or goes on counting")
	}
	_, err = s.update(now)
	is(t, "an update of the former life", err, codes.FailedPrecondition)
}

func TestAccessSecretVersion(t *testing.T) {
	t.Parallel()
	s := newService(t, fakegcp.Options{})
	m := s.create("a", nil)
	s.add("a", "one")
	two := s.add("a", "two")
	m.VersionAliases = map[string]int64{"current": 1}
	if _, err := s.update(m); err != nil {
		t.Fatal(err)
	}
	for version, want := range map[string]string{"1": "one", "2": "two", "current": "one", "latest": "two"} {
		if got, err := s.access("a", version); got != want || err != nil {
			t.Errorf("version %s holds %q, error %v, want %q", version, got, err, want)
		}
	}
	if _, err := s.DisableSecretVersion(t.Context(), &secretmanagerpb.DisableSecretVersionRequest{Name: two.GetName()}); err != nil {
		t.Fatal(err)
	}
	_, err := s.access("a", "2")
	is(t, "an access to what is disabled", err, codes.FailedPrecondition)
	if _, err := s.EnableSecretVersion(t.Context(), &secretmanagerpb.EnableSecretVersionRequest{Name: two.GetName()}); err != nil {
		t.Fatal(err)
	}
	if got, err := s.access("a", "2"); got != "two" || err != nil {
		t.Errorf("what is enabled again holds %q, error %v", got, err)
	}
	it := s.ListSecretVersions(t.Context(), &secretmanagerpb.ListSecretVersionsRequest{Parent: m.GetName(), PageSize: 1})
	var order []string
	for v, err := it.Next(); err != iterator.Done; v, err = it.Next() {
		if err != nil {
			t.Fatal(err)
		}
		order = append(order, v.GetName()[len(m.GetName()):])
	}
	if got := strings.Join(order, " "); got != "/versions/2 /versions/1" {
		t.Errorf("the versions are listed as %s", got)
	}
	_, err = s.DestroySecretVersion(t.Context(), &secretmanagerpb.DestroySecretVersionRequest{Name: m.GetName() + "/versions/current"})
	is(t, "a destruction by the alias", err, codes.InvalidArgument)
}

func TestFiltersFind(t *testing.T) {
	t.Parallel()
	s := newService(t, fakegcp.Options{})
	s.create("app-one", map[string]string{"env": "prod", "team": "crm"})
	s.create("app-two", map[string]string{"env": "test"})
	s.create("other", map[string]string{"env": "prod"})
	for filter, want := range map[string]string{
		"":                                      "app-one app-two other",
		"name:app-":                             "app-one app-two",
		"labels.env=prod":                       "app-one other",
		"labels.env=pro":                        "",
		"labels.team:*":                         "app-one",
		"labels.env=test OR labels.team=crm":    "app-one app-two",
		"labels.env=prod AND NOT labels.team:*": "other",
		"name:app- AND (labels.env=test OR labels.env=prod)": "app-one app-two",
	} {
		for _, size := range []int32{0, 1, 2} {
			var names []string
			it := s.ListSecrets(t.Context(), &secretmanagerpb.ListSecretsRequest{Parent: project, Filter: filter, PageSize: size})
			for m, err := it.Next(); err != iterator.Done; m, err = it.Next() {
				if err != nil {
					t.Fatalf("%s: %v", filter, err)
				}
				names = append(names, strings.TrimPrefix(m.GetName(), project+"/secrets/"))
			}
			if got := strings.Join(names, " "); got != want {
				t.Errorf("%q in pages of %d finds %q, want %q", filter, size, got, want)
			}
		}
	}
	for _, filter := range []string{"labels.a", "x=y", "labels.a=b labels.c=d", "labels.a=b AND", "(labels.a=b", "labels.a=b AND labels.c=d OR labels.e=f"} {
		_, err := s.ListSecrets(t.Context(), &secretmanagerpb.ListSecretsRequest{Parent: project, Filter: filter}).Next()
		is(t, filter, err, codes.InvalidArgument)
	}
}

func TestReadsLagButThoseByNumber(t *testing.T) {
	t.Parallel()
	s := newService(t, fakegcp.Options{Lag: fakegcp.All(time.Hour)})
	get := func() error {
		_, err := s.GetSecret(t.Context(), &secretmanagerpb.GetSecretRequest{Name: project + "/secrets/a"})
		return err
	}
	list := func() error {
		_, err := s.ListSecrets(t.Context(), &secretmanagerpb.ListSecretsRequest{Parent: project}).Next()
		return err
	}
	m := s.create("a", nil)
	s.add("a", "one")
	m.VersionAliases = map[string]int64{"current": 1}
	m, err := s.update(m)
	is(t, "an update with the true etag", err, codes.OK)
	_, err = s.access("a", "current")
	is(t, "an access by alias", err, codes.NotFound)
	is(t, "GetSecret", get(), codes.NotFound)
	if list() != iterator.Done {
		t.Error("the list does not lag")
	}
	if got, err := s.access("a", "1"); got != "one" || err != nil {
		t.Errorf("by number %q, error %v", got, err)
	}
	s.server.Advance(time.Hour)
	is(t, "GetSecret after the lag", get(), codes.OK)
	is(t, "ListSecrets after the lag", list(), codes.OK)

	two := s.add("a", "two")
	m.VersionAliases["current"] = 2
	if m, err = s.update(m); err != nil {
		t.Fatal(err)
	}
	if got, err := s.access("a", "current"); got != "one" || err != nil {
		t.Errorf("the alias shows %q, error %v, before the lag is over", got, err)
	}
	s.server.Advance(time.Hour)
	if got, err := s.access("a", "current"); got != "two" || err != nil {
		t.Errorf("the alias shows %q, error %v, after the lag", got, err)
	}
	if _, err := s.DestroySecretVersion(t.Context(), &secretmanagerpb.DestroySecretVersionRequest{Name: two.GetName()}); err != nil {
		t.Fatal(err)
	}
	_, err = s.access("a", "current")
	is(t, "what is destroyed, by an alias that lags", err, codes.FailedPrecondition)
	if err := s.DeleteSecret(t.Context(), &secretmanagerpb.DeleteSecretRequest{Name: m.GetName(), Etag: m.GetEtag()}); err != nil {
		t.Fatal(err)
	}
	is(t, "GetSecret of what was just deleted", get(), codes.OK)
	_, err = s.access("a", "1")
	is(t, "by number, of what was just deleted", err, codes.NotFound)
	s.server.SetLag(fakegcp.Lag{})
	is(t, "GetSecret without a lag", get(), codes.NotFound)
}

func TestFaultsAreInjectedAndCallsCounted(t *testing.T) {
	t.Parallel()
	s := newService(t, fakegcp.Options{})
	s.create("a", nil)
	s.server.Reset()
	down := status.Error(codes.Internal, "down")
	for _, applied := range []bool{false, true} {
		s.server.Inject(func(c *fakegcp.Call) *fakegcp.Fault {
			if c.Method == "AddSecretVersion" && c.Resource == project+"/secrets/a" {
				return &fakegcp.Fault{Err: down, Applied: applied}
			}
			return nil
		})
		_, err := s.AddSecretVersion(t.Context(), &secretmanagerpb.AddSecretVersionRequest{
			Parent: project + "/secrets/a", Payload: &secretmanagerpb.SecretPayload{Data: []byte("x")},
		})
		is(t, "a call that fails", err, codes.Internal)
		if n := len(s.server.Active(project + "/secrets/a")); (n == 1) != applied {
			t.Errorf("applied %v: there are %d versions", applied, n)
		}
	}
	if got := s.server.Count(); !maps.Equal(got, map[string]int{"AddSecretVersion": 2}) {
		t.Errorf("the calls are %v", got)
	}

	reached := make(chan struct{})
	var once sync.Once
	s.server.Inject(func(*fakegcp.Call) *fakegcp.Fault {
		once.Do(func() { close(reached) })
		return &fakegcp.Fault{Wait: make(chan struct{})}
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-reached
		cancel()
	}()
	_, err := s.GetSecret(ctx, &secretmanagerpb.GetSecretRequest{Name: project + "/secrets/a"})
	is(t, "a call that hangs until the client leaves", err, codes.Canceled)
}

func TestQuota(t *testing.T) {
	t.Parallel()
	s := newService(t, fakegcp.Options{Quota: fakegcp.Documented()})
	s.create("a", nil)
	s.create("b", nil)
	add := func(id string) error {
		_, err := s.AddSecretVersion(t.Context(), &secretmanagerpb.AddSecretVersionRequest{
			Parent: project + "/secrets/" + id, Payload: &secretmanagerpb.SecretPayload{Data: []byte("x")},
		})
		return err
	}
	is(t, "a change", add("a"), codes.OK)
	is(t, "the second change in a second", add("a"), codes.OK)
	third := add("a")
	is(t, "the third", third, codes.ResourceExhausted)
	is(t, "a change of another secret", add("b"), codes.OK)
	s.server.Advance(time.Second / 2)
	is(t, "a change half a second later", add("a"), codes.OK)

	details, ok := apierror.FromError(third)
	if !ok || details.Reason() != "RATE_LIMIT_EXCEEDED" || details.Domain() != "googleapis.com" {
		t.Fatalf("the refusal has the details %v", details)
	}
	for name, want := range map[string]string{
		"service": "secretmanager.googleapis.com", "quota_metric": "secretmanager.googleapis.com/write_requests",
		"quota_limit_value": "2", "quota_location": "global",
	} {
		if got := details.Metadata()[name]; got != want {
			t.Errorf("%s of the refusal is %q, want %q", name, got, want)
		}
	}
	if text := status.Convert(third).Message(); !strings.HasPrefix(text, "Quota exceeded for quota metric 'Write requests'") {
		t.Errorf("the refusal says %q", text)
	}
}

func TestPermissionsAndQuotasAreEnforced(t *testing.T) {
	t.Parallel()
	s := newService(t, fakegcp.Options{Quota: fakegcp.Quota{Read: fakeserver.PerMinute(2)}})
	get := func() error {
		_, err := s.GetSecret(t.Context(), &secretmanagerpb.GetSecretRequest{Name: project + "/secrets/a"})
		return err
	}
	s.create("a", nil)
	is(t, "the first read", get(), codes.OK)
	is(t, "the second read", get(), codes.OK)
	is(t, "the third read", get(), codes.ResourceExhausted)
	s.server.Advance(time.Minute)
	is(t, "a read in the next minute", get(), codes.OK)
	s.server.Deny("secretmanager.secrets.get")
	is(t, "a read that is not allowed", get(), codes.PermissionDenied)
}

func TestInvoke(t *testing.T) {
	t.Parallel()
	s := newService(t, fakegcp.Options{Quota: fakegcp.Quota{Read: fakeserver.PerMinute(1)}})
	client, err := secretmanager.NewClient(t.Context(), append(s.server.ClientOptions(), option.WithGRPCDialOption(grpc.WithChainUnaryInterceptor(s.server.Direct())))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	created, err := client.CreateSecret(t.Context(), &secretmanagerpb.CreateSecretRequest{
		Parent: project, SecretId: "a", Secret: &secretmanagerpb.Secret{Replication: automatic},
	})
	if err != nil {
		t.Fatal(err)
	}
	get := &secretmanagerpb.GetSecretRequest{Name: created.GetName()}
	found, err := client.GetSecret(t.Context(), get)
	if err != nil || found.GetEtag() != created.GetEtag() {
		t.Errorf("GetSecret returns %v, %v", found, err)
	}
	_, err = s.GetSecret(t.Context(), get)
	is(t, "a read over the socket beyond the quota", err, codes.ResourceExhausted)
	if n := s.server.Count()["GetSecret"]; n != 2 {
		t.Errorf("%d reads were counted, want 2", n)
	}
	err = s.server.Invoke(t.Context(), "/x/Nothing", get, found)
	is(t, "a method that there is not", err, codes.Unimplemented)
}
