package vaultstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/driverkit"
)

const (
	// maxSize is the maximum size of a record, in bytes. It equals the limit of AWS Secrets
	// Manager, so that records can move between services. (On Google Cloud, a record can have 28
	// bytes fewer.) Vault itself accepts larger records: a record of maxSize bytes takes at most
	// 384 KiB as JSON, and a storage entry may take 512 KiB.
	maxSize = 64 << 10

	// fewVersions is the largest number of versions that destroyUpTo destroys without first reading
	// which versions exist. A request with more numbers is expensive: Vault processes each number,
	// even the number of a version that does not exist.
	fewVersions = 32

	// cleanup is the maximum time for which a write waits for one removal of index entries.
	cleanup = 5 * time.Second

	// catchUp is the maximum time for which a call waits for a lagging standby node.
	catchUp = 10 * time.Second
)

type secrets struct {
	*vault
	mount, prefix    string
	engine           engine
	listLag, readLag time.Duration
}

var _ driver.Secrets = (*secrets)(nil)

// Format prints only the type of s. Without Format, package fmt would print the fields of the
// client.
func (s *secrets) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("*vaultstore.secrets")) }

// data returns the path of the data of a secret. name must be a legal path element.
func (s *secrets) data(name string) string { return s.mount + "/data/" + s.prefix + "/tokens/" + name }

func (s *secrets) metadata(name string) string {
	return s.mount + "/metadata/" + s.prefix + "/tokens/" + name
}

// Properties implements driver.Secrets.
func (s *secrets) Properties() driver.Properties {
	return driver.Properties{Name: "vaultstore", Place: "vaultstore/" + s.mount + "/" + s.prefix, MaxSize: maxSize, ListLag: s.listLag, ReadLag: s.readLag, LabelBatch: 1}
}

// Get implements driver.Secrets.
func (s *secrets) Get(ctx context.Context, name string) (driver.Secret, error) {
	st, err := s.read(ctx, name, 0, s.readLag == 0)
	if err != nil {
		return driver.Secret{}, err
	}
	return st.secret()
}

// Fresh implements driver.Secrets. The active node has the newest state. If a lagging standby node
// answers instead, Fresh waits up to catchUp for that node to catch up with the caller's state. If
// the node does not catch up, the error matches ErrUnavailable, or ErrNotFound if the node shows no
// version.
func (s *secrets) Fresh(ctx context.Context, name string, than driver.Secret) (driver.Secret, error) {
	st, ok, err := s.newest(ctx, name, func(st state) bool { return !st.behind(than.Version, s.readLag > 0) })
	switch {
	case err != nil:
		return driver.Secret{}, err
	case !ok && st.number > 0:
		return driver.Secret{}, fmt.Errorf("%w: %s is answered by a node that is behind", driver.ErrUnavailable, s.data(name))
	}
	return st.secret()
}

// newest reads a secret until the function good returns true for the state, and returns that state
// and true. If the function does not return true within catchUp, newest returns the last state and
// false. If a read fails, newest returns the error.
func (s *secrets) newest(ctx context.Context, name string, good func(state) bool) (st state, ok bool, err error) {
	lag := driverkit.Backoff{Pause: 25 * time.Millisecond, Longest: time.Second, Patience: catchUp, Now: s.now}
	ok, err = lag.Until(ctx, func() (bool, error) {
		var err error
		st, err = s.read(ctx, name, 0, true)
		return err == nil && good(st), err
	})
	return st, ok, err
}

// newestAfter returns the newest state of a secret that is known to have a version after the given
// number. If reads lag, newestAfter waits up to catchUp for such a version, and then returns the
// last state that was read.
func (s *secrets) newestAfter(ctx context.Context, name string, number int) (state, error) {
	st, _, err := s.newest(ctx, name, func(st state) bool { return st.number > number || s.readLag == 0 })
	return st, err
}

