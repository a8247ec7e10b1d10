package gcpsm

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/driverkit"
)

var _ driver.Inspector = (*secrets)(nil)

// Inspect implements driver.Inspector. Inspect makes only one call of ListSecrets for each 25,000
// secrets, because the listed metadata show all faults.
func (s *secrets) Inspect(ctx context.Context) iter.Seq2[driver.Inspection, error] {
	return driverkit.Seq(func(yield func(driver.Inspection, error) bool) error {
		return s.list(ctx, s.all(), func(name string, m metadata) bool {
			return yield(driver.Inspection{Name: name, Labels: labelsOf(m.secret.GetLabels()), Faults: s.faults(name, m)}, nil)
		})
	})
}

// orphanAge is the age after which Inspect reports a secret without a state.
const orphanAge = time.Minute

// faults returns the faults of a secret. faults returns nil for a secret that is not a record,
// because List reports that secret. faults also returns nil for a secret that has no state and is
// not older than orphanAge.
func (s *secrets) faults(name string, m metadata) []driver.Fault {
	switch now := time.Now(); {
	case m.empty() && now.Sub(m.secret.GetCreateTime().AsTime()) > orphanAge:
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
				Kind: driver.FaultRolledBack, Action: fmt.Sprintf("point the alias to version %d again", m.account.Current),
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

// ripe returns the number of versions that became due at least grace before the given time.
func ripe(all []due, now time.Time) (n int64) {
	for _, d := range all {
		if d.ripe(now) {
			n += max(d.To-d.Number, 0) + 1
		}
	}
	return n
}

// unmake deletes a secret whose metadata m show no state. If a writer has committed a state in the
// meantime, the error matches ErrConflict.
func (s *secrets) unmake(ctx context.Context, name string, m metadata) error {
	err := s.remove(ctx, name, m.secret.GetEtag())
	s.seen.drop(name)
	if errors.Is(err, driver.ErrNotFound) {
		return nil
	}
	return err
}

// realias moves the alias back to the version of the last commit. The labels do not change. If the
// metadata differ from m, or if that version does not exist or was replaced, the error matches
// ErrConflict.
func (s *secrets) realias(ctx context.Context, name string, m metadata) error {
	there, err := s.readNumber(ctx, name, m.account.Current)
	switch {
	case errors.Is(err, driver.ErrNotFound):
		return fmt.Errorf("%w: there is no version %d of %q", driver.ErrConflict, m.account.Current, s.prefix+name)
	case err != nil:
		return err
	case there.incarnation != m.account.Incarnation || there.digest != m.account.Digest:
		return fmt.Errorf("%w: %q", driver.ErrConflict, s.prefix+name)
	}
	next := m.annotate(m.account)
	next.VersionAliases = merge(m.secret.GetVersionAliases(), map[string]int64{alias: m.account.Current})
	return s.put(ctx, name, next, "annotations", "version_aliases")
}

// sweeps is the maximum number of rounds that destroyDue makes, each with at most driverkit.Width
// versions. A version with an unknown etag takes two rounds.
const sweeps = 100

// destroyDue destroys the versions that are due, in at most sweeps rounds. If versions are still
// due after the last round, the error matches ErrConflict. If a destruction failed, the error
// matches ErrUnavailable.
func (s *secrets) destroyDue(ctx context.Context, name string) error {
	for range sweeps {
		m, err := s.describe(ctx, name)
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
			continue // the state has changed
		} else if err != nil {
			return err
		}
		if left := s.sweep(ctx, name, over); len(left) > 0 {
			if m, err = s.describe(ctx, name); err == nil {
				err = s.stillDue(ctx, name, m, append(m.account.Due, left...))
			}
			return errors.Join(fmt.Errorf("%w: %d versions of %q could not be destroyed", driver.ErrUnavailable, len(left), s.prefix+name), err)
		}
	}
	return fmt.Errorf("%w: %q has more versions that are due", driver.ErrConflict, s.prefix+name)
}

// stillDue replaces the list of due versions with the list pending if the metadata m are still
// current. Otherwise the error matches ErrConflict.
func (s *secrets) stillDue(ctx context.Context, name string, m metadata, pending []due) error {
	a := m.account
	a.Due = fewer(pending)
	return s.put(ctx, name, m.annotate(a), "annotations")
}

// Present implements driver.Inspector.
func (s *secrets) Present(ctx context.Context, name string, labels []driver.Label) ([]driver.Label, error) {
	m, err := s.describe(ctx, name)
	if errors.Is(err, driver.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	there := m.secret.GetLabels()
	return slices.DeleteFunc(slices.Clone(labels), func(l driver.Label) bool {
		k, v := labelFor(l)
		return there[k] != v
	}), nil
}

// Unlabel implements driver.Inspector.
func (s *secrets) Unlabel(ctx context.Context, name string, labels []driver.Label) error {
	m, err := s.describe(ctx, name)
	if errors.Is(err, driver.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	next := m.annotate(m.account)
	next.Labels = maps.Clone(m.secret.GetLabels())
	for _, l := range labels {
		k, _ := labelFor(l)
		delete(next.Labels, k)
	}
	return s.put(ctx, name, next, "labels", "annotations")
}

// Probe implements driver.Inspector. The second call creates a secret for the following calls, and
// the last call deletes that secret. If Probe cannot create the secret, the following calls name a
// secret that does not exist.
func (s *secrets) Probe(ctx context.Context) iter.Seq2[driver.Probed, error] {
	return driverkit.Probes(ctx, s.probes())
}

func (s *secrets) probes() []driverkit.Probe {
	name := "tokenkeepprobe" + newIncarnation()
	var made metadata
	var version added
	probe := func(call, permission string, do func(context.Context) error) driverkit.Probe {
		return driverkit.Probe{Call: call, Needs: "the permission secretmanager." + permission, Do: do}
	}
	return []driverkit.Probe{
		probe("ListSecrets", "secrets.list", func(ctx context.Context) error {
			return s.list(ctx, s.all(), func(string, metadata) bool { return false })
		}),
		probe("CreateSecret", "secrets.create", func(ctx context.Context) (err error) {
			made, err = s.create(ctx, name, s.unused())
			return err
		}),
		probe("GetSecret", "secrets.get", func(ctx context.Context) error { _, err := s.describe(ctx, name); return err }),
		probe("AddSecretVersion", "versions.add", func(ctx context.Context) (err error) {
			version, err = s.add(ctx, name, []byte("probe"))
			return err
		}),
		probe("AccessSecretVersion", "versions.access", func(ctx context.Context) error { _, err := s.readNumber(ctx, name, 1); return err }),
		probe("GetSecretVersion", "versions.get", func(ctx context.Context) error { _, err := s.describeVersion(ctx, name, 1); return err }),
		probe("UpdateSecret", "secrets.update", func(ctx context.Context) error {
			if made.secret == nil || version.number == 0 {
				m, err := s.update(ctx, name, made.annotate(made.account), "annotations")
				if err == nil {
					made = m
				}
				return err
			}
			return s.compares(ctx, name, &made, version.number)
		}),
		probe("DestroySecretVersion", "versions.destroy", func(ctx context.Context) error { return s.destroy(ctx, name, 1, version.etag) }),
		probe("DeleteSecret", "secrets.delete", func(ctx context.Context) error { return s.remove(ctx, name, made.secret.GetEtag()) }),
	}
}

// compares returns an error matching errDrops if the server accepts an update with an outdated
// etag. compares first makes an update with the current etag, which is outdated after that update.
// compares sets *made to the latest metadata.
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
