package fakeaws_test

import (
	"strings"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/fakeaws"
)

// batch is a BatchGetSecretValue request for all secrets of TestLocalStack, whose names begin
// with "a".
var batch = object{"Filters": []object{{"Key": "name", "Values": []string{"a"}}}}

func TestLocalStack(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		prepare func(*client)
		code    string // the error code of BatchGetSecretValue; empty if it succeeds
	}{
		"text": {func(c *client) {
			c.ok("CreateSecret", object{"Name": "a", "SecretString": "x", "ClientRequestToken": token(1)})
			c.ok("PutSecretValue", object{"SecretId": "a", "SecretString": "y", "ClientRequestToken": token(2)})
		}, ""},
		"bytes of CreateSecret": {func(c *client) {
			c.ok("CreateSecret", object{"Name": "a", "SecretBinary": []byte("x"), "ClientRequestToken": token(1)})
		}, ""},
		"bytes of PutSecretValue": {func(c *client) {
			c.ok("CreateSecret", object{"Name": "a", "SecretBinary": []byte("x"), "ClientRequestToken": token(1)})
			c.ok("PutSecretValue", object{"SecretId": "a", "SecretBinary": []byte("y"), "ClientRequestToken": token(2)})
			if got := c.ok("GetSecretValue", object{"SecretId": "a"}); got["SecretBinary"] != "eQ==" {
				c.Errorf("GetSecretValue returns %v", got["SecretBinary"])
			}
		}, "InternalError"},
		"no value": {func(c *client) {
			c.ok("CreateSecret", object{"Name": "a", "ClientRequestToken": token(1)})
		}, "ResourceNotFoundException"},
		"marked for deletion": {func(c *client) {
			c.ok("CreateSecret", object{"Name": "a", "SecretString": "x", "ClientRequestToken": token(1)})
			c.ok("DeleteSecret", object{"SecretId": "a", "RecoveryWindowInDays": 7})
			c.ok("PutSecretValue", object{"SecretId": "a", "SecretString": "y", "ClientRequestToken": token(2)})
		}, "InvalidRequestException"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			c2 := newClient(t, &fakeaws.Options{LocalStack: true})
			c.prepare(c2)
			c2.ok("CreateSecret", object{"Name": "a2", "SecretString": "x", "ClientRequestToken": token(3)})
			code, out := c2.do("BatchGetSecretValue", batch)
			if code != c.code {
				t.Errorf("a batch is answered with %q: %v", code, out)
			}
			if text, _ := out["Message"].(string); code == "InternalError" && !strings.Contains(text, "Object of type bytes is not JSON serializable") {
				t.Errorf("the text is %q", text)
			}
		})
	}
}

// TestLocalStackBatchOfLaggingReads checks that BatchGetSecretValue refuses a secret that lists
// show, but that lagging reads do not show or show in an earlier state.
func TestLocalStackBatchOfLaggingReads(t *testing.T) {
	t.Parallel()
	for what, prepare := range map[string]func(*client){
		"a new secret": func(c *client) {
			c.ok("CreateSecret", object{"Name": "a", "SecretString": "x", "ClientRequestToken": token(1)})
		},
		"a new value": func(c *client) {
			c.ok("CreateSecret", object{"Name": "a", "ClientRequestToken": token(1)})
			c.Advance(time.Hour)
			c.ok("PutSecretValue", object{"SecretId": "a", "SecretString": "x", "ClientRequestToken": token(2)})
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			c := newClient(t, &fakeaws.Options{LocalStack: true, ReadLag: time.Minute})
			prepare(c)
			if code, out := c.do("BatchGetSecretValue", batch); code != "ResourceNotFoundException" {
				t.Errorf("a batch is answered with %q: %v", code, out)
			}
			c.Advance(time.Hour)
			if code, out := c.do("BatchGetSecretValue", batch); code != "" {
				t.Errorf("a batch after the lag is answered with %q: %v", code, out)
			}
		})
	}
}

// TestLocalStackVersions checks that PutSecretValue keeps 100 versions without a label. It also
// checks that UpdateSecretVersionStage removes all versions without a label.
func TestLocalStackVersions(t *testing.T) {
	t.Parallel()
	c := newClient(t, &fakeaws.Options{LocalStack: true})
	c.ok("CreateSecret", object{"Name": "a", "SecretString": "0", "ClientRequestToken": token(0)})
	for i := 1; i <= 110; i++ {
		c.ok("PutSecretValue", object{"SecretId": "a", "SecretString": "x", "ClientRequestToken": token(i)})
	}
	versions := func() int {
		return len(c.ok("ListSecretVersionIds", object{"SecretId": "a", "IncludeDeprecated": true})["Versions"].([]any))
	}
	if n := versions(); n != 102 {
		t.Errorf("there are %d versions, want 100 and those with labels", n)
	}
	c.ok("UpdateSecretVersionStage", object{"SecretId": "a", "VersionStage": "AWSCURRENT", "MoveToVersionId": token(50), "RemoveFromVersionId": token(110)})
	if n := versions(); n != 2 {
		t.Errorf("%d versions are left, want those with labels", n)
	}
}
