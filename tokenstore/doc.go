// Package tokenstore keeps OAuth token records in the secret manager that a
// company already trusts.
//
// A program opens a [*Store] with one of the adapters (awssm, gcpsm, vaultstore,
// or memstore in tests) and uses it as a [TokenStore]:
//
//	store, err := vaultstore.New(client, "secret", "oauth", nil)
//	...
//	token, err := store.FindToken(ctx, tokenstore.Token{UserName: "ann@example.com:6001", ClientID: "1000.CLIENT"})
//
// The stores that the official Zoho SDKs have (packages filestore and sqlstore)
// are TokenStores too, and follow the same rules. Package conformance checks
// each of the numbered rules on every store, in a case that names it.
//
// # Matching
//
// FindToken and SaveToken look for the record that a token describes. The first
// row that applies decides; there is no falling through to a later one, except
// where the row says so.
//
//		#  the token has                                    it describes a record with
//		0  ID                                               that ID, and the UserName and ClientID that the token has
//		1  UserName                                         the same UserName and the same ClientID, both possibly empty;
//		                                                    else, if the token has no ClientID, any record of the user
//		2  AccessToken, neither ClientID nor ClientSecret   the same AccessToken
//		3  GrantToken or RefreshToken, with ClientID        the same ClientID and the same GrantToken,
//		                                                    else the same ClientID and the same RefreshToken;
//		                                                    an earlier grant or refresh token of the record matches too
//		4  nothing of these                                 nothing
//
//	  - [TS-01] Row 0: FindToken and FindTokenByID find a record by its ID. If like
//	    has a UserName or ClientID other than the record's, nothing is found.
//	  - [TS-02] Row 1 finds the record with the same UserName and the same ClientID,
//	    an empty ClientID included.
//	  - [TS-03] Row 1 without a ClientID finds the only record of the user if none
//	    has an empty ClientID, and fails with ErrAmbiguous if there are several.
//	  - [TS-04] Row 1 does not fall through: an unknown user is not found though the
//	    token's access, refresh or grant token would match.
//	  - [TS-05] Row 2 finds by the access token, if like has neither ClientID nor
//	    ClientSecret.
//	  - [TS-06] Row 3 finds by the grant token with the client, else by the refresh
//	    token with the client, and compares the client: the same token of another
//	    client is not found.
//	  - [TS-07] Row 3 prefers a record with a user over one without, and of records
//	    without the newest.
//	  - [TS-08] Row 3 finds a record by an earlier grant or refresh token: the first
//	    it had, and the last before the present one. Stores of a foreign format
//	    (package filestore, package sqlstore) have no room for these and keep none.
//	  - [TS-09] Row 4: FindToken fails with ErrInvalidToken, never with an arbitrary
//	    record, and SaveToken merges into no record but one without a user that holds
//	    the same token, and the same client or none. If the record that was created
//	    with the token has a user by now, or another client, it is ErrIDMismatch.
//	    (Stores of a foreign format do not know what a record was created with.)
//	  - [TS-10] No match is ErrNotFound; of a weak look-up the text says how far it
//	    may be out of date. Several matches, none of which is better by the rules
//	    above, are ErrAmbiguous; the text names the IDs and no secret.
//	  - [TS-11] FindToken returns the record with the fields of like laid over it. An
//	    access token other than the record's does not inherit its ExpiresAt, and an
//	    earlier grant or refresh token is not laid over the present one.
//
// # Saving
//
//   - [TS-12] If a record matches, the fields that the token has replace the
//     record's and the others stay. Nothing is ever cleared.
//   - [TS-13] A changed AccessToken that comes without ExpiresAt clears ExpiresAt.
//   - [TS-14] A save that changes nothing writes nothing.
//   - [TS-15] If no record matches, one is created, and SaveToken returns it with
//     its ID. The ID stays the same while the record has no user or was created
//     with one.
//   - [TS-16] The pair of UserName and ClientID of a record with a user is fixed, an
//     empty ClientID included. Another user's or client's ID, or a new ID for a
//     user or token that has a record, is ErrIDMismatch, and nothing is changed.
//   - [TS-17] An ID or UserName without access, refresh or grant token, and without
//     a record to merge into, is ErrNotFound. A token without anything that an ID
//     can be derived from is ErrInvalidToken.
//   - [TS-18] There is at most one record for each user and client, however many
//     processes save at once, and two users are never mixed.
//   - [TS-19] Concurrent saves of different fields are both kept.
//   - [TS-20] A record without a user gets one by a save with its ID and a UserName.
//     If the user has a record already the two become one, with the tokens that
//     expire later, under the ID of the user's record. An ID that once found a
//     record goes on finding it, however many there are of one record, until it is
//     deleted. (Stores of a foreign format forget the other ID.)
//   - [TS-21] An ID of the caller's own is kept: any text of up to 255 bytes. The
//     first save that has it decides. An ID in the form of a derived one that is
//     not known is refused with ErrInvalidToken. Stores that cannot hold an ID
//     refuse it with ErrInvalidToken before anything is written.
//     That an ID of the caller's own is not another record's is looked up, and
//     not enforced by the backend: of two saves that bring one ID at the same
//     time, or within ListLag of each other, both may be kept. Then that ID is
//     ErrAmbiguous, each record is found by its user and its tokens, and
//     "tokenkeep doctor" names the two. Stores of a foreign format never keep
//     both.
//   - [TS-22] Bad input (invalid UTF-8, control characters, an ID over 255 bytes, an
//     ExpiresAt out of range, a redacted secret) is ErrInvalidToken, and a record
//     that is too large is ErrTooLarge, before anything is written.
//   - [TS-23] Times are kept to the millisecond, in UTC.
//
// One exception to "one record": a save by refresh, grant or access token alone,
// within ListLag of the save that put it on another record, may leave a second
// record without a user. The next save that finds both makes them one.
//
// # Deleting and listing
//
//   - [TS-24] DeleteToken removes the record, so that no key finds it, and returns
//     nil if there is none.
//   - [TS-25] A deleted record does not come back, but by a save that was under way
//     or came later; and an update prepared against it does not touch a record
//     that was created anew.
//   - [TS-26] GetTokens returns every record once, ordered by ID; of no records it
//     returns an empty list and no error.
//   - [TS-27] DeleteTokens removes every record.
//   - [TS-28] A record that cannot be read is reported with the class of the reason
//     (ErrCorrupt, ErrDenied, ErrRefused, ErrUnavailable) to those who ask for it.
//     It is not written over or deleted. It hides no other: GetTokens and
//     DeleteTokens do the others, with an *UnreadableError for each that they leave
//     out, and a search finds another record only if that one could not be meant
//     instead. No save creates a second record beside it.
//
// Stores that have a method DeleteIfUnchanged follow one rule more:
//
//   - [TS-43] DeleteIfUnchanged removes the record if each of its fields is as given.
//     Otherwise nothing is changed and the error matches ErrConflict. A save that
//     runs meanwhile is never lost. If there is no record the error is nil.
//
// # Strong and weak look-ups
//
// A strong look-up reads the record by its name. A weak one searches labels, or
// lists, and misses what was written within the ListLag of the backend: minutes on
// AWS, and without a documented bound on GCP.
//
//	look-up by                                             as late as
//	a derived ID                                  strong   ReadLag
//	UserName and ClientID, both given             strong   ReadLag
//	an ID that the caller chose                   weak     ListLag
//	UserName without ClientID                     weak     ListLag
//	AccessToken                                   weak     ListLag
//	GrantToken or RefreshToken, with ClientID     weak     ListLag
//	nothing: GetTokens, All, DeleteTokens         weak     ListLag
//
// A derived ID is the one that SaveToken returns for a record that was saved
// without an ID. A token finds the record that was created with it at once: the
// name that it derives is read besides the search.
//
// # Refreshing
//
// Stores that are a [Refresher] follow these rules too. A request to the
// authorization server is a call of the function that Refresh is given, mint.
//
//   - [TS-35] Refresh of a record that has an access token which is not stale and
//     has not expired returns the record and calls nothing.
//   - [TS-36] Of all that refresh one record at once, by goroutines and handles, one
//     calls mint. The others get what it brought, and so does who asks later. A
//     mint that panics, or that ends its goroutine, leaves that to the next one.
//   - [TS-37] What mint returns is merged as SaveToken does: what it leaves empty
//     stays, the refresh token included. ID, UserName and ClientID stay whatever it
//     returns.
//   - [TS-38] If mint fails, the record stays as it is and the error is mint's. Waiters
//     and later callers get a RefreshError too, without a call of mint: a permanent
//     one until the refresh token, the grant token or the client secret changes, or
//     the record is deleted; another one for RetryAfter, whatever its length. Only
//     waiters get one that refuses the client.
//   - [TS-39] A record that is deleted while mint runs stays deleted: the token that
//     mint brought is returned with ErrNotPersisted.
//   - [TS-40] What is saved while mint runs stays, except an access token that is
//     stale or has expired; a new refresh token that mint brought is stored beside
//     it. Of a refresh token that is saved and what mint got for the old one the
//     saved one stays. If the ID names another user's record by then, nothing that
//     mint brought is stored in it.
//   - [TS-41] Refresh of an ID that is not known is ErrNotFound. Without an ID or a
//     function, and if mint brings no access token, it is ErrInvalidToken. Nothing
//     is changed.
//   - [TS-42] Who waits for another's refresh waits with a context of its own. What
//     mint brought is stored though the context of the caller is done.
//
// # Errors, contexts, secrecy
//
//   - [TS-29] Every method returns promptly once its context is done, with an error
//     matching ctx.Err().
//   - [TS-30] Every error is an *Error and matches one of the classes of this
//     package or of package context.
//   - [TS-31] No error, log record, name or label holds a client secret, refresh,
//     access or grant token.
//   - [TS-32] Tokens go in and out by value: a caller may change what it passed and
//     what it got.
//   - [TS-33] All methods may be called at once, from goroutines and processes.
//   - [TS-34] What one handle has saved, another handle on the same backend finds,
//     once ReadLag has passed; it may have been opened before or after.
//
// # Names, digests and keys
//
// Records are stored under names that are derived from what identifies them: the
// user and the client, or the first token of a record without a user. That makes
// the backend's "create" the check for uniqueness. What records are searched by is
// put beside them as labels. Both are 160-bit HMAC-SHA-256 digests, because
// metadata can often be read by people who may not read secrets, and user names
// can be guessed: set Options.NameKey to keep such people from confirming a guess.
package tokenstore
