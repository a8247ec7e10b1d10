// Package authservers simulates the authorization servers of providers for tests: the
// authorization, token and revocation endpoints, metadata, and an API that accepts access
// tokens. A [Policy] defines the behavior that RFC 6749 leaves open. [Policies] returns the
// policies that providers document. Package zohoaccounts simulates Zoho's server.
//
// A [Server] keeps all state in memory, and is an http.RoundTripper that needs no socket.
// Tests advance the clock of the Server, inject faults, and read the requests that the Server
// received.
package authservers
