package cli

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// tasks lists the commands and topics in the order of docs/cli.md, by the task of a reader.
var tasks = []struct{ title, commands string }{
	{"Look up and read", "get, ls, token, status"},
	{"Write", "save, login, refresh, rm, forget"},
	{"Move and repair", "migrate, import, export, doctor"},
	{"Keys", "keys, keys new, keys add, keys switch, keys drop, rekey"},
	{"Run", "serve, keep, policy, policy aws, policy gcp, policy k8s, policy vault, man, version"},
	{"Formats and lists", "stores, records, exit-codes, findings"},
}

// serverSection is the heading of the flags that name a record and its authorization server.
const serverSection = "Flags of a record and its server"

const cliIntro = `# tokenkeep: the command line

%s

` + "`go install github.com/tokenkeep/tokenkeep/cmd/tokenkeep@latest` installs the command. `source <(tokenkeep completion bash)` completes\n" +
	"its words; zsh, fish and powershell work too. `tokenkeep help COMMAND` prints the text of a section with all flags, and `tokenkeep man DIR` writes\n" +
	"manual pages.\n"

// A document collects the text of docs/cli.md.
type document struct {
	strings.Builder
	root   *cobra.Command
	shared *pflag.FlagSet // the flags of serverSection
}

// cliDocument returns the text of docs/cli.md.
func cliDocument(root *cobra.Command) string {
	named := &cobra.Command{}
	new(asking).flags(named)
	d := &document{root: root, shared: named.Flags()}
	d.add(cliIntro, markdown(root, root.Long))
	d.index()
	d.add("## Global flags\n\nEvery command accepts `--json`, `--timeout` and `--help` (`-h`). Every command that uses a store accepts `--store`, except `migrate`, which has `--from` and `--to`. `tokenkeep` without a command also accepts `--version` (`-v`).\n\n```text\n%s```\n", root.PersistentFlags().FlagUsages())
	d.add("## %s\n\nSeveral commands share these flags. Their sections list the names only.\n\n```text\n%s```\n", serverSection, d.shared.FlagUsages())
	for _, task := range tasks {
		for path := range strings.SplitSeq(task.commands, ", ") {
			d.section(path)
		}
	}
	return strings.TrimSuffix(d.String(), "\n")
}

// add appends text and an empty line.
func (d *document) add(format string, args ...any) { _, _ = fmt.Fprintf(d, format+"\n", args...) }

// command returns the command or topic at a path such as "keys new".
func (d *document) command(path string) *cobra.Command {
	c, rest, err := d.root.Find(strings.Fields(path))
	if err != nil || len(rest) > 0 {
		panic("there is no command " + path)
	}
	return c
}

// index appends the table of commands by task.
func (d *document) index() {
	_, _ = d.WriteString("| task | commands |\n|---|---|\n")
	for _, task := range tasks {
		var links []string
		for path := range strings.SplitSeq(task.commands, ", ") {
			c := d.command(path)
			links = append(links, fmt.Sprintf("[%s](#%s): %s", path, anchor(c), c.Short))
		}
		_, _ = fmt.Fprintf(d, "| **%s** | %s |\n", task.title, strings.Join(links, "<br>"))
	}
	_, _ = d.WriteString("\n")
}

func anchor(c *cobra.Command) string { return strings.ReplaceAll(c.CommandPath(), " ", "-") }

// section appends the section of a command or topic.
func (d *document) section(path string) {
	c := d.command(path)
	level := "##"
	if strings.Contains(path, " ") {
		level = "###"
	}
	own, shared := d.flags(c)
	d.add("%s %s", level, c.CommandPath())
	switch {
	case !c.Runnable():
	case c.HasAvailableSubCommands():
		d.add("`tokenkeep %s [command]`\n", path)
	case own == "":
		d.add("`%s`\n", c.UseLine())
	default:
		d.add("```text\n%s\n%s```", c.UseLine(), own)
	}
	if len(shared) > 0 {
		d.add("[Shared flags](#flags-of-a-record-and-its-server): %s.\n", strings.Join(shared, ", "))
	}
	if len(c.Aliases) > 0 {
		d.add("`%s` is another name of the command.\n", strings.Join(c.Aliases, "`, `"))
	}
	text := c.Long
	if text == "" {
		verb, rest, _ := strings.Cut(c.Short, " ")
		text = verb + "s " + rest + "."
	}
	d.add("%s\n", markdown(d.root, text))
}

