package awssm

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager/types"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/middleware"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/driverkit"
)

const (
	stageCurrent = "AWSCURRENT"

	batchSize    = 20 // secrets that BatchGetSecretValue returns
	listSize     = 100
	filterValues = 10 // of one filter
)

// A service makes the calls. Each method but the searches makes one.
type service struct {
	client *secretsmanager.Client
	kms    string
	tags   map[string]string
}

// call makes one call. Its error does not repeat what was sent.
func call[In, Out any](
	ctx context.Context, name string, do func(context.Context, *In, ...func(*secretsmanager.Options)) (*Out, error),
	in *In, sent []byte, opts ...func(*secretsmanager.Options),
) (*Out, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	out, err := do(ctx, in, opts...)
	if err != nil {
		return nil, callError(ctx, name, err, sent)
	}
	return out, nil
}

// read returns the version of a secret with an ID, or the current one if id is empty.
// secret is its path or its ARN.
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

// A vacantError says that a secret has no version at all: a tool has created it and
// leaves the value to others.
type vacantError struct{ arn string }

// Error returns the text.
func (v vacantError) Error() string { return "the secret " + v.arn + " has no value" }

// unvalued explains the error of a read that has found the secret and not the version.
// The error matches ErrCorrupt if no version is the current one, and vacantError if
// there is no version at all. Any other error is returned as it is.
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
			return err // the read was stale
		}
	}
	return fmt.Errorf("%w: the secret %s has versions, and none is the current one", driver.ErrCorrupt, aws.ToString(out.ARN))
}

// create creates a secret. The error matches ErrExists if there is one, and ErrNotFound
// while an earlier one is being deleted.
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

// kept checks that a write has made the version that it asked for. A server that gives
// it another ID does not refuse the second of two writers either.
func kept(call, asked, got string) error {
	if asked == got {
		return nil
	}
	return fmt.Errorf("%w: %s: the answer names the version %q where %q was asked for: this server does not keep what two writers depend on",
		driver.ErrRefused, call, got, asked)
}

