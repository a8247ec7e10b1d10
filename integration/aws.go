package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager/types"
	"github.com/moby/moby/api/types/container"
	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/modules/localstack"
)

const (
	// localstackImage is the last image of LocalStack that runs without an account.
	localstackImage = "localstack/localstack:4.14.0"
	localstackPort  = "4566/tcp"

	// realService, as the value of TOKENKEEP_AWS_ENDPOINT or TOKENKEEP_GCP_ENDPOINT, selects the
	// service itself, with the settings that the client library finds.
	realService = "real"
)

// An AWS is AWS Secrets Manager or a running emulator of it.
type AWS struct {
	*Server
	endpoint string // empty for the service itself
}

// SharedAWS returns the Secrets Manager that the tests share: the server that
// TOKENKEEP_AWS_ENDPOINT names, LocalStack, or a stand-in. If no server is available,
// SharedAWS skips the test or, if TOKENKEEP_REQUIRE names the backend, fails the test.
func SharedAWS(t testing.TB) *AWS {
	t.Helper()
	server := LocalstackBackend.sharedServer(t, func(ctx context.Context) (*Server, error) {
		switch endpoint := os.Getenv("TOKENKEEP_AWS_ENDPOINT"); endpoint {
		case "":
			return runLocalstack(ctx)
		case realService:
			return &Server{what: "the service itself", about: "real"}, nil
		default:
			return &Server{Addr: endpoint, what: "server " + endpoint, about: awsVersion(ctx, endpoint)}, nil
		}
	})
	server.Watch(t)
	a := &AWS{Server: server, endpoint: server.Addr}
	if server.own() {
		a.endpoint = "http://" + server.Addr
	}
	return a
}

// Lags reports whether reads can be stale. Only reads of the service itself can be stale.
func (a *AWS) Lags() bool { return a.endpoint == "" }

// runLocalstack starts LocalStack, or a stand-in if LocalStack is not available.
func runLocalstack(ctx context.Context) (*Server, error) {
	engine, err := docker()
	if reason := (*absentError)(nil); errors.As(err, &reason) {
		return fakeProcess(ctx, "aws", reason.reason, "-localstack")
	} else if err != nil {
		return nil, err
	}
	image, err := engine.choose(ctx, "TOKENKEEP_LOCALSTACK_IMAGE", localstackImage, localstackStandIn)
	if err != nil {
		return nil, err
	}
	run, addr, err := engine.run(ctx, image, localstackPort, func(options ...testcontainers.ContainerCustomizer) (testcontainers.Container, error) {
		options = append(options,
			testcontainers.WithEnv(map[string]string{"SERVICES": "secretsmanager"}),
			// The emulator of Secrets Manager starts no containers, so LocalStack does not
			// need access to the engine.
			testcontainers.WithHostConfigModifier(func(h *container.HostConfig) { h.Binds = nil }),
			testcontainers.WithLogger(quiet{}))
		if token := os.Getenv("LOCALSTACK_AUTH_TOKEN"); token != "" && !image.standIn {
			options = append(options, testcontainers.WithEnv(map[string]string{"LOCALSTACK_AUTH_TOKEN": token}))
		}
		c, err := localstack.Run(ctx, image.ref, options...)
		if c == nil {
			return nil, err
		}
		return c.Container, err
	})
	if err != nil {
		return nil, err
	}
	about := awsVersion(ctx, "http://"+addr)
	if image.standIn {
		about = image.about
	}
	return &Server{Addr: addr, what: run.what(), about: about, run: run}, nil
}

// quiet is a logger that discards all text, for modules of testcontainers that do not use the
// default logger.
type quiet struct{}

func (quiet) Printf(string, ...any) {}

// localstackStandIn builds an image that runs fakeaws in LocalStack mode.
func localstackStandIn(ctx context.Context, e *engine) (image, error) {
	program, err := fakes()
	if err != nil {
		return image{}, err
	}
	i := image{about: "this module's fakeaws, not LocalStack", standIn: true}
	i.ref, err = e.build(ctx, "tokenkeep-standin/fakeaws", []file{{"fakes", program}},
		"EXPOSE "+localstackPort, `ENTRYPOINT ["/fakes", "aws", "-localstack", "-addr", "0.0.0.0:4566"]`)
	return i, err
}

