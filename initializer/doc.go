// Package initializer provides access tokens to programs that call Zoho's CRM, or another API with
// OAuth 2.0. The package replaces the classes Initializer and OAuthToken of Zoho's SDKs: it finds
// the token of a user in a store, obtains a token if the store has none, and refreshes expired
// tokens.
//
//	client, err := initializer.New(ctx, initializer.Config{
//		Environment: initializer.EU.Production(),
//		Token: tokenstore.Token{
//			ClientID:     "1000.…",
//			ClientSecret: "…",
//			GrantToken:   "…", // needed the first time only
//			RedirectURL:  "https://app.example.com/oauth",
//		},
//		Store:    store, // for example of package awssm, k8sstore or filestore
//		FindUser: true,
//	})
//	...
//	res, err := client.HTTPClient(ctx).Get("/crm/v8/Leads?fields=Last_Name")
//
// With Config.OAuth2, the package supports any other OAuth 2.0 server, including servers that
// rotate refresh tokens. Client.TokenSource returns a TokenSource of golang.org/x/oauth2 that
// stores each token that it obtains.
//
// # Cost
//
// While the token in memory is stored and does not expire soon (Config.EarlyExpiry), Client.Token
// neither accesses the store nor allocates memory. New reads the store once, or at most twice if
// Config.Token has a user as well as a one-time code or a refresh token. If New finds no record
// with the issuer, New looks for a record without an issuer, which takes up to four more reads.
//
// Several goroutines and processes might find the same token expired, or start with the same
// one-time code. If the store is a tokenstore.Refresher, exactly one of these goroutines sends a
// request to the authorization server. The package starts no background goroutines, because a
// serverless platform can freeze such goroutines between invocations.
//
// # Flows
//
// Config.Token describes the record. If the record does not exist, Config.Token determines how New
// obtains the tokens. The first row that applies decides:
//
//	Token has                    the record is found by           else
//	ID                           the ID                           ErrReauthRequired
//	ClientID and GrantToken      the code                         the code is exchanged
//	ClientID and RefreshToken    the user, if Token has one,      the token is refreshed
//	                             then the token
//	AccessToken                  the user, if Token has one,      the access token is stored
//	                             else the access token
//	UserName                     the user                         ErrReauthRequired
//
// If no record has the one-time code or refresh token, New stores the credential in a record
// without a user before New uses the credential. New then stores the response of the authorization
// server in the same record. A process that is killed after the response is stored does not lose
// the refresh token. Finally, New takes the user from Token.UserName or looks the user up
// (Config.FindUser). If the user already has a record, New merges the two records.
//
// Programs that concurrently start with the same code send one request in total, and create one
// record. A user who consents again still has one record, which keeps its tokens until the
// authorization server issues new tokens. The record of a refused code remains, because all stores
// of this module keep refusals in records. Other programs that start with the refused code get the
// refusal without sending a request.
//
// If the server permanently refuses the code in Token, New uses the record of the user
// Token.UserName, if that record exists. If the server permanently refuses the tokens of a user's
// record, New uses Token.RefreshToken, if it is set. New stores other fields of Token, such as
// AccessToken and APIDomain, only in a new record. If Token has the ClientID of the record, the
// ClientSecret in Token takes precedence over the stored secret.
//
// # Owners of records
//
// A record belongs to one user and client, at one authorization server, for one resource. With
// Config.OAuth2, every new record has an Issuer, unless Config.Issuer is NoIssuer. The default
// issuer is the URL that IssuerOf returns for the token endpoint. Servers with different issuers
// never share a record. Even if Config.Token has the ID of a record with another Issuer or
// Resource, New refuses the record with an error that matches tokenstore.ErrIDMismatch. Records for
// Config.Environment have no issuer, unless Config.Issuer is set.
//
// A store can contain records for OAuth2 without an issuer. If Config.Issuer is empty and no record
// with the default issuer exists, New uses the record without an issuer. New refuses such a record
// if its API domain is Zoho's. New also refuses the record if Config.Token has a one-time code, or
// a refresh token other than the record's: the code or token might belong to another server. The
// error contains the ID of the record. To use the refused record, set Config.Issuer to NoIssuer.
//
// Client.HTTPClient sends a token with the scheme for its token_type: Bearer or Zoho-oauthtoken.
// Requests with a token of any other type fail with ErrTokenType, unless Config.TokenTypes has a
// scheme for the type. HTTPClient never sends a token that requires a proof of possession, such as
// a DPoP token.
//
// Offer stores a given token if the given token is newer than the stored token. Forget revokes
// the token of a user and deletes the record. Package oauth2keep provides these functions for
// the types of golang.org/x/oauth2.
//
// # Errors
//
// An error matches a class of this package (such as ErrReauthRequired), a class of package
// tokenstore (such as ErrUnavailable), or an error of package context. An error about an invalid
// Config might match none of these classes. Errors contain no secret, and no text from a server
// except error codes and token types.
//
//   - The store is unavailable: a Client uses the token in memory until the token expires. After
//     that, Token fails with tokenstore.ErrUnavailable. Token sends no request to the authorization
//     server, because other processes could not use the response.
//   - The store throttles calls: if the token has expired, Token repeats its reads for the duration
//     of the store's LeaseTTL, because another process might store a new token. After that time,
//     Token fails with an error that matches tokenstore.ErrThrottled and tokenstore.ErrUnavailable.
//     While the token in memory is valid, Token waits at most two seconds for the store or for
//     another process.
//   - The store becomes unavailable during a refresh: Token returns the new token, which can be
//     used, and an error that matches tokenstore.ErrNotPersisted. Later calls of Token try again to
//     store the token, at most once a second.
//   - The authorization server refuses or does not answer: stored tokens do not change. If a
//     response has a new refresh token but no usable access token, the Client uses the new refresh
//     token once. If that request also fails and the record has an access token, the record keeps
//     its access token and gets the new refresh token.
//   - The server refuses permanently (ErrReauthRequired): the store keeps the refusal. No process
//     sends another request until the refresh token, code or client secret changes, or the record
//     is deleted.
//   - The server refuses temporarily, or responds with a failure: the store keeps the refusal for
//     the time in Retry-After. Without Retry-After, that time is one second, and doubles with each
//     consecutive refusal, up to half an hour. Zoho's refusal "Access Denied" is kept for at least
//     ten minutes.
//   - The server refuses the client (ErrClient): the store does not keep the refusal, so that a
//     corrected configuration works immediately. For one second, the Client returns the refusal
//     again without a request. That time doubles with each consecutive refusal, up to a minute.
//   - The caller cancels its context: a request to the authorization server continues for up to
//     five seconds, but not beyond the caller's deadline. The request continues because the
//     response might contain the only copy of a refresh token.
//
// # Token responses
//
// A token response has a success status, and its body is a JSON object or a form with an access
// token. The Content-Type of the response is ignored. Each member is decoded separately, and a
// member of an unexpected type counts as missing. A lifetime that cannot be parsed, or is less than
// a second, counts as unknown. A Zoho token with an unknown lifetime counts as valid for an hour.
// Any other token with an unknown lifetime is used until the API rejects the token. Lifetimes are
// limited to ten years.
//
// The record keeps scope, token_type, id_token and, in Extra, all members that have no field in the
// record. Members that a refresh response lacks keep their values. Members that do not fit into
// Extra (codec.MaxExtra) are left out, but the tokens are stored.
//
// # Destinations of tokens
//
// Tokens are sent to the servers in the configuration, to the Zoho data center of the record, and
// to the hosts of requests through Client.HTTPClient. Tokens are sent only over https, or over http
// on the loopback interface. In an Environment of Zoho, each host must belong to Zoho, be a server
// of the Environment, be listed in Config.Hosts, or be on the loopback interface. Requests to other
// hosts fail with ErrUntrustedURL. A redirect never carries a token to another host. Requests that
// contain other secrets do not follow redirects.
//
// The file docs/zoho-differences.md compares this package with the official SDKs.
package initializer
