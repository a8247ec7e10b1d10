package conformance

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// placed is a reference whose Properties have the Place that place returns.
type placed struct {
	*reference
	place func() string
}

func (p placed) Properties() driver.Properties {
	properties := p.reference.Properties()
	properties.Place = p.place()
	return properties
}

// hooked is a reference with some methods replaced. Each function receives the reference, and
// breaks a promise that the reference keeps.
type hooked struct {
	*reference
	get    func(r *reference, ctx context.Context, name string) (driver.Secret, error)
	fresh  func(r *reference, ctx context.Context, name string, than driver.Secret) (driver.Secret, error)
	create func(r *reference, ctx context.Context, name string, p driver.Payload) (driver.Version, error)
	update func(r *reference, ctx context.Context, name string, base driver.Secret, p driver.Payload) (driver.Version, error)
	note   func(r *reference, ctx context.Context, name string, base driver.Secret, note string) error
	remove func(r *reference, ctx context.Context, name string, base driver.Secret) error
	lookup func(r *reference, ctx context.Context, any []driver.Label) iter.Seq2[driver.Named, error]
	list   func(r *reference, ctx context.Context) iter.Seq2[driver.Named, error]
	names  func(r *reference, ctx context.Context) iter.Seq2[string, error]
}

// deriving is a Labeler that derives the nonce of a label from the label.
type deriving struct{ hooked }

func (d deriving) Relabel(_ string, _ driver.Version, added []driver.Label) []driver.Label {
	labels := slices.Clone(added)
	for i := range labels {
		labels[i].Nonce = labels[i].Value[:16]
	}
	return labels
}

func (h hooked) Get(ctx context.Context, name string) (driver.Secret, error) {
	if h.get != nil {
		return h.get(h.reference, ctx, name)
	}
	return h.reference.Get(ctx, name)
}

func (h hooked) Fresh(ctx context.Context, name string, than driver.Secret) (driver.Secret, error) {
	if h.fresh != nil {
		return h.fresh(h.reference, ctx, name, than)
	}
	return h.reference.Fresh(ctx, name, than)
}

func (h hooked) Create(ctx context.Context, name string, p driver.Payload) (driver.Version, error) {
	if h.create != nil {
		return h.create(h.reference, ctx, name, p)
	}
	return h.reference.Create(ctx, name, p)
}

func (h hooked) Update(ctx context.Context, name string, base driver.Secret, p driver.Payload) (driver.Version, error) {
	if h.update != nil {
		return h.update(h.reference, ctx, name, base, p)
	}
	return h.reference.Update(ctx, name, base, p)
}

func (h hooked) Note(ctx context.Context, name string, base driver.Secret, note string) error {
	if h.note != nil {
		return h.note(h.reference, ctx, name, base, note)
	}
	return h.reference.Note(ctx, name, base, note)
}

func (h hooked) Delete(ctx context.Context, name string, base driver.Secret) error {
	if h.remove != nil {
		return h.remove(h.reference, ctx, name, base)
	}
	return h.reference.Delete(ctx, name, base)
}

func (h hooked) Lookup(ctx context.Context, any []driver.Label) iter.Seq2[driver.Named, error] {
	if h.lookup != nil {
		return h.lookup(h.reference, ctx, any)
	}
	return h.reference.Lookup(ctx, any)
}

func (h hooked) List(ctx context.Context) iter.Seq2[driver.Named, error] {
	if h.list != nil {
		return h.list(h.reference, ctx)
	}
	return h.reference.List(ctx)
}

func (h hooked) Names(ctx context.Context) iter.Seq2[string, error] {
	if h.names != nil {
		return h.names(h.reference, ctx)
	}
	return h.reference.Names(ctx)
}

// hook returns a backend of hooked drivers with the functions in h.
func hook(h hooked) Driver {
	return backend(0, 0, func(r *reference) driver.Secrets {
		made := h
		made.reference = r
		return made
	})
}

// newest returns the newest state of a secret without any check.
func (r *reference) newest(name string) state {
	r.mu.Lock()
	defer r.mu.Unlock()
	s, _ := r.at(name, 0)
	return s
}

// force makes s the newest state of a secret without any check.
func (r *reference) force(name string, s state) driver.Version {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.put(name, s)
}

// edit changes the newest state of a secret without changing its version.
func (r *reference) edit(name string, change func(s *state)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	states := r.states[r.prefix+name]
	if len(states) > 0 {
		s := &states[len(states)-1]
		s.Payload = clone(s.Payload)
		change(s)
	}
}

func holding(p driver.Payload) state { return state{Secret: driver.Secret{Payload: p}} }

