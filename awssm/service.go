package awssm

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager/types"
	"github.com/aws/smithy-go"

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

// A state is what one version of a secret is.
type state struct {
	place
	created time.Time
	data    []byte
	grave   *tombstone
	err     error // why there is no data: ErrNotFound or ErrCorrupt
}

// A tombstone is the content of a secret whose record was deleted. It is text,
// and records are binary, which the console of Secrets Manager neither shows nor
// edits.
type tombstone struct {
	// Deleted makes it unlike any other.
	Deleted string `json:"deleted"`

	// Kept says that the secret is to be used again. If it is not set the secret
	// is about to be deleted, and nothing may be written over it.
	Kept bool `json:"kept,omitempty"`
}

// content returns what is in a version.
func content(path string, p place, created *time.Time, text *string, binary []byte) state {
	st := state{place: p, data: binary}
	if created != nil {
		st.created = *created
	}
	if text == nil && len(binary) > 0 {
		return st
	}
	var t tombstone
	d := json.NewDecoder(strings.NewReader(aws.ToString(text)))
	d.DisallowUnknownFields()
	if d.Decode(&t) == nil && t.Deleted != "" && !d.More() {
		st.grave, st.err = &t, fmt.Errorf("%w: %s was deleted", driver.ErrNotFound, path)
	} else {
		st.err = fmt.Errorf("%w: %s", driver.ErrCorrupt, path)
	}
	st.data = nil
	return st
}

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
	return content(path, p, out.CreatedDate, out.SecretString, out.SecretBinary), nil
}

// create creates a secret. The error matches ErrExists if there is one, and
// ErrNotFound if there was one that is still being deleted.
func (s *service) create(ctx context.Context, path string, data []byte, labels []types.Tag) (place, error) {
	if err := ctx.Err(); err != nil {
		return place{}, err
	}
	in := &secretsmanager.CreateSecretInput{
		Name: &path, SecretBinary: data, Tags: labels, ClientRequestToken: aws.String(first(path)),
	}
	if s.kms != "" {
		in.KmsKeyId = &s.kms
	}
	for _, key := range slices.Sorted(maps.Keys(s.tags)) {
		in.Tags = append(in.Tags, types.Tag{Key: aws.String(key), Value: aws.String(s.tags[key])})
	}
	out, err := s.client.CreateSecret(ctx, in)
	if err != nil {
		return place{}, failed(ctx, "CreateSecret", err, data)
	}
	p := place{aws.ToString(out.ARN), aws.ToString(out.VersionId)}
	if p.arn == "" || p.id == "" {
		return place{}, fmt.Errorf("%w: CreateSecret: the answer names no version", driver.ErrUnavailable)
	}
	return p, nil
}

// put stores a content, data or a tombstone, at a place. The error matches
// ErrConflict if another writer did so before.
func (s *service) put(ctx context.Context, at place, data []byte, grave *tombstone) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	in := &secretsmanager.PutSecretValueInput{SecretId: &at.arn, ClientRequestToken: &at.id, SecretBinary: data}
	if grave != nil {
		text, _ := json.Marshal(grave) // a string and a bool always marshal
		in.SecretString = aws.String(string(text))
	}
	_, err := s.client.PutSecretValue(ctx, in)
	if err == nil {
		return nil
	}
	if err = failed(ctx, "PutSecretValue", err, data); errors.Is(err, driver.ErrExists) {
		return fmt.Errorf("%w: %s: another writer came first", driver.ErrConflict, at.arn)
	}
	return err
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

// detach removes tags from a secret.
func (s *service) detach(ctx context.Context, arn string, keys []string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if _, err := s.client.UntagResource(ctx, &secretsmanager.UntagResourceInput{SecretId: &arn, TagKeys: keys}); err != nil {
		return failed(ctx, "UntagResource", err, nil)
	}
	return nil
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
// until that returns false. A secret that is gone since it was listed is left
// out, and so is one that cannot be read and has a path that is not ours: filters
// are prefixes, and match what is below another prefix in ours too.
func (s *service) batch(ctx context.Context, filters []types.Filter, ours func(path string) bool, yield func(path string, st state) bool) (more bool, err error) {
	in := &secretsmanager.BatchGetSecretValueInput{Filters: filters, MaxResults: aws.Int32(batchSize)}
	for {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		out, err := s.client.BatchGetSecretValue(ctx, in)
		if err != nil {
			return false, failed(ctx, "BatchGetSecretValue", err, nil)
		}
		for _, e := range out.Errors {
			err := classify(&smithy.GenericAPIError{Code: aws.ToString(e.ErrorCode), Message: aws.ToString(e.Message)})
			if !errors.Is(err, driver.ErrNotFound) && ours(pathOf(aws.ToString(e.SecretId))) {
				return false, fmt.Errorf("BatchGetSecretValue: %s: %w", aws.ToString(e.SecretId), err)
			}
		}
		for _, v := range out.SecretValues {
			if err := ctx.Err(); err != nil {
				return false, err
			}
			path := aws.ToString(v.Name)
			p := place{aws.ToString(v.ARN), aws.ToString(v.VersionId)}
			if !yield(path, content(path, p, v.CreatedDate, v.SecretString, v.SecretBinary)) {
				return false, nil
			}
		}
		if in.NextToken = out.NextToken; in.NextToken == nil {
			return true, nil
		}
	}
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

// list calls yield with the path of each secret under a prefix until that returns
// false.
func (s *service) list(ctx context.Context, prefix string, yield func(path string) bool) error {
	in := &secretsmanager.ListSecretsInput{Filters: []types.Filter{below(prefix)}, MaxResults: aws.Int32(listSize)}
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		out, err := s.client.ListSecrets(ctx, in)
		if err != nil {
			return failed(ctx, "ListSecrets", err, nil)
		}
		for _, e := range out.SecretList {
			if err := ctx.Err(); err != nil {
				return err
			}
			if !yield(aws.ToString(e.Name)) {
				return nil
			}
		}
		if in.NextToken = out.NextToken; in.NextToken == nil {
			return nil
		}
	}
}
