package gcpsm

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"cloud.google.com/go/secretmanager/apiv1/secretmanagerpb"
	"google.golang.org/protobuf/proto"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

const (
	// maxSize is what fits into a payload of 64 KiB beside the line before it.
	maxSize = 64<<10 - header

	// width is how many calls are under way at once.
	width = 16

	// grace is how long a version stays that is not the state any more: readers
	// by the alias may be behind.
	grace = 2 * time.Hour

	// cleanup bounds how long the destruction of versions may hold up a write.
	cleanup = 5 * time.Second

	// catchUp bounds how long a call waits for metadata that are provably behind.
	catchUp = 10 * time.Second

	// birth is how long a secret that has a version, but none that is its state,
	// is taken for one that is being created.
	birth = 250 * time.Millisecond
)

// secrets implements driver.Leaser.
type secrets struct {
	service
	labels map[string]string // put on every secret
	blank  *secretmanagerpb.Secret
	seen   sightings
}

var _ driver.Leaser = (*secrets)(nil)

// Format prints s as its type. Package fmt would print what the client holds.
func (s *secrets) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("*gcpsm.secrets")) }

// Properties implements driver.Secrets. Secret Manager says that what it tells
// converges within minutes, or hours: that is no bound.
func (s *secrets) Properties() driver.Properties {
	place := "gcpsm/" + s.parent + "/" + strings.TrimSuffix(s.prefix, "-")
	return driver.Properties{Name: "gcpsm", Place: place, MaxSize: maxSize, ListLag: driver.Unbounded, ReadLag: driver.Unbounded}
}

// Get implements driver.Secrets. A reader by the alias that is so far behind that
// the version is destroyed asks for the metadata, and one that is behind what this
// driver has seen reads that by its number.
func (s *secrets) Get(ctx context.Context, name string) (driver.Secret, error) {
	now, err := s.access(ctx, name, alias)
	if err != nil && !gone(err) {
		return driver.Secret{}, err
	}
	if m, ok := s.seen.get(name); ok && m.number > 0 && (now.life != m.account.Life || now.number < m.number) {
		there, unread := s.there(ctx, name, m.state())
		if unread != nil {
			return driver.Secret{}, unread
		}
		if there.number > 0 {
			return there.secret(), nil
		}
		s.seen.drop(name)
	}
	if errors.Is(err, errGone) {
		return s.Fresh(ctx, name, driver.Secret{})
	}
	if err != nil {
		return driver.Secret{}, err
	}
	return now.secret(), nil
}

func (s state) secret() driver.Secret {
	return driver.Secret{Payload: driver.Payload{Data: s.data}, Version: s.version()}
}

// Fresh implements driver.Secrets. Metadata may be behind; what a version holds
// that is named by its number is not, and nor is what this driver has seen. That
// there is no secret is proved by its having no version 1.
func (s *secrets) Fresh(ctx context.Context, name string, than driver.Secret) (driver.Secret, error) {
	known, _ := parse(than.Version)
	begun := time.Now()
	var now driver.Secret
	err := await(ctx, func() (bool, error) {
		m, err := s.look(ctx, name)
		absent := errors.Is(err, driver.ErrNotFound) || err == nil && m.empty()
		if err != nil && !absent {
			return false, err
		}
		if known.number > 0 && (absent || m.ours && (m.account.Life != known.life || m.account.Current < known.number)) {
			there, err := s.there(ctx, name, known)
			if err != nil {
				return false, err
			}
			if there.number > 0 {
				now = there.secret()
				return true, nil
			}
		}
		switch {
		case absent && err == nil && time.Since(begun) > birth:
			// Whoever has created it is not going to commit.
			return false, fmt.Errorf("%w: %q has no version yet", driver.ErrNotFound, s.prefix+name)
		case absent:
			return false, s.vanished(ctx, name)
		case !m.ours || m.number == 0:
			return false, fmt.Errorf("%w: %q", driver.ErrCorrupt, s.prefix+name)
		case than.Data != nil && m.state().same(known):
			known.data = slices.Clone(than.Data)
			now = known.secret()
			now.Note = m.account.Note
			return true, nil
		}
		read, err := s.accessNumber(ctx, name, m.number)
		switch {
		case err == nil && m.is(read):
			now = read.secret()
			now.Note = m.account.Note
			return true, nil
		case err != nil && !gone(err):
			return false, err
		}
		// What the metadata speak of is there no more.
		s.seen.drop(name)
		if errors.Is(err, driver.ErrNotFound) {
			return false, s.vanished(ctx, name)
		}
		return false, nil
	})
	return now, err
}

