package main

import (
	"bytes"
	"testing"

	"github.com/aws/smithy-go/logging"
)

// TestTheSDKOfAWSWarns checks that its warnings are seen, in the form that this
// program writes, and nothing else that it says is.
func TestTheSDKOfAWSWarns(t *testing.T) {
	t.Parallel()
	for _, asJSON := range []bool{false, true} {
		var errs bytes.Buffer
		logger := (&app{errs: &errs, json: asJSON}).awsLogger()
		logger.Logf(logging.Warn, "%d things", 2)
		logger.Logf(logging.Debug, "canary")
		want := "tokenkeep: the SDK of AWS: 2 things\n"
		if asJSON {
			want = `{"note":"the SDK of AWS: 2 things"}` + "\n"
		}
		if errs.String() != want {
			t.Errorf("%q, want %q", &errs, want)
		}
	}
}
