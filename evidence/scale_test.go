package main

import "testing"

func TestScaleCalls(t *testing.T) {
	const many = 10_000
	for _, service := range services {
		t.Run(service, func(t *testing.T) {
			t.Parallel()
			scaled, listed, err := measureScale(t.Context(), service, many, 0, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range scaled {
				if want := budgets(service, few)[tokenkeep][s.Operation]; s.Few != want || s.Many != want {
					t.Errorf("%s: %d calls among %d and %d among %d, want %d", s.Operation, s.Few, few, s.Many, many, want)
				}
			}
			if listed.Calls > listed.Budget {
				t.Errorf("a list takes %d calls, and may take %d", listed.Calls, listed.Budget)
			}
		})
	}
}

func TestAllKeepsNoRecords(t *testing.T) { // not parallel, because it measures the heap
	for _, service := range services {
		_, listed, err := measureScale(t.Context(), service, 2000, 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		// The limit allows All to keep names. On AWS, All keeps the names that it has yielded,
		// because pages may overlap.
		if listed.Grew > listed.Held/2 {
			t.Errorf("%s: while All lists %d records it comes to need %d bytes more; GetTokens returns %d", service, listed.Tokens, listed.Grew, listed.Held)
		}
	}
}
