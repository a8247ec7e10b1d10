// Package tokenstore stores OAuth tokens in the secret manager that you already run.
//
// A program opens a [*Store] with one of the adapters (awssm, gcpsm, vaultstore,
// k8sstore, or memstore in tests) and uses it as a [TokenStore]:
//
//	store, err := vaultstore.New(client, "secret", "oauth", nil)
//	...
//	token, err := store.FindToken(ctx, tokenstore.Token{UserName: "ann@example.com:6001", ClientID: "1000.CLIENT"})
//
// Stores in the formats of the official Zoho SDKs (packages filestore and
// sqlstore) are TokenStores too, and follow the same rules. Package conformance
// checks each numbered rule on every store, in a case that names it.
//
// # Matching
//
// FindToken and SaveToken look for the record that a token describes. The first row that
// applies decides: the search does not continue with a later row.
//
//	#  the token has                                    it describes a record with
//	0  ID                                               that ID, and the UserName and client that the token has
//	1  UserName                                         the same UserName and the same client;
//	                                                    else, if the token has no ClientID, any record of the user
//	                                                    with the Issuer and Resource that the token has
//	2  AccessToken, neither ClientID nor ClientSecret   the same AccessToken
//	3  GrantToken or RefreshToken, with ClientID        the same client and the same GrantToken,
//	                                                    else the same client and the same RefreshToken;
//	                                                    an earlier grant or refresh token of the record matches too
//	4  none of these                                    nothing
//
// A client is the ClientID at the Issuer for the Resource. Two clients are the same if all
// three fields are equal, where an empty field equals only an empty one.
//
// The rows in detail:
//
//   - [TS-01] Row 0: FindToken and FindTokenByID find a record by its ID. If like
//     has a UserName or ClientID other than the record's, nothing is found.
//   - [TS-44] Records of one user and ClientID at two issuers, or for two
//     resources, are two records. Rows 0, 1 and 3 distinguish the two records, as they
//     distinguish two ClientIDs. No look-up, save, refresh or deletion of one reads or changes
//     the other. Row 2 compares neither Issuer nor Resource.
//   - [TS-02] Row 1 finds the record with the same UserName and the same ClientID,
//     an empty ClientID included.
//   - [TS-03] If no record of the user has an empty ClientID, row 1 without a ClientID finds
//     the only record of the user. If there are several, it fails with ErrAmbiguous.
//   - [TS-04] Row 1 does not fall through: an unknown user is not found even if
//     the token's access, refresh or grant token would match.
//   - [TS-05] Row 2 finds a record by the access token, if like has neither ClientID nor
//     ClientSecret.
//   - [TS-06] Row 3 finds a record by the grant token with the client, else by the refresh
//     token with the client. The same token of another client is not found.
//   - [TS-07] Row 3 prefers a record with a user over one without, and of records
//     without a user the newest.
//   - [TS-08] Row 3 also finds a record by an earlier grant or refresh token: its first one,
//     and the last one before the current one. Stores of a foreign format (package filestore,
//     package sqlstore) have no room for earlier tokens and keep none.
//   - [TS-09] Row 4: FindToken fails with ErrInvalidToken and never returns an
//     arbitrary record. SaveToken merges only into a record without a user that
//     holds the same token, and the same client or none. If the record that was
//     created with the token now has a user or another client, SaveToken fails
//     with ErrIDMismatch. (Stores of a foreign format do not know what a record
//     was created with.)
//   - [TS-10] No match is ErrNotFound. For a weak look-up (see below), the text of the error
//     says how far the look-up may be out of date. Several matches that the rules above do not
//     rank are ErrAmbiguous. The text of that error names the IDs and no secret.
//   - [TS-11] FindToken returns the record with its fields replaced by those that like has. An
//     access token other than the record's does not inherit its ExpiresAt. An earlier grant or
//     refresh token in like does not replace the current one.
//
// # Saving
//
//   - [TS-12] If a record matches, the fields that the token has replace those of
//     the record, and the other fields stay. Only TS-13 clears a field.
//   - [TS-13] A changed AccessToken that comes without ExpiresAt clears ExpiresAt.
//   - [TS-14] A save that changes nothing writes nothing.
//   - [TS-15] If no record matches, SaveToken creates one and returns it with its
//     ID. The ID can change only when a record without a user gets a user.
//   - [TS-16] The pair of UserName and ClientID of a record with a user is fixed,
//     even if the ClientID is empty. Another user's or client's ID, or a new ID
//     for a user or token that has a record, is ErrIDMismatch, and nothing is
//     changed.
//   - [TS-45] The Issuer and Resource of a record with a user are fixed, even if
//     they are empty. A record without a user can get each of them once. Another
//     Issuer or Resource for a record that is found is ErrIDMismatch, and nothing
//     is changed.
//   - [TS-17] An ID or UserName without access, refresh or grant token, and
//     without a record to merge into, is ErrNotFound. A token that has nothing to
//     derive an ID from is ErrInvalidToken.
//   - [TS-18] Each user and client has at most one record, however many processes
//     save at once. The records of two users are never mixed.
//   - [TS-19] Concurrent saves of different fields are both kept.
//   - [TS-20] A save with the ID of a record without a user, and with a UserName,
//     gives the record that user. If the user already has a record, the two records are merged
//     under the ID of the user's record, with the tokens that expire later. Every ID that once
//     found a record keeps finding it until the record is deleted, however many IDs the record
//     has. (Stores of a foreign format forget the other ID.)
//   - [TS-21] An ID that the caller chooses is kept: any string of up to 255 bytes. Only the
//     save that creates a record can choose its ID. An unknown ID in the form of a derived one
//     is refused with ErrInvalidToken. Stores that cannot hold an ID refuse it with
//     ErrInvalidToken before anything is written. The store looks for another record with the
//     caller's ID, but the backend does not enforce that the ID is unique. If two saves use
//     one ID at the same time, or within ListLag of each other, both records may be kept. A
//     search by that ID is then ErrAmbiguous. Each record is still found by its user and its
//     tokens, and "tokenkeep doctor" reports both. Stores of a foreign format never keep both
//     records.
//   - [TS-22] Bad input is refused before anything is written. Invalid UTF-8, control
//     characters, an ID over 255 bytes, an ExpiresAt out of range and a redacted secret are
//     ErrInvalidToken. A record that is too large is ErrTooLarge.
//   - [TS-23] Times are kept to the millisecond, in UTC.
//   - [TS-46] Scope, TokenType, IDToken and Extra are kept like the other fields.
//     The members of an Extra replace those of the record by name, and the other members of
//     the record stay. Extra is stored in its canonical form. An Extra that is not a JSON
//     object with each member once is ErrInvalidToken. One that is too large, by itself or
//     together with that of the record, is ErrTooLarge. Refresh stores a new token in any
//     case. If its Extra and that of the record are too large together, Refresh keeps only the
//     new Extra. (A store of a foreign format may refuse a record that has one of these
//     fields, an Issuer or a Resource with ErrInvalidToken.)
//
// In one case, a token can be in two records. A save by refresh, grant or access token alone
// may leave a second record without a user. It does so only within ListLag of the save that
// put the token into another record. The next save that finds both records merges them.
//
// # Deleting and listing
//
//   - [TS-24] DeleteToken removes the record, so that no look-up finds it. If the record does
//     not exist, DeleteToken returns nil.
//   - [TS-25] A deleted record exists again only after a save that was under way at the
//     deletion or began later. An update prepared against the deleted record does not touch a
//     record that was created again.
//   - [TS-26] GetTokens returns every record once, ordered by ID. If there are no
//     records, it returns an empty list and no error.
//   - [TS-27] DeleteTokens removes every record.
//   - [TS-28] An operation that asks for a record that cannot be read returns the
//     class of the reason (ErrCorrupt, ErrDenied, ErrRefused, ErrUnavailable). The
//     record is not written over or deleted. It hides no other record: GetTokens and
//     DeleteTokens process the other records, and return an *UnreadableError for each record
//     that they leave out. A search finds another record only if the unreadable one could not
//     be meant instead. No save creates a second record beside it.
//
// Stores that have a method DeleteIfUnchanged follow one more rule:
//
//   - [TS-43] DeleteIfUnchanged removes the record if each of its fields is as
//     given. Otherwise nothing is changed and the error matches ErrConflict. A
//     save that runs meanwhile is never lost. If the record does not exist, the
//     error is nil.
//
// # Strong and weak look-ups
//
// A strong look-up reads the record by its name. A weak one searches labels, or lists all
// records, and may miss what was written within the ListLag of the backend. ListLag is minutes
// on AWS, and has no documented bound on GCP.
//
//	look-up by                                             may lag by
//	a derived ID                                  strong   ReadLag
//	UserName and ClientID, both given, with the
//	Issuer and Resource of the record             strong   ReadLag
//	an ID that the caller chose                   weak     ListLag
//	UserName without ClientID                     weak     ListLag
//	AccessToken                                   weak     ListLag
//	GrantToken or RefreshToken, with ClientID     weak     ListLag
//	nothing: GetTokens, All, DeleteTokens         weak     ListLag
//
// A derived ID is the ID that SaveToken returns for a record that was saved
// without one. A token finds at once the record that was created with it, because the search
// also reads the name that is derived from the token.
//
// # Refreshing
//
// A store that is a [Refresher] follows these rules too. Each request to the
// authorization server is one call of mint, the function that the caller passes to
// Refresh.
//
//   - [TS-35] If the record has an access token that is not stale and has not
//     expired, Refresh returns the record and does not call mint.
//   - [TS-36] When several callers refresh the same record concurrently, in any goroutines and
//     processes, exactly one calls mint. The others, and later callers, get its result. If
//     mint panics or ends its goroutine, the next caller calls mint.
//   - [TS-37] Refresh merges the token that mint returns like SaveToken: empty
//     fields, including the refresh token, keep their stored values. ID, UserName, ClientID,
//     Issuer and Resource stay as they are, whatever mint returns.
//   - [TS-38] If mint fails, the record stays as it is and Refresh returns the
//     error of mint. Waiters and later callers get a RefreshError too, without a
//     call of mint. A permanent RefreshError counts until the refresh token, the grant token
//     or the client secret changes, or the record is deleted. Any other RefreshError counts
//     for RetryAfter, whatever its length. Only waiters get a RefreshError that refuses the
//     client.
//   - [TS-39] A record that is deleted while mint runs stays deleted. Refresh
//     returns the token from mint together with ErrNotPersisted.
//   - [TS-40] Fields that are saved while mint runs stay, except an access token
//     that is stale or has expired. A new refresh token from mint is stored with them. If
//     another refresh token is saved while mint runs, it stays, and the result of mint for the
//     old one is not stored. If the ID then names another user's record, nothing from mint is
//     stored in that record.
//   - [TS-41] Refresh of an unknown ID is ErrNotFound. Refresh without an ID or a
//     function, or with a mint that returns no access token, is ErrInvalidToken.
//     Nothing is changed.
//   - [TS-42] A waiter's own context bounds its wait. Refresh stores the result of
//     mint even if the context of the caller is done.
//
// # Errors, contexts, secrecy
//
//   - [TS-29] Every method returns promptly once its context is done, with an
//     error matching ctx.Err().
//   - [TS-30] Every error is an *Error. Unless it is an error of mint, it matches one of the
//     classes of this package or of package context.
//   - [TS-31] No error, log record, name or label holds a client secret, or a
//     refresh, access or grant token.
//   - [TS-32] Tokens are passed and returned by value: a caller may change what it
//     passed and what it got.
//   - [TS-33] All methods may be called concurrently, by goroutines and processes.
//   - [TS-34] Once ReadLag has passed, every handle on a backend finds what
//     another handle has saved, whether it was opened before or after the save.
//
// # Names, digests and keys
//
// The name of a record is derived from its user and client, or, without a user, from its first
// token. Two records of one user and client would have one name, and the backend refuses to
// create a name twice. The other fields that searches use are stored beside a record, as
// labels. Names and labels are 160-bit HMAC-SHA-256 digests, because people who may not read
// secrets can often read metadata, and user names can be guessed. Set Options.NameKey to keep
// such people from confirming a guess.
package tokenstore
