package awssm

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager/types"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/middleware"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
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

// A place is one version of one secret. A secret that is created anew has another
// ARN, and a write to the old one fails.
type place struct{ arn, id string }

func (p place) version() driver.Version { return driver.Version(p.arn + " " + p.id) }

func parse(v driver.Version) (place, bool) {
	arn, id, ok := strings.Cut(string(v), " ")
	return place{arn, id}, ok && arn != "" && id != ""
}

// next returns the place of the version that replaces this one. Only one content
// is ever stored under one ID: of the writers that read this version one is
// first, and the others are refused.
func (p place) next() place { return place{p.arn, token("succ", p.arn, p.id)} }

// token returns an ID for a version, which is a ClientRequestToken as well, in 64
// characters.
func token(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		_, _ = fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// first returns the ID of the first version of a secret. It can be told from the
// name, so that a secret which has just been created is found though reads by
// its name do not show it yet. Its ARN is what makes it unlike that of another
// life.
func first(path string) string { return token("first", path) }

// read returns the version of a secret with an ID, or the current one if the ID
// is empty. The secret is named by its path or its ARN.
func (s *service) read(ctx context.Context, path, secret, id string) (state, error) {
	if err := ctx.Err(); err != nil {
		return state{}, err
	}
	in := &secretsmanager.GetSecretValueInput{SecretId: &secret}
	if id != "" {
		in.VersionId = &id
	} else {
		in.VersionStage = aws.String(stageCurrent)
	}
	out, err := s.client.GetSecretValue(ctx, in)
	if err != nil {
		return state{}, failed(ctx, "GetSecretValue", err, nil)
	}
	p := place{aws.ToString(out.ARN), aws.ToString(out.VersionId)}
	if p.arn == "" || p.id == "" {
		return state{}, fmt.Errorf("%w: GetSecretValue: the answer names no version", driver.ErrUnavailable)
	}
	return content(path, p, out.CreatedDate, value{out.SecretString, out.SecretBinary}), nil
}

// A vacantError says that a secret has no version at all, as a tool creates one that
// leaves the value to others.
type vacantError struct{ arn string }

// Error returns the text.
func (v vacantError) Error() string { return "the secret " + v.arn + " has no value" }

// unvalued explains the error of a read that has found a secret and not the version
// that was asked for. It matches ErrCorrupt if no version is the current one, and is
// a vacantError if there is none at all. Any other error is returned as it came.
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
			return err // what was read is out of date
		}
	}
	return fmt.Errorf("%w: the secret %s has versions, and none is the current one", driver.ErrCorrupt, aws.ToString(out.ARN))
}

// create creates a secret. The error matches ErrExists if there is one, and
// ErrNotFound if there was one that is still being deleted.
func (s *service) create(ctx context.Context, path string, v value, labels []types.Tag) (place, error) {
	if err := ctx.Err(); err != nil {
		return place{}, err
	}
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
	out, err := s.client.CreateSecret(ctx, in)
	if err != nil {
		if limit := (*types.LimitExceededException)(nil); errors.As(err, &limit) {
			err = quotaError{err} // of the secrets of an account, which only an operator raises
		}
		return place{}, failed(ctx, "CreateSecret", err, v.sent())
	}
	p := place{aws.ToString(out.ARN), aws.ToString(out.VersionId)}
	if p.arn == "" {
		return place{}, fmt.Errorf("%w: CreateSecret: the answer names no secret", driver.ErrUnavailable)
	}
	return p, kept("CreateSecret", id, p.id)
}

// kept checks that a write has made the version that it asked for. A server that
// gives it another ID does not refuse the second of two writers either.
func kept(call, asked, got string) error {
	if asked == got {
		return nil
	}
	return fmt.Errorf("%w: %s: the answer names the version %q where %q was asked for: this server does not keep what two writers depend on",
		driver.ErrRefused, call, got, asked)
}

