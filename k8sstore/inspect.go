package k8sstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/driverkit"
)

var _ driver.Inspector = (*secrets)(nil)

// Inspect implements driver.Inspector. Inspect makes the same calls as List.
func (s *secrets) Inspect(ctx context.Context) iter.Seq2[driver.Inspection, error] {
	return driverkit.Seq(func(yield func(driver.Inspection, error) bool) error {
		return s.list(ctx, s.all(), func(o *object) bool {
			return yield(driver.Inspection{Name: s.short(o.Name), Labels: labelsOf(o.Labels), Faults: faults(o)}, nil)
		})
	})
}

// faults returns a fault if the Secret is being deleted, and otherwise nil.
func faults(o *object) []driver.Fault {
	if o.DeletionTimestamp == nil {
		return nil
	}
	return []driver.Fault{{
		Kind: driver.FaultDeleted,
		Detail: fmt.Sprintf("it was deleted on %s, and the finalizers %q hold it; Kubernetes removes it when they are gone",
			o.DeletionTimestamp.UTC().Format(time.RFC3339), o.Finalizers),
	}}
}

// Present implements driver.Inspector.
func (s *secrets) Present(ctx context.Context, name string, labels []driver.Label) ([]driver.Label, error) {
	o, err := s.get(ctx, name)
	if err != nil {
		return nil, present(err)
	}
	return slices.DeleteFunc(slices.Clone(labels), func(l driver.Label) bool {
		_, there := o.Labels[labelKey(l)]
		return !there
	}), nil
}

// Unlabel implements driver.Inspector.
func (s *secrets) Unlabel(ctx context.Context, name string, labels []driver.Label) error {
	o, err := s.get(ctx, name)
	if err != nil {
		return present(err)
	}
	change := patch{labels: map[string]*string{}}
	for _, l := range labels {
		change.labels[labelKey(l)] = nil
	}
	_, _, err = s.patch(ctx, name, o.UID, o.ResourceVersion, change)
	return present(err)
}

// Probe implements driver.Inspector. Probe makes only reads and dry runs. Kubernetes checks
// permissions before it looks for the Secret, and a dry run needs the same permissions as the
// call itself.
func (s *secrets) Probe(ctx context.Context) iter.Seq2[driver.Probed, error] {
	name, none := "tokenkeepprobe"+strings.ToLower(rand.Text()), "none"
	probe := func(call, verb string, do func(context.Context) error) driverkit.Probe {
		return driverkit.Probe{Call: call, Needs: fmt.Sprintf("the verb %q on secrets in the namespace %q", verb, s.namespace), Do: do}
	}
	return driverkit.Probes(ctx, []driverkit.Probe{
		probe("the LIST of the Secrets", "list", func(ctx context.Context) error {
			return s.list(ctx, s.all(), func(*object) bool { return false })
		}),
		probe("the GET of a Secret", "get", func(ctx context.Context) error { _, err := s.get(ctx, name); return err }),
		probe("the POST of a Secret", "create", func(ctx context.Context) error {
			_, _, err := s.create(ctx, name, driver.Payload{Data: []byte(none)}, metav1.DryRunAll)
			return err
		}),
		probe("the PATCH of a Secret", "patch", func(ctx context.Context) error {
			_, _, err := s.patch(ctx, name, "none", "1", patch{}, metav1.DryRunAll)
			return err
		}),
		probe("the DELETE of a Secret", "delete", func(ctx context.Context) error {
			_, err := s.remove(ctx, name, "none", "1", metav1.DryRunAll)
			if errors.Is(err, driver.ErrNotFound) {
				return nil
			}
			return err
		}),
	})
}
