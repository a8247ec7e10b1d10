package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/credentials/ec2rolecreds"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/smithy-go/logging"

	"github.com/tokenkeep/tokenkeep/awssm"
	"github.com/tokenkeep/tokenkeep/internal/wholesend"
)

var awssmScheme = scheme{
	name: "awssm",
	form: "awssm:PREFIX",
	text: `AWS Secrets Manager, with the usual credentials and AWS_REGION, AWS_PROFILE and
so on; awssm:PREFIX?region=eu-central-1&kms-key=KEY&endpoint=URL names the region,
the key that new records are encrypted with, and another endpoint. New records get
the tags of ?tags=team:crm,stage:live; with ?keep-deleted=true the secrets of deleted
records stay, for accounts that deny forced deletion`,
	open: openAWSSM,
}

// Environment variables with credentials of AWS.
const (
	envAWSKeyID  = "AWS_ACCESS_KEY_ID"
	envAWSSecret = "AWS_SECRET_ACCESS_KEY" //nolint:gosec // A name, and no credential.
)

func openAWSSM(ctx context.Context, a *app, rest string) (*store, error) {
	prefix, params, err := query(rest, "region", "endpoint", "kms", "kms-key", "tags", "keep-deleted")
	if err != nil {
		return nil, err
	}
	options, err := awssmOptions(params)
	if err != nil {
		return nil, err
	}
	opts, err := a.storeOptions()
	if err != nil {
		return nil, err
	}
	client, err := a.awsClient(ctx, params["region"], params["endpoint"])
	if err != nil {
		return nil, err
	}
	options.Store = opts
	s, err := awssm.New(client, prefix, options)
	at := strings.Join([]string{
		"awssm", client.Options().Region, params["endpoint"], a.env("AWS_PROFILE"), a.env(envAWSKeyID), prefix,
	}, " ")
	return portable(s, err, opts, &store{place: at, counted: true, lag: settleTime})
}

// awssmOptions returns the options that the parameters of a URL name.
func awssmOptions(params map[string]string) (*awssm.Options, error) {
	o := &awssm.Options{KMSKeyID: cmp.Or(params["kms-key"], params["kms"])}
	if params["kms"] != "" && params["kms-key"] != "" {
		return nil, usagef("kms and kms-key are one parameter: give one of them")
	}
	switch params["keep-deleted"] {
	case "true":
		o.KeepDeleted = true
	case "", "false":
	default:
		return nil, usagef("keep-deleted is true or false")
	}
	if params["tags"] == "" {
		return o, nil
	}
	o.Tags = map[string]string{}
	for tag := range strings.SplitSeq(params["tags"], ",") {
		key, value, ok := strings.Cut(tag, ":")
		if _, twice := o.Tags[key]; !ok || key == "" || value == "" || twice {
			return nil, usagef("tags are written as tags=KEY:VALUE,KEY:VALUE, each key once")
		}
		o.Tags[key] = value
	}
	return o, nil
}

// awsClient returns a client as the environment configures it. The SDK reads the
// environment of the process; what a.env says comes before that.
func (a *app) awsClient(ctx context.Context, region, address string) (*secretsmanager.Client, error) {
	options := []func(*config.LoadOptions) error{config.WithLogger(a.awsLogger())}
	if region = cmp.Or(region, a.env("AWS_REGION"), a.env("AWS_DEFAULT_REGION")); region != "" {
		options = append(options, config.WithRegion(region))
	}
	key, profile := a.env(envAWSKeyID), a.env("AWS_PROFILE")
	if profile != "" {
		options = append(options, config.WithSharedConfigProfile(profile))
	}
	if key != "" {
		options = append(options, config.WithCredentialsProvider(
			credentials.NewStaticCredentialsProvider(key, a.env(envAWSSecret), a.env("AWS_SESSION_TOKEN"))))
	}
	if address != "" {
		e, err := parseEndpoint(address)
		if err != nil {
			return nil, err
		}
		if e.plain && key == "" && profile == "" {
			// An emulator wants requests to be signed, and does not mind by whom.
			options = append(options, config.WithCredentialsProvider(
				credentials.NewStaticCredentialsProvider("emulator", rand.Text(), "")))
		}
		address = e.url.String()
	}
	c, err := config.LoadDefaultConfig(ctx, options...)
	switch {
	case err != nil:
		return nil, usagef("the configuration of AWS: %w", err)
	case c.Region == "":
		return nil, usagef("no region of AWS: write ?region=… or set AWS_REGION")
	case !hasCredentials(ctx, c.Credentials):
		return nil, usagef("no credentials of AWS: set %s and %s, or AWS_PROFILE", envAWSKeyID, envAWSSecret)
	}
	return secretsmanager.NewFromConfig(c, func(o *secretsmanager.Options) {
		o.HTTPClient = wholesend.Client{Doer: o.HTTPClient}
		if address != "" {
			o.BaseEndpoint = aws.String(address)
		}
	}), nil
}

// hasCredentials reports whether there are any. The role of a virtual machine is
// what the SDK looks for last, if nothing names others: then they are asked for
// now, once, and that there is no machine to ask is not for a call to say. Whether
// ctx has ended is.
func hasCredentials(ctx context.Context, c aws.CredentialsProvider) bool {
	if !aws.IsCredentialsProvider(c, (*ec2rolecreds.Provider)(nil)) {
		return true
	}
	_, err := c.Retrieve(ctx)
	return err == nil || ctx.Err() != nil
}

// awsLogger returns a logger that writes what the SDK warns of as remarks of this
// program. Its calls come from several goroutines.
func (a *app) awsLogger() logging.Logger {
	var mu sync.Mutex
	return logging.LoggerFunc(func(class logging.Classification, format string, args ...any) {
		if class != logging.Warn {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		a.note("the SDK of AWS: "+format, args...)
	})
}