// without returns the labels for which drop returns false.
func without(labels []driver.Label, drop func(driver.Label) bool) []driver.Label {
	return slices.DeleteFunc(slices.Clone(labels), drop)
}

func driverMutants() []mutant[Driver] {
	return slices.Concat(readMutants, writeMutants, labelMutants, listMutants, noteMutants, manyMutants())
}

func TestDriverMutants(t *testing.T) { hunt(t, driverMutants(), driverCases(), newDriverEnv) }

var readMutants = []mutant[Driver]{
	{"trims white space", "secret managers' command line tools", "DR-01", hook(hooked{create: func(r *reference, ctx context.Context, name string, p driver.Payload) (driver.Version, error) {
		p.Data = bytes.TrimSpace(p.Data)
		return r.Create(ctx, name, p)
	}})},
	{"makes UTF-8 of the data", "stores that keep a SecretString", "DR-01", hook(hooked{create: func(r *reference, ctx context.Context, name string, p driver.Payload) (driver.Version, error) {
		p.Data = bytes.ToValidUTF8(p.Data, []byte("?"))
		return r.Create(ctx, name, p)
	}})},
	{"cuts long names", "ContextForge, sha256(url)[:16] in a path", "DR-01", backend(0, 0, func(r *reference) driver.Secrets { return cutter{r} })},
	{"returns nothing and no error for what is missing", "Kaizen #192, PHP and Ruby DBStore", "DR-02", hook(hooked{get: func(r *reference, ctx context.Context, name string) (driver.Secret, error) {
		s, err := r.Get(ctx, name)
		if errors.Is(err, driver.ErrNotFound) {
			err = nil
		}
		return s, err
	}})},
	{"calls what is missing denied", "Secret Manager without list permission", "DR-02", hook(hooked{get: func(r *reference, ctx context.Context, name string) (driver.Secret, error) {
		s, err := r.Get(ctx, name)
		if errors.Is(err, driver.ErrNotFound) {
			err = driver.ErrDenied
		}
		return s, err
	}})},
	{"reads data and version in two calls", "readers of versions/latest", "DR-08", hook(hooked{get: func(r *reference, ctx context.Context, name string) (driver.Secret, error) {
		data, err := r.Get(ctx, name)
		gap(ctx)
		s, err2 := r.Get(ctx, name)
		s.Data = data.Data
		return s, errors.Join(err, err2)
	}})},
	{"answers from a cache of its own", "external-secrets #3312", "DR-21", backend(0, 0, func(r *reference) driver.Secrets {
		return &caching{reference: r, known: map[string]driver.Secret{}}
	})},
	{"lags more than it says", "ListSecrets, as fresh as GetSecretValue", "DR-21", backend(0, time.Hour, func(r *reference) driver.Secrets {
		r.properties.ReadLag = 0
		return r
	})},
	{"calls what is throttled unavailable", "", "DR-33", hook(hooked{get: func(r *reference, ctx context.Context, name string) (driver.Secret, error) {
		s, err := r.Get(ctx, name)
		if errors.Is(err, driver.ErrThrottled) {
			err = driver.ErrUnavailable
		}
		return s, err
	}})},
	{"calls a conflict throttled", "", "DR-33", hook(hooked{update: func(r *reference, ctx context.Context, name string, base driver.Secret, p driver.Payload) (driver.Version, error) {
		v, err := r.Update(ctx, name, base, p)
		if errors.Is(err, driver.ErrConflict) {
			err = fmt.Errorf("%w: %w", driver.ErrThrottled, err)
		}
		return v, err
	}})},
	{"takes Get for Fresh", "readers of an alias", "DR-27", backend(0, time.Hour, func(r *reference) driver.Secrets {
		return hooked{reference: r, fresh: func(r *reference, ctx context.Context, name string, _ driver.Secret) (driver.Secret, error) {
			return r.Get(ctx, name)
		}}
	})},
	{"returns the state that Fresh was told of", "", "DR-27", hook(hooked{fresh: func(r *reference, ctx context.Context, name string, than driver.Secret) (driver.Secret, error) {
		if than.Version != "" {
			return than, ctx.Err()
		}
		return r.Fresh(ctx, name, than)
	}})},
	{"returns what it keeps", "scs memstore", "DR-25", hook(hooked{get: func(r *reference, ctx context.Context, name string) (driver.Secret, error) {
		if _, err := r.Get(ctx, name); err != nil {
			return driver.Secret{}, err
		}
		return r.newest(name).Secret, nil
	}})},
	{"keeps what it is given", "", "DR-25", hook(hooked{create: func(r *reference, ctx context.Context, name string, p driver.Payload) (driver.Version, error) {
		v, err := r.Create(ctx, name, p)
		if err == nil {
			r.edit(name, func(s *state) { s.Payload = p })
		}
		return v, err
	}})},
	{"shares a buffer between calls", "", "DR-26", backend(0, 0, func(r *reference) driver.Secrets { return &sharing{reference: r} })},
	{"quotes the payload in an error", "decoders that quote their input", "DR-24", hook(hooked{update: func(r *reference, ctx context.Context, name string, base driver.Secret, p driver.Payload) (driver.Version, error) {
		v, err := r.Update(ctx, name, base, p)
		if err != nil {
			err = fmt.Errorf("update %q to %q: %w", name, p.Data, err)
		}
		return v, err
	}})},
	{"shows the request in an error", "SDKs that dump a request", "DR-24", hook(hooked{create: func(r *reference, ctx context.Context, name string, p driver.Payload) (driver.Version, error) {
		v, err := r.Create(ctx, name, p)
		if err != nil {
			err = fmt.Errorf("request failed, body %s: %w", hex.EncodeToString(p.Data[:24]), err)
		}
		return v, err
	}})},
	{"takes a foreign form for nothing", "stores whose errors are all misses", "DR-28", hook(hooked{get: func(r *reference, ctx context.Context, name string) (driver.Secret, error) {
		s, err := r.Get(ctx, name)
		if errors.Is(err, driver.ErrCorrupt) {
			err = driver.ErrNotFound
		}
		return s, err
	}})},
	{"returns a foreign form as data", "", "DR-28", hook(hooked{get: func(r *reference, ctx context.Context, name string) (driver.Secret, error) {
		s, err := r.Get(ctx, name)
		if errors.Is(err, driver.ErrCorrupt) {
			return r.newest(name).Secret, nil
		}
		return s, err
	}})},
	{"creates over a foreign form", "", "DR-28", hook(hooked{create: func(r *reference, ctx context.Context, name string, p driver.Payload) (driver.Version, error) {
		if r.newest(name).foreign {
			return r.force(name, holding(p)), nil
		}
		return r.Create(ctx, name, p)
	}})},
}

