package awssm_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager/types"

	"github.com/tokenkeep/tokenkeep/awssm"
	"github.com/tokenkeep/tokenkeep/internal/fakeaws"
	"github.com/tokenkeep/tokenkeep/internal/wholesend"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

const (
	app  = "oauth/crm"
	name = "u4fz2k6q3w7x5c2a"
	path = app + "/" + name
)

// An env is a server, and a driver that uses the server's clock.
type env struct {
	testing.TB
	server *fakeaws.Server
	client *secretsmanager.Client
	lag    time.Duration // the initial ReadLag of the server
	driver.Secrets
}

func newEnv(t testing.TB, server *fakeaws.Options, opts *awssm.Options, client ...func(*secretsmanager.Options)) *env {
	t.Helper()
	e := &env{TB: t, server: fakeaws.New(server)}
	t.Cleanup(e.server.Close)
	if server != nil {
		e.lag = server.ReadLag
	}
	e.client = newClient(t, e.server.URL, "app", client...)
	e.Secrets = e.open(opts)
	return e
}

// open returns another driver for the same secrets.
func (e *env) open(opts *awssm.Options) driver.Secrets {
	e.Helper()
	d, err := awssm.NewDriver(e.client, app, opts)
	if err != nil {
		e.Fatal(err)
	}
	awssm.SetClock(d, e.server.Now)
	return d
}

// newClient returns a client with its own connections and with short pauses between retries.
// accessKey identifies the principal of the client.
func newClient(t testing.TB, url, accessKey string, more ...func(*secretsmanager.Options)) *secretsmanager.Client {
	t.Helper()
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	t.Cleanup(transport.CloseIdleConnections)
	return secretsmanager.New(secretsmanager.Options{
		Region:       "us-east-1",
		BaseEndpoint: &url,
		HTTPClient:   wholesend.Client{Doer: &http.Client{Transport: transport}},
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: accessKey, SecretAccessKey: "x"}, nil
		}),
		Retryer: retry.NewStandard(func(o *retry.StandardOptions) { o.MaxBackoff = 2 * time.Millisecond }),
	}, more...)
}

// once configures a client that does not retry.
func once(o *secretsmanager.Options) { o.Retryer = aws.NopRetryer{} }

func split(v driver.Version) (arn, id string) {
	arn, id, _ = strings.Cut(string(v), " ")
	return arn, id
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
	got, err := e.Fresh(e.Context(), name, driver.Secret{})
	if err != nil || !bytes.Equal(got.Data, want.Data) || got.Version != want.Version {
		e.Errorf("Fresh returns %q at %q and error %v, want %q at %q", got.Data, got.Version, err, want.Data, want.Version)
	}
}

// operator writes text as the AWS console does, and returns the ID of the new version. The ID is
// not derived from the ID of the previous version.
func (e *env) operator(text string) string {
	e.Helper()
	out, err := e.client.PutSecretValue(e.Context(), &secretsmanager.PutSecretValueInput{SecretId: aws.String(path), SecretString: &text})
	if err != nil {
		e.Fatal(err)
	}
	return *out.VersionId
}

func (e *env) tags() []string {
	e.Helper()
	out, err := e.client.DescribeSecret(e.Context(), &secretsmanager.DescribeSecretInput{SecretId: aws.String(path)})
	if err != nil {
		e.Fatal(err)
	}
	var keys []string
	for _, t := range out.Tags {
		keys = append(keys, *t.Key)
	}
	return keys
}

// counts runs f, and checks that f returns no error and makes exactly the calls in want.
func (e *env) counts(what, want string, f func() error) {
	e.Helper()
	e.server.Reset()
	if err := f(); err != nil {
		e.Errorf("%s: %v", what, err)
	}
	if got := calls(e.server.Count()); got != want {
		e.Errorf("%s makes the calls %q, want %q", what, got, want)
	}
}

// calls returns the numbers of calls in a form such as "CreateSecret 1, GetSecretValue 2".
func calls(count map[string]int) string {
	var list []string
	for operation, n := range count {
		list = append(list, fmt.Sprintf("%s %d", operation, n))
	}
	slices.Sort(list)
	return strings.Join(list, ", ")
}

// is checks that err matches want, or that err is nil if want is nil.
func is(t testing.TB, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) || want == nil && err != nil {
		t.Errorf("%s returned error %v, want %v", what, err, want)
	}
}

func label(key string, value, nonce byte) driver.Label {
	return driver.Label{Key: key, Value: strings.Repeat(string(value), 32), Nonce: strings.Repeat(string(nonce), 16)}
}

