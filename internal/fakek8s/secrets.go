package fakek8s

import (
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"reflect"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

var (
	secrets    = v1.Resource("secrets")
	secretKind = v1.SchemeGroupVersion.WithKind("Secret").GroupKind()
)

// textLocked is the text of a conflict (apiserver: pkg/registry/generic/registry/store.go,
// OptimisticLockErrorMsg).
const textLocked = "the object has been modified; please apply your changes to the latest version and try again"

// current returns a copy of the Secret that a request names, or a NotFound error.
func (s *Server) current(q *Request) (*v1.Secret, error) {
	if o := s.at(q.Namespace+"/"+q.Name, s.revision); o != nil {
		return o.DeepCopy(), nil
	}
	return nil, apierrors.NewNotFound(secrets, q.Name)
}

func (s *Server) get(q *Request) (runtime.Object, error) {
	o, err := s.current(q)
	if err != nil {
		return nil, err
	}
	return o, nil
}

func (s *Server) create(q *Request) (runtime.Object, error) {
	o := &v1.Secret{}
	if err := s.decode(q, o); err != nil {
		return nil, err
	}
	if err := s.admit(q, o.Name); err != nil {
		return nil, err
	}
	if err := s.begin(q, o); err != nil {
		return nil, err
	}
	if errs := validate(o); len(errs) > 0 {
		return nil, apierrors.NewInvalid(secretKind, o.Name, errs)
	}
	key := q.Namespace + "/" + o.Name
	if there := s.at(key, s.revision); there != nil {
		err := apierrors.NewAlreadyExists(secrets, o.Name)
		if there.DeletionTimestamp != nil {
			err.ErrStatus.Message = "object is being deleted: " + err.ErrStatus.Message // apiserver: pkg/registry/generic/registry/store.go
		}
		return nil, err
	}
	if !dry(q) {
		s.put(key, o)
	}
	return o, nil
}

// admit refuses a creation in a namespace that does not exist or is being deleted
// (apiserver: pkg/admission/plugin/namespace/lifecycle/admission.go).
func (s *Server) admit(q *Request, name string) error {
	switch deleted, exists := s.namespaces[q.Namespace]; {
	case !exists:
		return apierrors.NewNotFound(v1.Resource("namespaces"), q.Namespace)
	case deleted:
		err := apierrors.NewForbidden(secrets, name, fmt.Errorf("unable to create new content in namespace %s because it is being terminated", q.Namespace))
		err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes, metav1.StatusCause{
			Type: v1.NamespaceTerminatingCause, Message: fmt.Sprintf("namespace %s is being terminated", q.Namespace), Field: "metadata.namespace",
		})
		return err
	}
	return nil
}

// begin initializes o as a new Secret. If a field of o does not allow the creation, begin
// returns an error.
func (s *Server) begin(q *Request, o *v1.Secret) error {
	switch {
	case o.GenerateName != "":
		return apierrors.NewBadRequest("generated names are not served")
	case o.Namespace != "" && o.Namespace != q.Namespace:
		return apierrors.NewBadRequest("the namespace of the provided object does not match the namespace sent on the request")
	case o.ResourceVersion != "":
		// The API server sends status 500 for this error (apiserver: pkg/storage/errors.go).
		return &apierrors.StatusError{ErrStatus: metav1.Status{
			Status: metav1.StatusFailure, Code: http.StatusInternalServerError, Message: "resourceVersion should not be set on objects to be created",
		}}
	}
	o.Namespace, o.UID, o.CreationTimestamp = q.Namespace, uuid.NewUUID(), metav1.NewTime(s.Now().Truncate(1e9))
	o.DeletionTimestamp, o.DeletionGracePeriodSeconds, o.ManagedFields, o.Generation = nil, nil, nil, 0
	complete(o)
	return nil
}

// complete sets the default type of a Secret (core: pkg/apis/core/v1/defaults.go), and
// merges stringData into data (core: pkg/apis/core/v1/conversion.go).
func complete(o *v1.Secret) {
	if o.Type == "" {
		o.Type = v1.SecretTypeOpaque
	}
	for key, value := range o.StringData {
		if o.Data == nil {
			o.Data = map[string][]byte{}
		}
		o.Data[key] = []byte(value)
	}
	o.StringData = nil
}

// validate returns the errors of an invalid Secret (core: pkg/apis/core/validation,
// ValidateSecret).
func validate(o *v1.Secret) field.ErrorList {
	errs := validation.ValidateObjectMeta(&o.ObjectMeta, true, validation.NameIsDNSSubdomain, field.NewPath("metadata"))
	size, path := 0, field.NewPath("data")
	for key, value := range o.Data {
		for _, text := range utilvalidation.IsConfigMapKey(key) {
			errs = append(errs, field.Invalid(path.Key(key), key, text))
		}
		size += len(value)
	}
	if size > v1.MaxSecretSize {
		errs = append(errs, field.TooLong(path, "", v1.MaxSecretSize))
	}
	return errs
}

