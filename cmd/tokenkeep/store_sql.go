package main

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

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/sqlstore"
)

// Environment variables with the password of a MySQL user.
const (
	envMySQLPassword     = "TOKENKEEP_MYSQL_PASSWORD"      //nolint:gosec // A name, and no password.
	envMySQLPasswordFile = "TOKENKEEP_MYSQL_PASSWORD_FILE" //nolint:gosec // A name, and no password.
)

var sqliteScheme = scheme{
	name: "sqlite",
	form: "sqlite:PATH",
	text: `the table oauthtoken in a SQLite database, which is made if need be;
write sqlite:PATH?table=NAME for another table`,
	open: openSQLite,
}

var mysqlScheme = scheme{
	name: "mysql",
	also: "mariadb",
	form: "mysql://USER@HOST/DB",
	text: `the table oauthtoken in a MySQL or MariaDB database; ?table=NAME for another
table, ?tls=true, without which HOST has to be this machine unless ?insecure=true
says that the tokens may go over the network as they are, and what
github.com/go-sql-driver/mysql knows, whose form mysql:USER@tcp(HOST:PORT)/DB
can be used, too. The password comes from ` + envMySQLPassword + `, or
from the file that ` + envMySQLPasswordFile + ` names, and from nowhere else`,
	open: openMySQL,
}

// sdkTable is the table of the SDKs.
const sdkTable = "oauthtoken"

// openTable returns a store on a table in db, which is closed with it. If nothing
// is to be written and there is no such table, that is an error if the store has to
// be there, and an empty table otherwise.
func (a *app) openTable(ctx context.Context, db *sql.DB, dialect sqlstore.Dialect, table, at string) (*store, error) {
	table = cmp.Or(table, sdkTable)
	if a.readOnly {
		there, err := hasTable(ctx, db, dialect, table)
		if err != nil {
			return nil, errors.Join(err, db.Close())
		}
		if !there {
			return a.noTable(ctx, table, at, db.Close())
		}
	}
	return newSQLStore(ctx, db, dialect, table, at)
}

// noTable returns what takes the place of a table that is not there. err is what
// there was to say of its database.
func (a *app) noTable(ctx context.Context, table, at string, err error) (*store, error) {
	s, emptyErr := emptyTable(ctx, table, at)
	if err = errors.Join(err, emptyErr); err != nil {
		return nil, err
	}
	if a.isThere {
		return nil, errors.Join(fmt.Errorf("there is no table %s in the database", clean(table)), s.Close())
	}
	return s, nil
}

// hasTable reports whether db, which is not written to, has a table.
func hasTable(ctx context.Context, db *sql.DB, dialect sqlstore.Dialect, table string) (bool, error) {
	question := "SELECT COUNT(*) FROM pragma_table_info(?)"
	if dialect == sqlstore.MySQL {
		question = "SELECT COUNT(*) FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = ?"
	}
	var columns int
	if err := db.QueryRowContext(ctx, question, table).Scan(&columns); err != nil {
		// The store says of what kind the error is. It creates nothing, because db
		// is not written to.
		_, classed := sqlstore.New(ctx, db, dialect, nil)
		return false, cmp.Or(classed, err)
	}
	return columns > 0, nil
}

// emptyTable returns a store on an empty table in memory, which holds what one in
// a new database would.
func emptyTable(ctx context.Context, table, at string) (*store, error) {
	db, err := sql.Open("sqlite", ":memory:")
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	return newSQLStore(ctx, db, sqlstore.SQLite, table, at)
}

// newSQLStore returns a store on a table in db, which is closed with it.
func newSQLStore(ctx context.Context, db *sql.DB, dialect sqlstore.Dialect, table, at string) (*store, error) {
	s, err := sqlstore.New(ctx, db, dialect, &sqlstore.Options{Table: table})
	if err != nil {
		if failed := (*tokenstore.Error)(nil); !errors.As(err, &failed) {
			err = usage{err}
		}
		return nil, errors.Join(err, db.Close())
	}
	return &store{TokenStore: s, place: at + " " + table, close: db.Close}, nil
}

// planned returns the store that open opens. One that has to be there is looked at
// before it is opened for writing, which would make it; and one that is not written
// to is opened once more when it is.
func (a *app) planned(ctx context.Context, open func(context.Context, *app) (*store, error)) (*store, error) {
	if a.isThere && !a.readOnly {
		s, err := open(ctx, a.reading())
		if err == nil {
			err = s.Close()
		}
		if err != nil {
			return nil, err
		}
	}
	s, err := open(ctx, a)
	if err != nil || !a.readOnly {
		return s, err
	}
	b := *a
	b.readOnly = false
	s.writable = func(ctx context.Context) (*store, error) { return open(ctx, &b) }
	return s, nil
}

