package gcpsm

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	secretmanager "cloud.google.com/go/secretmanager/apiv1"
	"cloud.google.com/go/secretmanager/apiv1/secretmanagerpb"
	"github.com/googleapis/gax-go/v2"
	"google.golang.org/api/iterator"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/driverkit"
)

// A service makes calls about the secrets with a prefix. Each method makes at most one call, not
// counting repetitions, with these exceptions: list makes one call for each page, and create and
// add make a second call to undo a write that the server did not store completely.
type service struct {
	client *secretmanager.Client
	parent string
	prefix string // including the '-' before the name of a record
}

// path returns the resource name of the named secret. The service may return another resource name
// for the same secret, with the project's number in place of its ID.
func (s *service) path(name string) string { return s.parent + "/secrets/" + s.prefix + name }

func (s *service) version(name string, number int64) string {
	return s.path(name) + "/versions/" + strconv.FormatInt(number, 10)
}

func last(resource string) string { return resource[strings.LastIndexByte(resource, '/')+1:] }

// Pauses and limits of retries. The client itself retries only AccessSecretVersion, after a
// first pause of up to two seconds.
const (
	firstPause = 100 * time.Millisecond
	lastPause  = 3 * time.Second
	retryFor   = 20 * time.Second
	leastTime  = 200 * time.Millisecond // minimum time for an attempt
)

// A retryer repeats a call that failed with one of the given codes, unless the class of the error
// is driver.ErrRefused. The retryer stops if less than leastTime would remain for the next attempt.
// The caller then gets the cause of the failure rather than a context error.
type retryer struct {
	codes   []codes.Code
	none    bool // if true, throttled calls are not repeated
	backoff gax.Backoff
	until   time.Time
}

// Retry implements gax.Retryer.
func (r *retryer) Retry(err error) (time.Duration, bool) {
	if !slices.Contains(r.codes, code(err)) || errors.Is(classify("", err), driver.ErrRefused) {
		return 0, false
	}
	if r.none && code(err) == codes.ResourceExhausted {
		return 0, false
	}
	pause := r.backoff.Pause()
	return pause, time.Now().Add(pause + leastTime).Before(r.until)
}

// The list reading holds the codes after which the driver repeats a read, and the list writing
// holds the codes after which it repeats a write. The driver repeats a write only if the service
// certainly did not apply the write. The service would refuse the repetition of an applied write,
// and the driver would mistake that refusal for the success of another writer.
var (
	reading = []codes.Code{codes.Unavailable, codes.ResourceExhausted}
	writing = []codes.Code{codes.ResourceExhausted}
)

func repeat(ctx context.Context, after []codes.Code) gax.CallOption {
	until := time.Now().Add(retryFor)
	if deadline, ok := ctx.Deadline(); ok && deadline.Before(until) {
		until = deadline
	}
	return gax.WithRetry(func() gax.Retryer {
		return &retryer{after, !driver.Retries(ctx), gax.Backoff{Initial: firstPause, Max: lastPause, Multiplier: 1.5}, until}
	})
}

// call makes one call about the secret with the given ID, and repeats the call if the error has one
// of the given codes. The parameter sent is the data in the request, which the error does not
// quote.
func call[In, Out any](
	ctx context.Context, method, id string, after []codes.Code,
	do func(context.Context, In, ...gax.CallOption) (Out, error), in In, sent []byte,
) (Out, error) {
	if err := ctx.Err(); err != nil {
		return *new(Out), err
	}
	out, err := do(ctx, in, repeat(ctx, after))
	if err != nil {
		return *new(Out), callError(ctx, method, id, err, sent)
	}
	return out, nil
}

