package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

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
	text: `the table oauthtoken in a SQLite database, which is made if there is none;
write sqlite:PATH?table=NAME for another table`,
	open: openSQLite,
}

var mysqlScheme = scheme{
	name: "mysql",
	form: "mysql://USER@HOST/DB",
	text: `the table oauthtoken in a MySQL or MariaDB database; ?table=NAME for another
table, ?tls=true, and what github.com/go-sql-driver/mysql knows, whose form
mysql:USER@tcp(HOST:PORT)/DB can be used, too. The password comes from
` + envMySQLPassword + `, or from the file that
` + envMySQLPasswordFile + ` names, and from nowhere else`,
	open: openMySQL,
}

// A sqlStore is a table, and the connections to its database.
type sqlStore struct {
	*sqlstore.Store
	db *sql.DB
	at string
}

func (s sqlStore) Close() error     { return s.db.Close() }
func (s sqlStore) place() string    { return s.at }
func (sqlStore) counted() bool      { return false }
func (sqlStore) lag() time.Duration { return 0 }

// newSQLStore returns a store on a table in db, which is closed with it.
func newSQLStore(ctx context.Context, db *sql.DB, dialect sqlstore.Dialect, table, at string) (store, error) {
	s, err := sqlstore.New(ctx, db, dialect, &sqlstore.Options{Table: table})
	if err != nil {
		if failed := (*tokenstore.Error)(nil); !errors.As(err, &failed) {
			err = usage{err}
		}
		return nil, errors.Join(err, db.Close())
	}
	return sqlStore{s, db, at + " " + table}, nil
}

func openSQLite(ctx context.Context, a *app, rest string) (store, error) {
	path, params, err := sqlParams(rest, "table")
	if err != nil {
		return nil, err
	}
	switch {
	case path == "":
		return nil, usagef("a path stands behind sqlite:")
	case a.isSource && !exists(path):
		return nil, fmt.Errorf("there is no file %s", clean(path))
	}
	a.noKeys("a table")
	// SQLite would create the file for all to read.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		err = f.Close()
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	path = realPath(path)
	// The time-out is that of a lock another program holds.
	name := url.URL{Scheme: "file", Path: "/" + strings.TrimPrefix(filepath.ToSlash(path), "/"), RawQuery: "_pragma=busy_timeout(10000)"}
	db, err := sql.Open("sqlite", name.String())
	if err != nil {
		return nil, err
	}
	return newSQLStore(ctx, db, sqlstore.SQLite, params["table"], "sqlite "+path)
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

func openMySQL(ctx context.Context, a *app, rest string) (store, error) {
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
	return newSQLStore(ctx, sql.OpenDB(connector), sqlstore.MySQL, table, at)
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
	var user, database string
	if strings.HasPrefix(rest, "//") {
		u, err := url.Parse("mysql:" + rest)
		if err != nil || u.Host == "" {
			return nil, "", errMySQLForm
		}
		if _, has := u.User.Password(); has {
			return nil, "", errMySQLPassword
		}
		host, port := u.Hostname(), u.Port()
		if port == "" {
			port = "3306"
		}
		user, database = u.User.Username(), strings.TrimPrefix(u.Path, "/")
		rest = "tcp(" + net.JoinHostPort(host, port) + ")/"
	}
	config, err := mysql.ParseDSN(rest + "?" + values.Encode())
	if err != nil {
		return nil, "", errMySQLForm
	}
	if user != "" || database != "" {
		config.User, config.DBName = user, database
	}
	switch {
	case config.Passwd != "":
		return nil, "", errMySQLPassword
	case config.DBName == "":
		return nil, "", usagef("no database stands behind the host")
	}
	return config, table, nil
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
