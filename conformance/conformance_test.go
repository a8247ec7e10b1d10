package conformance_test

import (
	"os"
	"strings"
	"testing"

	"github.com/tokenkeep/tokenkeep/conformance"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

func TestStoreWithKeys(t *testing.T) {
	conformance.RunStore(t, backend.Store(t, &tokenstore.Options{
		NameKey:   []byte("a key of names, 16 bytes or more"),
		IndexKeys: [][]byte{[]byte("a key of labels, 16 bytes or more"), []byte("an earlier key of labels")},
	}))
}

// TestDocumentedExample checks that the example in the package documentation equals the
// code in example_test.go.
func TestDocumentedExample(t *testing.T) {
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	example, err := os.ReadFile("example_test.go")
	if err != nil {
		t.Fatal(err)
	}
	_, code, _ := strings.Cut(string(example), "var backend")
	for line := range strings.Lines("var backend" + code) {
		if want := strings.TrimRight("//\t"+line, "\n\t"); !strings.Contains(string(doc), want+"\n") {
			t.Errorf("doc.go does not have the line %q", want)
		}
	}
}