// fakeProcess starts a fake of the service as a process, with the given additional flags. reason,
// which appears in the report, says why the fake is used.
func fakeProcess(ctx context.Context, service, reason string, flags ...string) (*Server, error) {
	program, err := fakes()
	if err != nil {
		return nil, err
	}
	run, addr, err := startProcess(ctx, "", func() *exec.Cmd { return exec.Command(program, append([]string{service, "-stdin"}, flags...)...) })
	if err != nil {
		return nil, err
	}
	return &Server{Addr: addr, what: "process fakes " + service, run: run,
		about: fmt.Sprintf("stand-in: this module's fake%s (%s)", service, reason)}, nil
}

// awsVersion returns the name and the version of the server at endpoint, from LocalStack's health
// page. If the server has no such page, awsVersion returns a text with the word "unknown".
func awsVersion(ctx context.Context, endpoint string) string {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(endpoint, "/")+"/_localstack/health", nil)
	if err != nil {
		return "unknown"
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return "unknown"
	}
	defer resp.Body.Close()
	var health struct{ Edition, Version string }
	if json.NewDecoder(resp.Body).Decode(&health) != nil || health.Version == "" {
		return "of unknown kind"
	}
	if health.Edition == "fakeaws" {
		return "stand-in: this module's fakeaws"
	}
	return "LocalStack " + health.Version + " (" + health.Edition + "), real"
}

// Client returns a client with its own connections.
func (a *AWS) Client(t testing.TB) *secretsmanager.Client {
	t.Helper()
	client, err := awsClient(t.Context(), a.endpoint)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// awsClient returns a client for the server at endpoint, or for the service itself
// if endpoint is empty.
func awsClient(ctx context.Context, endpoint string, options ...func(*secretsmanager.Options)) (*secretsmanager.Client, error) {
	if endpoint == "" {
		c, err := config.LoadDefaultConfig(ctx)
		return secretsmanager.NewFromConfig(c, options...), err
	}
	return secretsmanager.New(secretsmanager.Options{
		BaseEndpoint: &endpoint,
		Region:       emulated.region,
		Credentials:  credentials.NewStaticCredentialsProvider(emulated.key, emulated.secret, ""),
	}, options...), nil
}

// emulated is the configuration of clients for emulators, which accept any values. The
// configuration does not depend on the environment.
var emulated = struct{ region, key, secret string }{"us-east-1", "test", "test"}

// Query returns the query part of a store URL for the command tokenkeep, including the "?". For
// the service itself, Query returns "".
func (a *AWS) Query() string {
	if a.endpoint == "" {
		return ""
	}
	return "?endpoint=" + a.endpoint
}

// Env returns the variables to add to the environment of a program that uses the server. For the
// service itself, Env returns nil.
func (a *AWS) Env() []string {
	if a.endpoint == "" {
		return nil
	}
	return []string{"AWS_REGION=" + emulated.region, "AWS_ACCESS_KEY_ID=" + emulated.key, "AWS_SECRET_ACCESS_KEY=" + emulated.secret}
}

// Prefix returns a unique prefix for the names of secrets. On a server that the tests did not
// start, the secrets with the prefix are removed when the test ends.
func (a *AWS) Prefix(t testing.TB) string {
	t.Helper()
	prefix := unique()
	if !a.own() {
		client := a.Client(t)
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
			defer cancel()
			if err := removeSecrets(ctx, client, prefix); err != nil {
				t.Errorf("clean up: %v", err)
			}
		})
	}
	return prefix
}

// removeSecrets deletes all secrets whose names begin with prefix.
func removeSecrets(ctx context.Context, client *secretsmanager.Client, prefix string) error {
	pages := secretsmanager.NewListSecretsPaginator(client, &secretsmanager.ListSecretsInput{
		IncludePlannedDeletion: aws.Bool(true),
		Filters:                []types.Filter{{Key: types.FilterNameStringTypeName, Values: []string{prefix}}},
	})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return err
		}
		for _, s := range page.SecretList {
			if _, err := client.DeleteSecret(ctx, &secretsmanager.DeleteSecretInput{
				SecretId: s.ARN, ForceDeleteWithoutRecovery: aws.Bool(true),
			}); err != nil {
				return err
			}
		}
	}
	return nil
}
