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

// A rule lists the packages that a package may import besides the standard library.
type rule struct {
	ours   []string // packages of this module
	theirs []string // prefixes of the import paths of other modules
}

// rules maps the path of each package of the module, except examples and packages that have
// only tests, to a rule. The field ours of a rule must list exactly the packages of the module
// that the package imports.
var rules = map[string]rule{
	// The lowest layer: formats and helpers.
	"codec":                        {ours: []string{"internal/members"}},
	"codec/tokenfile":              {ours: []string{"codec"}},
	"tokenstore/driver":            {},
	"tokenstore/driverkit":         {ours: []string{"tokenstore/driver"}},
	"tokenstore/observe":           {},
	"internal/members":             {},
	"internal/stored":              {ours: []string{"codec", "internal/members"}},
	"internal/flight":              {},
	"internal/handover":            {},
	"internal/pace":                {},
	"internal/refusal":             {ours: []string{"internal/stored"}},
	"internal/sdkid":               {},
	"tokenstore/internal/lockfile": {},

	// The rules that all kinds of stores follow.
	"tokenstore/internal/rules":      {ours: []string{"codec", "tokenstore/driver"}},
	"tokenstore/internal/observed":   {ours: []string{"tokenstore/driver", "tokenstore/internal/rules", "tokenstore/observe"}},
	"tokenstore/internal/candidates": {ours: []string{"codec", "tokenstore/internal/rules"}},
	"tokenstore/internal/duplicates": {ours: []string{"codec", "tokenstore/internal/rules"}},

	// Implementations of the rules.
	"tokenstore/internal/ledger":     {ours: []string{"codec", "internal/pace", "internal/stored", "tokenstore/driver", "tokenstore/driverkit", "tokenstore/internal/observed", "tokenstore/internal/rules", "tokenstore/observe"}},
	"tokenstore/internal/refreshing": {ours: []string{"codec", "internal/flight", "internal/refusal", "internal/stored", "tokenstore/doctor", "tokenstore/driver", "tokenstore/driverkit", "tokenstore/internal/observed", "tokenstore/internal/rules", "tokenstore/observe"}},
	"tokenstore/internal/lease":      {ours: []string{"codec", "internal/stored", "tokenstore/driver", "tokenstore/internal/ledger", "tokenstore/internal/refreshing", "tokenstore/internal/rules"}},
	"tokenstore/doctor":              {ours: []string{"codec", "internal/pace", "internal/stored", "tokenstore/driver", "tokenstore/driverkit", "tokenstore/internal/duplicates", "tokenstore/internal/ledger", "tokenstore/internal/rules"}},

	// The interface of stores.
	"tokenstore": {ours: []string{"codec", "internal/handover", "internal/pace", "internal/refusal", "internal/stored", "tokenstore/doctor", "tokenstore/driver", "tokenstore/internal/lease", "tokenstore/internal/ledger", "tokenstore/internal/refreshing", "tokenstore/internal/rules", "tokenstore/observe"}},

	// Kinds of stores.
	"tokenstore/internal/rowstore": {ours: []string{"codec", "internal/refusal", "internal/stored", "tokenstore", "tokenstore/doctor", "tokenstore/driverkit", "tokenstore/internal/candidates", "tokenstore/internal/duplicates", "tokenstore/internal/observed", "tokenstore/internal/refreshing", "tokenstore/internal/rules", "tokenstore/observe"}},
	"tokenstore/filestore":         {ours: []string{"codec", "codec/tokenfile", "tokenstore", "tokenstore/doctor", "tokenstore/driverkit", "tokenstore/internal/lockfile", "tokenstore/internal/rowstore", "tokenstore/internal/rules"}},
	"tokenstore/sqlstore":          {ours: []string{"codec", "tokenstore", "tokenstore/doctor", "tokenstore/driverkit", "tokenstore/internal/lockfile", "tokenstore/internal/rowstore", "tokenstore/internal/rules"}},
	"tokenstore/memstore":          {ours: []string{"tokenstore", "tokenstore/driver"}},
	"awssm":                        {ours: []string{"internal/pace", "tokenstore", "tokenstore/driver", "tokenstore/driverkit"}, theirs: []string{"github.com/aws/"}},
	"gcpsm":                        {ours: []string{"tokenstore", "tokenstore/driver", "tokenstore/driverkit"}, theirs: []string{"cloud.google.com/go/", "google.golang.org/", "github.com/googleapis/gax-go/"}},
	"k8sstore":                     {ours: []string{"tokenstore", "tokenstore/driver", "tokenstore/driverkit"}, theirs: []string{"k8s.io/api/core/v1", "k8s.io/apimachinery/"}},
	"vaultstore":                   {ours: []string{"tokenstore", "tokenstore/driver", "tokenstore/driverkit"}, theirs: []string{"github.com/hashicorp/vault/api"}},

	// Packages that use stores.
	"keys":                          {ours: []string{"codec", "tokenstore"}},
	"initializer":                   {ours: []string{"codec", "internal/extra", "internal/flight", "internal/forget", "internal/handover", "internal/refusal", "internal/stored", "tokenstore"}, theirs: []string{"golang.org/x/oauth2"}},
	"agent":                         {ours: []string{"codec", "initializer", "internal/flight", "internal/members", "tokenstore"}},
	"tokenstore/migrate":            {ours: []string{"codec", "internal/bulk", "internal/pace", "internal/sdkid", "tokenstore", "tokenstore/internal/candidates", "tokenstore/internal/rules"}},
	"internal/bulk":                 {ours: []string{"tokenstore"}},
	"oauth2keep":                    {ours: []string{"initializer", "internal/extra", "tokenstore"}, theirs: []string{"golang.org/x/oauth2"}},
	"internal/extra":                {ours: []string{"codec", "tokenstore"}, theirs: []string{"golang.org/x/oauth2"}},
	"internal/forget":               {ours: []string{"tokenstore"}},
	"conformance":                   {ours: []string{"tokenstore", "tokenstore/driver"}},
	"tokenstore/internal/storetest": {ours: []string{"tokenstore"}},

	// Programs.
	"cli/scheme":            {ours: []string{"cli/internal/calls", "tokenstore", "tokenstore/driver"}},
	"cli/internal/calls":    {},
	"cli/internal/display":  {},
	"cli/internal/files":    {ours: []string{"cli/internal/display", "cli/scheme"}},
	"cli/internal/policies": {ours: []string{"cli/scheme"}},
	"cli/stores/aws":        {ours: []string{"awssm", "cli/internal/policies", "cli/scheme", "internal/wholesend"}, theirs: []string{"github.com/aws/"}},
	"cli/stores/gcp":        {ours: []string{"cli/internal/policies", "cli/scheme", "gcpsm"}, theirs: []string{"cloud.google.com/go/", "google.golang.org/"}},
	"cli/stores/k8s":        {ours: []string{"cli/internal/policies", "cli/scheme", "k8sstore"}, theirs: []string{"k8s.io/"}},
	"cli/stores/tables":     {ours: []string{"cli/internal/display", "cli/internal/files", "cli/scheme", "tokenstore", "tokenstore/sqlstore"}, theirs: []string{"github.com/go-sql-driver/mysql", "modernc.org/sqlite"}},
	"cli/stores/vault":      {ours: []string{"cli/internal/policies", "cli/scheme", "vaultstore"}, theirs: []string{"github.com/hashicorp/vault/api"}},
	"cli/stores":            {ours: []string{"cli/scheme", "cli/stores/aws", "cli/stores/gcp", "cli/stores/k8s", "cli/stores/tables", "cli/stores/vault"}},
	"cli":                   {ours: []string{"agent", "cli/internal/calls", "cli/internal/display", "cli/internal/files", "cli/scheme", "codec", "codec/tokenfile", "initializer", "internal/bulk", "internal/forget", "internal/pace", "internal/sdkid", "keys", "tokenstore", "tokenstore/doctor", "tokenstore/driver", "tokenstore/driverkit", "tokenstore/filestore", "tokenstore/memstore", "tokenstore/migrate", "tokenstore/observe"}, theirs: []string{"github.com/prometheus/client_golang/", "github.com/spf13/", "golang.org/x/oauth2", "golang.org/x/term"}},
	"cmd/tokenkeep":         {ours: []string{"cli", "cli/stores"}},

	// Fake servers and tools for tests.
	"internal/fakeserver":   {theirs: []string{"golang.org/x/time/rate"}},
	"internal/fakeaws":      {ours: []string{"internal/fakeserver"}},
	"internal/fakegcp":      {ours: []string{"internal/fakeserver"}, theirs: []string{"cloud.google.com/go/", "google.golang.org/"}},
	"internal/fakek8s":      {ours: []string{"internal/fakeserver"}, theirs: []string{"k8s.io/api/", "k8s.io/apimachinery/", "sigs.k8s.io/yaml"}},
	"internal/fakevault":    {ours: []string{"internal/fakeserver"}},
	"internal/authservers":  {ours: []string{"internal/fakeserver"}},
	"internal/zohoaccounts": {ours: []string{"internal/fakeserver"}},
	"internal/languages":    {ours: []string{"internal/zohoaccounts"}},
	"internal/mariadb":      {},
	"internal/wholesend":    {},
}

