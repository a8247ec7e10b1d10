package cli

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/initializer"
)

// completed returns the completions for the last element of words, and the directive for the shell.
func completed(t *testing.T, words ...string) (offered []string, directive string) {
	t.Helper()
	r := (env{}).tk(t, "", append([]string{"__complete"}, words...)...)
	if r.code != 0 {
		t.Fatalf("%q: exit code %d: %s", words, r.code, r.err)
	}
	for line := range strings.Lines(r.out) {
		word, _, _ := strings.Cut(strings.TrimSpace(line), "\t")
		directive = word // the directive is on the last line
		if strings.HasPrefix(word, words[len(words)-1]) && !strings.HasPrefix(word, ":") {
			offered = append(offered, word)
		}
	}
	return offered, directive
}

func TestCompletion(t *testing.T) {
	t.Parallel()
	var schemeNames, centers []string
	for _, s := range allSchemes() {
		schemeNames = append(schemeNames, s.Name+":")
	}
	for _, d := range initializer.DataCenters() {
		centers = append(centers, string(d))
	}
	const values, noSpace, files = ":4", ":6", ":0"
	for _, c := range []struct {
		words     []string
		want      []string
		directive string
	}{
		{[]string{"log"}, []string{"login"}, values},
		{[]string{"keys", "n"}, []string{"new"}, values},
		{[]string{"policy", "v"}, []string{"vault"}, values},
		{[]string{"ls", "--lim"}, []string{"--limit"}, values},
		{[]string{"ls", "--store", ""}, schemeNames, noSpace},
		{[]string{"migrate", "--from", "va"}, []string{"vault:"}, noSpace},
		{[]string{"export", "--dialect", ""}, strings.Split(dialectNames(codec.Dialects(), " "), " "), values},
		{[]string{"token", "--data-center", ""}, centers, values},
		{[]string{"login", "--environment", "s"}, []string{"sandbox"}, values},
		{[]string{"migrate", "--on-conflict", "n"}, []string{"newer"}, values},
		{[]string{"keys", "new", "--for", ""}, []string{"names", "labels", "encryption"}, values},
		{[]string{"get", "--user", ""}, nil, values},
		{[]string{"get", ""}, nil, values},
		{[]string{"help", "re"}, []string{"refresh", "rekey", "records"}, values},
		{[]string{"help", "keys", ""}, []string{"add", "drop", "new", "switch"}, values},
		{[]string{"get", "--like", ""}, nil, files},
		{[]string{"import", ""}, nil, files},
		{[]string{"man", ""}, nil, files},
	} {
		got, directive := completed(t, c.words...)
		if !slices.Equal(got, c.want) || directive != c.directive {
			t.Errorf("%q: %q with %s, want %q with %s", c.words, got, directive, c.want, c.directive)
		}
	}
	// An empty first word can be completed to each available command.
	got, _ := completed(t, "")
	for _, c := range (&app{schemes: allSchemes(), env: env{}.get}).rootCommand().Commands() {
		if c.IsAvailableCommand() && !slices.Contains(got, c.Name()) {
			t.Errorf("%s is not offered", c.Name())
		}
	}
}

// TestCompletionScripts checks that each installed shell can parse its completion script.
func TestCompletionScripts(t *testing.T) {
	t.Parallel()
	for _, shell := range []string{"bash", "zsh", "fish"} {
		script := (env{}).ok(t, "", "completion", shell)
		if !strings.Contains(script, "__complete") || !strings.Contains(script, "tokenkeep") {
			t.Errorf("%s: the script is %d bytes", shell, len(script))
		}
		path, err := exec.LookPath(shell)
		if err != nil {
			continue
		}
		cmd := exec.CommandContext(t.Context(), path, "-n", writeFile(t, "completion", script))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", shell, err, out)
		}
	}
}

