package integration

import (
	"cmp"
	"context"
	"errors"
	"os"
	"testing"

	secretmanager "cloud.google.com/go/secretmanager/apiv1"
	"cloud.google.com/go/secretmanager/apiv1/secretmanagerpb"
	"google.golang.org/api/iterator"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// A GCP is Google's Secret Manager or a running emulator of it.
type GCP struct {
	*Server
	Parent string // "projects/ID"
}

// SharedGCP returns the Secret Manager that the tests share: the server that
// TOKENKEEP_GCP_ENDPOINT names, or a stand-in, because Google publishes no emulator. If the
// stand-in cannot be started, SharedGCP fails the test.
func SharedGCP(t testing.TB) *GCP {
	t.Helper()
	server := GCPBackend.sharedServer(t, func(ctx context.Context) (*Server, error) {
		switch endpoint := os.Getenv("TOKENKEEP_GCP_ENDPOINT"); endpoint {
		case "":
			return fakeProcess(ctx, "gcp", "no published image of the service")
		case realService:
			return &Server{what: "the service itself", about: "real"}, nil
		default:
			return &Server{Addr: endpoint, what: "server " + endpoint, about: "of unknown kind"}, nil
		}
	})
	server.Watch(t)
	parent := cmp.Or(os.Getenv("TOKENKEEP_GCP_PARENT"), "projects/tokenkeep-test")
	return &GCP{server, parent}
}

// Lags reports whether reads can be stale. Only reads of the service itself can be stale.
func (g *GCP) Lags() bool { return g.Addr == "" }

// Client returns a client with its own connection. The client is closed when the test ends.
func (g *GCP) Client(t testing.TB) *secretmanager.Client {
	t.Helper()
	client, err := gcpClient(t.Context(), g.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// gcpClient returns a client for the server at addr, or for the service itself if
// addr is empty.
func gcpClient(ctx context.Context, addr string, options ...option.ClientOption) (*secretmanager.Client, error) {
	if addr != "" {
		options = append(options, option.WithEndpoint(addr), option.WithoutAuthentication(),
			option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())))
	}
	return secretmanager.NewClient(ctx, options...)
}

// Prefix returns a unique prefix for the names of secrets. On a server that the tests did not
// start, the secrets with the prefix are removed when the test ends.
func (g *GCP) Prefix(t testing.TB) string {
	t.Helper()
	prefix := unique()
	if !g.own() {
		client := g.Client(t)
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
			defer cancel()
			if err := g.remove(ctx, client, prefix); err != nil {
				t.Errorf("clean up: %v", err)
			}
		})
	}
	return prefix
}

// remove deletes all secrets whose names contain prefix.
func (g *GCP) remove(ctx context.Context, client *secretmanager.Client, prefix string) error {
	list := client.ListSecrets(ctx, &secretmanagerpb.ListSecretsRequest{Parent: g.Parent, Filter: "name:" + prefix})
	for {
		s, err := list.Next()
		if errors.Is(err, iterator.Done) {
			return nil
		}
		if err == nil {
			err = client.DeleteSecret(ctx, &secretmanagerpb.DeleteSecretRequest{Name: s.GetName()})
		}
		if err != nil {
			return err
		}
	}
}
