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
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager/types"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/driverkit"
)

const (
	// maxSize is the maximum size of a value, in bytes.
	maxSize = 64 << 10

	// dailyWrites is the maximum number of versions of a secret. The service removes no version
	// from the last 24 hours, so dailyWrites is also the maximum number of writes in a day.
	dailyWrites = 100

	// listLag is the maximum time by which lists and searches lag, according to the documentation
	// of ListSecrets.
	listLag = 5 * time.Minute

	// baseLife is the time for which a version can be used as a base after the driver has read or
	// written the version. The service keeps the next version for at least 24 hours. While the next
	// version exists, the service refuses a second write over the same base.
	baseLife = time.Hour

	// justRead is the maximum age of a read or write on which Fresh relies. If the driver has read
	// or written a version within that time, Fresh makes no read by name, and begins with the next
	// version.
	justRead = time.Second

	// labelBatch is the number of replaced labels that a record collects before one call of
	// UntagResource removes them. A refresh replaces about one label, so about one refresh in ten
	// removes labels.
	labelBatch = 10

	// labelLife is the age above which a tag that no record uses counts as abandoned. A younger tag
	// may belong to a write in progress. A write that takes more than labelLife/2 to add its labels
	// fails; the other half allows for differences between clocks.
	labelLife = time.Hour

	// cleanup is the maximum time for which a write waits for one removal of tags.
	cleanup = 5 * time.Second

	// patience is the maximum time for which Create waits while the service deletes an earlier
	// secret with the same name.
	patience = 2 * time.Minute
)

type secrets struct {
	service
	prefix string
	keep   bool
	seen   sightings
	missed driverkit.Misses
	pool   pool
}

var _ driver.Labeler = (*secrets)(nil)

// Format prints only the type of s. Without Format, package fmt would print the fields of the
// client, which hold credentials.
func (s *secrets) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("*awssm.secrets")) }

func (s *secrets) path(name string) string { return s.prefix + "/" + name }

// name returns the name of the record at path, and reports whether path is the path of a record.
// Deeper paths belong to another prefix.
func (s *secrets) name(path string) (string, bool) {
	name, ok := strings.CutPrefix(path, s.prefix+"/")
	return name, ok && driverkit.LegalName(name)
}

// Properties implements driver.Secrets. ReadLag is unbounded, because the service promises only
// that reads are eventually consistent.
func (s *secrets) Properties() driver.Properties {
	return driver.Properties{
		Name: "awssm", Place: "awssm/" + s.prefix, MaxSize: maxSize, ListLag: listLag, ReadLag: driver.Unbounded,
		ListBatch: batchSize, LabelBatch: labelBatch, DailyWrites: dailyWrites,
	}
}

// Get implements driver.Secrets.
func (s *secrets) Get(ctx context.Context, name string) (driver.Secret, error) {
	path := s.path(name)
	st, err := s.read(ctx, path, path, "")
	if errors.Is(err, errNoCurrent) {
		// The secret exists. Either no version is current, or the read is stale.
		st, err = s.newest(ctx, name, "")
	} else if errors.Is(err, driver.ErrNotFound) {
		s.missed.Add(path, s.now())
	}
	if err != nil {
		return driver.Secret{}, err
	}
	return s.secret(st)
}

// secret returns st as a driver.Secret, and records that the driver has just read the version. If
// st has no data, secret only returns st.err.
func (s *secrets) secret(st state) (driver.Secret, error) {
	if st.err != nil {
		return driver.Secret{}, st.err
	}
	return driver.Secret{Payload: driver.Payload{Data: st.data}, Version: s.sightedAt(st.read, st.place, st.lacks), Updated: st.created}, nil
}

// sighted records that the driver has just read or written the version at the given place, and
// returns that version. The parameter lacks holds the labels for which the secret has no room.
func (s *secrets) sighted(at place, lacks []driver.Label) driver.Version {
	return s.sightedAt(time.Time{}, at, lacks)
}

// sightedAt is like sighted, but for a version that the driver read or wrote at the given time. The
// zero time stands for the current time.
func (s *secrets) sightedAt(when time.Time, at place, lacks []driver.Label) driver.Version {
	if when.IsZero() {
		when = s.now()
	}
	s.seen.add(at.version(), sighting{when, lacks})
	return at.version()
}

