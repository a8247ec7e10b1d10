package main

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestKeysRecipe runs the steps of docs/keys.md, as written, on a store with
// records, and then those that take the keys out again.
func TestKeysRecipe(t *testing.T) {
	t.Parallel()
	_, steps, _ := strings.Cut(readFile(t, "../../docs/keys.md"), "## Bringing keys in")
	block := regexp.MustCompile("(?s)```sh\n(.*?)```").FindStringSubmatch(steps)
	if block == nil {
		t.Fatal("docs/keys.md has no steps")
	}
	e, _ := vaultEnv(t)
	importSDKFile(t, e, "--keep-ids")
	before := contents(t, e)
	file := filepath.Join(t.TempDir(), "keys.json")
	for _, first := range []string{"tokenkeep keys add keys.json", "tokenkeep keys add --none keys.json"} {
		commands := strings.Split(strings.TrimSpace(block[1]), "\n")
		commands[0] = first
		for _, command := range commands {
			args := strings.Fields(strings.ReplaceAll(command, "keys.json", file))
			e.ok(t, "", args[1:]...)
			e = e.with(envKeys, file)
			if after := contents(t, e); len(after) != len(before) || after["3"] != before["3"] {
				t.Fatalf("after %q there are %d records", command, len(after))
			}
		}
	}
	e = e.with(envKeys, "")
	if after := contents(t, e); len(after) != len(before) {
		t.Errorf("without keys there are %d records", len(after))
	}
	e.ok(t, "", "doctor")
}
