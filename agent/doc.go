// Package agent serves a store of OAuth tokens over HTTP to programs in any language. The main
// clients of an agent are programs that use an official Zoho SDK: the TokenStore interface of each
// SDK takes a few lines to implement over HTTP.
//
//	h, err := agent.New(agent.Config{
//		Store:       store,
//		Initializer: initializer.Config{Environment: initializer.EU.Production()},
//		Token:       token, // value of the header X-Tokenkeep-Token
//	})
//	...
//	l, err := agent.Listen(ctx, "127.0.0.1:2780", nil)
//	...
//	err = agent.Serve(ctx, l, h, nil) // until ctx is done
//
// The command "tokenkeep serve" runs an agent on any kind of store.
//
// # Operations
//
// Each operation is a POST with a JSON object, and returns a JSON object. The file openapi.json
// describes the operations in full; GET /v1/openapi.json returns the file.
//
//	/v1/find        the record that a token describes, with a fresh access token
//	/v1/find_by_id  the record with an ID, with a fresh access token
//	/v1/save        stores a token
//	/v1/delete      removes the record with an ID
//	/v1/list        all records
//	/v1/delete_all  removes all records
//	/v1/token       a fresh access token, without the refresh token and the secrets
//	/v1/rejected    another access token in place of one that the API refused
//
// GET /healthz reports that the process serves requests. GET /readyz reports whether a look-up in
// the store succeeded at most five seconds ago.
//
// # Fresh tokens
//
// An SDK asks its store for the token before each API call, and refreshes the token itself if the
// token expires within five seconds. Unless Config.PassThrough is set, /v1/find and /v1/find_by_id
// never return such a token. If a program requests a token that has expired or expires within 20
// seconds, the agent first refreshes the token. Config.Initializer.EarlyExpiry overrides the 20
// seconds. One process refreshes the token for all processes that share the store (see
// tokenstore.Refresher). If a refresh fails, the agent returns the current token until the token
// expires. In the last six seconds before the expiry, /v1/find and /v1/find_by_id return an error
// instead.
//
// Unless Config.PassThrough is set, the agent caches records in memory. The agent reads a record
// from the store again after Config.MaxAge, or after the record was saved or deleted through this
// agent. While the store is unavailable, the agent uses a token in memory until the token expires.
//
// # Who may connect
//
// A Unix socket has mode 0600. On Linux, the connecting process must also run as the agent's user
// or as root. A TCP socket listens on the loopback interface. On Unix systems, the packets of a TCP
// connection have a TTL of 1. If Config.Token is set, every operation requires the header
// X-Tokenkeep-Token. Without Config.Token, Serve accepts only Unix sockets. The GET pages do not
// require the header, because they reveal nothing about records. The agent refuses requests that
// were forwarded, come from a web page, or name another host. These checks protect tokens from a
// server that is tricked into forwarding a request, and from a web page whose host name resolves to
// this machine.
//
// A program that passes these checks can request every record. Config.Clients, ReadOnly, NoList and
// NoDelete restrict the records and operations.
//
// # Errors
//
// The response to a failed request is {"error": text, "class": name}. If an authorization server
// refused a request, the response also has "code", the error code from that server. The file
// openapi.json lists the classes. If the caller should wait before another request, the response
// has "retry_after" in seconds and the header Retry-After. Only the response of a successful
// operation contains a token. Errors and log records contain no token.
package agent
