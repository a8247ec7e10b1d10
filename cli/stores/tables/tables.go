// Package tables provides the schemes sqlite and mysql to the command tokenkeep. Both kinds of
// store keep records in a table with the layout of the Zoho SDKs.
package tables

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/go-sql-driver/mysql"
	_ "modernc.org/sqlite" // the driver "sqlite"

	"github.com/tokenkeep/tokenkeep/cli/internal/display"
	"github.com/tokenkeep/tokenkeep/cli/internal/files"
	"github.com/tokenkeep/tokenkeep/cli/scheme"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/sqlstore"
)

// Environment variables for the password of a MySQL user.
const (
	envPassword     = "TOKENKEEP_MYSQL_PASSWORD"      //nolint:gosec // a name, not a password
	envPasswordFile = "TOKENKEEP_MYSQL_PASSWORD_FILE" //nolint:gosec // a name, not a password
)

// SQLite returns the scheme of URLs of the form sqlite:PATH.
func SQLite() scheme.Scheme {
	return scheme.Scheme{
		Name: "sqlite",
		Form: "sqlite:PATH",
		Text: `the table oauthtoken in a SQLite database, created if it does not exist;
use sqlite:PATH?table=NAME for another table`,
		Service: "sqlstore",
		Open:    openSQLite,
	}
}

// MySQL returns the scheme of URLs of the form mysql://USER@HOST/DB.
func MySQL() scheme.Scheme {
	const signIn = "check the user and " + envPassword
	return scheme.Scheme{
		Name:  "mysql",
		Alias: "mariadb",
		Form:  "mysql://USER@HOST/DB",
		Text: `the table oauthtoken in a MySQL or MariaDB database; ?table=NAME selects another
table. Unless HOST is this machine, ?tls=true is required, or ?insecure=true, which
allows tokens to cross the network unencrypted. Other parameters are those of
github.com/go-sql-driver/mysql, whose form mysql:USER@tcp(HOST:PORT)/DB also works.
The password comes only from ` + envPassword + `, or
from the file that ` + envPasswordFile + ` names`,
		Service: "sqlstore",
		SignIn:  signIn,
		Denied:  signIn,
		Open:    openMySQL,
	}
}

// sdkTable is the name of the table that the SDKs use.
const sdkTable = "oauthtoken"

// openTable returns a store on a table in db. Closing the store closes db. If openTable fails, it
// closes db. If o.ReadOnly is set and the table does not exist, openTable returns an empty store,
// or an error if o.MustExist is set.
func openTable(ctx context.Context, o *scheme.Opening, db *sql.DB, dialect sqlstore.Dialect, table, at string) (*scheme.Opened, error) {
	table = cmp.Or(table, sdkTable)
	if o.ReadOnly {
		there, err := hasTable(ctx, db, dialect, table)
		if err != nil {
			return nil, errors.Join(err, db.Close())
		}
		if !there {
			return noTable(ctx, o, table, at, db.Close())
		}
	}
	return newSQLStore(ctx, db, dialect, &sqlstore.Options{Table: table, Observer: o.Observer}, at)
}

// noTable returns an empty store in place of a table that does not exist, or an error if
// o.MustExist is set. The parameter err is the error from closing the database. If err is not nil,
// noTable returns err.
func noTable(ctx context.Context, o *scheme.Opening, table, at string, err error) (*scheme.Opened, error) {
	if err != nil {
		return nil, err
	}
	s, err := emptyTable(ctx, table, at)
	if err != nil {
		return nil, err
	}
	if o.MustExist {
		return nil, errors.Join(fmt.Errorf("there is no table %s in the database", display.Clean(table)), s.Close())
	}
	return s, nil
}

// hasTable reports whether db has the table. db must be read-only.
func hasTable(ctx context.Context, db *sql.DB, dialect sqlstore.Dialect, table string) (bool, error) {
	question := "SELECT COUNT(*) FROM pragma_table_info(?)"
	if dialect == sqlstore.MySQL {
		question = "SELECT COUNT(*) FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = ?"
	}
	var columns int
	if err := db.QueryRowContext(ctx, question, table).Scan(&columns); err != nil {
		// sqlstore.New returns the same error with its class. New creates no table, because db is
		// read-only.
		_, classed := sqlstore.New(ctx, db, dialect, nil)
		return false, cmp.Or(classed, err)
	}
	return columns > 0, nil
}

