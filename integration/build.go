package integration

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// keepBuilds is the time for which a build of a program stays in the cache after its last use.
// Another branch may need an older build.
const keepBuilds = 14 * 24 * time.Hour

// Functions that return the paths of the programs that run Vault and Kubernetes.
var (
	vaultdev = built("vaultdev", "TOKENKEEP_VAULTDEV")
	kubedev  = built("kubedev", "TOKENKEEP_KUBEDEV")
)

// built returns a function that returns the path of the program in folder. If the environment
// variable env is set, its value is the path. Otherwise the first call builds the program,
// unless the cache contains an up-to-date build. With -short, the function returns an absentError
// instead of building the program.
func built(folder, env string) func() (string, error) {
	return sync.OnceValues(func() (string, error) {
		if path := os.Getenv(env); path != "" {
			if _, err := os.Stat(path); err != nil {
				return "", fmt.Errorf("%s: %w", env, err)
			}
			return path, nil
		}
		path, err := locate(folder)
		if err != nil {
			return "", err
		}
		if cached(path) {
			return path, nil
		}
		if testing.Short() {
			return "", absent("%s has not been built, and with -short it is not", folder)
		}
		logf("building %s; the first time this takes minutes", folder)
		began := time.Now()
		if err := buildTo(folder, path); err != nil {
			return "", err
		}
		removeOld(filepath.Dir(path), path)
		logf("built %s in %v", folder, time.Since(began).Round(time.Second))
		return path, nil
	})
}

// fakes returns the path of the program in the folder fakes. The first call always builds the
// program, because the program depends on the whole module, and Go's own cache makes builds quick.
var fakes = sync.OnceValues(func() (string, error) {
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	temp, err := os.MkdirTemp(cache, "build-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(temp)
	built := filepath.Join(temp, "fakes")
	if err := buildTo("fakes", built); err != nil {
		return "", err
	}
	sum, err := hashFiles(built)
	if err != nil {
		return "", err
	}
	path := filepath.Join(cache, "fakes-"+sum+exe())
	if err := os.Rename(built, path); err != nil {
		return "", err
	}
	removeOld(cache, path)
	return path, nil
})

// cacheDir creates this module's folder in the user's cache, if necessary, and returns its path.
func cacheDir() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "tokenkeep")
	return dir, os.MkdirAll(dir, 0o755)
}

func exe() string {
	if runtime.GOOS == "windows" {
		return ".exe"
	}
	return ""
}

// locate returns the path at which the program of a folder is cached. The name of the file depends
// on the source files, the Go version and the platform. An existing file is therefore up to date.
func locate(folder string) (string, error) {
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	files, err := filepath.Glob(filepath.Join(folder, "*.go"))
	if err != nil {
		return "", err
	}
	files = append(files, filepath.Join(folder, "go.mod"), filepath.Join(folder, "go.sum"))
	slices.Sort(files)
	sum, err := hashFiles(files...)
	if err != nil {
		return "", err
	}
	return filepath.Join(cache, folder+"-"+sum+exe()), nil
}

// hashFiles returns a digest of the files, the Go version and the platform.
func hashFiles(names ...string) (string, error) {
	hash := sha256.New()
	fmt.Fprintln(hash, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			return "", err
		}
		info, err := f.Stat()
		if err == nil {
			fmt.Fprintln(hash, filepath.Base(name), info.Size())
			_, err = io.Copy(hash, f)
		}
		if err := errors.Join(err, f.Close()); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%x", hash.Sum(nil)[:12]), nil
}

// buildTo builds the program whose source is in folder. buildTo builds in a temporary folder and
// then moves the program to path, because other test processes may build the same program
// concurrently.
func buildTo(folder, path string) error {
	temp, err := os.MkdirTemp(filepath.Dir(path), "build-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	built := filepath.Join(temp, filepath.Base(path))
	// The folder may be a separate module, so workspaces are off. The program must run in an
	// otherwise empty image, so the program must not use C libraries.
	cmd := exec.CommandContext(context.Background(), "go", "build", "-C", folder, "-trimpath", "-ldflags=-s -w", "-o", built, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, out)
	}
	return os.Rename(built, path)
}

// cached reports whether there is a build at path. If so, cached sets the modification time of
// the build to the current time. removeOld takes the modification time as the time of last use.
func cached(path string) bool {
	if _, err := os.Stat(path); err != nil {
		return false
	}
	now := time.Now()
	_ = os.Chtimes(path, now, now) // fails if the cache is read-only, but then removeOld fails too
	return true
}

// removeOld removes from dir the programs and the remains of killed builds whose last use is more
// than keepBuilds ago. The parameter except is the path of a program to keep. removeOld ignores
// errors.
func removeOld(dir, except string) {
	for _, pattern := range []string{"vaultdev-*", "kubedev-*", "fakes-*", "build-*"} {
		old, _ := filepath.Glob(filepath.Join(dir, pattern))
		for _, name := range old {
			if info, err := os.Stat(name); err == nil && name != except && time.Since(info.ModTime()) > keepBuilds {
				_ = os.RemoveAll(name)
			}
		}
	}
}
