// Command cloudrun is a web service for Google Cloud Run that passes leads on from
// Zoho's CRM, with a token that is kept in Secret Manager.
//
// README.md says how to set it up.
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
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM) // Cloud Run ends an instance with it
	defer stop()
	gcp, err := secretmanager.NewClient(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = gcp.Close() }()
	logger := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	client, err := open(ctx, os.Getenv, gcp, nil, logger)
	if client == nil {
		return err // an instance that cannot work does not become ready
	}
	s := &http.Server{
		Addr:              ":" + cmp.Or(os.Getenv("PORT"), "8080"),
		Handler:           routes(client, logger),
		ReadHeaderTimeout: 10 * time.Second,
	}
	context.AfterFunc(ctx, func() {
		// Cloud Run waits ten seconds before it ends the process.
		bye, cancel := context.WithTimeout(context.WithoutCancel(ctx), 9*time.Second)
		defer cancel()
		_ = s.Shutdown(bye)
	})
	if err := s.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// open returns the Client of an instance with the settings in env. The HTTP client
// may be nil.
func open(ctx context.Context, env func(string) string, gcp *secretmanager.Client, httpClient *http.Client, logger *slog.Logger) (*initializer.Client, error) {
	store, err := gcpsm.New(gcp, "projects/"+env("PROJECT"), env("TOKEN_PREFIX"), nil)
	if err != nil {
		return nil, err
	}
	return initializer.New(ctx, initializer.Config{
		Environment: initializer.DataCenter(env("ZOHO_DATA_CENTER")).Production(),
		// By user and client a record is read by its name. A search, which any other
		// look-up is, may not show a new record for hours.
		Token:      tokenstore.Token{UserName: env("TOKEN_USER"), ClientID: env("TOKEN_CLIENT")},
		Store:      store,
		HTTPClient: httpClient,
		Logger:     logger,
	})
}

// routes returns the service. It is safe to share the client: all requests use one
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
		panic(http.ErrAbortHandler) // the status is sent: break the connection
	}
	return nil
}

// statusOf tells the caller what to do about an error.
func statusOf(err error) int {
	switch {
	case errors.Is(err, initializer.ErrThrottled), errors.Is(err, initializer.ErrServer), errors.Is(err, tokenstore.ErrUnavailable):
		return http.StatusServiceUnavailable // try again
	case errors.Is(err, context.DeadlineExceeded):
		return http.StatusGatewayTimeout
	}
	return http.StatusBadGateway // a person has to act
}
