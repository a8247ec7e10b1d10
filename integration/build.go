package integration

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"
)

// vaultdevPackage is what is built.
const vaultdevPackage = "github.com/tokenkeep/tokenkeep/integration/vaultdev"

// keepBuilds is how long a program stays in the cache that is not the newest one:
// another branch may need it.
const keepBuilds = 14 * 24 * time.Hour

// vaultdevPath looks the program up, once for all tests.
var vaultdevPath = sync.OnceValues(locateVaultdev)

// buildVaultdev builds the program, once for all tests.
var buildVaultdev = sync.OnceValue(func() error {
	path, err := vaultdevPath()
	if err != nil {
		return err
	}
	return buildTo(path)
})

// Vaultdev returns the path of the program vaultdev. It is the one that
// TOKENKEEP_VAULTDEV names, or one that was built before, or it is built.
func Vaultdev(t testing.TB) string {
	t.Helper()
	if path := os.Getenv("TOKENKEEP_VAULTDEV"); path != "" {
		if _, err := os.Stat(path); err != nil {
			t.Fatalf("TOKENKEEP_VAULTDEV: %v", err)
		}
		return path
	}
	path, err := vaultdevPath()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err == nil {
		return path
	}
	if testing.Short() {
		Unavailable(t, "vault", "vaultdev has not been built, and with -short it is not")
	}
	t.Log("building vaultdev; the first time this takes minutes")
	if err := buildVaultdev(); err != nil {
		t.Fatal(err)
	}
	return path
}

// locateVaultdev returns where the program is kept. The name depends on all that
// goes into it, so that a program which is there is the right one, and one that
// is running is never written over.
func locateVaultdev() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	out, err := run("go", "list", "-f", "{{.Dir}}\n{{.Module.GoMod}}", vaultdevPackage)
	if err != nil {
		return "", err
	}
	dir, gomod, ok := bytes.Cut(bytes.TrimSpace(out), []byte("\n"))
	if !ok {
		return "", fmt.Errorf("go list %s: unexpected output %q", vaultdevPackage, out)
	}
	files, err := filepath.Glob(filepath.Join(string(dir), "*.go"))
	if err != nil {
		return "", err
	}
	mod := string(bytes.TrimSpace(gomod))
	files = append(files, mod, filepath.Join(filepath.Dir(mod), "go.sum"))
	slices.Sort(files)

	hash := sha256.New()
	fmt.Fprintln(hash, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			return "", err
		}
		fmt.Fprintln(hash, filepath.Base(name), len(data))
		hash.Write(data)
	}
	name := fmt.Sprintf("vaultdev-%x", hash.Sum(nil)[:12])
	if runtime.GOOS == "windows" {
		name += ".exe"
	}
	return filepath.Join(cache, "tokenkeep", name), nil
}

// buildTo builds the program beside where it is to be and moves it there:
// packages are tested at the same time, each by a process of its own.
func buildTo(path string) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	temp, err := os.MkdirTemp(dir, "build-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	built := filepath.Join(temp, filepath.Base(path))
	if _, err := run("go", "build", "-trimpath", "-ldflags=-s -w", "-o", built, vaultdevPackage); err != nil {
		return err
	}
	if err := os.Rename(built, path); err != nil {
		return err
	}
	removeOld(dir, path)
	return nil
}

// removeOld removes the programs that were built long ago, except the one with
// the given path, and what builds that were killed have left. What cannot be
// removed stays.
func removeOld(dir, except string) {
	for _, pattern := range []string{"vaultdev-*", "build-*"} {
		old, _ := filepath.Glob(filepath.Join(dir, pattern))
		for _, name := range old {
			if info, err := os.Stat(name); err == nil && name != except && time.Since(info.ModTime()) > keepBuilds {
				_ = os.RemoveAll(name)
			}
		}
	}
}

// run runs a command without cgo, which vaultdev does not need, and returns its
// output.
func run(name string, args ...string) ([]byte, error) {
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return nil, fmt.Errorf("%s: %w\n%s", cmd, err, exit.Stderr)
	}
	return out, err
}
