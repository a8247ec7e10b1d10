package evidence

import (
	"runtime"
	"strings"
	"testing"
)

func TestWhatMakesNoCallAllocatesAsOftenAsItDid(t *testing.T) { // not parallel: allocations are everybody's
	if !strings.HasPrefix(runtime.Version(), "go1.26") {
		t.Skipf("counted with Go 1.26, and this is %s", runtime.Version())
	}
	want := map[string]int{
		LocalSelect: 1, LocalMerge: 0, LocalPlan: 2, LocalEncode: 77, LocalDecode: 195,
		LocalFindID: 226, LocalFindUser: 240, LocalFindAny: 267, LocalSaveSame: 257, LocalSave: 463,
		LocalToken: 0, LocalSource: 0, LocalReuse: 0,
	}
	all, err := Allocations(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != len(want) {
		t.Errorf("%d parts", len(all))
	}
	for _, l := range all {
		if l.Allocs != want[l.Name] {
			t.Errorf("%s allocates %d times, want %d", l.Name, l.Allocs, want[l.Name])
		}
	}
}