type listed struct {
	path    string // relative to the module
	imports []string
}

// packages returns the packages of the module, except examples and packages that have only
// tests.
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

// standard reports whether an import path belongs to the standard library.
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

// TestGoldenRecordsAreNeverEdited checks that no commit has changed or removed a file in
// codec/testdata/golden, unless the file has the content of its first commit again. Users have
// stored records in the form of these files.
func TestGoldenRecordsAreNeverEdited(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat(".git"); err != nil {
		t.Skip("this is not a clone of the repository: there is no history to ask")
	}
	git := func(args ...string) string {
		out, err := exec.CommandContext(t.Context(), "git", args...).Output()
		if err != nil {
			t.Fatalf("git %v: %v", args, err)
		}
		return string(out)
	}
	for _, path := range strings.Fields(git("log", "--no-renames", "--diff-filter=MD", "--format=", "--name-only", "--", "codec/testdata/golden")) {
		added := strings.Fields(git("log", "--no-renames", "--diff-filter=A", "--format=%h", "--", path))
		now, err := os.ReadFile(path)
		if err != nil || string(now) != git("show", added[len(added)-1]+":"+path) {
			t.Errorf("%s was edited or removed, and is not what it was at first", path)
		}
	}
}

// weak matches code that looks a record up by a user alone, in a store or through an
// initializer.Config. Such a look-up is a search, which may miss a recent write.
var weak = regexp.MustCompile(`FindToken\(([^,()]|\(\))+, tokenstore\.Token\{UserName: [^,}]*\}\)|\bToken: +tokenstore\.Token\{UserName: [^,}]*\}`)

