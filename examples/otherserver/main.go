// Command otherserver calls the API of any OAuth 2.0 service for a user who logs in once in
// the browser. It stores the tokens, and each new refresh token if the server rotates refresh
// tokens. Without a store, a program with golang.org/x/oauth2 loses each new refresh token.
//
// README.md describes the setup.
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"golang.org/x/oauth2"

	"github.com/tokenkeep/tokenkeep/initializer"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/filestore"
)

const usage = "usage: otherserver login | get URL"

// user is the user name of the record. A program with many users uses a name for each user.
const user = "me"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "otherserver:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	a, err := newApp(os.Getenv, os.Stdout, &http.Client{Timeout: 30 * time.Second})
	if err != nil {
		return err
	}
	return a.run(ctx, args)
}

// newApp returns an app with the settings in the environment variables that env returns. The
// app prints to out.
func newApp(env func(string) string, out io.Writer, client *http.Client) (*app, error) {
	// Create the directory now, so that a failure is reported before the user logs in.
	path := env("TOKEN_FILE")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	// Any other tokenstore.TokenStore works too.
	store, err := filestore.New(path, nil)
	if err != nil {
		return nil, err
	}
	return &app{
		out:   out,
		store: store,
		http:  client,
		oauth: oauth2.Config{
			ClientID:     env("OAUTH_CLIENT_ID"),
			ClientSecret: env("OAUTH_CLIENT_SECRET"),
			Endpoint:     oauth2.Endpoint{AuthURL: env("OAUTH_AUTH_URL"), TokenURL: env("OAUTH_TOKEN_URL")},
		},
	}, nil
}

func (a *app) run(ctx context.Context, args []string) error {
	switch {
	case len(args) == 1 && args[0] == "login":
		return a.login(ctx)
	case len(args) == 2 && args[0] == "get":
		return a.get(ctx, args[1])
	}
	return errors.New(usage)
}

type app struct {
	out   io.Writer
	store tokenstore.TokenStore
	http  *http.Client
	oauth oauth2.Config
}

func (a *app) config() initializer.Config {
	return initializer.Config{
		OAuth2:     &a.oauth,
		Store:      a.store,
		HTTPClient: a.http,
		Token:      tokenstore.Token{UserName: user, ClientID: a.oauth.ClientID},
	}
}

// login prints the URL of the login page, and waits for the user's consent. The authorization
// server then redirects the browser to a server on the loopback interface (RFC 8252).
func (a *app) login(ctx context.Context) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	a.oauth.RedirectURL = "http://" + listener.Addr().String() + "/callback"
	state, verifier := rand.Text(), oauth2.GenerateVerifier()
	answers := make(chan string, 1)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /callback", func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("state") != state || r.FormValue("code") == "" {
			http.Error(w, "this is not the answer to the login", http.StatusBadRequest)
			return
		}
		_, _ = io.WriteString(w, "The answer has arrived; the terminal shows whether the login succeeded. You can close this window.\n")
		select {
		case answers <- r.FormValue("code"):
		default: // a result was already sent
		}
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		_ = server.Serve(listener)
	}()
	defer func() {
		_ = server.Shutdown(context.WithoutCancel(ctx))
		<-stopped
	}()
	_, _ = fmt.Fprintf(a.out, "Open this page and log in:\n%s\n", a.oauth.AuthCodeURL(state, oauth2.AccessTypeOffline, oauth2.S256ChallengeOption(verifier)))
	select {
	case <-ctx.Done():
		return ctx.Err()
	case code := <-answers:
		return a.begin(ctx, code, verifier)
	}
}

// begin exchanges code for tokens, and stores the tokens. It returns an error if the exchange
// fails, or if the tokens cannot be stored within storeTime.
func (a *app) begin(ctx context.Context, code, verifier string) error {
	conf := a.config()
	conf.Token.GrantToken = tokenstore.Secret(code)
	conf.ExchangeOptions = []oauth2.AuthCodeOption{oauth2.VerifierOption(verifier)}
	client, err := initializer.New(ctx, conf)
	if client == nil {
		return err
	}
	if err := persist(ctx, client); err != nil {
		return fmt.Errorf("log in again: %w", err)
	}
	_, err = fmt.Fprintln(a.out, "You are logged in.")
	return err
}

// storeTime is the maximum time for which the program tries to store tokens before it ends.
const storeTime = 30 * time.Second

// persist calls Token until the tokens of client are stored. After storeTime, persist returns an
// error matching tokenstore.ErrNotPersisted. A store can fail after the server has issued tokens:
// only this process then has the tokens. If the server replaced the refresh token, the user would
// have to log in again after the process ends.
func persist(ctx context.Context, client *initializer.Client) error {
	ctx, cancel := context.WithTimeout(ctx, storeTime)
	defer cancel()
	last := tokenstore.ErrNotPersisted
	for !client.Persisted() {
		select {
		case <-ctx.Done():
			return last
		case <-time.After(time.Second): // Token tries to store the tokens at most once a second
		}
		if _, err := client.Token(ctx); errors.Is(err, tokenstore.ErrNotPersisted) {
			last = err
		}
	}
	return nil
}

// get sends a GET request for url, and prints the body of the response. It returns an error if
// the status is not 200, or if a new token cannot be stored within storeTime.
func (a *app) get(ctx context.Context, url string) error {
	client, err := initializer.New(ctx, a.config())
	if errors.Is(err, initializer.ErrReauthRequired) {
		return fmt.Errorf("run login first: %w", err)
	}
	if client == nil {
		return err
	}
	return errors.Join(a.send(ctx, client, url), persist(ctx, client))
}

func (a *app) send(ctx context.Context, client *initializer.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := client.HTTPClient(ctx).Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	if _, err := io.Copy(a.out, res.Body); err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("status %s", res.Status)
	}
	return nil
}
