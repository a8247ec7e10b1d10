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
		"match: Select among 10 records":             2,
		"merge: Merge":                               2,
		"match and merge: PlanSave among 10 records": 20,
		"encode: stored.Encode":                      77,
		"decode: stored.Decode":                      193,
		"memstore: FindTokenByID":                    240,
		"memstore: FindToken by user and client (digest, decode, match)":         255,
		"memstore: FindToken by refresh token":                                   281,
		"memstore: SaveToken, unchanged":                                         285,
		"memstore: SaveToken, a new access token (digest, match, merge, encode)": 498,
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
