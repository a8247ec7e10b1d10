package cli

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/tokenkeep/tokenkeep/vaultstore"
)

// update tells the tests to rewrite the documents: go test ./cli -run Document -update
var update = flag.Bool("update", false, "rewrite docs/cli.md, and what the commands of docs/migrating.md print")

const (
	cliDoc       = "../docs/cli.md"
	migratingDoc = "../docs/migrating.md"
)

// fixtures maps the heading of each section with commands in docs/migrating.md to two file names.
// The commands use a file with the first name and the content of the second file.
var fixtures = map[string][2]string{
	"The steps":                              {"sdk_tokens.txt", "../testdata/zoho-sdk/python_filestore.csv"},
	"MySQL, of any SDK":                      {"sdk_tokens.txt", "../testdata/zoho-sdk/python_filestore.csv"},
	"SQLite, as in Kaizen #192":              {"zohooauth.db", "../tokenstore/sqlstore/testdata/zohooauth.db"},
	"To AWS Secrets Manager or Google Cloud": {"sdk_tokens.txt", "../testdata/zoho-sdk/python_filestore.csv"},
	"Conflicts":                              {"duplicates.txt", "testdata/duplicates.csv"},
	"Back to a file":                         {"sdk_tokens.txt", "../testdata/zoho-sdk/python_filestore.csv"},
}

// sdkFiles maps each SDK in a table of docs/migrating.md to a file that the SDK wrote.
var sdkFiles = map[string]string{
	"Python":     "../codec/tokenfile/testdata/dialects/python.txt",
	"Java":       "../codec/tokenfile/testdata/dialects/java.txt",
	"Node.js":    "../testdata/zoho-sdk/node_filestore.txt",
	"TypeScript": "../codec/tokenfile/testdata/dialects/typescript.txt",
	"Deno":       "../codec/tokenfile/testdata/dialects/deno.txt",
	"PHP":        "../codec/tokenfile/testdata/dialects/php.txt",
	"C#":         "../codec/tokenfile/testdata/dialects/csharp.txt",
	"Ruby":       "../codec/tokenfile/testdata/dialects/ruby.txt",
	"Scala":      "../codec/tokenfile/testdata/dialects/scala.txt",
}

// sdkRow matches a row of the table of SDKs: the SDK and the URL of its file.
var sdkRow = regexp.MustCompile("(?m)^\\| ([^|]+) \\| `(file:sdk_tokens[^`]*)` \\|")

// TestMigratingSDKs checks that migrate accepts each SDK's URL in docs/migrating.md and moves the
// records of that SDK's file.
func TestMigratingSDKs(t *testing.T) {
	t.Parallel()
	rows := sdkRow.FindAllStringSubmatch(readFile(t, migratingDoc), -1)
	if len(rows) != len(sdkFiles) {
		t.Errorf("the table has %d rows, want %d", len(rows), len(sdkFiles))
	}
	for _, row := range rows {
		t.Run(row[1], func(t *testing.T) {
			t.Parallel()
			text := readFile(t, sdkFiles[row[1]])
			file := filepath.Join(t.TempDir(), "sdk_tokens.txt")
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			e, _ := vaultEnv(t)
			out := e.ok(t, "", "migrate", "--from", strings.Replace(row[2], "sdk_tokens.txt", file, 1), "--to", e[envStore])
			if records := regexp.MustCompile(`(\d+) of (\d+) records verified`).FindStringSubmatch(out); records == nil || records[1] != records[2] || records[1] < "2" {
				t.Errorf("it printed\n%s", out)
			}
		})
	}
}

// TestMigratingProgram checks that the program in docs/migrating.md prints the documented
// output after the migration.
func TestMigratingProgram(t *testing.T) {
	t.Parallel()
	page := readFile(t, migratingDoc)
	command := regexp.MustCompile(`(?m)^\$ tokenkeep get --user (\S+) --client (\S+) `).FindStringSubmatch(page)
	if command == nil {
		t.Fatal("the page looks up no record")
	}
	_, rest, _ := strings.Cut(page, "## The new program")
	dir := t.TempDir()
	source := filepath.Join(dir, "main.go")
	if err := os.WriteFile(source, []byte(block(t, rest, "go")), 0o600); err != nil {
		t.Fatal(err)
	}
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{filepath.Join(root, "pasted", "main.go"): source}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	e, _ := documentStores(t, "The new program", "")
	migrates(t, env{envStore: "file:" + fixtures["The steps"][1]}, e.with(envStore, "vault:secret/oauth/crm"))
	cmd := exec.CommandContext(t.Context(), "go", "run", "-overlay", filepath.Join(dir, "overlay.json"), "./pasted", command[1], command[2])
	cmd.Dir = root
	cmd.Env = os.Environ()
	for name, value := range e {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	out, err := cmd.CombinedOutput()
	if want := block(t, rest, "text"); err != nil || string(out) != want {
		t.Errorf("it printed %q, error %v; want %q", out, err, want)
	}
}

// TestMigratingDocument runs the commands of docs/migrating.md, each section in a separate
// folder, and checks that they print the output in the document.
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

// runSection runs the commands of a section, and returns the section with their current output.
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
			continue // the previous output
		}
		b.WriteString(line)
	}
	return b.String()
}

// documentStores returns the environment of a section's commands, and a replacer that puts test
// stores in place of the stores in the document.
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
	stepLine = regexp.MustCompile(`(?m)^((?:read source|read target|plan|tell apart|write|verify|delete source) \d+) .*$`)
	ages     = regexp.MustCompile(`(in \d+[smhd]|\d+[smhd] ago)`)
)

// timeless returns a section without the parts that differ between runs: times, numbers of
// calls, and the widths of columns.
func timeless(text string) string {
	text = spaces.ReplaceAllString(text, " ")
	text = stepLine.ReplaceAllString(text, "$1")
	return ages.ReplaceAllString(text, "then")
}