// all returns the number of values that seq yields before the first error, and that error.
func all[T any](seq iter.Seq2[T, error]) (int, error) {
	n := 0
	for _, err := range seq {
		if err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// yielding returns a function that checks that seq yields want values and no error.
func yielding[T any](seq iter.Seq2[T, error], want int) func() error {
	return func() error {
		if n, err := all(seq); err != nil || n != want {
			return fmt.Errorf("yields %d and error %v, want %d", n, err, want)
		}
		return nil
	}
}

// on returns a hook that injects f into the nth request of an operation. If n is 0, the hook
// injects f into all requests of the operation.
func on(operation string, n int, f fakeaws.Fault) func(*fakeaws.Request) *fakeaws.Fault {
	requests := make(chan int, 1)
	requests <- 0
	return func(q *fakeaws.Request) *fakeaws.Fault {
		if q.Operation != operation {
			return nil
		}
		i := <-requests + 1
		requests <- i
		if n == 0 || i == n {
			return &f
		}
		return nil
	}
}

func TestConstructorsCheckTheirArguments(t *testing.T) {
	t.Parallel()
	client := newClient(t, "http://127.0.0.1:1", "app")
	many := map[string]string{}
	for i := range 11 {
		many[fmt.Sprint("t", i)] = ""
	}
	for _, c := range []struct {
		name   string
		client *secretsmanager.Client
		prefix string
		opts   *awssm.Options
		want   string // part of the error; empty if there is no error
	}{
		{"a usual prefix", client, "oauth/crm", nil, ""},
		{"every character", client, "aZ09_+=.@-", &awssm.Options{}, ""},
		{"own tags", client, "oauth", &awssm.Options{Tags: map[string]string{"team": "crm + sales", "Müller": ""}}, ""},
		{"no client", nil, "oauth", nil, "the client is nil"},
		{"no prefix", client, "", nil, "empty path element"},
		{"a slash before", client, "/oauth", nil, "empty path element"},
		{"a slash after", client, "oauth/", nil, "empty path element"},
		{"two slashes", client, "oauth//crm", nil, "empty path element"},
		{"a space", client, "oauth crm", nil, "a character other than"},
		{"a negation", client, "!oauth", nil, "a character other than"},
		{"a long prefix", client, strings.Repeat("a", 151), nil, "has 151 characters"},
		{"many tags", client, "oauth", &awssm.Options{Tags: many}, "there are 11 tags"},
		{"a tag without a key", client, "oauth", &awssm.Options{Tags: map[string]string{"": "x"}}, "a key must have 1 to 128"},
		{"a long key", client, "oauth", &awssm.Options{Tags: map[string]string{strings.Repeat("k", 129): "x"}}, "a key must have 1 to 128"},
		{"a long value", client, "oauth", &awssm.Options{Tags: map[string]string{"k": strings.Repeat("v", 257)}}, "a value at most 256"},
		{"a tag of AWS", client, "oauth", &awssm.Options{Tags: map[string]string{"AWS:x": "x"}}, "are reserved"},
		{"a tag of labels", client, "oauth", &awssm.Options{Tags: map[string]string{"tokenkeep:x": "x"}}, "are reserved"},
		{"a character that tags have not", client, "oauth", &awssm.Options{Tags: map[string]string{"k": "a;b"}}, "a character other than"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s, err := awssm.New(c.client, c.prefix, c.opts)
			switch {
			case c.want == "":
				if err != nil || s == nil {
					t.Errorf("New returned %v and error %v", s, err)
				}
			case err == nil || !strings.HasPrefix(err.Error(), "awssm: ") || !strings.Contains(err.Error(), c.want):
				t.Errorf("New returned error %v, want one with %q", err, c.want)
			}
		})
	}
}

func TestPropertiesSayWhatTheServiceDocuments(t *testing.T) {
	t.Parallel()
	want := driver.Properties{Name: "awssm", Place: "awssm/oauth/crm", MaxSize: 65536, ListLag: 5 * time.Minute, ReadLag: driver.Unbounded, ListBatch: 20, LabelBatch: 10, DailyWrites: 100}
	if got := newEnv(t, nil, nil).Properties(); got != want {
		t.Errorf("Properties are %+v, want %+v", got, want)
	}
}

func TestRecordsAreWhereTheDocumentationSays(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil, &awssm.Options{KMSKeyID: "alias/oauth", Tags: map[string]string{"team": "crm"}})
	e.create("the record", label("user", 'a', 'b'))
	secret, err := e.client.DescribeSecret(t.Context(), &secretsmanager.DescribeSecretInput{SecretId: aws.String("oauth/crm/" + name)})
	if err != nil {
		t.Fatal(err)
	}
	if *secret.KmsKeyId != "alias/oauth" {
		t.Errorf("the key is %q", *secret.KmsKeyId)
	}
	tags := map[string]string{}
	for _, tag := range secret.Tags {
		tags[*tag.Key] = *tag.Value
	}
	labeled := tags["tokenkeep:user:"+strings.Repeat("a", 32)+":"+strings.Repeat("b", 16)]
	if _, err := time.Parse(time.RFC3339, labeled); err != nil || tags["team"] != "crm" || len(tags) != 2 {
		t.Errorf("the tags are %q", tags)
	}
	value, err := e.client.GetSecretValue(t.Context(), &secretsmanager.GetSecretValueInput{SecretId: aws.String("oauth/crm/" + name)})
	if err != nil || value.SecretBinary != nil || aws.ToString(value.SecretString) != "tokenkeep record\nthe record" {
		t.Errorf("the value is %q or %q, error %v", aws.ToString(value.SecretString), value.SecretBinary, err)
	}
}

func TestDeleteRemovesVersions(t *testing.T) {
	t.Parallel()
	e := newEnv(t, &fakeaws.Options{DeleteDelay: time.Hour}, nil)
	first := e.create("first")
	last := e.update(first, "last")
	e.remove(last)
	_, err := e.client.GetSecretValue(t.Context(), &secretsmanager.GetSecretValueInput{SecretId: aws.String(path)})
	var refused *types.InvalidRequestException
	if !errors.As(err, &refused) {
		t.Errorf("while the service deletes the secret a read returns error %v", err)
	}
	e.server.Advance(time.Hour)
	for _, v := range []driver.Version{first.Version, last.Version} {
		arn, id := split(v)
		_, err := e.client.GetSecretValue(t.Context(), &secretsmanager.GetSecretValueInput{SecretId: &arn, VersionId: &id})
		var missing *types.ResourceNotFoundException
		if !errors.As(err, &missing) {
			t.Errorf("a version of the deleted secret is read with error %v", err)
		}
	}
}