// Fresh implements driver.Secrets. Fresh follows the chain of versions to the last version. If the
// driver has just read or written the caller's state, Fresh begins with that state. Otherwise Fresh
// begins with the state that a read by name returns. If the caller has no state, and Get has just
// reported that the record does not exist, Fresh first reads the first version by ID.
func (s *secrets) Fresh(ctx context.Context, name string, than driver.Secret) (driver.Secret, error) {
	switch path := s.path(name); {
	case than.Version == "" && s.missed.Take(path, s.now()):
		_, err := s.read(ctx, path, path, first(path))
		if errors.Is(err, driver.ErrNotFound) && !errors.Is(err, errNoVersion) {
			return driver.Secret{}, err
		}
	default:
		if now, ok := s.after(ctx, path, than); ok {
			return now, nil
		}
	}
	st, err := s.newest(ctx, name, than.Version)
	if err != nil {
		return driver.Secret{}, err
	}
	return s.secret(st)
}

// after returns the newest state in the chain that contains the caller's state. The newest state
// may be the caller's state itself. The second result is false if the caller's state has no data,
// or if the driver has not read or written that state within justRead. The second result is also
// false if the newest state is unreadable or has no data.
func (s *secrets) after(ctx context.Context, path string, than driver.Secret) (driver.Secret, bool) {
	at, ok := parse(than.Version)
	if !ok || than.Data == nil {
		return driver.Secret{}, false
	}
	lacks, ok := s.seen.since(than.Version, s.now().Add(-justRead))
	if !ok {
		return driver.Secret{}, false
	}
	next, err := s.read(ctx, path, at.arn, at.next().id)
	if errors.Is(err, errNoVersion) {
		return driver.Secret{Payload: driver.Payload{Data: slices.Clone(than.Data)}, Version: s.sighted(at, lacks), Updated: than.Updated}, true
	}
	if err == nil {
		next, err = s.follow(ctx, next, 0)
	}
	if err != nil || next.tombstone != nil || next.err != nil {
		return driver.Secret{}, false
	}
	now, err := s.secret(next)
	return now, err == nil
}

// errGone means that the secret to which a state belongs was deleted.
var errGone = errors.New("the secret is gone")

// newest returns the newest state that reads can prove to exist. The state may be a tombstone. The
// parameter than is the newest version that the caller has seen, or "". The error matches
// ErrNotFound if the secret does not exist, and ErrCorrupt if the secret has no current version.
// Reads by name may lag, but reads by version ID are not known to lag. If a read by version ID does
// lag, the service refuses a write over the state that newest returns.
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
			return state{}, fmt.Errorf("%w: %s is deleted and created repeatedly", driver.ErrUnavailable, path)
		}
		err = driver.ErrNotFound // the read returned an earlier incarnation
	}
}

// end returns the last state of the chain that contains st. The parameter than is the newest
// version that the caller has seen, or "". If that version is in another chain of the same secret,
// end returns the younger of the last states of the two chains. There are two chains if another
// tool has written a version whose ID is not derived from the ID of the previous version. The error
// matches errGone if the secret was deleted.
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
		return end, nil // the service has removed the caller's version
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

// follow returns the last state of the chain that contains st. The caller knows that at least n
// versions follow st. The IDs of all versions are known in advance, so follow makes about 2 log m
// reads if m versions follow st. The error matches errGone if the secret was deleted.
func (s *secrets) follow(ctx context.Context, st state, n int) (state, error) {
	chain := []place{st.place}
	at := func(i int) place {
		for len(chain) <= i {
			chain = append(chain, chain[len(chain)-1].next())
		}
		return chain[i]
	}
	last, beyond := n, -1 // the indexes of the last version known to exist, and of the first known not to exist
	proved := false       // whether a read has proved that the secret exists
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
	s.missed.Take(path, s.now())
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
				err = fmt.Errorf("%w: %s", driver.ErrExists, path) // CreateSecret finds a secret that no read shows
			}
		}
		return v != "", err
	})
	if !created && err == nil {
		err = fmt.Errorf("%w: %s is still being deleted", driver.ErrUnavailable, path)
	}
	return v, err
}

// succeed handles the error exists, with which CreateSecret reported that the name is in use. If
// the secret holds a record, succeed returns that error. If the secret holds a tombstone to be
// kept, succeed stores the new record as the next version. If the secret holds any other tombstone,
// succeed deletes the secret. If Create must retry, succeed returns "" and nil.
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
		return "", s.remove(ctx, st.arn) // the process that deleted the record has not deleted the secret
	}
	v, err := s.commit(ctx, change{base: base{place: st.place}, path: s.path(name), issued: labels, creates: true, begun: s.now()}, p)
	if errors.Is(err, driver.ErrConflict) || errors.Is(err, driver.ErrNotFound) {
		return "", nil
	}
	return v, err
}