// gone reports whether an access by number has proved that a version is not
// there, or is not what it was.
func gone(err error) bool { return errors.Is(err, driver.ErrNotFound) || errors.Is(err, errGone) }

// there returns the state s if the secret still has that version, else the zero
// state.
func (s *secrets) there(ctx context.Context, name string, want state) (state, error) {
	have, err := s.accessNumber(ctx, name, want.number)
	switch {
	case err == nil && have.same(want):
		return have, nil
	case err != nil && !gone(err) && !errors.Is(err, driver.ErrCorrupt):
		return state{}, err
	}
	return state{}, nil
}

// vanished returns an error matching ErrNotFound if a secret has no version at
// all, and nil if it has.
func (s *secrets) vanished(ctx context.Context, name string) error {
	_, err := s.accessNumber(ctx, name, 1)
	if err == nil || errors.Is(err, errGone) || errors.Is(err, driver.ErrCorrupt) {
		return nil
	}
	return err
}

// look returns the newest metadata: those the service tells, or those that were
// seen before if they are newer.
func (s *secrets) look(ctx context.Context, name string) (metadata, error) {
	m, err := s.get(ctx, name)
	if err == nil {
		return s.seen.put(name, m), nil
	}
	if before, ok := s.seen.get(name); ok && before.number > 0 && errors.Is(err, driver.ErrNotFound) {
		there, unread := s.there(ctx, name, before.state())
		if unread != nil {
			return metadata{}, unread
		}
		if there.number > 0 {
			return before, nil
		}
		s.seen.drop(name)
	}
	return metadata{}, err
}

// errBehind means that the service's metadata do not show yet what is known from
// elsewhere. For a writer that is as good as to have come too late.
var errBehind = fmt.Errorf("%w: the metadata are behind", driver.ErrUnavailable)

// await calls try until it returns true or an error, and while metadata may catch
// up.
func await(ctx context.Context, try func() (bool, error)) error {
	deadline := time.Now().Add(catchUp)
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		done, err := try()
		if done || err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return errBehind
		}
		timer := time.NewTimer(pause/2 + rand.N(pause))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}

// based returns metadata with an etag other than refused, by which base is the
// state of the secret. If it is not the error matches ErrConflict, or ErrNotFound
// if there is no such secret.
func (s *secrets) based(ctx context.Context, name string, base driver.Secret, refused string) (metadata, error) {
	want, ok := parse(base.Version)
	if !ok {
		return metadata{}, fmt.Errorf("%w: the base has no version", driver.ErrConflict)
	}
	later := func(m metadata) bool { return m.account.Life == want.life && m.account.Current > want.number }
	if m, ok := s.seen.get(name); ok && ctx.Err() == nil {
		switch {
		case m.is(want) && m.secret.GetEtag() != refused:
			return m, nil
		case later(m):
			return metadata{}, fmt.Errorf("%w: %q", driver.ErrConflict, s.prefix+name)
		}
	}
	var found metadata
	err := await(ctx, func() (bool, error) {
		m, err := s.look(ctx, name)
		switch {
		case err != nil && !errors.Is(err, driver.ErrNotFound):
			return false, err
		case err == nil && m.is(want):
			found = m
			return m.secret.GetEtag() != refused, nil
		case err == nil && !m.ours:
			return false, fmt.Errorf("%w: %q", driver.ErrCorrupt, s.prefix+name)
		case err == nil && later(m), err == nil && m.state().life == want.life && m.account.Current == want.number:
			// In the second case somebody has moved the alias.
			return false, fmt.Errorf("%w: %q", driver.ErrConflict, s.prefix+name)
		}
		there, unread := s.there(ctx, name, want)
		switch {
		case unread != nil:
			return false, unread
		case there.number > 0:
			return false, nil
		}
		if err := s.vanished(ctx, name); err != nil {
			return false, err
		}
		return false, fmt.Errorf("%w: %q", driver.ErrConflict, s.prefix+name)
	})
	if errors.Is(err, errBehind) {
		err = fmt.Errorf("%w: %q: the metadata are behind", driver.ErrConflict, s.prefix+name)
	}
	return found, err
}

// Create implements driver.Secrets. A secret that somebody has created and not
// given a state is adopted: its etag decides who does.
func (s *secrets) Create(ctx context.Context, name string, p driver.Payload) (driver.Version, error) {
	blank := proto.CloneOf(s.blank)
	blank.Annotations = metadata{}.annotate(account{Life: newLife()}).GetAnnotations()
	m, err := s.create(ctx, name, blank)
	if errors.Is(err, driver.ErrExists) {
		s.seen.drop(name)
		exists := err
		m, err = s.get(ctx, name)
		if errors.Is(err, driver.ErrNotFound) || err == nil && !m.empty() {
			return "", exists
		}
	}
	if err != nil {
		return "", err
	}
	v, err := s.commit(ctx, name, m, p, func(string) (metadata, error) { return metadata{}, driver.ErrConflict })
	if errors.Is(err, driver.ErrConflict) || errors.Is(err, driver.ErrNotFound) {
		return "", fmt.Errorf("%w: another writer came first: %v", driver.ErrExists, err)
	}
	return v, err
}

