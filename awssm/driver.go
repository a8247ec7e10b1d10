package awssm

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager/types"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/driverkit"
)

const (
	// maxSize is the limit of a value.
	maxSize = 64 << 10

	// dailyWrites is how many versions a secret has. Versions of the last 24 hours are
	// not removed, however many there are.
	dailyWrites = 100

	// listLag is how long lists and searches may not reflect a change, by the
	// documentation of ListSecrets.
	listLag = 5 * time.Minute

	// baseLife is how long a version counts as just read. The version after it stays for
	// at least 24 hours, so that a writer with a younger base is refused if another
	// one came first.
	baseLife = time.Hour

	// labelLife is how long a tag that no record holds may belong to a write that is
	// under way. A write commits within half of that, or not at all; the other half is
	// for clocks that differ. A longer one would keep a record from being written whose
	// tags are used up.
	labelLife = time.Hour

	// cleanup bounds how long the removal of old tags may hold up a successful write.
	cleanup = 5 * time.Second

	// patience bounds how long Create waits for a name that is being deleted, if its
	// context does not.
	patience = 2 * time.Minute
)

// secrets implements driver.Secrets.
type secrets struct {
	service
	prefix string
	keep   bool
	now    func() time.Time
	seen   sightings
	pool   pool
}

var _ driver.Labeler = (*secrets)(nil)

// Format prints s as its type. Package fmt would print the contents of the client.
func (s *secrets) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("*awssm.secrets")) }

func (s *secrets) path(name string) string { return s.prefix + "/" + name }

// name returns the name of the record at a path. Deeper paths are another prefix's.
func (s *secrets) name(path string) (string, bool) {
	name, ok := strings.CutPrefix(path, s.prefix+"/")
	return name, ok && driverkit.LegalName(name)
}

// Properties implements driver.Secrets. Of reads the service promises only that they
// are consistent in the end.
func (s *secrets) Properties() driver.Properties {
	return driver.Properties{
		Name: "awssm", Place: "awssm/" + s.prefix, MaxSize: maxSize, ListLag: listLag, ReadLag: driver.Unbounded, DailyWrites: dailyWrites,
	}
}

// Get implements driver.Secrets.
func (s *secrets) Get(ctx context.Context, name string) (driver.Secret, error) {
	path := s.path(name)
	st, err := s.read(ctx, path, path, "")
	if errors.Is(err, errNoCurrent) {
		// The secret exists. Either it has no value, or the read is stale.
		st, err = s.newest(ctx, name, "")
	}
	if err != nil {
		return driver.Secret{}, err
	}
	return s.secret(st)
}

// secret returns a state as the portable type sees it.
func (s *secrets) secret(st state) (driver.Secret, error) {
	if st.err != nil {
		return driver.Secret{}, st.err
	}
	return driver.Secret{Payload: driver.Payload{Data: st.data}, Version: s.sighted(st.place, st.lacks), Updated: st.created}, nil
}

// sighted remembers that a version was just read or written.
func (s *secrets) sighted(at place, lacks []driver.Label) driver.Version {
	s.seen.add(at.version(), sighting{s.now(), lacks})
	return at.version()
}

// Fresh implements driver.Secrets. It goes on from the state that a read returns, and
// from than, to the last version of the chain.
func (s *secrets) Fresh(ctx context.Context, name string, than driver.Secret) (driver.Secret, error) {
	st, err := s.newest(ctx, name, than.Version)
	if err != nil {
		return driver.Secret{}, err
	}
	return s.secret(st)
}

// errGone means that the state that was read is of a secret that does not exist any more.
var errGone = errors.New("the secret is gone")

