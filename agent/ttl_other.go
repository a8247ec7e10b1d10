//go:build !unix

package agent

// setTTL does nothing on this system. Packets of the loopback interface are not routed anyway.
func setTTL(string, uintptr) error { return nil }