// emptyTable returns a store on a new table in memory.
func emptyTable(ctx context.Context, table, at string) (*scheme.Opened, error) {
	db, err := sql.Open("sqlite", ":memory:")
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	return newSQLStore(ctx, db, sqlstore.SQLite, &sqlstore.Options{Table: table}, at)
}

// newSQLStore returns a store on a table in db. Closing the store closes db. If newSQLStore
// fails, it closes db.
func newSQLStore(ctx context.Context, db *sql.DB, dialect sqlstore.Dialect, opts *sqlstore.Options, at string) (*scheme.Opened, error) {
	s, err := sqlstore.New(ctx, db, dialect, opts)
	if err != nil {
		if failed := (*tokenstore.Error)(nil); !errors.As(err, &failed) {
			err = scheme.Usage(err)
		}
		return nil, errors.Join(err, db.Close())
	}
	return &scheme.Opened{Store: s, Place: at + " " + opts.Table, Close: db.Close}, nil
}

// planned returns the result of the function open. If o.MustExist is set and o.ReadOnly is not,
// planned first opens the store read-only, because opening a missing store for writing would create
// the store. If o.ReadOnly is set, Opened.Writable opens the store again for writing.
func planned(ctx context.Context, o *scheme.Opening, open func(context.Context, *scheme.Opening) (*scheme.Opened, error)) (*scheme.Opened, error) {
	if o.MustExist && !o.ReadOnly {
		reading := *o
		reading.ReadOnly = true
		s, err := open(ctx, &reading)
		if err == nil {
			err = s.Close()
		}
		if err != nil {
			return nil, err
		}
	}
	s, err := open(ctx, o)
	if err != nil || !o.ReadOnly {
		return s, err
	}
	writing := *o
	writing.ReadOnly = false
	s.Writable = func(ctx context.Context) (*scheme.Opened, error) { return open(ctx, &writing) }
	return s, nil
}

func openSQLite(ctx context.Context, o *scheme.Opening) (*scheme.Opened, error) {
	path, params, err := sqlParams(o.Rest, "table")
	if err != nil {
		return nil, err
	}
	if path == "" {
		return nil, scheme.Usagef("sqlite: needs a path")
	}
	o.WithoutKeys("a table")
	return planned(ctx, o, func(ctx context.Context, o *scheme.Opening) (*scheme.Opened, error) {
		return openDatabase(ctx, o, path, params["table"])
	})
}

func openDatabase(ctx context.Context, o *scheme.Opening, path, table string) (*scheme.Opened, error) {
	if err := files.Check(path, o.MustExist); err != nil {
		return nil, err
	}
	there := files.Exists(path)
	if !there && !o.ReadOnly {
		// If SQLite created the file, other users could read the file under the usual umask.
		if err := files.Create(path, nil); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
	}
	path = files.Real(path)
	at := "sqlite " + path
	if !there && o.ReadOnly {
		return emptyTable(ctx, cmp.Or(table, sdkTable), at)
	}
	// The timeout, in milliseconds, limits the wait for a lock that another program holds.
	pragmas := "_pragma=busy_timeout(10000)"
	if o.ReadOnly {
		pragmas += "&_pragma=query_only(1)"
	}
	name := url.URL{Scheme: "file", Path: "/" + strings.TrimPrefix(filepath.ToSlash(path), "/"), RawQuery: pragmas}
	db, err := sql.Open("sqlite", name.String())
	if err != nil {
		return nil, err
	}
	return openTable(ctx, o, db, sqlstore.SQLite, table, at)
}

// sqlParams splits rest into a path and parameters such as ?table=NAME. A path can contain
// question marks. The parameters therefore begin at the last question mark, provided that an
// equals sign follows.
func sqlParams(rest string, names ...string) (string, map[string]string, error) {
	i := strings.LastIndexByte(rest, '?')
	if i < 0 || !strings.Contains(rest[i:], "=") {
		return rest, nil, nil
	}
	_, params, err := scheme.Query(rest[i:], names...)
	return rest[:i], params, err
}

func openMySQL(ctx context.Context, o *scheme.Opening) (*scheme.Opened, error) {
	config, table, err := mysqlConfig(o.Rest)
	if err != nil {
		return nil, err
	}
	if config.Passwd, err = mysqlPassword(o.Getenv); err != nil {
		return nil, err
	}
	o.WithoutKeys("a table")
	config.Logger = &mysql.NopLogger{} // the driver also returns the errors that it would log
	connector, err := mysql.NewConnector(config)
	if err != nil {
		return nil, errMySQLForm
	}
	at := strings.Join([]string{"mysql", config.Net, config.Addr, config.DBName}, " ")
	return planned(ctx, o, func(ctx context.Context, o *scheme.Opening) (*scheme.Opened, error) {
		c := connector
		if o.ReadOnly {
			c = readOnlyConnector{connector}
		}
		return openTable(ctx, o, sql.OpenDB(c), sqlstore.MySQL, table, at)
	})
}