// cutter is a driver that shortens names to 62 bytes.
type cutter struct{ *reference }

func cut(name string) string { return name[:min(len(name), 62)] }

func (d cutter) Get(ctx context.Context, name string) (driver.Secret, error) {
	return d.reference.Get(ctx, cut(name))
}

func (d cutter) Create(ctx context.Context, name string, p driver.Payload) (driver.Version, error) {
	return d.reference.Create(ctx, cut(name), p)
}

func (d cutter) Fresh(ctx context.Context, name string, than driver.Secret) (driver.Secret, error) {
	return d.reference.Fresh(ctx, cut(name), than)
}

// caching is a driver that answers Get from a cache of earlier results of Get.
type caching struct {
	*reference
	mu    sync.Mutex
	known map[string]driver.Secret
}

func (d *caching) Get(ctx context.Context, name string) (driver.Secret, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s, ok := d.known[name]; ok {
		return s, ctx.Err()
	}
	s, err := d.reference.Get(ctx, name)
	if err == nil {
		d.known[name] = s
	}
	return s, err
}

// sharing is a driver that keeps the name of the secret of a call in a variable that all
// calls share.
type sharing struct {
	*reference
	name atomic.Pointer[string]
}

func (d *sharing) Get(ctx context.Context, name string) (driver.Secret, error) {
	d.name.Store(&name)
	gap(ctx)
	return d.reference.Get(ctx, *d.name.Load())
}

