package vaultstore

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

const (
	// maxSize is what the smallest of the three services takes, so that records
	// can be moved between them. Vault itself takes more: as JSON such a record
	// has at most 384 KiB, and a storage entry may have 512 KiB.
	maxSize = 64 << 10

	// width is how many requests are under way at once.
	width = 16

	// fewVersions is how many versions are destroyed without asking which of them
	// there still are. Numbers go up for ever, and Vault works through each.
	fewVersions = 32

	// cleanup bounds how long removing old index entries may hold up a write that
	// has succeeded.
	cleanup = 5 * time.Second

	// catchUp bounds how long a call waits for a standby node that is behind.
	catchUp = 10 * time.Second
)

// secrets implements driver.Secrets.
type secrets struct {
	*vault
	mount, prefix    string
	engine           engine
	listLag, readLag time.Duration
}

var _ driver.Secrets = (*secrets)(nil)

// Format prints s as its type. Package fmt would print what the client holds.
func (s *secrets) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("*vaultstore.secrets")) }

// Properties implements driver.Secrets.
func (s *secrets) Properties() driver.Properties {
	return driver.Properties{Name: "vaultstore", Place: "vaultstore/" + s.mount + "/" + s.prefix, MaxSize: maxSize, ListLag: s.listLag, ReadLag: s.readLag}
}

// Get implements driver.Secrets.
func (s *secrets) Get(ctx context.Context, name string) (driver.Secret, error) {
	st, err := s.read(ctx, name, 0, s.readLag == 0)
	if err != nil {
		return driver.Secret{}, err
	}
	return st.secret()
}

// Fresh implements driver.Secrets. The active node knows the newest state. If a
// standby that is behind answers in its place, Fresh waits until that has caught
// up with than.
func (s *secrets) Fresh(ctx context.Context, name string, than driver.Secret) (driver.Secret, error) {
	st, ok, err := s.await(ctx, name, func(st state) bool { return !st.behind(than.Version, s.readLag > 0) })
	switch {
	case err != nil:
		return driver.Secret{}, err
	case !ok && st.number > 0:
		return driver.Secret{}, fmt.Errorf("%w: %s is answered by a node that is behind", driver.ErrUnavailable, s.data(name))
	}
	return st.secret()
}

// Create implements driver.Secrets. The first record under a name is version 1;
// one that follows a tombstone replaces that.
func (s *secrets) Create(ctx context.Context, name string, p driver.Payload) (driver.Version, error) {
	if err := s.prepare(ctx, name, p.Labels); err != nil {
		return "", err
	}
	traced, sent := counting(ctx)
	for number, tries := 0, 0; ; tries++ {
		sent.Store(0)
		v, err := s.write(traced, name, number, record(p.Data))
		if !errors.Is(err, driver.ErrConflict) || tries == width {
			return v, err
		}
		st, unread := s.after(ctx, name, number)
		if unread != nil {
			return "", unread
		}
		if st.number > number {
			mine, unknown := s.won(ctx, name, number+1, st, sent, func(st state) bool { return bytes.Equal(st.data, p.Data) })
			if unknown != nil {
				return "", unknown
			}
			if mine != "" {
				return mine, nil
			}
		}
		if !errors.Is(st.err, driver.ErrNotFound) {
			return "", fmt.Errorf("%w: %s", driver.ErrExists, s.data(name))
		}
		number = st.number
	}
}

// Update implements driver.Secrets.
func (s *secrets) Update(ctx context.Context, name string, base driver.Secret, p driver.Payload) (driver.Version, error) {
	number, _, ok := parse(base.Version)
	if !ok {
		return "", fmt.Errorf("%w: the base has no version", driver.ErrConflict)
	}
	if err := s.prepare(ctx, name, without(p.Labels, base.Labels)); err != nil {
		return "", err
	}
	traced, sent := counting(ctx)
	v, err := s.write(traced, name, number, record(p.Data))
	if errors.Is(err, driver.ErrConflict) {
		mine, unknown := s.won(ctx, name, number+1, state{}, sent, func(st state) bool { return bytes.Equal(st.data, p.Data) })
		if unknown != nil {
			return "", unknown
		}
		if mine != "" {
			v, err = mine, nil
		}
	}
	if err != nil {
		return "", err
	}
	s.unindex(ctx, name, without(base.Labels, p.Labels))
	return v, nil
}

