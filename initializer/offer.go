package initializer

import (
	"context"
	"errors"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/extra"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// Offer stores a given token for the user, client, issuer and resource in c, unless the store has a
// newer token. Offer returns the resulting record, and sends no request to the authorization
// server. c.Token must have a UserName and, with an Environment, a ClientID; otherwise the error
// matches tokenstore.ErrInvalidToken. If c has an issuer but the user's only record has none, the
// error matches tokenstore.ErrIDMismatch. Offer ignores the tokens in c.Token.
//
// The given token might result from a new consent, or be an old copy, for example from a file. An
// authorization server might treat the use of an old refresh token as theft. Offer therefore
// returns the stored token, and stores nothing, if
//
//   - the given token has no access token, and a token is stored;
//   - the given token has the stored access token, and adds no refresh token;
//   - the given refresh token is the stored refresh token or an earlier refresh token of the
//     record (TS-08 in package tokenstore), and the given access token does not expire later. If
//     that access token expires later, Offer stores the given token without the refresh token;
//   - the stored token has an expiry time, and the given token has none or does not expire
//     later;
//   - the stored token has no expiry time, and the given token has expired;
//   - the stored token has a refresh token but no expiry time, and the given token has no refresh
//     token.
//
// In all other cases, Offer stores the given token with all its fields, except members of Extra
// that do not fit into the record. If the store keeps no earlier tokens, Offer cannot detect that a
// token without an expiry time is old. Stores in the formats of the SDKs keep no earlier tokens.
// After another token replaces a token without an expiry time, do not offer the replaced token
// again.
func Offer(ctx context.Context, c Config, given tokenstore.Token) (tokenstore.Token, error) {
	conf, err := c.complete()
	if err != nil {
		return tokenstore.Token{}, err
	}
	o := &Client{conf: &conf}
	t, err := o.offer(ctx, given)
	return t, o.fail("offer", err)
}

func (c *Client) offer(ctx context.Context, given tokenstore.Token) (tokenstore.Token, error) {
	like := c.conf.Token
	if like.UserName == "" || like.ClientID == "" {
		return tokenstore.Token{}, errNoUser
	}
	given.ID, given.UserName, given.ClientID = "", like.UserName, like.ClientID
	given = c.of(given)
	given.ExpiresAt = given.ExpiresAt.UTC().Truncate(time.Millisecond) // the precision of stores
	kept, err := c.byUser(ctx, like)
	switch {
	case errors.Is(err, tokenstore.ErrNotFound):
		return c.first(ctx, given)
	case err != nil:
		return tokenstore.Token{}, err
	}
	known := given.RefreshToken != "" && given.RefreshToken == kept.RefreshToken
	if !known {
		if !c.newer(given, kept) {
			return kept, nil
		}
		if known, err = c.had(ctx, kept, given.RefreshToken); err != nil {
			return tokenstore.Token{}, err
		}
	}
	if known {
		if !later(given, kept) {
			return kept, nil
		}
		given.RefreshToken = ""
	}
	return c.save(ctx, kept, given)
}

// save stores the given token, but leaves out members of Extra that do not fit into the stored
// record kept.
func (c *Client) save(ctx context.Context, kept, given tokenstore.Token) (tokenstore.Token, error) {
	fitting, left := extra.Fit(string(kept.Extra), string(given.Extra))
	if left > 0 {
		c.conf.Logger.WarnContext(ctx, leftOut, "id", kept.ID, "members", left)
	}
	given.Extra = tokenstore.Secret(fitting)
	return c.conf.Store.SaveToken(ctx, given)
}

// first stores the given token in a new record. If the store has a record without an issuer for the
// user or the credential in Config.Token, first returns an error matching tokenstore.ErrIDMismatch
// instead.
func (c *Client) first(ctx context.Context, given tokenstore.Token) (tokenstore.Token, error) {
	switch t, err := c.unissued(ctx); {
	case err == nil:
		return tokenstore.Token{}, c.belongs(t)
	case !errors.Is(err, tokenstore.ErrNotFound):
		return tokenstore.Token{}, err
	}
	return c.save(ctx, tokenstore.Token{}, given)
}

// had reports whether refresh is an earlier refresh token of the record.
func (c *Client) had(ctx context.Context, record tokenstore.Token, refresh tokenstore.Secret) (bool, error) {
	if refresh == "" {
		return false, nil
	}
	t, err := c.conf.Store.FindToken(ctx, c.of(tokenstore.Token{ClientID: record.ClientID, RefreshToken: refresh}))
	if errors.Is(err, tokenstore.ErrNotFound) {
		return false, nil
	}
	return err == nil && t.ID == record.ID, err
}

// later reports whether the given token has an access token that differs from the stored access
// token and expires later. If the stored access token has no expiry time, later returns false.
func later(given, kept tokenstore.Token) bool {
	return given.AccessToken != "" && given.AccessToken != kept.AccessToken && given.ExpiresAt.After(kept.ExpiresAt) &&
		(kept.AccessToken == "" || !kept.ExpiresAt.IsZero())
}

// newer reports whether the given token must replace the stored token. The caller must have handled
// the case that both tokens have the same refresh token.
func (c *Client) newer(given, kept tokenstore.Token) bool {
	switch {
	case given.AccessToken == "":
		return kept.AccessToken == "" && kept.RefreshToken == ""
	case given.AccessToken == kept.AccessToken:
		return given.RefreshToken != "" && kept.RefreshToken == ""
	case kept.AccessToken == "" && kept.RefreshToken == "":
		return true
	case kept.ExpiresAt.IsZero() && given.RefreshToken == "" && kept.RefreshToken != "":
		return false
	case kept.ExpiresAt.IsZero():
		return given.ExpiresAt.IsZero() || c.conf.Now().Before(given.ExpiresAt)
	}
	return given.ExpiresAt.After(kept.ExpiresAt)
}
