// Package filestore keeps token records in the token file of the Zoho CRM SDKs. A Go program can
// take over or share the records that an SDK stored.
//
//	store, err := filestore.New("sdk_tokens.txt", nil)
//	...
//	token, err := store.FindToken(ctx, tokenstore.Token{UserName: "ann@example.com:6001", ClientID: "1000.CLIENT"})
//
// # The file
//
// The file has a header, followed by a row of ten columns for each record. The format differs
// slightly between the SDKs: see codec.Dialect. If Options.Dialect is empty, an existing file keeps
// the dialect that its content shows, and a new file has the dialect of Python. Files of the C# SDK
// look like files of the Java or Ruby SDK, but have expiry times that are ten minutes early. Set
// Options.Dialect for such files.
//
//	dialect           line breaks            commas and quotes in values
//	python            CR LF                  yes
//	java, ruby        LF                     yes
//	node, php         LF, none at the end    no
//	typescript, deno  LF, none at the end    no
//	scala             LF, none at the end    no; absent values are the text "null"
//	csharp            LF or CR LF            no; expiry times are 10 minutes early
//
// The package writes only values that the SDK of the dialect can read back. Saving any other value
// fails with tokenstore.ErrInvalidToken. If several SDKs could have written the file, all these
// SDKs must be able to read the value back. An ID is a number of up to ten digits; for Java, C# and
// Scala, it must be below 2^31-1. If no SDK reads the file, set Options.AnyID to permit other IDs
// and values. In all dialects, the package reads an unquoted "null" as an absent value. It writes
// "null" only in the dialect of Scala.
//
// # The second file
//
// The SDKs have no column for Issuer, Resource, Scope, TokenType, IDToken and Extra. A second file,
// path + ".tokenkeep", holds these fields. The second file has mode 0600 and the owner of the token
// file. A write removes the second file if no record has one of these fields. Always copy both
// files together.
//
// An SDK sees two ordinary rows for a user with tokens from two authorization servers. An SDK may
// change, add and remove rows. Each entry of the second file identifies its row by digests. Issuer
// and Resource apply while the ID, user, client and refresh token of the row are unchanged. In a
// row without a refresh token, the grant token counts instead. In a row with neither token, the
// access token counts. The other fields apply only while the access token is also unchanged. When
// this package next changes the record, it removes the fields that do not apply. If the second file
// is malformed, reads and writes fail with tokenstore.ErrCorrupt, because a record without its
// Issuer would seem to belong to another server.
//
// A change that concerns both files writes the second file before and after the token file. A
// crash between these writes leaves the old or the new records, and perhaps entries that belong
// to no row.
//
// Unchanged rows keep their bytes, except in a file of nine columns, which older SDKs write. Such a
// file gets the tenth column, which the current SDKs also add. A file without a header gets a
// header, because the current SDKs skip the first line. The first write also converts UTF-16 to
// UTF-8, and removes blank lines and a byte order mark.
//
// The store follows the rules of package tokenstore, not those of the SDKs: see "Matching" and
// "Saving" in its documentation. While the lock file exists, SaveToken does not reuse the ID of a
// deleted record.
//
// If the file is not a token file, reads and writes fail with tokenstore.ErrCorrupt, and the
// package does not overwrite the file. A file whose last line is detectably truncated does not
// count as a token file. The SDKs of Node, TypeScript, Deno, PHP and Scala end the file without
// a line break. In such a file, a truncated last field looks like a shorter value. A row that
// cannot be read does not prevent operations on other records. Such a row lacks an ID, or has an
// unreadable expiry time or invalid UTF-8.
//
// # Writing
//
// The package writes a change to a new file, path + ".writing", which then replaces the token file.
// The directory must therefore be writable. Readers see the old or the new file, and a crash leaves
// one of them intact. If the directory does not exist, reads and writes fail with
// tokenstore.ErrRefused. If path is a symbolic link, the package replaces the target of the link;
// other hard links to the target keep the old content. If path is a directory, device, pipe or
// socket, methods fail with tokenstore.ErrRefused and change nothing. If a lock file or path +
// ".writing" is a symbolic link, the package removes the link, but not the target.
//
// The file system frees the blocks of the replaced file without overwriting them. The blocks may
// therefore still contain a removed record. Backups and snapshots may also contain the record. If
// removed records must not remain, revoke their tokens.
//
// A token file that is itself a mount point, as with "docker run -v FILE:FILE", cannot be replaced.
// On Linux, the package writes such a file in place, as the SDKs do, and Check reports the mount.
// Programs that use such a mount lock the file itself, and their readers wait for writers. If the
// directory is writable, a write first makes a copy beside the file, path + ".in-place". If a
// process is killed while it writes, the next program recovers the content from the copy. Mount the
// directory instead, so that a crash of the machine also leaves the file intact. If only the file
// is mounted, a program that uses the original path of the file replaces the file, and the mount
// keeps the old file. Such a program also does not find the second file, which is beside the mount
// point. Do not let such a program use records with an Issuer. If the directory is not writable,
// saving a record with a field of the second file fails with tokenstore.ErrInvalidToken. A refresh
// then stores the new token without Scope, IDToken and Extra, and without the TokenType if the
// TokenType is Bearer. A file that is mounted read-only can be read; writes fail with
// tokenstore.ErrRefused.
//
// The new file has mode 0600, regardless of the mode of the old file; the SDKs create files with
// mode 0644. A file that is written in place keeps its mode. The new file and the lock file get the
// owner of the old file. If a process cannot change the owner of a file, writes to the file of
// another user fail with tokenstore.ErrDenied.
//
// # Locking
//
// Writers lock path + ".lock", with flock on Unix and LockFileEx on Windows. The lock works between
// goroutines and processes on one machine. A network file system may or may not support the lock
// between machines. Readers take no lock, unless the file is a mount point. On other platforms
// (Plan 9, Solaris, AIX, WebAssembly), for which Go's standard library has no such lock, reading
// works and writing fails with tokenstore.ErrRefused. The package keeps the lock file after the
// lock is released. After a deletion, the lock file contains the largest ID of a deleted record.
//
// The official SDKs take no lock and write the file in place. If a program with such an SDK writes
// at the same time as this package, one of the changes may be lost. Readers may see a partial file.
// Just before this package replaces the file, it checks that no other program has changed the file
// since the read. If another program changed the file, the package starts over. After ten such
// attempts, the write fails with tokenstore.ErrConflict. If a program that uses an SDK also uses
// the file, let that program only read the file, or stop that program.
//
// # Refreshing
//
// With Refresh, only one caller at a time requests a new access token for a record, even if the
// callers are in different processes. Meanwhile, the caller holds a lock on a temporary file beside
// the token file, but not the lock that writers take. The name of the temporary file contains a
// digest of the record's ID. The operating system releases the lock if the process ends. A
// suspended process keeps the lock. Other callers wait for up to LeaseTTL plus LockTimeout. After
// this time, their calls fail with tokenstore.ErrUnavailable, without a second request.
//
// If the function mint returns a refusal from the authorization server (*tokenstore.RefreshError),
// the temporary file keeps the refusal for later callers. The file then contains the error code,
// times, and a digest of the refused credentials. Refresh treats refusals as tokenstore.Store does.
package filestore