// flags returns the description of the flags of c, and the names of the flags that have the same
// description in serverSection. A command with few such flags describes all of its flags.
func (d *document) flags(c *cobra.Command) (own string, shared []string) {
	const few = 4
	all, set := pflag.NewFlagSet("", pflag.ContinueOnError), pflag.NewFlagSet("", pflag.ContinueOnError)
	c.LocalFlags().VisitAll(func(f *pflag.Flag) {
		if f.Name == "help" || f.Hidden {
			return
		}
		all.AddFlag(f)
		if same := d.shared.Lookup(f.Name); same != nil && same.Usage == f.Usage && same.DefValue == f.DefValue {
			shared = append(shared, "`--"+f.Name+"`")
		} else {
			set.AddFlag(f)
		}
	})
	if len(shared) < few {
		return all.FlagUsages(), nil
	}
	return set.FlagUsages(), shared
}

var (
	// item matches the first line of an item in a list of the help: a term and its description.
	item = regexp.MustCompile(`^  (\S(?:.*?\S)??)(?:   *(\S.*))?$`)

	// code matches the parts of a paragraph that are code: flags, environment variables and
	// mentioned commands.
	code = regexp.MustCompile(`["']tokenkeep [^"']*["']|--[a-z][a-z-]*|\b[A-Z]+_[A-Z_]*[A-Z_]`)
)

// markdown returns a text of the help in Markdown. Each paragraph and each list item is one line,
// and examples and tables are code.
func markdown(root *cobra.Command, text string) string {
	var blocks []string
	for block := range strings.SplitSeq(text, "\n\n") {
		lines := strings.Split(strings.Trim(block, "\n"), "\n")
		switch {
		case !strings.HasPrefix(lines[0], "  "):
			blocks = append(blocks, inline(root, strings.Join(lines, " ")))
		case isList(lines):
			blocks = append(blocks, list(root, lines))
		default:
			language := "text"
			if strings.HasPrefix(lines[0], "  tokenkeep ") || strings.HasPrefix(lines[0], "  gcloud ") || strings.HasPrefix(lines[0], "  curl ") {
				language = "sh"
			}
			blocks = append(blocks, "```"+language+"\n"+strings.ReplaceAll("\n"+strings.Join(lines, "\n"), "\n  ", "\n")[1:]+"\n```")
		}
	}
	page := strings.Join(blocks, "\n\n")
	return strings.NewReplacer("\n\n```", "\n```", ":\n\n- ", ":\n- ").Replace(page)
}

// columns matches a line with more than two columns, or with a backslash that continues a command.
var columns = regexp.MustCompile(`^  +\S.*?  +\S.*?   *\S|\\$`)

// isList reports whether indented lines are a list of terms and descriptions, at least one of
// which takes several lines.
func isList(lines []string) bool {
	return slices.ContainsFunc(lines, func(line string) bool { return strings.HasPrefix(line, "      ") }) &&
		!slices.ContainsFunc(lines, columns.MatchString)
}

// list returns a list of the help as a list in Markdown.
func list(root *cobra.Command, lines []string) string {
	var items []string
	for _, line := range lines {
		m := item.FindStringSubmatch(line)
		if m == nil || strings.HasPrefix(line, "   ") {
			items[len(items)-1] += " " + inline(root, strings.TrimSpace(line))
			continue
		}
		term, harmless := strings.CutSuffix(m[1], " *")
		term = "- `" + term + "`"
		if harmless {
			term += " \\*"
		}
		items = append(items, term+": "+inline(root, m[2]))
	}
	return strings.Join(items, "\n")
}

