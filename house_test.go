package tokenkeep_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/tokenkeep/tokenkeep"

var (
	contract = []string{
		"codec", "internal/members", "internal/stored", "internal/flight", "internal/refusal", "tokenstore", "tokenstore/doctor", "tokenstore/driver", "tokenstore/driverkit",
		"tokenstore/internal/duplicates", "tokenstore/internal/lease", "tokenstore/internal/ledger", "tokenstore/internal/refreshing", "tokenstore/internal/rules",
	}
	shared = slices.Concat(contract, []string{"tokenstore/internal/lockfile", "tokenstore/internal/candidates", "tokenstore/internal/rowstore"})
)

// A rule says what a package may depend on besides the standard library.
type rule struct {
	ours   []string // packages of this module, also through others
	theirs []string // beginnings of the import paths of others', directly
	any    bool     // everything
}

// rules has every package of the module: who imports it gets no more than is
// said here.
var rules = map[string]rule{
	"codec":                          {ours: []string{"internal/members"}},
	"codec/tokenfile":                {ours: []string{"codec", "internal/members"}},
	"tokenstore/driver":              {},
	"tokenstore/driverkit":           {ours: []string{"tokenstore/driver"}},
	"tokenstore":                     {ours: contract},
	"tokenstore/doctor":              {ours: []string{"codec", "internal/members", "internal/stored", "tokenstore/driver", "tokenstore/driverkit", "tokenstore/internal/rules", "tokenstore/internal/ledger", "tokenstore/internal/duplicates"}},
	"keys":                           {ours: contract},
	"tokenstore/memstore":            {ours: contract},
	"tokenstore/filestore":           {ours: slices.Concat(shared, []string{"codec/tokenfile"})},
	"tokenstore/sqlstore":            {ours: shared},
	"tokenstore/migrate":             {ours: slices.Concat(contract, []string{"tokenstore/internal/candidates", "internal/bulk", "internal/sdkid"})},
	"tokenstore/internal/lockfile":   {ours: shared},
	"tokenstore/internal/refreshing": {ours: []string{"codec", "internal/members", "internal/stored", "tokenstore/driver", "tokenstore/internal/rules", "tokenstore/driverkit", "internal/flight", "internal/refusal"}},
	"tokenstore/internal/candidates": {ours: []string{"codec", "internal/members", "tokenstore/driver", "tokenstore/internal/rules"}},
	"tokenstore/internal/duplicates": {ours: []string{"codec", "internal/members", "tokenstore/driver", "tokenstore/internal/rules"}},
	"tokenstore/internal/rowstore":   {ours: shared},
	"tokenstore/internal/lease":      {ours: []string{"codec", "internal/members", "internal/stored", "tokenstore/driver", "tokenstore/driverkit", "tokenstore/internal/rules", "tokenstore/internal/ledger", "tokenstore/internal/refreshing", "internal/flight", "internal/refusal"}},
	"tokenstore/internal/ledger":     {ours: []string{"codec", "internal/members", "internal/stored", "tokenstore/driver", "tokenstore/driverkit", "tokenstore/internal/rules"}},
	"tokenstore/internal/rules":      {ours: []string{"codec", "internal/members", "tokenstore/driver"}},
	"tokenstore/internal/storetest":  {ours: contract},
	"conformance":                    {ours: contract},
	"awssm":                          {ours: contract, theirs: []string{"github.com/aws/"}},
	"gcpsm":                          {ours: contract, theirs: []string{"cloud.google.com/go/", "google.golang.org/", "github.com/googleapis/gax-go/"}},
	"vaultstore":                     {ours: contract, theirs: []string{"github.com/hashicorp/vault/api"}},
	"initializer":                    {ours: contract, theirs: []string{"golang.org/x/oauth2"}},
	"cmd/tokenkeep":                  {any: true},
	"internal/bulk":                  {ours: contract},
	"internal/sdkid":                 {},
	"internal/fakeaws":               {ours: []string{"internal/fakeserver"}},
	"internal/fakegcp":               {ours: []string{"internal/fakeserver"}, theirs: []string{"cloud.google.com/go/", "google.golang.org/"}},
	"internal/fakeserver":            {},
	"internal/fakevault":             {ours: []string{"internal/fakeserver"}},
	"internal/flight":                {},
	"internal/mariadb":               {},
	"internal/members":               {},
	"internal/stored":                {ours: []string{"codec", "internal/members"}},
	"internal/refusal":               {ours: []string{"codec", "internal/members", "internal/stored"}},
	"internal/wholesend":             {},
	"internal/zohoaccounts":          {ours: []string{"internal/fakeserver"}},
}

type listed struct {
	path          string // below the module
	imports, deps []string
}

