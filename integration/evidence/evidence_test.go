package evidence

import (
	"flag"
	"testing"
)

var (
	doubles   = flag.Int("evidence.doubles", 700, "pairs of faults for each service")
	histories = flag.Int("evidence.histories", 100, "histories of each service")
	seed      = flag.Uint64("evidence.seed", 1, "the first seed of what is drawn at random")
)

func TestEveryFaultAtEveryCall(t *testing.T) {
	for _, service := range Names {
		t.Run(service, func(t *testing.T) {
			t.Parallel()
			cells, err := Matrix(t.Context(), service)
			if err != nil {
				t.Fatal(err)
			}
			runs := 0
			for _, c := range cells {
				runs += c.Calls
				for _, f := range c.Failures {
					t.Errorf("%s, %s, %v: %s", c.Service, c.Operation, c.Fault, f)
				}
			}
			t.Logf("%d runs", runs)
		})
	}
}

func TestTwoFaults(t *testing.T) {
	for _, service := range Names {
		t.Run(service, func(t *testing.T) {
			t.Parallel()
			wrong, err := Doubles(t.Context(), service, *doubles, *seed)
			if err != nil {
				t.Fatal(err)
			}
			for _, w := range wrong {
				t.Errorf("%s, %s: %s\n\tgo test -run 'TestTwoFaults/%s' -evidence.doubles 1 -evidence.seed %d", w.Service, w.Operation, w.What, w.Service, w.Seed)
			}
		})
	}
}

func TestHistoriesAreLinearizable(t *testing.T) {
	for _, service := range Names {
		t.Run(service, func(t *testing.T) {
			t.Parallel()
			checkHistories(t, service, Plain, *histories)
		})
		for _, under := range AllConditions {
			if under.Behind && service == "vault" {
				continue // the active node is never behind
			}
			t.Run(service+"/"+under.Name, func(t *testing.T) {
				t.Parallel()
				checkHistories(t, service, under, max(1, *histories/4))
			})
		}
	}
}

func checkHistories(t *testing.T, service string, under Conditions, runs int) {
	t.Helper()
	operations, wrong, err := Histories(t.Context(), service, under, runs, *seed)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range wrong {
		t.Errorf("%s\n\tgo test -run '^%s$' -evidence.histories 1 -evidence.seed %d", w.What, t.Name(), w.Seed)
	}
	t.Logf("%d operations in %d histories", operations, runs)
}

// The same check finds what is broken.
func TestHistoriesOfBrokenServicesAreNot(t *testing.T) {
	for mistake := range Broken {
		t.Run(mistake, func(t *testing.T) {
			t.Parallel()
			for i := range uint64(50) {
				svc := startBroken(mistake)
				if _, err := linearizable(t.Context(), svc, Plain, i); err != nil {
					t.Logf("found in history %d: %v", i+1, err)
					return
				}
			}
			t.Error("50 histories have an explanation")
		})
	}
}