func (s *Server) change(q *Request) (runtime.Object, error) {
	old, err := s.current(q)
	if err != nil {
		return nil, err
	}
	next := &v1.Secret{}
	if q.Verb == "patch" {
		next, err = patched(old, q)
	} else {
		err = s.decode(q, next)
	}
	if err != nil {
		return nil, err
	}
	// The UID in an update is a precondition (apiserver: pkg/endpoints/handlers/patch.go and
	// update.go).
	switch {
	case next.Name != q.Name:
		return nil, apierrors.NewBadRequest("the name of the object does not match the name on the URL")
	case q.Verb == "update" && next.UID != "" && next.UID != old.UID:
		//nolint:staticcheck // The text is that of kube-apiserver.
		return nil, apierrors.NewConflict(secrets, q.Name, fmt.Errorf("Precondition failed: UID in precondition: %s, UID in object meta: %s", next.UID, old.UID))
	case next.ResourceVersion != "" && next.ResourceVersion != old.ResourceVersion:
		return nil, apierrors.NewConflict(secrets, q.Name, errors.New(textLocked))
	}
	next.ResourceVersion = old.ResourceVersion
	complete(next)
	if q.Verb == "update" {
		next.UID, next.Namespace, next.CreationTimestamp = old.UID, old.Namespace, old.CreationTimestamp
		next.DeletionTimestamp, next.DeletionGracePeriodSeconds = old.DeletionTimestamp, old.DeletionGracePeriodSeconds
	}
	errs := validation.ValidateObjectMetaUpdate(&next.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
	errs = append(errs, validation.ValidateImmutableField(next.Type, old.Type, field.NewPath("type"))...)
	if old.Immutable != nil && *old.Immutable && !reflect.DeepEqual(next.Data, old.Data) {
		errs = append(errs, field.Forbidden(field.NewPath("data"), "field is immutable when `immutable` is set"))
	}
	if errs = append(errs, validate(next)...); len(errs) > 0 {
		return nil, apierrors.NewInvalid(secretKind, q.Name, errs)
	}
	key := q.Namespace + "/" + q.Name
	switch {
	case dry(q), equality.Semantic.DeepEqual(next, old): // apiserver: pkg/storage/etcd3/store.go: nothing is written in this case
	case next.DeletionTimestamp != nil && len(next.Finalizers) == 0:
		s.drop(key)
	default:
		s.put(key, next)
	}
	return next, nil
}

// patched returns a copy of old, changed by the merge patch in a request (RFC 7396).
func patched(old *v1.Secret, q *Request) (*v1.Secret, error) {
	kind, _, _ := mime.ParseMediaType(q.Header.Get("Content-Type"))
	if kind != string(types.MergePatchType) {
		return nil, apierrors.NewGenericServerResponse(http.StatusUnsupportedMediaType, "patch", secrets, q.Name, "only merge patches are served", 0, false)
	}
	text, err := json.Marshal(old)
	if err != nil {
		return nil, err
	}
	var there, change map[string]any
	if err := errors.Join(json.Unmarshal(text, &there), json.Unmarshal(q.Body, &change)); err != nil {
		return nil, apierrors.NewBadRequest("error decoding patch")
	}
	merge(there, change)
	next := &v1.Secret{}
	if text, err = json.Marshal(there); err == nil {
		err = json.Unmarshal(text, next)
	}
	if err != nil {
		return nil, apierrors.NewBadRequest("the patched object is not a Secret")
	}
	return next, nil
}

func merge(there, change map[string]any) {
	for key, value := range change {
		inner, isObject := value.(map[string]any)
		switch {
		case value == nil:
			delete(there, key)
		case isObject:
			into, ok := there[key].(map[string]any)
			if !ok {
				into = map[string]any{}
			}
			merge(into, inner)
			there[key] = into
		default:
			there[key] = value
		}
	}
}

// delete removes a Secret without finalizers. If the Secret has finalizers, delete only sets the
// time of the deletion (docs: concepts/overview/working-with-objects/finalizers).
func (s *Server) delete(q *Request) (runtime.Object, error) {
	var options metav1.DeleteOptions
	if err := s.decode(q, &options); err != nil {
		return nil, err
	}
	o, err := s.current(q)
	if err != nil {
		return nil, err
	}
	if p := options.Preconditions; p != nil { // apiserver: pkg/registry/rest/delete.go; the error names the kind, not the resource
		conflict := func(text string, args ...any) error {
			return apierrors.NewConflict(v1.Resource("Secret"), q.Name, fmt.Errorf(text, args...))
		}
		switch {
		case p.UID != nil && *p.UID != o.UID:
			return nil, conflict("the UID in the precondition (%s) does not match the UID in record (%s). The object might have been deleted and then recreated", *p.UID, o.UID)
		case p.ResourceVersion != nil && *p.ResourceVersion != o.ResourceVersion:
			return nil, conflict("the ResourceVersion in the precondition (%s) does not match the ResourceVersion in record (%s). The object might have been modified", *p.ResourceVersion, o.ResourceVersion)
		}
	}
	key := q.Namespace + "/" + q.Name
	switch {
	case dry(q) || len(options.DryRun) > 0:
	case len(o.Finalizers) == 0:
		s.drop(key)
	case o.DeletionTimestamp == nil:
		now, grace := metav1.NewTime(s.Now().Truncate(1e9)), int64(0)
		o.DeletionTimestamp, o.DeletionGracePeriodSeconds = &now, &grace
		s.put(key, o)
		return o, nil
	}
	return &metav1.Status{
		Status:  metav1.StatusSuccess,
		Details: &metav1.StatusDetails{Kind: secrets.Resource, Name: o.Name, UID: o.UID},
	}, nil
}

// decode decodes the body of q into an object. An empty body leaves the object unchanged.
func (s *Server) decode(q *Request, into runtime.Object) error {
	if len(q.Body) == 0 {
		return nil
	}
	kind, _, err := mime.ParseMediaType(q.Header.Get("Content-Type"))
	info, known := runtime.SerializerInfoForMediaType(codecs().SupportedMediaTypes(), kind)
	if err != nil || !known {
		return apierrors.NewGenericServerResponse(http.StatusUnsupportedMediaType, strings.ToLower(q.Verb), secrets, q.Name, "the body of the request was in an unknown format", 0, false)
	}
	if _, _, err := codecs().DecoderToVersion(info.Serializer, v1.SchemeGroupVersion).Decode(q.Body, nil, into); err != nil {
		return apierrors.NewBadRequest("the body cannot be decoded")
	}
	return nil
}