// newest returns the newest state of a secret that can be proved, which may be a
// tombstone. Reads by name may lag; reads by the ID of a version are not known to, and
// whether an ID is taken is what decides writes.
func (s *secrets) newest(ctx context.Context, name string, than driver.Version) (state, error) {
	path := s.path(name)
	st, err := s.read(ctx, path, path, "")
	for tries := 0; ; tries++ {
		if errors.Is(err, driver.ErrNotFound) {
			st, err = s.read(ctx, path, path, first(path))
		}
		if err != nil {
			return state{}, s.unvalued(ctx, path, err)
		}
		end, err2 := s.end(ctx, st, than)
		if !errors.Is(err2, errGone) {
			return end, err2
		}
		if tries == 2 {
			return state{}, fmt.Errorf("%w: %s is deleted and created all the time", driver.ErrUnavailable, path)
		}
		err = driver.ErrNotFound // the read was of an earlier incarnation
	}
}

// end returns the last state of st's secret: the end of the chain that st is in and, if
// than is the place of another chain, the younger of the two ends. There are two if
// another tool has written to the secret without following the chain, or has moved the
// label AWSCURRENT.
func (s *secrets) end(ctx context.Context, st state, than driver.Version) (state, error) {
	known, ok := parse(than)
	if !ok || known.arn != st.arn || known == st.place {
		return s.follow(ctx, st, 0)
	}
	if n := distance(st.place, known); n > 0 {
		return s.follow(ctx, st, n)
	}
	end, err := s.follow(ctx, st, 0)
	if err != nil || distance(known, st.place) > 0 {
		return end, err
	}
	other, err := s.read(ctx, st.path, known.arn, known.id)
	switch {
	case errors.Is(err, errNoVersion):
		return end, nil // it has been removed, as the oldest are
	case errors.Is(err, driver.ErrNotFound):
		return state{}, errGone
	case err != nil:
		return state{}, err
	}
	if other, err = s.follow(ctx, other, 0); err == nil && !other.created.After(end.created) {
		return end, nil
	}
	return other, err
}

// follow returns the last state of the chain that st is in. The version that is n after
// st is known to exist. The place of every version is known beforehand, so that a chain
// of n versions takes about 2 log n reads.
func (s *secrets) follow(ctx context.Context, st state, n int) (state, error) {
	chain := []place{st.place}
	at := func(i int) place {
		for len(chain) <= i {
			chain = append(chain, chain[len(chain)-1].next())
		}
		return chain[i]
	}
	last, beyond := n, -1 // the last version that is known to exist; one that is not
	proved := false       // that the secret exists
	for step := 1; beyond != last+1; {
		i := last + step
		if beyond > 0 {
			i = (last + beyond) / 2
		}
		found, err := s.read(ctx, st.path, st.arn, at(i).id)
		switch {
		case err == nil:
			st, last, step, proved = found, i, 2*step, true
		case errors.Is(err, driver.ErrNotFound):
			beyond = i
			proved = proved || errors.Is(err, errNoVersion)
		default:
			return state{}, err
		}
	}
	if proved && st.place == at(last) {
		return st, nil
	}
	found, err := s.read(ctx, st.path, st.arn, at(last).id)
	if errors.Is(err, driver.ErrNotFound) {
		return state{}, errGone
	}
	return found, err
}

// Create implements driver.Secrets.
func (s *secrets) Create(ctx context.Context, name string, p driver.Payload) (v driver.Version, err error) {
	path, labels, unseen := s.path(name), s.pool.use(p.Labels), 0
	deletion := driverkit.Backoff{Pause: 50 * time.Millisecond, Longest: 2 * time.Second, Patience: patience, Now: s.now}
	created, err := deletion.Until(ctx, func() (bool, error) {
		at, err := s.create(ctx, path, encode(p.Data, nil), tagsOf(p.Labels, s.now()))
		switch {
		case err == nil:
			v = s.sighted(at, nil)
		case errors.Is(err, driver.ErrNotFound):
			err = s.evict(ctx, path, err)
		case errors.Is(err, driver.ErrExists):
			if v, err = s.succeed(ctx, name, p, labels, err); v == "" {
				unseen++
			}
			if unseen == 10 && err == nil {
				err = fmt.Errorf("%w: %s", driver.ErrExists, path) // no read shows it
			}
		}
		return v != "", err
	})
	if !created && err == nil {
		err = fmt.Errorf("%w: %s is still being deleted", driver.ErrUnavailable, path)
	}
	return v, err
}

