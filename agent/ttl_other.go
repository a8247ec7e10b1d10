//go:build !unix

package agent

// setTTL does nothing on systems other than Unix.
func setTTL(string, uintptr) error { return nil }
