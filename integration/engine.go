package integration

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/testcontainers/testcontainers-go"
	tclog "github.com/testcontainers/testcontainers-go/log"
)

const (
	// pullTimeout limits the time to pull an image.
	pullTimeout = 5 * time.Minute

	// keepContainers is the age at which containers of other runs are removed. A run takes less
	// time, so no running test uses a container of this age.
	keepContainers = 4 * time.Hour

	// label is a label of all containers and of the images built here.
	label = "com.github.tokenkeep.integration"

	// reaper is the image with which testcontainers removes the remains of a killed run.
	reaper = "testcontainers/ryuk:0.14.0"
)

// An engine is a client of a Docker engine.
type engine struct {
	*client.Client
	name string // name of the machine on which the engine runs

	choosing sync.Mutex // held while an image is chosen

	mu      sync.Mutex
	running map[*containerInstance]bool
}

// docker returns the engine that DOCKER_HOST names, or the engine on this machine. The error
// contains an absentError if no engine is available.
var docker = sync.OnceValues(func() (*engine, error) {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	c, err := client.New(client.FromEnv)
	if err != nil {
		return nil, absent("no Docker engine: %v", err)
	}
	info, err := c.Info(ctx, client.InfoOptions{})
	if err != nil {
		return nil, errors.Join(absent("no Docker engine: %v", err), c.Close())
	}
	e := &engine{Client: c, name: info.Info.Name, running: map[*containerInstance]bool{}}
	e.configure(ctx)
	return e, e.removeStale(ctx)
})

// configure sets environment variables of testcontainers. If the reaper's image is not available,
// configure disables the reaper. If the engine runs on this machine, configure sets the host of
// published ports to 127.0.0.1. A unique session ID distinguishes runs with the same parent
// process. configure does not change variables that are already set. configure also disables the
// default logger of testcontainers.
func (e *engine) configure(ctx context.Context) {
	if _, set := os.LookupEnv("TESTCONTAINERS_RYUK_DISABLED"); !set && e.provide(ctx, reaper) != nil {
		_ = os.Setenv("TESTCONTAINERS_RYUK_DISABLED", "true") // fails only for malformed names
	}
	host, err := os.Hostname()
	if _, set := os.LookupEnv("TESTCONTAINERS_HOST_OVERRIDE"); !set && err == nil && host == e.name {
		_ = os.Setenv("TESTCONTAINERS_HOST_OVERRIDE", "127.0.0.1")
	}
	if _, set := os.LookupEnv("TESTCONTAINERS_SESSION_ID"); !set {
		_ = os.Setenv("TESTCONTAINERS_SESSION_ID", unique())
	}
	tclog.SetDefault(tclog.NewNoopLogger())
}

func (e *engine) removeStale(ctx context.Context) error {
	list, err := e.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: client.Filters{}.Add("label", label)})
	if err != nil {
		return err
	}
	for _, c := range list.Items {
		if time.Since(time.Unix(c.Created, 0)) > keepContainers {
			_, err := e.ContainerRemove(ctx, c.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
			if err != nil && !cerrdefs.IsNotFound(err) {
				return err
			}
		}
	}
	return nil
}

// provide pulls the image unless the engine has it.
func (e *engine) provide(ctx context.Context, image string) error {
	_, err := e.ImageInspect(ctx, image)
	if !cerrdefs.IsNotFound(err) {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, pullTimeout)
	defer cancel()
	pull, err := e.ImagePull(ctx, image, client.ImagePullOptions{})
	if err != nil {
		return fmt.Errorf("pull %s: %w", image, err)
	}
	defer pull.Close()
	if err := pull.Wait(ctx); err != nil {
		return fmt.Errorf("pull %s: %w", image, err)
	}
	return nil
}

type image struct {
	ref     string
	about   string // whether the image is real, in words
	standIn bool   // the image is not a published image
}

// choose returns the image that the environment variable env names. If env is not set, choose
// returns the published image or, if the published image is not available, the image that standIn
// builds. standIn is called only on Linux; on other systems, the error contains an absentError.
func (e *engine) choose(ctx context.Context, env, published string, standIn func(context.Context, *engine) (image, error)) (image, error) {
	e.choosing.Lock()
	defer e.choosing.Unlock()
	if ref := os.Getenv(env); ref != "" {
		return image{ref: ref, about: "real"}, e.provide(ctx, ref)
	}
	pull := e.provide(ctx, published)
	if pull == nil {
		return image{ref: published, about: "real"}, nil
	}
	if runtime.GOOS != "linux" {
		return image{}, absent("%v; and images are built here on Linux only", pull)
	}
	i, err := standIn(ctx, e)
	i.about = fmt.Sprintf("stand-in: %s (%s cannot be pulled)", i.about, published)
	return i, err
}