// succeed creates a secret in the place of one whose record was deleted. It returns no
// version and no error if Create has to try again.
func (s *secrets) succeed(ctx context.Context, name string, p driver.Payload, labels issued, exists error) (driver.Version, error) {
	st, err := s.newest(ctx, name, "")
	switch {
	case errors.Is(err, driver.ErrNotFound):
		return "", nil
	case err != nil:
		return "", err
	case st.tombstone == nil:
		return "", exists
	case !st.tombstone.Kept:
		return "", s.remove(ctx, st.arn) // the process that deleted the record did not get to it
	}
	v, err := s.commit(ctx, change{base: base{place: st.place}, path: s.path(name), issued: labels, creates: true, begun: s.now()}, p)
	if errors.Is(err, driver.ErrConflict) || errors.Is(err, driver.ErrNotFound) {
		return "", nil
	}
	return v, err
}

// evict ends the recovery window of a secret that is scheduled for deletion and still has
// its name. It goes by the ARN: by then the name may belong to another secret.
func (s *secrets) evict(ctx context.Context, path string, scheduled error) error {
	out, err := s.describe(ctx, path)
	switch {
	case errors.Is(err, driver.ErrNotFound):
		return nil
	case err != nil:
		return err
	case out.DeletedDate == nil:
		return nil // this is a secret of another incarnation
	case s.keep:
		return fmt.Errorf("%w: another program has scheduled the deletion of the secret: %v", driver.ErrUnavailable, scheduled)
	}
	return s.remove(ctx, aws.ToString(out.ARN))
}

// Update implements driver.Secrets.
func (s *secrets) Update(ctx context.Context, name string, base driver.Secret, p driver.Payload) (driver.Version, error) {
	c := change{path: s.path(name), old: base.Labels, issued: s.pool.use(p.Labels), begun: s.now()}
	var err error
	if c.base, err = s.base(ctx, name, base.Version); err != nil {
		return "", err
	}
	return s.commit(ctx, c, p)
}

// A base is a version that may be written over.
type base struct {
	place
	lacks []driver.Label // labels of it that its secret had no room for
}

// base returns the place of a version that may be written over. It reads a version again
// that was read long ago: the version after it may have been removed since, and would
// refuse no writer.
func (s *secrets) base(ctx context.Context, name string, v driver.Version) (base, error) {
	at, ok := parse(v)
	if !ok {
		return base{}, fmt.Errorf("%w: the base has no version", driver.ErrConflict)
	}
	if lacks, ok := s.seen.since(v, s.now().Add(-baseLife)); ok {
		return base{at, lacks}, nil
	}
	st, err := s.newest(ctx, name, v)
	switch {
	case err != nil:
		return base{}, err
	case st.version() != v:
		return base{}, fmt.Errorf("%w: %s has a newer version", driver.ErrConflict, at.arn)
	}
	return base{at, st.lacks}, nil
}

// A change is one replacement of a state.
type change struct {
	base
	path    string
	old     []driver.Label // of the base
	issued  issued         // of the new ones
	creates bool           // over a state without a record
	begun   time.Time
}

// commit stores p as the version after the base of c.
func (s *secrets) commit(ctx context.Context, c change, p driver.Payload) (driver.Version, error) {
	missing := driverkit.Without(c.base.lacks, driverkit.Without(c.base.lacks, p.Labels))
	lacks, err := s.label(ctx, c, slices.Concat(driverkit.Without(p.Labels, c.old), missing), slices.Concat(c.old, p.Labels))
	if err == nil && s.now().Sub(c.begun) > labelLife/2 {
		return "", fmt.Errorf("%w: the process was suspended, and its labels may have been removed", driver.ErrConflict)
	}
	if err == nil {
		err = s.put(ctx, c.next(), encode(p.Data, lacks))
	}
	if err != nil {
		s.takeBack(ctx, c, err)
		return "", err
	}
	s.unlabel(ctx, c.arn, driverkit.Without(c.old, p.Labels))
	return s.sighted(c.next(), lacks), nil
}

