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

// archaic matches words that the project replaces with plain technical English.
var archaic = regexp.MustCompile(`(?i)\b(mend(s|ed|ing)|anew|who(so)?ever|somebody|in vain|br(eaks?|oken?) off|stillborn|graves?|bur(y|ies|ied)|if need be)\b`)

// unchecked matches the paths that TestPlainWords skips: the change log, the decision records,
// and two modules under integration.
var unchecked = regexp.MustCompile(`^(CHANGELOG\.md$|docs/adr/|integration/(vault|kube)dev/)`)

func TestPlainWords(t *testing.T) {
	for name, text := range pages(t) {
		if unchecked.MatchString(name) {
			continue
		}
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
		case filepath.Ext(path) != ".go" || unchecked.MatchString(filepath.ToSlash(path)):
			return nil
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, path, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil || ast.IsGenerated(f) {
			return err
		}
		for _, group := range f.Comments {
			for _, c := range group.List {
				if word := archaic.FindString(c.Text); word != "" {
					t.Errorf("%s: %q", fset.Position(c.Pos()), word)
				}
			}
		}
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