type file struct {
	name   string // path in the image, without a leading "/"
	source string // path on this machine
}

// build returns the name of an image with the given files and Dockerfile instructions. build
// creates the image unless the engine already has an image with the same content.
func (e *engine) build(ctx context.Context, repository string, files []file, instructions ...string) (string, error) {
	return e.buildOf(ctx, repository, files, func() ([]file, error) { return files, nil }, instructions...)
}

// buildOf is like build, for files that take long to create. The function make creates the
// files, and is called only if the engine has no image for the same key and instructions.
func (e *engine) buildOf(ctx context.Context, repository string, key []file, make func() ([]file, error), instructions ...string) (string, error) {
	var names []string
	for _, f := range key {
		names = append(names, f.source)
	}
	sum, err := hashFiles(names...)
	if err != nil {
		return "", err
	}
	text := sha256.Sum256([]byte(sum + strings.Join(instructions, "\n")))
	// The tag must be "latest", because testcontainers parses tags as versions.
	repository, kind := fmt.Sprintf("%s-%x", repository, text[:6]), repository
	ref := repository + ":latest"
	if _, err := e.ImageInspect(ctx, ref); !cerrdefs.IsNotFound(err) {
		return ref, err
	}
	files, err := make()
	if err != nil {
		return "", err
	}
	r, w := io.Pipe()
	go func() { w.CloseWithError(writeTar(w, files)) }()
	defer r.Close()
	answer, err := e.ImageImport(ctx, client.ImageImportSource{Source: r, SourceName: "-"}, ref, client.ImageImportOptions{
		Changes: append(instructions, "LABEL "+label+"="+kind),
	})
	if err != nil {
		return "", fmt.Errorf("import %s: %w", ref, err)
	}
	defer answer.Close()
	if _, err := io.Copy(io.Discard, answer); err != nil {
		return "", fmt.Errorf("import %s: %w", ref, err)
	}
	if _, err := e.ImageInspect(ctx, ref); err != nil { // a failed import is reported only in the text of the response, so check the image
		return "", fmt.Errorf("import %s: %w", ref, err)
	}
	return ref, e.removeOthers(ctx, kind, ref)
}

// removeOthers removes the images of the given kind, except ref and the images that other runs
// use.
func (e *engine) removeOthers(ctx context.Context, kind, ref string) error {
	list, err := e.ImageList(ctx, client.ImageListOptions{Filters: client.Filters{}.Add("label", label+"="+kind)})
	if err != nil {
		return err
	}
	for _, i := range list.Items {
		if len(i.RepoTags) == 1 && i.RepoTags[0] != ref {
			_, _ = e.ImageRemove(ctx, i.ID, client.ImageRemoveOptions{}) // fails if another run uses the image
		}
	}
	return nil
}

// writeTar writes files and their folders to w as a tar archive, with an empty folder "tmp".
func writeTar(w io.Writer, files []file) error {
	archive := tar.NewWriter(w)
	made := map[string]bool{".": true}
	for _, f := range files {
		if err := writeFolders(archive, path.Dir(f.name), made); err != nil {
			return err
		}
		if err := writeFile(archive, f); err != nil {
			return err
		}
	}
	// Programs expect a folder for temporary files.
	if err := archive.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "tmp/", Mode: 0o1777}); err != nil {
		return err
	}
	return archive.Close()
}

func writeFolders(archive *tar.Writer, name string, made map[string]bool) error {
	if made[name] {
		return nil
	}
	made[name] = true
	if err := writeFolders(archive, path.Dir(name), made); err != nil {
		return err
	}
	return archive.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o755})
}

func writeFile(archive *tar.Writer, f file) error {
	source, err := os.Open(f.source)
	if err != nil {
		return err
	}
	defer source.Close()
	info, err := source.Stat()
	if err != nil {
		return err
	}
	if err := archive.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: f.name, Mode: int64(info.Mode().Perm()), Size: info.Size()}); err != nil {
		return err
	}
	_, err = io.Copy(archive, source)
	return err
}

type containerInstance struct {
	engine    *engine
	container testcontainers.Container
	image     string
	port      string

	mu     sync.Mutex
	killed bool
	dead   chan struct{}
	once   sync.Once
}

// run calls start, which must start a container from the image i. run returns the container, and
// the address at which the container's port is published.
func (e *engine) run(ctx context.Context, i image, port string, start func(options ...testcontainers.ContainerCustomizer) (testcontainers.Container, error)) (*containerInstance, string, error) {
	began := time.Now()
	c, err := start(testcontainers.WithLabels(map[string]string{label: "server"}))
	if c == nil {
		return nil, "", err
	}
	run := &containerInstance{engine: e, container: c, image: i.ref, port: port, dead: make(chan struct{})}
	e.mu.Lock()
	e.running[run] = true
	e.mu.Unlock()
	addr := ""
	if err == nil {
		addr, err = run.watch(ctx)
	}
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, tail(run.log(ctx), 4<<10))
		return nil, "", errors.Join(err, run.stop(context.WithoutCancel(ctx)))
	}
	logf("%s started, ready after %v", run.what(), time.Since(began).Round(time.Millisecond))
	return run, addr, nil
}

