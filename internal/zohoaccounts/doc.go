// Package zohoaccounts is Zoho's accounts server for tests and the demo: the
// token and revocation endpoints, and the few calls of the CRM that a client
// needs to find out whose token it has. It is kept in memory.
//
// A [Server] is an http.Handler, an http.RoundTripper that needs no socket (so
// that it runs under testing/synctest, and answers for the hosts of every data
// centre), and with Listen a small server on the loopback interface.
//
// It enforces the documented rules, with these numbers unless Options says
// otherwise:
//
//   - a grant code is good for one exchange and for 3 minutes, for the client and
//     the redirect URL that it was issued to (token-validity)
//   - a client is known in its own data centre only (multi-dc)
//   - an access token lives an hour; 15 of one refresh token are alive at a time,
//     and the 16th kills the oldest (token-validity)
//   - a refresh token makes 10 access tokens in 10 minutes; the 11th is refused
//     with HTTP status 200 and the error "Access Denied" (token-validity, Kaizen 43)
//   - a user has 20 refresh tokens of a client; the 21st revokes the oldest with
//     its access tokens (token-validity, Kaizen 43)
//   - refusals have HTTP status 200 and the field "error"
//   - a token of one environment is not good for another
//
// The names in brackets are pages of https://www.zoho.com/crm/developer/docs/api/v8/
// and https://www.zoho.com/accounts/protocol/oauth/. Where two pages differ, 15 or
// 10 living access tokens, the one of the CRM is followed.
//
// With Options.Strict it is the strictest server that RFC 6749 and RFC 9700 allow,
// and not Zoho's: refresh tokens rotate, the reuse of one that was replaced revokes
// the whole family, so does the reuse of a code, and refusals have the codes and
// HTTP statuses of the RFC.
//
// Tests break things on purpose with Inject, and look at what was asked for with
// Requests and Count.
package zohoaccounts
