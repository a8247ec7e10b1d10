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

	// doubt bounds how long a call waits where the metadata name a version that was
	// disabled, and may be behind.
	doubt = time.Second

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

// Get implements driver.Secrets. A reader by the alias that may be so far behind
// that the version is closed to it asks for the metadata, and one that is behind
// what this driver has seen reads that by its number.
func (s *secrets) Get(ctx context.Context, name string) (driver.Secret, error) {
	now, err := s.access(ctx, name, alias)
	closed := errors.Is(err, errGone) || errors.Is(err, errKey)
	if err != nil && !closed && !errors.Is(err, driver.ErrNotFound) {
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
	if closed {
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
	f := freshest{secrets: s, name: name, than: than, known: known, begun: time.Now()}
	err := await(ctx, func() (bool, error) { return f.try(ctx) })
	if errors.Is(err, errBehind) && f.refused != nil {
		err = fmt.Errorf("%w: %v", errBehind, f.refused)
	}
	return f.found, err
}

// A freshest is a search for the newest state of a secret.
type freshest struct {
	*secrets
	name    string
	than    driver.Secret
	known   state
	begun   time.Time
	found   driver.Secret
	refused error // why the version that the metadata name cannot be accessed
}

// try reports whether the state has been found, or false while metadata may catch up.
func (f *freshest) try(ctx context.Context) (bool, error) {
	m, err := f.look(ctx, f.name)
	absent := errors.Is(err, driver.ErrNotFound) || err == nil && m.empty()
	if err != nil && !absent {
		return false, err
	}
	if f.ahead(m, absent) {
		there, err := f.there(ctx, f.name, f.known)
		if err != nil {
			return false, err
		}
		if there.number > 0 {
			f.found = there.secret()
			return true, nil
		}
	}
	switch {
	case absent:
		return false, f.missing(ctx, err == nil)
	case !m.ours || m.number == 0:
		return false, f.foreign(f.name, m)
	case f.than.Data != nil && m.state().same(f.known):
		known := f.known
		known.data = slices.Clone(f.than.Data)
		return f.finds(known, m)
	}
	return f.read(ctx, m)
}

// missing returns the error of a secret that has no state, or nil if it may have one.
func (f *freshest) missing(ctx context.Context, created bool) error {
	if created && time.Since(f.begun) > birth {
		// The writer that has created it is not going to commit.
		return fmt.Errorf("%w: %q has no version yet", driver.ErrNotFound, f.prefix+f.name)
	}
	return f.vanished(ctx, f.name)
}

// ahead reports whether the state that the caller knows may be newer than what the
// metadata show.
func (f *freshest) ahead(m metadata, absent bool) bool {
	return f.known.number > 0 && (absent || m.ours && (m.account.Life != f.known.life || m.account.Current < f.known.number))
}

func (f *freshest) finds(now state, m metadata) (bool, error) {
	f.found = now.secret()
	f.found.Note = m.account.Note
	return true, nil
}

// read reads the version that the metadata name.
func (f *freshest) read(ctx context.Context, m metadata) (bool, error) {
	now, err := f.accessNumber(ctx, f.name, m.number)
	switch {
	case err == nil && m.is(now):
		return f.finds(now, m)
	case err != nil && !gone(err):
		return false, err
	}
	// What the metadata speak of is there no more.
	f.seen.drop(f.name)
	switch {
	case errors.Is(err, driver.ErrNotFound):
		return false, f.vanished(ctx, f.name)
	case err != nil:
		f.refused = err
		return false, f.closed(ctx, f.name, m, f.begun, err)
	}
	return false, nil
}

// closed returns the error of an access to the version that m names, or nil if m may
// be behind: this driver destroys a version only when there is a later state, and
// disables none.
func (s *secrets) closed(ctx context.Context, name string, m metadata, begun time.Time, refused error) error {
	later, err := s.laterState(ctx, name, m)
	if err != nil {
		return err
	}
	state := s.versionState(ctx, name, m.number, refused)
	switch {
	case later && (state != secretmanagerpb.SecretVersion_DISABLED || time.Since(begun) < doubt):
		return nil
	case strings.Contains(text(refused), state.String()):
		return refused
	}
	return fmt.Errorf("%w (version %d is %s)", refused, m.number, state)
}

// laterState reports whether there may be a state after the one that m names: a
// version that can be read, committed or not. The versions of writers who lost are
// destroyed.
func (s *secrets) laterState(ctx context.Context, name string, m metadata) (bool, error) {
	for n := range int64(width) {
		read, err := s.accessNumber(ctx, name, m.number+1+n)
		switch {
		case err == nil:
			return read.life == m.account.Life, nil
		case errors.Is(err, driver.ErrNotFound):
			return false, nil
		case !exists(err):
			return false, err
		}
	}
	return true, nil
}

// versionState returns the state of a version that cannot be accessed, from the
// text of the refusal or, if that does not name it, from the service.
func (s *secrets) versionState(ctx context.Context, name string, number int64, refused error) secretmanagerpb.SecretVersion_State {
	for _, state := range []secretmanagerpb.SecretVersion_State{secretmanagerpb.SecretVersion_DISABLED, secretmanagerpb.SecretVersion_DESTROYED} {
		if strings.Contains(text(refused), state.String()) {
			return state
		}
	}
	v, err := s.inspect(ctx, name, number)
	if err != nil {
		return secretmanagerpb.SecretVersion_STATE_UNSPECIFIED // it takes a permission that stores do without
	}
	return v.GetState()
}

// foreign returns the error of a secret that is not in the form of a record.
func (s *secrets) foreign(name string, m metadata) error {
	why := "it was not written by this program"
	if m.ours {
		why = fmt.Sprintf("it has no version with the alias %q", alias)
	}
	return fmt.Errorf("%w: %q: %s", driver.ErrCorrupt, s.prefix+name, why)
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
	if _, err := s.accessNumber(ctx, name, 1); !exists(err) {
		return err
	}
	return nil
}

// exists reports whether an access by number has proved that there is the version.
func exists(err error) bool {
	return err == nil || errors.Is(err, errGone) || errors.Is(err, errKey) || errors.Is(err, driver.ErrCorrupt)
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
			return false, s.foreign(name, m)
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
		err = fmt.Errorf("%w: %q", errLate, s.prefix+name)
	}
	return found, err
}

// errLate means that a writer has waited in vain for the metadata that its base is
// behind.
var errLate = fmt.Errorf("%w: the metadata are behind", driver.ErrConflict)

// Create implements driver.Secrets. A secret that somebody has created and not
// given a state is adopted: its etag decides who does.
func (s *secrets) Create(ctx context.Context, name string, p driver.Payload) (driver.Version, error) {
	blank := proto.CloneOf(s.blank)
	blank.Annotations = metadata{}.annotate(account{Life: newLife()}).GetAnnotations()
	m, err := s.create(ctx, name, blank)
	made := err == nil
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
	switch {
	case errors.Is(err, driver.ErrConflict), errors.Is(err, driver.ErrNotFound):
		return "", fmt.Errorf("%w: another writer came first: %v", driver.ErrExists, err)
	case made && (errors.Is(err, driver.ErrRefused) || errors.Is(err, driver.ErrDenied)):
		s.uncreate(ctx, name, m.account.Life)
	}
	return v, err
}

// uncreate deletes a secret that this driver has created and could not give a
// state, unless another writer has. If that fails the next save adopts it.
func (s *secrets) uncreate(ctx context.Context, name, life string) {
	ctx, cancel := context.WithTimeout(ctx, cleanup)
	defer cancel()
	if m, err := s.get(ctx, name); err == nil && m.account.Life == life && m.number == 0 {
		_ = s.remove(ctx, name, m.secret.GetEtag())
	}
	s.seen.drop(name)
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
// ErrConflict. It is certain then that the version is not and will not be the state,
// as after a refusal that is not about the etag; in all other cases the next commit
// finds it.
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
			if !errors.Is(err, errDrops) && (errors.Is(err, driver.ErrRefused) || errors.Is(err, driver.ErrDenied)) {
				s.discard(ctx, name, v)
			}
			return "", err
		}
		conflict := err
		if m, err = again(m.secret.GetEtag()); err != nil {
			if errors.Is(err, driver.ErrConflict) {
				s.discard(ctx, name, v)
			}
			if errors.Is(err, errLate) {
				err = fmt.Errorf("%w: %v", err, conflict)
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
		v, err := s.inspect(ctx, name, d.Number)
		d.Etag = v.GetEtag()
		return err != nil || v != nil && v.GetState() != secretmanagerpb.SecretVersion_DESTROYED
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
		var found []listed
		err := s.list(ctx, strings.Join(terms, " OR "), func(name string, m metadata) bool {
			for k, v := range want {
				if have, ok := m.secret.GetLabels()[k]; ok && have == v {
					found = append(found, listed{name, m.ours})
					break
				}
			}
			return true
		})
		if err != nil {
			yield(driver.Named{}, err)
			return
		}
		s.fetch(ctx, found, yield)
	}
}

// A listed is what is kept of a secret that was listed.
type listed struct {
	name string
	ours bool
}

// all is the filter for the secrets that have the prefix, and some others.
func (s *secrets) all() string { return "name:" + s.prefix }

// List implements driver.Secrets.
func (s *secrets) List(ctx context.Context) iter.Seq2[driver.Named, error] {
	return func(yield func(driver.Named, error) bool) {
		var found []listed
		err := s.list(ctx, s.all(), func(name string, m metadata) bool {
			found = append(found, listed{name, m.ours})
			return true
		})
		if err != nil {
			yield(driver.Named{}, err)
			return
		}
		s.fetch(ctx, found, yield)
	}
}

// Names implements driver.Secrets.
func (s *secrets) Names(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		err := s.list(ctx, s.all(), func(name string, _ metadata) bool { return yield(name, nil) })
		if err != nil {
			yield("", err)
		}
	}
}

