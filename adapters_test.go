package tokenkeep_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestAdaptersHaveOneShape checks that all adapters have the same files, and that these files
// declare the names in shape. A reader who knows one adapter can then find the same code in
// another.
func TestAdaptersHaveOneShape(t *testing.T) {
	t.Parallel()
	// shape maps each file to the names that the file must declare.
	shape := map[string][]string{
		"driver.go":  append([]string{"secrets", "Format"}, interfaceMethods(t, "tokenstore/driver/driver.go", "Secrets")...),
		"inspect.go": interfaceMethods(t, "tokenstore/driver/inspect.go", "Inspector"),
		"state.go":   {"state", "version", "parse", "encode", "decode"},
		"errors.go":  {"classify", "callError"},
		"calls.go":   {"read", "list"},
		"doc.go":     nil,
	}
	for _, adapter := range []string{"awssm", "gcpsm", "vaultstore", "k8sstore"} {
		t.Run(adapter, func(t *testing.T) {
			t.Parallel()
			want := []string{adapter + ".go"}
			for name, declared := range shape {
				want = append(want, name)
				inOrder := name == "driver.go" || name == "inspect.go"
				checkDeclared(t, filepath.Join(adapter, name), declared, inOrder)
			}
			checkDeclared(t, filepath.Join(adapter, adapter+".go"), []string{"Options", "New", "NewDriver"}, true)
			files, err := filepath.Glob(filepath.Join(adapter, "*.go"))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, f := range files {
				if !strings.HasSuffix(f, "_test.go") {
					got = append(got, filepath.Base(f))
				}
			}
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("the files are %q, want %q", got, want)
			}
		})
	}
}

// checkDeclared checks that a file declares the names in want. If inOrder is set, the file must
// declare the names in the order of want.
func checkDeclared(t *testing.T, file string, want []string, inOrder bool) {
	t.Helper()
	var got []string
	for _, d := range parse(t, file).Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			got = append(got, d.Name.Name)
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				if s, ok := spec.(*ast.TypeSpec); ok {
					got = append(got, s.Name.Name)
				}
			}
		}
	}
	last := -1
	for _, name := range want {
		switch i := slices.Index(got, name); {
		case i < 0:
			t.Errorf("%s does not declare %s", file, name)
		case inOrder && i < last:
			t.Errorf("%s declares %s too early: want the order %q", file, name, want)
		default:
			last = i
		}
	}
}

// interfaceMethods returns the names of the methods that an interface declares, in the order of
// their declarations.
func interfaceMethods(t *testing.T, file, name string) []string {
	t.Helper()
	var methods []string
	ast.Inspect(parse(t, file), func(n ast.Node) bool {
		if s, ok := n.(*ast.TypeSpec); ok && s.Name.Name == name {
			for _, m := range s.Type.(*ast.InterfaceType).Methods.List {
				for _, ident := range m.Names {
					methods = append(methods, ident.Name)
				}
			}
		}
		return true
	})
	if len(methods) == 0 {
		t.Fatalf("%s does not declare the interface %s", file, name)
	}
	return methods
}

func parse(t *testing.T, file string) *ast.File {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	return f
}
