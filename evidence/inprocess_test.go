package main

import (
	"runtime"
	"strings"
	"testing"
)

func TestAllocations(t *testing.T) { // not parallel, because it counts the allocations of all goroutines
	if !strings.HasPrefix(runtime.Version(), "go1.26") {
		t.Skipf("counted with Go 1.26, and this is %s", runtime.Version())
	}
	want := map[string]int{
		"match: Select among 10 records":             2,
		"merge: Merge":                               2,
		"match and merge: PlanSave among 10 records": 7,
		"encode: stored.Encode":                      4,
		"decode: stored.Decode":                      14,
		"memstore: FindTokenByID":                    46,
		"memstore: FindToken by user and client (digest, decode, match)":         60,
		"memstore: FindToken by refresh token":                                   92,
		"memstore: SaveToken, unchanged":                                         79,
		"memstore: SaveToken, a new access token (digest, match, merge, encode)": 231,
		"initializer: Client.Token, fresh":                                       0,
		localSource:                                                              0,
		localReuse:                                                               0,
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