var writeMutants = []mutant[Driver]{
	{"Create overwrites", "PutSecretValue, on duplicate key update", "DR-03", hook(hooked{create: func(r *reference, ctx context.Context, name string, p driver.Payload) (driver.Version, error) {
		return r.force(name, holding(p)), ctx.Err()
	}})},
	{"Create of a live name succeeds and does nothing", "insert ignore", "DR-03", hook(hooked{create: func(r *reference, ctx context.Context, name string, p driver.Payload) (driver.Version, error) {
		v, err := r.Create(ctx, name, p)
		if errors.Is(err, driver.ErrExists) {
			return r.newest(name).Version, nil
		}
		return v, err
	}})},
	{"Create looks, then writes", "certmagic-vault-storage Lock", "DR-04", hook(hooked{create: func(r *reference, ctx context.Context, name string, p driver.Payload) (driver.Version, error) {
		if _, err := r.Get(ctx, name); err == nil {
			return "", driver.ErrExists
		}
		gap(ctx)
		return r.force(name, holding(p)), ctx.Err()
	}})},
	{"Create is given to all who ask at once", "one ClientRequestToken for all creators", "DR-04", hook(hooked{create: func(r *reference, ctx context.Context, name string, p driver.Payload) (driver.Version, error) {
		_, before := r.Get(ctx, name)
		gap(ctx)
		v, err := r.Create(ctx, name, p)
		if before != nil && errors.Is(err, driver.ErrExists) {
			return r.newest(name).Version, nil
		}
		return v, err
	}})},
	{"Update ignores the base", "every store that only has put", "DR-05", hook(hooked{update: func(r *reference, ctx context.Context, name string, _ driver.Secret, p driver.Payload) (driver.Version, error) {
		return r.Update(ctx, name, r.newest(name).Secret, p)
	}})},
	{"one request token stands for two values", "data-prepper #5324", "DR-05", hook(hooked{update: func(r *reference, ctx context.Context, name string, base driver.Secret, p driver.Payload) (driver.Version, error) {
		v, err := r.Update(ctx, name, base, p)
		if errors.Is(err, driver.ErrConflict) {
			return r.newest(name).Version, nil // as if the service had stored this data before
		}
		return v, err
	}})},
	{"calls a conflict unavailable", "drivers that do not look at the error", "DR-05", hook(hooked{update: func(r *reference, ctx context.Context, name string, base driver.Secret, p driver.Payload) (driver.Version, error) {
		v, err := r.Update(ctx, name, base, p)
		if errors.Is(err, driver.ErrConflict) {
			err = driver.ErrUnavailable
		}
		return v, err
	}})},
	{"Update looks, then writes", "certmagic-vault-storage, Cloud-Foundations golib", "DR-06", hook(hooked{update: func(r *reference, ctx context.Context, name string, base driver.Secret, p driver.Payload) (driver.Version, error) {
		if s, err := r.Get(ctx, name); err != nil {
			return "", err
		} else if s.Version != base.Version {
			return "", driver.ErrConflict
		}
		gap(ctx)
		return r.force(name, holding(p)), ctx.Err()
	}})},
	{"locks within the process only", "ContextForge #6353, external-secrets GCP TryLock", "DR-06", backend(0, 0, func(r *reference) driver.Secrets { return &locking{reference: r} })},
	{"Update creates what is missing", "aistudio #913, put then create", "DR-07", hook(hooked{update: func(r *reference, ctx context.Context, name string, base driver.Secret, p driver.Payload) (driver.Version, error) {
		v, err := r.Update(ctx, name, base, p)
		if errors.Is(err, driver.ErrNotFound) {
			return r.Create(ctx, name, p)
		}
		return v, err
	}})},
	{"versions count from one in each life", "Vault KV v2 after a metadata delete", "DR-09", backend(0, 0, func(r *reference) driver.Secrets { return counting{r} })},
	{"a base of an earlier incarnation fits a later one", "Vault KV v2, cas=1 matches again", "DR-14", backend(0, 0, func(r *reference) driver.Secrets { return counting{r} })},
	{"Delete leaves the secret readable", "soft delete", "DR-10", hook(hooked{remove: func(_ *reference, ctx context.Context, _ string, _ driver.Secret) error {
		return ctx.Err()
	}})},
	{"Delete ignores the base", "DeleteSecret has no condition", "DR-11", hook(hooked{remove: func(r *reference, ctx context.Context, name string, _ driver.Secret) error {
		return r.Delete(ctx, name, r.newest(name).Secret)
	}})},
	{"Delete of what is missing fails", "Zoho FileStore", "DR-12", hook(hooked{remove: func(r *reference, ctx context.Context, name string, base driver.Secret) error {
		if _, err := r.Get(ctx, name); err != nil {
			return err
		}
		return r.Delete(ctx, name, base)
	}})},
	{"a deleted name stays reserved", "Secrets Manager's recovery window", "DR-13", hook(hooked{create: func(r *reference, ctx context.Context, name string, p driver.Payload) (driver.Version, error) {
		if r.newest(name).deleted {
			return "", driver.ErrUnavailable
		}
		return r.Create(ctx, name, p)
	}})},
	{"cuts off large data", "columns of 64 KiB - 1", "DR-23", hook(hooked{update: func(r *reference, ctx context.Context, name string, base driver.Secret, p driver.Payload) (driver.Version, error) {
		p.Data = p.Data[:min(len(p.Data), 64<<10-1)]
		return r.Update(ctx, name, base, p)
	}})},
	{"refuses what becomes larger when it is quoted", "data in a JSON string", "DR-23", hook(hooked{create: func(r *reference, ctx context.Context, name string, p driver.Payload) (driver.Version, error) {
		if len(strconv.Quote(string(p.Data))) > 128<<10 {
			return "", driver.ErrUnavailable
		}
		return r.Create(ctx, name, p)
	}})},
	{"ignores the context", "go-cloud secrets/hashivault", "DR-22", hook(hooked{update: func(r *reference, ctx context.Context, name string, base driver.Secret, p driver.Payload) (driver.Version, error) {
		return r.Update(context.WithoutCancel(ctx), name, base, p)
	}})},
	{"calls a context that is done unavailable", "go-cloud awssecretsmanager, strings.Contains", "DR-22", hook(hooked{get: func(r *reference, ctx context.Context, name string) (driver.Secret, error) {
		s, err := r.Get(ctx, name)
		if ctx.Err() != nil {
			err = driver.ErrUnavailable
		}
		return s, err
	}})},
}

