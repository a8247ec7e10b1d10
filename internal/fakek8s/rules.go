package fakek8s

import (
	"context"
	"fmt"
	"net/http"
	"strings"
)

// A Rule is a behavior of the API server, such as a refusal, with the steps that check the
// behavior. The tests of this package run the steps on the fake, and the tests of module
// integration run the steps on a real server.
type Rule struct {
	Name  string
	Steps []Step
}

// A Step is a request in JSON and the expected response.
type Step struct {
	Method, Path, Body string // the path is relative to the namespace
	Code               int
	Want               string // a part of the response
}

// Request returns the HTTP request of a step, without credentials. namespace is the URL of the
// namespace.
func (q Step) Request(ctx context.Context, namespace string) (*http.Request, error) {
	r, err := http.NewRequestWithContext(ctx, q.Method, namespace+q.Path, strings.NewReader(q.Body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	if q.Method == http.MethodPatch {
		r.Header.Set("Content-Type", "application/merge-patch+json")
	}
	return r, nil
}

// Rules returns all rules. The steps of a rule require a namespace without Secrets.
func Rules() []Rule { return append(legality(), transitions()...) }

const ruleSecret = `{"kind":"Secret","apiVersion":"v1","metadata":{"name":"x"%s},"data":{"record":"eA=="}}`

// creation returns the step that creates the Secret "x" with additional metadata.
func creation(more string, code int, want string) Step {
	return Step{"POST", "/secrets", fmt.Sprintf(ruleSecret, more), code, want}
}

func legality() []Rule {
	return []Rule{
		{"a name that is not legal", []Step{{"POST", "/secrets", `{"kind":"Secret","apiVersion":"v1","metadata":{"name":"X"}}`, 422, "a lowercase RFC 1123 subdomain"}}},
		{"a label that is not legal", []Step{creation(`,"labels":{"a b":""}`, 422, "metadata.labels")}},
		{"a value of a label that is not legal", []Step{creation(`,"labels":{"a":"b c"}`, 422, "metadata.labels")}},
		{"annotations that are too large", []Step{creation(`,"annotations":{"a":"`+strings.Repeat("x", 256<<10)+`"}`, 422, "may not be more than 262144 bytes")}},
		{"data that are too large", []Step{
			{"POST", "/secrets", `{"kind":"Secret","apiVersion":"v1","metadata":{"name":"x"},"stringData":{"a":"` + strings.Repeat("x", 1<<20+1) + `"}}`, 422, "may not be more than 1048576 bytes"},
		}},
		{"a body that is too large", []Step{{"POST", "/secrets", strings.Repeat("x", 3<<20+1), 413, "limit is 3145728"}}},
		{"a namespace that does not exist", []Step{{"POST", "-none/secrets", fmt.Sprintf(ruleSecret, ""), 404, `-none\" not found`}}},
	}
}

func transitions() []Rule {
	patch := func(body string, code int, want string) Step { return Step{"PATCH", "/secrets/x", body, code, want} }
	return []Rule{
		{"a name in use", []Step{creation("", 201, `"type":"Opaque"`), creation("", 409, `"reason":"AlreadyExists"`)}},
		{"a version at creation", []Step{creation(`,"resourceVersion":"1"`, 500, "should not be set")}},
		{"a dry run", []Step{
			{"POST", "/secrets?dryRun=All", fmt.Sprintf(ruleSecret, ""), 201, ""}, {"GET", "/secrets/x", "", 404, ""},
		}},
		{"another version", []Step{creation("", 201, ""), patch(`{"metadata":{"resourceVersion":"1"}}`, 409, "the object has been modified")}},
		{"another UID", []Step{creation("", 201, ""), patch(`{"metadata":{"uid":"1"}}`, 422, "metadata.uid")}},
		{"another type", []Step{creation("", 201, ""), patch(`{"type":"x"}`, 422, "field is immutable")}},
		{"an update without a version or a type", []Step{creation("", 201, ""), {"PUT", "/secrets/x", fmt.Sprintf(ruleSecret, `,"labels":{"a":"b"}`), 200, `"a":"b"`}}},
		{"an update of another UID", []Step{creation("", 201, ""), {"PUT", "/secrets/x", fmt.Sprintf(ruleSecret, `,"uid":"1"`), 409, "Precondition failed: UID"}}},
		{"an immutable Secret", []Step{
			{"POST", "/secrets", `{"kind":"Secret","apiVersion":"v1","metadata":{"name":"x"},"immutable":true,"data":{"record":"eA=="}}`, 201, ""},
			patch(`{"data":{"record":"eQ=="}}`, 422, "immutable"),
		}},
		{"a patch of nothing", []Step{patch(`{}`, 404, `secrets \"x\" not found`)}},
		{"a field that is not selected by", []Step{{"GET", "/secrets?fieldSelector=data%3Dx", "", 400, "field label not supported"}}},
		{"a token to go on that is none", []Step{{"GET", "/secrets?continue=x", "", 400, "continue key is not valid"}}},
		{"a deletion of another version", []Step{
			creation("", 201, ""),
			{"DELETE", "/secrets/x", `{"kind":"DeleteOptions","apiVersion":"v1","preconditions":{"resourceVersion":"1"}}`, 409, `"kind":"Secret"`},
			{"DELETE", "/secrets/x", `{"kind":"DeleteOptions","apiVersion":"v1","preconditions":{"uid":"1"}}`, 409, "the UID in the precondition (1) does not match"},
			{"DELETE", "/secrets/x", "", 200, `"status":"Success"`},
			{"DELETE", "/secrets/x", "", 404, ""},
		}},
		{"a finalizer", []Step{
			creation(`,"finalizers":["example.com/x"]`, 201, ""),
			{"DELETE", "/secrets/x", "", 200, "deletionTimestamp"},
			creation("", 409, "object is being deleted"),
			patch(`{"metadata":{"finalizers":["example.com/x","example.com/y"]}}`, 422, "finalizers"),
			patch(`{"metadata":{"finalizers":null}}`, 200, ""),
			{"GET", "/secrets/x", "", 404, ""},
		}},
	}
}
