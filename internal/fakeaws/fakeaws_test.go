package fakeaws_test

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/fakeaws"
)

func token(n int) string { return fmt.Sprintf("%032d", n) }

type object = map[string]any

// A client has a Server, and sends requests to it without the SDK.
type client struct {
	testing.TB
	*fakeaws.Server
	key string
}

func newClient(t testing.TB, opts *fakeaws.Options) *client {
	c := &client{t, fakeaws.New(opts), "key"}
	t.Cleanup(c.Close)
	return c
}

// do sends a request, and returns the error code and the response. The code is empty if the
// request succeeds.
func (c *client) do(operation string, in object) (string, object) {
	c.Helper()
	body, err := json.Marshal(in)
	if err != nil {
		c.Fatal(err)
	}
	r, err := http.NewRequestWithContext(c.Context(), http.MethodPost, c.URL, strings.NewReader(string(body)))
	if err != nil {
		c.Fatal(err)
	}
	r.Header.Set("X-Amz-Target", "secretsmanager."+operation)
	r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential="+c.key+"/20261124/eu-central-1/secretsmanager/aws4_request, SignedHeaders=host, Signature=0")
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		c.Fatal(err)
	}
	defer answer.Body.Close()
	var out object
	if err := json.NewDecoder(answer.Body).Decode(&out); err != nil {
		c.Fatal(err)
	}
	code, _ := out["__type"].(string)
	if (code == "") != (answer.StatusCode == 200) {
		c.Errorf("%s is answered with status %d and code %q", operation, answer.StatusCode, code)
	}
	return code, out
}

// ok sends a request that must succeed, and returns the response.
func (c *client) ok(operation string, in object) object {
	c.Helper()
	code, out := c.do(operation, in)
	if code != "" {
		c.Fatalf("%s %v: %s: %v", operation, in, code, out["Message"])
	}
	return out
}

// fails sends a request that the server must refuse with the error code want.
func (c *client) fails(want, operation string, in object) {
	c.Helper()
	if code, out := c.do(operation, in); code != want {
		c.Errorf("%s %.200v is answered with %q (%v), want %q", operation, in, code, out["Message"], want)
	}
}

func (c *client) create(name, value string, tags ...string) string {
	c.Helper()
	var list []object
	for _, t := range tags {
		key, v, _ := strings.Cut(t, "=")
		list = append(list, object{"Key": key, "Value": v})
	}
	return c.ok("CreateSecret", object{"Name": name, "SecretString": value, "ClientRequestToken": token(0), "Tags": list})["ARN"].(string)
}

// put stores value in the secret id, as the version with the ID token(n).
func (c *client) put(id string, n int, value string) {
	c.Helper()
	c.ok("PutSecretValue", object{"SecretId": id, "ClientRequestToken": token(n), "SecretString": value})
}

func (c *client) reads(want, id string, more object) {
	c.Helper()
	in := object{"SecretId": id}
	maps.Copy(in, more)
	code, out := c.do("GetSecretValue", in)
	if got, _ := out["SecretString"].(string); got != want {
		c.Errorf("GetSecretValue %v returns %q, code %q, want %q", in, got, code, want)
	}
}

