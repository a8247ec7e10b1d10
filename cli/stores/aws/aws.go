// Package aws provides the scheme awssm, for AWS Secrets Manager, to the command tokenkeep.
package aws

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/credentials/ec2rolecreds"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/smithy-go/logging"

	"github.com/tokenkeep/tokenkeep/awssm"
	"github.com/tokenkeep/tokenkeep/cli/internal/policies"
	"github.com/tokenkeep/tokenkeep/cli/scheme"
	"github.com/tokenkeep/tokenkeep/internal/wholesend"
)

// Scheme returns the scheme of URLs of the form awssm:PREFIX.
func Scheme() scheme.Scheme {
	return scheme.Scheme{
		Name: "awssm",
		Form: "awssm:PREFIX",
		Text: `AWS Secrets Manager, with the usual credentials, AWS_REGION, AWS_PROFILE and
so on; awssm:PREFIX?region=eu-central-1&kms-key=KEY&endpoint=URL sets the region,
the key that encrypts new records, and the endpoint. ?tags=team:crm,stage:live sets
the tags of new records; ?keep-deleted=true keeps the secrets of deleted records, for
accounts that deny forced deletion. The endpoint of LocalStack may be plain http on
this machine; calls to it carry no credentials, unless AWS_ACCESS_KEY_ID or
AWS_PROFILE is set`,
		Slashes: true,
		Service: "awssm",
		SignIn:  "renew them (aws sso login, or new keys)",
		Open:    open,
		Policy: &scheme.Policy{
			Name:     "aws",
			Argument: "PREFIX",
			Short:    "Print the IAM policy for a store in AWS Secrets Manager",
			New:      newPolicy,
		},
	}
}

// newPolicy implements scheme.Policy.New.
func newPolicy(flags *flag.FlagSet) func(string, bool) (string, error) {
	o := awssm.Options{Tags: map[string]string{}}
	region := flags.String("region", "*", "the region")
	account := flags.String("account", "*", "the account")
	flags.StringVar(&o.KMSKeyID, "kms-key", "", "ARN of the key that encrypts records")
	flags.BoolVar(&o.KeepDeleted, "keep-deleted", false, "keep the secrets of deleted records")
	flags.Var(tags(o.Tags), "tag", "`KEY` of a tag for new records; may be repeated")
	return func(prefix string, terraform bool) (string, error) {
		if o.KMSKeyID != "" && !strings.HasPrefix(o.KMSKeyID, "arn:") {
			return "", scheme.Usagef("--kms-key must be the ARN of a key: IAM does not know aliases")
		}
		if err := policies.CheckPrefix(prefix); err != nil {
			return "", err
		}
		text := awssm.Policy(*region, *account, prefix, &o)
		if terraform {
			text = "resource \"aws_iam_policy\" \"tokenkeep\" {\n  name   = \"tokenkeep\"\n  policy = <<-JSON\n" + policies.Indent(text) + "  JSON\n}\n"
		}
		return text, nil
	}
}

// tags is a flag.Value that collects the keys of tags. The values in the map have no meaning.
type tags map[string]string

func (t tags) String() string { return strings.Join(slices.Sorted(maps.Keys(t)), ",") }

func (t tags) Set(key string) error {
	if key == "" {
		return errors.New("empty")
	}
	t[key] = "x"
	return nil
}

// Environment variables with AWS credentials.
const (
	envKeyID  = "AWS_ACCESS_KEY_ID"
	envSecret = "AWS_SECRET_ACCESS_KEY" //nolint:gosec // a name, not a credential
)

func open(ctx context.Context, o *scheme.Opening) (*scheme.Opened, error) {
	prefix, params, err := scheme.Query(o.Rest, "region", "endpoint", "kms", "kms-key", "tags", "keep-deleted")
	if err != nil {
		return nil, err
	}
	options, err := parseOptions(params)
	if err != nil {
		return nil, err
	}
	client, err := newClient(ctx, o, params["region"], params["endpoint"])
	if err != nil {
		return nil, err
	}
	d, err := awssm.NewDriver(client, prefix, options)
	if err != nil {
		return nil, scheme.Usage(err)
	}
	at := strings.Join([]string{
		"awssm", client.Options().Region, params["endpoint"], o.Getenv("AWS_PROFILE"), o.Getenv(envKeyID), prefix,
	}, " ")
	return &scheme.Opened{Driver: d, Place: at, Counted: true}, nil
}

