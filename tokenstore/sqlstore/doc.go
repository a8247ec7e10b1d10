// Package sqlstore keeps token records in the database table of the Zoho CRM SDKs,
// in MySQL, MariaDB or SQLite, so that a Go program can take over, or share, what an
// SDK has stored.
//
//	db, err := sql.Open("mysql", "user:password@tcp(127.0.0.1:3306)/zohooauth")
//	...
//	store, err := sqlstore.New(ctx, db, sqlstore.MySQL, nil)
//	...
//	token, err := store.FindToken(ctx, tokenstore.Token{UserName: "ann@example.com:6001", ClientID: "1000.CLIENT"})
//
// It works over database/sql and brings no driver of its own. It is tested with
// github.com/go-sql-driver/mysql, on MariaDB, and with modernc.org/sqlite.
//
// # The table
//
// The table is called oauthtoken, unless Options.Table says otherwise, and has a
// row of ten columns for each record. New creates it if there is none, as the SDKs'
// documentation has it, but with room for tokens of any length. A table that is there is used as it is: its columns may have
// other types, and there may be others. One of an older generation, which lacks some
// of the ten, fails with an error that names the generation; so does a table of
// MySQL in an engine without transactions.
//
// New creates a second table, oauthtoken_tokenkeep, for what has no room in the
// first: refusals of the authorization server, and the biggest ID of a record that
// was deleted, so that it is not used again. If it may not be created the store
// works without.
//
// The rules are those of package tokenstore, and not those of the SDKs: see
// "Matching" and "Saving" there. Values are compared as bytes, whatever the
// collation of their columns, and are passed as parameters, never as part of a
// statement. What a column has no room for, or no character for, is refused with
// tokenstore.ErrTooLarge or tokenstore.ErrInvalidToken before anything is changed:
// each row that is written is read again in the same transaction, because a server
// that is not strict stores something else and says nothing. In the SDKs' table in MySQL
// that is what is longer than 255 characters, and an ID of more than ten. SQLite keeps
// to no such limits. A token that Refresh has brought is nowhere else: it makes the
// column wider that has no room for it (ALTER TABLE), as far as that is permitted.
//
// # What the SDKs rely on
//
// Programs on an SDK can go on reading the table, and changing the records that are
// there. Their code assumes this of it, and each point has a test:
//
//   - The columns are there under their names, and in their order: "select *" is
//     read by position (Python, Java, the SQLite store of Kaizen #192) or by name
//     (Node, PHP, Ruby).
//   - An ID is a decimal number of at most ten digits without leading zeros, and
//     the key of one row.
//   - What a record has not is NULL, or the empty text where the column is NOT NULL.
//   - The expiry time is the number of milliseconds since the epoch, in decimal.
//   - What identifies a record is equal to the bytes that were saved: it is found by
//     user_name, access_token, grant_token, refresh_token or id with "=".
//   - There is one row for each user (and client: the SDKs do not look at it), so
//     that the "limit 1" of their statements does not choose.
//   - Values in SQLite are text, and not bytes or numbers.
//   - What an SDK updates, inserts or deletes with its own statements is what this
//     package finds afterwards.
//
// They do not get on with more than nine rows when they add one: they take the
// biggest ID as text, which stays "9", and then fail on the "10" that is there; those
// for Java, PHP and Scala overwrite its row. This package counts IDs as numbers. Let
// it add the users where both are in use. The SDK for C# stores expiry times that
// are ten minutes early: its tokens count as expired so much earlier here.
//
// # Concurrency
//
// A change is one transaction that begins with the lock of all writers, reads the
// rows that the token may describe, decides, and writes. So there is one record for
// each user and client without a unique index, which the SDKs' table has not and
// some of their statements would break on.
//
// In SQLite the lock is BEGIN IMMEDIATE: the database's own, which programs on an
// SDK take too. It works with and without WAL, and with any busy timeout: a database
// that is busy is tried again for LockTimeout. WAL lets readers read meanwhile.
//
// In MySQL it is GET_LOCK, on the connection of the transaction, with a name that is
// made of those of the database and the table; and the rows are read FOR UPDATE, so
// that programs on an SDK wait, too. Locks on rows alone would not do: two
// transactions that both find no row of a user block each other when they add it.
// It needs MySQL 5.7.5 or MariaDB 10.0.2, and holds on one server: where several
// take writes (Galera, Group Replication), send those of all programs to one.
//
// Goroutines of one Store queue up in the process, so that writing takes one
// connection of the pool.
//
// # Refreshing
//
// Refresh has one process at a time ask for a new access token for a record; no
// lock on the table is held meanwhile. With a SQLite file it locks a file beside it
// that is named after a digest of the record's ID and goes away afterwards: the
// processes have to be on one machine. With a database in memory there is one
// process, and the lock is in the memory of the program, for the stores on one
// *sql.DB. With MySQL it is GET_LOCK again. Each Refresh that calls mint keeps a
// connection of the pool for so long: give the pool more than one if mint itself, or
// others meanwhile, use it.
//
// The lock goes with its process or connection. A process that is stopped keeps it,
// and the others give up after LeaseTTL and LockTimeout with
// tokenstore.ErrUnavailable, rather than ask a second time.
//
// A refusal of the authorization server (*tokenstore.RefreshError) is kept in the
// second table for those who come later: its code, its times, and a digest of the
// credentials that it is about. The rules are those of tokenstore.Store.
//
// # Removing
//
// What is removed from a SQLite database is removed from its files: every change by
// this package overwrites with zeros what it deletes or replaces (secure_delete), and
// a deletion writes the database again (VACUUM), empties the write-ahead log and
// leaves no journal. So the pages go, too, in which a program without secure_delete had
// left earlier values. DeleteToken does not write a database of more than 64 MiB again;
// Scrub does. If another connection reads for longer than LockTimeout, the deletion is
// done and fails with tokenstore.ErrUnavailable, because the log could not be emptied;
// it can be repeated. VACUUM renumbers the implicit rowids of other tables.
//
// This does not reach copies: backups, snapshots of the file system, and the blocks
// that a file system or SSD has put aside. MySQL keeps what was removed in its undo
// log, in free space of its tablespaces and in its binary logs, until it purges them;
// no statement makes it do so at once. Where that matters, revoke the tokens.
//
// # Costs and failures
//
// A search is one SELECT, and so is a save that changes nothing. A save that changes
// something is a SELECT before and a transaction of three to six statements, in
// MySQL between GET_LOCK and RELEASE_LOCK. A search by ID uses the primary key, all
// others read the table: with many thousands of records add indexes on user_name and
// the three tokens. Indexes must not be unique.
//
// A row with an expiry time that is no number, or text that is not UTF-8, fails only
// those who ask for its record, with tokenstore.ErrCorrupt, and is left alone. Errors
// of a server are passed on with its text where that repeats no value, and else with
// their number.
//
// What an operator or the author of the program has to change fails with
// tokenstore.ErrRefused: a database that is not there or of another kind (PostgreSQL is
// not supported), a table that was dropped, a set-up that the store cannot work with.
//
// A server that takes no writes, as after a failover the one is to which the connections
// of the pool lead, fails with tokenstore.ErrRefused once new connections have led to it,
// too. The store closes the old ones and tries again, and Refresh does so before it
// calls mint, and for LeaseTTL afterwards. With rejectReadOnly=true in the data source
// name the driver does the same for reads, which are otherwise answered by the old server.
//
// The connections to MySQL must speak utf8mb4, which is the driver's default. A
// database in memory of SQLite must be one for all connections of the pool:
// "file:name?mode=memory&cache=shared", or SetMaxOpenConns(1).
package sqlstore
