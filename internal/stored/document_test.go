package stored

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestDocument checks that docs/record-format.md names every member of a record, and
// that its examples are golden files.
func TestDocument(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("../../docs/record-format.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(data)
	for _, m := range table {
		if !strings.Contains(page, "`"+m.name+"`") {
			t.Errorf("the page does not name the member %q", m.name)
		}
	}
	golden := map[string]bool{}
	files, err := filepath.Glob("../../codec/testdata/golden/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d golden files, error %v", len(files), err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		golden[strings.TrimSpace(string(text))] = true
	}
	examples := strings.Split(page, "```json\n")[1:]
	if len(examples) == 0 {
		t.Error("the page has no example")
	}
	for _, example := range examples {
		text, _, _ := strings.Cut(example, "```")
		if !golden[strings.TrimSpace(text)] {
			t.Errorf("no golden file is the example\n%s", text)
		}
	}
}