// parseOptions returns the options in the parameters of a URL.
func parseOptions(params map[string]string) (*awssm.Options, error) {
	o := &awssm.Options{KMSKeyID: cmp.Or(params["kms-key"], params["kms"])}
	if params["kms"] != "" && params["kms-key"] != "" {
		return nil, scheme.Usagef("kms and kms-key are one parameter: give one of them")
	}
	switch params["keep-deleted"] {
	case "true":
		o.KeepDeleted = true
	case "", "false":
	default:
		return nil, scheme.Usagef("keep-deleted must be true or false")
	}
	if params["tags"] == "" {
		return o, nil
	}
	o.Tags = map[string]string{}
	for tag := range strings.SplitSeq(params["tags"], ",") {
		key, value, ok := strings.Cut(tag, ":")
		if _, twice := o.Tags[key]; !ok || key == "" || value == "" || twice {
			return nil, scheme.Usagef("tags have the form tags=KEY:VALUE,KEY:VALUE, each key once")
		}
		o.Tags[key] = value
	}
	return o, nil
}

// newClient returns a client with the configuration from the environment. The parameters region and
// address take precedence unless they are empty. The SDK reads the environment of the process, but
// o.Getenv takes precedence for the region, the profile and the keys.
func newClient(ctx context.Context, o *scheme.Opening, region, address string) (*secretsmanager.Client, error) {
	options := []func(*config.LoadOptions) error{config.WithLogger(newLogger(o.Note))}
	if region = cmp.Or(region, o.Getenv("AWS_REGION"), o.Getenv("AWS_DEFAULT_REGION")); region != "" {
		options = append(options, config.WithRegion(region))
	}
	key, profile := o.Getenv(envKeyID), o.Getenv("AWS_PROFILE")
	if profile != "" {
		options = append(options, config.WithSharedConfigProfile(profile))
	}
	if key != "" {
		options = append(options, config.WithCredentialsProvider(
			credentials.NewStaticCredentialsProvider(key, o.Getenv(envSecret), o.Getenv("AWS_SESSION_TOKEN"))))
	}
	if address != "" {
		e, err := scheme.ParseEndpoint(address)
		if err != nil {
			return nil, err
		}
		if e.Plain && key == "" && profile == "" {
			// An emulator requires signed requests, but accepts any signature.
			options = append(options, config.WithCredentialsProvider(
				credentials.NewStaticCredentialsProvider("emulator", rand.Text(), "")))
		}
		address = e.URL.String()
	}
	c, err := config.LoadDefaultConfig(ctx, options...)
	switch {
	case err != nil:
		return nil, scheme.Usagef("the configuration of AWS: %w", err)
	case c.Region == "":
		return nil, scheme.Usagef("no AWS region: write ?region=… or set AWS_REGION")
	case !hasCredentials(ctx, c.Credentials):
		return nil, scheme.Usagef("no AWS credentials: set %s and %s, or AWS_PROFILE", envKeyID, envSecret)
	}
	return secretsmanager.NewFromConfig(c, func(c *secretsmanager.Options) {
		c.HTTPClient = wholesend.Client{Doer: c.HTTPClient}
		if address != "" {
			c.BaseEndpoint = aws.String(address)
		}
	}), nil
}

// hasCredentials reports whether c may have credentials. If no credentials are configured, the SDK
// uses the role of the virtual machine, even outside a virtual machine. hasCredentials therefore
// requests the credentials of that role, and returns false if the request fails. It returns true
// for all other credentials, and if ctx is done.
func hasCredentials(ctx context.Context, c aws.CredentialsProvider) bool {
	if !aws.IsCredentialsProvider(c, (*ec2rolecreds.Provider)(nil)) {
		return true
	}
	_, err := c.Retrieve(ctx)
	return err == nil || ctx.Err() != nil
}

// newLogger returns a logger that passes the SDK's warnings to note, one at a time. The logger
// is safe for concurrent use.
func newLogger(note func(string, ...any)) logging.Logger {
	var mu sync.Mutex
	return logging.LoggerFunc(func(class logging.Classification, format string, args ...any) {
		if class != logging.Warn {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		note("the SDK of AWS: "+format, args...)
	})
}