// Delete implements driver.Secrets. The secret's last version is a tombstone:
// Vault would begin to count again if the whole were deleted, and an Update
// prepared against the old version 1 would fit a new one.
func (s *secrets) Delete(ctx context.Context, name string, base driver.Secret) error {
	if err := s.prepare(ctx, name, nil); err != nil {
		return err
	}
	number, _, ok := parse(base.Version)
	err := fmt.Errorf("%w: the base has no version", driver.ErrConflict)
	traced, sent := counting(ctx)
	nonce := rand.Text()
	if !ok {
		number = -1 // any state will do
	} else {
		_, err = s.write(traced, name, number, field{fieldDeleted, nonce})
	}
	if errors.Is(err, driver.ErrConflict) {
		st, unread := s.after(ctx, name, number)
		switch {
		case unread != nil:
			return unread
		case st.tombstone != "":
			// Somebody has deleted it. If they did not get as far as destroying
			// what was before, that is done here.
			err, number = nil, st.number-1
		case errors.Is(st.err, driver.ErrNotFound):
			return nil
		case ok && st.number > number:
			mine, unknown := s.won(ctx, name, number+1, st, sent, func(st state) bool { return st.tombstone == nonce })
			switch {
			case unknown != nil:
				return unknown
			case mine != "":
				err = nil
			}
		}
		if err != nil || st.tombstone != nonce {
			base.Labels = nil // they are not ours to remove
		}
	}
	if err != nil {
		return err
	}
	return s.clear(ctx, name, number, base.Labels)
}

// clear removes the index entries of a secret that was deleted, and destroys its
// versions up to the given one.
func (s *secrets) clear(ctx context.Context, name string, number int, labels []driver.Label) error {
	var work sync.WaitGroup
	defer work.Wait()
	if len(labels) > 0 {
		work.Go(func() { s.unindex(ctx, name, labels) })
	}
	if err := s.destroy(ctx, name, number); err != nil {
		return fmt.Errorf("deleted, but its earlier versions are still there: %w", err)
	}
	return nil
}

// Lookup implements driver.Secrets.
func (s *secrets) Lookup(ctx context.Context, any []driver.Label) iter.Seq2[driver.Named, error] {
	return func(yield func(driver.Named, error) bool) {
		var folders []string
		for _, l := range any {
			folders = append(folders, s.folder(l))
		}
		slices.Sort(folders)
		var (
			mu    sync.Mutex
			names []string
		)
		err := each(ctx, slices.Compact(folders), func(ctx context.Context, folder string) error {
			keys, err := s.list(ctx, folder)
			mu.Lock()
			defer mu.Unlock()
			for _, k := range keys {
				if name, nonce, ok := strings.Cut(k, "."); ok && legalName.MatchString(name) && legalNonce.MatchString(nonce) {
					names = append(names, name)
				}
			}
			return err
		})
		if err != nil {
			yield(driver.Named{}, err)
			return
		}
		slices.Sort(names)
		s.fetch(ctx, slices.Compact(names), yield)
	}
}

// List implements driver.Secrets.
func (s *secrets) List(ctx context.Context) iter.Seq2[driver.Named, error] {
	return func(yield func(driver.Named, error) bool) {
		names, err := s.names(ctx)
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
		names, err := s.names(ctx)
		if err == nil && len(names) > 0 {
			err = s.reads(ctx) // there are folders of any name in version 1
		}
		if err != nil {
			yield("", err)
			return
		}
		for _, name := range names {
			if err := ctx.Err(); err != nil {
				yield("", err)
				return
			}
			if !yield(name, nil) {
				return
			}
		}
	}
}

