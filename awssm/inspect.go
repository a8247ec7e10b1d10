package awssm

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager/types"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/driverkit"
)

var _ driver.Inspector = (*secrets)(nil)

// Inspect implements driver.Inspector. Inspect makes one call of ListSecrets for each hundred
// secrets, and usually two calls of GetSecretValue for each secret.
func (s *secrets) Inspect(ctx context.Context) iter.Seq2[driver.Inspection, error] {
	return driverkit.Seq(func(yield func(driver.Inspection, error) bool) error {
		in := &secretsmanager.ListSecretsInput{
			Filters: []types.Filter{below(s.prefix)}, MaxResults: aws.Int32(listSize), IncludePlannedDeletion: aws.Bool(true),
		}
		for page, err := range s.pages(ctx, in) {
			if err != nil {
				return err
			}
			page = slices.DeleteFunc(page, func(e types.SecretListEntry) bool {
				_, ok := s.name(aws.ToString(e.Name))
				return !ok
			})
			for found, err := range driverkit.FetchListed(ctx, page, nil, s.inspect) {
				if found.Name == "" {
					return err
				}
				if !yield(found, err) {
					return nil
				}
			}
		}
		return nil
	})
}

func (s *secrets) inspect(ctx context.Context, e types.SecretListEntry) (driver.Inspection, error) {
	name, _ := s.name(aws.ToString(e.Name))
	found := driver.Inspection{Name: name}
	if e.DeletedDate == nil {
		found.Labels, found.Abandoned = labelsOf(e.Tags), abandoned(e.Tags, s.now())
	}
	var err error
	if found.Faults, err = s.faults(ctx, name, e); err != nil {
		err = fmt.Errorf("%s: %w", s.path(name), err)
	}
	return found, err
}

// faults returns the faults of a listed secret. If the secret was deleted after it was listed,
// faults returns nil for both results.
func (s *secrets) faults(ctx context.Context, name string, e types.SecretListEntry) ([]driver.Fault, error) {
	arn := aws.ToString(e.ARN)
	if e.DeletedDate != nil {
		return s.scheduled(arn, *e.DeletedDate), nil
	}
	now, err := s.read(ctx, s.path(name), arn, "")
	if err = s.unvalued(ctx, arn, err); errors.As(err, new(vacantError)) {
		return []driver.Fault{s.vacant(arn)}, nil
	}
	var end state
	if err == nil {
		end, err = s.follow(ctx, now, 0)
	}
	switch {
	case errors.Is(err, driver.ErrNotFound), errors.Is(err, errGone):
		return nil, nil
	case err != nil:
		return nil, err
	case end.place != now.place && s.now().Sub(end.created) > listLag:
		return []driver.Fault{s.rolledBack(now, end)}, nil
	case end.tombstone != nil && end.tombstone.Kept:
		return []driver.Fault{{
			Kind: driver.FaultTombstone, Exclusive: true, Action: "delete the secret",
			Detail: "its record was deleted, and the secret is kept to be used again",
			Mend:   func(ctx context.Context) error { return s.remove(ctx, arn) },
		}}, nil
	case end.tombstone != nil:
		return []driver.Fault{{
			Kind: driver.FaultDue, Action: "delete the secret",
			Detail: "its record was deleted, and the secret with its earlier versions was not",
			Mend:   func(ctx context.Context) error { return s.clear(ctx, arn, *end.tombstone, nil) },
		}}, nil
	}
	return nil, nil
}

// scheduled returns the fault of a secret whose deletion is scheduled for the given time. If that
// time is within an hour of the current time, scheduled returns no fault. Such a secret was deleted
// without a recovery window, as this package deletes secrets, and the service is about to remove
// it.
func (s *secrets) scheduled(arn string, at time.Time) []driver.Fault {
	if s.now().Sub(at).Abs() < time.Hour {
		return nil
	}
	return []driver.Fault{{
		Kind: driver.FaultDeleted, Exclusive: true, Action: "delete it for good",
		Detail: fmt.Sprintf("another program has scheduled its deletion (%s); RestoreSecret brings it back", at.UTC().Format(time.DateOnly)),
		Mend:   func(ctx context.Context) error { return s.remove(ctx, arn) },
	}}
}

func (s *secrets) vacant(arn string) driver.Fault {
	return driver.Fault{
		Kind: driver.FaultEmpty, Exclusive: true, Action: "delete the secret",
		Detail: "another program has created the secret without a value, and no record can be written under its name",
		Mend: func(ctx context.Context) error {
			out, err := s.describe(ctx, arn)
			switch {
			case err != nil:
				return err
			case len(out.VersionIdsToStages) > 0:
				return fmt.Errorf("%w: it has a value", driver.ErrConflict)
			}
			return s.remove(ctx, arn)
		},
	}
}

