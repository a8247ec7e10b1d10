// Package authservers simulates the authorization servers of providers for tests: the
// authorization, token and revocation endpoints, metadata, and an API that accepts access
// tokens. A [Policy] defines the behavior that RFC 6749 leaves open. [Policies] returns the
// policies that providers document. Package zohoaccounts simulates Zoho's server.
//
// A [Server] keeps everything in memory, and is an http.RoundTripper that needs no
// socket. Tests advance its clock, inject faults, and read the requests that it
// received.
package authservers