// read returns one version with its data. id is the number of the version, or an alias. The error
// matches ErrCorrupt if the payload does not have the form that this package writes, and
// ErrUnavailable if the payload was damaged in transit.
func (s *service) read(ctx context.Context, name, id string) (state, error) {
	const method = "AccessSecretVersion"
	r, err := call(ctx, method, s.prefix+name, reading, s.client.AccessSecretVersion,
		&secretmanagerpb.AccessSecretVersionRequest{Name: s.path(name) + "/versions/" + id}, nil)
	if err != nil {
		return state{}, err
	}
	p := r.GetPayload()
	if p == nil || p.DataCrc32C != nil && p.GetDataCrc32C() != checksum(p.GetData()) {
		return state{}, fmt.Errorf("%w: %s %q: the payload was damaged in transit", driver.ErrUnavailable, method, s.prefix+name)
	}
	number, err := strconv.ParseInt(last(r.GetName()), 10, 64)
	incarnation, data, ok := decode(p.GetData())
	if err != nil || !ok {
		return state{}, fmt.Errorf("%w: %s %q: version %s was not written by this program", driver.ErrCorrupt, method, s.prefix+name, last(r.GetName()))
	}
	return state{incarnation: incarnation, number: number, digest: digest(data), data: data}, nil
}

// readNumber reads a version by its number. Such a read never lags.
func (s *service) readNumber(ctx context.Context, name string, number int64) (state, error) {
	return s.read(ctx, name, strconv.FormatInt(number, 10))
}

// describe returns metadata of a secret. The metadata may be stale.
func (s *service) describe(ctx context.Context, name string) (metadata, error) {
	m, err := call(ctx, "GetSecret", s.prefix+name, reading, s.client.GetSecret, &secretmanagerpb.GetSecretRequest{Name: s.path(name)}, nil)
	if err != nil {
		return metadata{}, err
	}
	return metadataOf(m), nil
}

// describeVersion returns the metadata of a version, or nil if the version does not exist. The
// metadata may be stale.
func (s *service) describeVersion(ctx context.Context, name string, number int64) (*secretmanagerpb.SecretVersion, error) {
	v, err := call(ctx, "GetSecretVersion", s.prefix+name, reading, s.client.GetSecretVersion,
		&secretmanagerpb.GetSecretVersionRequest{Name: s.version(name, number)}, nil)
	if errors.Is(err, driver.ErrNotFound) {
		return nil, nil
	}
	return v, err
}

// create creates a secret without a version. If the response shows that the server did not store
// all fields, create deletes the secret, and the error matches errDrops.
func (s *service) create(ctx context.Context, name string, m *secretmanagerpb.Secret) (metadata, error) {
	const method = "CreateSecret"
	made, err := call(ctx, method, s.prefix+name, writing, s.client.CreateSecret,
		&secretmanagerpb.CreateSecretRequest{Parent: s.parent, SecretId: s.prefix + name, Secret: m}, nil)
	if err != nil {
		return metadata{}, err
	}
	if what := dropped(m, made, "annotations"); what != "" {
		_ = s.remove(ctx, name, made.GetEtag())
		return metadata{}, s.drops(method, name, what)
	}
	return metadataOf(made), nil
}

// dropped returns the description of one of the given fields that the server did not store as sent,
// or "" if the server stored all given fields. dropped returns "etags" if the etag is empty or has
// not changed, because each write changes the etag.
func dropped(sent, got *secretmanagerpb.Secret, fields ...string) string {
	if got.GetEtag() == "" || got.GetEtag() == sent.GetEtag() {
		return "etags"
	}
	for _, f := range fields {
		switch {
		case f == "annotations" && got.GetAnnotations()[annotation] != sent.GetAnnotations()[annotation]:
			return f
		case f == "labels" && !contains(got.GetLabels(), sent.GetLabels()):
			return f
		case f == "version_aliases" && !contains(got.GetVersionAliases(), sent.GetVersionAliases()):
			return "version aliases"
		}
	}
	return ""
}