// put stores a value at a place. The error matches ErrConflict if another writer did so
// before. It is rejected if nothing was stored, and nothing will be.
func (s *service) put(ctx context.Context, at place, v value) error {
	clean := ctx.Err() != nil // then nothing is sent
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

// A rejected write has changed nothing, and never will.
type rejected struct{ error }

// Unwrap returns the error itself.
func (r rejected) Unwrap() error { return r.error }

// cleanly sets clean if the service has answered each attempt of a call with a refusal.
// An attempt without an answer, or with a failure of the service, may have been
// applied, whatever the answer to the next one is.
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

// detach removes tags from a secret. clean says of an error that all tags are still
// there, and stay.
func (s *service) detach(ctx context.Context, arn string, keys []string) (clean bool, err error) {
	clean = ctx.Err() != nil // then nothing is sent
	_, err = call(ctx, "UntagResource", s.client.UntagResource,
		&secretsmanager.UntagResourceInput{SecretId: &arn, TagKeys: keys}, nil, cleanly(&clean))
	return clean && err != nil, err
}

// describe returns a secret without the contents of its versions, also while the secret
// is being deleted.
func (s *service) describe(ctx context.Context, secret string) (*secretsmanager.DescribeSecretOutput, error) {
	return call(ctx, "DescribeSecret", s.client.DescribeSecret, &secretsmanager.DescribeSecretInput{SecretId: &secret}, nil)
}

// remove deletes a secret without a recovery window. It returns nil if there is none.
func (s *service) remove(ctx context.Context, arn string) error {
	_, err := call(ctx, "DeleteSecret", s.client.DeleteSecret, &secretsmanager.DeleteSecretInput{
		SecretId: &arn, ForceDeleteWithoutRecovery: aws.Bool(true),
	}, nil)
	if errors.Is(err, driver.ErrNotFound) {
		return nil
	}
	return err
}

// below is the condition that a secret is under a prefix.
func below(prefix string) types.Filter {
	return types.Filter{Key: types.FilterNameStringTypeName, Values: []string{prefix + "/"}}
}

// batch yields the secrets that meet the conditions. The state of a secret that cannot
// be read has the reason. Batch leaves out a secret that was deleted since it was listed.
func (s *service) batch(ctx context.Context, filters []types.Filter) iter.Seq2[state, error] {
	return driverkit.Seq(func(yield func(state, error) bool) error {
		in := &secretsmanager.BatchGetSecretValueInput{Filters: filters, MaxResults: aws.Int32(batchSize)}
		for {
			out, err := call(ctx, "BatchGetSecretValue", s.client.BatchGetSecretValue, in, nil)
			if err != nil && ctx.Err() == nil && ofOneSecret(err) {
				return s.oneByOne(ctx, filters, yield)
			}
			if err != nil {
				return err
			}
			for _, e := range out.Errors {
				st := s.unread(ctx, e)
				if ctx.Err() != nil {
					return ctx.Err()
				}
				if st.err != nil && !yield(st, nil) {
					return nil
				}
			}
			for _, v := range out.SecretValues {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				p := place{aws.ToString(v.ARN), aws.ToString(v.VersionId)}
				if !yield(decode(aws.ToString(v.Name), p, v.CreatedDate, value{v.SecretString, v.SecretBinary}), nil) {
					return nil
				}
			}
			if in.NextToken = out.NextToken; in.NextToken == nil {
				return nil
			}
		}
	})
}

// unread returns the state of a secret that a batch could not read: one without an error
// if the secret was deleted or has never had a value.
func (s *service) unread(ctx context.Context, e types.APIErrorType) state {
	id := aws.ToString(e.SecretId)
	refused := error(&smithy.GenericAPIError{Code: aws.ToString(e.ErrorCode), Message: aws.ToString(e.Message)})
	err := s.unvalued(ctx, id, driverkit.CallError(ctx, refused, classify(refused)))
	if errors.Is(err, driver.ErrNotFound) {
		return state{}
	}
	return state{path: pathOf(id), err: fmt.Errorf("BatchGetSecretValue: %s: %w", pathOf(id), err)}
}

// ofOneSecret reports whether the error of a batch is about one of its secrets.
// Secrets Manager puts such errors beside the values of the others; LocalStack
// 4.14.0 fails as a whole for a version of bytes that was stored by PutSecretValue
// (InternalError, "Object of type bytes is not JSON serializable"), and for a secret
// that has no value or is marked for deletion.
func ofOneSecret(err error) bool {
	var answer smithy.APIError
	return errors.Is(err, driver.ErrNotFound) || errors.As(err, &answer) && answer.ErrorCode() == "InternalError"
}

// oneByOne is batch with a call for each secret.
func (s *service) oneByOne(ctx context.Context, filters []types.Filter, yield func(state, error) bool) error {
	for page, err := range s.pages(ctx, &secretsmanager.ListSecretsInput{Filters: filters, MaxResults: aws.Int32(batchSize)}) {
		if err != nil {
			return err
		}
		for st, err := range driverkit.Fetch(ctx, page, s.readListed) {
			if err != nil {
				return err
			}
			if deleted := st.tombstone == nil && errors.Is(st.err, driver.ErrNotFound); !deleted && !yield(st, nil) {
				return nil
			}
		}
	}
	return nil
}

// readListed returns the state of a listed secret. An error is in the state.
func (s *service) readListed(ctx context.Context, e types.SecretListEntry) (state, error) {
	path := aws.ToString(e.Name)
	st, err := s.read(ctx, path, aws.ToString(e.ARN), "")
	if err = s.unvalued(ctx, aws.ToString(e.ARN), err); err != nil {
		st = state{path: path, err: fmt.Errorf("%s: %w", path, err)}
	}
	return st, nil
}

// pathOf returns the name in an ARN, which ends in "-" and six characters. Any other
// text is a name.
func pathOf(id string) string {
	_, path, ok := strings.Cut(id, ":secret:")
	if !ok {
		return id
	}
	const suffix = 7
	return path[:max(len(path)-suffix, 0)]
}

// pages yields the pages of a list.
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

// list yields the path of each secret under a prefix.
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
