package main

import "testing"

// TestColdStart_Time starts each program a few times. It checks that a start with this module
// takes at most about twice the CPU time of a start with the SDK alone. The command evidence
// measures the ratio with more starts.
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