func TestDeleteInterrupted(t *testing.T) {
	t.Parallel()
	for what, next := range map[string]func(e *env, base driver.Secret) error{
		"a Delete that is repeated": func(e *env, base driver.Secret) error { return e.Delete(e.Context(), name, base) },
		"a Delete without a base":   func(e *env, _ driver.Secret) error { return e.Delete(e.Context(), name, driver.Secret{}) },
		"a Create": func(e *env, _ driver.Secret) error {
			_, err := e.Create(e.Context(), name, driver.Payload{Data: []byte("again")})
			return err
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t, &fakeaws.Options{DeleteDelay: 10 * time.Millisecond}, nil)
			base := e.create("old")
			e.server.Inject(on("DeleteSecret", 0, fakeaws.Fault{Code: "InternalServiceError", Status: 500}))
			err := e.Delete(t.Context(), name, base)
			is(t, "Delete", err, driver.ErrUnavailable)
			if err == nil || !strings.Contains(err.Error(), "deleted, but") {
				t.Errorf("Delete returned error %v", err)
			}
			e.server.Inject(nil)
			_, err = e.Get(t.Context(), name)
			is(t, "Get of what has a tombstone", err, driver.ErrNotFound)
			_, err = e.Update(t.Context(), name, base, driver.Payload{Data: []byte("late")})
			is(t, "Update with a base from before", err, driver.ErrConflict)
			if n, err := all(e.List(t.Context())); n != 0 || err != nil {
				t.Errorf("List yields %d and error %v", n, err)
			}
			e.server.Reset()
			if err := next(e, base); err != nil {
				t.Errorf("%s: %v", what, err)
			}
			if n := e.server.Count()["DeleteSecret"]; n != 1 {
				t.Errorf("%s made %d DeleteSecret calls, want 1", what, n)
			}
		})
	}
}

func TestCreateOverTombstone(t *testing.T) {
	t.Parallel()
	// A process without KeepDeleted has left a tombstone. A process with KeepDeleted deletes that
	// secret instead of reusing the secret, because a late DeleteSecret of the first process would
	// delete the new record.
	e := newEnv(t, nil, nil)
	base := e.create("old")
	e.server.Inject(on("DeleteSecret", 1, fakeaws.Fault{Code: "AccessDeniedException"}))
	is(t, "Delete", e.Delete(t.Context(), name, base), driver.ErrDenied)
	v, err := e.open(&awssm.Options{KeepDeleted: true}).Create(t.Context(), name, driver.Payload{Data: []byte("again")})
	if err != nil {
		t.Fatal(err)
	}
	before, _ := split(base.Version)
	if after, _ := split(v); after == before {
		t.Errorf("the new record is in the secret of the old one")
	}
}

func TestKeepDeletedReuse(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil, &awssm.Options{KeepDeleted: true})
	base := e.create("old", label("user", 'a', 'a'))
	e.counts("Delete", "PutSecretValue 1, UntagResource 1", func() error { return e.Delete(t.Context(), name, base) })
	if left := e.tags(); len(left) > 0 {
		t.Errorf("a kept tombstone has the tags %q", left)
	}
	_, err := e.Get(t.Context(), name)
	is(t, "Get", err, driver.ErrNotFound)
	for _, d := range []driver.Secrets{e.Secrets, e.open(nil)} {
		is(t, "Delete of what is deleted", d.Delete(t.Context(), name, base), nil)
	}
	// A process without KeepDeleted also reuses a kept secret, because other processes may write
	// over the tombstone at any time.
	v, err := e.open(nil).Create(t.Context(), name, driver.Payload{Data: []byte("again"), Labels: []driver.Label{label("user", 'c', 'c')}})
	if err != nil {
		t.Fatal(err)
	}
	if before, _ := split(base.Version); !strings.HasPrefix(string(v), before+" ") {
		t.Errorf("the new record is in another secret")
	}
	_, err = e.Update(t.Context(), name, base, driver.Payload{Data: []byte("late")})
	is(t, "Update with a base from before", err, driver.ErrConflict)
	is(t, "Delete with a base from before", e.Delete(t.Context(), name, base), driver.ErrConflict)
	e.holds(driver.Secret{Payload: driver.Payload{Data: []byte("again")}, Version: v})
}

func TestCreateWhileDeleting(t *testing.T) {
	t.Parallel()
	e := newEnv(t, &fakeaws.Options{DeleteDelay: 150 * time.Millisecond}, nil)
	e.remove(e.create("old"))
	begun := time.Now()
	e.holds(e.create("again"))
	if waited := time.Since(begun); waited < 50*time.Millisecond {
		t.Errorf("Create waited for %v", waited)
	}
}

func TestCreateWhileDeletingTimeout(t *testing.T) {
	t.Parallel()
	e := newEnv(t, &fakeaws.Options{DeleteDelay: 24 * time.Hour}, nil)
	e.remove(e.create("old"))
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := e.Create(ctx, name, driver.Payload{Data: []byte("again")})
	is(t, "Create whose context ends", err, context.DeadlineExceeded)
	hurry := e.open(nil)
	awssm.SetClock(hurry, func() time.Time { e.server.Advance(time.Minute); return e.server.Now() })
	_, err = hurry.Create(t.Context(), name, driver.Payload{Data: []byte("again")})
	is(t, "Create that has waited for minutes", err, driver.ErrUnavailable)
}