// Create implements driver.Secrets. The first record under a name is version 1. If the last
// version is a tombstone or was deleted, the record becomes the next version.
func (s *secrets) Create(ctx context.Context, name string, p driver.Payload) (driver.Version, error) {
	if err := s.prepare(ctx, name, p.Labels); err != nil {
		return "", err
	}
	f := encode(p.Data)
	for number, tries := 0, 0; ; tries++ {
		v, sent, err := s.commit(ctx, name, number, f)
		if !errors.Is(err, driver.ErrConflict) || tries == driverkit.Width {
			return v, err
		}
		st, err := s.newestAfter(ctx, name, number)
		if err != nil {
			return "", err
		}
		if st.number > number {
			if v, err := s.won(ctx, name, number+1, st, sent, f); err != nil || v != "" {
				return v, err
			}
		}
		if !errors.Is(st.err, driver.ErrNotFound) {
			return "", fmt.Errorf("%w: %s", driver.ErrExists, s.data(name))
		}
		number = st.number
	}
}

// prepare checks that the engine is suitable for writes, and adds the index entries of the
// secret for labels.
func (s *secrets) prepare(ctx context.Context, name string, labels []driver.Label) error {
	if err := s.writes(ctx); err != nil {
		return err
	}
	return s.attach(ctx, name, labels)
}

// won finds out whether Vault applied a write before it refused a repetition of that write. The
// client or a proxy may have repeated the write after a failure. won returns the version that the
// write created, or "" if the write was not applied. The parameter number is the number of the
// version that the write creates. The parameter now is the newest state, or the zero state if the
// caller has not read the newest state. The parameter sent is the count that commit returned.
//
// If other writers have written in the meantime, Vault may have removed the version that the write
// created. In this case, the write was not applied if the count is 1. Otherwise the outcome is
// unknown, and the error matches ErrUnavailable.
func (s *secrets) won(ctx context.Context, name string, number int, now state, sent int64, f field) (driver.Version, error) {
	if now.number != number {
		if now.number > number && sent == 1 {
			return "", nil
		}
		var err error
		if now, err = s.read(ctx, name, number, true); err != nil {
			return "", err
		}
	}
	switch gone := errors.Is(now.err, driver.ErrNotFound) && now.tombstone == ""; {
	case now.holds(f):
		return now.version, nil
	case gone && sent != 1:
		return "", fmt.Errorf("%w: %s: whether the write was applied before it was repeated cannot be seen any more",
			driver.ErrUnavailable, s.data(name))
	}
	return "", nil
}

