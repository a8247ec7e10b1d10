package gcpsm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"cloud.google.com/go/secretmanager/apiv1/secretmanagerpb"
	"google.golang.org/protobuf/proto"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/driverkit"
)

const (
	// maxSize is the maximum size of a record, in bytes: a payload of 64 KiB without its first
	// line.
	maxSize = 64<<10 - header

	// grace is the minimum time for which a replaced version stays readable, because reads by the
	// alias may lag.
	grace = 2 * time.Hour

	// cleanup is the maximum time for which a write waits for one cleanup, such as the destruction
	// of due versions.
	cleanup = 5 * time.Second

	// catchUp is the maximum time for which a call waits for stale metadata to become current.
	catchUp = 10 * time.Second

	// doubt is the maximum time for which a call waits if the version in the metadata is disabled
	// and the metadata may be stale.
	doubt = time.Second

	// creation is the maximum time for which Fresh waits for the first commit of a secret that
	// already has a version.
	creation = 250 * time.Millisecond
)

type secrets struct {
	service
	labels map[string]string // added to every secret
	blank  *secretmanagerpb.Secret
	seen   cache
	missed driverkit.Misses
}

var _ driver.Sweeper = (*secrets)(nil)

// Format prints only the type of s. Without Format, package fmt would print the fields of the
// client.
func (s *secrets) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("*gcpsm.secrets")) }

// Properties implements driver.Secrets. The lags are unbounded, because Secret Manager
// documents only that reads converge within minutes or hours.
func (s *secrets) Properties() driver.Properties {
	place := "gcpsm/" + s.parent + "/" + strings.TrimSuffix(s.prefix, "-")
	return driver.Properties{Name: "gcpsm", Place: place, MaxSize: maxSize, ListLag: driver.Unbounded, ReadLag: driver.Unbounded}
}

// Get implements driver.Secrets. Get reads by the alias. If the cache has a later state than the
// alias shows, Get reads the later state by its number. If the alias points to an unreadable
// version, Get calls Fresh.
func (s *secrets) Get(ctx context.Context, name string) (driver.Secret, error) {
	now, err := s.read(ctx, name, alias)
	closed := errors.Is(err, errGone) || errors.Is(err, errKey)
	if err != nil && !closed && !errors.Is(err, driver.ErrNotFound) {
		return driver.Secret{}, err
	}
	if m, ok := s.seen.get(name); ok && m.number > 0 && (now.incarnation != m.account.Incarnation || now.number < m.number) {
		have, unread := s.have(ctx, name, m.state())
		if unread != nil {
			return driver.Secret{}, unread
		}
		if have.number > 0 {
			return have.secret(), nil
		}
		s.seen.drop(name)
	}
	if closed {
		return s.Fresh(ctx, name, driver.Secret{})
	}
	if err != nil {
		s.missed.Add(name, time.Now())
		return driver.Secret{}, err
	}
	return now.secret(), nil
}

// Fresh implements driver.Secrets. Metadata may be stale, but a read of a version by its number
// never lags. Fresh never returns a state older than the caller's state or the state in the cached
// metadata. A secret without version 1 has no state. If the caller has no state, and Get has just
// reported that the record does not exist, Fresh reads version 1 first. If version 1 does not
// exist, Fresh does not read the metadata.
func (s *secrets) Fresh(ctx context.Context, name string, than driver.Secret) (driver.Secret, error) {
	if than.Version == "" && s.missed.Take(name, time.Now()) {
		if err := s.vanished(ctx, name); errors.Is(err, driver.ErrNotFound) {
			return driver.Secret{}, err
		}
	}
	known, _ := parse(than.Version)
	n := newest{secrets: s, name: name, than: than, known: known, begun: time.Now()}
	err := await(ctx, func() (bool, error) { return n.try(ctx) })
	if errors.Is(err, errBehind) && n.refused != nil {
		err = fmt.Errorf("%w: %v", errBehind, n.refused)
	}
	return n.found, err
}

// errBehind is the error that await returns if the metadata are still stale after catchUp.
var errBehind = fmt.Errorf("%w: the metadata are behind", driver.ErrUnavailable)

