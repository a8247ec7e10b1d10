// Package gcp provides the scheme gcpsm, for Google Cloud's Secret Manager, to the command
// tokenkeep.
package gcp

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"strings"

	"cloud.google.com/go/auth/credentials"
	secretmanager "cloud.google.com/go/secretmanager/apiv1"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/tokenkeep/tokenkeep/cli/internal/policies"
	"github.com/tokenkeep/tokenkeep/cli/scheme"
	"github.com/tokenkeep/tokenkeep/gcpsm"
)

// Scheme returns the scheme of URLs of the form gcpsm:PROJECT/PREFIX.
func Scheme() scheme.Scheme {
	return scheme.Scheme{
		Name: "gcpsm",
		Form: "gcpsm:PROJECT/PREFIX",
		Text: `Google Cloud's Secret Manager, with the application default credentials
(GOOGLE_APPLICATION_CREDENTIALS and so on);
gcpsm:PROJECT/PREFIX?location=europe-west3&endpoint=URL sets the region
of the secrets and the endpoint. For new secrets,
replicas=europe-west3,europe-west1 sets the locations of a secret without a region,
kms-key=KEY the key of Cloud KMS, one for each replica, in the same order, and
labels=team=crm,env=prod further labels. The endpoint of an
emulator may be plain http on this machine; calls to it carry no credentials`,
		Slashes: true,
		Service: "gcpsm",
		SignIn:  "renew them (gcloud auth application-default login)",
		Open:    open,
		Policy: &scheme.Policy{
			Name:     "gcp",
			Argument: "PROJECT",
			Short:    "Print the custom role for a store in Google Cloud Secret Manager",
			Long: `Prints the command that creates a custom role with the minimal permissions for a store
in a project. Grant the role to the program's service account:

  gcloud projects add-iam-policy-binding PROJECT --role=projects/PROJECT/roles/tokenkeep \
    --member=serviceAccount:NAME@PROJECT.iam.gserviceaccount.com --condition=None`,
			New: newPolicy,
		},
	}
}

// newPolicy implements scheme.Policy.New.
func newPolicy(*flag.FlagSet) func(string, bool) (string, error) {
	return func(project string, terraform bool) (string, error) {
		if err := policies.CheckPrefix(project); err != nil {
			return "", scheme.Usagef("a project has letters, digits and hyphens only")
		}
		if !terraform {
			return fmt.Sprintf("gcloud iam roles create tokenkeep --project=%s --title=tokenkeep \\\n  --permissions=%s\n", project, strings.Join(gcpsm.Permissions(), ",")), nil
		}
		var b strings.Builder
		_, _ = fmt.Fprintf(&b, "resource \"google_project_iam_custom_role\" \"tokenkeep\" {\n  project     = %q\n  role_id     = \"tokenkeep\"\n  title       = \"tokenkeep\"\n  permissions = [\n", project)
		for _, p := range gcpsm.Permissions() {
			_, _ = fmt.Fprintf(&b, "    %q,\n", p)
		}
		b.WriteString("  ]\n}\n")
		return b.String(), nil
	}
}

// envCredentials is the environment variable with the path of a credentials file.
const envCredentials = "GOOGLE_APPLICATION_CREDENTIALS" //nolint:gosec // a name, not a credential

func open(ctx context.Context, o *scheme.Opening) (*scheme.Opened, error) {
	rest, params, err := scheme.Query(o.Rest, "location", "endpoint", "replicas", "kms-key", "labels")
	if err != nil {
		return nil, err
	}
	options, err := parseOptions(params)
	if err != nil {
		return nil, err
	}
	project, prefix, ok := strings.Cut(rest, "/")
	if !ok || project == "" {
		return nil, scheme.Usagef("gcpsm: needs a project and a prefix: gcpsm:PROJECT/PREFIX")
	}
	parent := "projects/" + project
	if location := params["location"]; location != "" {
		parent += "/locations/" + location
	}
	client, err := newClient(ctx, o.Getenv, params["location"], params["endpoint"])
	if err != nil {
		return nil, err
	}
	d, err := gcpsm.NewDriver(client, parent, prefix, options)
	if err != nil {
		return nil, errors.Join(scheme.Usage(err), client.Close())
	}
	at := strings.Join([]string{"gcpsm", params["endpoint"], parent, prefix}, " ")
	return &scheme.Opened{Driver: d, Place: at, Counted: true, Close: client.Close}, nil
}

// countCall is a gRPC interceptor that counts each call.
func countCall(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	scheme.CountCall(ctx)
	return invoke(ctx, method, req, reply, conn, opts...)
}

// parseOptions returns the options for new secrets that the parameters of a URL set.
func parseOptions(params map[string]string) (*gcpsm.Options, error) {
	options := &gcpsm.Options{KMSKey: params["kms-key"]}
	if text := params["replicas"]; text != "" {
		for location := range strings.SplitSeq(text, ",") {
			options.Replicas = append(options.Replicas, gcpsm.Replica{Location: location})
		}
	}
	if options.Replicas != nil && options.KMSKey != "" {
		keys := strings.Split(options.KMSKey, ",")
		if len(keys) != len(options.Replicas) {
			return nil, scheme.Usagef("gcpsm: kms-key names %d keys for %d replicas: each has one of its own location", len(keys), len(options.Replicas))
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
				return nil, scheme.Usagef("gcpsm: labels have the form labels=KEY=VALUE,KEY=VALUE, each key once")
			}
			options.Labels[key] = value
		}
	}
	return options, nil
}

// newClient returns a client with the application default credentials, or a client without
// credentials for an emulator with plain http. The caller must close the client.
func newClient(ctx context.Context, env func(string) string, location, address string) (*secretmanager.Client, error) {
	options := []option.ClientOption{option.WithGRPCDialOption(grpc.WithChainUnaryInterceptor(countCall))}
	if location != "" && address == "" {
		options = append(options, option.WithEndpoint("secretmanager."+location+".rep.googleapis.com:443"))
	}
	plain := false
	if address != "" {
		e, err := scheme.ParseEndpoint(address)
		if err != nil {
			return nil, err
		}
		port := e.URL.Port()
		if port == "" {
			port = "443"
		}
		plain = e.Plain
		options = append(options, option.WithEndpoint(net.JoinHostPort(e.URL.Hostname(), port)))
	}
	if plain {
		options = append(options, option.WithoutAuthentication(),
			option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())))
	} else if name := env(envCredentials); name != "" {
		c, err := credentials.DetectDefault(&credentials.DetectOptions{
			CredentialsFile: name, //nolint:staticcheck // unsafe for files from others; this file is the user's own
			Scopes:          secretmanager.DefaultAuthScopes(),
		})
		if err != nil {
			return nil, scheme.Usagef("the file that %s names cannot be used as credentials", envCredentials) // the cause might quote the file
		}
		options = append(options, option.WithAuthCredentials(c))
	}
	client, err := secretmanager.NewClient(ctx, options...)
	if err != nil {
		return nil, scheme.Usagef("the configuration of Google Cloud: %w", err)
	}
	return client, nil
}
