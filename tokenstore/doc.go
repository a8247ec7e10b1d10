// Package tokenstore stores OAuth tokens in the secret manager that you already run.
//
// A program opens a [*Store] with one of the adapters (awssm, gcpsm, vaultstore,
// k8sstore, or memstore in tests) and uses the Store as a [TokenStore]:
//
//	store, err := vaultstore.New(client, "secret", "oauth", nil)
//	...
//	token, err := store.FindToken(ctx, tokenstore.Token{UserName: "ann@example.com:6001", ClientID: "1000.CLIENT"})
//
// Stores in the formats of the official Zoho SDKs (packages filestore and sqlstore) are
// TokenStores too. These stores follow the same rules, except where a rule says otherwise.
// Package conformance checks each numbered rule in a test case that names the rule.
//
// # Matching
//
// FindToken and SaveToken look for the record that a token describes. The first row of the
// table below that applies to the token decides: the search never continues with a later row.
// A token has a field if that field is not empty. In the rules, "like" stands for the token
// that the caller passes to FindToken or Search.
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
// ClientID, Issuer and Resource together identify a client. Two clients are the same if all
// three fields are equal. An empty field equals only an empty field.
//
// The rows in detail:
//
//   - [TS-01] Row 0: FindToken and FindTokenByID find a record by its ID. If like has a
//     UserName, ClientID, Issuer or Resource that differs from the record's, the error
//     matches ErrNotFound.
//   - [TS-44] A user and ClientID have a separate record for each combination of Issuer and
//     Resource. Rows 0, 1 and 3 distinguish these records, as they distinguish records with
//     different ClientIDs. Finding, saving, refreshing or deleting one of these records does
//     not affect any other record. Row 2 compares neither Issuer nor Resource.
//   - [TS-02] Row 1 finds the record with the same UserName and the same client, even if
//     the ClientID is empty.
//   - [TS-03] If like has no ClientID and no record has the same client, row 1 finds the
//     user's only record that fits. A record fits unless like has an Issuer or Resource that
//     differs from the record's. If several records fit, the error matches ErrAmbiguous.
//   - [TS-04] If no record has the user, row 1 finds no record, even if a record has the same
//     access, refresh or grant token.
//   - [TS-05] Row 2 finds a record by the access token, if like has neither ClientID nor
//     ClientSecret.
//   - [TS-06] Row 3 finds the client's record with the same grant token, or else the
//     client's record with the same refresh token. Row 3 never finds the record of another
//     client.
//   - [TS-07] Row 3 prefers a record with a user to a record without a user. Of several
//     records without a user, row 3 prefers the newest.
//   - [TS-08] Row 3 also finds a record by its first grant or refresh token, and by the grant
//     or refresh token that the current one replaced. Stores with a foreign format (packages
//     filestore and sqlstore) keep no earlier tokens.
//   - [TS-09] For a token of row 4, FindToken fails with ErrInvalidToken and never returns an
//     arbitrary record. SaveToken merges a token of row 4 only into a record without a user
//     that holds the same token and has no other client. If the record that was created with
//     the token now has a user or another client, SaveToken fails with ErrIDMismatch. (Stores
//     with a foreign format do not record which token a record was created with.)
//   - [TS-10] If no record matches, the error matches ErrNotFound. If the look-up is weak
//     (see below) and the backend lags, the text of this error says by how much. If several
//     records match and no rule above prefers one of them, the error matches ErrAmbiguous.
//     The text of this error contains the IDs of the records, but no secret.
//   - [TS-11] FindToken returns the record, with the non-empty fields of like in place of the
//     record's. If like has a different access token, the result does not inherit the record's
//     ExpiresAt. An earlier grant or refresh token in like does not replace the current one.
//
// # Saving
//
//   - [TS-12] If a record matches, the non-empty fields of the token replace those of the
//     record. All other fields keep their values, except for ExpiresAt in TS-13.
//   - [TS-13] If a save changes AccessToken and the token has no ExpiresAt, the save clears
//     the record's ExpiresAt.
//   - [TS-14] A save that changes nothing writes nothing.
//   - [TS-15] If no record matches, SaveToken creates a record and returns it with its ID.
//     The ID can change only when a record without a user gets a user.
//   - [TS-16] The UserName and ClientID of a record with a user never change, even if the
//     ClientID is empty. A save with the ID of another user's or client's record changes
//     nothing and fails with ErrIDMismatch. A save with a new ID fails in the same way if the
//     user or the token already has a record.
//   - [TS-45] The Issuer and Resource of a record with a user never change, even if they
//     are empty. In a record without a user, each of these two fields can be set once. A
//     save that would change the Issuer or Resource of the record changes nothing and fails
//     with ErrIDMismatch.
//   - [TS-17] If no record matches and the token has an ID or UserName, but no access,
//     refresh or grant token, SaveToken fails with ErrNotFound. If the token has none of
//     these fields, SaveToken fails with ErrInvalidToken.
//   - [TS-18] Each user and client has at most one record, however many processes save
//     concurrently. Records of different users are never merged.
//   - [TS-19] If two callers concurrently save different fields of a record, both changes
//     are kept.
//   - [TS-20] If a token has a UserName and the ID of a record without a user, SaveToken
//     assigns the record to that user. If the user already has a record, SaveToken merges the
//     two records under the ID of the user's record. The merged record has the tokens that
//     expire later. A search by any ID that the record has had finds the record until the
//     record is deleted. (After a merge, stores with a foreign format keep only the ID of the
//     user's record.)
//   - [TS-21] A caller can choose the ID of a record that it creates. An ID has at most 255
//     bytes. SaveToken refuses an unknown ID in the form of a derived ID with ErrInvalidToken.
//     A store that cannot hold an ID refuses the ID with ErrInvalidToken, and writes nothing.
//     The store looks for another record with the caller's ID, but the backend does not
//     enforce that the ID is unique. If two saves use the same ID at the same time, or within
//     ListLag of each other, both records may be kept. A search by that ID then fails with
//     ErrAmbiguous. Searches by user or token still find each record, and "tokenkeep doctor"
//     reports both records. Stores with a foreign format never keep both records.
//   - [TS-22] SaveToken refuses an invalid token before the first write. It fails with
//     ErrInvalidToken for invalid UTF-8, control characters, an ID over 255 bytes, an
//     ExpiresAt out of range or the text of a redacted Secret. It fails with ErrTooLarge for
//     a field or record that is too large.
//   - [TS-23] ExpiresAt is stored in UTC, truncated to the millisecond.
//   - [TS-46] Scope, TokenType, IDToken and Extra are kept like the other fields. The members
//     of a new Extra replace the stored members with the same names, and all other stored
//     members are kept. Extra is stored in its canonical form. If Extra is not a JSON object,
//     or repeats a member, SaveToken fails with ErrInvalidToken. If Extra is too large, alone
//     or merged with the record's Extra, SaveToken fails with ErrTooLarge. If the merged Extra
//     is too large in a refresh, Refresh stores the token with only the new Extra. (A store
//     with a foreign format may refuse these four fields, and also Issuer and Resource, with
//     ErrInvalidToken.)
//
// A save with neither an ID nor a UserName can miss a record that another save stored less
// than ListLag ago. The save then creates a second record with the same token. The next save
// with this token merges the two records if the save finds both.
//
// # Deleting and listing
//
//   - [TS-24] DeleteToken removes the record, so that no look-up finds it. If the record does
//     not exist, DeleteToken returns nil.
//   - [TS-25] A deleted record exists again only after a save that was in progress during
//     the deletion or began later. An update that was prepared for the deleted record does
//     not change a record that was created in its place.
//   - [TS-26] GetTokens returns every record once, ordered by ID. If there are no
//     records, it returns an empty list and no error.
//   - [TS-27] DeleteTokens removes every record.
//   - [TS-28] If an operation needs a record that cannot be read, the error matches
//     ErrCorrupt, ErrDenied, ErrRefused or ErrUnavailable. An unreadable record is neither
//     overwritten nor deleted. GetTokens and DeleteTokens process all other records, and
//     return an error that joins an *UnreadableError for each unreadable record. A search
//     returns another record only if no unreadable record could be a better match.
//     SaveToken does not create a second record for the user or token of an unreadable
//     record.
//
// Stores that have a method DeleteIfUnchanged follow one more rule:
//
//   - [TS-43] DeleteIfUnchanged removes the record if each field of the record equals the same
//     field of the token that the caller passes. Otherwise, DeleteIfUnchanged changes nothing,
//     and the error matches ErrConflict. A concurrent save is never lost. If the record does
//     not exist, the error is nil.
//
// Stores that have a method Search follow one more rule:
//
//   - [TS-47] A record matches if its UserName, ClientID, Issuer and Resource equal those of
//     like. A field that is empty in like matches every value. Search yields each matching
//     record once, ordered by ID, and nothing if no record matches. After the records, Search
//     yields an *UnreadableError for each unreadable record that may match. If like has neither
//     UserName nor ClientID, or has a field other than these four, Search yields only an error
//     matching ErrInvalidToken.
//
// # Strong and weak look-ups
//
// A strong look-up reads the record by its name. A weak look-up searches labels or lists
// all records, and may miss a write that returned less than the backend's ListLag ago.
// ListLag is five minutes on AWS, and has no documented bound on GCP.
//
//	look-up by                                             may lag by
//	a derived ID                                  strong   ReadLag
//	UserName and ClientID, both given, with the
//	Issuer and Resource of the record             strong   ReadLag
//	an ID that the caller chose                   weak     ListLag
//	UserName without ClientID                     weak     ListLag
//	AccessToken                                   weak     ListLag
//	GrantToken or RefreshToken, with ClientID     weak     ListLag
//	Search: UserName, or ClientID without it      weak     ListLag
//	nothing: GetTokens, All, DeleteTokens         weak     ListLag
//
// A derived ID is the ID that SaveToken returns for a record that was saved without an ID. A
// look-up by a token also reads the secret whose name is derived from the token. If the record
// was created under that name, the look-up therefore finds the record after at most ReadLag. If
// lists lag, a Search by UserName and ClientID also reads, by its name, the record that has
// exactly the Issuer and Resource of like.
//
// # Refreshing
//
// A store that is a [Refresher] also follows the rules in this section. Such a store asks the
// authorization server only by calling mint, the function that the caller passes to Refresh.
//
//   - [TS-35] If the record has an access token that differs from stale and has not
//     expired, Refresh returns the record and does not call mint.
//   - [TS-36] If several callers, in any goroutines and processes, refresh the same record
//     concurrently, exactly one of them calls mint. The other callers, and later callers,
//     get the result of that call. If mint panics or ends its goroutine, the next caller
//     calls mint.
//   - [TS-37] Refresh merges the token that mint returns into the record as SaveToken does.
//     Fields that are empty in that token, such as RefreshToken, keep their stored values.
//     ID, UserName, ClientID, Issuer and Resource never change, whatever mint returns.
//   - [TS-38] If mint fails, the fields of the record do not change, and Refresh returns the
//     error from mint. If this error is a RefreshError, waiters and later callers also get the
//     error, and do not call mint. Later callers get a permanent RefreshError until the
//     refresh token, the grant token or the client secret changes, or the record is deleted.
//     Later callers get any other RefreshError for at least RetryAfter. They never get a
//     RefreshError that refuses the client.
//   - [TS-39] A record that is deleted while mint runs stays deleted. Refresh then returns
//     the token from mint and an error matching ErrNotPersisted.
//   - [TS-40] A field that another caller saves while mint runs keeps the saved value,
//     except an access token that equals stale or has expired. Even if Refresh keeps the
//     saved access token, it stores a new refresh token from mint. If another caller saves a
//     refresh token while mint runs, the record keeps it, and Refresh stores nothing from
//     mint. Refresh also stores nothing from mint if the ID belongs to another user's record
//     when mint returns.
//   - [TS-41] Refresh changes nothing and fails with ErrNotFound if no record has the ID.
//     Refresh changes nothing and fails with ErrInvalidToken if the ID is empty, mint is nil,
//     or mint returns no access token.
//   - [TS-42] Each waiter stops waiting when its own context is done. Refresh stores the
//     result of mint even if the context of its caller is done.
//
// # Errors, contexts, secrecy
//
//   - [TS-29] Every method returns promptly once its context is done, with an
//     error matching ctx.Err().
//   - [TS-30] Every error is an *Error. Except for errors and refusals that mint returned,
//     every error matches one of the error classes of this package, context.Canceled or
//     context.DeadlineExceeded.
//   - [TS-31] No error, log record, name or label contains a client secret, refresh token,
//     access token or grant token.
//   - [TS-32] Tokens are passed and returned by value: a caller may change its tokens
//     without affecting the store.
//   - [TS-33] All methods may be called concurrently, by several goroutines and processes.
//   - [TS-34] Once ReadLag has passed, every store on a backend finds the records that other
//     stores on that backend saved. The order in which the stores were opened does not matter.
//
// # Names, digests and keys
//
// The name of a record is derived from its user and client or, if it has no user, from its
// first token. The backend prevents a second record for the same user and client, because two
// such records would have the same name. The fields that weak look-ups use are stored beside
// the record, as labels. Names and labels are 160-bit HMAC-SHA-256 digests. Digests are
// necessary because people who may not read secrets can often read names and labels. Set
// Options.NameKey to keep such people from testing guesses of user names.
package tokenstore