// await calls the function try until the function returns true or an error, and returns that error.
// If catchUp passes first, await returns errBehind. If ctx is done first, await returns ctx.Err().
func await(ctx context.Context, try func() (bool, error)) error {
	lag := driverkit.Backoff{Pause: 10 * time.Millisecond, Longest: time.Second, Patience: catchUp}
	done, err := lag.Until(ctx, try)
	if !done && err == nil {
		return errBehind
	}
	return err
}

// A newest is one search for the newest state that reads can prove to exist.
type newest struct {
	*secrets
	name    string
	than    driver.Secret
	known   state // parsed from than.Version; known.number is 0 if the caller has no state
	begun   time.Time
	found   driver.Secret
	refused error // error from the last attempt to read the version in the metadata
	asked   bool  // whether the method ask has tried to read value
	value   state // the state to which the alias points; value.number is 0 if the state was not read
}

// try makes one attempt, and reports whether the attempt has set n.found. If try returns false and
// no error, the metadata may be stale, and a later attempt may succeed.
func (n *newest) try(ctx context.Context) (bool, error) {
	m, err := n.ask(ctx)
	absent := errors.Is(err, driver.ErrNotFound) || err == nil && m.empty()
	if err != nil && !absent {
		return false, err
	}
	if n.ahead(m, absent) {
		have, err := n.have(ctx, n.name, n.known)
		if err != nil {
			return false, err
		}
		if have.number > 0 {
			n.found = have.secret()
			return true, nil
		}
	}
	switch {
	case absent:
		return false, n.missing(ctx, err == nil)
	case !m.ours || m.number == 0:
		return false, n.foreign(n.name, m)
	case n.than.Data != nil && m.state().same(n.known):
		known := n.known
		known.data = slices.Clone(n.than.Data)
		return n.finds(known, m)
	}
	return n.current(ctx, m)
}

// ask returns the metadata. If the caller has no state, the first call of ask concurrently reads
// n.value.
func (n *newest) ask(ctx context.Context) (metadata, error) {
	if n.asked || n.than.Version != "" {
		return n.look(ctx, n.name)
	}
	n.asked = true
	var wait sync.WaitGroup
	wait.Go(func() { n.value, _ = n.read(ctx, n.name, alias) }) // a failed read is repeated if the value is needed
	m, err := n.look(ctx, n.name)
	wait.Wait()
	return m, err
}

// missing returns an error matching ErrNotFound if the secret has no state, and nil if the secret
// may have a state. The parameter created reports whether the service returned metadata of the
// secret.
func (n *newest) missing(ctx context.Context, created bool) error {
	if created && time.Since(n.begun) > creation {
		// The creator of the secret has had enough time to commit.
		return fmt.Errorf("%w: %q has no version yet", driver.ErrNotFound, n.prefix+n.name)
	}
	return n.vanished(ctx, n.name)
}

// ahead reports whether n.known, the state that the caller has seen, may be newer than the
// metadata.
func (n *newest) ahead(m metadata, absent bool) bool {
	return n.known.number > 0 && (absent || m.ours && (m.account.Incarnation != n.known.incarnation || m.account.Current < n.known.number))
}

func (n *newest) finds(now state, m metadata) (bool, error) {
	n.found = now.secret()
	n.found.Note = m.account.Note
	return true, nil
}

// current reads the version that m names, and reports whether the search has found the state.
// current returns false and no error if m may be stale.
func (n *newest) current(ctx context.Context, m metadata) (bool, error) {
	now, err := n.value, error(nil)
	if now.number != m.number || !m.is(now) {
		now, err = n.readNumber(ctx, n.name, m.number)
	}
	switch {
	case err == nil && m.is(now):
		return n.finds(now, m)
	case err != nil && !gone(err):
		return false, err
	}
	n.seen.drop(n.name) // the metadata are stale
	switch {
	case errors.Is(err, driver.ErrNotFound):
		return false, n.vanished(ctx, n.name)
	case err != nil:
		n.refused = err
		return false, n.closed(ctx, m, err)
	}
	return false, nil
}

// closed returns the error for a search that has found a disabled or destroyed version, or nil if m
// may be stale. The parameter refused is the error that a read of the version in m returned. A
// driver destroys a committed version only if a later state exists, and never disables a version.
func (n *newest) closed(ctx context.Context, m metadata, refused error) error {
	later, err := n.later(ctx, m)
	if err != nil {
		return err
	}
	state := n.stateOf(ctx, m.number, refused)
	switch {
	case later && (state != secretmanagerpb.SecretVersion_DISABLED || time.Since(n.begun) < doubt):
		return nil
	case strings.Contains(text(refused), state.String()):
		return refused
	}
	return fmt.Errorf("%w (version %d is %s)", refused, m.number, state)
}

