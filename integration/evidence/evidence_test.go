package evidence

import (
	"flag"
	"testing"
)

var (
	doubles = flag.Int("evidence.doubles", 700, "pairs of faults for each service")
	seed    = flag.Uint64("evidence.seed", 1, "the first seed of what is drawn at random")
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
