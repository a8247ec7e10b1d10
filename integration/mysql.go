package integration

import (
	"bytes"
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/moby/moby/api/types/network"
	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/wait"

	"github.com/tokenkeep/tokenkeep/internal/mariadb"
)

const (
	mysqlImage = "mysql:8.4.10"
	mysqlPort  = "3306/tcp"
)

// A MySQL is a running MySQL or MariaDB server.
type MySQL struct {
	*Server
	config mysql.Config
}

// mysqlPassword returns the password of root on the servers that the tests start.
var mysqlPassword = sync.OnceValue(rand.Text)

// SharedMySQL returns the server that the tests share: the server that TOKENKEEP_MYSQL_DSN
// names, or a server that is started for all tests. If no server is available, SharedMySQL
// skips the test or, if TOKENKEEP_REQUIRE names the backend, fails the test.
func SharedMySQL(t testing.TB) *MySQL {
	t.Helper()
	config := rootConfig()
	server := MySQLBackend.sharedServer(t, func(ctx context.Context) (*Server, error) {
		if os.Getenv(mariadb.EnvDSN) == "" {
			return runMySQL(ctx)
		}
		given, err := mysql.ParseDSN(os.Getenv(mariadb.EnvDSN))
		if err != nil {
			return nil, fmt.Errorf("%s cannot be read", mariadb.EnvDSN) // the error could quote a password
		}
		version, err := mysqlVersion(ctx, given)
		return (&Server{Addr: given.Addr, what: "server " + given.Addr, about: version + ", real"}).orStop(err)
	})
	server.Watch(t)
	if !server.own() {
		given, err := mysql.ParseDSN(os.Getenv(mariadb.EnvDSN))
		if err != nil {
			t.Fatalf("%s cannot be read", mariadb.EnvDSN)
		}
		config = given
	}
	config.Addr = server.Addr
	return &MySQL{Server: server, config: *config}
}

// StartMySQL starts a server for one test. The server can be killed, and keeps its data when it
// is started again. The server is stopped when the test and its subtests end. If
// TOKENKEEP_MYSQL_DSN is set, StartMySQL skips the test.
func StartMySQL(t testing.TB) *MySQL {
	t.Helper()
	if os.Getenv(mariadb.EnvDSN) != "" {
		MySQLBackend.Cannot(t, "the server that "+mariadb.EnvDSN+" names is not the test's own")
	}
	server, err := runMySQL(t.Context())
	MySQLBackend.must(t, err)
	MySQLBackend.ranOn(server)
	server.cleanUp(t)
	config := rootConfig()
	config.Addr = server.Addr
	return &MySQL{Server: server, config: *config}
}

// rootConfig returns the login configuration of root, without an address, for a server that the
// tests start.
func rootConfig() *mysql.Config {
	config := mysql.NewConfig()
	config.User, config.Passwd, config.Net = "root", mysqlPassword(), "tcp"
	return config
}

// Database returns the data source name of a new database. On a server that the tests did
// not start, the database is dropped when the test ends.
func (m *MySQL) Database(t testing.TB) string {
	t.Helper()
	name := strings.ReplaceAll(unique(), "-", "_")
	m.exec(t, t.Context(), "CREATE DATABASE "+name+" CHARACTER SET utf8mb4")
	if !m.own() {
		t.Cleanup(func() { m.exec(t, context.Background(), "DROP DATABASE "+name) })
	}
	return m.dsn(name)
}

func (m *MySQL) dsn(database string) string {
	config := m.config.Clone()
	config.DBName = database
	return config.FormatDSN()
}

