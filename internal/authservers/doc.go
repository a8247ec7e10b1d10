// Package authservers simulates the authorization servers of providers for tests: the
// token endpoint, the revocation endpoint, and an API that accepts access tokens. A
// [Policy] says what a server does where RFC 6749 leaves the choice, and [Policies] has
// those that providers document. Package zohoaccounts is the server of Zoho.
//
// A [Server] keeps everything in memory, and is an http.RoundTripper that needs no
// socket. Tests move its clock, inject faults, and read the requests that it received.
package authservers
