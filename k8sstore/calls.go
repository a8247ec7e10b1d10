package k8sstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptrace"
	"sync/atomic"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// manager identifies this package in the managed fields of a Secret.
const manager = "tokenkeep"

// page is the maximum number of Secrets in one page of a list.
const page = 500

// counting returns a context and a counter of the requests that are sent with that context. The
// counter exceeds 1 if the client has repeated a request, for example after a response with a
// Retry-After header.
func counting(ctx context.Context) (context.Context, *atomic.Int64) {
	sent := new(atomic.Int64)
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteHeaders: func() { sent.Add(1) }}), sent
}

// get returns the named Secret, even if the Secret is being deleted.
func (s *secrets) get(ctx context.Context, name string) (*object, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	o, err := s.api.Get(ctx, s.full(name), metav1.GetOptions{})
	if err != nil {
		return nil, callError(ctx, "GET Secret "+s.full(name), err, nil)
	}
	return o, nil
}

// read returns the state of the named Secret. The error matches ErrNotFound if the Secret does
// not exist or is being deleted.
func (s *secrets) read(ctx context.Context, name string) (state, error) {
	o, err := s.get(ctx, name)
	if err == nil && o.DeletionTimestamp != nil {
		err = fmt.Errorf("%w: Secret %q is being deleted", driver.ErrNotFound, o.Name)
	}
	if err != nil {
		return state{}, err
	}
	return decode(o), nil
}

// create creates the named Secret. create returns the version of the Secret, and the number of
// times that the client sent the request. options are the values of CreateOptions.DryRun.
func (s *secrets) create(ctx context.Context, name string, p driver.Payload, options ...string) (driver.Version, int64, error) {
	if err := ctx.Err(); err != nil {
		return "", 0, err
	}
	traced, sent := counting(ctx)
	o, err := s.api.Create(traced, s.encode(name, p), metav1.CreateOptions{FieldManager: manager, DryRun: options})
	if err != nil {
		return "", sent.Load(), callError(ctx, "POST Secret "+s.full(name), err, p.Data)
	}
	return version(o.UID, o.ResourceVersion), sent.Load(), nil
}

// A patch is a change to a Secret. A nil value in labels or annotations means that the key is
// removed. If data is nil, the data of the Secret stays unchanged.
type patch struct {
	labels, annotations map[string]*string
	data                []byte
}

// patch changes a Secret if the Secret has the given UID and revision. patch returns the new
// version and the number of times that the client sent the request. The server preserves all
// parts that p does not mention, such as labels, owners and finalizers of other programs.
func (s *secrets) patch(ctx context.Context, name string, uid types.UID, revision string, p patch, options ...string) (driver.Version, int64, error) {
	if err := ctx.Err(); err != nil {
		return "", 0, err
	}
	type metadata struct {
		UID             types.UID          `json:"uid"`
		ResourceVersion string             `json:"resourceVersion"`
		Labels          map[string]*string `json:"labels,omitempty"`
		Annotations     map[string]*string `json:"annotations,omitempty"`
	}
	body := struct {
		Metadata metadata          `json:"metadata"`
		Data     map[string][]byte `json:"data,omitempty"`
	}{Metadata: metadata{uid, revision, p.labels, p.annotations}}
	if p.data != nil {
		body.Data = map[string][]byte{fieldRecord: p.data}
	}
	text, err := json.Marshal(body)
	if err != nil {
		return "", 0, errors.New("the change cannot be encoded") // the cause may quote the data
	}
	traced, sent := counting(ctx)
	o, err := s.api.Patch(traced, s.full(name), types.MergePatchType, text, metav1.PatchOptions{FieldManager: manager, DryRun: options})
	if err != nil {
		return "", sent.Load(), callError(ctx, "PATCH Secret "+s.full(name), err, p.data)
	}
	return version(o.UID, o.ResourceVersion), sent.Load(), nil
}

// remove deletes a Secret if the Secret has the given UID and revision. remove returns the
// number of times that the client sent the request.
func (s *secrets) remove(ctx context.Context, name string, uid types.UID, revision string, options ...string) (int64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	traced, sent := counting(ctx)
	err := s.api.Delete(traced, s.full(name), metav1.DeleteOptions{
		Preconditions: &metav1.Preconditions{UID: &uid, ResourceVersion: &revision}, DryRun: options,
	})
	if err != nil {
		return sent.Load(), callError(ctx, "DELETE Secret "+s.full(name), err, nil)
	}
	return sent.Load(), nil
}

// all returns list options that select the Secrets of records in the namespace by type.
// Kubernetes does not allow changing the type of a Secret.
func (s *secrets) all() metav1.ListOptions {
	return metav1.ListOptions{FieldSelector: "type=" + secretType}
}

// carrying returns the Secrets of the store that have a label with the given key.
func (s *secrets) carrying(ctx context.Context, key string) (found []*object, err error) {
	err = s.list(ctx, metav1.ListOptions{LabelSelector: key}, func(o *object) bool {
		found = append(found, o)
		return true
	})
	return found, err
}

// list calls use(o) for each Secret o that the options select, until a callback returns false. list
// skips Secrets of other programs and prefixes.
//
// The pages show the state at a single point in time for as long as etcd keeps that state: five
// minutes by default. After that time, the server continues with the current state, after the last
// name that it listed. A Secret that exists from the beginning to the end of the list is listed,
// and no name is listed twice.
func (s *secrets) list(ctx context.Context, options metav1.ListOptions, use func(*object) bool) error {
	options.Limit = page
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		l, err := s.api.List(ctx, options)
		if next := resume(err); next != "" && next != options.Continue {
			options.Continue = next
			continue
		}
		if err != nil {
			return callError(ctx, "LIST Secrets of "+s.namespace, err, nil)
		}
		for i := range l.Items {
			if err := ctx.Err(); err != nil {
				return err
			}
			if s.short(l.Items[i].Name) != "" && !use(&l.Items[i]) {
				return nil
			}
		}
		if l.Continue == "" {
			return nil
		}
		options.Continue = l.Continue
	}
}

// resume returns the token that continues the list if err means that etcd has removed the state
// of the list. For any other error, or a nil error, resume returns "".
func resume(err error) string {
	var answer *apierrors.StatusError
	if errors.As(err, &answer) && apierrors.IsResourceExpired(err) {
		return answer.ErrStatus.Continue
	}
	return ""
}
