package awssm_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/tokenkeep/tokenkeep/awssm"
	"github.com/tokenkeep/tokenkeep/internal/fakeaws"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/doctor"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// payload returns a payload with the labels of base and the labels in added. The driver chooses the
// nonces of the added labels.
func payload(t testing.TB, d driver.Secrets, base driver.Secret, text string, added ...driver.Label) driver.Payload {
	t.Helper()
	labels := d.(driver.Labeler).Relabel(name, base.Version, added)
	if len(labels) != len(added) {
		t.Fatalf("Relabel returns %d labels for %d", len(labels), len(added))
	}
	return driver.Payload{Data: []byte(text), Labels: slices.Concat(labels, base.Labels)}
}

func TestFailedWrite(t *testing.T) {
	t.Parallel()
	denied := fakeaws.Fault{Code: "AccessDeniedException", Message: "no"}
	for what, c := range map[string]struct {
		breaks func(e *env) // makes each write fail
		class  error
		most   int // maximum number of tags that 30 writes may leave, not counting the record's own tags
	}{
		"refused": {
			func(e *env) { e.server.Inject(on("PutSecretValue", 0, denied)) }, driver.ErrDenied, 0,
		},
		"refused by the key": {
			func(e *env) {
				e.server.Inject(on("PutSecretValue", 0, fakeaws.Fault{Code: "EncryptionFailure", Message: "KMS is throttling"}))
			}, driver.ErrUnavailable, 0,
		},
		"without an answer": {
			func(e *env) { e.server.Inject(on("PutSecretValue", 0, fakeaws.Fault{Drop: true})) }, driver.ErrUnavailable, 2,
		},
		"failed inside": {
			func(e *env) {
				e.server.Inject(on("PutSecretValue", 0, fakeaws.Fault{Code: "InternalServiceError", Status: 500}))
			}, driver.ErrUnavailable, 2,
		},
		"refused, and so are removals": {
			func(e *env) {
				e.server.Inject(func(q *fakeaws.Request) *fakeaws.Fault {
					if q.Operation == "PutSecretValue" || q.Operation == "UntagResource" {
						return &denied
					}
					return nil
				})
			}, driver.ErrDenied, 2,
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t, nil, nil)
			base := e.create("base", label("user", 'a', 'a'))
			c.breaks(e)
			for range 30 {
				_, err := e.Update(t.Context(), name, base, payload(t, e.Secrets, base, "next", label("refresh", 'b', 'x'), label("access", 'c', 'x')))
				is(t, "Update", err, c.class)
				if errors.Is(err, driver.ErrConflict) {
					t.Fatalf("Update returned %v", err)
				}
			}
			e.server.Inject(nil)
			if n := len(e.tags()) - 1; n > c.most {
				t.Errorf("30 writes that failed have left %d tags, want %d", n, c.most)
			}
			next := payload(t, e.Secrets, base, "next", label("refresh", 'b', 'x'), label("access", 'c', 'x'))
			v, err := e.Update(t.Context(), name, base, next)
			if err != nil {
				t.Fatal(err)
			}
			e.holds(driver.Secret{Payload: next, Version: v})
			if n := len(e.tags()); n != 3 {
				t.Errorf("the secret has %d tags, want the record's three", n)
			}
		})
	}
}

// TestFailedWriteThatSucceeded checks that the labels of a write stay if the write was applied
// but its response was lost. The next write over the same base uses the same labels, and fails
// without removing these labels.
func TestFailedWriteThatSucceeded(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil, nil, once)
	base := e.create("base")
	e.server.Inject(on("PutSecretValue", 1, fakeaws.Fault{Drop: true, Applied: true}))
	first := payload(t, e.Secrets, base, "first", label("user", 'a', 'x'))
	_, err := e.Update(t.Context(), name, base, first)
	is(t, "the first Update", err, driver.ErrUnavailable)
	second := payload(t, e.Secrets, base, "second", label("user", 'a', 'x'))
	if second.Labels[0] != first.Labels[0] {
		t.Errorf("the second write adds the label %v beside %v", second.Labels[0], first.Labels[0])
	}
	_, err = e.Update(t.Context(), name, base, second)
	is(t, "the second Update", err, driver.ErrConflict)
	now, err := e.Fresh(t.Context(), name, driver.Secret{})
	if err != nil || string(now.Data) != "first" {
		t.Fatalf("Fresh returns %q, %v", now.Data, err)
	}
	e.finds(first.Labels[0])
}