// inline marks the code in a text, and escapes the text for Markdown.
func inline(root *cobra.Command, text string) string {
	var b strings.Builder
	for len(text) > 0 {
		at := code.FindStringIndex(text)
		if at == nil {
			at = []int{len(text), len(text)}
		}
		_, _ = b.WriteString(strings.NewReplacer("<", `\<`, "*", `\*`, "|", `\|`, "~", `\~`).Replace(text[:at[0]]))
		if found := text[at[0]:at[1]]; found != "" {
			_, _ = b.WriteString(codeOf(root, strings.Trim(found, `"'`)))
		}
		text = text[at[1]:]
	}
	return b.String()
}

// codeOf returns text as code, with a link to its section if text is a command of the program.
func codeOf(root *cobra.Command, text string) string {
	span := "`" + text + "`"
	words := strings.Fields(text)
	if words[0] != "tokenkeep" {
		return span
	}
	words = slices.DeleteFunc(words[1:], func(word string) bool { return word == "help" || strings.HasPrefix(word, "-") })
	if c, _, err := root.Find(words); err == nil && c != root {
		return "[" + span + "](#" + anchor(c) + ")"
	}
	return span
}

// TestCLIDocument checks that docs/cli.md is the page that cliDocument generates from the help.
func TestCLIDocument(t *testing.T) {
	t.Parallel()
	want := cliDocument((&app{schemes: allSchemes(), env: env{}.get}).rootCommand())
	if *update {
		if err := os.WriteFile(cliDoc, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if readFile(t, cliDoc) != want {
		t.Error("docs/cli.md is not what the help says: run the test with -update")
	}
	if n := strings.Count(want, "\n"); n > 650 {
		t.Errorf("docs/cli.md has %d lines: the limit is 650", n)
	}
}

// plain returns the words of a text: without quotes, punctuation, and the marks of Markdown.
func plain(text string) string {
	text = regexp.MustCompile(`\]\(#[a-z0-9-]*\)`).ReplaceAllString(text, "")
	return strings.Join(regexp.MustCompile(`[\pL\pN_=*$@…/]+`).FindAllString(text, -1), " ")
}

// TestCLIDocumentIsComplete checks that docs/cli.md contains the text and the flags that help
// prints for each visible command and topic.
func TestCLIDocumentIsComplete(t *testing.T) {
	t.Parallel()
	root := (&app{schemes: allSchemes(), env: env{}.get}).rootCommand()
	sections := map[string]string{}
	for section := range strings.SplitSeq(strings.ReplaceAll(cliDocument(root), "\n### ", "\n## "), "\n## ") {
		heading, text, _ := strings.Cut(section, "\n")
		sections[strings.TrimPrefix(heading, "# ")] = plain(text)
	}
	shared := " " + sections["tokenkeep: the command line"] + " " + sections["Global flags"] + " " + sections[serverSection] + " "
	commands := 0
	var compare func(c *cobra.Command)
	compare = func(c *cobra.Command) {
		if c.Hidden || c.Name() == "help" || c.Name() == "completion" {
			return
		}
		commands++
		text, usage, _ := strings.Cut((env{}).ok(t, "", append([]string{"help"}, strings.Fields(c.CommandPath())[1:]...)...), "\nUsage:\n")
		missing := func(of string) {
			if want := " " + plain(of) + " "; !strings.Contains(" "+sections[c.CommandPath()]+" ", want) && !strings.Contains(shared, want) {
				t.Errorf("the section %q does not have %q", c.CommandPath(), of)
			}
		}
		for block := range strings.SplitSeq(strings.TrimSpace(text), "\n\n") {
			missing(block)
		}
		for line := range strings.Lines(usage) {
			if strings.HasPrefix(line, "      --") {
				missing(line)
			}
		}
		for _, sub := range c.Commands() {
			compare(sub)
		}
	}
	compare(root)
	if commands < 30 {
		t.Errorf("%d commands were compared", commands)
	}
}
