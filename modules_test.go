package tokenkeep_test

import (
	"cmp"
	"fmt"
	"go/version"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// sdks maps each adapter to a module that no other adapter needs.
var sdks = map[string]string{
	"awssm": "github.com/aws/aws-sdk-go-v2 ", "gcpsm": "cloud.google.com/go/secretmanager ",
	"vaultstore": "github.com/hashicorp/vault/api ", "k8sstore": "k8s.io/client-go ",
}

// TestProgramsGetOneSDK checks that the go.mod and go.sum of a program that imports one adapter
// do not contain the SDKs of other adapters.
func TestProgramsGetOneSDK(t *testing.T) {
	t.Parallel()
	root, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for adapter := range sdks {
		t.Run(adapter, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			write := func(name, text string) {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			write("main.go", fmt.Sprintf("package main\n\nimport _ %q\n\nfunc main() {}\n", module+"/"+adapter))
			write("go.mod", fmt.Sprintf("module program\n\ngo 1.26.0\n\nrequire %s v0.0.0\n\nreplace %[1]s => %s\n", module, root))
			// "go mod tidy" writes the go.sum of the program. The command needs no network, because
			// the module cache has all modules that this module requires.
			tidy := exec.CommandContext(t.Context(), "go", "mod", "tidy")
			tidy.Dir, tidy.Env = dir, append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off")
			if out, err := tidy.CombinedOutput(); err != nil {
				t.Fatalf("go mod tidy: %v\n%s", err, out)
			}
			var has strings.Builder
			for _, name := range []string{"go.mod", "go.sum"} {
				text, err := os.ReadFile(filepath.Join(dir, name))
				if err != nil {
					t.Fatal(err)
				}
				has.Write(text)
			}
			for other, sdk := range sdks {
				if got := strings.Contains(has.String(), sdk); got != (other == adapter) {
					t.Errorf("that the program has %s: %v", strings.TrimSpace(sdk), got)
				}
			}
		})
	}
}

// TestOldestGo checks that go.mod requires the oldest version of Go that the dependencies allow.
func TestOldestGo(t *testing.T) {
	t.Parallel()
	const format = "{{with .Module}}{{if .Main}}={{end}}go{{.GoVersion}}{{end}}"
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", format, "./...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	ours, oldest := "", ""
	for _, v := range strings.Fields(string(out)) {
		if main, ok := strings.CutPrefix(v, "="); ok {
			ours = main
		} else if version.Compare(v, oldest) > 0 {
			oldest = v
		}
	}
	if ours == "" || version.Compare(ours, oldest) != 0 {
		t.Errorf("go.mod asks for %s, and the dependencies for %s", ours, oldest)
	}
}

// pinnedByHand lists the modules whose requirements are changed by hand, and not by the
// Makefile or Dependabot: see docs/adr/0002.
var pinnedByHand = []string{"integration/kubedev", "integration/vaultdev"}

// TestModulesAreKept checks that the Makefile and the configuration of Dependabot list all
// modules of this repository, except those in pinnedByHand.
func TestModulesAreKept(t *testing.T) {
	t.Parallel()
	var modules []string
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		dir := filepath.ToSlash(filepath.Dir(path))
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == ".git" || d.Name() == "testdata" || d.Name() == "node_modules"):
			return filepath.SkipDir
		case d.Name() == "go.mod" && !slices.Contains(pinnedByHand, dir):
			modules = append(modules, dir)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, list := range map[string]*regexp.Regexp{
		"Makefile":               regexp.MustCompile(`(?m)^MODULES += (.*)$`),
		".github/dependabot.yml": regexp.MustCompile(`directories: \[(.*)\]`),
	} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		m := list.FindSubmatch(text)
		if m == nil {
			t.Fatalf("%s has no list of modules", name)
		}
		var listed []string
		for dir := range strings.FieldsSeq(strings.NewReplacer(`"`, "", ",", " ").Replace(string(m[1]))) {
			listed = append(listed, cmp.Or(strings.TrimPrefix(dir, "/"), "."))
		}
		slices.Sort(listed)
		slices.Sort(modules)
		if !slices.Equal(listed, modules) {
			t.Errorf("%s has the modules %q, want %q", name, listed, modules)
		}
	}
}

// TestTimesAreMeasuredAlone checks that the tests whose names end in _Time, and no other tests,
// are skipped with -short because they measure times. It also checks that "make test-times"
// tests the packages of these tests.
func TestTimesAreMeasuredAlone(t *testing.T) {
	t.Parallel()
	name := regexp.MustCompile(`(?m)^func (Test\w+_Time)\(`)
	short := regexp.MustCompile(`(?m)^func Test\w+_Time\(.*\n\tif testing\.Short\(\) \{\n\t\tt\.Skip\("it measures times"\)\n`)
	const skip = `t.Skip("it measures ` + `times")`
	var dirs []string
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		names := len(name.FindAll(text, -1))
		if skips := strings.Count(string(text), skip); names != skips || names != len(short.FindAll(text, -1)) {
			t.Errorf("%s has %d tests of times and %d that -short skips", path, names, skips)
		}
		if names > 0 {
			dirs = append(dirs, "./"+filepath.ToSlash(filepath.Dir(path)))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("Makefile")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^TIMED += (.*)$`).FindSubmatch(text)
	if m == nil {
		t.Fatal("the Makefile has no list of packages")
	}
	listed := append(strings.Fields(string(m[1])), "./evidence") // evidence is a separate module
	slices.Sort(listed)
	slices.Sort(dirs)
	if dirs = slices.Compact(dirs); !slices.Equal(listed, dirs) {
		t.Errorf("the Makefile has the packages %q, want %q", listed, dirs)
	}
}
