package main

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
		localSelect: 2, localMerge: 2, localPlan: 16, localEncode: 77, localDecode: 195,
		localFindID: 239, localFindUser: 253, localFindAny: 280, localSaveSame: 280, localSave: 488,
		localToken: 0, localSource: 0, localReuse: 0,
	}
	all, err := allocations(t.Context())
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
