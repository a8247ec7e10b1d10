package gcpsm

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"time"

	"cloud.google.com/go/secretmanager/apiv1/secretmanagerpb"
	"google.golang.org/protobuf/proto"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

var _ driver.Inspector = (*secrets)(nil)

// Inspect implements driver.Inspector. It takes a ListSecrets for 25,000 secrets,
// and nothing more: all that it needs is in the metadata.
func (s *secrets) Inspect(ctx context.Context) iter.Seq2[driver.Inspection, error] {
	return func(yield func(driver.Inspection, error) bool) {
		err := s.list(ctx, s.all(), func(name string, m metadata) bool {
			return yield(driver.Inspection{Name: name, Labels: labelsOf(m.secret.GetLabels()), Faults: s.faults(name, m)}, nil)
		})
		if err != nil {
			yield(driver.Inspection{}, err)
		}
	}
}

// labelsOf returns the labels that records are found by, without nonces.
func labelsOf(labels map[string]string) []driver.Label {
	var found []driver.Label
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		if v := labels[k]; ours(k, v) {
			found = append(found, driver.Label{Key: k[:len(k)-inKey-1], Value: k[len(k)-inKey:] + v})
		}
	}
	return found
}

// stillborn is how old a secret without a state is before it counts as left
// behind.
const stillborn = time.Minute

// faults returns what is wrong with a secret. What is not in this package's form
// is none of its faults: reading it fails.
func (s *secrets) faults(name string, m metadata) []driver.Fault {
	switch now := time.Now(); {
	case m.empty() && now.Sub(m.secret.GetCreateTime().AsTime()) > stillborn:
		return []driver.Fault{{
			Kind: driver.FaultEmpty, Action: "delete it",
			Detail: fmt.Sprintf("it was created on %s, and was never given a state", m.secret.GetCreateTime().AsTime().Format(time.RFC3339)),
			Mend:   func(ctx context.Context) error { return s.unmake(ctx, name, m) },
		}}
	case !m.ours || m.empty():
		return nil
	default:
		var faults []driver.Fault
		if m.number != m.account.Current {
			moved := fmt.Sprintf("moved the alias %q to version %d", alias, m.number)
			if m.number == 0 {
				moved = fmt.Sprintf("removed the alias %q", alias)
			}
			faults = append(faults, driver.Fault{
				Kind: driver.FaultRolledBack, Action: fmt.Sprintf("let the alias mean version %d again", m.account.Current),
				Detail: fmt.Sprintf("another tool has %s; the last commit made it version %d", moved, m.account.Current),
				Mend:   func(ctx context.Context) error { return s.realias(ctx, name, m) },
			})
		}
		if at := m.secret.GetExpireTime(); at != nil {
			faults = append(faults, driver.Fault{
				Kind:   driver.FaultExpires,
				Detail: fmt.Sprintf("it has an expiration: Secret Manager deletes it on %s; remove it with 'gcloud secrets update --remove-expiration'", at.AsTime().Format(time.RFC3339)),
			})
		}
		if n := ripe(m.account.Due, now); n > 0 {
			faults = append(faults, driver.Fault{
				Kind: driver.FaultDue, Action: "destroy them",
				Detail: fmt.Sprintf("%d versions were replaced over %v ago and are not destroyed", n, grace),
				Mend:   func(ctx context.Context) error { return s.destroyDue(ctx, name) },
			})
		}
		return faults
	}
}

// ripe returns how many versions can be destroyed.
func ripe(all []due, now time.Time) (n int64) {
	for _, d := range all {
		if d.ripe(now) {
			n += max(d.To-d.Number, 0) + 1
		}
	}
	return n
}

// unmake deletes a secret that has no state, if nobody has given it one.
func (s *secrets) unmake(ctx context.Context, name string, m metadata) error {
	err := s.remove(ctx, name, m.secret.GetEtag())
	s.seen.drop(name)
	if errors.Is(err, driver.ErrNotFound) {
		return nil
	}
	return err
}

// realias makes the alias mean what the last commit made it mean, if the metadata
// are as they were. Labels did not move with it.
func (s *secrets) realias(ctx context.Context, name string, m metadata) error {
	there, err := s.accessNumber(ctx, name, m.account.Current)
	switch {
	case errors.Is(err, driver.ErrNotFound):
		return fmt.Errorf("%w: there is no version %d of %q", driver.ErrConflict, m.account.Current, s.prefix+name)
	case err != nil:
		return err
	case there.life != m.account.Life || there.digest != m.account.Digest:
		return fmt.Errorf("%w: %q", driver.ErrConflict, s.prefix+name)
	}
	next := m.annotate(m.account)
	next.VersionAliases = merge(m.secret.GetVersionAliases(), map[string]int64{alias: m.account.Current})
	return s.put(ctx, name, next, "annotations", "version_aliases")
}

// put updates a secret, and remembers what it has become.
func (s *secrets) put(ctx context.Context, name string, next *secretmanagerpb.Secret, fields ...string) error {
	m, err := s.update(ctx, name, next, fields...)
	if err != nil {
		s.seen.drop(name)
		return err
	}
	s.seen.put(name, m)
	return nil
}

// sweeps is how often destroyDue goes on: what has no etag yet takes two rounds,
// and a round is of width versions.
const sweeps = 100

