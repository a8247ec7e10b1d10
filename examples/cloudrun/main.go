// Command cloudrun is a web service for Google Cloud Run that returns leads from Zoho's CRM.
// The service keeps its OAuth token in Secret Manager.
//
// README.md describes the setup.
package main

import (
	"cmp"
	"context"
	"errors"
	"io"
	"log"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	secretmanager "cloud.google.com/go/secretmanager/apiv1"

	"github.com/tokenkeep/tokenkeep/gcpsm"
	"github.com/tokenkeep/tokenkeep/initializer"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM) // Cloud Run sends SIGTERM to stop an instance
	defer stop()
	gcp, err := secretmanager.NewClient(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = gcp.Close() }()
	logger := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	client, err := open(ctx, os.Getenv, gcp, nil, logger)
	if client == nil { // otherwise, err reports at most that the token is not stored yet
		return err // an instance without a token must not become ready
	}
	s := &http.Server{
		Addr:              ":" + cmp.Or(os.Getenv("PORT"), "8080"),
		Handler:           routes(client, logger),
		ReadHeaderTimeout: 10 * time.Second,
	}
	context.AfterFunc(ctx, func() {
		// Cloud Run kills the process ten seconds after SIGTERM.
		bye, cancel := context.WithTimeout(context.WithoutCancel(ctx), 9*time.Second)
		defer cancel()
		_ = s.Shutdown(bye)
	})
	if err := s.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// open returns a Client with the settings in the environment variables that env returns. If
// httpClient is nil, the Client uses its default HTTP client. If the error matches
// tokenstore.ErrNotPersisted, the Client works and stores the token later.
func open(ctx context.Context, env func(string) string, gcp *secretmanager.Client, httpClient *http.Client, logger *slog.Logger) (*initializer.Client, error) {
	if env("TOKEN_CLIENT") == "" {
		return nil, errors.New("TOKEN_CLIENT is not set")
	}
	store, err := gcpsm.New(gcp, "projects/"+env("PROJECT"), env("TOKEN_PREFIX"), nil)
	if err != nil {
		return nil, err
	}
	return initializer.New(ctx, initializer.Config{
		Environment: initializer.DataCenter(env("ZOHO_DATA_CENTER")).Production(),
		// A look-up by user and client reads the record by its name. A look-up by user
		// alone is a search, and a search may miss a new record for hours.
		Token:      tokenstore.Token{UserName: env("TOKEN_USER"), ClientID: env("TOKEN_CLIENT")},
		Store:      store,
		HTTPClient: httpClient,
		Logger:     logger,
	})
}

// routes returns the handler of the service. All requests use client, and therefore the same
// token.
func routes(client *initializer.Client, logger *slog.Logger) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /leads", func(w http.ResponseWriter, r *http.Request) {
		if err := leads(r.Context(), client, w); err != nil {
			logger.ErrorContext(r.Context(), "leads", "error", err)
			http.Error(w, http.StatusText(statusOf(err)), statusOf(err))
		}
	})
	return mux
}

func leads(ctx context.Context, client *initializer.Client, w http.ResponseWriter) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "/crm/v8/Leads?fields=Last_Name,Company", nil)
	if err != nil {
		return err
	}
	res, err := client.HTTPClient(ctx).Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	w.Header().Set("Content-Type", res.Header.Get("Content-Type"))
	w.WriteHeader(res.StatusCode)
	_, err = io.Copy(w, res.Body)
	if err != nil {
		panic(http.ErrAbortHandler) // the status has been sent, so only an abort shows the failure
	}
	return nil
}

// statusOf returns the HTTP status that tells a caller whether to retry after err.
func statusOf(err error) int {
	switch {
	case errors.Is(err, initializer.ErrThrottled), errors.Is(err, initializer.ErrServer), errors.Is(err, tokenstore.ErrUnavailable):
		return http.StatusServiceUnavailable // a retry may succeed
	case errors.Is(err, context.DeadlineExceeded):
		return http.StatusGatewayTimeout
	}
	return http.StatusBadGateway // a retry is unlikely to help
}
