package integration

import (
	"slices"
	"testing"
)

// TestAWSEnv checks the environment and the query with which programs use an emulator, and
// that both are empty for the service itself.
func TestAWSEnv(t *testing.T) {
	t.Parallel()
	a := &AWS{endpoint: "http://127.0.0.1:4566"}
	for _, want := range []string{"AWS_REGION=us-east-1", "AWS_ACCESS_KEY_ID=test", "AWS_SECRET_ACCESS_KEY=test"} {
		if !slices.Contains(a.Env(), want) {
			t.Errorf("%q is missing", want)
		}
	}
	if a.Query() != "?endpoint=http://127.0.0.1:4566" {
		t.Errorf("the store is named with %q", a.Query())
	}
	if real := (&AWS{}); len(real.Env()) != 0 || real.Query() != "" {
		t.Errorf("the service itself is used with %q, %q", real.Env(), real.Query())
	}
}
