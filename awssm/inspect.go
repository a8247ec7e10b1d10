package awssm

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager/types"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

var _ driver.Inspector = (*secrets)(nil)

// Inspect implements driver.Inspector. It takes a ListSecrets for a hundred
// secrets, and two GetSecretValue for each of them.
func (s *secrets) Inspect(ctx context.Context) iter.Seq2[driver.Inspection, error] {
	return func(yield func(driver.Inspection, error) bool) {
		in := &secretsmanager.ListSecretsInput{
			Filters: []types.Filter{below(s.prefix)}, MaxResults: aws.Int32(listSize), IncludePlannedDeletion: aws.Bool(true),
		}
		for page, err := range s.pages(ctx, in) {
			if err != nil {
				yield(driver.Inspection{}, err)
				return
			}
			found, errs := s.inspectAll(ctx, page)
			for i := range found {
				if ctx.Err() != nil {
					yield(driver.Inspection{}, ctx.Err())
					return
				}
				if !yield(found[i], errs[i]) {
					return
				}
			}
		}
	}
}

// inspections is how many secrets are looked at at once.
const inspections = 16

// inspectAll looks at listed secrets. The errors are those of single ones.
func (s *secrets) inspectAll(ctx context.Context, list []types.SecretListEntry) ([]driver.Inspection, []error) {
	list = slices.DeleteFunc(list, func(e types.SecretListEntry) bool {
		_, ok := s.name(aws.ToString(e.Name))
		return !ok
	})
	found, errs := make([]driver.Inspection, len(list)), make([]error, len(list))
	slots := make(chan struct{}, inspections)
	var work sync.WaitGroup
	for i, e := range list {
		slots <- struct{}{}
		work.Go(func() {
			name, _ := s.name(aws.ToString(e.Name))
			found[i] = driver.Inspection{Name: name}
			if found[i].Faults, errs[i] = s.faults(ctx, name, e); errs[i] != nil {
				errs[i] = fmt.Errorf("%s: %w", s.path(name), errs[i])
			}
			if e.DeletedDate == nil {
				found[i].Labels, found[i].Abandoned = labelsOf(e.Tags), s.abandoned(e.Tags)
			}
			<-slots
		})
	}
	work.Wait()
	return found, errs
}

// faults returns what is wrong with a listed secret.
func (s *secrets) faults(ctx context.Context, name string, e types.SecretListEntry) ([]driver.Fault, error) {
	path, arn := s.path(name), aws.ToString(e.ARN)
	if at := e.DeletedDate; at != nil {
		// The date is when it was deleted, or when it will be.
		if s.now().Sub(*at).Abs() < time.Hour {
			return nil, nil // it is about to go away, as deleted secrets do
		}
		return []driver.Fault{{
			Kind: driver.FaultDeleted, Exclusive: true, Action: "delete it for good",
			Detail: fmt.Sprintf("another program has scheduled its deletion (%s); RestoreSecret brings it back", at.UTC().Format(time.DateOnly)),
			Mend:   func(ctx context.Context) error { return s.remove(ctx, arn) },
		}}, nil
	}
	now, err := s.read(ctx, path, arn, "")
	if err = s.unvalued(ctx, arn, err); errors.As(err, new(vacantError)) {
		return []driver.Fault{s.vacant(arn)}, nil
	}
	var end state
	if err == nil {
		end, err = s.follow(ctx, path, now, 0)
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
			Mend:   func(ctx context.Context) error { return s.finish(ctx, arn, *end.tombstone, nil) },
		}}, nil
	}
	return nil, nil
}

// vacant is the fault that a secret has no version.
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

// rolledBack is the fault that AWSCURRENT was moved to an earlier version. What
// writers would write over is the end of the chain, and so that is what becomes
// current again, by the version after it.
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
			return s.put(ctx, end.next(), record(end.data, end.lacks))
		},
	}
}

// short returns as much of the ID of a version as tells it from others.
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
	there := labelsOf(out.Tags)
	return without(labels, without(labels, there)), nil
}

// Unlabel implements driver.Inspector.
func (s *secrets) Unlabel(ctx context.Context, name string, labels []driver.Label) error {
	_, err := s.detach(ctx, s.path(name), keysOf(labels))
	if errors.Is(err, driver.ErrNotFound) {
		return nil
	}
	return err
}

// Probe implements driver.Inspector. IAM decides before Secrets Manager looks for
// the secret, so that all of the calls are about one that there is not; but
// CreateSecret, which is tried with the name of one that there is, or else makes
// one and deletes it.
func (s *secrets) Probe(ctx context.Context) iter.Seq2[driver.Probed, error] {
	return func(yield func(driver.Probed, error) bool) {
		for _, p := range s.probes() {
			err := p.do(ctx)
			switch {
			case ctx.Err() != nil:
				yield(driver.Probed{}, ctx.Err())
				return
			case errors.Is(err, errUntried):
				continue
			case errors.Is(err, driver.ErrNotFound), errors.Is(err, driver.ErrExists):
				err = nil // the service has looked, so it was allowed
			}
			if !yield(driver.Probed{Call: p.call, Needs: "the permission secretsmanager:" + p.call, Err: err}, nil) {
				return
			}
		}
	}
}

// errUntried means that a call would leave something behind.
var errUntried = errors.New("not tried")

type probe struct {
	call string
	do   func(context.Context) error
}

// probes are the calls that the driver makes.
func (s *secrets) probes() []probe {
	path := s.path("tokenkeepprobe" + strings.ToLower(rand.Text()))
	tag := driver.Label{Key: "probe", Value: strings.Repeat("p", 32), Nonce: strings.Repeat("p", 16)}
	existing := "" // the path of some secret
	removable := !s.keep
	all := []probe{
		{"ListSecrets", func(ctx context.Context) error {
			return s.list(ctx, s.prefix, func(path string) bool {
				existing = path
				return false
			})
		}},
		{"BatchGetSecretValue", func(ctx context.Context) error {
			_, err := s.batch(ctx, []types.Filter{below(path)}, func(string, state) bool { return false })
			return err
		}},
		{"DescribeSecret", func(ctx context.Context) error { _, err := s.describe(ctx, path); return err }},
		{"GetSecretValue", func(ctx context.Context) error { _, err := s.read(ctx, path, path, ""); return err }},
		{"PutSecretValue", func(ctx context.Context) error {
			return s.put(ctx, place{path, token("probe", path)}, tombstone{Deleted: "probe"}.value())
		}},
		{"TagResource", func(ctx context.Context) error { return s.attach(ctx, path, s.tagsOf([]driver.Label{tag})) }},
		{"UntagResource", func(ctx context.Context) error {
			_, err := s.detach(ctx, path, []string{tagKey(tag)})
			return err
		}},
	}
	if !s.keep {
		all = append(all, probe{"DeleteSecret", func(ctx context.Context) error {
			err := s.remove(ctx, path)
			removable = err == nil
			return err
		}})
	}
	return append(all, probe{"CreateSecret", func(ctx context.Context) error {
		if existing == "" && !removable {
			return errUntried
		}
		made := existing
		if made == "" {
			made = path
		}
		at, err := s.create(ctx, made, record([]byte("probe"), nil), s.tagsOf([]driver.Label{tag}))
		if err != nil {
			return err
		}
		return s.remove(ctx, at.arn)
	}})
}