// locking is a driver whose Update compares the state before it writes, under a lock that other
// handles do not share.
type locking struct {
	*reference
	mu sync.Mutex
}

func (d *locking) Update(ctx context.Context, name string, base driver.Secret, p driver.Payload) (driver.Version, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s, err := d.Get(ctx, name); err != nil {
		return "", err
	} else if s.Version != base.Version {
		return "", driver.ErrConflict
	}
	gap(ctx)
	return d.force(name, holding(p)), ctx.Err()
}

// counting is a driver that numbers the states of each incarnation from 1, and compares
// only the numbers.
type counting struct{ *reference }

// number returns the number of the newest state and the version of that state.
func (d counting) number(name string) (number, version driver.Version) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := 0
	for _, s := range d.states[d.prefix+name] {
		n++
		if s.deleted {
			n = 0
		}
		version = s.Version
	}
	return driver.Version(strconv.Itoa(n)), version
}

func (d counting) Get(ctx context.Context, name string) (driver.Secret, error) {
	s, err := d.reference.Get(ctx, name)
	s.Version, _ = d.number(name)
	return s, err
}

func (d counting) Fresh(ctx context.Context, name string, _ driver.Secret) (driver.Secret, error) {
	return d.Get(ctx, name)
}

func (d counting) Create(ctx context.Context, name string, p driver.Payload) (driver.Version, error) {
	_, err := d.reference.Create(ctx, name, p)
	return "1", err
}

func (d counting) Update(ctx context.Context, name string, base driver.Secret, p driver.Payload) (driver.Version, error) {
	if number, version := d.number(name); number == base.Version {
		base.Version = version
	}
	_, err := d.reference.Update(ctx, name, base, p)
	v, _ := d.number(name)
	return v, err
}

func (d counting) Delete(ctx context.Context, name string, base driver.Secret) error {
	if number, version := d.number(name); number == base.Version {
		base.Version = version
	}
	return d.reference.Delete(ctx, name, base)
}

