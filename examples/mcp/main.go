// Command mcp lists the tools of an MCP server for a user who logs in once in the
// browser. It uses the MCP Go SDK, and stores the tokens that the SDK obtains. The next
// run needs no login, even if the server rotates refresh tokens.
//
// The environment variable ISSUER is the issuer URL of the authorization server. CLIENT_ID and
// CLIENT_SECRET are the credentials of the OAuth client, whose redirect URL must be
// http://127.0.0.1:8085/callback. TOKEN_FILE is the path of the file for the tokens.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"time"

	"github.com/modelcontextprotocol/go-sdk/auth"
	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/modelcontextprotocol/go-sdk/oauthex"
	"golang.org/x/oauth2"

	"github.com/tokenkeep/tokenkeep/oauth2keep"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/filestore"
)

const callback = "127.0.0.1:8085"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "mcp:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	if len(os.Args) != 2 {
		return errors.New("usage: mcp URL")
	}
	// Any other tokenstore.TokenStore works too.
	store, err := filestore.New(os.Getenv("TOKEN_FILE"), nil)
	if err != nil {
		return err
	}
	return app{
		out: os.Stdout, store: store, http: &http.Client{Timeout: 30 * time.Second}, fetch: browse,
		endpoint: os.Args[1], issuer: os.Getenv("ISSUER"),
		client: oauthex.ClientCredentials{
			ClientID:         os.Getenv("CLIENT_ID"),
			ClientSecretAuth: &oauthex.ClientSecretAuth{ClientSecret: os.Getenv("CLIENT_SECRET")},
		},
	}.list(ctx)
}

type app struct {
	out              io.Writer
	store            tokenstore.TokenStore
	http             *http.Client
	fetch            auth.AuthorizationCodeFetcher
	endpoint, issuer string
	client           oauthex.ClientCredentials
}

// list prints the names of the MCP server's tools.
func (a app) list(ctx context.Context) error {
	handler, err := a.handler(ctx)
	if err != nil {
		return err
	}
	client := mcp.NewClient(&mcp.Implementation{Name: "tokenkeep example", Version: "1"}, nil)
	session, err := client.Connect(ctx, &mcp.StreamableClientTransport{Endpoint: a.endpoint, OAuthHandler: handler, DisableStandaloneSSE: true}, nil)
	if err != nil {
		return err
	}
	defer func() { _ = session.Close() }()
	for tool, err := range session.Tools(ctx, nil) {
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintln(a.out, tool.Name); err != nil {
			return err
		}
	}
	return nil
}

// handler returns the handler that gives the SDK its tokens. If no tokens are stored, or the
// server does not accept the stored tokens, the user must log in.
func (a app) handler(ctx context.Context) (auth.OAuthHandler, error) {
	// The user, the authorization server and the MCP server identify the record.
	keep := oauth2keep.New(a.store, oauth2keep.As{User: "me", Issuer: a.issuer, Resource: a.endpoint})
	kept, err := a.kept(ctx, keep)
	if err != nil {
		return nil, err
	}
	return auth.NewAuthorizationCodeHandler(&auth.AuthorizationCodeHandlerConfig{
		PreregisteredClient:      &a.client,
		RedirectURL:              "http://" + callback + "/callback",
		AuthorizationCodeFetcher: a.fetch,
		RequestRefreshToken:      true,
		Client:                   a.http,
		NewTokenSource:           keep.TokenSource, // stores the tokens of a login
		InitialTokenSource:       kept,
	})
}

// kept returns a source of the tokens that an earlier run stored, or nil if the user must log in.
func (a app) kept(ctx context.Context, keep *oauth2keep.Keeper) (oauth2.TokenSource, error) {
	meta, err := auth.GetAuthServerMetadata(ctx, a.issuer, a.http)
	if err != nil || meta == nil {
		return nil, errors.Join(err, errors.New("the metadata of the authorization server cannot be read"))
	}
	conf := &oauth2.Config{
		ClientID: a.client.ClientID, ClientSecret: a.client.ClientSecretAuth.ClientSecret,
		Endpoint: oauth2.Endpoint{TokenURL: meta.TokenEndpoint},
	}
	ts, err := keep.TokenSource(context.WithValue(ctx, oauth2.HTTPClient, a.http), conf, nil)
	if errors.Is(err, oauth2keep.ErrReauthRequired) {
		return nil, nil
	}
	return ts, err
}

// browse prints the URL of the login page, and returns the result of the login. After the
// login, the authorization server redirects the browser to the loopback interface.
func browse(ctx context.Context, args *auth.AuthorizationArgs) (*auth.AuthorizationResult, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", callback)
	if err != nil {
		return nil, err
	}
	answers := make(chan *auth.AuthorizationResult, 1)
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/callback" || r.FormValue("code") == "" {
			http.Error(w, "this is not the answer to the login", http.StatusBadRequest)
			return
		}
		_, _ = io.WriteString(w, "The answer has arrived; the terminal shows whether the login succeeded. You can close this window.\n")
		select {
		case answers <- &auth.AuthorizationResult{Code: r.FormValue("code"), State: r.FormValue("state"), Iss: r.FormValue("iss")}:
		default: // a result was already sent
		}
	})}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		_ = server.Serve(listener)
	}()
	defer func() {
		_ = server.Shutdown(context.WithoutCancel(ctx))
		<-stopped
	}()
	fmt.Fprintf(os.Stderr, "Open this page and log in:\n%s\n", args.URL)
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case answer := <-answers:
		return answer, nil
	}
}
