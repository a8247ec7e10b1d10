package fakeaws

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// A policy is an IAM policy of the supported form: statements with Effect, Action, Resource, and
// optionally the condition "ForAllValues:StringLike" on aws:TagKeys.
type policy struct {
	Version   string
	Statement []statement
}

type statement struct {
	Sid       string
	Effect    string
	Action    oneOrMore
	Resource  oneOrMore
	Condition map[string]map[string]oneOrMore
}

// oneOrMore is a string or a list of strings.
type oneOrMore []string

// UnmarshalJSON implements json.Unmarshaler.
func (o *oneOrMore) UnmarshalJSON(data []byte) error {
	var one string
	if json.Unmarshal(data, &one) == nil {
		*o = oneOrMore{one}
		return nil
	}
	return json.Unmarshal(data, (*[]string)(o))
}

const forAllTagKeys = "ForAllValues:StringLike"

// Policy limits an access key to the permissions of an IAM policy. A key without a policy
// has all permissions. Policy returns an error if document has a part that this package
// does not support.
func (s *Service) Policy(accessKey, document string) error {
	var p policy
	d := json.NewDecoder(bytes.NewReader([]byte(document)))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil {
		return fmt.Errorf("fakeaws: policy: %w", err)
	}
	if p.Version != "2012-10-17" {
		return fmt.Errorf("fakeaws: policy: version %q", p.Version)
	}
	for _, st := range p.Statement {
		if st.Effect != "Allow" && st.Effect != "Deny" || len(st.Action) == 0 || len(st.Resource) == 0 {
			return fmt.Errorf("fakeaws: policy: statement %q is not complete", st.Sid)
		}
		for operator, keys := range st.Condition {
			for key := range keys {
				if operator != forAllTagKeys || key != "aws:TagKeys" {
					return fmt.Errorf("fakeaws: policy: the condition %s of %s is not understood", operator, key)
				}
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.policies[accessKey] = p
	return nil
}

// authorize returns a refusal unless the caller's policy allows all actions that the operation
// requires on resource and on the KMS key kms (model: "Required permissions" of each operation). If
// kms is empty, the operation requires no action on a key. A caller without a policy has all
// permissions.
func (c *call) authorize(resource, kms string) *refusal {
	p, limited := c.policies[c.q.AccessKey]
	if !limited {
		return nil
	}
	keys := c.in.TagKeys
	for _, t := range c.in.Tags {
		keys = append(keys, t.Key)
	}
	actions := []string{c.q.Operation}
	switch {
	case c.q.Operation == "CreateSecret" && len(c.in.Tags) > 0:
		actions = append(actions, "TagResource")
	case c.q.Operation == "BatchGetSecretValue" && len(c.in.Filters) > 0:
		actions = append(actions, "ListSecrets")
	}
	for _, action := range actions {
		if !p.allows("secretsmanager:"+action, resource, keys) {
			return refuse("AccessDeniedException", "User: arn:aws:iam::%s:user/%s is not authorized to perform: secretsmanager:%s on resource: %s because no identity-based policy allows the secretsmanager:%s action",
				Account, c.q.AccessKey, action, resource, action)
		}
	}
	if kms == "" {
		return nil
	}
	var uses []string
	switch c.q.Operation {
	case "GetSecretValue":
		uses = []string{"kms:Decrypt"}
	case "CreateSecret", "PutSecretValue", "UpdateSecret":
		uses = []string{"kms:GenerateDataKey", "kms:Decrypt"}
	}
	if !strings.HasPrefix(kms, "arn:") {
		kms = "arn:" + partition(c.q.Region) + ":kms:" + c.q.Region + ":" + Account + ":key/" + kms
	}
	for _, action := range uses {
		if !p.allows(action, kms, nil) {
			return refuse("AccessDeniedException", "Access to KMS is not allowed")
		}
	}
	return nil
}

// allows reports whether a statement of the policy allows the action, and no statement denies the
// action.
func (p policy) allows(action, resource string, tagKeys []string) bool {
	allowed := false
	for _, st := range p.Statement {
		if !st.applies(action, resource, tagKeys) {
			continue
		}
		if st.Effect == "Deny" {
			return false
		}
		allowed = true
	}
	return allowed
}

func (st statement) applies(action, resource string, tagKeys []string) bool {
	among := func(patterns []string, s string) bool {
		return slices.ContainsFunc(patterns, func(p string) bool { return like(p, s) })
	}
	if !among(st.Action, action) || !among(st.Resource, resource) {
		return false
	}
	patterns, limited := st.Condition[forAllTagKeys]["aws:TagKeys"]
	// ForAllValues is true for a request without tag keys.
	return !limited || !slices.ContainsFunc(tagKeys, func(key string) bool { return !among(patterns, key) })
}

// like reports whether s matches pattern, in which "*" stands for any number of bytes and "?"
// for one byte.
func like(pattern, s string) bool {
	for i, r := range []byte(pattern) {
		switch {
		case r == '*':
			for j := range len(s) - i + 1 {
				if like(pattern[i+1:], s[i+j:]) {
					return true
				}
			}
			return false
		case i >= len(s) || r != '?' && r != s[i]:
			return false
		}
	}
	return len(pattern) == len(s)
}
