package awssm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager/types"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/middleware"

	"github.com/tokenkeep/tokenkeep/internal/pace"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/driverkit"
)

const (
	stageCurrent = "AWSCURRENT"

	batchSize    = 20 // maximum number of secrets in one response to BatchGetSecretValue
	listSize     = 100
	filterValues = 10 // maximum number of values of one filter

	// aFewBatches is the number of consecutive batches after which List reads the remaining secrets
	// in concurrent batches. For concurrent batches, List must first list the secrets, with one
	// call for each hundred.
	aFewBatches = 2
)

// A service makes calls to Secrets Manager. Each method makes one call, except the methods that
// process several secrets, and the methods that find out why a secret cannot be read.
type service struct {
	client *secretsmanager.Client
	kms    string
	tags   map[string]string
	now    func() time.Time
}

// call makes one call with the client. If driver.Retries(ctx) is false, a throttled call fails
// immediately. The parameter sent is the data in the request, which the error does not quote.
func call[In, Out any](
	ctx context.Context, name string, do func(context.Context, *In, ...func(*secretsmanager.Options)) (*Out, error),
	in *In, sent []byte, opts ...func(*secretsmanager.Options),
) (*Out, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if !driver.Retries(ctx) {
		opts = append(slices.Clone(opts), impatiently)
	}
	out, err := do(ctx, in, opts...)
	if err != nil {
		return nil, callError(ctx, name, err, sent)
	}
	return out, nil
}

// impatiently is an option with which a throttled call fails immediately. The client still retries
// other failures.
func impatiently(o *secretsmanager.Options) {
	if o.Retryer == nil {
		return
	}
	// If no codes are given, AddWithErrorCodes only converts the Retryer to a RetryerV2.
	if same, ok := retry.AddWithErrorCodes(o.Retryer).(aws.RetryerV2); ok {
		o.Retryer = impatient{same}
	}
}

// An impatient is a Retryer that does not retry throttled calls.
type impatient struct{ aws.RetryerV2 }

// IsErrorRetryable implements aws.Retryer.
func (i impatient) IsErrorRetryable(err error) bool {
	return i.RetryerV2.IsErrorRetryable(err) && !errors.Is(classify(err), driver.ErrThrottled)
}

// read returns one version of the secret at path. The parameter secret is the path or the ARN by
// which the call identifies the secret. If id is empty, read returns the current version. Otherwise
// read returns the version with that ID. If the version is not a record, the err field of the state
// says why. If the secret or the version does not exist, the error matches ErrNotFound.
func (s *service) read(ctx context.Context, path, secret, id string) (state, error) {
	in := &secretsmanager.GetSecretValueInput{SecretId: &secret}
	if id != "" {
		in.VersionId = &id
	} else {
		in.VersionStage = aws.String(stageCurrent)
	}
	out, err := call(ctx, "GetSecretValue", s.client.GetSecretValue, in, nil)
	if err != nil {
		return state{}, err
	}
	p := place{aws.ToString(out.ARN), aws.ToString(out.VersionId)}
	if p.arn == "" || p.id == "" {
		return state{}, fmt.Errorf("%w: GetSecretValue: the answer names no version", driver.ErrUnavailable)
	}
	return decode(path, p, out.CreatedDate, value{out.SecretString, out.SecretBinary}), nil
}

// A vacantError means that a secret has no version, because another tool created the secret without
// a value.
type vacantError struct{ arn string }

// Error returns a text that names the secret.
func (v vacantError) Error() string { return "the secret " + v.arn + " has no value" }

// unvalued examines the secret if err, the error that a read returned, means that the version is
// missing. If no version of the secret is current, the result matches ErrCorrupt. If the secret has
// no version at all, the result also wraps a vacantError. Otherwise unvalued returns err, or an
// error matching ctx.Err() if ctx is done.
func (s *service) unvalued(ctx context.Context, secret string, err error) error {
	if !errors.Is(err, errNoVersion) && !errors.Is(err, errNoCurrent) {
		return err
	}
	out, unknown := s.describe(ctx, secret)
	switch {
	case unknown != nil && ctx.Err() != nil:
		return unknown
	case unknown != nil, out.DeletedDate != nil:
		return err
	case len(out.VersionIdsToStages) == 0:
		return fmt.Errorf("%w: %w", driver.ErrCorrupt, vacantError{aws.ToString(out.ARN)})
	}
	for _, stages := range out.VersionIdsToStages {
		if slices.Contains(stages, stageCurrent) {
			return err // the secret has a current version, so the read was stale
		}
	}
	return fmt.Errorf("%w: the secret %s has versions, and none is the current one", driver.ErrCorrupt, aws.ToString(out.ARN))
}