// names returns the names of the secrets that ListSecrets returns for filters, sorted and
// joined by spaces.
func (c *client) names(filters ...object) string {
	c.Helper()
	var names []string
	for _, s := range c.ok("ListSecrets", object{"Filters": filters})["SecretList"].([]any) {
		names = append(names, s.(object)["Name"].(string))
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

func where(key string, values ...string) object { return object{"Key": key, "Values": values} }

func TestWhatTheModelForbidsIsRefused(t *testing.T) {
	t.Parallel()
	c := newClient(t, nil)
	c.create("there", "x")
	value := func(more object) object {
		in := object{"Name": "new", "SecretId": "there", "SecretString": "x", "ClientRequestToken": token(1)}
		maps.Copy(in, more)
		return in
	}
	tags := func(key, v string) object {
		return object{"SecretId": "there", "Tags": []object{{"Key": key, "Value": v}}}
	}
	for _, r := range []struct {
		code, operation string
		in              object
	}{
		{"ValidationException", "CreateSecret", value(object{"Name": "a b"})},
		{"ValidationException", "CreateSecret", value(object{"Name": ""})},
		{"ValidationException", "CreateSecret", value(object{"Name": strings.Repeat("a", 513)})},
		{"ValidationException", "CreateSecret", value(object{"ClientRequestToken": strings.Repeat("a", 31)})},
		{"ValidationException", "CreateSecret", value(object{"ClientRequestToken": strings.Repeat("a", 65)})},
		{"ValidationException", "CreateSecret", value(object{"SecretString": strings.Repeat("a", 65537)})},
		{"ValidationException", "CreateSecret", value(object{"SecretString": ""})},
		{"ValidationException", "CreateSecret", value(object{"Description": strings.Repeat("a", 2049)})},
		{"ValidationException", "PutSecretValue", value(object{"SecretString": nil, "SecretBinary": make([]byte, 65537)})},
		{"InvalidParameterException", "PutSecretValue", value(object{"SecretBinary": []byte("x")})},
		{"InvalidRequestException", "PutSecretValue", value(object{"SecretString": nil})},
		{"InvalidRequestException", "PutSecretValue", value(object{"ClientRequestToken": nil})},
		{"ValidationException", "TagResource", tags("", "x")},
		{"ValidationException", "TagResource", tags(strings.Repeat("k", 129), "x")},
		{"ValidationException", "TagResource", tags("k", strings.Repeat("v", 257))},
		{"InvalidParameterException", "TagResource", tags("k;", "x")},
		{"InvalidParameterException", "TagResource", tags("k", "x*")},
		{"InvalidParameterException", "TagResource", tags("aws:k", "x")},
		{"ValidationException", "ListSecrets", object{"MaxResults": 101}},
		{"ValidationException", "ListSecrets", object{"MaxResults": 0}},
		{"ValidationException", "ListSecrets", object{"Filters": []object{where("tag", "x")}}},
		{"ValidationException", "ListSecrets", object{"Filters": []object{where("name")}}},
		{"ValidationException", "ListSecrets", object{"Filters": []object{where("name", strings.Split(strings.Repeat("x ", 11), " ")...)}}},
		{"ValidationException", "ListSecrets", object{"Filters": []object{where("name", "a*")}}},
		{"ValidationException", "ListSecrets", object{"Filters": []object{where("name", strings.Repeat("a", 513))}}},
		{"ValidationException", "ListSecrets", object{"Filters": slices.Repeat([]object{where("name", "a")}, 11)}},
		{"InvalidNextTokenException", "ListSecrets", object{"NextToken": "x"}},
		{"ValidationException", "BatchGetSecretValue", object{"SecretIdList": slices.Repeat([]string{"a"}, 21)}},
		{"ValidationException", "BatchGetSecretValue", object{"Filters": []object{where("name", "a")}, "MaxResults": 21}},
		{"InvalidParameterException", "BatchGetSecretValue", object{"SecretIdList": []string{"there"}, "MaxResults": 2}},
		{"InvalidParameterException", "BatchGetSecretValue", object{"SecretIdList": []string{"there"}, "Filters": []object{where("name", "a")}}},
		{"InvalidParameterException", "BatchGetSecretValue", object{}},
		{"InvalidParameterException", "DeleteSecret", object{"SecretId": "there", "RecoveryWindowInDays": 6}},
		{"InvalidParameterException", "DeleteSecret", object{"SecretId": "there", "RecoveryWindowInDays": 31}},
		{"InvalidParameterException", "DeleteSecret", object{"SecretId": "there", "RecoveryWindowInDays": 7, "ForceDeleteWithoutRecovery": true}},
		{"ResourceNotFoundException", "GetSecretValue", object{"SecretId": "absent"}},
		{"ResourceNotFoundException", "DeleteSecret", object{"SecretId": "absent"}},
		{"UnknownOperationException", "RotateTheWorld", object{}},
	} {
		c.fails(r.code, r.operation, r.in)
	}
	c.ok("CreateSecret", object{"Name": "aZ09/_+=.@-", "SecretString": strings.Repeat("a", 65536), "ClientRequestToken": token(1)})
	if got := c.names(); got != "aZ09/_+=.@- there" {
		t.Errorf("the secrets are %q", got)
	}
}

func TestClientRequestToken(t *testing.T) {
	t.Parallel()
	c := newClient(t, nil)
	in := func(name, value string, n int) object {
		return object{"Name": name, "SecretId": name, "SecretString": value, "ClientRequestToken": token(n)}
	}
	first := c.ok("CreateSecret", in("a", "1", 1))
	again := c.ok("CreateSecret", in("a", "1", 1))
	if first["ARN"] != again["ARN"] || again["VersionId"] != token(1) {
		t.Errorf("a CreateSecret that is repeated returns %v, and did %v", again, first)
	}
	c.fails("ResourceExistsException", "CreateSecret", in("a", "2", 1))
	c.fails("ResourceExistsException", "CreateSecret", in("a", "1", 2))
	c.put("a", 2, "2")
	c.put("a", 3, "3")
	c.put("a", 2, "2") // does nothing, because the version exists
	c.fails("ResourceExistsException", "PutSecretValue", in("a", "other", 2))
	c.fails("ResourceExistsException", "UpdateSecret", in("a", "other", 2))
	c.reads("3", "a", nil)
	c.reads("2", "a", object{"VersionStage": "AWSPREVIOUS"})
	c.reads("1", "a", object{"VersionId": token(1)})
	c.fails("ResourceNotFoundException", "GetSecretValue", object{"SecretId": "a", "VersionId": token(9)})
	c.fails("ResourceNotFoundException", "GetSecretValue", object{"SecretId": "a", "VersionStage": "NONE"})
	c.fails("InvalidRequestException", "GetSecretValue", object{"SecretId": "a", "VersionId": token(1), "VersionStage": "AWSCURRENT"})
}

func TestVersionStages(t *testing.T) {
	t.Parallel()
	c := newClient(t, nil)
	c.create("a", "0")
	c.put("a", 1, "1")
	move := func(stage, to, from string) object {
		in := object{"SecretId": "a", "VersionStage": stage}
		if to != "" {
			in["MoveToVersionId"] = to
		}
		if from != "" {
			in["RemoveFromVersionId"] = from
		}
		return in
	}
	const op = "UpdateSecretVersionStage"
	c.fails("InvalidParameterException", op, move("AWSCURRENT", token(0), ""))
	c.fails("InvalidParameterException", op, move("AWSCURRENT", token(0), token(0)))
	c.fails("InvalidParameterException", op, move("AWSCURRENT", "", token(1)))
	c.fails("ResourceNotFoundException", op, move("AWSCURRENT", token(9), token(1)))
	c.ok(op, move("AWSCURRENT", token(0), token(1)))
	c.reads("0", "a", nil)
	c.reads("1", "a", object{"VersionStage": "AWSPREVIOUS"})
	for i := range 18 {
		c.ok(op, move(fmt.Sprint("LABEL", i), token(1), ""))
	}
	c.fails("LimitExceededException", op, move("ONE-MORE", token(1), ""))
	c.fails("LimitExceededException", "PutSecretValue", object{"SecretId": "a", "ClientRequestToken": token(2), "SecretString": "2", "VersionStages": []string{"ONE-MORE"}})
	c.ok(op, move("LABEL0", "", token(1)))
	c.ok(op, move("ONE-MORE", token(1), ""))
}

func TestNoVersionOfTheLastDayIsRemoved(t *testing.T) {
	t.Parallel()
	c := newClient(t, nil)
	c.create("a", "0")
	for i := 1; i < 100; i++ {
		c.put("a", i, "x")
	}
	more := object{"SecretId": "a", "ClientRequestToken": token(100), "SecretString": "x"}
	c.fails("LimitExceededException", "PutSecretValue", more)
	c.Advance(24*time.Hour - time.Second)
	c.fails("LimitExceededException", "PutSecretValue", more)
	c.Advance(time.Minute)
	c.ok("PutSecretValue", more)
	c.fails("ResourceNotFoundException", "GetSecretValue", object{"SecretId": "a", "VersionId": token(0)})
	versions := c.ok("ListSecretVersionIds", object{"SecretId": "a", "IncludeDeprecated": true})["Versions"].([]any)
	if len(versions) > 100 {
		t.Errorf("there are %d versions", len(versions))
	}
	if labeled := c.ok("ListSecretVersionIds", object{"SecretId": "a"})["Versions"].([]any); len(labeled) != 2 {
		t.Errorf("there are %d versions with labels, want the current and the previous", len(labeled))
	}
}

func TestTagLimit(t *testing.T) {
	t.Parallel()
	c := newClient(t, nil)
	c.create("a", "0")
	tag := func(i int) object {
		return object{"SecretId": "a", "Tags": []object{{"Key": fmt.Sprint("k", i), "Value": "v"}}}
	}
	for i := range 50 {
		c.ok("TagResource", tag(i))
	}
	c.fails("InvalidParameterException", "TagResource", tag(50))
	c.ok("TagResource", tag(7)) // replaces a tag
	c.ok("UntagResource", object{"SecretId": "a", "TagKeys": []string{"k0", "absent"}})
	c.ok("TagResource", tag(50))
	if tags := c.ok("DescribeSecret", object{"SecretId": "a"})["Tags"].([]any); len(tags) != 50 {
		t.Errorf("there are %d tags", len(tags))
	}
}

func TestFiltersMatchBeginningsAndAreAllMet(t *testing.T) {
	t.Parallel()
	c := newClient(t, nil)
	c.create("app/a", "0", "kind:one=red", "team=x")
	c.create("app/b", "0", "kind:two=red")
	c.create("app2/c", "0", "Kind:one=blue")
	c.ok("UpdateSecret", object{"SecretId": "app2/c", "Description": "The third Secret"})
	for _, f := range []struct {
		want    string
		filters []object
	}{
		{"app/a app/b app2/c", nil},
		{"app/a app/b", []object{where("name", "app/")}},
		{"", []object{where("name", "App")}},
		{"app/a", []object{where("tag-key", "kind:o")}},
		{"app/a app2/c", []object{where("tag-key", "kind:o", "Kind:o")}},
		{"app2/c", []object{where("tag-key", "kind:o", "Kind:o"), where("name", "app2")}},
		{"app/b app2/c", []object{where("tag-key", "!kind:one")}},
		{"app/b", []object{where("tag-value", "re"), where("tag-key", "!team")}},
		{"app2/c", []object{where("description", "the THIRD")}},
	} {
		if got := c.names(f.filters...); got != f.want {
			t.Errorf("%v finds %q, want %q", f.filters, got, f.want)
		}
	}
	// Filters for keys and for values are independent. A secret must meet all filters, even if
	// several have the same key.
	if got := c.names(where("tag-key", "team"), where("tag-value", "red")); got != "app/a" {
		t.Errorf("a key of one tag and a value of another find %q", got)
	}
	if got := c.names(where("tag-key", "kind:one"), where("tag-key", "kind:two")); got != "" {
		t.Errorf("two filters with one key find %q", got)
	}
	if got := c.names(where("all", "third")); got != "app2/c" {
		t.Errorf("a word finds %q", got)
	}
}

func TestListSecretsTagKeyFilter(t *testing.T) {
	t.Parallel()
	c := newClient(t, nil)
	key := func(end string) string { return "tokenkeep:user:" + strings.Repeat("a", 32) + ":" + end }
	c.create("b", "0", key("1")+"=x", key("2")+"=x")
	c.create("a", "0", "other=x")
	c.create("c", "0", "tokenkeep:user:"+strings.Repeat("b", 32)+":1=x")
	c.create("d", "0", key("1")+"=x")
	c.ok("TagResource", object{"SecretId": "a", "Tags": []object{{"Key": key("3"), "Value": "x"}}})
	c.ok("UntagResource", object{"SecretId": "d", "TagKeys": []string{key("1")}})
	for _, f := range []struct {
		want   string
		values []string
	}{
		{"a b", []string{key("")}},
		{"a b c", []string{key(""), "tokenkeep:user:" + strings.Repeat("b", 32)}},
		{"b", []string{key("1"), key("2")}},
		{"a b c", []string{key(""), "tokenkeep"}},
		{"c d", []string{"!" + key("")}},
		{"", []string{key("4")}},
	} {
		if got := c.names(where("tag-key", f.values...)); got != f.want {
			t.Errorf("%v find %q, want %q", f.values, got, f.want)
		}
	}
	filters := []object{where("tag-key", key(""))}
	first := c.ok("ListSecrets", object{"MaxResults": 1, "Filters": filters})
	next := c.ok("ListSecrets", object{"NextToken": first["NextToken"], "Filters": filters})
	for i, page := range []object{first, next} {
		want := []string{"b", "a"}[i] // in order of creation
		if list := page["SecretList"].([]any); len(list) != 1 || list[0].(object)["Name"] != want {
			t.Errorf("page %d is %v, want %s", i, list, want)
		}
	}
	if next["NextToken"] != nil {
		t.Error("there is a third page")
	}
}

func TestBatchGetSecretValue(t *testing.T) {
	t.Parallel()
	c := newClient(t, nil)
	for i := range 45 {
		c.create(fmt.Sprint("app/", i), "x")
	}
	sizes, in := []int{}, object{"Filters": []object{where("name", "app/")}}
	for more := true; more; {
		out := c.ok("BatchGetSecretValue", in)
		sizes = append(sizes, len(out["SecretValues"].([]any)))
		in["NextToken"], more = out["NextToken"], out["NextToken"] != nil
	}
	if !slices.Equal(sizes, []int{20, 20, 5}) {
		t.Errorf("the pages have %v secrets", sizes)
	}
	c.ok("DeleteSecret", object{"SecretId": "app/1"})
	out := c.ok("BatchGetSecretValue", object{"SecretIdList": []string{"app/0", "app/1", "absent"}})
	var codes []string
	for _, e := range out["Errors"].([]any) {
		codes = append(codes, e.(object)["ErrorCode"].(string))
	}
	if len(out["SecretValues"].([]any)) != 1 || !slices.Equal(codes, []string{"InvalidRequestException", "ResourceNotFoundException"}) {
		t.Errorf("the batch is %v", out)
	}
}

func TestDeleteSecretScheduled(t *testing.T) {
	t.Parallel()
	c := newClient(t, nil)
	arn := c.create("a", "0")
	c.ok("DeleteSecret", object{"SecretId": "a", "RecoveryWindowInDays": 7})
	for _, operation := range []string{"GetSecretValue", "DeleteSecret", "TagResource", "UntagResource", "ListSecretVersionIds"} {
		c.fails("InvalidRequestException", operation, object{"SecretId": "a"})
	}
	put := object{"SecretId": "a", "Name": "a", "SecretString": "1", "ClientRequestToken": token(1)}
	c.fails("InvalidRequestException", "PutSecretValue", put)
	c.fails("InvalidRequestException", "CreateSecret", put)
	if c.ok("DescribeSecret", object{"SecretId": "a"})["DeletedDate"] == nil || c.names() != "" {
		t.Errorf("the secret is not shown as deleted")
	}
	c.ok("RestoreSecret", object{"SecretId": arn})
	c.reads("0", "a", nil)
}

func TestDeleteSecretForced(t *testing.T) {
	t.Parallel()
	c := newClient(t, &fakeaws.Options{DeleteDelay: time.Minute})
	arn := c.create("a", "0")
	force := object{"SecretId": arn, "ForceDeleteWithoutRecovery": true}
	c.ok("DeleteSecret", force)
	c.ok("DeleteSecret", force)
	create := object{"Name": "a", "SecretString": "1", "ClientRequestToken": token(0)}
	c.fails("InvalidRequestException", "CreateSecret", create)
	c.fails("InvalidRequestException", "RestoreSecret", object{"SecretId": "a"})
	c.Advance(time.Minute)
	c.fails("ResourceNotFoundException", "GetSecretValue", object{"SecretId": "a"})
	if again := c.ok("CreateSecret", create)["ARN"]; again == arn {
		t.Errorf("the next life has the ARN of the one before")
	}
	c.ok("DeleteSecret", force)
	c.reads("1", "a", nil)
	c.fails("ResourceNotFoundException", "PutSecretValue", object{"SecretId": arn, "SecretString": "2", "ClientRequestToken": token(2)})
	c.reads("1", arn[:len(arn)-7], nil) // a partial ARN
}

func TestReadsAndListsLagAndWritesDoNot(t *testing.T) {
	t.Parallel()
	c := newClient(t, &fakeaws.Options{ReadLag: time.Hour, ListLag: 2 * time.Hour})
	arn := c.create("a", "0", "k=v")
	c.fails("ResourceNotFoundException", "GetSecretValue", object{"SecretId": "a"})
	c.fails("ResourceNotFoundException", "DescribeSecret", object{"SecretId": "a"})
	c.reads("0", "a", object{"VersionId": token(0)})
	c.fails("ResourceExistsException", "CreateSecret", object{"Name": "a", "SecretString": "1", "ClientRequestToken": token(1)})
	c.Advance(90 * time.Minute)
	c.reads("0", "a", nil)
	if got := c.names(); got != "" {
		t.Errorf("within the lag the list is %q", got)
	}
	c.put("a", 1, "1")
	c.ok("UntagResource", object{"SecretId": "a", "TagKeys": []string{"k"}})
	c.reads("0", "a", nil)
	c.reads("1", "a", object{"VersionId": token(1)})
	c.Advance(time.Hour)
	c.reads("1", "a", nil)
	if got := c.names(where("tag-key", "k")); got != "a" {
		t.Errorf("within the lag the tag finds %q", got)
	}
	c.Advance(time.Hour)
	if got := c.names(where("tag-key", "k")); got != "" {
		t.Errorf("after the lag the tag finds %q", got)
	}
	c.ok("DeleteSecret", object{"SecretId": arn, "ForceDeleteWithoutRecovery": true})
	c.reads("1", "a", nil)
	c.fails("ResourceNotFoundException", "GetSecretValue", object{"SecretId": "a", "VersionId": token(1)})
	c.SetLag(0, 0)
	c.fails("ResourceNotFoundException", "GetSecretValue", object{"SecretId": "a"})
}

func TestPolicy(t *testing.T) {
	t.Parallel()
	c := newClient(t, nil)
	c.create("app/a", "0")
	c.create("other", "0")
	for _, bad := range []string{`{`, `{"Version":"2008-10-17","Statement":[]}`, `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*"}]}`,
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"Bool":{"aws:SecureTransport":"true"}}}]}`} {
		if c.Policy("limited", bad) == nil {
			t.Errorf("the policy %s is accepted", bad)
		}
	}
	if err := c.Policy("limited", `{"Version": "2012-10-17", "Statement": [
		{"Effect": "Allow", "Action": ["secretsmanager:Get*", "secretsmanager:TagResource", "secretsmanager:CreateSecret"], "Resource": "arn:aws:secretsmanager:*:*:secret:app/*",
			"Condition": {"ForAllValues:StringLike": {"aws:TagKeys": ["k?"]}}},
		{"Effect": "Deny", "Action": "*", "Resource": "*:secret:app/secret*"},
		{"Effect": "Allow", "Action": "secretsmanager:BatchGetSecretValue", "Resource": "*"}]}`); err != nil {
		t.Fatal(err)
	}
	c.key = "limited"
	c.reads("0", "app/a", nil)
	const denied = "AccessDeniedException"
	c.fails(denied, "GetSecretValue", object{"SecretId": "other"})
	c.fails(denied, "DescribeSecret", object{"SecretId": "app/a"})
	c.fails(denied, "ListSecrets", object{})
	c.fails(denied, "BatchGetSecretValue", object{"Filters": []object{where("name", "a")}})
	c.ok("TagResource", object{"SecretId": "app/a", "Tags": []object{{"Key": "k1", "Value": ""}}})
	c.fails(denied, "TagResource", object{"SecretId": "app/a", "Tags": []object{{"Key": "k12", "Value": ""}}})
	c.fails(denied, "GetSecretValue", object{"SecretId": "app/secret"})
	c.fails(denied, "CreateSecret", object{"Name": "app/b", "SecretString": "x", "ClientRequestToken": token(1), "KmsKeyId": "key"})
	if errs := c.ok("BatchGetSecretValue", object{"SecretIdList": []string{"app/a", "other"}})["Errors"].([]any); len(errs) != 1 || errs[0].(object)["ErrorCode"] != denied {
		t.Errorf("the errors of the batch are %v", errs)
	}
}

func TestFaultsAreAppliedOrNot(t *testing.T) {
	t.Parallel()
	c := newClient(t, nil)
	c.create("a", "0")
	inject := func(f fakeaws.Fault) { c.Inject(func(*fakeaws.Request) *fakeaws.Fault { return &f }) }
	put := func(n int) object {
		return object{"SecretId": "a", "ClientRequestToken": token(n), "SecretString": fmt.Sprint(n)}
	}
	inject(fakeaws.Fault{Code: "ThrottlingException"})
	c.fails("ThrottlingException", "PutSecretValue", put(1))
	inject(fakeaws.Fault{Code: "InternalServiceError", Status: 500, Applied: true})
	c.fails("InternalServiceError", "PutSecretValue", put(2))
	c.Inject(nil)
	c.reads("2", "a", nil)
	c.fails("ResourceNotFoundException", "GetSecretValue", object{"SecretId": "a", "VersionId": token(1)})
	c.Advance(time.Hour)
	c.put("a", 3, "3")
	inject(fakeaws.Fault{Stale: time.Minute})
	c.reads("2", "a", nil)
	c.Inject(nil)
	if n := c.Count()["PutSecretValue"]; n != 3 {
		t.Errorf("%d PutSecretValue are counted", n)
	}
	if r := c.Requests(); len(r) == 0 || r[0].Operation != "CreateSecret" || r[0].AccessKey != "key" || r[0].Region != "eu-central-1" {
		t.Errorf("the requests are %v", r)
	}
	c.Reset()
	if len(c.Requests())+len(c.Count()) > 0 {
		t.Errorf("after Reset there are requests")
	}
}

func TestLocalStackHealth(t *testing.T) {
	t.Parallel()
	c := newClient(t, nil)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.URL+"/_localstack/health", nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != 200 || !strings.Contains(string(body), `"secretsmanager": "running"`) {
		t.Errorf("the answer is %d %s, error %v", answer.StatusCode, body, err)
	}
}

func TestRequestWithoutCredential(t *testing.T) {
	t.Parallel()
	c := newClient(t, nil)
	c.key = "a/b"
	c.fails("MissingAuthenticationTokenException", "ListSecrets", object{})
}

func TestQuotas(t *testing.T) {
	t.Parallel()
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	c := newClient(t, &fakeaws.Options{Now: func() time.Time { return now }, Quotas: fakeaws.Documented()})
	c.ok("CreateSecret", object{"Name": "a", "SecretString": "x", "ClientRequestToken": token(0)})
	tag := object{"SecretId": "a", "Tags": []object{{"Key": "k", "Value": "v"}}}
	for range 25 {
		c.ok("TagResource", tag)
		c.ok("UntagResource", object{"SecretId": "a", "TagKeys": []string{"k"}})
	}
	c.fails("ThrottlingException", "TagResource", tag)
	c.ok("PutSecretValue", object{"SecretId": "a", "SecretString": "y", "ClientRequestToken": token(1)})
	c.Advance(20 * time.Millisecond)
	c.ok("TagResource", tag)
	c.fails("ThrottlingException", "TagResource", tag)
}