// rolledBack returns the fault of a secret whose label AWSCURRENT was moved to an earlier version.
// The repair stores the content of the last version again, as the next version in the chain.
func (s *secrets) rolledBack(now, end state) driver.Fault {
	return driver.Fault{
		Kind: driver.FaultRolledBack, Action: "make the latest version the current one again",
		Detail: fmt.Sprintf("AWSCURRENT is the version %s, and the latest is %s of %s",
			short(now.id), short(end.id), end.created.UTC().Format(time.RFC3339)),
		Mend: func(ctx context.Context) error {
			if errors.Is(end.err, driver.ErrCorrupt) {
				return end.err
			}
			if end.tombstone != nil {
				return s.put(ctx, end.next(), end.tombstone.value())
			}
			return s.put(ctx, end.next(), encode(end.data, end.lacks))
		},
	}
}

// short returns the first 8 characters of a version ID, which suffice to recognize the version.
func short(id string) string { return id[:min(len(id), 8)] }

// Present implements driver.Inspector.
func (s *secrets) Present(ctx context.Context, name string, labels []driver.Label) ([]driver.Label, error) {
	out, err := s.describe(ctx, s.path(name))
	if errors.Is(err, driver.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return driverkit.Without(labels, driverkit.Without(labels, labelsOf(out.Tags))), nil
}

// Unlabel implements driver.Inspector.
func (s *secrets) Unlabel(ctx context.Context, name string, labels []driver.Label) error {
	_, err := s.detach(ctx, s.path(name), keysOf(labels))
	if errors.Is(err, driver.ErrNotFound) {
		return nil
	}
	return err
}

// Probe implements driver.Inspector. IAM checks permissions before Secrets Manager looks for the
// secret, so most calls name a secret that does not exist. CreateSecret uses the name of an
// existing secret. If the store is empty, CreateSecret creates a secret, which Probe deletes. If
// the store is empty and Probe cannot delete secrets, Probe leaves out CreateSecret.
func (s *secrets) Probe(ctx context.Context) iter.Seq2[driver.Probed, error] {
	return driverkit.Probes(ctx, s.probes())
}

func (s *secrets) probes() []driverkit.Probe {
	path := s.path("tokenkeepprobe" + strings.ToLower(rand.Text()))
	tags := tagsOf([]driver.Label{{Key: "probe", Value: strings.Repeat("p", 32), Nonce: strings.Repeat("p", 16)}}, s.now())
	made, removable := "", !s.keep // the path of an existing secret, and whether secrets can be deleted
	probe := func(call string, do func(context.Context) error) driverkit.Probe {
		return driverkit.Probe{Call: call, Needs: "the permission secretsmanager:" + call, Do: do}
	}
	all := []driverkit.Probe{
		probe("ListSecrets", func(ctx context.Context) (err error) { made, err = head(s.list(ctx, s.prefix)); return err }),
		probe("BatchGetSecretValue", func(ctx context.Context) error {
			return s.batch(ctx, []types.Filter{below(path)}, func(state) error { return nil })
		}),
		probe("DescribeSecret", func(ctx context.Context) error { _, err := s.describe(ctx, path); return err }),
		probe("GetSecretValue", func(ctx context.Context) error { _, err := s.read(ctx, path, path, ""); return err }),
		probe("PutSecretValue", func(ctx context.Context) error {
			return s.put(ctx, place{path, token("probe", path)}, tombstone{Deleted: "probe"}.value())
		}),
		probe("TagResource", func(ctx context.Context) error { return s.attach(ctx, path, tags) }),
		probe("UntagResource", func(ctx context.Context) error {
			_, err := s.detach(ctx, path, []string{aws.ToString(tags[0].Key)})
			return err
		}),
	}
	if !s.keep {
		all = append(all, probe("DeleteSecret", func(ctx context.Context) error {
			err := s.remove(ctx, path)
			removable = err == nil
			return err
		}))
	}
	return append(all, probe("CreateSecret", func(ctx context.Context) error {
		if made == "" && !removable {
			return driverkit.ErrUntried // Probe could not delete the new secret
		}
		at, err := s.create(ctx, cmp.Or(made, path), encode([]byte("probe"), nil), tags)
		if err != nil {
			return err
		}
		return s.remove(ctx, at.arn)
	}))
}

// head returns the first value and error that seq yields. If seq yields nothing, head returns the
// zero value and nil.
func head[T any](seq iter.Seq2[T, error]) (T, error) {
	for v, err := range seq {
		return v, err
	}
	return *new(T), nil
}