// evict deletes the secret at path immediately if the secret is scheduled for deletion. The
// parameter scheduled is the error that CreateSecret returned. evict deletes by ARN, because
// another process may have created a new secret at path in the meantime. With KeepDeleted, evict
// does not delete the secret, and returns an error matching ErrUnavailable.
func (s *secrets) evict(ctx context.Context, path string, scheduled error) error {
	out, err := s.describe(ctx, path)
	switch {
	case errors.Is(err, driver.ErrNotFound):
		return nil
	case err != nil:
		return err
	case out.DeletedDate == nil:
		return nil // another process has created a new secret at path
	case s.keep:
		return fmt.Errorf("%w: another program has scheduled the deletion of the secret: %v", driver.ErrUnavailable, scheduled)
	}
	return s.remove(ctx, aws.ToString(out.ARN))
}

// Update implements driver.Secrets.
func (s *secrets) Update(ctx context.Context, name string, base driver.Secret, p driver.Payload) (driver.Version, error) {
	c := change{path: s.path(name), old: base.Labels, spare: spare(base, p), issued: s.pool.use(p.Labels), begun: s.now()}
	var err error
	if c.base, err = s.base(ctx, name, base.Version); err != nil {
		return "", err
	}
	return s.commit(ctx, c, p)
}

// A base is the version that a write replaces.
type base struct {
	place
	lacks []driver.Label // labels for which the secret had no room
}

// base returns the version v as the base of a write. If the driver has not read or written v within
// baseLife, the service may have removed the version after v, and would then accept a second write
// over v. In this case, base reads the newest state, and the error matches ErrConflict if v is not
// the newest version, or ErrNotFound if the secret does not exist.
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

// A change is one write that replaces a state.
type change struct {
	base
	path    string
	old     []driver.Label // labels of the base
	spare   []driver.Label // labels that only earlier states have; the write removes them concurrently with the commit
	issued  issued         // the new labels that the pool has issued
	creates bool           // whether the base is a tombstone
	begun   time.Time
}

// commit stores p as the version after the base of c. commit adds the new labels before it stores
// p, and removes the replaced labels afterwards. commit removes c.spare concurrently. If commit
// cannot add the labels or store p, it calls takeBack.
func (s *secrets) commit(ctx context.Context, c change, p driver.Payload) (driver.Version, error) {
	missing := driverkit.Without(c.base.lacks, driverkit.Without(c.base.lacks, p.Labels))
	lacks, err := s.label(ctx, c, slices.Concat(driverkit.Without(p.Labels, c.old), missing), slices.Concat(c.old, p.Labels))
	if err == nil && s.now().Sub(c.begun) > labelLife/2 {
		return "", fmt.Errorf("%w: the process was suspended, and its labels may have been removed", driver.ErrConflict)
	}
	if err == nil {
		var removal sync.WaitGroup
		defer removal.Wait()
		removal.Go(func() { s.unlabel(ctx, c.arn, c.spare) })
		err = s.put(ctx, c.next(), encode(p.Data, lacks))
	}
	if err != nil {
		s.takeBack(ctx, c, err)
		return "", err
	}
	s.unlabel(ctx, c.arn, driverkit.Without(c.old, slices.Concat(p.Labels, p.Former)))
	return s.sighted(c.next(), lacks), nil
}

// spare returns the labels in base.Former that a write of p removes.
func spare(base driver.Secret, p driver.Payload) []driver.Label {
	return driverkit.Without(base.Former, slices.Concat(p.Labels, p.Former))
}

