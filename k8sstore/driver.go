package k8sstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/driverkit"
)

// maxSize is the maximum size of a record, in bytes. It equals the limit of AWS Secrets Manager, so
// that records can move between services. (On Google Cloud, a record can have 28 bytes fewer.)
// Kubernetes itself accepts 1 MiB.
const maxSize = 64 << 10

// patience is the maximum time for which Create waits while an earlier Secret with the same name is
// being deleted.
const patience = 30 * time.Second

// secrets implements driver.Secrets.
type secrets struct {
	api                 Secrets
	namespace, prefix   string
	labels, annotations map[string]string // added to every Secret
	owner               *metav1.OwnerReference
}

var _ driver.Secrets = (*secrets)(nil)

// Format prints only the type of s. Without Format, package fmt would print the fields of the
// client.
func (s *secrets) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "*k8sstore.secrets") }

// Properties implements driver.Secrets.
func (s *secrets) Properties() driver.Properties {
	return driver.Properties{Name: "k8sstore", Place: "k8sstore/" + s.namespace + "/" + s.prefix, MaxSize: maxSize}
}

// Get implements driver.Secrets. The request contains no resource version, so the server
// returns the newest state.
func (s *secrets) Get(ctx context.Context, name string) (driver.Secret, error) {
	st, err := s.read(ctx, name)
	if err != nil {
		return driver.Secret{}, err
	}
	return st.secret()
}

// Fresh implements driver.Secrets. Get always returns the newest state.
func (s *secrets) Fresh(ctx context.Context, name string, _ driver.Secret) (driver.Secret, error) {
	return s.Get(ctx, name)
}

// Create implements driver.Secrets. Create waits up to 30 seconds while a Secret with that name
// is being deleted but still has a finalizer. If the Secret remains, the error matches
// ErrUnavailable.
func (s *secrets) Create(ctx context.Context, name string, p driver.Payload) (v driver.Version, err error) {
	wait := driverkit.Backoff{Pause: 50 * time.Millisecond, Longest: time.Second, Patience: patience}
	ended, unready := wait.Until(ctx, func() (bool, error) {
		var sent int64
		if v, sent, err = s.create(ctx, name, p); !errors.Is(err, driver.ErrExists) {
			return true, nil
		}
		now, unread := s.read(ctx, name)
		switch gone := errors.Is(unread, driver.ErrNotFound); {
		case gone && sent <= 1:
			return false, nil // the earlier Secret has been deleted, or is being deleted
		case unread != nil && !gone:
			err = unread
		case !gone && bytes.Equal(now.data, p.Data):
			v, err = now.version, nil // the client has repeated a write that had been applied
		case sent > 1:
			err = s.unknown(name)
		}
		return true, nil
	})
	switch {
	case unready != nil:
		return "", unready
	case !ended:
		return "", fmt.Errorf("%w: Secret %q is being deleted, and a finalizer holds it", driver.ErrUnavailable, s.full(name))
	}
	return v, err
}

// unknown returns an error matching ErrUnavailable for a write that the server refused after the
// client repeated the write. An earlier attempt may have been applied, and another process may then
// have changed or deleted the Secret.
func (s *secrets) unknown(name string) error {
	return fmt.Errorf("%w: Secret %q: whether the write was applied before it was repeated cannot be seen", driver.ErrUnavailable, s.full(name))
}

// Update implements driver.Secrets. The server compares the UID and the resource version, and
// changes data and labels together.
func (s *secrets) Update(ctx context.Context, name string, base driver.Secret, p driver.Payload) (driver.Version, error) {
	uid, revision, ok := parse(base.Version)
	if !ok {
		return "", fmt.Errorf("%w: the base has no version", driver.ErrConflict)
	}
	change := patch{labels: map[string]*string{}, annotations: pointers(s.annotations), data: p.Data}
	for _, l := range driverkit.Without(base.Labels, p.Labels) {
		change.labels[labelKey(l)] = nil
	}
	maps.Copy(change.labels, pointers(s.labelsFor(p.Labels)))
	v, sent, err := s.patch(ctx, name, uid, revision, change)
	if sent <= 1 || !errors.Is(err, driver.ErrConflict) && !errors.Is(err, driver.ErrNotFound) {
		return v, err
	}
	now, unread := s.read(ctx, name)
	switch {
	case unread == nil && bytes.Equal(now.data, p.Data):
		return now.version, nil // the client has repeated a write that had been applied
	case unread != nil && !errors.Is(unread, driver.ErrNotFound):
		return "", unread
	}
	return "", s.unknown(name)
}

// Delete implements driver.Secrets.
func (s *secrets) Delete(ctx context.Context, name string, base driver.Secret) error {
	uid, revision, ok := parse(base.Version)
	if !ok {
		_, err := s.read(ctx, name)
		if err == nil {
			err = fmt.Errorf("%w: the base has no version", driver.ErrConflict)
		}
		return present(err)
	}
	sent, err := s.remove(ctx, name, uid, revision)
	if errors.Is(err, driver.ErrConflict) && sent > 1 {
		err = s.unknown(name)
	}
	return present(err)
}

// present returns nil if err means that the Secret does not exist, and otherwise err.
func present(err error) error {
	if errors.Is(err, driver.ErrNotFound) {
		return nil
	}
	return err
}

// Lookup implements driver.Secrets. A label selector cannot select the Secrets that have at least
// one of several keys, so each label requires a separate list.
func (s *secrets) Lookup(ctx context.Context, any []driver.Label) iter.Seq2[driver.Named, error] {
	return driverkit.Seq(func(yield func(driver.Named, error) bool) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		keys := make([]string, 0, len(any))
		for _, l := range any {
			keys = append(keys, labelKey(l))
		}
		slices.Sort(keys)
		seen := map[string]bool{}
		for all, err := range driverkit.Fetch(ctx, slices.Compact(keys), s.carrying) {
			if err != nil {
				return err
			}
			for _, o := range all {
				named, err := s.named(o)
				if seen[named.Name] || errors.Is(err, driver.ErrNotFound) {
					continue
				}
				if seen[named.Name] = true; !yield(named, err) {
					return nil
				}
			}
		}
		return nil
	})
}

// List implements driver.Secrets.
func (s *secrets) List(ctx context.Context) iter.Seq2[driver.Named, error] {
	return driverkit.Seq(func(yield func(driver.Named, error) bool) error {
		return s.list(ctx, s.all(), func(o *object) bool {
			named, err := s.named(o)
			return errors.Is(err, driver.ErrNotFound) || yield(named, err)
		})
	})
}

// Names implements driver.Secrets.
func (s *secrets) Names(ctx context.Context) iter.Seq2[string, error] {
	return driverkit.Seq(func(yield func(string, error) bool) error {
		return s.list(ctx, s.all(), func(o *object) bool { return yield(s.short(o.Name), nil) })
	})
}

// Close implements driver.Secrets. There is nothing to release.
func (s *secrets) Close() error { return nil }