// Update implements driver.Secrets.
func (s *secrets) Update(ctx context.Context, name string, base driver.Secret, p driver.Payload) (driver.Version, error) {
	m, err := s.based(ctx, name, base, "")
	if err != nil {
		return "", err
	}
	return s.commit(ctx, name, m, p, func(refused string) (metadata, error) { return s.based(ctx, name, base, refused) })
}

// commit adds a version and makes it the state of the secret, which is m. If m's
// etag is refused, again returns the metadata to try with, or an error matching
// ErrConflict. Only then is it certain that the version is not and will not be the
// state; in all other cases the next commit finds it.
func (s *secrets) commit(ctx context.Context, name string, m metadata, p driver.Payload, again func(refused string) (metadata, error)) (driver.Version, error) {
	v, err := s.add(ctx, name, frame(m.account.Life, p.Data))
	if err != nil {
		return "", err
	}
	for {
		over, pending := s.due(ctx, name, m, v.at)
		next := m.commit(v, p, s.labels, pending)
		committed, err := s.update(ctx, name, next, "labels", "annotations", "version_aliases")
		if err == nil {
			committed.account.Due = append(committed.account.Due, s.sweep(ctx, name, over)...)
			s.seen.put(name, committed)
			return state{life: m.account.Life, number: v.number, digest: digest(p.Data)}.version(), nil
		}
		if !errors.Is(err, driver.ErrConflict) {
			s.seen.drop(name)
			return "", err
		}
		if m, err = again(m.secret.GetEtag()); err != nil {
			if errors.Is(err, driver.ErrConflict) {
				s.discard(ctx, name, v)
			}
			return "", err
		}
	}
}

// discard destroys a version that its writer could not commit. If that fails the
// next commit notes the version as due.
func (s *secrets) discard(ctx context.Context, name string, v added) {
	ctx, cancel := context.WithTimeout(ctx, cleanup)
	defer cancel()
	_ = s.destroy(ctx, name, v.number, v.etag)
}

// due returns the versions that are to be destroyed once the commit that follows
// has succeeded, and what is still due then. A version is destroyed by an etag that
// was in the account: it was noted under the secret's etag, so that it is not of
// another life. Where an etag is not known it is asked for, noted by the commit,
// and used by the next one.
func (s *secrets) due(ctx context.Context, name string, m metadata, now time.Time) (over, pending []due) {
	var work []due
	for _, d := range m.account.Due {
		for ; d.To > d.Number && d.ripe(now) && len(work) < width; d.Number++ {
			if d.Number != m.number {
				work = append(work, due{Number: d.Number, Since: d.Since})
			}
		}
		if d.To == d.Number {
			d.To = 0
		}
		if d.To == 0 && d.ripe(now) && len(work) < width && d.Number != m.number {
			work = append(work, d)
		} else {
			pending = append(pending, d)
		}
	}
	var unknown []due
	for _, d := range work {
		if d.Etag == "" {
			unknown = append(unknown, d)
		} else {
			over = append(over, d)
		}
	}
	return over, append(pending, s.each(ctx, unknown, func(ctx context.Context, d *due) (left bool) {
		etag, err := s.inspect(ctx, name, d.Number)
		d.Etag = etag
		return err != nil || etag != ""
	})...)
}

// sweep destroys versions that are over, and returns those that it could not
// destroy, for the next commit of this driver. It comes after the commit, which has
// proved that none of them is the state: the metadata may have been out of date, and
// somebody may have moved the alias back to one.
func (s *secrets) sweep(ctx context.Context, name string, over []due) []due {
	return s.each(ctx, over, func(ctx context.Context, d *due) (left bool) {
		err := s.destroy(ctx, name, d.Number, d.Etag)
		if errors.Is(err, driver.ErrConflict) {
			d.Etag = "" // destroyed already, or somebody has disabled it
		}
		return err != nil && !errors.Is(err, driver.ErrNotFound)
	})
}

// each does the next step with each of some versions, all at once, and returns
// those for which there is another one.
func (s *secrets) each(ctx context.Context, some []due, step func(context.Context, *due) (left bool)) []due {
	ctx, cancel := context.WithTimeout(ctx, cleanup)
	defer cancel()
	left := make([]bool, len(some))
	var wait sync.WaitGroup
	for i := range some {
		wait.Go(func() { left[i] = step(ctx, &some[i]) })
	}
	wait.Wait()
	var rest []due
	for i, d := range some {
		if left[i] {
			rest = append(rest, d)
		}
	}
	return rest
}