// put stores a value at a place. The error matches ErrConflict if another writer
// did so before, and is a rejected one if it is certain that nothing was stored and
// nothing will be.
func (s *service) put(ctx context.Context, at place, v value) error {
	if err := ctx.Err(); err != nil {
		return rejected{err}
	}
	clean := false
	out, err := s.client.PutSecretValue(ctx, &secretsmanager.PutSecretValueInput{
		SecretId: &at.arn, ClientRequestToken: &at.id, SecretString: v.text, SecretBinary: v.bytes,
	}, cleanly(&clean))
	if err == nil {
		return kept("PutSecretValue", at.id, aws.ToString(out.VersionId))
	}
	err = failed(ctx, "PutSecretValue", err, v.sent())
	if errors.Is(err, driver.ErrExists) {
		return rejected{fmt.Errorf("%w: %s: another writer came first", driver.ErrConflict, at.arn)}
	}
	if clean {
		return rejected{err}
	}
	return err
}

// A rejected write has changed nothing, and never will.
type rejected struct{ error }

// Unwrap returns the error itself.
func (r rejected) Unwrap() error { return r.error }

// cleanly makes a call note whether the service has answered each of its attempts
// with a refusal. An attempt without an answer, or with a failure of the service's
// own, may have been applied, whatever the one after it was told.
func cleanly(clean *bool) func(*secretsmanager.Options) {
	note := middleware.InitializeMiddlewareFunc("tokenkeepRefusals", func(
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
			return stack.Initialize.Add(note, middleware.Before)
		})
	}
}

// attach adds tags to a secret.
func (s *service) attach(ctx context.Context, arn string, tags []types.Tag) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if _, err := s.client.TagResource(ctx, &secretsmanager.TagResourceInput{SecretId: &arn, Tags: tags}); err != nil {
		return failed(ctx, "TagResource", err, nil)
	}
	return nil
}

// detach removes tags from a secret. clean says of an error that the tags are all
// still there, and stay.
func (s *service) detach(ctx context.Context, arn string, keys []string) (clean bool, err error) {
	if err := ctx.Err(); err != nil {
		return true, err
	}
	_, err = s.client.UntagResource(ctx, &secretsmanager.UntagResourceInput{SecretId: &arn, TagKeys: keys}, cleanly(&clean))
	if err != nil {
		return clean, failed(ctx, "UntagResource", err, nil)
	}
	return false, nil
}

// describe returns what there is beside the versions of a secret, also of one
// that is being deleted.
func (s *service) describe(ctx context.Context, secret string) (*secretsmanager.DescribeSecretOutput, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	out, err := s.client.DescribeSecret(ctx, &secretsmanager.DescribeSecretInput{SecretId: &secret})
	if err != nil {
		return nil, failed(ctx, "DescribeSecret", err, nil)
	}
	return out, nil
}

// remove deletes a secret without a recovery window. That it is gone already is
// no error.
func (s *service) remove(ctx context.Context, arn string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	_, err := s.client.DeleteSecret(ctx, &secretsmanager.DeleteSecretInput{
		SecretId: &arn, ForceDeleteWithoutRecovery: aws.Bool(true),
	})
	if err == nil {
		return nil
	}
	if err = failed(ctx, "DeleteSecret", err, nil); errors.Is(err, driver.ErrNotFound) {
		return nil
	}
	return err
}

// below is the condition that a secret is under a prefix.
func below(prefix string) types.Filter {
	return types.Filter{Key: types.FilterNameStringTypeName, Values: []string{prefix + "/"}}
}