// later reports whether a state later than the state in m may exist. later returns true if one of
// the next driverkit.Width versions is readable, or if all of these versions exist. A readable
// version may be uncommitted, and may belong to a later incarnation.
func (n *newest) later(ctx context.Context, m metadata) (bool, error) {
	for i := range int64(driverkit.Width) {
		switch _, err := n.readNumber(ctx, n.name, m.number+1+i); {
		case err == nil:
			return true, nil
		case errors.Is(err, driver.ErrNotFound):
			return false, nil
		case !exists(err):
			return false, err
		}
	}
	return true, nil
}

// stateOf returns the state of an unreadable version. If the text of the given error does not name
// the state, stateOf asks the service.
func (n *newest) stateOf(ctx context.Context, number int64, refused error) secretmanagerpb.SecretVersion_State {
	for _, state := range []secretmanagerpb.SecretVersion_State{secretmanagerpb.SecretVersion_DISABLED, secretmanagerpb.SecretVersion_DESTROYED} {
		if strings.Contains(text(refused), state.String()) {
			return state
		}
	}
	v, err := n.describeVersion(ctx, n.name, number)
	if err != nil {
		return secretmanagerpb.SecretVersion_STATE_UNSPECIFIED // the role may lack versions.get
	}
	return v.GetState()
}

// foreign returns an error matching ErrCorrupt for a secret that does not have the form of a
// record.
func (s *secrets) foreign(name string, m metadata) error {
	why := "it was not written by this program"
	if m.ours {
		why = fmt.Sprintf("it has no version with the alias %q", alias)
	}
	return fmt.Errorf("%w: %q: %s", driver.ErrCorrupt, s.prefix+name, why)
}

// have returns the wanted state with its data if that version is still readable. The result is the
// zero state if the version does not exist, is disabled or destroyed, or differs from the wanted
// state. An error means that the read failed for another reason.
func (s *secrets) have(ctx context.Context, name string, want state) (state, error) {
	st, err := s.readNumber(ctx, name, want.number)
	switch {
	case err == nil && st.same(want):
		return st, nil
	case err != nil && !gone(err) && !errors.Is(err, driver.ErrCorrupt):
		return state{}, err
	}
	return state{}, nil
}

// vanished returns an error matching ErrNotFound if the secret has no version, and nil if the
// secret has a version.
func (s *secrets) vanished(ctx context.Context, name string) error {
	if _, err := s.readNumber(ctx, name, 1); !exists(err) {
		return err
	}
	return nil
}

// look returns the metadata that the service returns, or newer metadata from the cache. If the
// service does not find the secret, look returns the cached metadata, provided that the version in
// the cached metadata is still readable.
func (s *secrets) look(ctx context.Context, name string) (metadata, error) {
	m, err := s.describe(ctx, name)
	if err == nil {
		return s.seen.add(name, m), nil
	}
	if before, ok := s.seen.get(name); ok && before.number > 0 && errors.Is(err, driver.ErrNotFound) {
		have, unread := s.have(ctx, name, before.state())
		if unread != nil || have.number > 0 {
			return before, unread
		}
		s.seen.drop(name)
	}
	return metadata{}, err
}

// Create implements driver.Secrets. Create reuses a secret that was created but has no state.
// If several writers reuse the same secret, the etag lets only one writer succeed.
func (s *secrets) Create(ctx context.Context, name string, p driver.Payload) (driver.Version, error) {
	s.missed.Take(name, time.Now())
	m, err := s.create(ctx, name, s.unused())
	made := err == nil
	if errors.Is(err, driver.ErrExists) {
		s.seen.drop(name)
		exists := err
		m, err = s.describe(ctx, name)
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
		s.uncreate(ctx, name, m.account.Incarnation)
	}
	return v, err
}

// unused returns the metadata of a new secret, without a state and with a new incarnation.
func (s *secrets) unused() *secretmanagerpb.Secret {
	m := proto.CloneOf(s.blank)
	m.Annotations = metadata{}.annotate(account{Incarnation: newIncarnation()}).GetAnnotations()
	return m
}

