// Package mariadb starts a MariaDB server for tests, with its data in a temporary directory.
// The server listens only on the loopback address, and creates a user with a random password.
//
// The server is a real MariaDB, such as the one in Debian's package mariadb-server. It need not run
// as a service or as root. The environment variable EnvDSN can name another MySQL or MariaDB server
// to use instead.
package mariadb

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// EnvDSN is the name of an environment variable. If the variable is set, Start uses the server that
// the variable names instead of starting one. The value of the variable is a data source name of
// github.com/go-sql-driver/mysql without a database, such as "user:password@tcp(127.0.0.1:3306)/".
// The user must be allowed to create databases.
const EnvDSN = "TOKENKEEP_MYSQL_DSN"

// ErrNotInstalled means that the programs needed to start a server are not installed.
var ErrNotInstalled = errors.New("mariadb: mariadbd and mariadb-install-db are not installed (Debian: mariadb-server)")

// startTimeout is the maximum time to create the system tables and to start a server.
const startTimeout = time.Minute

// A Server is a MariaDB or MySQL server for tests.
type Server struct {
	dir   string
	dsn   string
	life  io.Closer     // closing it ends the server; nil if the server was not started here
	ended chan struct{} // closed when the server has ended
}

// Find returns the paths of the server and of the program that creates its system tables. It
// searches PATH and the directories in which distributions install the programs. The error
// matches ErrNotInstalled if a program does not exist.
func Find() (server, install string, err error) {
	server, install = find("mariadbd", "mysqld"), find("mariadb-install-db", "mysql_install_db")
	if server == "" || install == "" {
		return "", "", ErrNotInstalled
	}
	return server, install, nil
}

func find(names ...string) string {
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
		for _, dir := range []string{"/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"} {
			if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
				return path
			}
		}
	}
	return ""
}

// Start returns the server that EnvDSN names, or starts a server. The error matches
// ErrNotInstalled if no server is installed. The caller must call Stop. A server that Start
// started also ends when this process ends for any reason.
func Start(ctx context.Context) (*Server, error) {
	if dsn := os.Getenv(EnvDSN); dsn != "" {
		return &Server{dsn: dsn}, nil
	}
	server, install, err := Find()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "mariadb-")
	if err != nil {
		return nil, fmt.Errorf("mariadb: %w", err)
	}
	s := &Server{dir: dir}
	if err := s.start(ctx, server, install); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

// DSN returns the data source name of the server for the named database; the name may be empty.
func (s *Server) DSN(database string) string {
	base, params, _ := strings.Cut(s.dsn, "?")
	dsn := base[:strings.LastIndexByte(base, '/')+1] + database
	if params != "" {
		dsn += "?" + params
	}
	return dsn
}

// Stop ends the server and removes its data, if Start started the server.
func (s *Server) Stop() error {
	s.end()
	if s.dir == "" {
		return nil
	}
	return os.RemoveAll(s.dir)
}

func (s *Server) end() {
	if s.life != nil {
		_ = s.life.Close()
		<-s.ended
	}
}

// options make the server small and quick to start, without durability.
var options = []string{
	"--skip-name-resolve", "--skip-log-bin", "--performance-schema=off",
	"--innodb-buffer-pool-size=32M", "--innodb-log-file-size=8M", "--innodb-flush-log-at-trx-commit=0",
}

// supervisor is a shell script that runs a server, and stops the server at the end of standard
// input. The server therefore ends with the current process, even if the process is killed.
const supervisor = `exec 3<&0
"$@" </dev/null 3<&- & server=$!
{ read -r _ <&3; kill $server; } & watch=$!
wait $server
kill $watch 2>/dev/null`

func (s *Server) start(ctx context.Context, server, install string) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	me, err := user.Current()
	if err != nil {
		return fmt.Errorf("mariadb: %w", err)
	}
	data := filepath.Join(s.dir, "data")
	// The server needs its own --tmpdir, because a starting server removes the temporary
	// tables of other servers in that directory.
	tables := exec.CommandContext(ctx, install, append([]string{
		"--no-defaults", "--datadir=" + data, "--tmpdir=" + s.dir, "--user=" + me.Username, "--skip-test-db"}, options...)...)
	if out, err := tables.CombinedOutput(); err != nil {
		return fmt.Errorf("mariadb: %s: %w: %s", filepath.Base(install), err, bytes.TrimSpace(out))
	}

	password := rand.Text()
	first := filepath.Join(s.dir, "init.sql")
	err = os.WriteFile(first, fmt.Appendf(nil, "CREATE USER IF NOT EXISTS %[1]s@'127.0.0.1' IDENTIFIED BY '%[2]s';\nGRANT ALL ON *.* TO %[1]s@'127.0.0.1' WITH GRANT OPTION;\n", name, password), 0o600)
	if err != nil {
		return fmt.Errorf("mariadb: %w", err)
	}
	args := append([]string{
		"--no-defaults", "--datadir=" + data, "--tmpdir=" + s.dir, "--user=" + me.Username, "--init-file=" + first, "--bind-address=127.0.0.1",
		"--socket=" + filepath.Join(s.dir, "s"), "--pid-file=" + filepath.Join(s.dir, "pid"),
		"--innodb-fast-shutdown=2", "--max-connections=500"}, options...)
	// Another program may take the port between freePort and the start of the server.
	for range ports {
		if err = s.run(ctx, server, args, password); err == nil || ctx.Err() != nil {
			break
		}
	}
	return err
}

const (
	name  = "tokenkeep" // name of the user
	ports = 3           // number of ports to try
)

// run starts the server on a free port and waits for its greeting.
func (s *Server) run(ctx context.Context, server string, args []string, password string) error {
	port, err := freePort(ctx)
	if err != nil {
		return fmt.Errorf("mariadb: %w", err)
	}
	log, err := os.Create(filepath.Join(s.dir, "log"))
	if err != nil {
		return fmt.Errorf("mariadb: %w", err)
	}
	defer log.Close()
	cmd := exec.CommandContext(context.WithoutCancel(ctx), "/bin/sh", append([]string{"-c", supervisor, "sh", server}, append(args, "--port="+strconv.Itoa(port))...)...)
	cmd.Stdout, cmd.Stderr = log, log
	life, err := cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("mariadb: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("mariadb: %w", err)
	}
	s.life, s.ended = life, make(chan struct{})
	go func() {
		defer close(s.ended)
		_ = cmd.Wait() // the exit status of the supervisor says nothing about the server
	}()
	s.dsn = fmt.Sprintf("%s:%s@tcp(127.0.0.1:%d)/", name, password, port)
	if err := s.greeted(ctx, port); err != nil {
		s.end()
		text, readErr := os.ReadFile(log.Name())
		return fmt.Errorf("mariadb: the server does not answer: %w: %s", errors.Join(err, readErr), bytes.TrimSpace(text))
	}
	return nil
}

// freePort returns a port that was free when freePort tested it.
func freePort(ctx context.Context) (int, error) {
	var c net.ListenConfig
	l, err := c.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// greeted waits until the server sends its greeting. The server creates its users before it sends
// the greeting.
func (s *Server) greeted(ctx context.Context, port int) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := greeting(ctx, port)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-s.ended:
			return errors.New("it has ended")
		case <-tick.C:
		}
	}
}

func greeting(ctx context.Context, port int) error {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	var head [5]byte // the packet's length and number, and the protocol version
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return err
	}
	if head[4] != 10 {
		return errors.New("it knows of no user yet")
	}
	return nil
}
