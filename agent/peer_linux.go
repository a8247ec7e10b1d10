package agent

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
)

// stranger returns an error for a connection to a Unix socket unless the peer runs as the user of
// this process or as root.
func stranger(c net.Conn) error {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return errStranger
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return fmt.Errorf("%w: %w", errStranger, err)
	}
	var peer *syscall.Ucred
	var failed error
	err = raw.Control(func(fd uintptr) {
		peer, failed = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	if err = errors.Join(err, failed); err != nil {
		return fmt.Errorf("%w: %w", errStranger, err)
	}
	if peer.Uid != 0 && int(peer.Uid) != os.Geteuid() {
		return errStranger
	}
	return nil
}