// A readOnlyConnector makes connections whose transactions are read-only. It runs a statement
// instead of setting a variable, because the variable has different names in MySQL and MariaDB.
type readOnlyConnector struct{ driver.Connector }

// Connect implements driver.Connector.
func (c readOnlyConnector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	execer, ok := conn.(driver.ExecerContext)
	if !ok {
		return nil, errors.Join(errors.New("the connection runs no statements"), conn.Close())
	}
	if _, err := execer.ExecContext(ctx, "SET SESSION TRANSACTION READ ONLY", nil); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// errMySQLForm means that the name of the database is malformed. The error does not quote the
// name, because any part of the name might be a password.
var errMySQLForm = scheme.Usagef("the database must have the form mysql://USER@HOST:PORT/DB or mysql:USER@tcp(HOST:PORT)/DB")

// mysqlConfig parses a database name in either form that errMySQLForm states. The result table is
// empty if rest names no table.
func mysqlConfig(rest string) (_ *mysql.Config, table string, _ error) {
	rest, params, _ := strings.Cut(rest, "?")
	values, err := url.ParseQuery(params)
	if err != nil {
		return nil, "", errMySQLForm
	}
	table = values.Get("table")
	values.Del("table")
	insecure := values.Get("insecure")
	values.Del("insecure")
	config, err := parseMySQL(rest, values)
	if err != nil {
		return nil, "", err
	}
	switch {
	case config.Passwd != "":
		return nil, "", errMySQLPassword
	case config.DBName == "":
		return nil, "", scheme.Usagef("mysql: needs a database after the host: mysql://USER@HOST/DB")
	case insecure != "" && insecure != "true":
		return nil, "", scheme.Usagef("mysql: insecure must be true or absent")
	case insecure == "" && overNetwork(config):
		return nil, "", scheme.Usagef("a database without TLS must be on this machine: tokens would be sent unencrypted; add ?tls=true, or ?insecure=true to allow that")
	}
	return config, table, nil
}

// parseMySQL parses a database name in either form that errMySQLForm states. The parameter params
// contains the settings for the MySQL driver.
func parseMySQL(rest string, params url.Values) (*mysql.Config, error) {
	var u *url.URL
	if strings.HasPrefix(rest, "//") {
		var err error
		if u, err = url.Parse("mysql:" + rest); err != nil || u.Host == "" {
			return nil, errMySQLForm
		}
		if _, has := u.User.Password(); has {
			return nil, errMySQLPassword
		}
		rest = "tcp(" + net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "3306")) + ")/"
	}
	config, err := mysql.ParseDSN(rest + "?" + params.Encode())
	if err != nil {
		return nil, errMySQLForm
	}
	if u != nil {
		config.User, config.DBName = u.User.Username(), strings.TrimPrefix(u.Path, "/")
	}
	return config, nil
}

// overNetwork reports whether data for the server can leave this machine without TLS. The value
// tls=preferred counts as no TLS, because an attacker on the network can downgrade the connection.
func overNetwork(config *mysql.Config) bool {
	host, _, err := net.SplitHostPort(config.Addr)
	plain := config.TLSConfig == "" || config.TLSConfig == "false" || config.TLSConfig == "preferred"
	return plain && config.Net != "unix" && (err != nil || !scheme.Loopback(host))
}

var errMySQLPassword = scheme.Usagef("the password comes from %s or the file that %s names: others can see arguments", envPassword, envPasswordFile)

// mysqlPassword returns the password from the environment, or from the file that the environment
// names. If the environment has neither, mysqlPassword returns "". The error matches
// scheme.ErrUsage if the environment has both, or if the file cannot be read.
func mysqlPassword(env func(string) string) (string, error) {
	name := env(envPasswordFile)
	if name == "" {
		return env(envPassword), nil
	}
	if env(envPassword) != "" {
		return "", scheme.Usagef("both %s and %s are set", envPassword, envPasswordFile)
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return "", scheme.Usagef("the file that %s names: %w", envPasswordFile, files.Bare(err))
	}
	return strings.TrimRight(string(data), "\r\n"), nil
}