var labelMutants = []mutant[Driver]{
	{"drops labels before the commit", "tags changed before the value", "DR-15", hook(hooked{update: func(r *reference, ctx context.Context, name string, base driver.Secret, p driver.Payload) (driver.Version, error) {
		gone := without(base.Labels, func(l driver.Label) bool { return slices.Contains(p.Labels, l) })
		r.edit(name, func(s *state) {
			s.Labels = without(s.Labels, func(l driver.Label) bool { return slices.Contains(gone, l) })
		})
		return r.Update(ctx, name, base, p)
	}})},
	{"adds labels after the commit", "an index that is written last", "DR-15", hook(hooked{update: func(r *reference, ctx context.Context, name string, base driver.Secret, p driver.Payload) (driver.Version, error) {
		v, err := r.Update(ctx, name, base, driver.Payload{Data: p.Data, Labels: base.Labels})
		if err != nil || ctx.Err() != nil {
			return v, errors.Join(err, ctx.Err())
		}
		r.edit(name, func(s *state) { s.Labels = p.Labels })
		return v, nil
	}})},
	{"keeps the first labels for ever", "an index that is written on create only", "DR-15", hook(hooked{update: func(r *reference, ctx context.Context, name string, base driver.Secret, p driver.Payload) (driver.Version, error) {
		p.Labels = r.newest(name).Labels
		return r.Update(ctx, name, base, p)
	}})},
	{"keeps one label of a kind", "a map of tags", "DR-15", hook(hooked{create: func(r *reference, ctx context.Context, name string, p driver.Payload) (driver.Version, error) {
		p.Labels = slices.CompactFunc(slices.Clone(p.Labels), func(a, b driver.Label) bool { return a.Key == b.Key })
		return r.Create(ctx, name, p)
	}})},
	{"a loser takes the winner's labels away", "clean-up by digest", "DR-15", hook(hooked{update: func(r *reference, ctx context.Context, name string, base driver.Secret, p driver.Payload) (driver.Version, error) {
		v, err := r.Update(ctx, name, base, p)
		if errors.Is(err, driver.ErrConflict) {
			r.edit(name, func(s *state) {
				s.Labels = without(s.Labels, func(l driver.Label) bool { return sharesValue(l, p.Labels) })
			})
		}
		return v, err
	}})},
	{"gives all writers one nonce, and cleans up", "nonces that are derived from the value", "DR-15", backend(0, 0, func(r *reference) driver.Secrets {
		return deriving{hooked{reference: r, update: func(r *reference, ctx context.Context, name string, base driver.Secret, p driver.Payload) (driver.Version, error) {
			v, err := r.Update(ctx, name, base, p)
			if errors.Is(err, driver.ErrConflict) {
				added := without(p.Labels, func(l driver.Label) bool { return slices.Contains(base.Labels, l) })
				r.edit(name, func(s *state) {
					s.Labels = without(s.Labels, func(l driver.Label) bool { return slices.Contains(added, l) })
				})
			}
			return v, err
		}}}
	})},
	{"removes a label by its value", "a tag per digest", "DR-16", hook(hooked{update: func(r *reference, ctx context.Context, name string, base driver.Secret, p driver.Payload) (driver.Version, error) {
		gone := without(base.Labels, func(l driver.Label) bool { return slices.Contains(p.Labels, l) })
		p.Labels = without(p.Labels, func(l driver.Label) bool { return sharesValue(l, gone) })
		return r.Update(ctx, name, base, p)
	}})},
	{"a late clean-up takes the labels of a new life", "clean-up by name", "DR-14", hook(hooked{remove: func(r *reference, ctx context.Context, name string, base driver.Secret) error {
		err := r.Delete(ctx, name, base)
		if errors.Is(err, driver.ErrConflict) {
			r.edit(name, func(s *state) { s.Labels = nil })
		}
		return err
	}})},
	{"finds the first secret when nothing matches", "Zoho DBStore without a where clause", "DR-17", hook(hooked{lookup: func(r *reference, ctx context.Context, any []driver.Label) iter.Seq2[driver.Named, error] {
		if got, err := gather(r.Lookup(ctx, any)); err != nil || len(got) > 0 {
			return r.Lookup(ctx, any)
		}
		return func(yield func(driver.Named, error) bool) {
			for s, err := range r.List(ctx) {
				yield(s, err)
				return
			}
		}
	}})},
	{"compares the beginning of a digest", "certmagic Safe, ContextForge [:16]", "DR-17", hook(hooked{lookup: func(r *reference, ctx context.Context, any []driver.Label) iter.Seq2[driver.Named, error] {
		return r.each(ctx, func(s state) bool { return carries(s, any, 31) })
	}})},
	{"searches for the first label only", "", "DR-17", hook(hooked{lookup: func(r *reference, ctx context.Context, any []driver.Label) iter.Seq2[driver.Named, error] {
		return r.Lookup(ctx, any[:min(len(any), 1)])
	}})},
	{"yields a secret once for each label", "one search for each label", "DR-17", hook(hooked{lookup: func(r *reference, ctx context.Context, any []driver.Label) iter.Seq2[driver.Named, error] {
		return func(yield func(driver.Named, error) bool) {
			for _, l := range any {
				for s, err := range r.Lookup(ctx, []driver.Label{l}) {
					if !yield(s, err) {
						return
					}
				}
			}
		}
	}})},
	{"yields what was deleted", "an index that is not cleaned", "DR-10", hook(hooked{lookup: func(r *reference, _ context.Context, any []driver.Label) iter.Seq2[driver.Named, error] {
		return func(yield func(driver.Named, error) bool) {
			for name, s := range r.ever() {
				if carries(s, any, 32) && !yield(driver.Named{Name: name, Secret: s.Secret}, nil) {
					return
				}
			}
		}
	}})},
}

func sharesValue(l driver.Label, labels []driver.Label) bool {
	return slices.ContainsFunc(labels, func(o driver.Label) bool { return o.Key == l.Key && o.Value == l.Value })
}

// ever returns the last state with data of each secret that ever existed.
func (r *reference) ever() map[string]state {
	r.mu.Lock()
	defer r.mu.Unlock()
	last := map[string]state{}
	for key, states := range r.states {
		if name, ok := strings.CutPrefix(key, r.prefix); ok {
			for _, s := range states {
				if !s.deleted {
					s.Payload = clone(s.Payload)
					last[name] = s
				}
			}
		}
	}
	return last
}