// Delete implements driver.Secrets.
func (s *secrets) Delete(ctx context.Context, name string, base driver.Secret) error {
	if _, ok := parse(base.Version); !ok {
		if err := s.vanished(ctx, name); errors.Is(err, driver.ErrNotFound) {
			return nil
		} else if err != nil {
			return err
		}
	}
	for refused := ""; ; {
		m, err := s.based(ctx, name, base, refused)
		if errors.Is(err, driver.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		err = s.remove(ctx, name, m.secret.GetEtag())
		if !errors.Is(err, driver.ErrConflict) {
			s.seen.drop(name)
			if errors.Is(err, driver.ErrNotFound) {
				return nil
			}
			return err
		}
		refused = m.secret.GetEtag()
	}
}

// Note implements driver.Leaser.
func (s *secrets) Note(ctx context.Context, name string, base driver.Secret, note string) error {
	for refused := ""; ; {
		m, err := s.based(ctx, name, base, refused)
		if err != nil {
			return err
		}
		if m.account.Note != base.Note {
			return fmt.Errorf("%w: %q has another note", driver.ErrConflict, s.prefix+name)
		}
		a := m.account
		a.Note = note
		noted, err := s.update(ctx, name, m.annotate(a), "annotations")
		switch {
		case err == nil:
			s.seen.put(name, noted)
			return nil
		case !errors.Is(err, driver.ErrConflict):
			s.seen.drop(name)
			return err
		}
		refused = m.secret.GetEtag()
	}
}

// Lookup implements driver.Secrets.
func (s *secrets) Lookup(ctx context.Context, any []driver.Label) iter.Seq2[driver.Named, error] {
	return func(yield func(driver.Named, error) bool) {
		want := map[string]string{}
		var terms []string
		for _, l := range any {
			k, v := encode(l)
			if _, twice := want[k]; !twice {
				want[k] = v
				terms = append(terms, "labels."+k+"="+v)
			}
		}
		if len(terms) == 0 {
			return
		}
		var names []string
		err := s.list(ctx, strings.Join(terms, " OR "), func(name string, labels map[string]string) bool {
			for k, v := range want {
				if have, ok := labels[k]; ok && have == v {
					names = append(names, name)
					break
				}
			}
			return true
		})
		if err != nil {
			yield(driver.Named{}, err)
			return
		}
		s.fetch(ctx, names, yield)
	}
}

// all is the filter for the secrets that have the prefix, and some others.
func (s *secrets) all() string { return "name:" + s.prefix }

// List implements driver.Secrets.
func (s *secrets) List(ctx context.Context) iter.Seq2[driver.Named, error] {
	return func(yield func(driver.Named, error) bool) {
		var names []string
		err := s.list(ctx, s.all(), func(name string, _ map[string]string) bool {
			names = append(names, name)
			return true
		})
		if err != nil {
			yield(driver.Named{}, err)
			return
		}
		s.fetch(ctx, names, yield)
	}
}

// Names implements driver.Secrets.
func (s *secrets) Names(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		err := s.list(ctx, s.all(), func(name string, _ map[string]string) bool { return yield(name, nil) })
		if err != nil {
			yield("", err)
		}
	}
}

// fetch yields the named secrets, in this order, while the next ones are being
// read.
func (s *secrets) fetch(ctx context.Context, names []string, yield func(driver.Named, error) bool) {
	type answer struct {
		secret driver.Secret
		err    error
	}
	ctx, cancel := context.WithCancel(ctx)
	var work sync.WaitGroup
	defer work.Wait()
	defer cancel()
	var ahead []chan answer
	for i, name := range names {
		for next := i + len(ahead); next < min(i+width, len(names)); next++ {
			c := make(chan answer, 1)
			work.Go(func() {
				secret, err := s.Get(ctx, names[next])
				c <- answer{secret, err}
			})
			ahead = append(ahead, c)
		}
		a := <-ahead[0]
		ahead = slices.Delete(ahead, 0, 1)
		switch {
		case errors.Is(a.err, driver.ErrNotFound): // deleted, or not committed yet
		case a.err != nil && !errors.Is(a.err, driver.ErrCorrupt):
			yield(driver.Named{}, a.err)
			return
		default:
			if !yield(driver.Named{Name: name, Secret: a.secret}, a.err) {
				return
			}
		}
	}
}

// Close implements driver.Secrets. There is nothing to release.
func (s *secrets) Close() error { return nil }