func TestCreateScheduledDeletion(t *testing.T) {
	t.Parallel()
	schedule := func(e *env) {
		e.create("old")
		_, err := e.client.DeleteSecret(e.Context(), &secretsmanager.DeleteSecretInput{SecretId: aws.String(path), RecoveryWindowInDays: aws.Int64(7)})
		if err != nil {
			e.Fatal(err)
		}
		_, err = e.Get(e.Context(), name)
		is(e, "Get", err, driver.ErrNotFound)
		_, err = e.Fresh(e.Context(), name, driver.Secret{})
		is(e, "Fresh", err, driver.ErrNotFound)
	}
	t.Run("is deleted for good by a Create", func(t *testing.T) {
		t.Parallel()
		e := newEnv(t, nil, nil)
		schedule(e)
		e.holds(e.create("again"))
	})
	t.Run("is left alone where deleted secrets are kept", func(t *testing.T) {
		t.Parallel()
		e := newEnv(t, nil, &awssm.Options{KeepDeleted: true})
		schedule(e)
		_, err := e.Create(t.Context(), name, driver.Payload{Data: []byte("again")})
		is(t, "Create", err, driver.ErrUnavailable)
		if e.server.Count()["DeleteSecret"] != 1 {
			t.Errorf("Create deleted the secret")
		}
	})
}

func TestCreateNameTaken(t *testing.T) {
	t.Parallel()
	// CreateSecret reports a scheduled deletion, but another process creates a secret with that
	// name before evict reads the metadata.
	e := newEnv(t, nil, nil)
	scheduled := fakeaws.Fault{Code: "InvalidRequestException", Message: "You can't create this secret because a secret with this name is already scheduled for deletion."}
	theirs := e.create("theirs")
	e.server.Inject(on("CreateSecret", 1, scheduled))
	_, err := e.open(nil).Create(t.Context(), name, driver.Payload{Data: []byte("mine")})
	is(t, "Create", err, driver.ErrExists)
	e.server.Inject(nil)
	e.holds(theirs)
}

func TestUpdateAfterDeletion(t *testing.T) {
	t.Parallel()
	for _, keep := range []bool{false, true} {
		e := newEnv(t, nil, &awssm.Options{KeepDeleted: keep})
		base := e.create("old", label("user", 'a', 'a'))
		gate, reached := make(chan struct{}), make(chan struct{})
		hook := on("PutSecretValue", 1, fakeaws.Fault{Wait: gate})
		e.server.Inject(func(q *fakeaws.Request) *fakeaws.Fault {
			f := hook(q)
			if f != nil {
				close(reached)
			}
			return f
		})
		late := make(chan error)
		go func() {
			_, err := e.Update(t.Context(), name, base, driver.Payload{Data: []byte("late"), Labels: base.Labels})
			late <- err
		}()
		<-reached
		other := e.open(&awssm.Options{KeepDeleted: keep})
		if err := other.Delete(t.Context(), name, base); err != nil {
			t.Fatal(err)
		}
		v, err := other.Create(t.Context(), name, driver.Payload{Data: []byte("again")})
		if err != nil {
			t.Fatal(err)
		}
		close(gate)
		if err := <-late; !errors.Is(err, driver.ErrConflict) && !errors.Is(err, driver.ErrNotFound) {
			t.Errorf("the Update from before returned error %v", err)
		}
		e.holds(driver.Secret{Payload: driver.Payload{Data: []byte("again")}, Version: v})
	}
}

func TestRollback(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil, nil)
	first := e.create("first")
	second := e.update(first, "second")
	third := e.update(second, "third")
	_, to := split(first.Version)
	_, from := split(third.Version)
	_, err := e.client.UpdateSecretVersionStage(t.Context(), &secretsmanager.UpdateSecretVersionStageInput{
		SecretId: aws.String(path), VersionStage: aws.String("AWSCURRENT"), MoveToVersionId: &to, RemoveFromVersionId: &from,
	})
	if err != nil {
		t.Fatal(err)
	}
	got, err := e.Get(t.Context(), name)
	if err != nil || string(got.Data) != "first" {
		t.Errorf("Get returns %q and error %v, want what the operator went back to", got.Data, err)
	}
	_, err = e.Update(t.Context(), name, got, driver.Payload{Data: []byte("lost")})
	is(t, "Update of a version that has successors", err, driver.ErrConflict)
	e.holds(third)
	// An Update over the last version with the restored content makes the rollback permanent.
	again := e.update(third, "first")
	e.holds(again)
	if got, err := e.Get(t.Context(), name); err != nil || got.Version != again.Version {
		t.Errorf("Get returns %q and error %v", got.Data, err)
	}
}