// create creates the secret at path. The error matches ErrExists if the secret exists, and
// ErrNotFound while the service deletes an earlier secret with that path.
func (s *service) create(ctx context.Context, path string, v value, labels []types.Tag) (place, error) {
	id := first(path)
	in := &secretsmanager.CreateSecretInput{
		Name: &path, SecretString: v.text, SecretBinary: v.bytes, Tags: labels, ClientRequestToken: &id,
	}
	if s.kms != "" {
		in.KmsKeyId = &s.kms
	}
	for _, key := range slices.Sorted(maps.Keys(s.tags)) {
		in.Tags = append(in.Tags, types.Tag{Key: aws.String(key), Value: aws.String(s.tags[key])})
	}
	out, err := call(ctx, "CreateSecret", s.client.CreateSecret, in, v.sent())
	if err != nil {
		return place{}, err
	}
	p := place{aws.ToString(out.ARN), aws.ToString(out.VersionId)}
	if p.arn == "" {
		return place{}, fmt.Errorf("%w: CreateSecret: the answer names no secret", driver.ErrUnavailable)
	}
	return p, kept("CreateSecret", id, p.id)
}

// kept returns an error matching ErrRefused if the ID of a new version is not the requested ID. A
// server that assigns IDs itself does not refuse a second write over the same version.
func kept(call, asked, got string) error {
	if asked == got {
		return nil
	}
	return fmt.Errorf("%w: %s: the answer names the version %q where %q was asked for: this server cannot arbitrate between two writers",
		driver.ErrRefused, call, got, asked)
}

// put stores v as the version at the given place. The error matches ErrConflict if another writer
// has stored a different value under that version ID. The error is of the type rejected only if v
// was not stored and will not be stored later.
func (s *service) put(ctx context.Context, at place, v value) error {
	clean := ctx.Err() != nil // if ctx is done, nothing is sent
	out, err := call(ctx, "PutSecretValue", s.client.PutSecretValue, &secretsmanager.PutSecretValueInput{
		SecretId: &at.arn, ClientRequestToken: &at.id, SecretString: v.text, SecretBinary: v.bytes,
	}, v.sent(), cleanly(&clean))
	switch {
	case err == nil:
		return kept("PutSecretValue", at.id, aws.ToString(out.VersionId))
	case errors.Is(err, driver.ErrExists):
		return rejected{fmt.Errorf("%w: %s: another writer came first", driver.ErrConflict, at.arn)}
	case clean:
		return rejected{err}
	}
	return err
}

// A rejected wraps the error from a write that was not applied and never will be.
type rejected struct{ error }

// Unwrap returns the wrapped error.
func (r rejected) Unwrap() error { return r.error }

// cleanly returns an option for a call. At the end of the call, the option sets *clean to true if
// the service refused every attempt, and otherwise to false. An attempt that got no response, or
// failed with an internal error of the service, may have been applied even if the next attempt is
// refused.
func cleanly(clean *bool) func(*secretsmanager.Options) {
	watch := middleware.InitializeMiddlewareFunc("tokenkeepRefusals", func(
		ctx context.Context, in middleware.InitializeInput, next middleware.InitializeHandler,
	) (middleware.InitializeOutput, middleware.Metadata, error) {
		out, metadata, err := next.HandleInitialize(ctx, in)
		attempts, ok := retry.GetAttemptResults(metadata)
		*clean = ok && len(attempts.Results) > 0 && !slices.ContainsFunc(attempts.Results, func(a retry.AttemptResult) bool {
			return !refusal(a.Err)
		})
		return out, metadata, err
	})
	return func(o *secretsmanager.Options) {
		o.APIOptions = append(o.APIOptions, func(stack *middleware.Stack) error {
			return stack.Initialize.Add(watch, middleware.Before)
		})
	}
}

