package tokenkeep_test

import (
	"encoding/json"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestREADMEProgram checks that the first Go program in the README runs unchanged, and prints
// the expected output.
func TestREADMEProgram(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(readme), "```go\n")
	program, _, ok := strings.Cut(rest, "```")
	if !ok {
		t.Fatal("README.md has no program")
	}
	root, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	main := filepath.Join(dir, "main.go")
	if err := os.WriteFile(main, []byte(program), 0o600); err != nil {
		t.Fatal(err)
	}
	// With the overlay, the program is a command of this module.
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{filepath.Join(root, "pasted", "main.go"): main}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "go", "run", "-overlay", filepath.Join(dir, "overlay.json"), "./pasted")
	out, err := cmd.CombinedOutput()
	if want := "ann [redacted] <nil>\nann new <nil>\n"; err != nil || string(out) != want {
		t.Errorf("it printed %q, error %v; want %q", out, err, want)
	}
}

// TestREADMEShowsTheExample checks that the README contains the two programs in
// examples/oauth2, and that the second program is one to six lines longer.
func TestREADMEShowsTheExample(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(readme), "```diff\n")
	diff, _, _ := strings.Cut(rest, "```")
	programs := map[string]*strings.Builder{"-": {}, "+": {}}
	more := 0
	for line := range strings.Lines(diff) {
		for sign, program := range programs {
			if line[:1] == sign || line[:1] == " " || line == "\n" {
				program.WriteString(strings.TrimPrefix(strings.TrimPrefix(line, sign), " "))
			}
		}
		more += map[string]int{"+": 1, "-": -1}[line[:1]]
	}
	if more < 1 || more > 6 {
		t.Errorf("the second program is %d lines longer", more)
	}
	for sign, path := range map[string]string{"-": "examples/oauth2/before/main.go", "+": "examples/oauth2/main.go"} {
		source, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		_, program, _ := strings.Cut(string(source), "package main\n")
		if got := programs[sign].String(); got != "package main\n"+program {
			t.Errorf("README.md has for %s:\n%s", path, got)
		}
	}
}

// TestREADMEFigures checks that the figures in the README are those of docs/evidence.md: faults,
// searches, prices, calls, quotas and the instances that find an expired token.
func TestREADMEFigures(t *testing.T) {
	t.Parallel()
	texts := pages(t)
	readme, evidence := texts["README.md"], texts["docs/evidence.md"]
	runs := regexp.MustCompile(`\(([0-9,]+)\s+runs, and ([0-9,]+) with two faults\)`).FindStringSubmatch(readme)
	if runs == nil {
		t.Fatal("README.md has no figures of faults")
	}
	for _, n := range runs[1:] {
		if !strings.Contains(evidence, n+" runs") && !strings.Contains(evidence, n+" with two.") {
			t.Errorf("docs/evidence.md has no %s runs", n)
		}
	}
	for name, line := range map[string]string{"tokenkeep": `calls to find a token by its user alone, of 10,000`, "list and scan": `the same by listing and scanning`} {
		_, cells, _ := strings.Cut(evidence, "| "+line)
		cells, _, ok := strings.Cut(cells, " |\n")
		if !ok || !strings.Contains(readme, "| "+name+cells+" |") {
			t.Errorf("README.md has no %q", "| "+name+cells)
		}
	}
	dollars := regexp.MustCompile(`dollars for each record[^|]*\| \$([0-9.]+) \| \$([0-9.]+) \|`).FindStringSubmatch(evidence)
	if dollars == nil {
		t.Fatal("docs/evidence.md has no prices")
	}
	for i, adapter := range []string{"awssm", "gcpsm"} {
		price, err := strconv.ParseFloat(dollars[i+1], 64)
		if err != nil {
			t.Fatal(err)
		}
		shown := regexp.MustCompile(`\| \[` + adapter + `\]\(` + adapter + `\) \| \$([0-9.]+) \|`).FindStringSubmatch(readme)
		if shown == nil {
			t.Fatalf("README.md has no price of %s", adapter)
		}
		if rounded, err := strconv.ParseFloat(shown[1], 64); err != nil || math.Abs(rounded-price) > 0.00501 {
			t.Errorf("README.md has the price %s of %s, want $%v, error %v", shown[1], adapter, price, err)
		}
		guide := texts["docs/getting-started-"+map[string]string{"awssm": "aws", "gcpsm": "gcp"}[adapter]+".md"]
		if !strings.Contains(guide, "A record costs $"+shown[1]+" a month") {
			t.Errorf("the guide for %s has another price than $%s", adapter, shown[1])
		}
	}
	finds := row(t, evidence, "calls from a cold start to the first token")
	saves := row(t, evidence, "save a new access token")
	refreshes := row(t, evidence, "calls of one refresh")
	for i, adapter := range []string{"awssm", "gcpsm", "vaultstore", "k8sstore"} {
		save, _, _ := strings.Cut(saves[i], " /")
		refresh, _, _ := strings.Cut(refreshes[i], ".") // one more in ten, as the footnote says
		want := finds[i] + " / " + save + " / " + refresh
		if calls := row(t, readme, "["+adapter+"]("+adapter+")")[2]; strings.TrimSuffix(calls, " ⁵") != want {
			t.Errorf("README.md has the calls %q of %s, want %q", calls, adapter, want)
		}
	}
	lost := regexp.MustCompile(`^100 \(([0-9]+)\) and 100 \(([0-9]+)\)$`).FindStringSubmatch(row(t, evidence, "secret per user")[0])
	if lost == nil {
		t.Fatal("docs/evidence.md does not say what happens without tokenkeep")
	}
	for i, server := range []string{"issues 10 tokens in ten minutes, as Zoho does", "replaces refresh tokens"} {
		if cells := row(t, readme, server); cells[1] != "100" || !strings.HasPrefix(cells[2]+",", lost[i+1]+",") {
			t.Errorf("README.md has %q for a server that %s, want 100 and %s", cells, server, lost[i+1])
		}
	}
	if one := row(t, evidence, "tokenkeep")[0]; one != "1 (0)" || !slices.Equal(row(t, readme, "has either of the rules below")[1:], []string{"**1**", "**0**"}) {
		t.Errorf("docs/evidence.md has %q for tokenkeep, and README.md other numbers", one)
	}
	quota := regexp.MustCompile(`enough for ([0-9,]+) records with hourly refreshes.*enough for ([0-9,]+) records`).FindStringSubmatch(evidence)
	if quota == nil || !strings.HasPrefix(quota[1], "9,") || !strings.Contains(readme, "project: 9,000 hourly tokens") || !strings.Contains(readme, quota[2]+" hourly tokens") {
		t.Errorf("README.md has other quotas than docs/evidence.md: %q", quota)
	}
}

// row returns the cells of the row of a table in page that begins with name, without the name.
func row(t *testing.T, page, name string) []string {
	t.Helper()
	_, rest, ok := strings.Cut(page, "\n| "+name+" | ")
	line, _, _ := strings.Cut(rest, " |\n")
	cells := strings.Split(line, " | ")
	if !ok || len(cells) < 3 {
		t.Fatalf("no table has a row %q with four columns", name)
	}
	return cells
}
