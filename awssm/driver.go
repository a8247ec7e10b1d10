package awssm

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager/types"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

const (
	// maxSize is the limit of a value.
	maxSize = 64 << 10

	// dailyWrites is how many versions a secret has: those of the last 24 hours
	// are not removed, however many there are.
	dailyWrites = 100

	// listLag is how long lists and searches may not reflect a change, by the
	// documentation of ListSecrets.
	listLag = 5 * time.Minute

	// baseLife is how long a version counts as just read. The version after it
	// is there for 24 hours at the least, so that a writer whose base is younger
	// is refused if another one was first.
	baseLife = time.Hour

	// labelLife is how long after it was added a tag that no record holds may
	// belong to a write that is under way. A write commits within half of that, or
	// not at all; the other half is for clocks that differ. More would keep a record
	// longer from being written whose writers have left all the tags it can have.
	labelLife = time.Hour

	// cleanup bounds how long removing old tags may hold up a write that has
	// succeeded.
	cleanup = 5 * time.Second

	// patience bounds how long Create waits for a name that is being deleted, if
	// its context does not.
	patience = 2 * time.Minute

	// farthest is how many versions apart two states are still recognized as
	// states of one chain.
	farthest = 128
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

// Format prints s as its type. Package fmt would print what the client holds.
func (s *secrets) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("*awssm.secrets")) }

// Properties implements driver.Secrets. Of reads the service promises only that
// they are consistent in the end.
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
		// The secret is there. Either it has no value, or the read is out of date.
		st, err = s.newest(ctx, name, "")
	}
	if err != nil {
		return driver.Secret{}, err
	}
	return s.secret(st)
}

// Fresh implements driver.Secrets. It goes on from what a read returns, and from
// than, to the version after which there is none.
func (s *secrets) Fresh(ctx context.Context, name string, than driver.Secret) (driver.Secret, error) {
	st, err := s.newest(ctx, name, than.Version)
	if err != nil {
		return driver.Secret{}, err
	}
	return s.secret(st)
}

// Create implements driver.Secrets.
func (s *secrets) Create(ctx context.Context, name string, p driver.Payload) (driver.Version, error) {
	path, labels := s.path(name), s.pool.use(p.Labels)
	begun, unseen := s.now(), 0
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, 2*time.Second) {
		at, err := s.create(ctx, path, record(p.Data, nil), s.tagsOf(p.Labels))
		switch {
		case err == nil:
			return s.sighted(at, nil), nil
		case errors.Is(err, driver.ErrNotFound):
			err = s.evict(ctx, path, err)
		case errors.Is(err, driver.ErrExists):
			var v driver.Version
			if v, err = s.succeed(ctx, name, p, labels, err); v != "" {
				return v, nil
			}
			if unseen++; err == nil && unseen == 10 {
				// The service says that it exists, and no read shows it.
				return "", fmt.Errorf("%w: %s", driver.ErrExists, path)
			}
		}
		if err != nil {
			return "", err
		}
		if s.now().Sub(begun) > patience {
			return "", fmt.Errorf("%w: %s is still being deleted", driver.ErrUnavailable, path)
		}
		if err := sleep(ctx, pause); err != nil {
			return "", err
		}
	}
}

// succeed creates a secret in the place of one that exists, if its record was
// deleted. It returns nothing if that has to be tried again.
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
		// Whoever deleted the record did not get as far as this.
		return "", s.remove(ctx, st.arn)
	}
	v, err := s.replace(ctx, change{
		path: s.path(name), base: base{place: st.place}, next: st.next(), issued: labels, creates: true, begun: s.now(),
	}, p)
	if errors.Is(err, driver.ErrConflict) || errors.Is(err, driver.ErrNotFound) {
		return "", nil
	}
	return v, err
}