// destroyDue destroys what is due, as the writes that come would do.
func (s *secrets) destroyDue(ctx context.Context, name string) error {
	for range sweeps {
		m, err := s.get(ctx, name)
		if errors.Is(err, driver.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		now := time.Now()
		left := ripe(m.account.Due, now)
		if !m.ours || left == 0 {
			return nil
		}
		over, pending := s.due(ctx, name, m, now)
		if err := s.stillDue(ctx, name, m, pending); errors.Is(err, driver.ErrConflict) {
			continue // it is not the state any more that this is about
		} else if err != nil {
			return err
		}
		if left := s.sweep(ctx, name, over); len(left) > 0 {
			if m, err = s.get(ctx, name); err == nil {
				err = s.stillDue(ctx, name, m, append(m.account.Due, left...))
			}
			return errors.Join(fmt.Errorf("%w: %d versions of %q could not be destroyed", driver.ErrUnavailable, len(left), s.prefix+name), err)
		}
	}
	return fmt.Errorf("%w: %q has more versions that are due", driver.ErrConflict, s.prefix+name)
}

// stillDue makes pending what is due, if the metadata are still m.
func (s *secrets) stillDue(ctx context.Context, name string, m metadata, pending []due) error {
	a := m.account
	a.Due = fewer(pending)
	return s.put(ctx, name, m.annotate(a), "annotations")
}

// Present implements driver.Inspector.
func (s *secrets) Present(ctx context.Context, name string, labels []driver.Label) ([]driver.Label, error) {
	m, err := s.get(ctx, name)
	if errors.Is(err, driver.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	there := m.secret.GetLabels()
	return slices.DeleteFunc(slices.Clone(labels), func(l driver.Label) bool {
		k, v := encode(l)
		return there[k] != v
	}), nil
}

// Unlabel implements driver.Inspector.
func (s *secrets) Unlabel(ctx context.Context, name string, labels []driver.Label) error {
	m, err := s.get(ctx, name)
	if errors.Is(err, driver.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	next := m.annotate(m.account)
	next.Labels = maps.Clone(m.secret.GetLabels())
	for _, l := range labels {
		k, _ := encode(l)
		delete(next.Labels, k)
	}
	return s.put(ctx, name, next, "labels", "annotations")
}

// Probe implements driver.Inspector. The calls are about a secret that is made for
// them and deleted by the last one; if it may not be made, about one that there is
// not.
func (s *secrets) Probe(ctx context.Context) iter.Seq2[driver.Probed, error] {
	return func(yield func(driver.Probed, error) bool) {
		for _, p := range s.probes() {
			err := p.do(ctx)
			if ctx.Err() != nil {
				yield(driver.Probed{}, ctx.Err())
				return
			}
			if errors.Is(err, driver.ErrCredentials) {
				yield(driver.Probed{}, err) // which says nothing about any call
				return
			}
			if errors.Is(err, driver.ErrNotFound) || errors.Is(err, driver.ErrConflict) || errors.Is(err, driver.ErrCorrupt) {
				err = nil // the service has looked, so it was allowed
			}
			if !yield(driver.Probed{Call: p.call, Needs: "the permission secretmanager." + p.permission, Err: err}, nil) {
				return
			}
		}
	}
}

type probe struct {
	call, permission string
	do               func(context.Context) error
}

// probes are the calls that the driver makes.
func (s *secrets) probes() []probe {
	name := "tokenkeepprobe" + newLife()
	var made metadata
	var version added
	return []probe{
		{"ListSecrets", "secrets.list", func(ctx context.Context) error {
			return s.list(ctx, s.all(), func(string, metadata) bool { return false })
		}},
		{"CreateSecret", "secrets.create", func(ctx context.Context) (err error) {
			blank := proto.CloneOf(s.blank)
			blank.Annotations = metadata{}.annotate(account{Life: newLife()}).GetAnnotations()
			made, err = s.create(ctx, name, blank)
			return err
		}},
		{"GetSecret", "secrets.get", func(ctx context.Context) error { _, err := s.get(ctx, name); return err }},
		{"AddSecretVersion", "versions.add", func(ctx context.Context) (err error) {
			version, err = s.add(ctx, name, []byte("probe"))
			return err
		}},
		{"AccessSecretVersion", "versions.access", func(ctx context.Context) error { _, err := s.accessNumber(ctx, name, 1); return err }},
		{"GetSecretVersion", "versions.get", func(ctx context.Context) error { _, err := s.inspect(ctx, name, 1); return err }},
		{"UpdateSecret", "secrets.update", func(ctx context.Context) error {
			if made.secret == nil || version.number == 0 {
				m, err := s.update(ctx, name, made.annotate(made.account), "annotations")
				if err == nil {
					made = m
				}
				return err
			}
			return s.compares(ctx, name, &made, version.number)
		}},
		{"DestroySecretVersion", "versions.destroy", func(ctx context.Context) error { return s.destroy(ctx, name, 1, version.etag) }},
		{"DeleteSecret", "secrets.delete", func(ctx context.Context) error { return s.remove(ctx, name, made.secret.GetEtag()) }},
	}
}

// compares reports whether an update that carries an old etag is refused, and moves
// the alias by one that does not.
func (s *secrets) compares(ctx context.Context, name string, made *metadata, number int64) error {
	move := func(m metadata) (metadata, error) {
		next := m.annotate(m.account)
		next.VersionAliases = map[string]int64{alias: number}
		return s.update(ctx, name, next, "annotations", "version_aliases")
	}
	old := *made
	now, err := move(old)
	if err != nil {
		return err
	}
	*made = now
	switch again, err := move(old); {
	case err == nil:
		*made = again
		return fmt.Errorf("%w: UpdateSecret %q: an old etag is accepted", errDrops, s.prefix+name)
	case !errors.Is(err, driver.ErrConflict):
		return err
	}
	return nil
}
