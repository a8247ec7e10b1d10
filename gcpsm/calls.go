package gcpsm

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strconv"
	"strings"
	"time"

	secretmanager "cloud.google.com/go/secretmanager/apiv1"
	"cloud.google.com/go/secretmanager/apiv1/secretmanagerpb"
	"github.com/googleapis/gax-go/v2"
	"google.golang.org/api/iterator"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// A service makes calls about the secrets that have a prefix.
type service struct {
	client *secretmanager.Client
	parent string
	prefix string // with the '-' that names come after
}

// path returns the resource name of a secret. The service may answer with
// another one, which has the project's number in the place of its ID.
func (s *service) path(name string) string { return s.parent + "/secrets/" + s.prefix + name }

func (s *service) version(name, id string) string { return s.path(name) + "/versions/" + id }

// last returns what a resource name ends with.
func last(resource string) string { return resource[strings.LastIndexByte(resource, '/')+1:] }

// Retries. The client's own begin after two seconds, and there are some for
// AccessSecretVersion alone.
const (
	firstPause = 100 * time.Millisecond
	lastPause  = 3 * time.Second
	retryFor   = 20 * time.Second
	leastTime  = 200 * time.Millisecond // of an attempt
)

// A retryer repeats a call that failed with one of the codes, unless its class says
// that it will go on failing, for as long as the next attempt would still have time
// for an answer: what the caller learns is then why it failed, and not that its
// context has ended.
type retryer struct {
	codes   []codes.Code
	backoff gax.Backoff
	until   time.Time
}

// Retry implements gax.Retryer.
func (r *retryer) Retry(err error) (time.Duration, bool) {
	if !slices.Contains(r.codes, code(err)) || errors.Is(class("", err), driver.ErrRefused) {
		return 0, false
	}
	pause := r.backoff.Pause()
	return pause, time.Now().Add(pause + leastTime).Before(r.until)
}

// reading are the codes after which a read is repeated. A write is repeated only
// if it was turned away: one that may have been applied would be refused when it
// is repeated, as if another writer had come first.
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
		return &retryer{after, gax.Backoff{Initial: firstPause, Max: lastPause, Multiplier: 2}, until}
	})
}

// access returns a version and its payload, by its number or by an alias.
func (s *service) access(ctx context.Context, name, id string) (state, error) {
	const method = "AccessSecretVersion"
	if err := ctx.Err(); err != nil {
		return state{}, err
	}
	r, err := s.client.AccessSecretVersion(ctx, &secretmanagerpb.AccessSecretVersionRequest{Name: s.version(name, id)}, repeat(ctx, reading))
	if err != nil {
		return state{}, failed(ctx, method, s.prefix+name, err, nil)
	}
	p := r.GetPayload()
	if p == nil || p.DataCrc32C != nil && p.GetDataCrc32C() != checksum(p.GetData()) {
		return state{}, fmt.Errorf("%w: %s %q: the payload was damaged on its way", driver.ErrUnavailable, method, s.prefix+name)
	}
	number, err := strconv.ParseInt(last(r.GetName()), 10, 64)
	life, data, ok := unframe(p.GetData())
	if err != nil || !ok {
		return state{}, fmt.Errorf("%w: %s %q: version %s was not written by this program", driver.ErrCorrupt, method, s.prefix+name, last(r.GetName()))
	}
	return state{life: life, number: number, digest: digest(data), data: data}, nil
}

// accessNumber returns a version by its number, which is strongly consistent.
func (s *service) accessNumber(ctx context.Context, name string, number int64) (state, error) {
	return s.access(ctx, name, strconv.FormatInt(number, 10))
}

// get returns the metadata of a secret.
func (s *service) get(ctx context.Context, name string) (metadata, error) {
	if err := ctx.Err(); err != nil {
		return metadata{}, err
	}
	m, err := s.client.GetSecret(ctx, &secretmanagerpb.GetSecretRequest{Name: s.path(name)}, repeat(ctx, reading))
	if err != nil {
		return metadata{}, failed(ctx, "GetSecret", s.prefix+name, err, nil)
	}
	return read(m), nil
}

// create creates a secret without a version. A server whose answer shows that it
// has not kept what it was given is no place for a record: the secret is deleted,
// and the error matches ErrRefused.
func (s *service) create(ctx context.Context, name string, m *secretmanagerpb.Secret) (metadata, error) {
	const method = "CreateSecret"
	if err := ctx.Err(); err != nil {
		return metadata{}, err
	}
	made, err := s.client.CreateSecret(ctx, &secretmanagerpb.CreateSecretRequest{
		Parent: s.parent, SecretId: s.prefix + name, Secret: m,
	}, repeat(ctx, writing))
	if err != nil {
		return metadata{}, failed(ctx, method, s.prefix+name, err, nil)
	}
	if what := dropped(m, made, "annotations"); what != "" {
		_ = s.remove(ctx, name, made.GetEtag())
		return metadata{}, s.drops(method, name, what)
	}
	return read(made), nil
}

