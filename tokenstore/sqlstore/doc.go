// Package sqlstore keeps token records in the database table of the Zoho CRM SDKs, in MySQL,
// MariaDB or SQLite. A Go program can take over or share the records that an SDK stored.
//
//	db, err := sql.Open("mysql", "user:password@tcp(127.0.0.1:3306)/zohooauth")
//	...
//	store, err := sqlstore.New(ctx, db, sqlstore.MySQL, nil)
//	...
//	token, err := store.FindToken(ctx, tokenstore.Token{UserName: "ann@example.com:6001", ClientID: "1000.CLIENT"})
//
// The package uses database/sql and includes no driver. It is tested with
// github.com/go-sql-driver/mysql on MariaDB, and with modernc.org/sqlite.
//
// # The table
//
// The table has one row for each record. The name of the table is oauthtoken, unless Options.Table
// is set. New creates a missing table with ten columns, as in the SDKs' documentation. However, the
// columns for the client secret, the tokens and the URLs have the type text. New does not change
// the columns of an existing table. In an existing table, the ten columns may have other types, and
// there may be additional columns. If a column is missing, New returns an error. If the table
// belongs to an older SDK, the error describes that SDK. New also returns an error for a MySQL
// table whose engine has no transactions.
//
// New creates a second table, by default oauthtoken_tokenkeep, for refusals from the authorization
// server. The second table also holds the largest ID of a deleted record, so that SaveToken does
// not reuse an ID. If the database refuses to create the second table, the store keeps neither
// refusals nor that ID.
//
// A third table, by default oauthtoken_tokenkeep_ext, holds the fields for which the SDKs have no
// column: Issuer, Resource, Scope, TokenType, IDToken and Extra. If the database refuses to create
// the third table, saving a record with one of these fields fails with tokenstore.ErrInvalidToken.
// Each row of the third table identifies a row of the SDKs' table by its ID and by digests. Issuer
// and Resource are bound to the ID, user, client and refresh token of that row. In a row without a
// refresh token, the grant token counts instead. In a row with neither token, the access token
// counts. The other fields are also bound to the access token. If an SDK replaces one of these
// values, the store ignores the fields that are bound to the value. When this package next changes
// the record, it removes the ignored fields from the third table. If an SDK removes the row, a
// Check with Purge removes the fields of that row.
//
// The store follows the rules of package tokenstore, not those of the SDKs: see "Matching" and
// "Saving" in the documentation of that package. Package sqlstore compares values as bytes,
// regardless of the collation of the columns, and always passes values as parameters. If a value
// does not fit its column, a save changes nothing, and the error matches tokenstore.ErrTooLarge.
// For an unsuitable ID or character, the error matches tokenstore.ErrInvalidToken. A server that is
// not in strict mode would silently store another value, so the package reads every written row
// again in the same transaction. In the table from the SDKs' documentation, MySQL limits an ID to
// ten characters, an expiry time to 20, and other values to 255. SQLite has no such limits. If a
// column is too narrow for the new token in a Refresh, Refresh tries to widen the column (ALTER
// TABLE), because the token is stored nowhere else.
//
// # What the SDKs rely on
//
// Programs with an SDK can continue to read the table and to change existing records. The SDKs
// rely on the following properties, and a test covers each of them:
//
//   - The ten columns exist with their names and in their order. The SDKs for Node, PHP
//     and Ruby read the result of "select *" by name. The SDKs for Python and Java, and
//     the SQLite store in Zoho's article Kaizen #192, read it by position.
//   - An ID is a decimal number of at most ten digits without leading zeros, and
//     identifies one row.
//   - An absent value is NULL, or the empty string if the column is NOT NULL.
//   - The expiry time is the number of milliseconds since the Unix epoch, in decimal.
//   - The values that identify a record equal the bytes that were saved. The SDKs find a
//     record by user_name, access_token, grant_token, refresh_token or id with "=".
//   - There is at most one row for each combination of user, client, Issuer and Resource.
//     If an SDK searches by user, its statement ignores the client and reads one row
//     ("limit 1").
//   - Values in SQLite are text, not bytes or numbers.
//   - Searches of this package reflect every insert, update and deletion that the SDKs'
//     statements make.
//
// Once the ID "10" exists, the SDKs cannot add a row. The SDKs compute the next ID from the
// lexically largest ID, which is still "9". The SDKs for Java, PHP and Scala then overwrite the row
// "10"; the other SDKs fail. This package compares IDs as numbers. If a program that uses an SDK
// also uses the table, let this package add the users. The SDK for C# stores expiry times that are
// ten minutes too early. This package does not correct these times.
//
// # Concurrency
//
// A change is one transaction, under a lock that excludes other writers of this package. The
// transaction reads the rows that may match the token, and writes the changed rows. Each
// combination of user, client, Issuer and Resource therefore has at most one record, even without a
// unique index. The SDKs' table has no such index, and some statements of the SDKs would fail with
// such an index.
//
// In SQLite, the lock is the write lock of the database (BEGIN IMMEDIATE), which programs with
// an SDK also take. The lock works with and without WAL and with any busy timeout. While the
// database is busy, the package retries for up to LockTimeout. With WAL, readers do not wait for
// writers.
//
// In MySQL, the package takes the lock with GET_LOCK before the transaction begins, on the same
// connection. The name of the lock derives from the names of the database and the table. The
// transaction also reads the rows FOR UPDATE, so that programs that use an SDK wait before they
// change these rows. Row locks alone are not enough: if two transactions find no row for a user and
// both insert a row, each transaction blocks the other. The lock requires at least MySQL 5.7.5 or
// MariaDB 10.0.2, and is local to one server. If several servers accept writes (Galera, Group
// Replication), all programs must write to the same server.
//
// Goroutines that save or delete through one Store take turns, so their transactions occupy one
// connection of the pool.
//
// # Refreshing
//
// With Refresh, only one caller at a time requests a new access token for a record, even if the
// callers are in different processes. Meanwhile, the caller holds a lock for the record, but does
// not lock the table. For a SQLite file, the lock is a temporary file beside the database. The name
// of the temporary file contains a digest of the table's name and the record's ID. All processes
// that use the database must be on one machine. For a database in memory, the lock is in the memory
// of the program, and works between stores on one *sql.DB. In MySQL, Refresh takes the lock with
// GET_LOCK, and occupies a connection of the pool while its function mint runs. The pool then needs
// a second connection if mint, or another part of the program, uses the pool meanwhile.
//
// The lock is released when the process or connection that holds it ends. A suspended process keeps
// the lock. Other callers wait for up to LeaseTTL plus LockTimeout. After this time, their calls
// fail with tokenstore.ErrUnavailable, without a second request.
//
// If mint returns a refusal from the authorization server (*tokenstore.RefreshError), the second
// table keeps the refusal for later callers. The table then contains the error code, times, and a
// digest of the refused credentials. Refresh treats refusals as tokenstore.Store does.
//
// # Removing
//
// A deletion from a SQLite database also removes the record's data from the database files. Every
// change of a SQLite file by this package overwrites deleted and replaced values with zeros
// (secure_delete). A deletion also rewrites the database (VACUUM), empties the write-ahead log and
// leaves no journal. The rewrite also removes pages in which a program without secure_delete left
// earlier values. DeleteToken and DeleteIfUnchanged do not rewrite a database larger than 64 MiB;
// Scrub does. If another connection reads for longer than LockTimeout, the log cannot be emptied.
// In that case the deletion takes effect, but returns an error that matches
// tokenstore.ErrUnavailable. Repeat the deletion to empty the log. VACUUM may change the implicit
// rowids of other tables.
//
// A deletion does not affect copies of the data: backups, snapshots of the file system, and blocks
// that a file system or SSD has retired. MySQL keeps removed values in its undo log, in free space
// of its tablespaces and in its binary logs. This package does not purge these values. If removed
// values must not remain, revoke the tokens.
//
// # Costs and failures
//
// A search is usually one SELECT, and so is a save without changes. A save with changes is a SELECT
// followed by a transaction, usually of three to six statements besides BEGIN and COMMIT. In
// SQLite, two PRAGMA statements precede the transaction. In MySQL, the transaction is between
// GET_LOCK and RELEASE_LOCK.
//
// In SQLite, New creates missing indexes on user_name and the three tokens, if the database is
// writable. FindToken is then about as fast with 100,000 records as with ten. In MySQL, a table
// that New creates has an index on user_name. New adds no index to an existing MySQL table. A
// search by a column without an index reads the whole table. Do not make an index on user_name or a
// token unique, because several records can have the same user or token.
//
// If a row cannot be read, operations on its record fail with tokenstore.ErrCorrupt and do not
// change the row. Such a row lacks an ID, or has an unreadable expiry time, damaged fields in the
// third table, or invalid UTF-8. An error from a MySQL server includes the server's message if the
// message cannot contain a value. Otherwise, the error includes only the error number.
//
// If the database is missing or unsuitable, the error matches tokenstore.ErrRefused. Examples
// are a database that does not exist, a database of another kind (PostgreSQL is not supported),
// a dropped table, and an unsuitable configuration.
//
// After a failover, the connections of the pool may lead to a server that accepts no writes. The
// store then closes these connections and retries. Refresh does so before it calls mint, and for up
// to LeaseTTL after mint returns. If the servers of the new connections also accept no writes, a
// save or deletion fails with tokenstore.ErrRefused. With rejectReadOnly=true in the data source
// name, the driver itself closes a connection whose server refuses a write.
//
// Connections to MySQL must use utf8mb4, which is the driver's default. If a SQLite database is
// in memory, all connections of the pool must share the database: use
// "file:name?mode=memory&cache=shared" or SetMaxOpenConns(1).
package sqlstore