// label adds labels to the secret of c. The labels in held must stay on the secret. label returns
// the labels for which the secret has no room. The caller lists these labels in the first line of
// the value.
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
	used := 0 // number of tags on the secret, except those for the labels to be added
	if unknown == nil {
		used = len(out.Tags) - len(labels) + len(driverkit.Without(labels, labelsOf(out.Tags)))
	}
	if used+len(labels) <= maxTags && !full(err) {
		return nil, err // the error is not about the number of tags
	}
	if unknown == nil {
		spare := driverkit.Without(c.spare, driverkit.Without(c.spare, labelsOf(out.Tags)))
		old := driverkit.Without(abandoned(out.Tags, s.now()), slices.Concat(held, labels, spare))
		removed, err := s.tidy(ctx, c, slices.Concat(spare, old))
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

// tidy removes the given labels, and returns their number. tidy first checks that no version
// follows the base of c, because a later state may use these labels. If a version follows the base,
// the error matches ErrConflict. If the removal fails, tidy returns 0 and ctx.Err().
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

// unlabel removes labels. unlabel ignores failures, because remaining labels do no harm. The result
// kept reports whether the service certainly refused the removal. In this case, all labels stay.
func (s *secrets) unlabel(ctx context.Context, arn string, labels []driver.Label) (kept bool) {
	if len(labels) == 0 {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, cleanup)
	defer cancel()
	kept, _ = s.detach(ctx, arn, keysOf(labels))
	return kept
}

// takeBack removes the labels that a failed write added, if the service certainly refused the write
// and no other write can use these labels. The parameter err is the error that the write returned.
// If labels may remain on the secret, and a later write over the same base can reuse them, the pool
// keeps them.
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
		return // the secret is gone, or Create retries with the same labels
	case !errors.As(err, new(rejected)), ctx.Err() != nil:
		s.pool.leave(c, slices.Concat(unused, used))
		return
	case !conflict:
		s.pool.leave(c, used)
	}
	// A used label stays, because an earlier write over this base may have used the label and
	// succeeded, even though the response was lost. A label whose removal was requested may
	// disappear at any later time. No write uses such a label again, unless the service certainly
	// refused the removal.
	if kept := s.unlabel(ctx, c.arn, unused); kept && !conflict {
		s.pool.leave(c, unused)
	}
}

// Delete implements driver.Secrets. Delete first writes a tombstone as the next version. The
// service then refuses any other write over the same base. Unless KeepDeleted is set, Delete
// then deletes the secret by its ARN. The next secret with that name has a different ARN.
func (s *secrets) Delete(ctx context.Context, name string, base driver.Secret) error {
	at, err := s.base(ctx, name, base.Version)
	if err == nil {
		t := tombstone{Deleted: rand.Text(), Kept: s.keep}
		if err = s.put(ctx, at.next(), t.value()); err == nil {
			return s.clear(ctx, at.arn, t, slices.Concat(base.Labels, base.Former))
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
		return s.clear(ctx, st.arn, *st.tombstone, nil) // another process has written the tombstone, and removes the labels
	}
	return fmt.Errorf("%w: %s", driver.ErrConflict, s.path(name))
}

// clear completes a deletion after the tombstone t was written. clear deletes the secret or, if
// t.Kept is set, only the labels.
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
	return s.records(func(each func(state) error) error {
		for values := range slices.Chunk(slices.Compact(keys), filterValues) {
			filters := []types.Filter{{Key: types.FilterNameStringTypeTagKey, Values: values}, below(s.prefix)}
			if err := s.batch(ctx, filters, each); err != nil {
				return err
			}
		}
		return nil
	})
}

// List implements driver.Secrets.
func (s *secrets) List(ctx context.Context) iter.Seq2[driver.Named, error] {
	return s.records(func(each func(state) error) error {
		return s.all(ctx, s.prefix, func(path string) bool { _, ok := s.name(path); return ok }, each)
	})
}

// errEnded ends a search after the caller's loop has ended.
var errEnded = errors.New("the loop has ended")

// records yields each record that the function search finds, but no record twice. For an unreadable
// secret, the method yields the name and an error. The method skips tombstones. The method also
// skips secrets under deeper prefixes, because the service's prefix filter matches these secrets.
func (s *secrets) records(search func(each func(state) error) error) iter.Seq2[driver.Named, error] {
	return driverkit.Seq(func(yield func(driver.Named, error) bool) error {
		yielded := map[string]bool{}
		return search(func(st state) error {
			name, ok := s.name(st.path)
			if !ok || st.tombstone != nil || yielded[name] {
				return nil
			}
			yielded[name] = true
			if secret, err := s.secret(st); !yield(driver.Named{Name: name, Secret: secret}, err) {
				return errEnded
			}
			return nil
		})
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

// Close implements driver.Secrets.
func (s *secrets) Close() error { return nil }

// Relabel implements driver.Labeler.
func (s *secrets) Relabel(name string, base driver.Version, added []driver.Label) []driver.Label {
	return s.pool.relabel(base, added, s.now())
}