// Close implements driver.Secrets. There is nothing to release.
func (s *secrets) Close() error { return nil }

// Where things are. Names, keys, values and nonces are legal in a path.
func (s *secrets) data(name string) string { return s.mount + "/data/" + s.prefix + "/tokens/" + name }

func (s *secrets) folder(l driver.Label) string {
	return s.mount + "/metadata/" + s.prefix + "/index/" + l.Key + "/" + l.Value
}

func (s *secrets) entry(name string, l driver.Label) string {
	return s.folder(l) + "/" + name + "." + l.Nonce
}

var (
	legalName  = regexp.MustCompile(`^[a-z0-9]{1,64}$`)
	legalNonce = regexp.MustCompile(`^[a-z2-7]{16}$`)
)

// The one field of a secret: a record as text or, if it is not valid UTF-8, in
// base64; or what makes a tombstone unlike any other.
const (
	fieldRecord  = "record"
	fieldBase64  = "record_base64"
	fieldDeleted = "deleted"
)

type field struct{ name, value string }

func record(data []byte) field {
	if utf8.Valid(data) {
		return field{fieldRecord, string(data)}
	}
	return field{fieldBase64, base64.StdEncoding.EncodeToString(data)}
}

// A state is what one version of a secret is.
type state struct {
	number    int // 0: there is no version
	created   time.Time
	version   driver.Version
	data      []byte
	tombstone string // what is in it
	err       error  // why there is no data: ErrNotFound or ErrCorrupt
}

func (st state) secret() (driver.Secret, error) {
	if st.err != nil {
		return driver.Secret{}, st.err
	}
	return driver.Secret{Payload: driver.Payload{Data: st.data}, Version: st.version, Updated: st.created}, nil
}

// behind reports whether st is older than a version that is known. A secret that
// was removed with its metadata counts from 1 again, at a later time; whether
// one without any version was removed or has not arrived, only a lag can tell.
func (st state) behind(than driver.Version, lags bool) bool {
	number, created, ok := parse(than)
	switch {
	case !ok || st.number >= number:
		return false
	case st.number == 0:
		return lags
	}
	return st.created.Before(created)
}

// A version is the number of a KV version and the time it was made, both of which
// Vault tells whenever it writes or reads one. The number alone is what Vault
// compares; with the time a Version stays unlike any other even if somebody
// deletes a secret with its metadata, and so makes Vault count from 1 again.
func version(number int, created string) driver.Version {
	return driver.Version(strconv.Itoa(number) + " " + created)
}

func parse(v driver.Version) (number int, created time.Time, ok bool) {
	n, at, _ := strings.Cut(string(v), " ")
	number, err := strconv.Atoi(n)
	if err != nil || number < 1 {
		return 0, time.Time{}, false
	}
	created, err = time.Parse(time.RFC3339Nano, at)
	return number, created, err == nil
}

// metadata is what Vault tells about a version.
type metadata struct {
	Version     int    `json:"version"`
	CreatedTime string `json:"created_time"`
}

