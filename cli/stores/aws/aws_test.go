package aws

import (
	"fmt"
	"testing"

	"github.com/aws/smithy-go/logging"
)

// TestAWSLogger checks that the warnings of the AWS SDK are printed as remarks of the
// command, and that its other log messages are not printed.
func TestAWSLogger(t *testing.T) {
	t.Parallel()
	var notes []string
	logger := newLogger(func(format string, args ...any) { notes = append(notes, fmt.Sprintf(format, args...)) })
	logger.Logf(logging.Warn, "%d things", 2)
	logger.Logf(logging.Debug, "canary")
	if len(notes) != 1 || notes[0] != "the SDK of AWS: 2 things" {
		t.Errorf("the remarks are %q", notes)
	}
}
