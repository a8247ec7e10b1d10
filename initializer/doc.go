// Package initializer is what a program that calls Zoho's CRM begins with, as
// Initializer and OAuthToken are in Zoho's SDKs: it finds the token of a user in a
// store, gets one if there is none, and keeps it fresh.
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
// With Config.OAuth2 the same is done at any other OAuth 2.0 server, also at one
// that gives a new refresh token each time: a golang.org/x/oauth2 TokenSource that
// stores what it gets.
//
// # What it costs
//
// While the token is fresh, nothing: no call of the store, no allocation. The
// start reads the store once, or twice where both a user and a one-time code or
// refresh token are given; an expired token costs one Refresh of the store. Of all
// goroutines and processes that find the same token expired, or start with the
// same one-time code, one asks the authorization server: see tokenstore.Refresher.
// There is no goroutine in the background, so a function that is frozen between
// its invocations loses nothing.
//
// # Flows
//
// Config.Token says which record is meant, and what to do where there is none:
//
//	Token has                    the record is found by           else
//	ID                           the ID                           ErrReauthRequired
//	ClientID and GrantToken      the code                         the code is exchanged
//	ClientID and RefreshToken    the user, if Token has one,      the token is refreshed
//	                             then the token
//	UserName                     the user                         ErrReauthRequired
//	AccessToken                  the access token                 it is stored, as it is
//
// A one-time code, or a refresh token, is stored before it is used, as a record
// that has no user yet. The answer of the authorization server is stored there at
// once. Then the user is found out (Config.FindUser) or taken from
// Token.UserName, and the record moves to the user's, which takes over what is
// new. So whatever process dies, the refresh token of a burnt code is stored; many
// that start with the same code make one request and one record; and a user who
// consents a second time still has one record, whose former tokens are used until
// the new ones have proved good. A code that is refused leaves a record too, in
// stores that keep refusals (all of this module do): whoever starts with the same
// code is then told so without a request.
//
// If the code or refresh token of Token is refused and Token.UserName has a
// record, that one is used; if the tokens of that record are refused and Token has
// another refresh token, that is. What Token has besides (an AccessToken, an
// APIDomain) begins a record, and does not replace what is in one; but a
// ClientSecret of Token replaces the stored one.
//
// # How it fails
//
// The errors match one of the classes of this package (ErrReauthRequired,
// ErrThrottled, ErrClient, ErrWrongDataCenter, ErrRefused, ErrServer,
// ErrUntrustedURL), of package tokenstore (ErrUnavailable and ErrDenied if it is the
// store, ErrNotPersisted), or of package context. None of them holds a secret, or
// text of a server but its error code.
//
//   - The store is down: a token in memory is used until it expires. Then Token
//     fails with tokenstore.ErrUnavailable, and the authorization server is not
//     asked, because nobody could tell the others what it said.
//   - The store goes down while a token is refreshed: the token is returned with
//     tokenstore.ErrNotPersisted. It can be used, and each call of Token tries,
//     once a second at most, to store it.
//   - The authorization server refuses, or does not answer: what is stored stays
//     as it is. If an answer has a new refresh token and no access token that can
//     be used, the refresh token is used once more and stored in any case.
//   - It refuses for good (ErrReauthRequired): the store keeps that, and no process
//     asks again until there is another refresh token, code or client secret.
//   - It refuses or fails for a time: the store keeps that for as long as the server
//     says (Retry-After), or twice as long each time where it says nothing.
//   - It refuses the client (ErrClient): the store keeps nothing, because a correction
//     helps at once. A Client waits a second, then two, and a minute at most.
//   - A request that the caller breaks off has five seconds more, within its
//     deadline: its answer may be the only copy of a refresh token.
//
// # What a token answer is
//
// It has a status of success, and is a JSON object or a form with an access token,
// whatever Content-Type says. Members beside the tokens are read one by one, and
// one of an unexpected type counts as missing. A lifetime that cannot be read, or is
// less than a second, is unknown. A token of Zoho's is good for an hour then, and
// another is used until the API rejects it. No lifetime is longer than ten years.
//
// # Where tokens go
//
// They go to the servers of the configuration, to the API domain of the record, and
// to the hosts of requests of Client.HTTPClient: over https, or on the loopback
// interface. In an Environment of Zoho's own these are Zoho's hosts and those of
// Config.Hosts; all else fails with ErrUntrustedURL. No redirect takes a token to
// another host, or a secret anywhere.
//
// docs/zoho-differences.md compares all this with the official SDKs, call by call.
package initializer
