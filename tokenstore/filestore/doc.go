// Package filestore keeps token records in the token file of the Zoho CRM SDKs. A Go
// program can take over, or share, the records that an SDK has stored.
//
//	store, err := filestore.New("sdk_tokens.txt", nil)
//	...
//	token, err := store.FindToken(ctx, tokenstore.Token{UserName: "ann@example.com:6001", ClientID: "1000.CLIENT"})
//
// # The file
//
// The file has a header, followed by a row of ten columns for each record. The format
// differs slightly between the SDKs: see codec.Dialect. An existing file keeps its
// dialect, as far as its bytes show it. A new file is written in the dialect of Python,
// unless Options.Dialect names another. The dialect of C# must be named: it looks like
// that of Java or Ruby, but its expiry times are ten minutes early.
//
//	dialect           line breaks            commas and quotes in values
//	python            CR LF                  yes
//	java, ruby        LF                     yes
//	node, php         LF, none at the end    no
//	typescript, deno  LF, none at the end    no
//	scala             LF, none at the end    no; absent values are the text "null"
//	csharp            LF or CR LF            no; expiry times are 10 minutes early
//
// The package writes only values that the SDK of the dialect can read back. A value that the
// SDK would lose or misread fails with tokenstore.ErrInvalidToken. If several SDKs could have
// written the file, all of them must be able to read the value back. IDs are numbers of up to
// ten digits, or below 2^31-1 for Java, C# and Scala. Set Options.AnyID to permit other IDs if
// no SDK reads the file. An unquoted "null" is read as an absent value in all dialects; only
// that of Scala writes it.
//
// # The second file
//
// The SDKs have no column for Issuer, Resource, Scope, TokenType, IDToken and Extra. A
// second file, path + ".tokenkeep", holds them. It has the mode and owner of the token
// file. The second file does not exist while no record has such a field. Copy both files,
// or neither.
//
// An SDK sees ordinary rows, with two rows for a user who has tokens of two authorization
// servers. An SDK may change, add and remove rows. Each entry of the second file identifies
// its row by digests. Issuer and Resource belong to the ID, user, client and refresh token
// of the row; the other fields also belong to its access token. If an SDK replaces these
// values, the row loses the fields, and the next change of a record by this package removes
// them. If the second file cannot be read, every method fails with tokenstore.ErrCorrupt:
// without it, a record would seem to belong to another server.
//
// A change of both files writes the second file before and after the token file. A
// crash in between leaves the old or the new records, and perhaps entries that belong
// to no row.
//
// Unchanged rows keep their bytes, with two exceptions. A file of nine columns, as
// older SDKs wrote it, gets the tenth, and a file without a header gets one. The
// current SDKs also add the column, and would skip the first record of a file without a
// header. The first write removes blank lines and a byte order mark.
//
// The rules are those of package tokenstore, not those of the SDKs: see "Matching" and
// "Saving" in its documentation. The ID of a deleted record is not used again, as long as
// the lock file exists.
//
// If the file is not a token file, every method fails with tokenstore.ErrCorrupt and
// nothing overwrites the file. This includes a file whose last line is truncated, if
// that is detectable. The SDKs of Node, TypeScript, Deno, PHP and Scala end the file
// without a line break. In such a file, a truncated last field looks like a shorter
// value. A row without an ID or with an unreadable expiry time only affects operations
// on its record.
//
// # Writing
//
// A change is written to a new file, path + ".writing", which then replaces the token
// file. Readers see the old or the new file, and a crash leaves one of them intact. The
// directory must therefore be writable. If it does not exist, every method fails with
// tokenstore.ErrRefused. A symbolic link is followed, and its target is replaced; other
// hard links to the target keep the old file. If path is a directory, device, pipe or
// socket, methods neither read nor replace it, and fail with tokenstore.ErrRefused. A
// link in place of a lock file, or of path + ".writing", is removed; its target is not
// changed.
//
// A removed record is no longer in the file, but the blocks of the replaced file are
// not overwritten: the file system frees them. Backups and snapshots also keep it. If
// that matters, revoke the tokens.
//
// A token file that is itself a mount point, as with "docker run -v FILE:FILE", cannot be
// replaced. On Linux, it is written in place, as the SDKs write it, and Check reports it.
// Programs that mount it lock the file itself, and readers wait for writers. If the
// directory is writable, a copy beside the file, path + ".in-place", protects against a
// process that is killed while it writes. Mount the directory instead: then a crash of the
// machine leaves the file intact. If only the file is mounted, a program that opens it by
// its original path replaces it. Such programs also do not see the second file, which is
// beside the mount point. Do not let them handle records with an Issuer. If the
// directory is not writable, a record with a field of the second file fails with
// tokenstore.ErrInvalidToken. A refresh then stores the new token without Scope, IDToken
// and Extra. A file that is mounted read-only can be read; writes fail with
// tokenstore.ErrRefused.
//
// The new file has mode 0600, regardless of the mode of the old one; the SDKs create files
// with mode 0644. A file that is written in place keeps its mode. The new file and the lock
// file keep the owner. A process that may not change the owner of a file cannot replace the
// file of another user, and fails with tokenstore.ErrDenied.
//
// # Locking
//
// Writers lock path + ".lock", with flock on Unix and LockFileEx on Windows. The lock
// works between goroutines and processes on one machine; on a network file system it
// depends on the system. Readers take no lock. Go's standard library has no such lock
// on other platforms (Plan 9, Solaris, AIX, WebAssembly). On these, reading works and
// writing fails with tokenstore.ErrRefused. The lock file is never removed. It contains
// one number: the largest ID of a deleted record.
//
// The official SDKs take no lock and write the file in place. If a program with such an
// SDK writes at the same time as this package, one of the changes may be lost. Readers
// may see a partial file. Just before this package replaces the file, it checks
// that the file is still the one that it has read, and otherwise starts over. The SDKs
// do nothing similar. If a program with an SDK also uses the file, let that program only
// read the file, or stop it.
//
// # Refreshing
//
// With Refresh, one process at a time requests a new access token for a record. It locks a
// temporary file beside the token file whose name contains a digest of the record's ID. The
// token file is not locked meanwhile. The operating system releases the lock if the process
// ends. A suspended process keeps the lock. Other processes stop waiting after LeaseTTL and
// LockTimeout with tokenstore.ErrUnavailable, and do not send a second request.
//
// If the authorization server refuses (*tokenstore.RefreshError), the temporary file keeps
// the refusal for later callers. It holds the code and the times of the refusal, and a
// digest of the refused credentials. The rules are those of tokenstore.Store.
package filestore