// evict makes sure that a secret which is being deleted, and still has its name,
// is not only scheduled to be deleted in some days. It goes by the ARN, because
// the name may be another secret's by then.
func (s *secrets) evict(ctx context.Context, path string, scheduled error) error {
	out, err := s.describe(ctx, path)
	switch {
	case errors.Is(err, driver.ErrNotFound):
		return nil
	case err != nil:
		return err
	case out.DeletedDate == nil:
		return nil // what was described is a secret of another life
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
	c.next = c.base.next()
	return s.replace(ctx, c, p)
}

// A base is a version that may be written over.
type base struct {
	place
	lacks []driver.Label // labels of it that its secret had no room for
}

// base returns the place of a version that may be written over. One that was read
// long ago is read again: the version that came after it may have been removed
// since, and would refuse nobody.
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
	path    string
	base    base
	next    place          // of the version to be made
	old     []driver.Label // of the base
	issued  issued         // of the new ones
	creates bool           // over a state without a record
	begun   time.Time
}

// replace stores p as the version next.
func (s *secrets) replace(ctx context.Context, c change, p driver.Payload) (driver.Version, error) {
	missing := without(c.base.lacks, without(c.base.lacks, p.Labels))
	lacks, err := s.label(ctx, c, slices.Concat(without(p.Labels, c.old), missing), slices.Concat(c.old, p.Labels))
	if err == nil && s.now().Sub(c.begun) > labelLife/2 {
		return "", fmt.Errorf("%w: the process stood still, and the labels may be gone", driver.ErrConflict)
	}
	if err == nil {
		err = s.put(ctx, c.next, record(p.Data, lacks))
	}
	if err != nil {
		s.takeBack(ctx, c, err)
		return "", err
	}
	s.unlabel(ctx, c.base.arn, without(c.old, p.Labels))
	return s.sighted(c.next, lacks), nil
}

// Delete implements driver.Secrets. A tombstone ends the chain of versions, so
// that a writer with the same base is refused. Then the secret is deleted, by its
// ARN: the next one of its name has another.
func (s *secrets) Delete(ctx context.Context, name string, base driver.Secret) error {
	at, err := s.base(ctx, name, base.Version)
	if err == nil {
		t := tombstone{Deleted: rand.Text(), Kept: s.keep}
		if err = s.put(ctx, at.next(), t.value()); err == nil {
			return s.finish(ctx, at.arn, t, base.Labels)
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
		return s.finish(ctx, st.arn, *st.tombstone, nil) // the labels are not ours to remove
	}
	return fmt.Errorf("%w: %s", driver.ErrConflict, s.path(name))
}

// finish does what is left to do once a tombstone is in place.
func (s *secrets) finish(ctx context.Context, arn string, t tombstone, labels []driver.Label) error {
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
	keys = slices.Compact(keys)
	return func(yield func(driver.Named, error) bool) {
		yielded := map[string]bool{}
		for some := range slices.Chunk(keys, filterValues) {
			filters := []types.Filter{{Key: types.FilterNameStringTypeTagKey, Values: some}, below(s.prefix)}
			if !s.fetch(ctx, filters, yielded, yield) {
				return
			}
		}
	}
}

// List implements driver.Secrets.
func (s *secrets) List(ctx context.Context) iter.Seq2[driver.Named, error] {
	return func(yield func(driver.Named, error) bool) {
		s.fetch(ctx, []types.Filter{below(s.prefix)}, map[string]bool{}, yield)
	}
}

// fetch yields the secrets that meet the conditions and were not yielded before.
// It reports whether more are wanted. Filters are prefixes, and match what is below
// another prefix in this one too: that is left out.
func (s *secrets) fetch(ctx context.Context, filters []types.Filter, yielded map[string]bool, yield func(driver.Named, error) bool) bool {
	more, err := s.batch(ctx, filters, func(path string, st state) bool {
		name, ok := s.name(path)
		if !ok || st.tombstone != nil || yielded[name] {
			return true
		}
		yielded[name] = true
		secret, err := s.secret(st)
		return yield(driver.Named{Name: name, Secret: secret}, err)
	})
	if err != nil {
		yield(driver.Named{}, err)
	}
	return more && err == nil
}

// Names implements driver.Secrets.
func (s *secrets) Names(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		err := s.list(ctx, s.prefix, func(path string) bool {
			name, ok := s.name(path)
			return !ok || yield(name, nil)
		})
		if err != nil {
			yield("", err)
		}
	}
}

