package tokenkeep_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestTheProgramInTheREADMERuns runs it as pasted.
func TestTheProgramInTheREADMERuns(t *testing.T) {
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
	// The module sees it as one of its commands.
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