var listMutants = []mutant[Driver]{
	{"lists the first page", "BatchGetSecretValue, 20 at a time", "DR-18", hook(hooked{list: func(r *reference, ctx context.Context) iter.Seq2[driver.Named, error] {
		return func(yield func(driver.Named, error) bool) {
			n := 0
			for s, err := range r.List(ctx) {
				if n++; n > 20 || !yield(s, err) {
					return
				}
			}
		}
	}})},
	{"lists what was deleted", "versions that are marked deleted", "DR-18", hook(hooked{list: func(r *reference, _ context.Context) iter.Seq2[driver.Named, error] {
		return func(yield func(driver.Named, error) bool) {
			for name, s := range r.ever() {
				if !yield(driver.Named{Name: name, Secret: s.Secret}, nil) {
					return
				}
			}
		}
	}})},
	{"lists the states before the last", "", "DR-18", backend(0, 0, func(r *reference) driver.Secrets {
		return hooked{reference: r, list: func(r *reference, ctx context.Context) iter.Seq2[driver.Named, error] {
			return func(yield func(driver.Named, error) bool) {
				for s, err := range r.List(ctx) {
					r.mu.Lock()
					s.Secret = r.states[r.prefix+s.Name][0].Secret
					r.mu.Unlock()
					if !yield(s, err) {
						return
					}
				}
			}
		}}
	})},
	{"does not stop", "", "DR-19", hook(hooked{list: func(r *reference, ctx context.Context) iter.Seq2[driver.Named, error] {
		return func(yield func(driver.Named, error) bool) {
			for s, err := range r.List(ctx) {
				yield(s, err)
			}
		}
	}})},
	{"goes on after an error", "", "DR-19", hook(hooked{names: func(r *reference, ctx context.Context) iter.Seq2[string, error] {
		return func(yield func(string, error) bool) {
			for range 3 {
				for name, err := range r.Names(ctx) {
					if !yield(name, err) {
						return
					}
				}
			}
		}
	}})},
	{"sees the secrets of a longer prefix", "prefixes without a separator", "DR-20", backend(0, 0, func(r *reference) driver.Secrets {
		return hooked{reference: r, list: func(r *reference, ctx context.Context) iter.Seq2[driver.Named, error] {
			return func(yield func(driver.Named, error) bool) {
				for _, h := range []*reference{r, r.sibling()} {
					for s, err := range h.List(ctx) {
						if !yield(s, err) {
							return
						}
					}
				}
			}
		}}
	})},
	{"has one place for all prefixes", "", "DR-31", backend(0, 0, func(r *reference) driver.Secrets {
		return placed{r, func() string { return "reference" }}
	})},
	{"has another place each time", "", "DR-31", backend(0, 0, func(r *reference) driver.Secrets {
		return placed{r, sync.OnceValue(func() string { return r.prefix + text(8) })}
	})},
	{"takes the incarnation of an update", "", "DR-32", hook(hooked{update: func(r *reference, ctx context.Context, name string, base driver.Secret, p driver.Payload) (driver.Version, error) {
		v, err := r.Update(ctx, name, base, p)
		if err == nil {
			r.mu.Lock()
			defer r.mu.Unlock()
			states := r.states[r.prefix+name]
			states[len(states)-1].Incarnation = p.Incarnation
		}
		return v, err
	}})},
	{"ends the list at a foreign form", "one bad row fails all", "DR-28", hook(hooked{list: func(r *reference, ctx context.Context) iter.Seq2[driver.Named, error] {
		return func(yield func(driver.Named, error) bool) {
			for s, err := range r.List(ctx) {
				if err != nil {
					yield(driver.Named{}, driver.ErrCorrupt)
					return
				}
				if !yield(s, err) {
					return
				}
			}
		}
	}})},
	{"ends the list at a secret that is refused", "BatchGetSecretValue's Errors", "DR-19", hook(hooked{list: func(r *reference, ctx context.Context) iter.Seq2[driver.Named, error] {
		return func(yield func(driver.Named, error) bool) {
			// The order of a list is random, so the refused secret may be the last. Yield that
			// secret first.
			for s, err := range r.List(ctx) {
				if errors.Is(err, driver.ErrRefused) {
					yield(s, err)
					return
				}
			}
			for s, err := range r.List(ctx) {
				if !yield(s, err) {
					return
				}
			}
		}
	}})},
	{"does not say which secret is refused", "BatchGetSecretValue's Errors", "DR-19", hook(hooked{lookup: func(r *reference, ctx context.Context, any []driver.Label) iter.Seq2[driver.Named, error] {
		return func(yield func(driver.Named, error) bool) {
			for s, err := range r.Lookup(ctx, any) {
				if errors.Is(err, driver.ErrRefused) {
					s.Name = ""
				}
				if !yield(s, err) {
					return
				}
			}
		}
	}})},
	{"leaves a secret that is refused out of the list", "", "DR-19", hook(hooked{list: func(r *reference, ctx context.Context) iter.Seq2[driver.Named, error] {
		return func(yield func(driver.Named, error) bool) {
			for s, err := range r.List(ctx) {
				if !errors.Is(err, driver.ErrRefused) && !yield(s, err) {
					return
				}
			}
		}
	}})},
	{"takes a secret that is refused for nothing", "", "DR-28", hook(hooked{get: func(r *reference, ctx context.Context, name string) (driver.Secret, error) {
		s, err := r.Get(ctx, name)
		if errors.Is(err, driver.ErrRefused) {
			err = driver.ErrNotFound
		}
		return s, err
	}})},
	{"leaves a foreign form out of the list", "", "DR-28", hook(hooked{list: func(r *reference, ctx context.Context) iter.Seq2[driver.Named, error] {
		return func(yield func(driver.Named, error) bool) {
			for s, err := range r.List(ctx) {
				if !errors.Is(err, driver.ErrCorrupt) && !yield(s, err) {
					return
				}
			}
		}
	}})},
}