// Close implements driver.Secrets. There is nothing to release.
func (s *secrets) Close() error { return nil }

var legalName = regexp.MustCompile(`^[a-z0-9]{1,64}$`)

func (s *secrets) path(name string) string { return s.prefix + "/" + name }

// name returns the name of the record at a path. Deeper ones are another
// prefix's.
func (s *secrets) name(path string) (string, bool) {
	name, ok := strings.CutPrefix(path, s.prefix+"/")
	return name, ok && legalName.MatchString(name)
}

// secret returns a state as the portable type sees it.
func (s *secrets) secret(st state) (driver.Secret, error) {
	if st.err != nil {
		return driver.Secret{}, st.err
	}
	return driver.Secret{Payload: driver.Payload{Data: st.data}, Version: s.sighted(st.place, st.lacks), Updated: st.created}, nil
}

// sighted notes that a version was just read or written.
func (s *secrets) sighted(at place, lacks []driver.Label) driver.Version {
	s.seen.note(at.version(), sighting{s.now(), lacks})
	return at.version()
}

// errGone means that what was read is of a secret that is not there any more.
var errGone = errors.New("the secret is gone")

// newest returns the newest state of a secret that can be proved, a tombstone
// included. Reads by name may lag; reads by the ID of a version are not known to,
// and whether an ID is taken is what decides writes.
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
		end, err2 := s.end(ctx, path, st, than)
		if !errors.Is(err2, errGone) {
			return end, err2
		}
		if tries == 2 {
			return state{}, fmt.Errorf("%w: %s is deleted and created all the time", driver.ErrUnavailable, path)
		}
		err = driver.ErrNotFound // what was read is of an earlier life
	}
}

// end returns the last state of st's secret: the end of the chain that st is in
// and, if than is the place of another, the younger of the two ends. There are two
// if somebody has written to the secret without following the chain, or has moved
// the label AWSCURRENT.
func (s *secrets) end(ctx context.Context, path string, st state, than driver.Version) (state, error) {
	known, ok := parse(than)
	if !ok || known.arn != st.arn || known == st.place {
		return s.follow(ctx, path, st, 0)
	}
	if n := distance(st.place, known); n > 0 {
		return s.follow(ctx, path, st, n)
	}
	end, err := s.follow(ctx, path, st, 0)
	if err != nil || distance(known, st.place) > 0 {
		return end, err
	}
	other, err := s.read(ctx, path, known.arn, known.id)
	switch {
	case errors.Is(err, errNoVersion):
		return end, nil // it has been removed, as the oldest are
	case errors.Is(err, driver.ErrNotFound):
		return state{}, errGone
	case err != nil:
		return state{}, err
	}
	if other, err = s.follow(ctx, path, other, 0); err == nil && !other.created.After(end.created) {
		return end, nil
	}
	return other, err
}

// distance returns how many versions b is after a, or 0 if it is not.
func distance(a, b place) int {
	for n := range farthest {
		if a = a.next(); a == b {
			return n + 1
		}
	}
	return 0
}

// follow returns the last state of the chain that st is in. The version that is n
// after st is known to exist. Where every version would be is known beforehand, so
// that a chain of n versions is followed in about 2 log n reads.
func (s *secrets) follow(ctx context.Context, path string, st state, n int) (state, error) {
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
		found, err := s.read(ctx, path, st.arn, at(i).id)
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
	found, err := s.read(ctx, path, st.arn, at(last).id)
	if errors.Is(err, driver.ErrNotFound) {
		return state{}, errGone
	}
	return found, err
}

// without returns the labels of a that are not in b.
func without(a, b []driver.Label) []driver.Label {
	b = slices.SortedFunc(slices.Values(b), compareLabels)
	return slices.DeleteFunc(slices.Clone(a), func(l driver.Label) bool {
		_, found := slices.BinarySearchFunc(b, l, compareLabels)
		return found
	})
}

// sleep waits for d, or until ctx is done.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
