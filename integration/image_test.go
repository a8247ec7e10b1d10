package integration

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
)

const (
	imageUser  = "12345:12345" // neither root nor the user of the image
	imageToken = "0123456789abcdef0123456789abcdef"
	imageTime  = 5 * time.Minute // limit of each part, without the compilation of the program
)

// TestImage checks that the released image, on an empty base, runs the agent by default. The
// agent must answer requests as a user that the image does not define, on a read-only file
// system.
func TestImage(t *testing.T) {
	t.Parallel()
	e := localEngine(t)
	program := filepath.Join(t.TempDir(), "tokenkeep")
	if err := buildTo(filepath.Join("..", "cmd", "tokenkeep"), program); err != nil {
		t.Fatal(err)
	}
	image := e.buildReleased(limited(t), t, program)
	t.Run("defaults", func(t *testing.T) {
		t.Parallel()
		about, err := e.ImageInspect(limited(t), image)
		if err != nil {
			t.Fatal(err)
		}
		c := about.Config
		got := fmt.Sprintf("%s %s %s", c.User, c.Entrypoint, c.Cmd)
		if want := "65532:65532 [/tokenkeep] [serve]"; got != want {
			t.Errorf("the image runs %s, want %s", got, want)
		}
	})
	t.Run("serves", func(t *testing.T) {
		t.Parallel()
		ctx := limited(t)
		id, url := e.serveReleased(ctx, t, image)
		for _, ask := range []struct {
			method, path, token string
			status              int
		}{
			{http.MethodGet, "/healthz", "", http.StatusOK},
			{http.MethodGet, "/readyz", "", http.StatusOK},
			{http.MethodPost, "/v1/list", "", http.StatusUnauthorized},
			{http.MethodPost, "/v1/list", imageToken, http.StatusOK},
		} {
			if status, err := request(ctx, ask.method, url+ask.path, ask.token); err != nil || status != ask.status {
				t.Errorf("%s %s: status %d, want %d: %v", ask.method, ask.path, status, ask.status, err)
			}
		}
		// The agent must end with exit code 0 on SIGTERM.
		if _, err := e.ContainerStop(ctx, id, client.ContainerStopOptions{}); err != nil {
			t.Fatal(err)
		}
		if is, err := e.ContainerInspect(ctx, id, client.ContainerInspectOptions{}); err != nil || is.Container.State.ExitCode != 0 {
			t.Errorf("exit code %d: %v", is.Container.State.ExitCode, err)
		}
	})
}

// limited returns a context that ends after imageTime. Each subtest calls limited itself,
// because a parallel subtest may wait for minutes before it runs.
func limited(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), imageTime)
	t.Cleanup(cancel)
	return ctx
}

// localEngine returns an engine whose containers can use the network of this process. Without such
// an engine, with -short, and on systems other than Linux, localEngine skips the test.
func localEngine(t *testing.T) *engine {
	t.Helper()
	if testing.Short() || runtime.GOOS != "linux" {
		t.Skip("the image is built on Linux, and not with -short")
	}
	e, err := docker()
	if reason := (*absentError)(nil); errors.As(err, &reason) {
		t.Skip(reason)
	} else if err != nil {
		t.Fatal(err)
	}
	if host, err := os.Hostname(); err != nil || host != e.name {
		t.Skipf("the Docker engine is on another machine than the test: %v", err)
	}
	return e
}

// buildReleased builds the image of the released Dockerfile on an empty base, and removes
// the image when the test ends.
func (e *engine) buildReleased(ctx context.Context, t *testing.T, program string) string {
	t.Helper()
	platform := "linux/" + runtime.GOARCH
	r, w := io.Pipe()
	defer r.Close()
	go func() {
		w.CloseWithError(writeTar(w, []file{
			{"Dockerfile", filepath.Join("..", "Dockerfile")},
			{platform + "/tokenkeep", program},
		}))
	}()
	base, ref := "scratch", "tokenkeep-image-"+unique()+":latest"
	answer, err := e.ImageBuild(ctx, r, client.ImageBuildOptions{
		Tags: []string{ref}, Labels: map[string]string{label: "image"}, Remove: true, ForceRemove: true,
		BuildArgs: map[string]*string{"BASE": &base, "TARGETPLATFORM": &platform},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	log, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.ImageInspect(ctx, ref); err != nil { // a failed build is reported only in the text of the response, so check the image
		t.Fatalf("%v\n%s", err, log)
	}
	t.Cleanup(func() {
		if _, err := e.ImageRemove(context.WithoutCancel(ctx), ref, client.ImageRemoveOptions{Force: true}); err != nil {
			t.Error(err)
		}
	})
	return ref
}

// serveReleased runs the agent, and returns the ID of its container and its URL.
func (e *engine) serveReleased(ctx context.Context, t *testing.T, image string) (id, url string) {
	t.Helper()
	c, err := e.ContainerCreate(ctx, client.ContainerCreateOptions{
		Config: &container.Config{
			Image: image, User: imageUser, Tty: true, Labels: map[string]string{label: "server"},
			Env: []string{"TOKENKEEP_STORE=mem:", "TOKENKEEP_AGENT_TOKEN=" + imageToken},
			Cmd: []string{"serve", "--pass-through", "--listen", "127.0.0.1:0"},
		},
		HostConfig: &container.HostConfig{
			NetworkMode: "host", ReadonlyRootfs: true, CapDrop: []string{"ALL"}, SecurityOpt: []string{"no-new-privileges"},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_, err := e.ContainerRemove(context.WithoutCancel(ctx), c.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
		if err != nil && !cerrdefs.IsNotFound(err) {
			t.Error(err)
		}
	})
	if _, err := e.ContainerStart(ctx, c.ID, client.ContainerStartOptions{}); err != nil {
		t.Fatal(err)
	}
	logs, err := e.ContainerLogs(ctx, c.ID, client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true, Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	defer logs.Close()
	var all strings.Builder
	for lines := bufio.NewScanner(io.TeeReader(logs, &all)); lines.Scan(); {
		if url, ok := strings.CutPrefix(strings.TrimSpace(lines.Text()), "listening "); ok {
			return c.ID, url
		}
	}
	t.Fatalf("the agent does not listen:\n%s", &all)
	return "", ""
}

func request(ctx context.Context, method, url, token string) (int, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, http.NoBody)
	if method == http.MethodPost {
		req, err = http.NewRequestWithContext(ctx, method, url, strings.NewReader("{}"))
	}
	if err != nil {
		return 0, err
	}
	if token != "" {
		req.Header.Set("X-Tokenkeep-Token", token)
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	return res.StatusCode, res.Body.Close()
}