// read returns the state of a version of a secret, or of the newest if number is
// 0.
func (s *secrets) read(ctx context.Context, name string, number int, active bool) (state, error) {
	q := request{method: http.MethodGet, path: s.data(name), active: active}
	if number > 0 {
		q.query = url.Values{"version": {strconv.Itoa(number)}}
	}
	var answer struct {
		Data struct {
			Data     map[string]json.RawMessage `json:"data"`
			Metadata metadata                   `json:"metadata"`
		} `json:"data"`
	}
	where := s.where()
	err := s.do(ctx, q, &answer)
	if err != nil && !errors.Is(err, driver.ErrNotFound) {
		return state{}, err
	}
	m := answer.Data.Metadata
	st := state{number: m.Version, version: version(m.Version, m.CreatedTime)}
	st.created, _ = time.Parse(time.RFC3339Nano, m.CreatedTime)
	switch {
	case err != nil && m.Version < 1:
		// Nothing was ever there, or it is not the engine that would know.
		if wrong := s.reads(ctx); wrong != nil {
			return state{}, wrong
		}
		st.err = err
		return st, nil
	case m.Version < 1:
		return state{}, fmt.Errorf("%s: %w", s.data(name), errNotKV2)
	}
	s.prove(where)
	if err != nil {
		st.err = err
		return st, nil
	}
	st.data, st.tombstone = decode(answer.Data.Data)
	switch {
	case st.tombstone != "":
		st.err = fmt.Errorf("%w: %s was deleted", driver.ErrNotFound, s.data(name))
	case st.data == nil:
		st.err = fmt.Errorf("%w: %s", driver.ErrCorrupt, s.data(name))
	}
	return st, nil
}

// await returns the newest state of a secret once it is as the caller needs it,
// or, with false, if it is not for as long as a node may be behind.
func (s *secrets) await(ctx context.Context, name string, good func(state) bool) (state, bool, error) {
	deadline := s.now().Add(catchUp)
	for pause := 25 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		st, err := s.read(ctx, name, 0, true)
		if err != nil || good(st) || s.now().After(deadline) {
			return st, err == nil && good(st), err
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return state{}, false, ctx.Err()
		}
	}
}

// after returns the newest state of a secret that has just been seen not to be
// the given version. If there is a lag an older one is not the newest.
func (s *secrets) after(ctx context.Context, name string, number int) (state, error) {
	st, _, err := s.await(ctx, name, func(st state) bool { return st.number > number || s.readLag == 0 })
	return st, err
}

// decode returns what is in a secret, or nothing if that is not what this
// package writes.
func decode(fields map[string]json.RawMessage) (data []byte, tombstone string) {
	if len(fields) != 1 {
		return nil, ""
	}
	for name, raw := range fields {
		var text *string
		if json.Unmarshal(raw, &text) != nil || text == nil || *text == "" {
			return nil, ""
		}
		switch name {
		case fieldRecord:
			return []byte(*text), ""
		case fieldBase64:
			if data, err := base64.StdEncoding.Strict().DecodeString(*text); err == nil {
				return data, ""
			}
		case fieldDeleted:
			return nil, *text
		}
	}
	return nil, ""
}

// prepare makes sure, before any request is counted, that the engine is one to write
// to, and adds the entries that a secret is to be found by.
func (s *secrets) prepare(ctx context.Context, name string, labels []driver.Label) error {
	if err := s.writes(ctx); err != nil {
		return err
	}
	return s.index(ctx, name, labels)
}

// write makes f the version after number.
func (s *secrets) write(ctx context.Context, name string, number int, f field) (driver.Version, error) {
	if err := s.writes(ctx); err != nil {
		return "", err
	}
	return s.put(ctx, name, number, f)
}

// put is write on any engine.
func (s *secrets) put(ctx context.Context, name string, number int, f field) (driver.Version, error) {
	var answer struct {
		Data metadata `json:"data"`
	}
	err := s.do(ctx, request{
		method: http.MethodPut, path: s.data(name), secret: []byte(f.value),
		body: map[string]any{"data": map[string]string{f.name: f.value}, "options": map[string]int{"cas": number}},
	}, &answer)
	switch {
	case errors.Is(err, driver.ErrNotFound):
		return "", fmt.Errorf("%w: %v", errNotKV2, err)
	case err != nil:
		return "", err
	case answer.Data.Version < 1:
		return "", fmt.Errorf("%s: %w", s.data(name), errNotKV2)
	case answer.Data.Version != number+1:
		return "", fmt.Errorf("%s: %w: it has made version %d of version %d", s.data(name), errNotKV2, answer.Data.Version, number)
	}
	return version(answer.Data.Version, answer.Data.CreatedTime), nil
}