// attach adds tags to a secret.
func (s *service) attach(ctx context.Context, arn string, tags []types.Tag) error {
	_, err := call(ctx, "TagResource", s.client.TagResource, &secretsmanager.TagResourceInput{SecretId: &arn, Tags: tags}, nil)
	return err
}

// detach removes the tags with the given keys from a secret. If the removal fails, clean reports
// whether the service certainly refused it.
func (s *service) detach(ctx context.Context, arn string, keys []string) (clean bool, err error) {
	clean = ctx.Err() != nil // if ctx is done, nothing is sent
	_, err = call(ctx, "UntagResource", s.client.UntagResource,
		&secretsmanager.UntagResourceInput{SecretId: &arn, TagKeys: keys}, nil, cleanly(&clean))
	return clean && err != nil, err
}

// describe returns the metadata of a secret, even if the secret is marked for deletion.
func (s *service) describe(ctx context.Context, secret string) (*secretsmanager.DescribeSecretOutput, error) {
	return call(ctx, "DescribeSecret", s.client.DescribeSecret, &secretsmanager.DescribeSecretInput{SecretId: &secret}, nil)
}

// remove deletes a secret without a recovery window. remove returns nil if the secret does not
// exist.
func (s *service) remove(ctx context.Context, arn string) error {
	_, err := call(ctx, "DeleteSecret", s.client.DeleteSecret, &secretsmanager.DeleteSecretInput{
		SecretId: &arn, ForceDeleteWithoutRecovery: aws.Bool(true),
	}, nil)
	if errors.Is(err, driver.ErrNotFound) {
		return nil
	}
	return err
}

// below returns the filter for secrets under a prefix.
func below(prefix string) types.Filter {
	return types.Filter{Key: types.FilterNameStringTypeName, Values: []string{prefix + "/"}}
}

// batch calls each(st) with the state st of every secret that matches the filters. If a secret
// cannot be read, the err field of its state is the reason. batch leaves out secrets that were
// deleted after the service had listed them. If a callback returns an error, batch stops and
// returns that error.
func (s *service) batch(ctx context.Context, filters []types.Filter, each func(state) error) error {
	return s.batches(ctx, filters, func(states []state, _ bool) error { return forEach(states, each) })
}

// errMany means that secrets remain after the first aFewBatches batches.
var errMany = errors.New("the search has more results")

// all is like batch, but covers every secret under the given prefix. After the first aFewBatches
// batches, the method reads the remaining secrets in concurrent batches. The concurrent batches
// leave out secrets for which ours(path) is false.
func (s *service) all(ctx context.Context, prefix string, ours func(path string) bool, each func(state) error) error {
	filters, seen, batches := []types.Filter{below(prefix)}, map[string]bool{}, 0
	err := s.batches(ctx, filters, func(states []state, more bool) error {
		for _, st := range states {
			seen[st.path] = true
		}
		if err := forEach(states, each); err != nil {
			return err
		}
		if batches++; batches == aFewBatches && more && driver.Retries(ctx) {
			return errMany
		}
		return nil
	})
	if !errors.Is(err, errMany) {
		return err
	}
	return s.rest(ctx, filters, func(path string) bool { return ours(path) && !seen[path] }, each)
}