// packages returns the packages that people can get, without examples.
func packages(t *testing.T) []listed {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-f", "{{.ImportPath}}|{{join .Imports \" \"}}|{{join .Deps \" \"}}|{{len .GoFiles}}", "./...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []listed
	for line := range strings.Lines(string(out)) {
		part := strings.Split(strings.TrimSpace(line), "|")
		path := strings.TrimPrefix(part[0], module+"/")
		if part[3] != "0" && !strings.HasPrefix(path, "examples/") && path != module {
			all = append(all, listed{path, strings.Fields(part[1]), strings.Fields(part[2])})
		}
	}
	return all
}

// standard reports whether an import path is the standard library's.
func standard(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	return !strings.Contains(first, ".")
}

func TestPackagesDependOnWhatTheyMay(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		r, ok := rules[p.path]
		if !ok {
			t.Errorf("no rule says what %s may depend on", p.path)
		}
		if r.any {
			continue
		}
		for _, dep := range p.deps {
			ours, isOurs := strings.CutPrefix(dep, module+"/")
			switch {
			case isOurs && ours != p.path && !slices.Contains(r.ours, ours):
				t.Errorf("%s depends on %s", p.path, ours)
			case !isOurs && !standard(dep) && !strings.HasPrefix(dep, "vendor/") && len(r.theirs) == 0:
				t.Errorf("%s depends on %s", p.path, dep)
			}
		}
		for _, dep := range p.imports {
			mayHave := func(prefix string) bool { return strings.HasPrefix(dep, prefix) }
			if !standard(dep) && !strings.HasPrefix(dep, module) && !slices.ContainsFunc(r.theirs, mayHave) {
				t.Errorf("%s imports %s", p.path, dep)
			}
		}
	}
}

// TestCommandHasNoFakes keeps the servers that tests and the demo are made with out of
// the command that is released.
func TestCommandHasNoFakes(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		for _, fake := range []string{"internal/fakeaws", "internal/fakegcp", "internal/fakevault", "internal/zohoaccounts"} {
			if p.path == "cmd/tokenkeep" && slices.Contains(p.deps, module+"/"+fake) {
				t.Errorf("%s depends on %s", p.path, fake)
			}
		}
	}
}

// TestGoldenRecordsAreNeverEdited asks the history: records like them are in the
// secret managers of users.
func TestGoldenRecordsAreNeverEdited(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat(".git"); err != nil {
		t.Skip("this is not a clone of the repository: there is no history to ask")
	}
	cmd := exec.CommandContext(t.Context(), "git", "log", "--no-renames", "--diff-filter=MD", "--format=%h", "--name-only", "--", "codec/testdata/golden")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("git log: %v", err)
	}
	if len(out) > 0 {
		t.Errorf("golden files were edited or removed:\n%s", out)
	}
}

// weak finds a look-up by a user alone: a search, which a service may answer late.
var weak = regexp.MustCompile(`FindToken\(ctx, tokenstore\.Token\{UserName: "[^"]*"\}\)`)

// TestExamplesReadByName keeps what people copy from searching where it can read.
func TestExamplesReadByName(t *testing.T) {
	t.Parallel()
	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		name := entry.Name()
		if err != nil || entry.IsDir() || name != "doc.go" && name != "example_test.go" && filepath.Ext(name) != ".md" {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range weak.FindAll(text, -1) {
			t.Errorf("%s: %s is a search: give the client, too", path, m)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestEveryExportedNameIsDocumented(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		if strings.Contains(p.path, "internal/") || strings.HasPrefix(p.path, "cmd/") {
			continue
		}
		files, err := filepath.Glob(filepath.Join(p.path, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		documented := false
		for _, name := range files {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments|parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			documented = documented || f.Doc.Text() != ""
			for _, decl := range f.Decls {
				for _, missing := range undocumented(decl) {
					t.Errorf("%s: %s is not documented", name, missing)
				}
			}
		}
		if !documented {
			t.Errorf("package %s is not documented", p.path)
		}
	}
}

// TestPackageTokenstoreIsSmall keeps the contract what a user reads in an hour: what
// is decided and what is written have rooms of their own.
func TestPackageTokenstoreIsSmall(t *testing.T) {
	t.Parallel()
	const mostLines, mostNames = 2600, 40
	files, err := filepath.Glob("tokenstore/*.go")
	if err != nil {
		t.Fatal(err)
	}
	lines := 0
	var names []string
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, text, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		lines += strings.Count(string(text), "\n")
		for _, decl := range f.Decls {
			names = append(names, exported(decl)...)
		}
	}
	if lines > mostLines || len(names) > mostNames {
		t.Errorf("package tokenstore has %d lines and %d exported names, at most %d and %d are allowed: %v", lines, len(names), mostLines, mostNames, names)
	}
}

// exported returns the exported names that a declaration adds to its package.
func exported(decl ast.Decl) (names []string) {
	add := func(name *ast.Ident) {
		if name.IsExported() {
			names = append(names, name.Name)
		}
	}
	switch d := decl.(type) {
	case *ast.FuncDecl:
		if d.Recv == nil {
			add(d.Name)
		}
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			switch s := spec.(type) {
			case *ast.TypeSpec:
				add(s.Name)
			case *ast.ValueSpec:
				for _, name := range s.Names {
					add(name)
				}
			}
		}
	}
	return names
}

// undocumented returns the exported names of a declaration without a comment.
func undocumented(decl ast.Decl) (names []string) {
	switch d := decl.(type) {
	case *ast.FuncDecl:
		if d.Name.IsExported() && d.Doc.Text() == "" && receiverIsExported(d) {
			names = append(names, d.Name.Name)
		}
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			switch s := spec.(type) {
			case *ast.TypeSpec:
				if s.Name.IsExported() && d.Doc.Text() == "" && s.Doc.Text() == "" {
					names = append(names, s.Name.Name)
				}
			case *ast.ValueSpec:
				for _, name := range s.Names {
					if name.IsExported() && d.Doc.Text() == "" && s.Doc.Text() == "" && s.Comment.Text() == "" {
						names = append(names, name.Name)
					}
				}
			}
		}
	}
	return names
}

func receiverIsExported(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	of := d.Recv.List[0].Type
	if star, ok := of.(*ast.StarExpr); ok {
		of = star.X
	}
	name, ok := of.(*ast.Ident)
	return !ok || name.IsExported()
}
