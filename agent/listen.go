package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	defaultConnections = 800
	maxRefusals        = 512 // maximum number of connections that are refused concurrently

	// Timeouts for a refused connection: for reading the request, for sending the response, and
	// for waiting until the client closes its side.
	requestWait = 250 * time.Millisecond
	answerWait  = 5 * time.Second
	closeWait   = time.Second

	refusedOnWindows = syscall.Errno(10061) // WSAECONNREFUSED, which package syscall does not map to ECONNREFUSED
)

// ListenOptions configures Listen. The zero value and a nil *ListenOptions mean the
// defaults.
type ListenOptions struct {
	// MaxConnections is the maximum number of open connections; 0 means 800. Further connections
	// get a response with status 429 and are closed.
	MaxConnections int
}

// Listen listens on a local address: "unix:" and the path of a socket, or a loopback address with a
// port, such as "127.0.0.1:2780". For any other address, Listen returns an error.
//
// A Unix socket has mode 0600. Listen replaces a socket on which no process listens, such as the
// socket of a process that was killed. If a process might be listening on the socket, or if the
// path names another kind of file, Listen returns an error. On Linux, the listener refuses a
// connection to the socket unless the peer runs as the user of this process or as root. On Unix
// systems, the packets of a TCP connection have a TTL of 1.
func Listen(ctx context.Context, address string, opts *ListenOptions) (net.Listener, error) {
	most := defaultConnections
	if opts != nil && opts.MaxConnections != 0 {
		most = opts.MaxConnections
	}
	if most < 0 {
		return nil, errors.New("agent: MaxConnections is negative")
	}
	var inner net.Listener
	var err error
	path, isUnix := strings.CutPrefix(address, "unix:")
	if isUnix {
		inner, err = listenUnix(ctx, path)
	} else {
		inner, err = listenTCP(ctx, address)
	}
	if err != nil {
		return nil, fmt.Errorf("agent: listen: %w", err)
	}
	l := &listener{Listener: inner, slots: make(chan struct{}, most), refusals: make(chan struct{}, maxRefusals)}
	if isUnix {
		l.stranger = stranger
	}
	return l, nil
}

func listenTCP(ctx context.Context, address string) (net.Listener, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, errors.New("the address is neither unix:PATH nor HOST:PORT")
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return nil, errors.New("the address is not of the loopback interface: tokens would be sent unencrypted")
	}
	c := net.ListenConfig{Control: func(network, _ string, raw syscall.RawConn) error {
		var failed error
		err := raw.Control(func(fd uintptr) { failed = setTTL(network, fd) })
		return errors.Join(err, failed)
	}}
	return c.Listen(ctx, "tcp", address)
}

// listenUnix creates the socket in a temporary directory that only this user can open, sets the
// mode, and moves the socket to path. No other user can connect before the mode is set.
func listenUnix(ctx context.Context, path string) (_ net.Listener, err error) {
	if path == "" {
		return nil, errors.New("the path of the socket is empty")
	}
	if err := vacant(ctx, path); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(filepath.Dir(path), ".agent-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	first := filepath.Join(dir, "s")
	l, err := (&net.ListenConfig{}).Listen(ctx, "unix", first)
	if err != nil {
		return nil, err
	}
	u, ok := l.(*net.UnixListener)
	if !ok {
		return nil, errors.Join(errors.New("not a Unix socket"), l.Close())
	}
	u.SetUnlinkOnClose(false)
	err = errors.Join(os.Chmod(first, 0o600), os.Rename(first, path))
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	at, err := os.Lstat(path)
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return &unixListener{UnixListener: u, path: path, at: at}, nil
}

// vacant returns an error if path exists, unless path is a socket on which no process listens.
func vacant(ctx context.Context, path string) error {
	at, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if at.Mode().Type() != os.ModeSocket {
		return fmt.Errorf("%s exists and is not a socket", path)
	}
	c, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "unix", path)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, refusedOnWindows), errors.Is(err, os.ErrNotExist):
		return nil // no process listens
	case err != nil:
		// The queue of a listening process may be full, or this process may lack the permission
		// to connect.
		return fmt.Errorf("a process may listen on %s: %w", path, err)
	}
	return errors.Join(fmt.Errorf("a process listens on %s", path), c.Close())
}

// A unixListener removes its socket from the file system on Close, unless another file has replaced
// the socket.
type unixListener struct {
	*net.UnixListener

	path string
	at   os.FileInfo
}

func (l *unixListener) Close() error {
	if at, err := os.Lstat(l.path); err == nil && os.SameFile(at, l.at) {
		_ = os.Remove(l.path) // if the socket remains, the next agent replaces it
	}
	return l.UnixListener.Close()
}

// A listener limits the number of open connections of the embedded Listener. It answers each
// refused connection with the reason.
type listener struct {
	net.Listener

	slots    chan struct{}        // one slot for each open connection
	refusals chan struct{}        // one slot for each connection being refused
	stranger func(net.Conn) error // returns the reason to refuse a connection, or nil; a nil function refuses none
}

func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.stranger != nil {
			if err := l.stranger(c); err != nil {
				l.refuse(c, err)
				continue
			}
		}
		select {
		case l.slots <- struct{}{}:
			return &conn{Conn: c, done: sync.OnceFunc(func() { <-l.slots })}, nil
		default:
			l.refuse(c, errTooMany)
		}
	}
}

// A conn is an open connection. Close calls done, which frees the slot.
type conn struct {
	net.Conn

	done func()
}

func (c *conn) Close() error {
	defer c.done()
	return c.Conn.Close()
}

// refuse starts a goroutine that sends a response for the error in the parameter why, and then
// closes c. While maxRefusals such goroutines run, refuse waits, and the kernel queues further
// connections.
func (l *listener) refuse(c net.Conn, why error) {
	l.refusals <- struct{}{}
	go func() {
		defer func() { _ = c.Close(); <-l.refusals }()
		_ = c.SetDeadline(time.Now().Add(requestWait))
		skipHead(c)
		_ = c.SetDeadline(time.Now().Add(answerWait))
		if _, err := c.Write(refuse(why).raw()); err != nil {
			return
		}
		// Closing a connection with unread data resets the connection, and the client might not get
		// the response.
		if half, ok := c.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
			_ = c.SetDeadline(time.Now().Add(closeWait))
			skipRest(c)
		}
	}()
}

// maxSkip is the number of bytes after which skipHead and skipRest stop reading.
const maxSkip = 16 << 10

// skipHead reads until the empty line that ends the head of a request. skipHead also stops after
// maxSkip bytes, or if a read fails.
func skipHead(c net.Conn) {
	buf := make([]byte, 512)
	newlines := 0
	for total := 0; total < maxSkip; {
		n, err := c.Read(buf)
		for _, b := range buf[:n] {
			switch b {
			case '\n':
				newlines++
			case '\r':
			default:
				newlines = 0
			}
			if newlines == 2 {
				return
			}
		}
		if total += n; err != nil {
			return
		}
	}
}

func skipRest(c net.Conn) {
	buf := make([]byte, 512)
	for total := 0; total < maxSkip; {
		n, err := c.Read(buf)
		if total += n; err != nil {
			return
		}
	}
}