// fetch yields the secrets that were found, in this order, while the next ones are
// being read. Why one cannot be read is yielded with its name, unless it concerns
// all: the context has ended, the credentials are not accepted, or so many in a row
// are unavailable that it is the service that is.
func (s *secrets) fetch(ctx context.Context, found []listed, yield func(driver.Named, error) bool) {
	type answer struct {
		secret driver.Secret
		err    error
	}
	outer := ctx
	ctx, cancel := context.WithCancel(ctx)
	var work sync.WaitGroup
	defer work.Wait()
	defer cancel()
	var ahead []chan answer
	unavailable := 0
	for i, l := range found {
		for next := i + len(ahead); next < min(i+width, len(found)); next++ {
			c := make(chan answer, 1)
			work.Go(func() {
				secret, err := s.getListed(ctx, found[next])
				c <- answer{secret, err}
			})
			ahead = append(ahead, c)
		}
		a := <-ahead[0]
		ahead = slices.Delete(ahead, 0, 1)
		if errors.Is(a.err, driver.ErrUnavailable) {
			unavailable++
		} else {
			unavailable = 0
		}
		switch {
		case errors.Is(a.err, driver.ErrNotFound): // deleted, or not committed yet
		case outer.Err() != nil:
			yield(driver.Named{}, outer.Err())
			return
		case errors.Is(a.err, driver.ErrCredentials) || unavailable > width:
			yield(driver.Named{}, a.err)
			return
		default:
			if !yield(driver.Named{Name: l.name, Secret: a.secret}, a.err) {
				return
			}
		}
	}
}

// getListed returns the state of a secret that was listed. One that has a version,
// but none with the alias, is there all the same: Get does not see it. What cannot
// be seen yet, or not any more, is ErrNotFound at once.
func (s *secrets) getListed(ctx context.Context, l listed) (driver.Secret, error) {
	got, err := s.Get(ctx, l.name)
	if !errors.Is(err, driver.ErrNotFound) {
		return got, err
	}
	if l.ours {
		if err := s.vanished(ctx, l.name); err != nil {
			return driver.Secret{}, err
		}
	}
	m, err := s.look(ctx, l.name)
	switch {
	case err != nil:
		return driver.Secret{}, err
	case m.empty():
		return driver.Secret{}, fmt.Errorf("%w: %q has no state yet", driver.ErrNotFound, s.prefix+l.name)
	case !m.ours || m.number == 0:
		return driver.Secret{}, s.foreign(l.name, m)
	}
	read, err := s.accessNumber(ctx, l.name, m.number)
	if err != nil {
		return driver.Secret{}, err
	}
	return read.secret(), nil
}

// Close implements driver.Secrets. There is nothing to release.
func (s *secrets) Close() error { return nil }
