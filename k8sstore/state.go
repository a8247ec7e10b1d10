package k8sstore

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/driverkit"
)

// An object is a Kubernetes Secret.
type object = v1.Secret

// The type, annotation and data item of a record's Secret.
const (
	secretType  = "tokenkeep.dev/record"      //nolint:gosec // a name, not a credential
	incarnation = "tokenkeep.dev/incarnation" // annotation with the Payload.Incarnation that was passed to Create
	fieldRecord = "record"                    // the only data item
)

// A label of a record is a label of the Secret, with the key
// "<digest>.tokenkeep.dev/<kind>.label" and an empty value. Nonces are not stored: labels
// change together with the data, so no writer removes a label that another writer needs.
const (
	labelDomain = ".tokenkeep.dev/"
	labelEnd    = ".label"
)

// A state is one version of a Secret.
type state struct {
	version     driver.Version
	data        []byte
	incarnation string
	err         error // the reason why data is nil; matches ErrCorrupt
}

// version returns the driver.Version for the UID of a Secret and the revision of etcd, which is a
// counter for the whole cluster.
func version(uid types.UID, revision string) driver.Version {
	return driver.Version(string(uid) + " " + revision)
}

func parse(v driver.Version) (uid types.UID, revision string, ok bool) {
	id, revision, _ := strings.Cut(string(v), " ")
	return types.UID(id), revision, id != "" && revision != ""
}

// encode returns the Secret for a new record.
func (s *secrets) encode(name string, p driver.Payload) *object {
	o := &object{
		ObjectMeta: metav1.ObjectMeta{Name: s.full(name), Namespace: s.namespace, Labels: s.labelsFor(p.Labels), Annotations: maps.Clone(s.annotations)},
		Type:       secretType,
		Data:       map[string][]byte{fieldRecord: p.Data},
	}
	if p.Incarnation != "" {
		if o.Annotations == nil {
			o.Annotations = map[string]string{}
		}
		o.Annotations[incarnation] = p.Incarnation
	}
	if s.owner != nil {
		o.OwnerReferences = []metav1.OwnerReference{*s.owner}
	}
	return o
}

// decode returns the state of a Secret. If the Secret does not have the form that this
// package writes, the state has no data, and its error matches ErrCorrupt.
func decode(o *object) state {
	st := state{version: version(o.UID, o.ResourceVersion), incarnation: o.Annotations[incarnation]}
	if data := o.Data[fieldRecord]; len(o.Data) == 1 && len(data) > 0 && o.Type == secretType {
		st.data = slices.Clone(data)
	} else {
		st.err = fmt.Errorf("%w: Secret %q does not hold one record", driver.ErrCorrupt, o.Name)
	}
	return st
}

func (st state) secret() (driver.Secret, error) {
	if st.err != nil {
		return driver.Secret{}, st.err
	}
	return driver.Secret{Payload: driver.Payload{Data: st.data, Incarnation: st.incarnation}, Version: st.version}, nil
}

// named converts the listed Secret o to a driver.Named. If o is being deleted, the error
// matches ErrNotFound.
func (s *secrets) named(o *object) (driver.Named, error) {
	named := driver.Named{Name: s.short(o.Name)}
	if o.DeletionTimestamp != nil {
		return named, fmt.Errorf("%w: Secret %q is being deleted", driver.ErrNotFound, o.Name)
	}
	var err error
	named.Secret, err = decode(o).secret()
	return named, err
}

// full returns the Kubernetes name of the Secret for the named record.
func (s *secrets) full(name string) string { return s.prefix + "-" + name }

// short returns the name of the record in the Secret with the given Kubernetes name. short returns
// "" if the Secret belongs to another program or prefix.
func (s *secrets) short(full string) string {
	name, ok := strings.CutPrefix(full, s.prefix+"-")
	if !ok || !driverkit.LegalName(name) {
		return ""
	}
	return name
}

// labelsFor returns the labels of a Secret: those of Options.Labels, and one for each of the
// given labels.
func (s *secrets) labelsFor(labels []driver.Label) map[string]string {
	all := maps.Clone(s.labels)
	if all == nil {
		all = map[string]string{}
	}
	for _, l := range labels {
		all[labelKey(l)] = ""
	}
	return all
}

func labelKey(l driver.Label) string { return l.Value + labelDomain + l.Key + labelEnd }

// labelsOf finds the labels of a record among the given labels of its Secret, and returns them
// without nonces.
func labelsOf(labels map[string]string) []driver.Label {
	var all []driver.Label
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		value, kind, ok := strings.Cut(key, labelDomain)
		if kind, ends := strings.CutSuffix(kind, labelEnd); ok && ends {
			all = append(all, driver.Label{Key: kind, Value: value})
		}
	}
	return all
}

// pointers returns a copy of m whose values are pointers.
func pointers(m map[string]string) map[string]*string {
	all := make(map[string]*string, len(m))
	for key, value := range m {
		all[key] = &value
	}
	return all
}