// uncreate deletes a secret that this driver created, after the service refused the first commit.
// uncreate keeps the secret if another writer has committed a state. If the deletion fails, the
// next Create reuses the secret.
func (s *secrets) uncreate(ctx context.Context, name, incarnation string) {
	ctx, cancel := context.WithTimeout(ctx, cleanup)
	defer cancel()
	if m, err := s.describe(ctx, name); err == nil && m.account.Incarnation == incarnation && m.number == 0 {
		_ = s.remove(ctx, name, m.secret.GetEtag())
	}
	s.seen.drop(name)
}

// Update implements driver.Secrets. If the metadata of the secret are not in the cache, Update
// concurrently reads the metadata and adds the version.
func (s *secrets) Update(ctx context.Context, name string, base driver.Secret, p driver.Payload) (driver.Version, error) {
	again := func(refused string) (metadata, error) { return s.based(ctx, name, base, refused) }
	want, ok := parse(base.Version)
	if _, known := s.seen.get(name); !ok || known {
		m, err := again("")
		if err != nil {
			return "", err
		}
		return s.commit(ctx, name, m, p, again)
	}
	var m metadata
	var unfit error
	var wait sync.WaitGroup
	wait.Go(func() { m, unfit = again("") })
	v, err := s.add(ctx, name, encode(want.incarnation, p.Data))
	wait.Wait()
	switch {
	case unfit != nil && err == nil:
		s.discard(ctx, name, v)
		return "", unfit
	case unfit != nil:
		return "", unfit
	case err != nil:
		return "", err
	}
	return s.point(ctx, name, m, v, p, again)
}

// based returns metadata that show base as the state of the secret. The parameter refused is an
// etag that the service has refused, or "". The returned metadata have another etag. If base is not
// the state, or if the metadata stay stale for catchUp, the error matches ErrConflict. If the
// secret does not exist, the error matches ErrNotFound.
func (s *secrets) based(ctx context.Context, name string, base driver.Secret, refused string) (metadata, error) {
	want, ok := parse(base.Version)
	if !ok {
		return metadata{}, fmt.Errorf("%w: the base has no version", driver.ErrConflict)
	}
	if m, ok := s.seen.get(name); ok && ctx.Err() == nil {
		switch {
		case m.is(want) && m.secret.GetEtag() != refused:
			return m, nil
		case m.account.Incarnation == want.incarnation && m.account.Current > want.number:
			return metadata{}, s.conflict(name)
		}
	}
	var found metadata
	err := await(ctx, func() (bool, error) {
		var err error
		if found, err = s.look(ctx, name); err == nil && found.is(want) {
			return found.secret.GetEtag() != refused, nil
		}
		return false, s.replaced(ctx, name, want, found, err)
	})
	if errors.Is(err, errBehind) {
		err = fmt.Errorf("%w: %q", errLate, s.prefix+name)
	}
	return found, err
}

// errLate means that the metadata for a write were still stale after catchUp.
var errLate = fmt.Errorf("%w: the metadata are behind", driver.ErrConflict)

func (s *secrets) conflict(name string) error {
	return fmt.Errorf("%w: %q", driver.ErrConflict, s.prefix+name)
}

// replaced returns an error if base is certainly not the state of the secret, and nil if the
// metadata may be stale. m and err are the results of s.look.
func (s *secrets) replaced(ctx context.Context, name string, base state, m metadata, err error) error {
	switch {
	case err != nil && !errors.Is(err, driver.ErrNotFound):
		return err
	case err == nil && !m.ours:
		return s.foreign(name, m)
	case err == nil && m.account.Incarnation == base.incarnation && m.account.Current >= base.number:
		return s.conflict(name) // a later state exists, or another tool has moved the alias
	}
	have, err := s.have(ctx, name, base)
	if err != nil || have.number > 0 {
		return err
	}
	return cmp.Or(s.vanished(ctx, name), s.conflict(name))
}

// commit adds a version with p, and makes that version the state of the secret. See the method
// point for the parameters and the error.
func (s *secrets) commit(ctx context.Context, name string, m metadata, p driver.Payload, again func(refused string) (metadata, error)) (driver.Version, error) {
	v, err := s.add(ctx, name, encode(m.account.Incarnation, p.Data))
	if err != nil {
		return "", err
	}
	return s.point(ctx, name, m, v, p, again)
}