// Update implements driver.Secrets.
func (s *secrets) Update(ctx context.Context, name string, base driver.Secret, p driver.Payload) (driver.Version, error) {
	number, _, ok := parse(base.Version)
	if !ok {
		return "", fmt.Errorf("%w: the base has no version", driver.ErrConflict)
	}
	if err := s.prepare(ctx, name, driverkit.Without(p.Labels, base.Labels)); err != nil {
		return "", err
	}
	var removal sync.WaitGroup
	defer removal.Wait()
	removal.Go(func() { s.unlabel(ctx, name, driverkit.Without(base.Former, slices.Concat(p.Labels, p.Former))) })
	f := encode(p.Data)
	v, sent, err := s.commit(ctx, name, number, f)
	if errors.Is(err, driver.ErrConflict) {
		mine, unknown := s.won(ctx, name, number+1, state{}, sent, f)
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
	s.unlabel(ctx, name, driverkit.Without(base.Labels, slices.Concat(p.Labels, p.Former)))
	return v, nil
}

// unlabel removes index entries, and ignores failures, because remaining entries do no harm.
func (s *secrets) unlabel(ctx context.Context, name string, labels []driver.Label) {
	ctx, cancel := context.WithTimeout(ctx, cleanup)
	defer cancel()
	_ = driverkit.Each(ctx, labels, func(ctx context.Context, l driver.Label) error {
		_ = s.detach(ctx, name, l)
		return ctx.Err()
	})
}

// Delete implements driver.Secrets. Delete writes a tombstone as the secret's last version. If
// Delete removed the whole secret, Vault would number new versions from 1 again. An Update over
// the old version 1 would then replace the new version 1.
func (s *secrets) Delete(ctx context.Context, name string, base driver.Secret) error {
	if err := s.prepare(ctx, name, nil); err != nil {
		return err
	}
	tombstone := field{fieldDeleted, rand.Text()}
	err, sent := fmt.Errorf("%w: the base has no version", driver.ErrConflict), int64(0)
	number, _, ok := parse(base.Version)
	if !ok {
		number = -1 // newestAfter accepts any state
	} else if _, sent, err = s.commit(ctx, name, number, tombstone); err == nil {
		return s.clear(ctx, name, number, slices.Concat(base.Labels, base.Former))
	}
	if !errors.Is(err, driver.ErrConflict) {
		return err
	}
	st, unread := s.newestAfter(ctx, name, number)
	switch {
	case unread != nil:
		return unread
	case st.holds(tombstone):
		return s.clear(ctx, name, number, slices.Concat(base.Labels, base.Former))
	case st.tombstone != "":
		// Another process has deleted the record, and may not have destroyed the earlier
		// versions. That process removes the index entries.
		return s.clear(ctx, name, st.number-1, nil)
	case errors.Is(st.err, driver.ErrNotFound):
		return nil
	case !ok || st.number <= number:
		return err
	}
	switch mine, unknown := s.won(ctx, name, number+1, st, sent, tombstone); {
	case unknown != nil:
		return unknown
	case mine == "":
		return err
	}
	return s.clear(ctx, name, number, nil) // a later record with this name may need the index entries
}

// clear removes the index entries for labels of a deleted secret, and destroys the secret's
// versions up to and including the number last.
func (s *secrets) clear(ctx context.Context, name string, last int, labels []driver.Label) error {
	var work sync.WaitGroup
	defer work.Wait()
	if len(labels) > 0 {
		work.Go(func() { s.unlabel(ctx, name, labels) })
	}
	if err := s.destroyUpTo(ctx, name, last); err != nil {
		return fmt.Errorf("deleted, but its earlier versions are still there: %w", err)
	}
	return nil
}

// destroyUpTo destroys the versions of a secret up to and including the number last.
func (s *secrets) destroyUpTo(ctx context.Context, name string, last int) error {
	var versions []int
	first := 1
	if last > fewVersions {
		v, err := s.describe(ctx, name)
		switch {
		case errors.Is(err, driver.ErrNotFound):
			return nil
		case err != nil:
			return err
		}
		versions, first = v.kept(last+1), v.Current+1 // a lagging node does not list the versions after Current
	}
	for n := first; n <= last; n++ {
		versions = append(versions, n)
	}
	if len(versions) == 0 {
		return nil
	}
	return s.destroy(ctx, name, versions...)
}

// Lookup implements driver.Secrets.
func (s *secrets) Lookup(ctx context.Context, any []driver.Label) iter.Seq2[driver.Named, error] {
	return driverkit.Seq(func(yield func(driver.Named, error) bool) error {
		var folders, names []string
		for _, l := range any {
			folders = append(folders, s.folder(l))
		}
		slices.Sort(folders)
		for keys, err := range driverkit.Fetch(ctx, slices.Compact(folders), s.list) {
			if err != nil {
				return err
			}
			for _, k := range keys {
				if name, _, ok := parseEntry(k); ok {
					names = append(names, name)
				}
			}
		}
		slices.Sort(names)
		s.fetch(ctx, slices.Compact(names))(yield)
		return nil
	})
}

// List implements driver.Secrets.
func (s *secrets) List(ctx context.Context) iter.Seq2[driver.Named, error] {
	return driverkit.Seq(func(yield func(driver.Named, error) bool) error {
		names, err := s.names(ctx)
		if err == nil {
			s.fetch(ctx, names)(yield)
		}
		return err
	})
}

func (s *secrets) fetch(ctx context.Context, names []string) iter.Seq2[driver.Named, error] {
	return driverkit.FetchListed(ctx, names, wrongEngine, func(ctx context.Context, name string) (driver.Named, error) {
		st, err := s.read(ctx, name, 0, s.listLag == 0)
		named := driver.Named{Name: name}
		if err == nil {
			named.Secret, err = st.secret()
		}
		return named, err
	})
}

// Names implements driver.Secrets.
func (s *secrets) Names(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		names, err := s.names(ctx)
		if err == nil && len(names) > 0 {
			err = s.reads(ctx) // an engine of KV version 1 can list names, too
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

// Close implements driver.Secrets.
func (s *secrets) Close() error { return nil }
