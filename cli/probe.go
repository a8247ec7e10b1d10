package cli

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/tokenkeep/tokenkeep/cli/scheme"
	"github.com/tokenkeep/tokenkeep/initializer"
	"github.com/tokenkeep/tokenkeep/internal/bulk"
	"github.com/tokenkeep/tokenkeep/internal/pace"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// A probe is the outcome of a request to an API with the access token of a record.
type probe struct {
	token    tokenstore.Token // the token after the probe
	status   int              // the HTTP status
	replaced bool             // whether the access token was replaced
	err      error
}

// checkProbe returns a usage error unless text is an absolute path or a valid endpoint. A path
// is relative to the API domain of each record.
func checkProbe(text string) error {
	u, err := url.Parse(text)
	if err == nil && u.Host == "" && u.Scheme == "" && len(u.Path) > 0 && u.Path[0] == '/' {
		return nil
	}
	if _, err := scheme.ParseEndpoint(text); err != nil {
		return usagef("--probe must be a path such as /crm/v8/org, or a URL: %w", err)
	}
	return nil
}

// probes sends the API a request with the token of each record, and returns the outcomes in the
// order of tokens. The HTTP client replaces an expired token, or a token that the API refuses.
// Concurrent probes by several processes replace a token once. probes returns an error only if ctx
// is done, or if the store throttles the calls for more than two minutes.
func (a *app) probes(ctx context.Context, s *store, w *watching, tokens []tokenstore.Token) ([]probe, error) {
	const atOnce = 4
	all := make([]probe, len(tokens))
	err := pace.New(bulk.Throttled, atOnce).Each(ctx, len(tokens), func(ctx context.Context, i int) error {
		all[i] = a.probe(ctx, s, w, tokens[i])
		if err := all[i].err; ctx.Err() != nil || bulk.Throttled(err) {
			return err
		}
		return nil
	})
	return all, err
}

func (a *app) probe(ctx context.Context, s *store, w *watching, t tokenstore.Token) probe {
	p := probe{token: t}
	fail := func(err error) probe {
		p.err = fmt.Errorf("%s: %w", clean(t.ID), err)
		return p
	}
	config, err := w.of(a, t)
	if err != nil {
		return fail(err)
	}
	config.Store, config.Token, config.Now = s.TokenStore, tokenstore.Token{ID: t.ID}, a.now
	client, err := initializer.New(ctx, config)
	if client == nil {
		return fail(err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.probe, http.NoBody)
	if err != nil {
		return fail(usagef("--probe is not a URL"))
	}
	res, err := client.HTTPClient(ctx).Do(req)
	if err != nil {
		return fail(err)
	}
	defer func() { _ = res.Body.Close() }()
	_, _ = io.CopyN(io.Discard, res.Body, maxAnswer) // net/http reuses a connection only after the body is read
	p.status = res.StatusCode
	if now, err := client.Token(ctx); err == nil {
		p.token, p.replaced = now, now.AccessToken != t.AccessToken
	}
	return p
}
