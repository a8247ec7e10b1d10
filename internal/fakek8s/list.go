package fakek8s

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
)

// A moment is the state of a Secret from a revision until the revision of the next moment.
type moment struct {
	revision int64
	secret   *v1.Secret // nil if the Secret did not exist
}

// put makes o the current state of a Secret, and drop removes a Secret. Revisions count
// the writes of the whole server (docs: reference/using-api/api-concepts, "Resource
// versions").
func (s *Server) put(key string, o *v1.Secret) {
	s.revision++
	o.ResourceVersion = strconv.FormatInt(s.revision, 10)
	s.past[key] = append(s.past[key], moment{s.revision, o.DeepCopy()})
}

func (s *Server) drop(key string) {
	s.revision++
	s.past[key] = append(s.past[key], moment{s.revision, nil})
}

// at returns the state of a Secret at a revision, or nil if the Secret did not exist at that
// revision.
func (s *Server) at(key string, revision int64) *v1.Secret {
	for _, m := range slices.Backward(s.past[key]) {
		if m.revision <= revision {
			return m.secret
		}
	}
	return nil
}

// A position is the point at which a list continues (apiserver: pkg/storage/continue.go).
type position struct {
	Version  string `json:"v"`
	Revision int64  `json:"rv"` // -1 means the current state
	Start    string `json:"start"`
}

const positionVersion = "meta.k8s.io/v1"

func (p position) token() string {
	text, _ := json.Marshal(p) // strings and numbers always marshal
	return base64.RawURLEncoding.EncodeToString(text)
}

// textExpired is the message for a continue token of a compacted revision (apiserver:
// pkg/storage/etcd3/errors.go).
const textExpired = "The provided continue parameter is too old to display a consistent list result. You can start a new list without " +
	"the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the " +
	"provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk " +
	"was returned and now may show up in the list."

// position returns the point at which the list in a request begins or continues. If the
// revision of a continue token was compacted, the error contains a new token, with which the list
// continues in the current state.
func (s *Server) position(q *Request) (position, error) {
	p := position{Version: positionVersion, Revision: s.revision}
	if text := q.Query.Get("continue"); text != "" {
		data, err := base64.RawURLEncoding.DecodeString(text)
		if err != nil || json.Unmarshal(data, &p) != nil || p.Version != positionVersion || p.Start == "" {
			return p, apierrors.NewBadRequest("continue key is not valid")
		}
	}
	switch {
	case p.Revision < 0:
		p.Revision = s.revision
	case p.Revision < s.compacted:
		err := apierrors.NewResourceExpired(textExpired)
		err.ErrStatus.Continue = position{positionVersion, -1, p.Start}.token()
		return p, err
	}
	return p, nil
}

// list returns the Secrets that match the request, sorted by name, up to the limit in the request.
func (s *Server) list(q *Request) (runtime.Object, error) {
	match, err := selectors(q)
	if err != nil {
		return nil, err
	}
	limit, err := strconv.Atoi(q.Query.Get("limit"))
	if q.Query.Get("limit") != "" && (err != nil || limit < 0) {
		return nil, apierrors.NewBadRequest("limit is not a number")
	}
	p, err := s.position(q)
	if err != nil {
		return nil, err
	}
	names := s.names(q.Namespace)
	slices.Sort(names)
	l := &v1.SecretList{ListMeta: metav1.ListMeta{ResourceVersion: strconv.FormatInt(p.Revision, 10)}}
	for _, name := range names {
		o := s.at(q.Namespace+"/"+name, p.Revision)
		if o == nil || name < p.Start || !match(o) {
			continue
		}
		if limit > 0 && len(l.Items) == limit {
			l.Continue = position{positionVersion, p.Revision, l.Items[limit-1].Name + "\x00"}.token()
			break
		}
		l.Items = append(l.Items, *o.DeepCopy())
	}
	return l, nil
}

// selectors returns a predicate for the selectors of a list.
func selectors(q *Request) (func(*v1.Secret) bool, error) {
	byLabel, err := labels.Parse(q.Query.Get("labelSelector"))
	if err != nil {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("unable to parse requirement: %v", err))
	}
	byField, err := fields.ParseSelector(q.Query.Get("fieldSelector"))
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	// core: pkg/registry/core/secret/strategy.go, SelectableFields
	for _, r := range byField.Requirements() {
		if !slices.Contains([]string{"type", "metadata.name", "metadata.namespace"}, r.Field) {
			return nil, apierrors.NewBadRequest("field label not supported: " + r.Field)
		}
	}
	return func(o *v1.Secret) bool {
		of := fields.Set{"type": string(o.Type), "metadata.name": o.Name, "metadata.namespace": o.Namespace}
		return byLabel.Matches(labels.Set(o.Labels)) && byField.Matches(of)
	}, nil
}
