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

// keepBuilds is how long a program stays in the cache that is not the newest one:
// another branch may need it.
const keepBuilds = 14 * 24 * time.Hour

// vaultdev is the program of the folder vaultdev, built once for all tests.
var vaultdev = sync.OnceValues(func() (string, error) {
	if path := os.Getenv("TOKENKEEP_VAULTDEV"); path != "" {
		if _, err := os.Stat(path); err != nil {
			return "", fmt.Errorf("TOKENKEEP_VAULTDEV: %w", err)
		}
		return path, nil
	}
	path, err := locateVaultdev()
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if testing.Short() {
		return "", absent("vaultdev has not been built, and with -short it is not")
	}
	logf("building vaultdev; the first time this takes minutes")
	began := time.Now()
	if err := buildTo("vaultdev", path); err != nil {
		return "", err
	}
	removeOld(filepath.Dir(path), path)
	logf("built vaultdev in %v", time.Since(began).Round(time.Second))
	return path, nil
})

// fakes is the program of the folder fakes. Go's own cache makes building it
// quick; what it is built of is all of the module.
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

// cacheDir returns the folder of this module in the user's cache.
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

// locateVaultdev returns where the program is kept. The name depends on all that
// goes into it, so that a program which is there is the right one, and one that
// is running is never written over.
func locateVaultdev() (string, error) {
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	files, err := filepath.Glob(filepath.Join("vaultdev", "*.go"))
	if err != nil {
		return "", err
	}
	files = append(files, filepath.Join("vaultdev", "go.mod"), filepath.Join("vaultdev", "go.sum"))
	slices.Sort(files)
	sum, err := hashFiles(files...)
	if err != nil {
		return "", err
	}
	return filepath.Join(cache, "vaultdev-"+sum+exe()), nil
}

// hashFiles returns a digest of the files, and of what else makes two builds of
// them differ.
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

// buildTo builds the program in a folder beside where it is to be and moves it
// there: other tests may be doing the same.
func buildTo(folder, path string) error {
	temp, err := os.MkdirTemp(filepath.Dir(path), "build-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	built := filepath.Join(temp, filepath.Base(path))
	// The folder may be a module of its own. The program is to run in an image
	// that has nothing else.
	cmd := exec.CommandContext(context.Background(), "go", "build", "-C", folder, "-trimpath", "-ldflags=-s -w", "-o", built, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, out)
	}
	return os.Rename(built, path)
}

// removeOld removes the programs that were built long ago, except the one with
// the given path, and what builds that were killed have left. What cannot be
// removed stays.
func removeOld(dir, except string) {
	for _, pattern := range []string{"vaultdev-*", "fakes-*", "build-*"} {
		old, _ := filepath.Glob(filepath.Join(dir, pattern))
		for _, name := range old {
			if info, err := os.Stat(name); err == nil && name != except && time.Since(info.ModTime()) > keepBuilds {
				_ = os.RemoveAll(name)
			}
		}
	}
}
