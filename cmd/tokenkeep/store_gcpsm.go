package main

import (
	"context"
	"net"
	"strings"

	"cloud.google.com/go/auth/credentials"
	secretmanager "cloud.google.com/go/secretmanager/apiv1"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/tokenkeep/tokenkeep/gcpsm"
)

var gcpsmScheme = scheme{
	name: "gcpsm",
	form: "gcpsm:PROJECT/PREFIX",
	text: `Google Cloud's Secret Manager, with the application default credentials
(GOOGLE_APPLICATION_CREDENTIALS and so on);
gcpsm:PROJECT/PREFIX?location=europe-west3&endpoint=URL names the region that
secrets are kept in, and another endpoint. New secrets get what these name:
replicas=europe-west3,europe-west1 the locations of a secret that has no region,
kms-key=KEY the key of Cloud KMS, one for each replica, in the same order,
labels=team=crm,env=prod labels of your own`,
	open: openGCPSM,
}

// gcpEnvCredentials is the environment variable that names a file with credentials.
const gcpEnvCredentials = "GOOGLE_APPLICATION_CREDENTIALS" //nolint:gosec // A name, and no credential.

func openGCPSM(ctx context.Context, a *app, rest string) (*store, error) {
	rest, params, err := query(rest, "location", "endpoint", "replicas", "kms-key", "labels")
	if err != nil {
		return nil, err
	}
	options, err := gcpsmOptions(params)
	if err != nil {
		return nil, err
	}
	project, prefix, ok := strings.Cut(rest, "/")
	if !ok || project == "" {
		return nil, usagef("gcpsm: needs a project and a prefix: gcpsm:PROJECT/PREFIX")
	}
	opts, err := a.storeOptions()
	if err != nil {
		return nil, err
	}
	options.Store = opts
	parent := "projects/" + project
	if location := params["location"]; location != "" {
		parent += "/locations/" + location
	}
	client, err := a.gcpClient(ctx, params["location"], params["endpoint"])
	if err != nil {
		return nil, err
	}
	s, err := gcpsm.New(client, parent, prefix, options)
	at := strings.Join([]string{"gcpsm", params["endpoint"], parent, prefix}, " ")
	return portable(s, err, opts, &store{place: at, counted: true, lag: settleTime, close: client.Close})
}

// gcpsmOptions returns what new secrets are given.
func gcpsmOptions(params map[string]string) (*gcpsm.Options, error) {
	options := &gcpsm.Options{KMSKey: params["kms-key"]}
	if text := params["replicas"]; text != "" {
		for location := range strings.SplitSeq(text, ",") {
			options.Replicas = append(options.Replicas, gcpsm.Replica{Location: location})
		}
	}
	if options.Replicas != nil && options.KMSKey != "" {
		keys := strings.Split(options.KMSKey, ",")
		if len(keys) != len(options.Replicas) {
			return nil, usagef("gcpsm: kms-key names %d keys for %d replicas: each has one of its own location", len(keys), len(options.Replicas))
		}
		for i, key := range keys {
			options.Replicas[i].KMSKey = key
		}
		options.KMSKey = ""
	}
	if text := params["labels"]; text != "" {
		options.Labels = map[string]string{}
		for pair := range strings.SplitSeq(text, ",") {
			key, value, ok := strings.Cut(pair, "=")
			if _, twice := options.Labels[key]; !ok || twice {
				return nil, usagef("gcpsm: labels are written labels=KEY=VALUE,KEY=VALUE, each key once")
			}
			options.Labels[key] = value
		}
	}
	return options, nil
}

// gcpClient returns a client with the usual credentials. It is closed with the
// store.
func (a *app) gcpClient(ctx context.Context, location, address string) (*secretmanager.Client, error) {
	options := []option.ClientOption{option.WithGRPCDialOption(grpc.WithChainUnaryInterceptor(countCall))}
	if location != "" && address == "" {
		options = append(options, option.WithEndpoint("secretmanager."+location+".rep.googleapis.com:443"))
	}
	plain := false
	if address != "" {
		e, err := parseEndpoint(address)
		if err != nil {
			return nil, err
		}
		port := e.url.Port()
		if port == "" {
			port = "443"
		}
		plain = e.plain
		options = append(options, option.WithEndpoint(net.JoinHostPort(e.url.Hostname(), port)))
	}
	if plain {
		options = append(options, option.WithoutAuthentication(),
			option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())))
	} else if name := a.env(gcpEnvCredentials); name != "" {
		c, err := credentials.DetectDefault(&credentials.DetectOptions{
			CredentialsFile: name, //nolint:staticcheck // It is unsafe for files of others; this one is the user's own.
			Scopes:          secretmanager.DefaultAuthScopes(),
		})
		if err != nil {
			return nil, usagef("the file that %s names cannot be used as credentials", gcpEnvCredentials) // the cause may quote it
		}
		options = append(options, option.WithAuthCredentials(c))
	}
	client, err := secretmanager.NewClient(ctx, options...)
	if err != nil {
		return nil, usagef("the configuration of Google Cloud: %w", err)
	}
	return client, nil
}