func openSQLite(ctx context.Context, a *app, rest string) (*store, error) {
	path, params, err := sqlParams(rest, "table")
	if err != nil {
		return nil, err
	}
	if path == "" {
		return nil, usagef("sqlite: needs a path")
	}
	a.noKeys("a table")
	return a.planned(ctx, func(ctx context.Context, a *app) (*store, error) { return openDatabase(ctx, a, path, params["table"]) })
}

func openDatabase(ctx context.Context, a *app, path, table string) (*store, error) {
	if err := a.checkPath(path); err != nil {
		return nil, err
	}
	there := exists(path)
	if !there && !a.readOnly {
		// SQLite would create the file for all to read.
		if err := createFile(path, nil); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
	}
	path = realPath(path)
	at := "sqlite " + path
	if !there && a.readOnly {
		return emptyTable(ctx, cmp.Or(table, sdkTable), at)
	}
	// The time-out is that of a lock another program holds.
	pragmas := "_pragma=busy_timeout(10000)"
	if a.readOnly {
		pragmas += "&_pragma=query_only(1)"
	}
	name := url.URL{Scheme: "file", Path: "/" + strings.TrimPrefix(filepath.ToSlash(path), "/"), RawQuery: pragmas}
	db, err := sql.Open("sqlite", name.String())
	if err != nil {
		return nil, err
	}
	return a.openTable(ctx, db, sqlstore.SQLite, table, at)
}

// sqlParams cuts off a parameter like ?table=NAME, if there is one: a path may have
// a question mark of its own.
func sqlParams(rest string, names ...string) (string, map[string]string, error) {
	i := strings.LastIndexByte(rest, '?')
	if i < 0 || !strings.Contains(rest[i:], "=") {
		return rest, nil, nil
	}
	_, params, err := query(rest[i:], names...)
	return rest[:i], params, err
}

func openMySQL(ctx context.Context, a *app, rest string) (*store, error) {
	config, table, err := mysqlConfig(rest)
	if err != nil {
		return nil, err
	}
	if config.Passwd, err = a.mysqlPassword(); err != nil {
		return nil, err
	}
	a.noKeys("a table")
	config.Logger = &mysql.NopLogger{} // errors are returned, too
	connector, err := mysql.NewConnector(config)
	if err != nil {
		return nil, errMySQLForm
	}
	at := strings.Join([]string{"mysql", config.Net, config.Addr, config.DBName}, " ")
	return a.planned(ctx, func(ctx context.Context, a *app) (*store, error) {
		c := connector
		if a.readOnly {
			c = readOnlyConnector{connector}
		}
		return a.openTable(ctx, sql.OpenDB(c), sqlstore.MySQL, table, at)
	})
}

// A readOnlyConnector makes connections that write nothing. MySQL and MariaDB have
// variables of different names for that, and one statement.
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

// errMySQLForm repeats nothing: what is not written as it should be may hold a
// password anywhere.
var errMySQLForm = usagef("the database is not written as mysql://USER@HOST:PORT/DB or mysql:USER@tcp(HOST:PORT)/DB")

// mysqlConfig reads the name of a database in either form, and the table's.
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
		return nil, "", usagef("mysql: needs a database behind the host: mysql://USER@HOST/DB")
	case insecure != "" && insecure != "true":
		return nil, "", usagef("mysql: insecure is true or not there")
	case insecure == "" && overNetwork(config):
		return nil, "", usagef("a database without TLS has to be on this machine: tokens would go over the network as they are; write ?tls=true, or ?insecure=true if that is meant")
	}
	return config, table, nil
}

// parseMySQL reads the name of a database without the parameters of the store.
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

// overNetwork reports whether what is sent to the server leaves this machine without
// TLS, or may do so if a machine on the way asks for it.
func overNetwork(config *mysql.Config) bool {
	host, _, err := net.SplitHostPort(config.Addr)
	plain := config.TLSConfig == "" || config.TLSConfig == "false" || config.TLSConfig == "preferred"
	return plain && config.Net != "unix" && (err != nil || !loopback(host))
}

var errMySQLPassword = usagef("the password comes from %s or the file that %s names: others can see arguments", envMySQLPassword, envMySQLPasswordFile)

// mysqlPassword returns the password that the environment has. There may be none.
func (a *app) mysqlPassword() (string, error) {
	name := a.env(envMySQLPasswordFile)
	if name == "" {
		return a.env(envMySQLPassword), nil
	}
	if a.env(envMySQLPassword) != "" {
		return "", usagef("both %s and %s are set", envMySQLPassword, envMySQLPasswordFile)
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return "", usagef("the file that %s names: %w", envMySQLPasswordFile, bare(err))
	}
	return strings.TrimRight(string(data), "\r\n"), nil
}
