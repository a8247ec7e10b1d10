package awssm

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// Options configures a store. A nil *Options is equivalent to the zero value.
type Options struct {
	// Store holds the options that all backends have in common. Nil means the defaults.
	Store *tokenstore.Options

	// KMSKeyID is the ARN, the key ID or the alias of the KMS key that encrypts new records.
	// Existing records keep their key. If KMSKeyID is empty, the account's key aws/secretsmanager
	// encrypts new records.
	KMSKeyID string

	// Tags holds up to ten additional tags for new records. Existing records keep their tags. Keys
	// have 1 to 128 characters, and values at most 256. Both consist of letters, digits, spaces and
	// the characters "_.:/=+-@". Keys must not begin with "aws:" or "tokenkeep:", regardless of
	// case.
	Tags map[string]string

	// KeepDeleted makes Delete keep the secret of a deleted record. Set KeepDeleted if a policy
	// denies forced deletion. Delete then only stores a tombstone as the current version of the
	// secret. A new record with the same name reuses the secret. AWS bills the secret until an
	// operator deletes it. The earlier versions of the secret stay until Secrets Manager removes
	// them.
	KeepDeleted bool
}

const (
	// maxPrefix is the maximum number of characters of a prefix. ListSecrets returns names of
	// at most 256 characters, and the name of a record follows the prefix.
	maxPrefix = 150

	// maxOwnTags is the maximum number of Options.Tags. A secret has at most 50 tags. The other 40
	// tags are for the 32 labels of a record, and for the labels that a write adds before it
	// removes old labels.
	maxOwnTags = 10
)

// New returns a store that keeps each record in a secret. The names of the secrets begin with
// prefix and "/". prefix has at most 150 characters, and consists of path elements joined by "/",
// such as "oauth/crm". Each path element has at least one character, and consists of ASCII letters,
// digits and the characters "_+=.@-".
//
// New does no I/O, and returns an error only if a parameter is invalid. client must not be nil, and
// opts may be nil. The store uses the credentials, region, endpoint and retries of client.
func New(client *secretsmanager.Client, prefix string, opts *Options) (*tokenstore.Store, error) {
	d, err := NewDriver(client, prefix, opts)
	if err != nil {
		return nil, err
	}
	return tokenstore.New(d, cmp.Or(opts, &Options{}).Store)
}

// NewDriver returns the driver that New passes to tokenstore.New. NewDriver is for decorators and
// tests. The driver implements driver.Labeler and driver.Inspector. See New for the parameters and
// the error.
func NewDriver(client *secretsmanager.Client, prefix string, opts *Options) (driver.Secrets, error) {
	if client == nil {
		return nil, errors.New("awssm: the client is nil")
	}
	if err := checkPrefix(prefix); err != nil {
		return nil, fmt.Errorf("awssm: prefix %q %w", prefix, err)
	}
	o := cmp.Or(opts, &Options{})
	if err := checkTags(o.Tags); err != nil {
		return nil, fmt.Errorf("awssm: %w", err)
	}
	return &secrets{
		service: service{client: client, kms: o.KMSKeyID, tags: maps.Clone(o.Tags), now: wallClock},
		prefix:  prefix, keep: o.KeepDeleted,
	}, nil
}

// wallClock returns the current time without a monotonic reading. A monotonic clock may stop while
// an AWS Lambda function is suspended between invocations.
func wallClock() time.Time { return time.Now().Round(0) }

var pathElement = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z0-9_+=.@-]+$`) })

func checkPrefix(prefix string) error {
	if len(prefix) > maxPrefix {
		return fmt.Errorf("has %d characters, the limit is %d", len(prefix), maxPrefix)
	}
	for element := range strings.SplitSeq(prefix, "/") {
		switch {
		case element == "":
			return errors.New("has an empty path element")
		case !pathElement().MatchString(element):
			return errors.New("has a character other than letters, digits and '/_+=.@-'")
		}
	}
	return nil
}

var tagText = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[\p{L}\p{Z}\p{N}_.:/=+\-@]*$`) })

func checkTags(tags map[string]string) error {
	if len(tags) > maxOwnTags {
		return fmt.Errorf("there are %d tags, the limit is %d", len(tags), maxOwnTags)
	}
	for _, key := range slices.Sorted(maps.Keys(tags)) {
		lower, value := strings.ToLower(key), tags[key]
		switch {
		case key == "" || utf8.RuneCountInString(key) > 128 || utf8.RuneCountInString(value) > 256:
			return fmt.Errorf("tag %q: a key must have 1 to 128 characters, and a value at most 256", key)
		case strings.HasPrefix(lower, "aws:") || strings.HasPrefix(lower, tagSpace):
			return fmt.Errorf("tag %q: the prefixes aws: and %s are reserved", key, tagSpace)
		case !tagText().MatchString(key) || !tagText().MatchString(value):
			return fmt.Errorf("tag %q has a character other than letters, digits, spaces and '_.:/=+-@'", key)
		}
	}
	return nil
}

// Policy returns, as JSON, the IAM policy that a role needs for a store with the given prefix
// and opts. The policy allows only the calls that the store makes. IAM cannot limit lists to a
// prefix, so the role can read the names and tags of all secrets in the account. region and
// account may be "*", and opts may be nil.
//
// A KMSKeyID in opts must be the ARN of a key, because IAM does not support aliases in
// resources.
func Policy(region, account, prefix string, opts *Options) string {
	o := cmp.Or(opts, &Options{})
	arn := "arn:" + partition(region) + ":secretsmanager:" + region + ":" + account + ":secret:" + prefix + "/*"
	actions := []string{"CreateSecret", "DeleteSecret", "DescribeSecret", "GetSecretValue", "PutSecretValue"}
	if o.KeepDeleted {
		actions = slices.Delete(actions, 1, 2)
	}
	p := policy{Version: "2012-10-17", Statement: []statement{
		{Sid: "Records", Effect: "Allow", Action: qualify(actions...), Resource: arn},
		{
			Sid: "Labels", Effect: "Allow", Action: qualify("TagResource", "UntagResource"), Resource: arn,
			Condition: map[string]map[string][]string{"ForAllValues:StringLike": {
				"aws:TagKeys": append([]string{tagSpace + "*"}, slices.Sorted(maps.Keys(o.Tags))...),
			}},
		},
		{Sid: "Searches", Effect: "Allow", Action: qualify("BatchGetSecretValue", "ListSecrets"), Resource: "*"},
	}}
	if o.KMSKeyID != "" {
		p.Statement = append(p.Statement, statement{
			Sid: "Key", Effect: "Allow", Action: []string{"kms:Decrypt", "kms:GenerateDataKey"}, Resource: o.KMSKeyID,
		})
	}
	text, _ := json.MarshalIndent(p, "", "  ") // cannot fail: p holds only strings, slices and maps
	return string(text) + "\n"
}

type policy struct {
	Version   string
	Statement []statement
}

type statement struct {
	Sid       string
	Effect    string
	Action    []string
	Resource  string
	Condition map[string]map[string][]string `json:",omitempty"`
}

func qualify(actions ...string) []string {
	for i, a := range actions {
		actions[i] = "secretsmanager:" + a
	}
	return actions
}

// partition returns the AWS partition of a region, such as "aws-cn".
func partition(region string) string {
	for prefix, name := range map[string]string{"cn-": "aws-cn", "us-gov-": "aws-us-gov"} {
		if strings.HasPrefix(region, prefix) {
			return name
		}
	}
	return "aws"
}
