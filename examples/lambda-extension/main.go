// Command lambda-extension is an AWS Lambda extension that serves tokens to a function in
// any language. It runs the server of package agent on a store in AWS Secrets Manager. The
// server starts at the first invocation, so that no snapshot of the function contains a token.
//
// Outside Lambda, the command serves until it receives an interrupt or SIGTERM.
//
// README.md describes the setup.
package main

import (
	"cmp"
	"context"
	"errors"
	"log"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/tokenkeep/tokenkeep/agent"
	"github.com/tokenkeep/tokenkeep/awssm"
	"github.com/tokenkeep/tokenkeep/initializer"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

func main() {
	debug.SetGCPercent(50) // collect garbage more often, because Lambda bills memory
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := serveFor(ctx, os.Getenv)
	stop()
	if err != nil {
		log.Fatal(err)
	}
}

// serveFor runs the extension if Lambda has set AWS_LAMBDA_RUNTIME_API. Otherwise serveFor
// serves until ctx is done.
func serveFor(ctx context.Context, env func(string) string) error {
	api := env("AWS_LAMBDA_RUNTIME_API")
	if api == "" {
		return serve(ctx, env, time.Minute)
	}
	e := &extension{
		base: "http://" + api + "/2020-01-01/extension",
		name: filepath.Base(os.Args[0]), // Lambda requires the name of the file
		http: &http.Client{},            // no timeout, because the next event may be hours away
	}
	return e.run(ctx, func(ctx context.Context) error { return serve(ctx, env, shutdownTime) })
}

// serve serves the store that the environment variables describe until ctx is done. Requests in
// progress then have the duration grace to complete.
func serve(ctx context.Context, env func(string) string, grace time.Duration) error {
	if env("TOKENKEEP_KEYS_FILE") != "" {
		return errors.New("TOKENKEEP_KEYS_FILE is set, and this extension opens stores without keys: package keys would make it larger than 12 MB")
	}
	token := tokenstore.Secret(env("TOKENKEEP_AGENT_TOKEN"))
	if token == "" {
		var err error
		if token, err = agent.TokenFile(cmp.Or(env("TOKENKEEP_AGENT_TOKEN_FILE"), "/tmp/tokenkeep-token")); err != nil {
			return err
		}
	}
	aws, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return err
	}
	store, err := awssm.New(secretsmanager.NewFromConfig(aws), env("TOKEN_PREFIX"), nil)
	if err != nil {
		return err
	}
	client := env("TOKENKEEP_ONLY_CLIENT") // with one client, a request by user alone needs no search
	if client == "" {
		return errors.New("TOKENKEEP_ONLY_CLIENT is not set: it is the ID of the OAuth client")
	}
	zoho := initializer.DataCenter(env("ZOHO_DATA_CENTER")).Production()
	if url := env("ZOHO_ACCOUNTS_URL"); url != "" {
		zoho = initializer.Environment{AccountsURL: url, APIURL: url}
	}
	h, err := agent.New(agent.Config{
		Store:       store,
		Initializer: initializer.Config{Environment: zoho},
		Token:       token,
		Clients:     []string{client},
		NoDelete:    true, // the function deletes no records
		Logger:      slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	if err != nil {
		return err
	}
	l, err := agent.Listen(ctx, cmp.Or(env("TOKENKEEP_AGENT_LISTEN"), "127.0.0.1:2780"), nil)
	if err != nil {
		return err
	}
	return agent.Serve(ctx, l, h, &agent.ServeOptions{Grace: grace})
}
