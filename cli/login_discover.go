package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/tokenkeep/tokenkeep/cli/scheme"
	"github.com/tokenkeep/tokenkeep/initializer"
)

// metadata holds those members of an authorization server's metadata (RFC 8414) that login uses.
type metadata struct {
	Issuer        string    `json:"issuer"`
	Authorization string    `json:"authorization_endpoint"`
	Token         string    `json:"token_endpoint"`
	Challenges    *[]string `json:"code_challenge_methods_supported"`
	SendsIssuer   bool      `json:"authorization_response_iss_parameter_supported"`
}

// knowsPKCE reports whether to use PKCE with the server. It returns true for a server that
// states no PKCE methods, because servers ignore unknown parameters (RFC 6749, 3.1).
func (m metadata) knowsPKCE() bool {
	return m.Challenges == nil || slices.Contains(*m.Challenges, "S256")
}

// wellKnown returns the possible URLs of an issuer's metadata in the order in which to try them:
// RFC 8414, 3.1 and 5, and OpenID Connect Discovery, 4.
func wellKnown(issuer string) ([]string, error) {
	u, err := url.Parse(issuer)
	if err != nil {
		return nil, err
	}
	base, path := u.Scheme+"://"+u.Host, strings.TrimSuffix(u.EscapedPath(), "/")
	all := []string{
		base + "/.well-known/oauth-authorization-server" + path,
		base + "/.well-known/openid-configuration" + path,
		base + path + "/.well-known/openid-configuration",
	}
	return slices.Compact(all), nil
}

// maxMetadata is the maximum size of metadata in bytes.
const maxMetadata = 1 << 20

// discover returns the metadata of an issuer from the first URL of wellKnown that has metadata.
// If no URL has metadata, or the metadata cannot be used for the issuer, the error matches
// initializer.ErrRefused. If a request fails, or a response is not a JSON object, the error matches
// initializer.ErrServer.
func (a *app) discover(ctx context.Context, issuer string) (metadata, error) {
	places, err := wellKnown(issuer)
	if err != nil {
		return metadata{}, err
	}
	client := &http.Client{Timeout: 30 * time.Second}
	if a.http != nil {
		*client = *a.http
	}
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	for _, place := range places {
		m, err := fetchMetadata(ctx, client, place)
		if errors.Is(err, errNoMetadata) {
			continue
		}
		if err == nil {
			err = m.check(issuer)
		}
		return m, err
	}
	return metadata{}, fmt.Errorf("%w: the issuer has no metadata: give --auth-url and --token-url", initializer.ErrRefused)
}

// errNoMetadata means that the server has no metadata at the requested URL.
var errNoMetadata = errors.New("no metadata")

func fetchMetadata(ctx context.Context, client *http.Client, place string) (m metadata, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, place, http.NoBody)
	if err != nil {
		return m, err
	}
	req.Header.Set("Accept", "application/json")
	res, err := client.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return m, ctx.Err()
		}
		return m, fmt.Errorf("%w: ask for the metadata of the issuer: %w", initializer.ErrServer, err)
	}
	defer func() { _ = res.Body.Close() }()
	switch {
	case res.StatusCode >= http.StatusInternalServerError || res.StatusCode == http.StatusTooManyRequests:
		return m, fmt.Errorf("%w: the metadata of the issuer: HTTP status %d", initializer.ErrServer, res.StatusCode)
	case res.StatusCode != http.StatusOK:
		return m, errNoMetadata
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, maxMetadata)).Decode(&m); err != nil {
		return m, fmt.Errorf("%w: the metadata of the issuer is not a JSON object", initializer.ErrServer)
	}
	return m, nil
}

// check returns an error matching initializer.ErrRefused unless the metadata belongs to the issuer
// and has usable endpoints.
func (m metadata) check(issuer string) error {
	if m.Issuer != issuer {
		return fmt.Errorf("%w: the metadata is of the issuer %s: --issuer must be the same, letter for letter", initializer.ErrRefused, cmp.Or(clean(m.Issuer), "of no name"))
	}
	for name, text := range map[string]string{"authorization": m.Authorization, "token": m.Token} {
		if _, err := scheme.ParseEndpoint(text); err != nil || !strings.Contains(text, "://") {
			return fmt.Errorf("%w: the metadata has no %s endpoint that can be used", initializer.ErrRefused, name)
		}
	}
	return nil
}
