package tables

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"

	"github.com/tokenkeep/tokenkeep/cli/scheme"
)

// TestNoTableClosesItsDatabase checks that noTable leaves no database open unless it returns a
// store. An open database has a goroutine, and synctest.Test fails if a goroutine remains.
func TestNoTableClosesItsDatabase(t *testing.T) {
	t.Parallel()
	broken := errors.New("the database cannot be closed")
	for what, c := range map[string]struct {
		table     string
		mustExist bool
		closed    error
		opens     bool
	}{
		"an empty store":               {sdkTable, false, nil, true},
		"a failure to close":           {sdkTable, false, broken, false},
		"a table that must exist":      {sdkTable, true, nil, false},
		"a table with an illegal name": {"a`b", false, nil, false},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s, err := noTable(t.Context(), &scheme.Opening{MustExist: c.mustExist}, c.table, "sqlite", c.closed)
				if (err == nil) != c.opens || c.closed != nil && !errors.Is(err, c.closed) {
					t.Errorf("noTable returns %v", err)
				}
				if s != nil {
					if err := s.Close(); err != nil {
						t.Error(err)
					}
				}
			})
		})
	}
}

// TestMySQLNames checks that mysqlConfig parses both forms of a database name, and accepts local
// servers, TLS and insecure=true.
func TestMySQLNames(t *testing.T) {
	t.Parallel()
	for _, name := range []string{
		"//ann@db.example.com/zoho?table=t&tls=true",
		"//ann@db.example.com:3306/zoho?tls=true&table=t",
		"ann@tcp(db.example.com:3306)/zoho?tls=true&table=t",
	} {
		c, table, err := mysqlConfig(name)
		if err != nil || table != "t" || c.User != "ann" || c.Net != "tcp" || c.Addr != "db.example.com:3306" || c.DBName != "zoho" || c.TLSConfig != "true" {
			t.Errorf("%s: %+v, %q, %v", name, c, table, err)
		}
	}
	if c, _, err := mysqlConfig("//a%40b%3Ac@h/d?insecure=true"); err != nil || c.User != "a@b:c" || c.Passwd != "" {
		t.Errorf("%+v, %v", c, err)
	}
	for _, name := range []string{
		"//ann@db.example.com/zoho?insecure=true", "//ann@db.example.com/zoho?tls=true", "//ann@db.example.com/zoho?tls=skip-verify",
		"//ann@localhost/zoho", "//ann@[::1]/zoho", "ann@unix(/run/mysqld.sock)/zoho",
	} {
		if _, _, err := mysqlConfig(name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestMySQLPassword(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("s3cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	type env map[string]string
	for _, test := range []struct {
		e    env
		want string
		ok   bool
	}{
		{env{}, "", true},
		{env{envPassword: "s3cret"}, "s3cret", true},
		{env{envPasswordFile: file}, "s3cret", true},
		{env{envPasswordFile: file, envPassword: "x"}, "", false},
		{env{envPasswordFile: file + ".not"}, "", false},
	} {
		got, err := mysqlPassword(func(name string) string { return test.e[name] })
		if got != test.want || (err == nil) != test.ok || err != nil && !errors.Is(err, scheme.ErrUsage) {
			t.Errorf("%v: %q, %v", test.e, got, err)
		}
	}
}