func TestForeignWriteBeforeRead(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil, nil)
	base := e.create("a record", label("user", 'a', 'a'))
	e.operator(`{"note": "edited"}`)
	for what, read := range map[string]func() (driver.Secret, error){
		"Get":                      func() (driver.Secret, error) { return e.Get(t.Context(), name) },
		"Fresh":                    func() (driver.Secret, error) { return e.Fresh(t.Context(), name, driver.Secret{}) },
		"Fresh that knows the old": func() (driver.Secret, error) { return e.Fresh(t.Context(), name, base) },
	} {
		e.server.Advance(time.Second)
		if _, err := read(); !errors.Is(err, driver.ErrCorrupt) {
			t.Errorf("%s returned error %v, want ErrCorrupt", what, err)
		}
	}
	_, err := e.Create(t.Context(), name, driver.Payload{Data: []byte("again")})
	is(t, "Create", err, driver.ErrExists)
	for text, corrupt := range map[string]bool{
		`{"deleted":"x"}`: false, `{"deleted":""}`: true, `{"deleted":"x","more":1}`: true, `{"deleted":"x"} {}`: true, `null`: true, `deleted`: true,
	} {
		e.operator(text)
		if _, err := e.Get(t.Context(), name); errors.Is(err, driver.ErrCorrupt) != corrupt {
			t.Errorf("Get of %s returned error %v", text, err)
		}
	}
}

// TestForeignWriteBeforeCommit checks a documented limit: a writer does not detect a version
// that another tool has stored after the writer's read.
func TestForeignWriteBeforeCommit(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil, nil)
	base := e.create("a record")
	edited := e.operator(`{"note": "edited"}`)
	now := e.update(base, "the next record")
	e.holds(now)
	old, err := e.client.GetSecretValue(t.Context(), &secretsmanager.GetSecretValueInput{SecretId: aws.String(path), VersionStage: aws.String("AWSPREVIOUS")})
	if err != nil || *old.VersionId != edited {
		t.Errorf("what was replaced is not the previous version: %v", err)
	}
}

func TestFreshPrefersTheYoungerOfTwoChains(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil, nil)
	first := e.create("first")
	e.server.Advance(time.Second)
	e.operator(`{"note": "edited"}`)
	e.server.Advance(time.Second)
	second := e.update(first, "second") // replaces the edit
	e.server.SetLag(500*time.Millisecond, 0)
	// A read by name still returns the edit.
	got, err := e.Fresh(t.Context(), name, second)
	if err != nil || got.Version != second.Version {
		t.Errorf("Fresh returns %q and error %v, want the state that it was told of", got.Data, err)
	}
	if _, err := e.Fresh(t.Context(), name, first); err != nil && !errors.Is(err, driver.ErrCorrupt) {
		t.Errorf("Fresh: %v", err)
	}
}

func TestFreshFollowsAChainInFewReads(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil, nil)
	states := []driver.Secret{e.create("0")}
	e.server.SetLag(time.Hour, time.Hour)
	for i := range 60 {
		states = append(states, e.update(states[i], fmt.Sprint(i+1)))
	}
	last := states[60]
	for _, c := range []struct {
		than  int // index in states of the caller's state; -1 if the caller has no state
		after time.Duration
		reads int
	}{
		{60, 0, 1},               // version 61, which does not exist
		{59, 0, 2},               // versions 60 and 61
		{60, 2 * time.Second, 4}, // a failing read by name, and reads of versions 0, 61 and 60
		{59, 0, 5},
		{-1, 0, 13},
	} {
		e.server.Advance(c.after)
		var than driver.Secret
		if c.than >= 0 {
			than = states[c.than]
		}
		e.counts(fmt.Sprint("Fresh that knows ", c.than), fmt.Sprint("GetSecretValue ", c.reads), func() error {
			got, err := e.Fresh(t.Context(), name, than)
			if err == nil && got.Version != last.Version {
				return fmt.Errorf("it returns %q", got.Data)
			}
			return err
		})
	}
}

func TestUpdateOldBase(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil, nil)
	base := e.create("base")
	other := e.open(nil)
	now, err := other.Fresh(t.Context(), name, base)
	if err != nil {
		t.Fatal(err)
	}
	var versions []string
	for i := range 205 {
		e.server.Advance(15 * time.Minute)
		now.Version, err = other.Update(t.Context(), name, now, driver.Payload{Data: fmt.Append(nil, i)})
		if err != nil {
			t.Fatal(err)
		}
		_, id := split(now.Version)
		versions = append(versions, id)
	}
	arn, _ := split(base.Version)
	_, err = e.client.GetSecretValue(t.Context(), &secretsmanager.GetSecretValueInput{SecretId: &arn, VersionId: &versions[0]})
	var missing *types.ResourceNotFoundException
	if !errors.As(err, &missing) {
		t.Fatalf("the version after the base is still there: %v", err)
	}
	_, err = e.Update(t.Context(), name, base, driver.Payload{Data: []byte("late")})
	is(t, "Update with a base whose successor has been removed", err, driver.ErrConflict)
	is(t, "Delete with it", e.Delete(t.Context(), name, base), driver.ErrConflict)
	// If an old base is still the current state, Update makes two additional reads.
	e.server.Advance(2 * time.Hour)
	e.counts("Update with an old base", "GetSecretValue 2, PutSecretValue 1", func() error {
		_, err := other.Update(t.Context(), name, now, driver.Payload{Data: []byte("next")})
		return err
	})
}

func TestUpdatePausedWhileTagging(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil, nil)
	base := e.create("base")
	e.server.Inject(func(q *fakeaws.Request) *fakeaws.Fault {
		if q.Operation == "TagResource" {
			e.server.Advance(40 * time.Minute)
		}
		return nil
	})
	_, err := e.Update(t.Context(), name, base, driver.Payload{Data: []byte("next"), Labels: []driver.Label{label("user", 'a', 'a')}})
	is(t, "Update", err, driver.ErrConflict)
	e.holds(base)
}