func (m *MySQL) exec(t testing.TB, ctx context.Context, statement string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	db, err := sql.Open("mysql", m.dsn(""))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(ctx, statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

// runMySQL starts a server in a container or, without a Docker engine, as a process.
func runMySQL(ctx context.Context) (*Server, error) {
	engine, err := docker()
	if reason := (*absentError)(nil); errors.As(err, &reason) {
		return mysqlProcess(ctx, reason.reason)
	} else if err != nil {
		return nil, err
	}
	image, err := engine.choose(ctx, "TOKENKEEP_MYSQL_IMAGE", mysqlImage, mysqlStandIn)
	if err != nil {
		return nil, err
	}
	ready := wait.ForSQL(mysqlPort, "mysql", func(host string, port network.Port) string {
		config := rootConfig()
		config.Addr = net.JoinHostPort(host, port.Port())
		return config.FormatDSN()
	}).WithStartupTimeout(startTimeout)
	run, addr, err := engine.run(ctx, image, mysqlPort, func(options ...testcontainers.ContainerCustomizer) (testcontainers.Container, error) {
		options = append(options,
			testcontainers.WithExposedPorts(mysqlPort),
			testcontainers.WithWaitStrategy(ready),
			testcontainers.WithEnv(map[string]string{
				"MYSQL_ROOT_PASSWORD": mysqlPassword(), "MARIADB_ROOT_PASSWORD": mysqlPassword(),
				"MYSQL_ROOT_HOST": "%", "MARIADB_ROOT_HOST": "%",
			}),
			testcontainers.WithCmd("--max-connections=500"))
		if image.standIn {
			options = append(options, testcontainers.WithFiles(testcontainers.ContainerFile{
				Reader: bytes.NewBufferString(firstStatements("%")), ContainerFilePath: "/init.sql", FileMode: 0o644,
			}))
		}
		c, err := testcontainers.Run(ctx, image.ref, options...)
		if c == nil {
			return nil, err
		}
		return c, err
	})
	if err != nil {
		return nil, err
	}
	config := rootConfig()
	config.Addr = addr
	version, err := mysqlVersion(ctx, config)
	return (&Server{Addr: addr, what: run.what(), about: version + ", " + image.about, run: run}).orStop(err)
}

func mysqlVersion(ctx context.Context, config *mysql.Config) (string, error) {
	connector, err := mysql.NewConnector(config)
	if err != nil {
		return "", err
	}
	db := sql.OpenDB(connector)
	defer db.Close()
	var version string
	if err := db.QueryRowContext(ctx, "SELECT VERSION()").Scan(&version); err != nil {
		return "", err
	}
	if strings.Contains(version, "MariaDB") {
		return "MariaDB " + version, nil
	}
	return "MySQL " + version, nil
}

// firstStatements returns the SQL statements that set the password of root for logins from host.
// A server executes the statements at each start.
func firstStatements(host string) string {
	return fmt.Sprintf("CREATE USER IF NOT EXISTS root@'%[1]s';\nALTER USER root@'%[1]s' IDENTIFIED BY '%[2]s';\nGRANT ALL ON *.* TO root@'%[1]s' WITH GRANT OPTION;\n",
		host, mysqlPassword())
}

// mysqlOptions contains flags that make a server small and quick to start. Committed data
// survives a crash of the server, but may be lost in a crash of the machine.
var mysqlOptions = []string{
	"--no-defaults", "--skip-name-resolve", "--skip-log-bin", "--performance-schema=off", "--max-connections=500",
	"--innodb-buffer-pool-size=32M", "--innodb-log-file-size=8M", "--innodb-flush-log-at-trx-commit=2",
}

// mysqlStandIn builds an image of the MariaDB that is installed on this machine. If MariaDB is
// not installed, the error is an absentError.
func mysqlStandIn(ctx context.Context, e *engine) (image, error) {
	server, install, err := mariadb.Find()
	if err != nil {
		return image{}, absent("%v", err)
	}
	scratch, err := os.MkdirTemp("", "tokenkeep-mysql-")
	if err != nil {
		return image{}, err
	}
	defer os.RemoveAll(scratch)
	programs, err := withLibraries(ctx, server)
	if err != nil {
		return image{}, err
	}
	i := image{about: "MariaDB of this machine, in an image built here", standIn: true}
	instructions := []string{"EXPOSE " + mysqlPort, "ENTRYPOINT " + quoteAll(append(append([]string{"/" + programs[0].name}, mysqlOptions...),
		"--user=root", "--datadir=/data", "--init-file=/init.sql", "--bind-address=0.0.0.0", "--port=3306", "--socket=/tmp/s", "--pid-file=/tmp/pid"))}
	i.ref, err = e.buildOf(ctx, "tokenkeep-standin/mariadb", programs, func() ([]file, error) {
		data := filepath.Join(scratch, "data")
		if err := createTables(ctx, install, data); err != nil {
			return nil, err
		}
		users := filepath.Join(scratch, "passwd")
		if err := os.WriteFile(users, []byte("root:x:0:0:root:/:/\n"), 0o644); err != nil {
			return nil, err
		}
		files := slices.Concat(programs, []file{{"etc/passwd", users}})
		for from, to := range map[string]string{data: "data", "/usr/share/mysql": "usr/share/mysql"} {
			tree, err := walk(from, to)
			if err != nil {
				return nil, err
			}
			files = append(files, tree...)
		}
		return files, nil
	}, instructions...)
	return i, err
}

// quoteAll formats args as an array of strings in a Dockerfile.
func quoteAll(args []string) string {
	quoted := make([]string, len(args))
	for i, a := range args {
		quoted[i] = strconv.Quote(a)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

func createTables(ctx context.Context, install, data string) error {
	me, err := user.Current()
	if err != nil {
		return err
	}
	args := append([]string{}, mysqlOptions...)
	args = append(args, "--datadir="+data, "--tmpdir="+filepath.Dir(data), "--user="+me.Username, "--skip-test-db", "--auth-root-authentication-method=normal")
	if out, err := exec.CommandContext(ctx, install, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", install, err, tail(string(out), 4<<10))
	}
	return nil
}

// library matches the path of a library in the output of ldd.
var library = regexp.MustCompile(`(?m)(/\S+) \(0x[0-9a-f]+\)$`)

func withLibraries(ctx context.Context, program string) ([]file, error) {
	out, err := exec.CommandContext(ctx, "ldd", program).Output()
	if err != nil {
		return nil, fmt.Errorf("ldd %s: %w", program, err)
	}
	files := []file{{strings.TrimPrefix(program, "/"), program}}
	for _, m := range library.FindAllStringSubmatch(string(out), -1) {
		files = append(files, file{strings.TrimPrefix(m[1], "/"), m[1]})
	}
	return files, nil
}

// walk returns the regular files of one directory tree, with their paths in an image. The
// directory named by from corresponds to the image's directory named by to.
func walk(from, to string) ([]file, error) {
	var files []file
	err := filepath.WalkDir(from, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		rel, err := filepath.Rel(from, name)
		files = append(files, file{filepath.ToSlash(filepath.Join(to, rel)), name})
		return err
	})
	return files, err
}

// supervisor is a shell script that runs a server. The arguments of the script are the command of
// the server. If the script reads a line from standard input, the script kills the server. At the
// end of standard input, the script stops the server. The server therefore ends with the tests,
// even if the tests are killed.
const supervisor = `exec 3<&0
"$@" </dev/null & pid=$!
{ if read -r _; then kill -KILL $pid; else kill $pid; fi; } <&3 >/dev/null 2>&1 &
wait $pid`

// mysqlProcess starts the MariaDB that is installed on this machine as a process. reason, which
// appears in the report, says why no container runs.
func mysqlProcess(ctx context.Context, reason string) (*Server, error) {
	program, install, err := mariadb.Find()
	if err != nil {
		return nil, absent("%s; %v", reason, err)
	}
	me, err := user.Current()
	if err != nil {
		return nil, err
	}
	scratch, err := os.MkdirTemp("", "tokenkeep-mysql-")
	if err != nil {
		return nil, err
	}
	data, first := filepath.Join(scratch, "data"), filepath.Join(scratch, "init.sql")
	if err := createTables(ctx, install, data); err != nil {
		return nil, errors.Join(err, os.RemoveAll(scratch))
	}
	if err := os.WriteFile(first, []byte(firstStatements("127.0.0.1")), 0o600); err != nil {
		return nil, errors.Join(err, os.RemoveAll(scratch))
	}
	port, err := freePort()
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(scratch))
	}
	config := rootConfig()
	config.Addr = net.JoinHostPort("127.0.0.1", port)
	args := append([]string{"-c", supervisor, "sh", program}, mysqlOptions...)
	args = append(args, "--datadir="+data, "--tmpdir="+scratch, "--user="+me.Username, "--init-file="+first, "--bind-address=127.0.0.1",
		"--port="+port, "--socket="+filepath.Join(scratch, "s"), "--pid-file="+filepath.Join(scratch, "pid"))
	p := &process{
		command: func() *exec.Cmd { return exec.Command("/bin/sh", args...) },
		scratch: scratch,
		dead:    make(chan struct{}),
		tied:    true,
		ready:   func(ctx context.Context) (string, error) { return config.Addr, untilReady(ctx, config) },
	}
	if _, err := p.start(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("%w\n%s", err, tail(p.output.String(), 4<<10)), os.RemoveAll(scratch))
	}
	version, err := mysqlVersion(ctx, config)
	return (&Server{Addr: config.Addr, what: "process " + program, about: version + ", real (" + reason + ")", run: p}).orStop(err)
}

// untilReady waits until a login with config succeeds. If ctx ends first, untilReady returns the
// error from the last login.
func untilReady(ctx context.Context, config *mysql.Config) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		_, err := mysqlVersion(ctx, config)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

// freePort returns a port that was free when freePort checked it.
func freePort() (string, error) {
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, err
}