// won finds out whether a write that Vault refused was applied all the same: the
// client, or a proxy on the way, may have repeated it after a failure, and what
// was refused is the repetition. It returns the version if so. now is the newest
// state, if that is known, and number the version that the write would be.
//
// Others may have written since. Once the version is gone nobody can tell, and
// unless the request was sent just once that is what the error says.
func (s *secrets) won(ctx context.Context, name string, number int, now state, sent *atomic.Int64, mine func(state) bool,
) (driver.Version, error) {
	if now.number != number {
		if now.number > number && sent.Load() == 1 {
			return "", nil
		}
		var err error
		if now, err = s.read(ctx, name, number, true); err != nil {
			return "", err
		}
	}
	switch gone := errors.Is(now.err, driver.ErrNotFound) && now.tombstone == ""; {
	case mine(now):
		return now.version, nil
	case gone && sent.Load() != 1:
		return "", fmt.Errorf("%w: %s: whether the write was applied before it was repeated cannot be seen any more",
			driver.ErrUnavailable, s.data(name))
	}
	return "", nil
}

// index adds the entries that a secret is found by.
func (s *secrets) index(ctx context.Context, name string, labels []driver.Label) error {
	return each(ctx, labels, func(ctx context.Context, l driver.Label) error {
		err := s.do(ctx, request{
			method: http.MethodPost, path: s.entry(name, l),
			body: map[string]any{"custom_metadata": map[string]string{"name": name}},
		}, nil)
		if errors.Is(err, driver.ErrNotFound) {
			return fmt.Errorf("%w: %v", errNotKV2, err)
		}
		return err
	})
}

// unindex removes entries, as far as that succeeds: left over they do no harm.
func (s *secrets) unindex(ctx context.Context, name string, labels []driver.Label) {
	ctx, cancel := context.WithTimeout(ctx, cleanup)
	defer cancel()
	_ = each(ctx, labels, func(ctx context.Context, l driver.Label) error {
		_ = s.do(ctx, request{method: http.MethodDelete, path: s.entry(name, l)}, nil)
		return ctx.Err()
	})
}

// destroy destroys the versions of a secret up to the given one.
func (s *secrets) destroy(ctx context.Context, name string, last int) error {
	var versions []int
	if last <= fewVersions {
		for n := range last {
			versions = append(versions, n+1)
		}
	} else {
		var answer struct {
			Data struct {
				Current  int `json:"current_version"`
				Versions map[int]struct {
					Destroyed bool `json:"destroyed"`
				} `json:"versions"`
			} `json:"data"`
		}
		path := s.mount + "/metadata/" + s.prefix + "/tokens/" + name
		err := s.do(ctx, request{method: http.MethodGet, path: path, active: true}, &answer)
		if err != nil && !errors.Is(err, driver.ErrNotFound) {
			return err
		}
		for n, v := range answer.Data.Versions {
			if n <= last && !v.Destroyed {
				versions = append(versions, n)
			}
		}
		slices.Sort(versions)
		for n := answer.Data.Current + 1; err == nil && n <= last; n++ {
			versions = append(versions, n) // the node that answered is behind
		}
	}
	if len(versions) == 0 {
		return nil
	}
	return s.do(ctx, request{
		method: http.MethodPut, path: s.mount + "/destroy/" + s.prefix + "/tokens/" + name,
		body: map[string]any{"versions": versions},
	}, nil)
}

// list returns what is in a folder; a folder with nothing in it does not exist.
func (s *secrets) list(ctx context.Context, folder string) ([]string, error) {
	var answer struct {
		Data struct {
			Keys []string `json:"keys"`
		} `json:"data"`
	}
	err := s.do(ctx, request{
		method: http.MethodGet, path: folder, query: url.Values{"list": {"true"}}, active: s.listLag == 0,
	}, &answer)
	if errors.Is(err, driver.ErrNotFound) {
		return nil, s.reads(ctx)
	}
	return answer.Data.Keys, err
}

