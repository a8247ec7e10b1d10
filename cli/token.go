package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tokenkeep/tokenkeep/initializer"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// bearer reports whether a server accepts a token of the given type with the scheme Bearer. Zoho's
// servers also accept tokens of their own type with this scheme.
func bearer(tokenType string) bool {
	return strings.EqualFold(tokenType, "Bearer") || strings.EqualFold(tokenType, "Zoho-oauthtoken")
}

// A fetch holds the flags of the command token.
type fetch struct {
	asking
	lasts        time.Duration
	rejected     bool
	header, exec bool
}

func (a *app) tokenCommand() *cobra.Command {
	var f fetch
	c := &cobra.Command{
		Use:     "token [ID]",
		GroupID: groupRecords,
		Short:   "Print an access token that has not expired",
		Long: `Prints the access token of the record with an ID, or of a user and client. If the token
is about to expire, one process refreshes it first for all that share the store:

  tokenkeep token --user ann@example.com:6001 --client 1000.ABC --header |
    curl -H @- https://www.zohoapis.com/crm/v8/org

The access token is not an argument of curl, because arguments appear in the process list.

A Zoho record names the data center of its tokens. A record whose issuer is a token endpoint,
such as https://login.example.com/token, names its server. For other records, name the server.
The client of a server at --token-url is that of the record or of --client.

With --json the output is {"access_token", "token_type", "expires_at", "api_domain", "id"}.
--exec-credential writes the ExecCredential of Kubernetes (client.authentication.k8s.io/v1),
for programs that run a command to get a token.

If the API refuses a token that has not expired, --rejected gets another one, at most once a
minute, and without a request if another process has already done so.`,
		Args: mostOneID,
		RunE: func(c *cobra.Command, args []string) error {
			f.id = strings.Join(args, "")
			if err := f.check(a); err != nil {
				return err
			}
			return a.changing().withStore(c.Context(), func(s *store) error { return a.token(c.Context(), s, f) })
		},
	}
	f.flags(c)
	c.Flags().DurationVar(&f.lasts, "lasts", 10*time.Second, "refresh a token that expires within this `time`")
	c.Flags().BoolVar(&f.rejected, "rejected", false, "the API has refused the stored token: get another one")
	c.Flags().BoolVar(&f.header, "header", false, "write the header Authorization")
	c.Flags().BoolVar(&f.exec, "exec-credential", false, "write an ExecCredential of Kubernetes")
	return c
}

func (f *fetch) check(a *app) error {
	if err := f.asking.check("token"); err != nil {
		return err
	}
	switch {
	case howMany(f.header, f.exec, a.json) > 1:
		return usagef("--header, --exec-credential and --json cannot be used together")
	case f.lasts <= 0:
		return usagef("--lasts must be positive")
	}
	return nil
}

func (a *app) token(ctx context.Context, s *store, f fetch) error {
	t, err := f.find(ctx, s)
	if err != nil {
		return withoutToken(err, f.id, maybeToken)
	}
	config, err := f.of(a, t)
	if err != nil {
		return err
	}
	config.Store, config.Token, config.EarlyExpiry, config.Now = s.TokenStore, tokenstore.Token{ID: t.ID}, f.lasts, a.now
	client, err := initializer.New(ctx, config)
	if client == nil {
		return err
	}
	fresh, err := client.Token(ctx)
	if f.rejected && fresh.AccessToken == t.AccessToken {
		fresh, err = client.Rejected(ctx, t.AccessToken)
	}
	if errors.Is(err, tokenstore.ErrNotPersisted) && fresh.AccessToken != "" {
		a.note("%s", textOf(err)) // despite the error, the token is usable
		err = nil
	}
	if err != nil {
		return err
	}
	return a.printToken(ctx, client, fresh, f)
}

func (a *app) printToken(ctx context.Context, client *initializer.Client, t tokenstore.Token, f fetch) error {
	source, err := client.TokenSource(ctx).Token()
	if err != nil {
		return err
	}
	expires := ""
	if !t.ExpiresAt.IsZero() {
		expires = t.ExpiresAt.Format(time.RFC3339)
	}
	switch {
	case f.header:
		a.printf("Authorization: %s %s\n", source.Type(), string(t.AccessToken))
	case f.exec && !bearer(source.Type()):
		return fmt.Errorf("%w: Kubernetes sends an ExecCredential as Bearer, and the token has the type %s", initializer.ErrTokenType, clean(source.Type()))
	case f.exec:
		status := map[string]string{"token": string(t.AccessToken)}
		if expires != "" {
			status["expirationTimestamp"] = expires
		}
		return a.printJSON(map[string]any{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status})
	case a.json:
		return a.printJSON(struct {
			AccessToken string `json:"access_token"`
			TokenType   string `json:"token_type"`
			ExpiresAt   string `json:"expires_at,omitempty"`
			APIDomain   string `json:"api_domain,omitempty"`
			ID          string `json:"id"`
		}{string(t.AccessToken), source.Type(), expires, client.APIDomain(), t.ID})
	default:
		a.printf("%s\n", string(t.AccessToken))
	}
	return nil
}