// manyMutants returns a driver that writes without conditions, as one mutant for each clause that
// the driver breaks.
func manyMutants() []mutant[Driver] {
	blind := hook(hooked{
		create: func(r *reference, ctx context.Context, name string, p driver.Payload) (driver.Version, error) {
			return r.force(name, holding(p)), ctx.Err()
		},
		update: func(r *reference, ctx context.Context, name string, _ driver.Secret, p driver.Payload) (driver.Version, error) {
			return r.force(name, holding(p)), ctx.Err()
		},
	})
	var ms []mutant[Driver]
	for _, clause := range []string{"DR-03", "DR-04", "DR-05", "DR-06", "DR-07", "DR-14", "DR-21", "DR-22"} {
		ms = append(ms, mutant[Driver]{"has put and nothing else, " + clause, "chamber, python-o365, email-oauth2-proxy", clause, blind})
	}
	return ms
}

var noteMutants = []mutant[Driver]{
	{"puts a note over another one", "Lock of certmagic-vault-storage", "DR-29", hook(hooked{note: func(r *reference, ctx context.Context, name string, base driver.Secret, note string) error {
		base.Note = r.newest(name).Note
		return r.Note(ctx, name, base, note)
	}})},
	{"puts a note beside whatever is there", "a lock by a label of its own, on LocalStack", "DR-29", hook(hooked{note: func(r *reference, ctx context.Context, name string, base driver.Secret, note string) error {
		base.Version = r.newest(name).Version
		return r.Note(ctx, name, base, note)
	}})},
	{"looks at the note first and puts its own then", "check, then write", "DR-29", hook(hooked{note: func(r *reference, ctx context.Context, name string, base driver.Secret, note string) error {
		if now := r.newest(name); now.Version != base.Version || now.Note != base.Note || now.deleted {
			return driver.ErrConflict
		}
		gap(ctx)
		r.edit(name, func(s *state) { s.Note = note })
		return nil
	}})},
	{"makes a new state for a note", "", "DR-29", hook(hooked{note: func(r *reference, ctx context.Context, name string, base driver.Secret, note string) error {
		s := r.newest(name)
		if err := r.Note(ctx, name, base, note); err != nil {
			return err
		}
		s.Note = note
		r.force(name, s)
		return nil
	}})},
	{"forgets the note when it updates", "a map of annotations that is written whole", "DR-30", hook(hooked{update: func(r *reference, ctx context.Context, name string, base driver.Secret, p driver.Payload) (driver.Version, error) {
		p.Drop = r.newest(name).Note
		return r.Update(ctx, name, base, p)
	}})},
	{"never drops a note", "a lock that its holder does not clear, Cloud-Foundations/golib", "DR-30", hook(hooked{update: func(r *reference, ctx context.Context, name string, base driver.Secret, p driver.Payload) (driver.Version, error) {
		p.Drop = ""
		return r.Update(ctx, name, base, p)
	}})},
	{"keeps the note for the next life", "", "DR-30", hook(hooked{create: func(r *reference, ctx context.Context, name string, p driver.Payload) (driver.Version, error) {
		was := ""
		for _, s := range r.history(name) {
			was = cmp.Or(s.Note, was)
		}
		v, err := r.Create(ctx, name, p)
		if err == nil {
			r.edit(name, func(s *state) { s.Note = was })
		}
		return v, err
	}})},
}

func (r *reference) history(name string) []state {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.states[r.prefix+name])
}