// batch calls yield with each secret that meets the conditions, and its path,
// until that returns false. A secret that cannot be read has the reason in its
// state; one that is gone since it was listed is left out.
func (s *service) batch(ctx context.Context, filters []types.Filter, yield func(path string, st state) bool) (more bool, err error) {
	in := &secretsmanager.BatchGetSecretValueInput{Filters: filters, MaxResults: aws.Int32(batchSize)}
	for {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		out, err := s.client.BatchGetSecretValue(ctx, in)
		if err != nil {
			err = failed(ctx, "BatchGetSecretValue", err, nil)
			if ctx.Err() == nil && ofOneSecret(err) {
				return s.oneByOne(ctx, filters, yield)
			}
			return false, err
		}
		for _, e := range out.Errors {
			if path, st := s.unread(ctx, e); st.err != nil && !yield(path, st) {
				return false, nil
			}
		}
		for _, v := range out.SecretValues {
			if err := ctx.Err(); err != nil {
				return false, err
			}
			path := aws.ToString(v.Name)
			p := place{aws.ToString(v.ARN), aws.ToString(v.VersionId)}
			if !yield(path, content(path, p, v.CreatedDate, value{v.SecretString, v.SecretBinary})) {
				return false, nil
			}
		}
		if in.NextToken = out.NextToken; in.NextToken == nil {
			return true, nil
		}
	}
}

// unread returns what a batch says of a secret that it could not read: a state
// without an error if the secret is gone or has never had a value.
func (s *service) unread(ctx context.Context, e types.APIErrorType) (path string, st state) {
	id := aws.ToString(e.SecretId)
	path = pathOf(id)
	err := s.unvalued(ctx, id, classify(&smithy.GenericAPIError{Code: aws.ToString(e.ErrorCode), Message: aws.ToString(e.Message)}))
	if errors.Is(err, driver.ErrNotFound) {
		return path, state{}
	}
	return path, state{err: fmt.Errorf("BatchGetSecretValue: %s: %w", path, err)}
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
func (s *service) oneByOne(ctx context.Context, filters []types.Filter, yield func(path string, st state) bool) (more bool, err error) {
	for page, err := range s.pages(ctx, &secretsmanager.ListSecretsInput{Filters: filters, MaxResults: aws.Int32(batchSize)}) {
		if err != nil {
			return false, err
		}
		states := make([]state, len(page))
		var work sync.WaitGroup
		for i, e := range page {
			work.Go(func() {
				path := aws.ToString(e.Name)
				st, err := s.read(ctx, path, aws.ToString(e.ARN), "")
				if err = s.unvalued(ctx, aws.ToString(e.ARN), err); err != nil {
					st.err = fmt.Errorf("%s: %w", path, err)
				}
				states[i] = st
			})
		}
		work.Wait()
		for i, e := range page {
			if err := ctx.Err(); err != nil {
				return false, err
			}
			if gone := states[i].tombstone == nil && errors.Is(states[i].err, driver.ErrNotFound); !gone && !yield(aws.ToString(e.Name), states[i]) {
				return false, nil
			}
		}
	}
	return true, nil
}

// pathOf returns the name in an ARN, which ends in "-" and six characters; what is
// no ARN is a name.
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
			if err := ctx.Err(); err != nil {
				yield(nil, err)
				return
			}
			out, err := s.client.ListSecrets(ctx, in)
			if err != nil {
				yield(nil, failed(ctx, "ListSecrets", err, nil))
				return
			}
			if !yield(out.SecretList, nil) {
				return
			}
			if in.NextToken = out.NextToken; in.NextToken == nil {
				return
			}
		}
	}
}

// list calls yield with the path of each secret under a prefix until that returns
// false.
func (s *service) list(ctx context.Context, prefix string, yield func(path string) bool) error {
	in := &secretsmanager.ListSecretsInput{Filters: []types.Filter{below(prefix)}, MaxResults: aws.Int32(listSize)}
	for page, err := range s.pages(ctx, in) {
		if err != nil {
			return err
		}
		for _, e := range page {
			if err := ctx.Err(); err != nil {
				return err
			}
			if !yield(aws.ToString(e.Name)) {
				return nil
			}
		}
	}
	return nil
}
