package cli

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/tokenkeep/tokenkeep/internal/fakegcp"
	"github.com/tokenkeep/tokenkeep/internal/fakek8s"
	"github.com/tokenkeep/tokenkeep/internal/zohoaccounts"
)

// A guide is a page about getting started with one service, and the environment of the commands
// in the page. The commands use a fake of the service.
type guide struct {
	path string
	dir  string // the working directory of the commands
	env  env
	urls []string // URLs in the commands, each followed by its replacement
	// wrote, if not nil, is called after each command whose output is written to a file.
	wrote func(t *testing.T)
}

// guides maps the service in the name of a page to a function that starts a fake of the service.
var guides = map[string]func(*testing.T, *guide){
	"aws": func(t *testing.T, g *guide) {
		e, server := awsEnv(t)
		_, params, _ := strings.Cut(e[envStore], "?")
		g.urls = append(g.urls, "awssm:oauth/crm?region=eu-central-1", "awssm:oauth/crm?"+params)
		g.wrote = func(t *testing.T) {
			policy, err := os.ReadFile(filepath.Join(g.dir, "policy.json"))
			if err != nil {
				t.Fatal(err)
			}
			if err := server.Policy("test", string(policy)); err != nil {
				t.Fatal(err)
			}
		}
	},
	"gcp": func(t *testing.T, g *guide) {
		server := fakegcp.New(nil)
		t.Cleanup(server.Close)
		g.urls = append(g.urls, "gcpsm:crm-prod/oauth", "gcpsm:crm-prod/oauth?endpoint=http://"+server.Addr)
	},
	"vault": func(t *testing.T, g *guide) {
		e, server := vaultEnv(t)
		g.env = e.with("VAULT_TOKEN", server.Token("", 0, "crm"))
		g.urls = append(g.urls, "https://vault.example.com:8200", server.URL)
		g.wrote = func(t *testing.T) {
			policy, err := os.ReadFile(filepath.Join(g.dir, "crm.hcl"))
			if err != nil {
				t.Fatal(err)
			}
			if err := server.Policy("", "crm", string(policy)); err != nil {
				t.Fatal(err)
			}
		}
	},
	"kubernetes": func(t *testing.T, g *guide) {
		server := fakek8s.New(&fakek8s.Options{TLS: true})
		t.Cleanup(server.Close)
		server.Namespace("crm-tokens", false)
		server.Account("account", "crm-tokens", "crm-sync")
		if err := server.Bind("account", block(t, readFile(t, g.path), "yaml")); err != nil {
			t.Fatal(err)
		}
		g.env = env{"KUBECONFIG": kubeconfig(t, server, "account")}
	},
}

// block returns the first fenced block in the given language on a page.
func block(t *testing.T, page, language string) string {
	t.Helper()
	_, rest, ok := strings.Cut(page, "```"+language+"\n")
	text, _, end := strings.Cut(rest, "```")
	if !ok || !end {
		t.Fatalf("the page has no block of %s", language)
	}
	return text
}

// TestGettingStartedDocuments runs the commands in docs/getting-started-*.md, and checks that
// they print the output in the pages.
func TestGettingStartedDocuments(t *testing.T) {
	t.Parallel()
	pages, err := filepath.Glob("../docs/getting-started-*.md")
	if err != nil || len(pages) != len(guides) {
		t.Errorf("there are %d pages and %d guides, error %v", len(pages), len(guides), err)
	}
	for service, prepare := range guides {
		t.Run(service, func(t *testing.T) {
			t.Parallel()
			g := &guide{path: "../docs/getting-started-" + service + ".md", dir: t.TempDir(), env: env{}}
			prepare(t, g)
			page := readFile(t, g.path)
			zoho := zohoaccounts.New(&zohoaccounts.Options{DataCenter: "eu"})
			base, stop, err := zoho.Listen()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(stop)
			zoho.AddClient(zohoaccounts.Client{ID: "1000.CLIENT", Secret: "secret"})
			refresh, _ := zoho.Tokens(zohoaccounts.Consent{ClientID: "1000.CLIENT", Email: "ann@example.com", ZGID: "6001"})
			g.urls = append(g.urls, "--data-center eu", "--accounts-url "+base)
			token := strings.NewReplacer("CLIENT-SECRET", "secret", "REFRESH-TOKEN", refresh).Replace(block(t, page, "json"))
			if err := os.WriteFile(filepath.Join(g.dir, "token.json"), []byte(token), 0o600); err != nil {
				t.Fatal(err)
			}
			got := g.run(t, page)
			if *update {
				if err := os.WriteFile(g.path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got, want := timeless(got), timeless(page); got != want {
				t.Errorf("the document says\n%s\nand the commands print\n%s", want, got)
			}
		})
	}
}

// run runs the commands of the page, and returns the page with their current output.
func (g *guide) run(t *testing.T, page string) string {
	t.Helper()
	var b strings.Builder
	console := false
	for line := range strings.Lines(page) {
		command, isCommand := strings.CutPrefix(line, "$ ")
		switch {
		case line == "```console\n":
			console = true
		case line == "```\n":
			console = false
		case console && isCommand:
			b.WriteString(line + g.command(t, strings.TrimSpace(command)))
			continue
		case console:
			continue // the previous output
		}
		b.WriteString(line)
	}
	return b.String()
}

func (g *guide) command(t *testing.T, line string) string {
	t.Helper()
	words := strings.Fields(strings.NewReplacer(g.urls...).Replace(strings.ReplaceAll(line, `"`, "")))
	if words[0] == "export" {
		name, value, _ := strings.Cut(words[1], "=")
		g.env = g.env.with(name, strings.ReplaceAll(value, "$PWD", g.dir))
		return ""
	}
	if words[0] != "tokenkeep" {
		t.Fatalf("%q is not a command of tokenkeep: it belongs into a block of sh", line)
	}
	var args []string
	var input, output string
	for _, word := range words[1:] {
		if name, ok := strings.CutPrefix(word, "<"); ok {
			input = name
		} else if name, ok := strings.CutPrefix(word, ">"); ok {
			output = name
		} else {
			args = append(args, word)
		}
	}
	cmd := process(t, g.env, args...)
	cmd.Dir = g.dir
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if input != "" {
		cmd.Stdin = strings.NewReader(readFile(t, filepath.Join(g.dir, input)))
	}
	if err := cmd.Run(); err != nil {
		_, _ = fmt.Fprintf(&out, "[%v]\n", err)
	}
	if output != "" {
		if err := os.WriteFile(filepath.Join(g.dir, output), out.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		if g.wrote != nil {
			g.wrote(t)
		}
		return ""
	}
	text := out.String()
	for i := 0; i < len(g.urls); i += 2 {
		text = strings.ReplaceAll(text, g.urls[i+1], g.urls[i])
	}
	text = accessTokens.ReplaceAllString(text, "1000.…")
	return derivedIDs.ReplaceAllString(text, "u…")
}

var (
	accessTokens = regexp.MustCompile(`\b1000\.[0-9a-z]{20,}\b`)
	derivedIDs   = regexp.MustCompile(`\bu[a-z2-7]{32}\b`)
)