func TestUpdateRemovesUnusedTags(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil, &awssm.Options{Tags: map[string]string{"team": "crm"}})
	held := label("user", 'a', 'a')
	base := e.create("base", held)
	// Interrupted writers have left 48 tags.
	for i := range 48 {
		l := label("access", 'b', 'a'+byte(i%26))
		l.Key = fmt.Sprint("access", i/26)
		_, err := e.client.TagResource(t.Context(), &secretsmanager.TagResourceInput{SecretId: aws.String(path), Tags: []types.Tag{{
			Key: aws.String("tokenkeep:" + l.Key + ":" + l.Value + ":" + l.Nonce), Value: aws.String(e.server.Now().Format(time.RFC3339)),
		}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	e.update(base, "written without its label", label("access", 'c', 'c'), held)
	if n := len(e.tags()); n != 50 {
		t.Errorf("the secret has %d tags", n)
	}
	e.server.Advance(61 * time.Minute)
	base, err := e.Get(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	base.Labels = []driver.Label{label("access", 'c', 'c'), held}
	next := driver.Payload{Data: []byte("next"), Labels: []driver.Label{label("access", 'c', 'c'), held}}
	e.counts("Update that makes room", "DescribeSecret 1, GetSecretValue 1, PutSecretValue 1, TagResource 2, UntagResource 1", func() error {
		_, err := e.Update(t.Context(), name, base, next)
		return err
	})
	if left := e.tags(); len(left) != 3 {
		t.Errorf("the tags are %q, want the record's two and the caller's own", left)
	}
}

func TestUpdateStaleBaseKeepsTags(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil, nil)
	base := e.create("base")
	var labels []driver.Label
	for i := range 25 {
		labels = append(labels, label("access", 'a'+byte(i), 'a'))
	}
	e.update(base, "next", labels...)
	e.server.Advance(55 * time.Minute)
	stale, err := e.Get(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	stale.Version, stale.Labels = base.Version, nil
	e.server.Advance(6 * time.Minute)
	old := e.open(nil)
	awssm.SetClock(old, func() time.Time { return e.server.Now() })
	var more []driver.Label
	for i := range 26 {
		more = append(more, label("refresh", 'a'+byte(i), 'a'))
	}
	_, err = e.Update(t.Context(), name, stale, driver.Payload{Data: []byte("late"), Labels: more})
	is(t, "Update", err, driver.ErrConflict)
	if left := e.tags(); len(left) != 25 {
		t.Errorf("%d tags are left, want the 25 of the present state", len(left))
	}
}

func TestListEmptyPage(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil, nil)
	e.create("a record", label("user", 'a', 'a'))
	hook := on("BatchGetSecretValue", 1, fakeaws.Fault{Status: 200, Body: `{"SecretValues": [], "NextToken": "MA==", "Errors": [
		{"SecretId": "x", "ErrorCode": "ResourceNotFoundException", "Message": "Secrets Manager can't find the specified secret."},
		{"SecretId": "y", "ErrorCode": "InvalidRequestException", "Message": "You can't perform this operation on the secret because it was marked for deletion."}]}`})
	e.server.Inject(hook)
	if err := yielding(e.List(t.Context()), 1)(); err != nil {
		t.Errorf("List %v", err)
	}
	for code, class := range map[string]error{"AccessDeniedException": driver.ErrDenied, "DecryptionFailure": driver.ErrUnavailable} {
		e.server.Inject(on("BatchGetSecretValue", 1, fakeaws.Fault{Status: 200, Body: `{"SecretValues": [], "Errors": [{"SecretId": "` + app + "/" + name + `", "ErrorCode": "` + code + `", "Message": "no"}]}`}))
		_, err := all(e.Lookup(t.Context(), []driver.Label{label("user", 'a', 'a')}))
		is(t, "Lookup where one secret cannot be read", err, class)
	}
}

func TestLookupManyLabels(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil, nil)
	var labels []driver.Label
	for i := range 12 {
		labels = append(labels, label("access", 'a'+byte(i), 'a'))
	}
	e.create("a record", labels...)
	e.counts("Lookup", "BatchGetSecretValue 2", yielding(e.Lookup(t.Context(), append(labels, labels...)), 1))
	e.counts("Lookup by nothing", "", yielding(e.Lookup(t.Context(), nil), 0))
}

func TestSecretsOfADeeperPrefixAreAnothers(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil, nil)
	outer, err := awssm.NewDriver(e.client, "oauth", nil)
	if err != nil {
		t.Fatal(err)
	}
	e.create("a record")
	if err := errors.Join(yielding(outer.List(t.Context()), 0)(), yielding(outer.Names(t.Context()), 0)()); err != nil {
		t.Error(err)
	}
}

func TestThrottling(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil, nil)
	want := e.create("a record")
	for _, code := range []string{"ThrottlingException", "LimitExceededException", "TooManyRequestsException"} {
		e.server.Inject(on("GetSecretValue", 1, fakeaws.Fault{Code: code, Message: "Rate exceeded"}))
		e.counts("Get that is throttled once", "GetSecretValue 2", func() error {
			got, err := e.Get(t.Context(), name)
			if err == nil && got.Version != want.Version {
				t.Errorf("Get returns %q", got.Data)
			}
			return err
		})
		e.server.Inject(on("GetSecretValue", 0, fakeaws.Fault{Code: code, Message: "Rate exceeded"}))
		e.server.Reset()
		_, err := e.Get(t.Context(), name)
		is(t, "Get that is throttled all the time", err, driver.ErrUnavailable)
		if n := e.server.Count()["GetSecretValue"]; n != 3 {
			t.Errorf("%d attempts were made, want the 3 of the client", n)
		}
	}
}