// TestFailedWriteRefusedAtLast checks that the labels of a write stay if an attempt of the
// client was applied and a later attempt is refused.
func TestFailedWriteRefusedAtLast(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil, nil)
	base := e.create("base")
	n := 0
	e.server.Inject(func(q *fakeaws.Request) *fakeaws.Fault {
		if q.Operation != "PutSecretValue" {
			return nil
		}
		if n++; n == 1 {
			return &fakeaws.Fault{Code: "InternalServiceError", Status: 500, Applied: true}
		}
		return &fakeaws.Fault{Code: "AccessDeniedException"}
	})
	next := payload(t, e.Secrets, base, "next", label("user", 'a', 'x'))
	_, err := e.Update(t.Context(), name, base, next)
	is(t, "Update", err, driver.ErrDenied)
	e.server.Inject(nil)
	e.finds(next.Labels[0])
}

func (e *env) finds(l driver.Label) {
	e.Helper()
	if n, err := all(e.Lookup(e.Context(), []driver.Label{l})); n != 1 || err != nil {
		e.Errorf("Lookup finds %d, error %v", n, err)
	}
}

// TestRivals checks that only the tag of the successful writer remains if several writers add
// the same label over one base. Three writers share a driver, as in one process, and two have
// separate drivers.
func TestRivals(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil, nil)
	rivals := []driver.Secrets{e.Secrets, e.Secrets, e.Secrets, e.open(nil), e.open(nil)}
	base := e.create("0")
	for round := range 20 {
		held := label("user", 'a'+byte(round), 'x')
		var mu sync.Mutex
		var work sync.WaitGroup
		next := driver.Secret{}
		for i, d := range rivals {
			work.Go(func() {
				p := payload(t, d, driver.Secret{Payload: driver.Payload{}, Version: base.Version}, fmt.Sprint(round, i), held)
				v, err := d.Update(t.Context(), name, base, p)
				if err == nil {
					mu.Lock()
					next = driver.Secret{Payload: p, Version: v}
					mu.Unlock()
				} else if !errors.Is(err, driver.ErrConflict) {
					t.Error(err)
				}
			})
		}
		work.Wait()
		if next.Version == "" {
			t.Fatal("no writer has succeeded")
		}
		base = next
		e.finds(held)
		if tags := e.tags(); len(tags) != 1 {
			t.Errorf("round %d leaves the tags %q", round, tags)
		}
	}
}

// TestTagRefusal checks that Update fails if the service refuses a tag for a reason other than
// the number of tags. Update then does not store the record.
func TestTagRefusal(t *testing.T) {
	t.Parallel()
	for _, f := range []fakeaws.Fault{
		{Code: "InvalidParameterException", Message: "Operation not permitted on a replica secret. Call must be made in primary secret's region."},
		{Code: "InvalidParameterException", Message: "You can't modify system tags. Tag key: 'aws:cloudformation:stack-name'."},
		{Code: "InvalidRequestException", Message: "You can't perform this operation on the secret because it is managed by another service."},
		{Code: "ValidationException", Message: "1 validation error detected"},
		{Code: "TagPolicyException", Message: "The tag policy does not allow the specified value for the following tag key: 'team'."},
	} {
		t.Run(f.Message, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t, nil, nil)
			base := e.create("base")
			e.server.Inject(on("TagResource", 0, f))
			e.server.Reset()
			_, err := e.Update(t.Context(), name, base, payload(t, e.Secrets, base, "next", label("user", 'a', 'x')))
			is(t, "Update", err, driver.ErrRefused)
			if err != nil && !strings.Contains(err.Error(), f.Message) {
				t.Errorf("the reason is not told: %v", err)
			}
			if got := e.server.Count(); got["TagResource"] > 1 || got["PutSecretValue"] > 0 {
				t.Errorf("Update makes the calls %q", calls(got))
			}
			e.holds(base)
		})
	}
}