func TestManualPages(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	text := (env{}).ok(t, "", "man", dir)
	pages := listing(t, dir)
	if !strings.Contains(text, "pages") || len(pages) < 25 {
		t.Errorf("%s: %v", text, pages)
	}
	everyCommand((&app{schemes: allSchemes(), env: env{}.get}).rootCommand(), func(c *cobra.Command, path []string) {
		if len(path) > 0 && (path[0] == "help" || path[0] == "completion") {
			return
		}
		name := strings.Join(append([]string{"tokenkeep"}, path...), "-") + ".1"
		if !slices.Contains(pages, name) {
			t.Errorf("there is no page %s", name)
			return
		}
		page := readFile(t, filepath.Join(dir, name))
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if !f.Hidden && !strings.Contains(page, roff("--"+f.Name)) {
				t.Errorf("%s does not tell of --%s", name, f.Name)
			}
		})
		if groff, err := exec.LookPath("groff"); err == nil {
			var warnings bytes.Buffer
			cmd := exec.CommandContext(t.Context(), groff, "-man", "-Tutf8", "-z", "-ww", filepath.Join(dir, name))
			cmd.Stderr = &warnings
			// The test ignores warnings about lines that are wider than the page, because page
			// turns line filling off.
			if err := cmd.Run(); err != nil || strings.Contains(warnings.String(), "macro") || strings.Contains(warnings.String(), "escape") {
				t.Errorf("%s: %v\n%s", name, err, warnings.String())
			}
		}
	})
	(env{}).fails(t, 2, "", "man")
	(env{}).fails(t, 1, "", "man", filepath.Join(dir, "none"))
	if got := roff(".a\n'b\n-c\\d"); got != "\\&.a\n\\&'b\n\\-c\\ed" {
		t.Errorf("the text is %q", got)
	}
	if info, err := os.Stat(filepath.Join(dir, "tokenkeep.1")); err != nil || info.Size() < 1000 {
		t.Errorf("the first page: %v", err)
	}
}

func TestListInPages(t *testing.T) {
	t.Parallel()
	e := fileStoreEnv(t)
	for _, user := range []string{"ann", "bob", "cyd", "dan", "eve"} {
		e.ok(t, `{"user_name":"`+user+`","client_id":"c","access_token":"a-`+user+`"}`, "save")
	}
	e.ok(t, `{"user_name":"ann","client_id":"other","access_token":"a"}`, "save")
	var seen []string
	for after := ""; ; {
		args := []string{"ls", "--json", "--limit", "2", "--client", "c"}
		if after != "" {
			args = append(args, "--after", after)
		}
		r := e.tk(t, "", args...)
		page := decode[[]recordJSON](t, r.out)
		for _, rec := range page {
			seen = append(seen, rec.UserName)
		}
		if r.err == "" {
			break
		}
		after = page[len(page)-1].ID
		if note := decode[map[string]string](t, r.err)["note"]; len(page) != 2 || !strings.HasSuffix(note, "--after "+after) {
			t.Fatalf("the note is %q", note)
		}
	}
	if !slices.Equal(seen, []string{"ann", "bob", "cyd", "dan", "eve"}) {
		t.Errorf("the pages have %v", seen)
	}
	for args, want := range map[string]int{"--user ann": 2, "--user ann --client other": 1, "--user zoe": 0, "--issuer https://x": 0, "--limit 6": 6} {
		if got := decode[[]recordJSON](t, e.ok(t, "", append([]string{"ls", "--json"}, strings.Fields(args)...)...)); len(got) != want {
			t.Errorf("%s: %d records", args, len(got))
		}
	}

	e.fails(t, 4, "", "rm", "--user", "ann")
	if text := e.ok(t, "", "rm", "--user", "ann", "--client", "c", "--dry-run"); !strings.Contains(text, "1 record") {
		t.Errorf("it says %s", text)
	}
	e.ok(t, "", "rm", "--user", "ann", "--client", "c")
	e.fails(t, 3, "", "rm", "--user", "ann", "--client", "c")
	if got := decode[[]recordJSON](t, e.ok(t, "", "ls", "--json", "--user", "ann")); len(got) != 1 || got[0].ClientID != "other" {
		t.Errorf("left is %v", got)
	}
}

// TestSlashes checks that a URL names the same store with and without "//" after the colon.
func TestSlashes(t *testing.T) {
	t.Parallel()
	for _, k := range storeKinds {
		if !slices.Contains([]string{"vault", "awssm", "gcpsm", "k8s"}, k.name) {
			continue
		}
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			e := k.open(t)
			e.ok(t, `{"user_name":"ann","client_id":"c","access_token":"a"}`, "save")
			e = e.with(envStore, strings.Replace(e[envStore], ":", "://", 1))
			e.ok(t, "", "get", "--user", "ann", "--client", "c")
			if text := e.ok(t, "", "status"); !strings.Contains(text, "ann") {
				t.Errorf("it says %s", text)
			}
		})
	}
}
