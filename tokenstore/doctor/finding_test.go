package doctor_test

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/tokenkeep/tokenkeep/tokenstore/doctor"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rules"
)

func TestKindsHaveAMeaning(t *testing.T) {
	t.Parallel()
	kinds := doctor.Kinds()
	if len(kinds) < 30 || !slices.IsSorted(kinds) {
		t.Errorf("the kinds are %q", kinds)
	}
	for _, k := range kinds {
		if k.Meaning() == "" {
			t.Errorf("%q means nothing", k)
		}
	}
}

// TestKindsAreDocumented checks that the documentation has a row for each kind, and that
// the row says whether the kind is harmless.
func TestKindsAreDocumented(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile("../../docs/doctor.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]string{}
	for line := range strings.Lines(string(doc)) {
		if name, rest, ok := strings.Cut(strings.TrimPrefix(line, "| `"), "` |"); ok && strings.HasPrefix(line, "| `") {
			rows[name] = rest
		}
	}
	for _, k := range doctor.Kinds() {
		row, ok := rows[string(k)]
		if !ok || strings.HasSuffix(strings.TrimSpace(row), "| yes |") != k.Harmless() {
			t.Errorf("the row of %q is %q, and it is harmless: %v", k, row, k.Harmless())
		}
	}
}

func TestCheckOptions(t *testing.T) {
	t.Parallel()
	remedies := []doctor.Remedy{doctor.RemedyRepair, doctor.RemedyMerge, doctor.RemedyPurge, doctor.RemedyRekey, doctor.RemedyManual}
	for _, test := range []struct {
		name  string
		o     *doctor.CheckOptions
		wants []doctor.Remedy
		err   error
	}{
		{"nil", nil, nil, nil},
		{"repair", &doctor.CheckOptions{Repair: true}, remedies[:1], nil},
		{"all", &doctor.CheckOptions{Repair: true, MergeDuplicates: true, Purge: true}, remedies[:3], nil},
		{"merge alone", &doctor.CheckOptions{MergeDuplicates: true}, nil, rules.ErrInvalidToken},
		{"purge alone", &doctor.CheckOptions{Purge: true}, nil, rules.ErrInvalidToken},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			o, err := test.o.Complete()
			if !errors.Is(err, test.err) {
				t.Errorf("error %v, want %v", err, test.err)
			}
			wants := slices.DeleteFunc(slices.Clone(remedies), func(r doctor.Remedy) bool { return !o.Wants(r) })
			if err == nil && (!slices.Equal(wants, test.wants) || o.Grace <= 0) {
				t.Errorf("it wants %v after %v, want %v", wants, o.Grace, test.wants)
			}
		})
	}
}