func TestThrottlingWithoutRetries(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil, nil)
	base := e.create("a record")
	ctx := driver.WithoutRetries(t.Context())
	for _, c := range []struct {
		code     string
		class    error
		attempts int
	}{
		{"ThrottlingException", driver.ErrThrottled, 1},
		{"InternalServiceError", driver.ErrUnavailable, 3},
	} {
		e.server.Inject(on("GetSecretValue", 0, fakeaws.Fault{Code: c.code, Status: 500}))
		e.server.Reset()
		_, err := e.Get(ctx, name)
		is(t, c.code, err, c.class)
		if n := e.server.Count()["GetSecretValue"]; n != c.attempts {
			t.Errorf("%s: %d attempts were made, want %d", c.code, n, c.attempts)
		}
	}
	e.server.Inject(on("PutSecretValue", 0, fakeaws.Fault{Code: "ThrottlingException"}))
	e.server.Reset()
	_, err := e.Update(ctx, name, base, driver.Payload{Data: []byte("another")})
	is(t, "Update", err, driver.ErrThrottled)
	if n := e.server.Count()["PutSecretValue"]; n != 1 {
		t.Errorf("Update: %d attempts were made, want 1", n)
	}
}

func TestUpdateVersionQuota(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil, nil, once)
	s := e.create("0")
	for i := range 99 {
		s = e.update(s, fmt.Sprint(i+1))
	}
	_, err := e.Update(t.Context(), name, s, driver.Payload{Data: []byte("more")})
	is(t, "Update beyond the quota", err, driver.ErrUnavailable)
	e.holds(s)
	e.server.Advance(24 * time.Hour)
	if s, err = e.Get(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	e.holds(e.update(s, "on the next day"))
}

func TestCallsEndWithTheirContext(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil, nil)
	base := e.create("a record", label("user", 'a', 'a'))
	next := driver.Payload{Data: []byte("next"), Labels: []driver.Label{label("user", 'b', 'b')}}
	for what, call := range map[string]func(ctx context.Context) error{
		"Get":    func(ctx context.Context) error { _, err := e.Get(ctx, name); return err },
		"Fresh":  func(ctx context.Context) error { _, err := e.Fresh(ctx, name, base); return err },
		"Create": func(ctx context.Context) error { _, err := e.Create(ctx, "other", next); return err },
		"Update": func(ctx context.Context) error { _, err := e.Update(ctx, name, base, next); return err },
		"Delete": func(ctx context.Context) error { return e.Delete(ctx, name, base) },
		"Lookup": func(ctx context.Context) error { _, err := all(e.Lookup(ctx, base.Labels)); return err },
		"List":   func(ctx context.Context) error { _, err := all(e.List(ctx)); return err },
		"Names":  func(ctx context.Context) error { _, err := all(e.Names(ctx)); return err },
	} {
		ctx, cancel := context.WithCancel(t.Context())
		never := make(chan struct{})
		e.server.Inject(func(*fakeaws.Request) *fakeaws.Fault {
			cancel()
			return &fakeaws.Fault{Wait: never}
		})
		is(t, what+" whose context is canceled while it waits", call(ctx), context.Canceled)
		e.server.Inject(nil)
		cancel()
	}
}

func TestClientTimeout(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil, nil, once, func(o *secretsmanager.Options) {
		o.HTTPClient = &http.Client{Timeout: 20 * time.Millisecond}
	})
	e.server.Inject(on("GetSecretValue", 0, fakeaws.Fault{Wait: make(chan struct{})}))
	_, err := e.Get(t.Context(), name)
	is(t, "Get", err, driver.ErrUnavailable)
	if errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the error %v matches that of a context", err)
	}
}

func TestWhatIsNotSecretsManagerIsUnavailable(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil, nil, once)
	const canary = "1000.canary.canary"
	base := e.create("a record")
	for what, f := range map[string]fakeaws.Fault{
		"a page":                    {Status: 200, Body: "<html>" + canary},
		"a page of a bad gateway":   {Status: 502, Body: "<html>" + canary},
		"half an answer":            {Status: 200, Body: `{"SecretBinary": "` + canary},
		"an answer of another kind": {Status: 200, Body: `{"SecretBinary": {"` + canary + `": 1}}`},
		"an answer without parts":   {Status: 200, Body: `{}`},
		"no answer":                 {Drop: true},
	} {
		for _, operation := range []string{"GetSecretValue", "CreateSecret"} {
			e.server.Inject(on(operation, 0, f))
			_, err := e.Get(t.Context(), name)
			if operation == "CreateSecret" {
				_, err = e.Create(t.Context(), "other", driver.Payload{Data: []byte(canary)})
			}
			is(t, operation+" that is answered by "+what, err, driver.ErrUnavailable)
			if err != nil && strings.Contains(fmt.Sprintf("%v %+v %#v", err, err, err), canary) {
				t.Errorf("the error of %s that is answered by %s repeats it", operation, what)
			}
		}
	}
	e.server.Inject(nil)
	e.holds(base)
}

