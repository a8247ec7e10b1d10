package tokenkeep_test

import (
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/tokenkeep/tokenkeep/initializer"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// pages returns the texts of the Markdown files of the repository by path, except files in
// directories named testdata or node_modules.
func pages(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == ".git" || d.Name() == "testdata" || d.Name() == "node_modules"):
			return filepath.SkipDir
		case filepath.Ext(path) != ".md":
			return nil
		}
		text, err := os.ReadFile(path)
		all[filepath.ToSlash(path)] = string(text)
		return err
	})
	if err != nil || len(all) == 0 {
		t.Fatalf("%d pages, error %v", len(all), err)
	}
	return all
}

var (
	fenced  = regexp.MustCompile("(?s)```.*?```|`[^`\n]*`")
	link    = regexp.MustCompile(`\[[^\]]*\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ +(.+)$`)
)

// anchors returns the anchors that GitHub derives from the headings of a page.
func anchors(page string) []string {
	var all []string
	for _, h := range heading.FindAllStringSubmatch(regexp.MustCompile("(?s)```.*?```").ReplaceAllString(page, ""), -1) {
		name := strings.Map(func(c rune) rune {
			switch {
			case c == ' ':
				return '-'
			case c == '-' || c == '_' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || c > 127:
				return c
			}
			return -1
		}, strings.ToLower(h[1]))
		all = append(all, name)
	}
	return all
}

// deadLinks returns the links in the pages that lead to no file or heading of the repository,
// in the form "page: link". deadLinks skips links to other sites.
func deadLinks(all map[string]string) []string {
	var dead []string
	for path, text := range all {
		for _, m := range link.FindAllStringSubmatch(fenced.ReplaceAllString(text, ""), -1) {
			to, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(to, "://") || strings.HasPrefix(to, "mailto:") {
				continue
			}
			file := path
			if to != "" {
				file = filepath.ToSlash(filepath.Join(filepath.Dir(path), to))
				if _, err := os.Stat(file); err != nil {
					dead = append(dead, path+": "+m[1])
					continue
				}
			}
			if page, ok := all[file]; anchor != "" && (!ok || !slices.Contains(anchors(page), anchor)) {
				dead = append(dead, path+": "+m[1])
			}
		}
	}
	slices.Sort(dead)
	return dead
}

// compilePrograms checks that the first Go program of docs/oauth2.md, and of each page
// docs/getting-started-*.md, compiles as a command of the module.
func compilePrograms(t *testing.T, all map[string]string) {
	t.Helper()
	root, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	replace := map[string]string{}
	args := []string{"list", "-export", "-f", "{{.Export}}", "-overlay", filepath.Join(dir, "overlay.json")}
	for path, text := range all {
		service, ok := strings.CutPrefix(path, "docs/getting-started-")
		if !ok && path != "docs/oauth2.md" {
			continue
		}
		service = strings.TrimSuffix(filepath.Base(service), ".md")
		_, rest, _ := strings.Cut(text, "```go\n")
		program, _, ok := strings.Cut(rest, "```")
		if !ok {
			t.Errorf("%s has no program", path)
			continue
		}
		main := filepath.Join(dir, service+".go")
		if err := os.WriteFile(main, []byte(program), 0o600); err != nil {
			t.Fatal(err)
		}
		replace[filepath.Join(root, "pasted", service, "main.go")] = main
		args = append(args, "./pasted/"+service)
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "go", args...).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestDocs(t *testing.T) {
	t.Parallel()
	all := pages(t)

	t.Run("links", func(t *testing.T) {
		t.Parallel()
		if dead := deadLinks(all); len(dead) > 0 {
			t.Errorf("links that lead nowhere:\n%s", strings.Join(dead, "\n"))
		}
		made := map[string]string{"a.md": "# One\n[x](no.md) [y](#two) [z](#one) [w](README.md)", "b.md": "[v](a.md#one)"}
		if dead, want := deadLinks(made), []string{"a.md: #two", "a.md: no.md", "b.md: a.md#one"}; !slices.Equal(dead, want) {
			t.Errorf("of made-up pages the dead links are %q, want %q", dead, want)
		}
	})

	t.Run("index", func(t *testing.T) {
		t.Parallel()
		for path := range all {
			if name, ok := strings.CutPrefix(path, "docs/"); ok && name != "README.md" && !strings.Contains(name, "/") &&
				!strings.Contains(all["docs/README.md"], "("+name+")") {
				t.Errorf("docs/README.md does not list %s", name)
			}
		}
	})

	t.Run("programs", func(t *testing.T) {
		t.Parallel()
		compilePrograms(t, all)
	})

	t.Run("troubleshooting", func(t *testing.T) {
		t.Parallel()
		texts := []string{}
		for _, class := range []error{
			tokenstore.ErrNotFound, tokenstore.ErrAmbiguous, tokenstore.ErrConflict, tokenstore.ErrIDMismatch, tokenstore.ErrInvalidToken,
			tokenstore.ErrTooLarge, tokenstore.ErrDenied, tokenstore.ErrRefused, tokenstore.ErrUnavailable, tokenstore.ErrCorrupt,
			tokenstore.ErrWrongKeys, tokenstore.ErrNotPersisted, initializer.ErrReauthRequired, initializer.ErrClient, initializer.ErrServer, initializer.ErrRefused, initializer.ErrUntrustedURL, initializer.ErrClosed, initializer.ErrThrottled, initializer.ErrTokenType,
		} {
			texts = append(texts, strings.TrimPrefix(class.Error(), "initializer: "))
		}
		var headings []string
		for _, h := range heading.FindAllStringSubmatch(all["docs/troubleshooting.md"], -1)[1:] {
			headings = append(headings, h[1])
		}
		for _, text := range texts {
			if !slices.Contains(headings, text) {
				t.Errorf("docs/troubleshooting.md has no heading %q", text)
			}
		}
		for _, h := range headings {
			if !slices.Contains(texts, h) {
				t.Errorf("docs/troubleshooting.md explains %q, which is not the text of an error class", h)
			}
		}
	})
}