// stopAll removes the containers that the tests did not remove.
func (e *engine) stopAll(ctx context.Context) error {
	e.mu.Lock()
	running := slices.Collect(maps.Keys(e.running))
	e.mu.Unlock()
	var errs []error
	for _, c := range running {
		errs = append(errs, c.stop(ctx))
	}
	return errors.Join(errs...)
}

func (c *containerInstance) what() string {
	return fmt.Sprintf("container %.12s of %s", c.container.GetContainerID(), c.image)
}

// watch returns the address of the server, and starts a goroutine that closes c.dead if the
// container ends unexpectedly.
func (c *containerInstance) watch(ctx context.Context) (string, error) {
	addr, err := c.container.PortEndpoint(ctx, c.port, "")
	if err != nil {
		return "", err
	}
	wait := c.engine.ContainerWait(context.WithoutCancel(ctx), c.container.GetContainerID(), client.ContainerWaitOptions{Condition: container.WaitConditionNotRunning})
	go func() {
		select {
		case <-wait.Result:
		case <-wait.Error: // the engine does not answer, so the container counts as ended
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if !c.killed {
			c.once.Do(func() {
				logf("%s has died", c.what())
				close(c.dead)
			})
		}
	}()
	return addr, nil
}

func (c *containerInstance) kill(ctx context.Context) error {
	c.expect(true)
	_, err := c.engine.ContainerKill(ctx, c.container.GetContainerID(), client.ContainerKillOptions{Signal: "KILL"})
	if err != nil {
		return err
	}
	wait := c.engine.ContainerWait(ctx, c.container.GetContainerID(), client.ContainerWaitOptions{Condition: container.WaitConditionNotRunning})
	select {
	case <-wait.Result:
		return nil
	case err := <-wait.Error:
		return err
	}
}

func (c *containerInstance) expect(killed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.killed = killed
}

func (c *containerInstance) start(ctx context.Context) (string, error) {
	if err := c.container.Start(ctx); err != nil {
		return "", err
	}
	c.expect(false)
	return c.watch(ctx)
}

func (c *containerInstance) stop(ctx context.Context) error {
	c.expect(true)
	// The data is discarded, so the server needs no time to save it.
	err := c.container.Terminate(ctx, testcontainers.StopTimeout(0))
	if err != nil && !cerrdefs.IsNotFound(err) {
		return err
	}
	c.engine.mu.Lock()
	delete(c.engine.running, c)
	c.engine.mu.Unlock()
	logf("%s removed", c.what())
	return nil
}

func (c *containerInstance) running(ctx context.Context) bool {
	is, err := c.engine.ContainerInspect(ctx, c.container.GetContainerID(), client.ContainerInspectOptions{})
	return err == nil && is.Container.State.Running
}

func (c *containerInstance) died() <-chan struct{} { return c.dead }

func (c *containerInstance) log(ctx context.Context) string {
	r, err := c.container.Logs(ctx)
	if err != nil {
		return fmt.Sprintf("(no log: %v)", err)
	}
	defer r.Close()
	text, err := io.ReadAll(r)
	if err != nil {
		return fmt.Sprintf("%s\n(the log was interrupted: %v)", text, err)
	}
	return string(text)
}

// left returns the remaining containers, networks and volumes of this run.
func (e *engine) left(ctx context.Context) ([]string, error) {
	session := client.Filters{}.Add("label", "org.testcontainers.sessionId="+testcontainers.SessionID())
	var left []string
	containers, err := e.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: session})
	if err != nil {
		return nil, err
	}
	for _, c := range containers.Items {
		if c.Image != reaper { // the reaper ends shortly after the run
			left = append(left, "container "+c.ID)
		}
	}
	networks, err := e.NetworkList(ctx, client.NetworkListOptions{Filters: session})
	if err != nil {
		return nil, err
	}
	for _, n := range networks.Items {
		left = append(left, "network "+n.Name)
	}
	volumes, err := e.VolumeList(ctx, client.VolumeListOptions{Filters: session})
	if err != nil {
		return nil, err
	}
	for _, v := range volumes.Items {
		left = append(left, "volume "+v.Name)
	}
	return left, nil
}

// logf prints a line to standard error immediately, so that the output names the containers
// even if the tests are killed.
func logf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, time.Now().Format("15:04:05.000 ")+format+"\n", args...)
}