func contains[V comparable](have, want map[string]V) bool {
	for k, v := range want {
		if got, ok := have[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// errDrops means that the server emulates Secret Manager only in part. The server did not store all
// fields of a write, returned no number or etag for a version, or accepted an outdated etag.
var errDrops = fmt.Errorf("%w: the server does not store everything that is written", driver.ErrRefused)

func (s *service) drops(method, name, what string) error {
	return fmt.Errorf("%w: %s %q: its answer is without the %s that were sent", errDrops, method, s.prefix+name, what)
}

type added struct {
	number int64
	etag   string
	at     time.Time
}

// add adds a version. If the response has no number or no etag, the error matches errDrops.
// If only the etag is missing, add destroys the version.
func (s *service) add(ctx context.Context, name string, payload []byte) (added, error) {
	const method = "AddSecretVersion"
	sum := checksum(payload)
	v, err := call(ctx, method, s.prefix+name, writing, s.client.AddSecretVersion, &secretmanagerpb.AddSecretVersionRequest{
		Parent:  s.path(name),
		Payload: &secretmanagerpb.SecretPayload{Data: payload, DataCrc32C: &sum},
	}, payload)
	if err != nil {
		return added{}, err
	}
	number, err := strconv.ParseInt(last(v.GetName()), 10, 64)
	if err != nil || number < 1 {
		return added{}, fmt.Errorf("%w: %s %q: its answer names no version", errDrops, method, s.prefix+name)
	}
	if v.GetEtag() == "" {
		_ = s.destroy(ctx, name, number, "")
		return added{}, fmt.Errorf("%w: %s %q: its answer has no etag", errDrops, method, s.prefix+name)
	}
	return added{number, v.GetEtag(), v.GetCreateTime().AsTime()}, nil
}

// update replaces the given fields of a secret with the fields of m if the etag of m is current.
// Otherwise the error matches ErrConflict. If the secret does not exist, the error matches
// ErrNotFound. If the response shows that the server did not store the fields, the error matches
// errDrops.
func (s *service) update(ctx context.Context, name string, m *secretmanagerpb.Secret, fields ...string) (metadata, error) {
	const method = "UpdateSecret"
	m.Name = s.path(name)
	updated, err := call(ctx, method, s.prefix+name, writing, s.client.UpdateSecret,
		&secretmanagerpb.UpdateSecretRequest{Secret: m, UpdateMask: &fieldmaskpb.FieldMask{Paths: fields}}, nil)
	if err != nil {
		return metadata{}, err
	}
	if what := dropped(m, updated, fields...); what != "" {
		return metadata{}, s.drops(method, name, what)
	}
	return metadataOf(updated), nil
}

// remove deletes a secret if it has the given etag, or if etag is empty. Otherwise the error
// matches ErrConflict. If the secret does not exist, the error matches ErrNotFound.
func (s *service) remove(ctx context.Context, name, etag string) error {
	do := func(ctx context.Context, in *secretmanagerpb.DeleteSecretRequest, opts ...gax.CallOption) (struct{}, error) {
		return struct{}{}, s.client.DeleteSecret(ctx, in, opts...)
	}
	_, err := call(ctx, "DeleteSecret", s.prefix+name, writing, do, &secretmanagerpb.DeleteSecretRequest{Name: s.path(name), Etag: etag}, nil)
	return err
}

// destroy destroys a version if it has the given etag, or if etag is empty. The error matches
// ErrConflict if the etag differs or the version is already destroyed, and ErrNotFound if the
// version does not exist.
func (s *service) destroy(ctx context.Context, name string, number int64, etag string) error {
	_, err := call(ctx, "DestroySecretVersion", s.prefix+name, writing, s.client.DestroySecretVersion,
		&secretmanagerpb.DestroySecretVersionRequest{Name: s.version(name, number), Etag: etag}, nil)
	return err
}

// list calls f with the name and metadata of each secret that the service lists for filter. list
// skips secrets without the prefix, and secrets whose names are not legal names of records. The
// service's list may lag. If f returns false, list stops and returns nil.
func (s *service) list(ctx context.Context, filter string, f func(name string, m metadata) bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	it := s.client.ListSecrets(ctx, &secretmanagerpb.ListSecretsRequest{
		Parent: s.parent, Filter: filter, PageSize: maxPage,
	}, repeat(ctx, reading))
	for {
		m, err := it.Next()
		if errors.Is(err, iterator.Done) {
			return nil
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return callError(ctx, "ListSecrets", strings.TrimSuffix(s.prefix, "-"), err, nil)
		}
		if name, ok := strings.CutPrefix(last(m.GetName()), s.prefix); ok && driverkit.LegalName(name) && !f(name, metadataOf(m)) {
			return nil
		}
	}
}

// all returns a filter that matches all secrets with the prefix of s, and possibly other
// secrets.
func (s *service) all() string { return "name:" + s.prefix }

// maxPage is the maximum number of secrets in one page of a list.
const maxPage = 25000

var castagnoli = sync.OnceValue(func() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) })

func checksum(data []byte) int64 { return int64(crc32.Checksum(data, castagnoli())) }
