// Package policies contains helpers for the commands that print policies.
package policies

import (
	"strings"

	"github.com/tokenkeep/tokenkeep/cli/scheme"
)

// Indent returns text with each line indented by four spaces, and with a newline at the end.
func Indent(text string) string {
	return "    " + strings.ReplaceAll(strings.TrimSuffix(text, "\n"), "\n", "\n    ") + "\n"
}

// CheckPrefix returns a usage error if prefix contains characters other than letters, digits and
// /_+=.@-, or has a slash at either end. Any other prefix can be written in a policy unchanged.
func CheckPrefix(prefix string) error {
	for _, c := range prefix {
		if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/_+=.@-", c) {
			return scheme.Usagef("a prefix has letters, digits and /_+=.@- only")
		}
	}
	if strings.HasPrefix(prefix, "/") || strings.HasSuffix(prefix, "/") {
		return scheme.Usagef("a prefix has no slash at its ends")
	}
	return nil
}
