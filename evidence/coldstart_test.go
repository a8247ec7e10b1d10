package main

import "testing"

// TestColdStart_Time checks that a start with this module takes at most twice the CPU time of
// a start with the SDK alone. The test fails only if the whole confidence interval of the ratio
// exceeds 2. The command evidence measures the ratio with more starts and a lower limit.
func TestColdStart_Time(t *testing.T) {
	if testing.Short() {
		t.Skip("it measures times")
	}
	all, err := coldStarts(t.Context(), 9)
	if err != nil {
		t.Fatal(err)
	}
	for _, service := range coldServices {
		c := all[service]
		t.Logf("%s: CPU %v (%v and %v), %d and %d bytes", service, c.CPU, c.Keep, c.Bare, c.KeepBytes, c.BareBytes)
		if c.CPU.Low > 2 || c.Bare <= 0 {
			t.Errorf("%s: a start takes %v times the CPU time of the SDK alone", service, c.CPU)
		}
	}
}