// dropped returns what a server has not kept of the fields that a write gave it,
// or "". An etag changes with each write, and is never empty.
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

// contains reports whether all of want is in have.
func contains[V comparable](have, want map[string]V) bool {
	for k, v := range want {
		if got, ok := have[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// errDrops means that the server has accepted a write and not kept all of it: it is
// an emulator of a part of Secret Manager.
var errDrops = fmt.Errorf("%w: the server does not keep what a store needs", driver.ErrRefused)

func (s *service) drops(method, name, what string) error {
	return fmt.Errorf("%w: %s %q: its answer is without the %s that were sent", errDrops, method, s.prefix+name, what)
}

// add adds a version. A server that gives it no number or no etag is refused as by
// create, and the version destroyed.
func (s *service) add(ctx context.Context, name string, payload []byte) (added, error) {
	if err := ctx.Err(); err != nil {
		return added{}, err
	}
	sum := checksum(payload)
	v, err := s.client.AddSecretVersion(ctx, &secretmanagerpb.AddSecretVersionRequest{
		Parent:  s.path(name),
		Payload: &secretmanagerpb.SecretPayload{Data: payload, DataCrc32C: &sum},
	}, repeat(ctx, writing))
	if err != nil {
		return added{}, failed(ctx, "AddSecretVersion", s.prefix+name, err, payload)
	}
	number, err := strconv.ParseInt(last(v.GetName()), 10, 64)
	if err != nil || number < 1 {
		return added{}, fmt.Errorf("%w: AddSecretVersion %q: its answer names no version", errDrops, s.prefix+name)
	}
	if v.GetEtag() == "" {
		_ = s.destroy(ctx, name, number, "")
		return added{}, fmt.Errorf("%w: AddSecretVersion %q: its answer has no etag", errDrops, s.prefix+name)
	}
	return added{number, v.GetEtag(), v.GetCreateTime().AsTime()}, nil
}

// An added is a version that has been added.
type added struct {
	number int64
	etag   string
	at     time.Time
}

// update replaces the given fields of a secret, if its etag is m's. If the answer
// shows that they were not kept the error matches errDrops.
func (s *service) update(ctx context.Context, name string, m *secretmanagerpb.Secret, fields ...string) (metadata, error) {
	const method = "UpdateSecret"
	if err := ctx.Err(); err != nil {
		return metadata{}, err
	}
	m.Name = s.path(name)
	updated, err := s.client.UpdateSecret(ctx, &secretmanagerpb.UpdateSecretRequest{
		Secret: m, UpdateMask: &fieldmaskpb.FieldMask{Paths: fields},
	}, repeat(ctx, writing))
	if err != nil {
		return metadata{}, failed(ctx, method, s.prefix+name, err, nil)
	}
	if what := dropped(m, updated, fields...); what != "" {
		return metadata{}, s.drops(method, name, what)
	}
	return read(updated), nil
}

// remove deletes a secret, if it has the etag.
func (s *service) remove(ctx context.Context, name, etag string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	err := s.client.DeleteSecret(ctx, &secretmanagerpb.DeleteSecretRequest{Name: s.path(name), Etag: etag}, repeat(ctx, writing))
	if err != nil {
		return failed(ctx, "DeleteSecret", s.prefix+name, err, nil)
	}
	return nil
}

// destroy destroys a version, if it has the etag.
func (s *service) destroy(ctx context.Context, name string, number int64, etag string) error {
	_, err := s.client.DestroySecretVersion(ctx, &secretmanagerpb.DestroySecretVersionRequest{
		Name: s.version(name, strconv.FormatInt(number, 10)), Etag: etag,
	}, repeat(ctx, writing))
	if err != nil {
		return failed(ctx, "DestroySecretVersion", s.prefix+name, err, nil)
	}
	return nil
}

// inspect returns what the service tells about a version, which may be behind; nil
// if there is none.
func (s *service) inspect(ctx context.Context, name string, number int64) (*secretmanagerpb.SecretVersion, error) {
	v, err := s.client.GetSecretVersion(ctx, &secretmanagerpb.GetSecretVersionRequest{
		Name: s.version(name, strconv.FormatInt(number, 10)),
	}, repeat(ctx, reading))
	if err != nil {
		if err = failed(ctx, "GetSecretVersion", s.prefix+name, err, nil); errors.Is(err, driver.ErrNotFound) {
			return nil, nil
		}
		return nil, err
	}
	return v, nil
}

// list calls f with the name and the metadata of every secret that has the prefix
// and, as far as the service can tell, matches the filter, until f returns false.
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
			return failed(ctx, "ListSecrets", strings.TrimSuffix(s.prefix, "-"), err, nil)
		}
		if name, ok := strings.CutPrefix(last(m.GetName()), s.prefix); ok && legalName.MatchString(name) && !f(name, read(m)) {
			return nil
		}
	}
}

// maxPage is the most secrets that the service puts into one answer.
const maxPage = 25000

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(data []byte) int64 { return int64(crc32.Checksum(data, castagnoli)) }