// names returns the names of all secrets, deleted ones included.
func (s *secrets) names(ctx context.Context) ([]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	keys, err := s.list(ctx, s.mount+"/metadata/"+s.prefix+"/tokens")
	return slices.DeleteFunc(keys, func(k string) bool { return !legalName.MatchString(k) }), err
}

// fetch yields the secrets of the given names, as they come. Why one cannot be read
// is yielded with its name, unless it concerns all.
func (s *secrets) fetch(ctx context.Context, names []string, yield func(driver.Named, error) bool) {
	inner, cancel := context.WithCancel(ctx)
	results, wait := s.readAll(inner, names)
	defer wait()
	defer cancel()
	var failures streak
	for range names {
		var r listed
		select {
		case r = <-results:
		case <-ctx.Done():
			yield(driver.Named{}, ctx.Err())
			return
		}
		switch {
		case ctx.Err() != nil:
			yield(driver.Named{}, ctx.Err())
			return
		case failures.ofAll(r.err):
			yield(driver.Named{}, r.err)
			return
		case errors.Is(r.err, driver.ErrNotFound):
			continue // deleted, or a tombstone
		case !yield(r.Named, r.err):
			return
		}
	}
}

// A listed is a secret that was listed, or why it cannot be read.
type listed struct {
	driver.Named
	err error
}

// readAll reads the named secrets, several at a time, until ctx is done. The function
// that it returns waits for the reads that are under way.
func (s *secrets) readAll(ctx context.Context, names []string) (<-chan listed, func()) {
	var (
		work    sync.WaitGroup
		next    atomic.Int64
		results = make(chan listed)
	)
	for range min(width, len(names)) {
		work.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(names)); i = next.Add(1) - 1 {
				st, err := s.read(ctx, names[i], 0, s.listLag == 0)
				r := listed{Named: driver.Named{Name: names[i]}, err: err}
				if err == nil {
					r.Secret, r.err = st.secret()
				}
				select {
				case results <- r:
				case <-ctx.Done():
					return
				}
			}
		})
	}
	return results, work.Wait
}

// A streak counts secrets in a row that could not be read because Vault was
// unavailable.
type streak int

// ofAll reports whether err is about all secrets, and not about the one that was
// read: the token is not accepted, the engine is another one, or so many in a row are
// unavailable that it is Vault that is.
func (n *streak) ofAll(err error) bool {
	if errors.Is(err, driver.ErrUnavailable) {
		*n++
	} else {
		*n = 0
	}
	return errors.Is(err, driver.ErrCredentials) || wrongEngine(err) || *n > width
}

// each calls f for all items, several at a time, and returns the first error.
// After an error no further calls are begun.
func each[T any](ctx context.Context, items []T, f func(context.Context, T) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	var (
		work  sync.WaitGroup
		once  sync.Once
		first error
		next  atomic.Int64
	)
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	for range min(width, len(items)) {
		work.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(items)); i = next.Add(1) - 1 {
				if err := f(inner, items[i]); err != nil {
					once.Do(func() { first = err })
					cancel()
					return
				}
			}
		})
	}
	work.Wait()
	return first
}

// without returns the labels of a that are not in b.
func without(a, b []driver.Label) []driver.Label {
	compare := func(x, y driver.Label) int {
		return cmp.Or(cmp.Compare(x.Key, y.Key), cmp.Compare(x.Value, y.Value), cmp.Compare(x.Nonce, y.Nonce))
	}
	b = slices.SortedFunc(slices.Values(b), compare)
	return slices.DeleteFunc(slices.Clone(a), func(l driver.Label) bool {
		_, found := slices.BinarySearchFunc(b, l, compare)
		return found
	})
}
