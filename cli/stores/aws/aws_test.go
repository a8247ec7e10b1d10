package aws

import (
	"fmt"
	"testing"

	"github.com/aws/smithy-go/logging"
)

// TestAWSLogger checks that the logger passes on warnings from the AWS SDK, and ignores other
// messages.
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