// label adds labels to the secret of a change. held are the labels that must stay. It
// returns those that there is no room for: a label is a hint, and a record is written
// without it rather than not at all.
func (s *secrets) label(ctx context.Context, c change, labels, held []driver.Label) (lacks []driver.Label, err error) {
	if len(labels) == 0 {
		return nil, nil
	}
	err = s.attach(ctx, c.arn, tagsOf(labels, s.now()))
	if err == nil || !unfit(err) {
		return nil, err
	}
	out, unknown := s.describe(ctx, c.arn)
	if ctx.Err() != nil {
		return nil, unknown
	}
	used := 0 // tags that there are, beside the labels that are to be added
	if unknown == nil {
		used = len(out.Tags) - len(labels) + len(driverkit.Without(labels, labelsOf(out.Tags)))
	}
	if used+len(labels) <= maxTags && !full(err) {
		return nil, err // it is not about how many there are
	}
	if unknown == nil {
		removed, err := s.tidy(ctx, c, driverkit.Without(abandoned(out.Tags, s.now()), slices.Concat(held, labels)))
		if err != nil {
			return nil, err
		}
		used -= removed
	}
	fits := labels[:max(0, min(maxTags-used, len(labels)))]
	if len(fits) > 0 {
		if err := s.attach(ctx, c.arn, tagsOf(fits, s.now())); err != nil && !unfit(err) {
			return nil, err
		} else if err != nil {
			fits = nil
		}
	}
	return labels[len(fits):], nil
}

// tidy removes labels that abandoned or refused writes have left, and returns how many.
// No record holds them if the base of the change is the present state, which tidy asks
// first. It returns no error if it cannot remove them: then they take room.
func (s *secrets) tidy(ctx context.Context, c change, abandoned []driver.Label) (int, error) {
	if len(abandoned) == 0 {
		return 0, nil
	}
	switch _, err := s.read(ctx, c.path, c.arn, c.next().id); {
	case err == nil:
		return 0, fmt.Errorf("%w: %s has a newer version", driver.ErrConflict, c.arn)
	case !errors.Is(err, driver.ErrNotFound):
		return 0, err
	}
	if _, err := s.detach(ctx, c.arn, keysOf(abandoned)); err != nil {
		return 0, ctx.Err()
	}
	return len(abandoned), nil
}

// unlabel removes labels. It ignores failures: labels that are left do no harm. kept
// says that all of them are certainly still there, and stay.
func (s *secrets) unlabel(ctx context.Context, arn string, labels []driver.Label) (kept bool) {
	if len(labels) == 0 {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, cleanup)
	defer cancel()
	kept, _ = s.detach(ctx, arn, keysOf(labels))
	return kept
}

// takeBack removes the labels that a failed write has added, if it has certainly failed
// and none of them belongs to another write. It leaves the others to a later write over
// the same base.
func (s *secrets) takeBack(ctx context.Context, c change, err error) {
	var unused, used []driver.Label
	for l, first := range c.issued {
		if first.IsZero() {
			unused = append(unused, l)
		} else {
			used = append(used, l)
		}
	}
	conflict := errors.Is(err, driver.ErrConflict)
	switch {
	case errors.Is(err, driver.ErrNotFound), conflict && c.creates:
		return // Create goes on with the same labels
	case !errors.As(err, new(rejected)), ctx.Err() != nil:
		s.pool.leave(c, slices.Concat(unused, used))
		return
	case !conflict:
		s.pool.leave(c, used)
	}
	// A used label may belong to a write over this base whose outcome is unknown, and
	// which may have won: it stays. A label whose removal was asked for may disappear at
	// any later time: no write uses it again.
	if kept := s.unlabel(ctx, c.arn, unused); kept && !conflict {
		s.pool.leave(c, unused)
	}
}

