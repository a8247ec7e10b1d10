package scheme

import (
	"errors"
	"fmt"
)

// ErrUsage is matched by errors about how the command was called: arguments, flags, URLs and
// environment variables. The command then ends with exit code 2.
var ErrUsage = errors.New("usage")

// Usage returns an error that matches ErrUsage. It has the text of err, and wraps err.
func Usage(err error) error { return usage{err} }

// Usagef returns an error that matches ErrUsage. The arguments are those of fmt.Errorf.
func Usagef(format string, args ...any) error { return usage{fmt.Errorf(format, args...)} }

type usage struct{ error }

func (usage) Is(target error) bool { return target == ErrUsage }
func (u usage) Unwrap() error      { return u.error }