// point makes the version v the state of the secret with the metadata m. The parameter again is a
// callback. If the service refuses the etag of m, point passes the etag to the callback, and makes
// another attempt with the metadata that the callback returns. If the callback returns an error,
// point returns that error. If that error matches ErrConflict, point destroys v. point also
// destroys v if the service denies the update, or refuses the update for a reason other than the
// etag. After any other failure, v may become the state, or the next commit lists v as due.
func (s *secrets) point(ctx context.Context, name string, m metadata, v added, p driver.Payload, again func(refused string) (metadata, error)) (driver.Version, error) {
	for {
		over, pending := s.due(ctx, name, m, v.at)
		next := m.commit(v, p, s.labels, pending)
		committed, err := s.update(ctx, name, next, "labels", "annotations", "version_aliases")
		if err == nil {
			committed.account.Due = append(committed.account.Due, s.sweep(ctx, name, over)...)
			s.seen.add(name, committed)
			return state{incarnation: m.account.Incarnation, number: v.number, digest: digest(p.Data)}.version(), nil
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

// discard destroys the version v, which could not be committed. If the destruction fails, the next
// commit lists the version as due.
func (s *secrets) discard(ctx context.Context, name string, v added) {
	ctx, cancel := context.WithTimeout(ctx, cleanup)
	defer cancel()
	_ = s.destroy(ctx, name, v.number, v.etag)
}

// due returns two lists. The first list contains the versions to destroy after the next commit. The
// etags of these versions are in the account. The update that stored such an etag carried the etag
// of the secret, so the version belongs to this incarnation. The second list contains the versions
// that remain due. For this list, due requests the etags that the account lacks, and leaves out
// versions that do not exist or are already destroyed. The next commit stores the new etags, and a
// later commit destroys the versions.
func (s *secrets) due(ctx context.Context, name string, m metadata, now time.Time) (over, pending []due) {
	work, pending := m.ripe(now, driverkit.Width)
	var unknown []due
	for _, d := range work {
		if d.Etag == "" {
			unknown = append(unknown, d)
		} else {
			over = append(over, d)
		}
	}
	return over, append(pending, s.each(ctx, unknown, func(ctx context.Context, d *due) (left bool) {
		v, err := s.describeVersion(ctx, name, d.Number)
		d.Etag = v.GetEtag()
		return err != nil || v != nil && v.GetState() != secretmanagerpb.SecretVersion_DESTROYED
	})...)
}

// sweep destroys the given versions, and returns the versions that could not be destroyed. The next
// commit of this driver tries to destroy these versions again. The caller must have committed an
// update, which proves that none of these versions is the state. Before such an update, the
// metadata may be stale, and another tool may have moved the alias back to one of the versions.
func (s *secrets) sweep(ctx context.Context, name string, over []due) []due {
	return s.each(ctx, over, func(ctx context.Context, d *due) (left bool) {
		err := s.destroy(ctx, name, d.Number, d.Etag)
		if errors.Is(err, driver.ErrConflict) {
			d.Etag = "" // already destroyed, or disabled by another tool
		}
		return err != nil && !errors.Is(err, driver.ErrNotFound)
	})
}

// Sweep implements driver.Sweeper. Sweep destroys due versions whose etags are known. The caller
// has just called Note. The service accepted the etag with which Note made its update, so the
// cached metadata are current.
func (s *secrets) Sweep(ctx context.Context, name string, base driver.Secret) {
	now, ok := parse(base.Version)
	m, known := s.seen.get(name)
	if !ok || !known || !m.is(now) || m.account.Note != base.Note {
		return
	}
	var over []due
	work, _ := m.ripe(time.Now(), driverkit.Width)
	for _, d := range work {
		if d.Etag != "" {
			over = append(over, d)
		}
	}
	if len(over) == 0 {
		return
	}
	m.account.Due = slices.DeleteFunc(slices.Clone(m.account.Due), func(d due) bool {
		return slices.ContainsFunc(over, func(o due) bool { return o.Number == d.Number })
	})
	m.account.Due = append(m.account.Due, s.sweep(ctx, name, over)...)
	s.seen.add(name, m)
}

// each calls the function step concurrently for all given entries, and returns the entries for
// which step returns true. The constant cleanup is the timeout for the calls.
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

// Lookup implements driver.Secrets.
func (s *secrets) Lookup(ctx context.Context, any []driver.Label) iter.Seq2[driver.Named, error] {
	want := map[string]string{}
	var terms []string
	for _, l := range any {
		k, v := labelFor(l)
		if _, twice := want[k]; !twice {
			want[k] = v
			terms = append(terms, "labels."+k+"="+v)
		}
	}
	if len(terms) == 0 {
		return func(func(driver.Named, error) bool) {}
	}
	return s.fetch(ctx, strings.Join(terms, " OR "), func(labels map[string]string) bool {
		for k, v := range want {
			if have, ok := labels[k]; ok && have == v {
				return true
			}
		}
		return false
	})
}

// List implements driver.Secrets.
func (s *secrets) List(ctx context.Context) iter.Seq2[driver.Named, error] {
	return s.fetch(ctx, s.all(), func(map[string]string) bool { return true })
}

// A listed describes a secret in a list. A listed omits the metadata, because the metadata of a
// long list would take much memory.
type listed struct {
	name string
	ours bool
}

// fetch yields the secrets that the service lists for filter. fetch leaves out secrets for which
// match(labels) is false.
func (s *secrets) fetch(ctx context.Context, filter string, match func(labels map[string]string) bool) iter.Seq2[driver.Named, error] {
	return driverkit.Seq(func(yield func(driver.Named, error) bool) error {
		var found []listed
		err := s.list(ctx, filter, func(name string, m metadata) bool {
			if match(m.secret.GetLabels()) {
				found = append(found, listed{name, m.ours})
			}
			return true
		})
		if err != nil {
			return err
		}
		driverkit.FetchListed(ctx, found, nil, s.getListed)(yield)
		return nil
	})
}

// getListed returns the state of a listed secret. If a read by the alias does not find the secret,
// getListed reads the metadata. The error matches ErrCorrupt if the secret is not a record or lacks
// the alias. The error matches ErrNotFound if the secret has no version or no state. Unlike Fresh,
// getListed does not wait for the first state of a secret.
func (s *secrets) getListed(ctx context.Context, l listed) (driver.Named, error) {
	secret, err := s.Get(ctx, l.name)
	if errors.Is(err, driver.ErrNotFound) {
		secret, err = s.getWithoutAlias(ctx, l)
	}
	return driver.Named{Name: l.name, Secret: secret}, err
}

func (s *secrets) getWithoutAlias(ctx context.Context, l listed) (driver.Secret, error) {
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
	read, err := s.readNumber(ctx, l.name, m.number)
	if err != nil {
		return driver.Secret{}, err
	}
	return read.secret(), nil
}

// Names implements driver.Secrets.
func (s *secrets) Names(ctx context.Context) iter.Seq2[string, error] {
	return driverkit.Seq(func(yield func(string, error) bool) error {
		return s.list(ctx, s.all(), func(name string, _ metadata) bool { return yield(name, nil) })
	})
}

// Close implements driver.Secrets.
func (s *secrets) Close() error { return nil }

// Note implements driver.Leaser.
func (s *secrets) Note(ctx context.Context, name string, base driver.Secret, note string) error {
	for refused := ""; ; {
		m, err := s.based(ctx, name, base, refused)
		if err != nil {
			return err
		}
		if m.account.Note != base.Note {
			return &driver.NoteError{Note: m.account.Note, Err: fmt.Errorf("%w: %q has another note", driver.ErrConflict, s.prefix+name)}
		}
		a := m.account
		a.Note = note
		if err = s.put(ctx, name, m.annotate(a), "annotations"); !errors.Is(err, driver.ErrConflict) {
			return err
		}
		refused = m.secret.GetEtag()
	}
}

// put updates a secret and caches the new metadata. If the update fails for a reason other than
// a conflict, put drops the cached metadata.
func (s *secrets) put(ctx context.Context, name string, next *secretmanagerpb.Secret, fields ...string) error {
	m, err := s.update(ctx, name, next, fields...)
	switch {
	case err == nil:
		s.seen.add(name, m)
	case !errors.Is(err, driver.ErrConflict):
		s.seen.drop(name)
	}
	return err
}