// rest calls each(st) with the state st of every secret that matches the filters, but leaves out
// secrets for which wanted(path) is false. rest lists the secrets in pages, and meanwhile reads the
// listed secrets in concurrent batches. If the service throttles the batches, rest slows down.
func (s *service) rest(ctx context.Context, filters []types.Filter, wanted func(path string) bool, each func(state) error) error {
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	found, failed := make(chan []state), make(chan error, 1)
	read := func(entries []types.SecretListEntry) func(context.Context) error {
		return func(ctx context.Context) error {
			states, err := s.readAll(ctx, entries)
			if err != nil {
				return err
			}
			select {
			case found <- states:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	pacer := pace.New(func(err error) bool { return errors.Is(err, driver.ErrThrottled) }, driverkit.Width)
	go func() {
		defer close(found)
		failed <- pacer.All(inner, func(yield func(func(context.Context) error, error) bool) {
			for page, err := range s.pages(inner, &secretsmanager.ListSecretsInput{Filters: filters, MaxResults: aws.Int32(listSize)}) {
				if err != nil {
					yield(nil, err)
					return
				}
				page = slices.DeleteFunc(page, func(e types.SecretListEntry) bool { return !wanted(aws.ToString(e.Name)) })
				for entries := range slices.Chunk(page, batchSize) {
					if !yield(read(entries), nil) {
						return
					}
				}
			}
		})
	}()
	var ended error
	for states := range found {
		if ended == nil {
			if ended = forEach(states, each); ended != nil {
				cancel()
			}
		}
	}
	return cmp.Or(ended, ctx.Err(), <-failed)
}

// forEach calls each(st) for every element st of states. At the first error, forEach stops and
// returns that error.
func forEach(states []state, each func(state) error) error {
	for _, st := range states {
		if err := each(st); err != nil {
			return err
		}
	}
	return nil
}

// batches calls each(states, more) for every response to BatchGetSecretValue. The parameter states
// holds the states in the response, and more reports whether the service has more results.
func (s *service) batches(ctx context.Context, filters []types.Filter, each func(states []state, more bool) error) error {
	in := &secretsmanager.BatchGetSecretValueInput{Filters: filters, MaxResults: aws.Int32(batchSize)}
	for {
		out, err := call(ctx, "BatchGetSecretValue", s.client.BatchGetSecretValue, in, nil)
		if err != nil && ctx.Err() == nil && ofOneSecret(err) {
			return s.oneByOne(ctx, filters, each)
		}
		if err != nil {
			return err
		}
		states, err := s.statesOf(ctx, out)
		if err != nil {
			return err
		}
		in.NextToken = out.NextToken
		if err := each(states, in.NextToken != nil); err != nil || in.NextToken == nil {
			return err
		}
	}
}

// readAll returns the states of at most batchSize listed secrets. If the service throttles the
// call or the read of a secret, the error matches ErrThrottled.
func (s *service) readAll(ctx context.Context, entries []types.SecretListEntry) ([]state, error) {
	in := &secretsmanager.BatchGetSecretValueInput{}
	for _, e := range entries {
		in.SecretIdList = append(in.SecretIdList, aws.ToString(e.ARN))
	}
	ctx = driver.WithoutRetries(ctx)
	var states []state
	out, err := call(ctx, "BatchGetSecretValue", s.client.BatchGetSecretValue, in, nil)
	switch {
	case err != nil && ctx.Err() == nil && ofOneSecret(err),
		err == nil && len(out.SecretValues)+len(out.Errors) < len(entries): // the response omits secrets without giving a reason
		states, err = s.readEach(ctx, entries)
	case err == nil:
		states, err = s.statesOf(ctx, out)
	}
	for i, st := range states {
		states[i].read = s.now()
		if errors.Is(st.err, driver.ErrThrottled) {
			return nil, st.err
		}
	}
	return states, err
}

// statesOf returns the states in the response to a batch.
func (s *service) statesOf(ctx context.Context, out *secretsmanager.BatchGetSecretValueOutput) ([]state, error) {
	var states []state
	for _, e := range out.Errors {
		st := s.unread(ctx, e)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if st.err != nil {
			states = append(states, st)
		}
	}
	for _, v := range out.SecretValues {
		p := place{aws.ToString(v.ARN), aws.ToString(v.VersionId)}
		states = append(states, decode(aws.ToString(v.Name), p, v.CreatedDate, value{v.SecretString, v.SecretBinary}))
	}
	return states, ctx.Err()
}

// unread returns the state of a secret that a batch could not read. If the secret was deleted
// in the meantime, the err field of the state is nil.
func (s *service) unread(ctx context.Context, e types.APIErrorType) state {
	id := aws.ToString(e.SecretId)
	refused := error(&smithy.GenericAPIError{Code: aws.ToString(e.ErrorCode), Message: aws.ToString(e.Message)})
	err := s.unvalued(ctx, id, driverkit.CallError(ctx, refused, classify(refused)))
	if errors.Is(err, driver.ErrNotFound) {
		return state{}
	}
	return state{path: pathOf(id), err: fmt.Errorf("BatchGetSecretValue: %s: %w", pathOf(id), err)}
}

// ofOneSecret reports whether err, the error that a batch returned, may concern only one secret of
// the batch. Secrets Manager returns such errors together with the values of the other secrets. In
// LocalStack 4.14.0, the whole call fails if PutSecretValue has stored a binary version
// (InternalError, "Object of type bytes is not JSON serializable"). The whole call also fails if a
// secret has no value or is marked for deletion.
func ofOneSecret(err error) bool {
	var answer smithy.APIError
	return errors.Is(err, driver.ErrNotFound) || errors.As(err, &answer) && answer.ErrorCode() == "InternalError"
}

// oneByOne is like batches, but reads each secret with a separate call of GetSecretValue.
func (s *service) oneByOne(ctx context.Context, filters []types.Filter, each func(states []state, more bool) error) error {
	for page, err := range s.pages(ctx, &secretsmanager.ListSecretsInput{Filters: filters, MaxResults: aws.Int32(batchSize)}) {
		if err != nil {
			return err
		}
		states, err := s.readEach(ctx, page)
		if err != nil {
			return err
		}
		if err := each(states, false); err != nil {
			return err
		}
	}
	return nil
}

// readEach is like readAll, but reads each secret with a separate call of GetSecretValue.
func (s *service) readEach(ctx context.Context, entries []types.SecretListEntry) ([]state, error) {
	var states []state
	for st, err := range driverkit.Fetch(ctx, entries, s.readListed) {
		if err != nil {
			return nil, err
		}
		if deleted := st.tombstone == nil && errors.Is(st.err, driver.ErrNotFound); !deleted {
			states = append(states, st)
		}
	}
	return states, nil
}

// readListed returns the state of a listed secret. If the secret cannot be read, the err
// field of the state is the reason; the error of readListed is always nil.
func (s *service) readListed(ctx context.Context, e types.SecretListEntry) (state, error) {
	path := aws.ToString(e.Name)
	st, err := s.read(ctx, path, aws.ToString(e.ARN), "")
	if err = s.unvalued(ctx, aws.ToString(e.ARN), err); err != nil {
		st = state{path: path, err: fmt.Errorf("%s: %w", path, err)}
	}
	return st, nil
}

// pathOf returns the name of the secret with the given ARN, in which "-" and six characters follow
// the name. If the string is not an ARN, pathOf returns the string unchanged.
func pathOf(id string) string {
	_, path, ok := strings.Cut(id, ":secret:")
	if !ok {
		return id
	}
	const suffix = 7
	return path[:max(len(path)-suffix, 0)]
}

// pages yields each page of the list that the given input requests. pages modifies in.NextToken.
func (s *service) pages(ctx context.Context, in *secretsmanager.ListSecretsInput) iter.Seq2[[]types.SecretListEntry, error] {
	return func(yield func([]types.SecretListEntry, error) bool) {
		for {
			out, err := call(ctx, "ListSecrets", s.client.ListSecrets, in, nil)
			if err != nil {
				yield(nil, err)
				return
			}
			if in.NextToken = out.NextToken; !yield(out.SecretList, nil) || in.NextToken == nil {
				return
			}
		}
	}
}

// list yields the path of each secret whose path begins with prefix and "/".
func (s *service) list(ctx context.Context, prefix string) iter.Seq2[string, error] {
	return driverkit.Seq(func(yield func(string, error) bool) error {
		in := &secretsmanager.ListSecretsInput{Filters: []types.Filter{below(prefix)}, MaxResults: aws.Int32(listSize)}
		for page, err := range s.pages(ctx, in) {
			if err != nil {
				return err
			}
			for _, e := range page {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				if !yield(aws.ToString(e.Name), nil) {
					return nil
				}
			}
		}
		return nil
	})
}
