package tokenkeep_test

import (
	"cmp"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// forTests reports whether only tests and examples import the package with the given path.
func forTests(path string) bool {
	return strings.HasPrefix(path, "internal/fake") || path == "internal/zohoaccounts" || path == "internal/authservers"
}

// TestNothingIsComputedAtInit checks that packages have no init functions, and do not call
// functions such as regexp.MustCompile at initialization. Such code would delay every program
// that imports the package.
func TestNothingIsComputedAtInit(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		if forTests(p.path) {
			continue
		}
		files, err := filepath.Glob(filepath.Join(p.path, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range files {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			fset := token.NewFileSet()
			f, err := parser.ParseFile(fset, name, nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			for _, decl := range f.Decls {
				for _, n := range atInit(decl) {
					t.Errorf("%s: runs at init", fset.Position(n.Pos()))
				}
			}
		}
	}
}

// atInit returns the parts of a declaration that delay initialization: functions named init, and
// calls of functions with Must in their names.
func atInit(decl ast.Decl) (found []ast.Node) {
	switch d := decl.(type) {
	case *ast.FuncDecl:
		if d.Recv == nil && d.Name.Name == "init" {
			return []ast.Node{d}
		}
	case *ast.GenDecl:
		ast.Inspect(d, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncLit:
				return false // the function does not run at initialization
			case *ast.CallExpr:
				if callee, ok := n.Fun.(*ast.SelectorExpr); ok && strings.Contains(callee.Sel.Name, "Must") {
					found = append(found, n)
				}
			}
			return true
		})
	}
	return found
}

func TestAtInitFindsWhatRuns(t *testing.T) {
	t.Parallel()
	for code, want := range map[string]int{
		`func init() {}`:                  1,
		`func (t T) init() {}`:            0,
		`var p = regexp.MustCompile("a")`: 1,
		`var p = []T{{regexp.MustCompile(""), template.Must(nil, nil)}}`:                   2,
		`var p = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile("a") })`: 0,
		`func f() { regexp.MustCompile("a") }`:                                             0,
	} {
		f, err := parser.ParseFile(token.NewFileSet(), "a.go", "package a\n"+code, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		if got := len(atInit(f.Decls[0])); got != want {
			t.Errorf("%s: %d, want %d", code, got, want)
		}
	}
}

var initTrace = regexp.MustCompile(`(?m)^init (\S+) @.* clock, ([0-9]+) bytes, ([0-9]+) allocs$`)

// TestInitIsSmall limits the memory that the packages of this module allocate at
// initialization. It measures only the packages that this test binary imports.
func TestInitIsSmall(t *testing.T) {
	t.Parallel()
	const mostBytes, mostAllocs = 8 << 10, 100
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, "-test.run=^$")
	cmd.Env = append(os.Environ(), "GODEBUG=inittrace=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	seen := map[string]bool{}
	for _, line := range initTrace.FindAllStringSubmatch(string(out), -1) {
		path, ours := strings.CutPrefix(line[1], module+"/")
		if !ours || strings.HasSuffix(path, "_test") || forTests(path) || path == "conformance" {
			continue
		}
		seen[path] = true
		size, err := strconv.Atoi(line[2])
		allocs, err2 := strconv.Atoi(line[3])
		if err := cmp.Or(err, err2); err != nil {
			t.Fatal(err)
		}
		if size > mostBytes || allocs > mostAllocs {
			t.Errorf("package %s allocates %d times and %d bytes at init, at most %d and %d are allowed", path, allocs, size, mostAllocs, mostBytes)
		}
	}
	for _, path := range []string{"awssm", "gcpsm", "vaultstore", "tokenstore/sqlstore"} {
		if !seen[path] {
			t.Errorf("there is no trace of package %s", path)
		}
	}
}
