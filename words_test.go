package tokenkeep_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// archaic matches words that the project replaces with plain technical English. The field Mend
// of package driver keeps its name for compatibility.
var archaic = regexp.MustCompile(`\bmend\b|(?i)\b(mend(s|ed|ing)|anew|who(so)?ever|somebody|in vain|br(eaks?|oken?) off|patiently|stillborn|graves?|bur(y|ies|ied)|if need be)\b`)

// camel matches the boundary of two words of an identifier.
var camel = regexp.MustCompile(`([a-z0-9])([A-Z])`)

func TestPlainWords(t *testing.T) {
	for name, text := range pages(t) {
		blank := fenced.ReplaceAllStringFunc(text, func(quoted string) string {
			return strings.Repeat("\n", strings.Count(quoted, "\n"))
		})
		for i, line := range strings.Split(blank, "\n") {
			if word := archaic.FindString(line); word != "" {
				t.Errorf("%s:%d: %q", name, i+1, word)
			}
		}
	}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == ".git" || d.Name() == "testdata" || d.Name() == "node_modules"):
			return filepath.SkipDir
		case filepath.Ext(path) != ".go" || path == "words_test.go":
			return nil
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, path, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil || ast.IsGenerated(f) {
			return err
		}
		check := func(text string, pos token.Pos) {
			if word := archaic.FindString(text); word != "" {
				t.Errorf("%s: %q", fset.Position(pos), word)
			}
		}
		for _, group := range f.Comments {
			for _, c := range group.List {
				check(c.Text, c.Pos())
			}
		}
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.BasicLit:
				check(n.Value, n.Pos())
			case *ast.Ident:
				check(camel.ReplaceAllString(n.Name, "$1 $2"), n.Pos())
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// merging matches the lines with which git marks the beginning and the end of a conflict.
var merging = regexp.MustCompile(`(?m)^(<<<<<<<|>>>>>>>) `)

func TestNoMergeConflicts(t *testing.T) {
	t.Parallel()
	for name, text := range pages(t) {
		if merging.MatchString(text) {
			t.Errorf("%s contains a conflict of a merge", name)
		}
	}
}
