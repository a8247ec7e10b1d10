package mariadb

import (
	"errors"
	"net"
	"os"
	"strings"
	"testing"
)

// TestStartStop checks that a server listens on the loopback address until Stop, and that Stop
// removes its directory.
func TestStartStop(t *testing.T) {
	if os.Getenv(EnvDSN) != "" {
		t.Skipf("%s names a server", EnvDSN)
	}
	s, err := Start(t.Context())
	if errors.Is(err, ErrNotInstalled) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	_, address, _ := strings.Cut(s.DSN("db"), "@tcp(")
	address, rest, _ := strings.Cut(address, ")")
	if rest != "/db" {
		t.Errorf("the data source name ends with %q, want the database", rest)
	}
	if host, _, err := net.SplitHostPort(address); err != nil || host != "127.0.0.1" {
		t.Errorf("the server listens on %q, want the loopback address", address)
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	var d net.Dialer
	if c, err := d.DialContext(t.Context(), "tcp", address); err == nil {
		_ = c.Close()
		t.Error("the server listens after Stop")
	}
	if _, err := os.Stat(s.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the server's directory is still there: %v", err)
	}
}

func TestDSN(t *testing.T) {
	t.Parallel()
	s := &Server{dsn: "u:a/b@tcp(127.0.0.1:3306)/?tls=true"}
	if got, want := s.DSN("db"), "u:a/b@tcp(127.0.0.1:3306)/db?tls=true"; got != want {
		t.Errorf("DSN is %q, want %q", got, want)
	}
}
