package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/tokenkeep/tokenkeep/vaultstore"
)

// update rewrites the documents: go test ./cmd/tokenkeep -run Document -update
var update = flag.Bool("update", false, "rewrite docs/cli.md, and what the commands of docs/migrating.md print")

const (
	cliDoc       = "../../docs/cli.md"
	migratingDoc = "../../docs/migrating.md"
)

// TestCLIDocument compares docs/cli.md with the help of all commands.
func TestCLIDocument(t *testing.T) {
	t.Parallel()
	a := &app{env: env{}.get}
	root := a.rootCommand()
	root.InitDefaultHelpCmd()
	var b strings.Builder
	b.WriteString("# tokenkeep: the command line\n\n" +
		"What `tokenkeep help` says of each command and topic. A test compares the two.\n\n" +
		"Get it with `go install github.com/tokenkeep/tokenkeep/cmd/tokenkeep@latest`, and complete its words with\n" +
		"`source <(tokenkeep completion bash)`; there are zsh, fish and powershell, too.\n\n")
	var document func(c *cobra.Command)
	document = func(c *cobra.Command) {
		if c.Hidden || c.Name() == "help" || c.Name() == "completion" {
			return
		}
		path := strings.Fields(c.CommandPath())[1:]
		args := slices.Concat(path, []string{"--help"})
		if !c.Runnable() {
			args = slices.Concat([]string{"help"}, path)
		}
		_, _ = fmt.Fprintf(&b, "## %s\n\n```text\n%s\n```\n\n", c.CommandPath(), strings.TrimSpace(env{}.ok(t, "", args...)))
		for _, sub := range c.Commands() {
			document(sub)
		}
	}
	document(root)
	want := strings.TrimSuffix(b.String(), "\n")
	if *update {
		if err := os.WriteFile(cliDoc, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if readFile(t, cliDoc) != want {
		t.Error("docs/cli.md is not what the help says: run the test with -update")
	}
}

// fixtures are the files of the sections of docs/migrating.md, by the heading; the
// file in the document is the first of each.
var fixtures = map[string][2]string{
	"The steps":                              {"sdk_tokens.txt", "../../testdata/zoho-sdk/python_filestore.csv"},
	"Python":                                 {"sdk_tokens.txt", "../../codec/tokenfile/testdata/dialects/python.txt"},
	"Java":                                   {"sdk_tokens.txt", "../../codec/tokenfile/testdata/dialects/java.txt"},
	"Node.js":                                {"sdk_tokens.txt", "../../testdata/zoho-sdk/node_filestore.txt"},
	"TypeScript":                             {"sdk_tokens.txt", "../../codec/tokenfile/testdata/dialects/typescript.txt"},
	"Deno":                                   {"sdk_tokens.txt", "../../codec/tokenfile/testdata/dialects/deno.txt"},
	"PHP":                                    {"sdk_tokens.txt", "../../codec/tokenfile/testdata/dialects/php.txt"},
	"C#":                                     {"sdk_tokens.txt", "../../codec/tokenfile/testdata/dialects/csharp.txt"},
	"Ruby":                                   {"sdk_tokens.txt", "../../codec/tokenfile/testdata/dialects/ruby.txt"},
	"Scala":                                  {"sdk_tokens.txt", "../../codec/tokenfile/testdata/dialects/scala.txt"},
	"MySQL, of any SDK":                      {"sdk_tokens.txt", "../../testdata/zoho-sdk/python_filestore.csv"},
	"SQLite, as in Kaizen #192":              {"zohooauth.db", "../../tokenstore/sqlstore/testdata/zohooauth.db"},
	"To AWS Secrets Manager or Google Cloud": {"sdk_tokens.txt", "../../testdata/zoho-sdk/python_filestore.csv"},
	"When something stands in the way":       {"duplicates.txt", "testdata/duplicates.csv"},
	"Back to a file":                         {"sdk_tokens.txt", "../../testdata/zoho-sdk/python_filestore.csv"},
}

// TestMigratingDocument runs the commands of docs/migrating.md, each section in a
// folder of its own, and compares what they print with what stands there.
func TestMigratingDocument(t *testing.T) {
	t.Parallel()
	sections := strings.Split(readFile(t, migratingDoc), "\n## ")
	seen := map[string]bool{}
	for i, section := range sections {
		heading, _, _ := strings.Cut(section, "\n")
		if !strings.Contains(section, "```console") {
			continue
		}
		if _, ok := fixtures[heading]; !ok {
			t.Errorf("the section %q has no fixture", heading)
			continue
		}
		seen[heading] = true
		t.Run(heading, func(t *testing.T) {
			got := runSection(t, heading, section)
			if *update {
				sections[i] = got
			} else if got, want := timeless(got), timeless(section); got != want {
				t.Errorf("the document says\n%s\nand the commands print\n%s", want, got)
			}
		})
	}
	for heading := range fixtures {
		if !seen[heading] {
			t.Errorf("there is no section %q", heading)
		}
	}
	if *update && !t.Failed() {
		if err := os.WriteFile(migratingDoc, []byte(strings.Join(sections, "\n## ")), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// runSection returns a section with what its commands print now.
func runSection(t *testing.T, heading, section string) string {
	t.Helper()
	dir := t.TempDir()
	fixture := fixtures[heading]
	if err := os.WriteFile(filepath.Join(dir, fixture[0]), []byte(readFile(t, fixture[1])), 0o600); err != nil {
		t.Fatal(err)
	}
	e, urls := documentStores(t, heading, filepath.Join(dir, fixture[0]))
	var b strings.Builder
	console := false
	for line := range strings.Lines(section) {
		switch {
		case line == "```console\n":
			console = true
		case line == "```\n":
			console = false
		case console && strings.HasPrefix(line, "$ tokenkeep "):
			b.WriteString(line)
			args := strings.Fields(urls.Replace(strings.ReplaceAll(line, `"`, "")))[2:]
			cmd := process(t, e, args...)
			cmd.Dir = dir
			var out bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &out
			if err := cmd.Run(); err != nil {
				_, _ = fmt.Fprintf(&out, "[%v]\n", err)
			}
			b.WriteString(out.String())
			continue
		case console:
			continue // what it printed
		}
		b.WriteString(line)
	}
	return b.String()
}

// documentStores returns the environment of a section's commands, and what takes
// the place of the stores that they name.
func documentStores(t *testing.T, heading, file string) (env, *strings.Replacer) {
	t.Helper()
	vault, server := vaultEnv(t)
	if err := server.Policy("", "crm", vaultstore.Policy("secret", "oauth/crm")); err != nil {
		t.Fatal(err)
	}
	e := vault.with("VAULT_TOKEN", server.Token("", 0, "crm")).with(envStore, "")
	var urls []string
	switch heading {
	case "MySQL, of any SDK":
		database := mysqlEnv(t)
		migrates(t, env{envStore: "file:" + file}, database, "--keep-ids")
		e = e.with(envMySQLPassword, database[envMySQLPassword])
		urls = append(urls, "mysql://root@db.example.com/zohooauth?tls=true", database[envStore])
	case "To AWS Secrets Manager or Google Cloud":
		aws, _ := awsEnv(t)
		gcp, _ := gcpEnv(t)
		_, awsParams, _ := strings.Cut(aws[envStore], "?")
		_, gcpParams, _ := strings.Cut(gcp[envStore], "?")
		urls = append(urls, "?region=eu-central-1", "?"+awsParams, "gcpsm:my-project/oauth-crm", "gcpsm:my-project/oauth-crm?"+gcpParams)
	}
	return e, strings.NewReplacer(urls...)
}

var (
	spaces   = regexp.MustCompile(` {2,}`)
	stepLine = regexp.MustCompile(`(?m)^((?:read source|read target|plan|write|verify|delete source) \d+) .*$`)
	ages     = regexp.MustCompile(`(in \d+[smhd]|\d+[smhd] ago)`)
)

// timeless returns a section without what differs from run to run: times, and
// how wide columns are because of them.
func timeless(text string) string {
	text = spaces.ReplaceAllString(text, " ")
	text = stepLine.ReplaceAllString(text, "$1")
	return ages.ReplaceAllString(text, "then")
}