// Delete implements driver.Secrets. A tombstone ends the chain of versions, so that a
// writer with the same base is refused. Then the secret is deleted, by its ARN: the next
// one of its name has another.
func (s *secrets) Delete(ctx context.Context, name string, base driver.Secret) error {
	at, err := s.base(ctx, name, base.Version)
	if err == nil {
		t := tombstone{Deleted: rand.Text(), Kept: s.keep}
		if err = s.put(ctx, at.next(), t.value()); err == nil {
			return s.clear(ctx, at.arn, t, base.Labels)
		}
	}
	if !errors.Is(err, driver.ErrConflict) && !errors.Is(err, driver.ErrNotFound) {
		return err
	}
	st, unread := s.newest(ctx, name, base.Version)
	switch {
	case errors.Is(unread, driver.ErrNotFound):
		return nil
	case unread != nil:
		return unread
	case st.tombstone != nil:
		return s.clear(ctx, st.arn, *st.tombstone, nil) // the labels are not ours to remove
	}
	return fmt.Errorf("%w: %s", driver.ErrConflict, s.path(name))
}

// clear removes what is left of a secret once its tombstone is in place.
func (s *secrets) clear(ctx context.Context, arn string, t tombstone, labels []driver.Label) error {
	if t.Kept {
		s.unlabel(ctx, arn, labels)
		return nil
	}
	if err := s.remove(ctx, arn); err != nil {
		return fmt.Errorf("deleted, but its earlier versions are still there: %w", err)
	}
	return nil
}

// Lookup implements driver.Secrets.
func (s *secrets) Lookup(ctx context.Context, any []driver.Label) iter.Seq2[driver.Named, error] {
	var keys []string
	for _, l := range any {
		keys = append(keys, tagPrefix(l))
	}
	slices.Sort(keys)
	return s.fetch(ctx, slices.Collect(slices.Chunk(slices.Compact(keys), filterValues)))
}

// List implements driver.Secrets.
func (s *secrets) List(ctx context.Context) iter.Seq2[driver.Named, error] {
	return s.fetch(ctx, [][]string{nil})
}

// fetch yields the secrets that have tags with the given beginnings, each once: those of
// any tags for nil. The condition of the prefix matches the secrets of deeper prefixes
// too, which fetch leaves out.
func (s *secrets) fetch(ctx context.Context, searches [][]string) iter.Seq2[driver.Named, error] {
	return driverkit.Seq(func(yield func(driver.Named, error) bool) error {
		yielded := map[string]bool{}
		for _, keys := range searches {
			filters := []types.Filter{{Key: types.FilterNameStringTypeTagKey, Values: keys}, below(s.prefix)}
			if keys == nil {
				filters = filters[1:]
			}
			for st, err := range s.batch(ctx, filters) {
				if err != nil {
					return err
				}
				name, ok := s.name(st.path)
				if !ok || st.tombstone != nil || yielded[name] {
					continue
				}
				yielded[name] = true
				if secret, err := s.secret(st); !yield(driver.Named{Name: name, Secret: secret}, err) {
					return nil
				}
			}
		}
		return nil
	})
}

// Names implements driver.Secrets.
func (s *secrets) Names(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for path, err := range s.list(ctx, s.prefix) {
			if name, ok := s.name(path); (ok || err != nil) && !yield(name, err) {
				return
			}
		}
	}
}

// Close implements driver.Secrets. There is nothing to release.
func (s *secrets) Close() error { return nil }

// Relabel implements driver.Labeler.
func (s *secrets) Relabel(name string, base driver.Version, added []driver.Label) []driver.Label {
	return s.pool.relabel(base, added, s.now())
}