// TestFullTags checks that a write succeeds without its label if the service accepts no
// more tags. A later write adds the label.
func TestFullTags(t *testing.T) {
	t.Parallel()
	for what, f := range map[string]*fakeaws.Fault{
		"by the number":  nil,
		"by another one": {Code: "LimitExceededException", Message: "The quota of tags is reached"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t, nil, nil)
			base := e.create("base")
			if f == nil {
				e.fill(50)
			} else {
				e.server.Inject(on("TagResource", 0, *f))
			}
			p := payload(t, e.Secrets, base, "next", label("user", 'a', 'x'))
			v, err := e.Update(t.Context(), name, base, p)
			if err != nil {
				t.Fatal(err)
			}
			next := driver.Secret{Payload: p, Version: v}
			e.holds(next)
			e.server.Inject(nil)
			e.server.Advance(2 * time.Hour)
			// Another driver, which has not written the record, also adds the missing label.
			d := e.open(nil)
			read, err := d.Get(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			read.Labels = p.Labels
			if _, err := d.Update(t.Context(), name, read, driver.Payload{Data: []byte("last"), Labels: p.Labels}); err != nil {
				t.Fatal(err)
			}
			e.finds(p.Labels[0])
		})
	}
}

// fill adds tags of interrupted writers until the secret has n tags.
func (e *env) fill(n int) {
	e.Helper()
	for i := len(e.tags()); i < n; i++ {
		l := driver.Label{Key: "refresh", Value: strings.Repeat("z", 32), Nonce: fmt.Sprintf("%016d", i)}
		if _, err := e.client.TagResource(e.Context(), &secretsmanager.TagResourceInput{
			SecretId: aws.String(path), Tags: awssm.Tags(e.Secrets, l),
		}); err != nil {
			e.Fatal(err)
		}
	}
}

// TestSaveAfterAnOutage checks that a program that repeats a failed save stores the token after the
// outage. The test also checks that the failed saves leave few tags, and that no label is missing.
func TestSaveAfterAnOutage(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil, nil)
	s, err := tokenstore.New(e.Secrets, &tokenstore.Options{Attempts: 3})
	if err != nil {
		t.Fatal(err)
	}
	token := tokenstore.Token{UserName: "ann", ClientID: "c", RefreshToken: "refresh-0", AccessToken: "access-0"}
	if _, err := s.SaveToken(t.Context(), token); err != nil {
		t.Fatal(err)
	}
	e.server.Inject(on("PutSecretValue", 0, fakeaws.Fault{Code: "InternalServiceError", Status: 500}))
	token.RefreshToken, token.AccessToken = "refresh-1", "access-1"
	for range 30 {
		if _, err := s.SaveToken(t.Context(), token); !errors.Is(err, tokenstore.ErrUnavailable) {
			t.Fatalf("SaveToken returns %v", err)
		}
	}
	e.server.Inject(nil)
	saved, err := s.SaveToken(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	out, err := e.client.DescribeSecret(t.Context(), &secretsmanager.DescribeSecretInput{SecretId: aws.String(app + "/" + saved.ID)})
	if err != nil || len(out.Tags) > 8 {
		t.Errorf("the secret has %d tags, error %v", len(out.Tags), err)
	}
	for f, err := range s.Check(t.Context(), nil) {
		if err != nil || f.Kind == doctor.KindLabelMissing {
			t.Errorf("Check finds %s %s, error %v", f.Kind, f.Detail, err)
		}
	}
}