func TestPolicyMinimal(t *testing.T) {
	t.Parallel()
	for what, opts := range map[string]*awssm.Options{
		"by default":                  nil,
		"with a key":                  {KMSKeyID: "arn:aws:kms:us-east-1:" + fakeaws.Account + ":key/oauth", Tags: map[string]string{"team": "crm"}},
		"where deleted ones are kept": {KeepDeleted: true},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			document := awssm.Policy("us-east-1", fakeaws.Account, app, opts)
			if err := exercise(t, document, opts); err != nil {
				t.Fatalf("with the whole policy: %v", err)
			}
			actions := regexp.MustCompile(`"(secretsmanager|kms):[A-Za-z]+"`).FindAllString(document, -1)
			if len(actions) < 8 {
				t.Fatalf("the policy has the actions %q", actions)
			}
			for _, action := range actions {
				less := strings.Replace(document, action, `"secretsmanager:CancelRotateSecret"`, 1)
				if err := exercise(t, less, opts); !errors.Is(err, driver.ErrDenied) {
					t.Errorf("without %s the error is %v, want ErrDenied", action, err)
				}
			}
			for _, resource := range []string{":" + fakeaws.Account + ":", "us-east-1", app + "/", "tokenkeep:"} {
				less := strings.ReplaceAll(document, resource, ":other:")
				if err := exercise(t, less, opts); !errors.Is(err, driver.ErrDenied) {
					t.Errorf("with another %q the error is %v, want ErrDenied", resource, err)
				}
			}
		})
	}
}

// exercise makes each kind of call that a driver makes, with the permissions in document, and
// returns the first error.
func exercise(t *testing.T, document string, opts *awssm.Options) error {
	e := newEnv(t, nil, opts)
	if err := e.server.Policy("app", document); err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	first := driver.Payload{Data: []byte("1"), Labels: []driver.Label{label("user", 'a', 'a')}}
	v, err := e.Create(ctx, name, first)
	if err != nil {
		return err
	}
	s, err := e.Fresh(ctx, name, driver.Secret{Version: v})
	if err != nil {
		return err
	}
	s.Labels = first.Labels
	second := driver.Payload{Data: []byte("2"), Labels: []driver.Label{label("user", 'b', 'b')}}
	if v, err = e.Update(ctx, name, s, second); err != nil {
		return err
	}
	for _, keys := range e.tagsAs("operator") {
		if strings.Contains(keys, strings.Repeat("a", 32)) {
			return fmt.Errorf("%w: a label that is gone is still there", driver.ErrDenied)
		}
	}
	if _, err := all(e.Lookup(ctx, second.Labels)); err != nil {
		return err
	}
	if _, err := all(e.Names(ctx)); err != nil {
		return err
	}
	if err := e.Delete(ctx, name, driver.Secret{Payload: second, Version: v}); err != nil {
		return err
	}
	// An operator has scheduled the secret of the record b for deletion.
	operator := newClient(t, e.server.URL, "operator")
	if _, err := operator.CreateSecret(ctx, &secretsmanager.CreateSecretInput{Name: aws.String(app + "/b"), SecretString: aws.String("x")}); err != nil {
		t.Fatal(err)
	}
	if _, err := operator.DeleteSecret(ctx, &secretsmanager.DeleteSecretInput{SecretId: aws.String(app + "/b")}); err != nil {
		t.Fatal(err)
	}
	_, err = e.Create(ctx, "b", first)
	if opts != nil && opts.KeepDeleted && errors.Is(err, driver.ErrUnavailable) {
		return nil
	}
	return err
}

// tagsAs is like tags, but reads with the permissions of principal.
func (e *env) tagsAs(principal string) []string {
	e.Helper()
	other := *e
	other.client = newClient(e, e.server.URL, principal)
	return other.tags()
}

func TestPolicyDocumented(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	text := regexp.MustCompile(`(?m)^//\t?`).ReplaceAllString(string(doc), "")
	if want := awssm.Policy("eu-central-1", "123456789012", "oauth/crm", nil); !strings.Contains(text, want) {
		t.Errorf("the documentation does not have the policy\n%s", want)
	}
}

func TestSourceWithoutEndpoints(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) < 5 {
		t.Fatalf("the files are %q, error %v", files, err)
	}
	// Prefixes of regions, such as "cn-", are allowed, and ARNs in comments are examples.
	static := regexp.MustCompile(`"[^"\n]*((us|eu|ap|sa|ca|me|af|il|mx)-[a-z]+-[0-9]|amazonaws\.com|https?://|A[KS]IA[A-Z0-9]{8})[^"\n]*"`)
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(source)) {
			if !strings.HasPrefix(line, "//") && static.MatchString(line) {
				t.Errorf("%s: %s", file, line)
			}
		}
	}
}

// TestListDeniedDeeperPrefix checks that List yields all records even if the secrets of another
// program under a deeper prefix are inaccessible.
func TestListDeniedDeeperPrefix(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil, nil)
	e.create("mine")
	deeper, err := awssm.NewDriver(newClient(t, e.server.URL, "another"), app+"/eu", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := deeper.Create(t.Context(), name, driver.Payload{Data: []byte("another's")}); err != nil {
		t.Fatal(err)
	}
	if err := e.server.Policy("app", `{"Version":"2012-10-17","Statement":[
		{"Sid":"a","Effect":"Allow","Action":["secretsmanager:GetSecretValue","secretsmanager:DescribeSecret"],"Resource":"arn:aws:secretsmanager:*:*:secret:oauth/crm/u*"},
		{"Sid":"b","Effect":"Allow","Action":["secretsmanager:BatchGetSecretValue","secretsmanager:ListSecrets"],"Resource":"*"}]}`); err != nil {
		t.Fatal(err)
	}
	if n, err := all(e.List(t.Context())); n != 1 || err != nil {
		t.Errorf("List yields %d and error %v, want 1", n, err)
	}
}
