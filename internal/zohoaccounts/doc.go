// Package zohoaccounts simulates Zoho's accounts server for tests and the demo.
//
// A [Server] has the token and revocation endpoints, and the few CRM calls with which a client
// looks up the user of a token. It keeps all data in memory. A Server is an http.Handler, and also
// an http.RoundTripper that needs no socket. The RoundTripper works under testing/synctest, and
// answers for the hosts of every data center. [Server.Listen] serves requests on the loopback
// interface.
//
// A Server enforces the documented rules with these limits, unless Options changes the limits:
//
//   - a grant code is valid for one exchange within 3 minutes, by the client for which
//     the code was issued, and with the client's redirect URL (token-validity)
//   - a client is known only in its own data center (multi-dc)
//   - an access token is valid for an hour; 15 access tokens from one refresh token are valid at a
//     time, and the 16th invalidates the oldest (token-validity)
//   - a refresh token issues 10 access tokens in 10 minutes; the 11th request is
//     refused with HTTP status 200 and the error "Access Denied" (token-validity,
//     Kaizen 43)
//   - a user has 20 refresh tokens for a client; the 21st revokes the oldest and its
//     access tokens (token-validity, Kaizen 43)
//   - the response to a refused POST at the token or revocation endpoint has HTTP
//     status 200 and the field "error"
//   - a token of one environment is invalid in another
//
// The names in parentheses are pages of https://www.zoho.com/crm/developer/docs/api/v8/ and
// https://www.zoho.com/accounts/protocol/oauth/. Where two pages differ, for example on 15
// or 10 valid access tokens, the package follows the page of the CRM.
//
// With Options.Strict, a Server behaves like the strictest server that RFC 6749 and RFC 9700
// allow. Refresh tokens rotate. The reuse of a replaced refresh token or of a code revokes all
// tokens of the consent. Refusals have the codes and HTTP statuses of RFC 6749.
//
// Tests inject faults with Inject, and read the requests with Requests and Count.
package zohoaccounts