// copied reports whether users copy code from the file at path: a page, the documentation of a
// package, or the code of an example.
func copied(path string) bool {
	path = filepath.ToSlash(path)
	switch name := filepath.Base(path); {
	case name == "doc.go", name == "example_test.go", filepath.Ext(name) == ".md":
		return true
	default:
		return strings.HasPrefix(path, "examples/") && filepath.Ext(name) == ".go" && !strings.HasSuffix(name, "_test.go")
	}
}

// TestExamplesReadByName checks that the files from which users copy code contain no look-up by a
// user alone.
func TestExamplesReadByName(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]bool{
		"examples/lambda/main.go": true, "examples/mcp/mcpgo/store.go": true, "initializer/example_test.go": true, "docs/keys.md": true,
		"examples/lambda/main_test.go": false, "awssm/driver.go": false,
	} {
		if copied(path) != want {
			t.Errorf("copied(%q) is %v", path, !want)
		}
	}
	for _, code := range []string{
		`FindToken(ctx, tokenstore.Token{UserName: "ann"})`, `FindToken(r.Context(), tokenstore.Token{UserName: user})`, `Token: tokenstore.Token{UserName: env("USER")}`,
	} {
		if !weak.MatchString(code) {
			t.Errorf("%s does not count as a search", code)
		}
	}
	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !copied(path) {
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

// TestPackageTokenstoreIsSmall limits the lines and the exported names of package tokenstore,
// so that users can read the package in an hour. The implementation belongs in internal
// packages.
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

// exported returns the exported names that a declaration adds to the package, without methods.
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

// undocumented returns the exported names in a declaration that have no comment. It omits the
// methods of unexported types.
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

// TestDriversAreAskedOnce checks that no code in tokenstore asserts the type of the field
// Driver of a ledger.Ledger. If calls are observed, the driver in that field is a wrapper that
// does not implement the optional interfaces of package driver.
func TestDriversAreAskedOnce(t *testing.T) {
	t.Parallel()
	asserted := regexp.MustCompile(`\.Driver\.\(driver\.`)
	err := filepath.WalkDir("tokenstore", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		if asserted.Match(text) {
			t.Errorf("%s asserts the type of a Ledger's Driver: use the fields beside it", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
