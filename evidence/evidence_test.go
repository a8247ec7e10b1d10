package main

import (
	"context"
	"flag"
	"testing"
	"testing/synctest"
)

var (
	pairs         = flag.Int("evidence.doubles", 700, "pairs of faults for each service")
	someHistories = flag.Int("evidence.histories", 100, "histories of each service")
	firstSeed     = flag.Uint64("evidence.seed", 1, "the first seed of what is drawn at random")
)

func TestEveryFaultAtEveryCall(t *testing.T) {
	for _, service := range services {
		t.Run(service, func(t *testing.T) {
			t.Parallel()
			cells, err := matrix(t.Context(), service)
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
	for _, service := range services {
		t.Run(service, func(t *testing.T) {
			t.Parallel()
			wrong, err := doubles(t.Context(), service, *pairs, *firstSeed, func(f func(context.Context) error) (err error) {
				synctest.Test(t, func(t *testing.T) { err = f(t.Context()) })
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			report(t, attrDoubles, doubled{service, wrong})
			for _, w := range wrong {
				t.Errorf("%s, %s: %s\n\tgo test -run 'TestTwoFaults/%s' -evidence.doubles 1 -evidence.seed %d", w.Service, w.Operation, w.What, w.Service, w.Seed)
			}
		})
	}
}

func TestHistoriesAreLinearizable(t *testing.T) {
	for _, service := range services {
		t.Run(service, func(t *testing.T) {
			t.Parallel()
			checkHistories(t, service, plain, *someHistories)
		})
		for _, under := range allConditions {
			if under.behind && current[service] {
				continue // reads of this service never lag
			}
			t.Run(service+"/"+under.name, func(t *testing.T) {
				t.Parallel()
				checkHistories(t, service, under, max(1, *someHistories/4))
			})
		}
	}
}

func checkHistories(t *testing.T, service string, under conditions, runs int) {
	t.Helper()
	operations, wrong, err := runHistories(t.Context(), service, under, runs, *firstSeed)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range wrong {
		t.Errorf("%s\n\tgo test -run '^%s$' -evidence.histories 1 -evidence.seed %d", w.What, t.Name(), w.Seed)
	}
	t.Logf("%d operations in %d histories", operations, runs)
}

// TestHistoriesOfBrokenServicesAreNot checks that the checker finds the bug of each broken
// service within 400 histories.
func TestHistoriesOfBrokenServicesAreNot(t *testing.T) {
	for mistake := range brokenServices {
		t.Run(mistake, func(t *testing.T) {
			t.Parallel()
			for i := range uint64(400) {
				svc := startBroken(mistake)
				if _, err := explained(t.Context(), svc, plain, i); err != nil {
					t.Logf("found in history %d: %v", i+1, err)
					return
				}
			}
			t.Error("400 histories have an explanation")
		})
	}
}
