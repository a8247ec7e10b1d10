// Package filestore keeps token records in the token file of the Zoho CRM SDKs,
// so that a Go program can take over, or share, what an SDK has stored.
//
//	store, err := filestore.New("sdk_tokens.txt", nil)
//	...
//	token, err := store.FindToken(ctx, tokenstore.Token{UserName: "ann@example.com:6001", ClientID: "1000.CLIENT"})
//
// # The file
//
// The file has a header and a row of ten columns for each record. Each SDK
// writes it a little differently: see codec.Dialect. A file that is there is
// kept in its dialect, as well as that can be told from its bytes, and a new one
// is written in that of Python, unless Options.Dialect names another. The
// dialect of C# has to be named: it looks like that of Java or Ruby, but its
// expiry times are ten minutes early.
//
//	dialect           line breaks            commas and quotes in values
//	python            CR LF                  yes
//	java, ruby        LF                     yes
//	node, php         LF, none at the end    no
//	typescript, deno  LF, none at the end    no
//	scala             LF, none at the end    no; absent values are the text "null"
//	csharp            LF or CR LF            no; expiry times are 10 minutes early
//
// What the SDK of the dialect can read back is all that is ever written: values
// that it would lose or misread are refused with tokenstore.ErrInvalidToken, and
// where the bytes leave open which SDK has written the file, so are those that
// one of them would. IDs are numbers of up to ten digits (below 2^31 for Java, C#
// and Scala), unless Options.AnyID is set because no SDK reads the file. The text
// "null" stands for an absent value in all dialects.
//
// Rows that are not changed stay as they are, byte for byte, with two
// exceptions. A file of nine columns, as older SDKs wrote it, gets the tenth, and
// a file without a header gets one: the present SDKs do the first too, and
// without a header they would skip the first record. Blank lines and a byte order
// mark go away with the first write.
//
// The rules are those of package tokenstore, and not those of the SDKs: see
// "Matching" and "Saving" there. An ID is not used again after its record was
// deleted, as long as the lock file is kept.
//
// A file that cannot be read as a token file fails every method with
// tokenstore.ErrCorrupt and is never written over. A file whose last line is cut
// off is one of them, where that can be seen: the SDKs of Node, TypeScript, Deno,
// PHP and Scala end the file without a line break, so that a cut within its very
// last field looks like a shorter value. A row with an expiry time that is no
// number, or without an ID, fails only those who ask for its record.
//
// # Writing
//
// A change is written to a file of its own, path + ".writing", which then takes
// the place of the token file: a reader sees the old or the new one, and a crash
// leaves one of them whole. The directory must be writable therefore, and one that is
// missing fails every method with tokenstore.ErrRefused. A path that is a symbolic link
// is followed, and the file that it leads to is replaced; if that has other names (hard
// links), those keep the old file. A directory, device, pipe or socket at the path is
// neither read nor replaced, with tokenstore.ErrRefused. A link in the place of a lock
// file, or of path + ".writing", is removed, and what it leads to stays as it is.
//
// What is removed is gone from the file, but the blocks of the file that was replaced
// are not overwritten: the file system puts them aside. Backups and snapshots stay as
// they are, too. Where that matters, revoke the tokens.
//
// A token file that is mounted alone, as with "docker run -v FILE:FILE", cannot be
// replaced. On Linux it is written in place, as the SDKs do, and Check reports it. The
// programs that have it mounted lock the file itself, and readers wait for writers. A
// copy beside the file, path + ".in-place", makes up for a process that dies while it
// writes, if the directory can be written. Mount the directory instead: then a crash of
// the machine is covered, too, and so are programs that open the file by its own path,
// which would replace it. A file that is mounted read-only can be read; a write fails
// with tokenstore.ErrRefused.
//
// The new file has mode 0600, whatever that of the old one was; the SDKs create
// it with 0644. A file that is written in place keeps its mode. The owner stays, and
// the lock file gets the same one: a process that may not give a file away does not
// replace one of another user's, and fails with tokenstore.ErrDenied.
//
// # Locking
//
// Writers lock path + ".lock", on Unix with flock and on Windows with
// LockFileEx. That holds between goroutines and processes, on one machine; of
// network file systems it depends on the system. Readers take no lock. Other
// platforms (Plan 9, Solaris, AIX, WebAssembly) have no such lock in Go's
// standard library: there, reading works and writing fails with
// tokenstore.ErrRefused. The lock file is never removed. Apart from being
// locked it holds one number, the biggest ID of a record that was deleted.
//
// The official SDKs take no lock at all, and write the file in place. What a
// program on such an SDK and this package write at the same time may get lost,
// and what the SDK is about to write may be seen half-written. This package looks
// once more, just before it replaces the file, whether it is still the one that
// it has read, and begins again if not; the SDKs do nothing of the kind. Let the
// SDK's program only read, or stop it, where both are in use.
//
// # Refreshing
//
// Refresh has one process at a time ask for a new access token for a record. It
// locks a file beside the token file that is named after a digest of the record's
// ID and goes away afterwards; the token file is not locked meanwhile. The
// operating system takes the lock from a process that dies. A process that is
// stopped keeps it, and the others give up after LeaseTTL and LockTimeout with
// tokenstore.ErrUnavailable, rather than ask a second time.
//
// A refusal of the authorization server (*tokenstore.RefreshError) is kept in
// that lock file for those who come later: its code, its times, and a digest of
// the credentials that it is about. The rules are those of tokenstore.Store.
package filestore
