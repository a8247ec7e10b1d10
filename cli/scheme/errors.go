package scheme

import (
	"errors"
	"fmt"
)

// ErrUsage means that an argument, a flag, a URL or an environment variable is wrong. The
// command then ends with exit code 2.
var ErrUsage = errors.New("usage")

// Usage returns an error that matches ErrUsage, wraps err, and has the text of err.
func Usage(err error) error { return usage{err} }

// Usagef formats its arguments as fmt.Errorf does, and returns an error that matches ErrUsage.
func Usagef(format string, args ...any) error { return usage{fmt.Errorf(format, args...)} }

type usage struct{ error }

func (usage) Is(target error) bool { return target == ErrUsage }
func (u usage) Unwrap() error      { return u.error }
