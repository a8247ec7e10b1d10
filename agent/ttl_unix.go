//go:build unix

package agent

import "syscall"

// setTTL sets the TTL of a socket's packets to 1, so that no router forwards them.
func setTTL(network string, fd uintptr) error {
	if network == "tcp6" {
		return syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IPV6, syscall.IPV6_UNICAST_HOPS, 1)
	}
	return syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, syscall.IP_TTL, 1)
}
