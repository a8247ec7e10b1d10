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

// A rule says what a package may import besides the standard library.
type rule struct {
	ours   []string // packages of this module
	theirs []string // beginnings of the import paths of others
	any    bool     // everything
}

// rules has every package of the module, by floors: a package imports what is on the
// floors below it. What is said here is imported, and nothing else is.
var rules = map[string]rule{
	// Ground.
	"codec":                        {ours: []string{"internal/members"}},
	"codec/tokenfile":              {ours: []string{"codec"}},
	"tokenstore/driver":            {},
	"tokenstore/driverkit":         {ours: []string{"tokenstore/driver"}},
	"internal/members":             {},
	"internal/stored":              {ours: []string{"codec", "internal/members"}},
	"internal/flight":              {},
	"internal/refusal":             {ours: []string{"internal/stored"}},
	"internal/sdkid":               {},
	"tokenstore/internal/lockfile": {},

	// Rules.
	"tokenstore/internal/rules":      {ours: []string{"codec", "tokenstore/driver"}},
	"tokenstore/internal/candidates": {ours: []string{"codec", "tokenstore/internal/rules"}},
	"tokenstore/internal/duplicates": {ours: []string{"codec", "tokenstore/internal/rules"}},

	// Engines.
	"tokenstore/internal/ledger":     {ours: []string{"codec", "internal/stored", "tokenstore/driver", "tokenstore/driverkit", "tokenstore/internal/rules"}},
	"tokenstore/internal/refreshing": {ours: []string{"codec", "internal/flight", "internal/refusal", "internal/stored", "tokenstore/driver", "tokenstore/driverkit", "tokenstore/internal/rules"}},
	"tokenstore/internal/lease":      {ours: []string{"codec", "internal/stored", "tokenstore/driver", "tokenstore/internal/ledger", "tokenstore/internal/refreshing", "tokenstore/internal/rules"}},
	"tokenstore/doctor":              {ours: []string{"codec", "internal/stored", "tokenstore/driver", "tokenstore/internal/duplicates", "tokenstore/internal/ledger", "tokenstore/internal/rules"}},

	// The contract.
	"tokenstore": {ours: []string{"codec", "internal/refusal", "internal/stored", "tokenstore/doctor", "tokenstore/driver", "tokenstore/internal/lease", "tokenstore/internal/ledger", "tokenstore/internal/refreshing", "tokenstore/internal/rules"}},

	// Stores.
	"tokenstore/internal/rowstore": {ours: []string{"codec", "internal/refusal", "internal/stored", "tokenstore", "tokenstore/doctor", "tokenstore/driverkit", "tokenstore/internal/candidates", "tokenstore/internal/duplicates", "tokenstore/internal/refreshing", "tokenstore/internal/rules"}},
	"tokenstore/filestore":         {ours: []string{"codec", "codec/tokenfile", "tokenstore", "tokenstore/doctor", "tokenstore/driverkit", "tokenstore/internal/lockfile", "tokenstore/internal/rowstore", "tokenstore/internal/rules"}},
	"tokenstore/sqlstore":          {ours: []string{"codec", "tokenstore", "tokenstore/doctor", "tokenstore/driverkit", "tokenstore/internal/lockfile", "tokenstore/internal/rowstore", "tokenstore/internal/rules"}},
	"tokenstore/memstore":          {ours: []string{"tokenstore", "tokenstore/driver"}},
	"awssm":                        {ours: []string{"tokenstore", "tokenstore/driver", "tokenstore/driverkit"}, theirs: []string{"github.com/aws/"}},
	"gcpsm":                        {ours: []string{"tokenstore", "tokenstore/driver", "tokenstore/driverkit"}, theirs: []string{"cloud.google.com/go/", "google.golang.org/", "github.com/googleapis/gax-go/"}},
	"vaultstore":                   {ours: []string{"tokenstore", "tokenstore/driver", "tokenstore/driverkit"}, theirs: []string{"github.com/hashicorp/vault/api"}},

	// Users of stores.
	"keys":                          {ours: []string{"codec", "tokenstore"}},
	"initializer":                   {ours: []string{"internal/flight", "internal/refusal", "internal/stored", "tokenstore"}, theirs: []string{"golang.org/x/oauth2"}},
	"tokenstore/migrate":            {ours: []string{"codec", "internal/bulk", "internal/sdkid", "tokenstore", "tokenstore/internal/candidates", "tokenstore/internal/rules"}},
	"internal/bulk":                 {ours: []string{"tokenstore"}},
	"conformance":                   {ours: []string{"tokenstore", "tokenstore/driver"}},
	"tokenstore/internal/storetest": {ours: []string{"tokenstore"}},

	// Programs.
	"cmd/tokenkeep": {any: true},

	// Servers and tools of tests.
	"internal/fakeserver":   {},
	"internal/fakeaws":      {ours: []string{"internal/fakeserver"}},
	"internal/fakegcp":      {ours: []string{"internal/fakeserver"}, theirs: []string{"cloud.google.com/go/", "google.golang.org/"}},
	"internal/fakevault":    {ours: []string{"internal/fakeserver"}},
	"internal/authservers":  {ours: []string{"internal/fakeserver"}},
	"internal/zohoaccounts": {ours: []string{"internal/fakeserver"}},
	"internal/mariadb":      {},
	"internal/wholesend":    {},
}

type listed struct {
	path    string // below the module
	imports []string
}

// packages returns the packages that people can get, without examples.
func packages(t *testing.T) []listed {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-f", "{{.ImportPath}}|{{join .Imports \" \"}}|{{len .GoFiles}}", "./...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []listed
	for line := range strings.Lines(string(out)) {
		part := strings.Split(strings.TrimSpace(line), "|")
		path := strings.TrimPrefix(part[0], module+"/")
		if part[2] != "0" && !strings.HasPrefix(path, "examples/") && path != module {
			all = append(all, listed{path, strings.Fields(part[1])})
		}
	}
	return all
}

// standard reports whether an import path is the standard library's.
func standard(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	return !strings.Contains(first, ".")
}

func TestPackagesImportWhatTheyMay(t *testing.T) {
	t.Parallel()
	all := packages(t)
	for _, p := range all {
		r, ok := rules[p.path]
		if !ok {
			t.Errorf("no rule says what %s may depend on", p.path)
		}
		if r.any {
			continue
		}
		for _, dep := range p.imports {
			ours, isOurs := strings.CutPrefix(dep, module+"/")
			mayHave := func(prefix string) bool { return strings.HasPrefix(dep, prefix) }
			switch {
			case isOurs && !slices.Contains(r.ours, ours):
				t.Errorf("%s imports %s", p.path, ours)
			case !isOurs && !standard(dep) && !slices.ContainsFunc(r.theirs, mayHave):
				t.Errorf("%s imports %s", p.path, dep)
			}
		}
		for _, ours := range r.ours {
			if !slices.Contains(p.imports, module+"/"+ours) {
				t.Errorf("%s may import %s, and does not", p.path, ours)
			}
		}
	}
	for path := range rules {
		if !slices.ContainsFunc(all, func(p listed) bool { return p.path == path }) {
			t.Errorf("there is no package %s", path)
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
