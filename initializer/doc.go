// Package initializer is the starting point of a program that calls Zoho's CRM, like Initializer
// and OAuthToken in Zoho's SDKs. It finds the token of a user in a store, obtains one if the
// store has none, and keeps the token fresh.
//
//	client, err := initializer.New(ctx, initializer.Config{
//		Environment: initializer.EU.Production(),
//		Token: tokenstore.Token{
//			ClientID:     "1000.…",
//			ClientSecret: "…",
//			GrantToken:   "…", // needed the first time only
//			RedirectURL:  "https://app.example.com/oauth",
//		},
//		Store:    store, // awssm, gcpsm, vaultstore, filestore, sqlstore, memstore
//		FindUser: true,
//	})
//	...
//	res, err := client.HTTPClient(ctx).Get("/crm/v8/Leads?fields=Last_Name")
//
// With Config.OAuth2, the package supports any other OAuth 2.0 server, including servers that
// rotate refresh tokens. It provides a golang.org/x/oauth2 TokenSource that stores the tokens
// that it obtains.
//
// # What it costs
//
// While the token is fresh, a call costs nothing: no store access and no allocation. New reads
// the store once, or twice if Token has both a user and a one-time code or refresh token. If
// there is no record, it reads once more. An expired token costs one Refresh of the store.
// Several goroutines and processes may find the same token expired, or start with the same
// one-time code. Exactly one of them then sends a request to the authorization server: see
// tokenstore.Refresher. There are no background goroutines, which a platform could freeze
// between invocations of a function.
//
// # Flows
//
// Config.Token describes the record, and how New obtains the tokens if the record does not
// exist:
//
//	Token has                    the record is found by           else
//	ID                           the ID                           ErrReauthRequired
//	ClientID and GrantToken      the code                         the code is exchanged
//	ClientID and RefreshToken    the user, if Token has one,      the token is refreshed
//	                             then the token
//	UserName                     the user                         ErrReauthRequired
//	AccessToken                  the access token                 it is stored, as it is
//
// A one-time code or refresh token is stored before it is used, in a record without a user. The
// response of the authorization server is stored there immediately. Then the user is looked up
// (Config.FindUser) or taken from Token.UserName, and the record is merged into the user's
// record. So a process that is killed after that write does not lose the refresh token. Many
// programs that start with the same code send one request and make one record. A user who
// consents a second time still has one record, whose earlier tokens are used until the new ones
// have proved valid. A refused code also leaves a record, because all stores of this module keep
// refusals: other programs that start with the same code get the refusal without a request.
//
// If the code or refresh token of Token is refused and Token.UserName has a record, that record
// is used. If the tokens of that record are refused and Token has another refresh token, that
// token is used. Other fields of Token, such as AccessToken or APIDomain, are used for a new
// record, but do not replace the fields of an existing record. However, a ClientSecret in Token
// replaces the stored secret.
//
// # Whose tokens they are
//
// A record belongs to one user and client, at one authorization server, for one resource. With
// Config.OAuth2 every record has an Issuer: Config.Issuer, or otherwise the URL of the token
// endpoint. Two servers with the same client ID never share a record. A record with another
// Issuer or Resource is refused with tokenstore.ErrIDMismatch, whichever field found it.
// Records in an Environment of Zoho have no issuer, unless Config.Issuer is set.
//
// A store may have records for OAuth2 that were written without an issuer. If Config.Issuer is
// empty and there is no record with an issuer, New uses such a record unchanged. New refuses the
// record if Config.Token has another credential, which may belong to another server, or if the
// record is Zoho's. The error then names the record. With Config.Issuer set to NoIssuer, the
// program can use it.
//
// Client.HTTPClient sends a token with the scheme for its token_type: Bearer, or
// Zoho-oauthtoken. It does not send a token of any other type (ErrTokenType), unless
// Config.TokenTypes has a scheme for it. It never sends a token that requires a proof
// of possession, such as DPoP.
//
// Offer stores a token of the program if it is newer than the stored token. Forget revokes the
// tokens of a user and deletes the record. Package oauth2keep provides the same functions with
// the types of golang.org/x/oauth2.
//
// # Errors
//
// Errors match a class of this package, such as ErrReauthRequired, of package tokenstore, such
// as ErrUnavailable, or of package context. An error about an invalid Config may have no class.
// Errors contain no secret, and no text from a server except its error code.
//
//   - The store is unavailable: a token in memory is used until it expires. Then Token fails
//     with tokenstore.ErrUnavailable. It sends no request to the authorization server, because
//     it could not share the result with other processes.
//   - The store throttles: Token waits for an expired token for the LeaseTTL of the store,
//     because another process may be about to store a new one. Then it fails with
//     tokenstore.ErrThrottled, which is also a tokenstore.ErrUnavailable. While the token in
//     memory is valid, Token waits at most two seconds for the store or for another process.
//   - The store becomes unavailable during a refresh: Token returns the new token with
//     tokenstore.ErrNotPersisted. The token can be used. Later calls of Token try again to store
//     it, at most once a second.
//   - The authorization server refuses or does not answer: stored tokens do not change.
//     If a response has a new refresh token but no usable access token, the refresh
//     token is used once more, and is stored in any case.
//   - The server refuses permanently (ErrReauthRequired): the store keeps the refusal, and no
//     process sends another request until the record has another refresh token, code or client
//     secret.
//   - The server refuses or fails temporarily: the store keeps the refusal for as long as
//     Retry-After says. Without Retry-After, the time doubles with each refusal.
//   - The server refuses the client (ErrClient): the store does not keep the refusal, because a
//     corrected configuration works immediately. A Client backs off for a second, then two, and
//     up to a minute.
//   - The caller cancels a request: the request may continue for five seconds, within
//     the caller's deadline, because its response may be the only copy of a refresh
//     token.
//
// # Token responses
//
// A token response has a success status, and is a JSON object or a form with an access token,
// whatever its Content-Type. Other members are decoded separately. A member of an unexpected
// type counts as missing. A lifetime that cannot be parsed, or is less than a second, is
// unknown. A Zoho token is then valid for an hour; any other token is used until the API rejects
// it. Lifetimes are limited to ten years.
//
// The record keeps scope, token_type, id_token and, in Extra, all other members. Members that a
// refresh response lacks keep their values. Members that do not fit (codec.MaxExtra) are left
// out, but the tokens are stored.
//
// # Where tokens go
//
// Tokens are sent to the servers in the configuration, to the API domain of the record, and to
// the hosts of requests through Client.HTTPClient. They are sent only over https, or over http
// on the loopback interface. In an Environment of Zoho, these must be Zoho's hosts or those in
// Config.Hosts. Requests to other hosts fail with ErrUntrustedURL. A redirect never carries a
// token to another host, and never carries any other secret at all.
//
// docs/zoho-differences.md compares this package with the official SDKs, call by call.
package initializer
