package integration

import (
	"cmp"
	"context"
	"net/http"
	"os"
	"testing"

	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/wait"
)

const openbaoImage = "openbao/openbao:2.6.2"

// SharedOpenBao returns the OpenBao server that the tests share. If there is no Docker engine, or
// the published image cannot be pulled, SharedOpenBao skips the test or, if TOKENKEEP_REQUIRE
// names the backend, fails the test.
func SharedOpenBao(t testing.TB) *Vault {
	t.Helper()
	server := OpenBaoBackend.sharedServer(t, func(ctx context.Context) (*Server, error) {
		return runOpenBao(ctx, sharedToken())
	})
	server.Watch(t)
	v := &Vault{Server: server, Addr: "http://" + server.Addr, RootToken: sharedToken(), Mount: "secret"}
	v.waitForKV(t)
	return v
}

// runOpenBao starts an OpenBao development server in a container. token is the root token, and a
// KV engine is mounted at "secret".
func runOpenBao(ctx context.Context, token string) (*Server, error) {
	engine, err := docker()
	if err != nil {
		return nil, err
	}
	ref := os.Getenv("TOKENKEEP_OPENBAO_IMAGE")
	if err := engine.provide(ctx, cmp.Or(ref, openbaoImage)); err != nil && ref == "" {
		return nil, absent("%v; there is no stand-in for it", err)
	} else if err != nil {
		return nil, err
	}
	i := image{ref: cmp.Or(ref, openbaoImage), about: "real"}
	ready := wait.ForHTTP("/v1/sys/health").WithPort(vaultPort).WithStartupTimeout(startTimeout).
		WithStatusCodeMatcher(func(status int) bool { return status == http.StatusOK })
	run, addr, err := engine.run(ctx, i, vaultPort, func(options ...testcontainers.ContainerCustomizer) (testcontainers.Container, error) {
		c, err := testcontainers.Run(ctx, i.ref, append(options,
			testcontainers.WithExposedPorts(vaultPort),
			testcontainers.WithWaitStrategy(ready),
			testcontainers.WithEnv(map[string]string{"BAO_DEV_ROOT_TOKEN_ID": token}),
			testcontainers.WithCmd("server", "-dev", "-dev-no-store-token"))...)
		if c == nil {
			return nil, err
		}
		return c, err
	})
	if err != nil {
		return nil, err
	}
	health, err := healthOf(ctx, "http://"+addr)
	server := &Server{Addr: addr, what: run.what(), run: run}
	if err == nil {
		server.about = "OpenBao " + health.Version + ", " + i.about
	}
	return server.orStop(err)
}
