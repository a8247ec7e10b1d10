package initializer

import (
	"context"
	"errors"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/extra"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// Offer stores the given token for the user, client, issuer and resource of c, unless the store
// has a newer token. It returns the stored record. It sends no request to the authorization
// server. c.Token requires a UserName. Its tokens are ignored.
//
// The given token may result from a new consent, or may be an old one, for example from a file.
// If the stored token descends from it, a save would restore an old refresh token, which a
// server may treat as stolen. The stored token is kept if
//
//   - the given token has no access token, which every response has;
//   - the given token has the stored access token;
//   - the given token has the stored refresh token, or an earlier one of the record
//     (TS-08), and no access token that expires later. An access token that expires
//     later is stored without the refresh token;
//   - the stored token has an expiry time, and the given one has none or does not
//     expire later;
//   - the stored token has no expiry time, and the given one has expired, or has no
//     refresh token while the stored one has.
//
// In all other cases the given token is stored with all its fields. Tokens may have no expiry
// time, in a store that keeps no earlier tokens, as in the formats of the SDKs. Do not offer
// such a token again after it was replaced: Offer cannot detect that it is old.
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

// save stores a token. It leaves out members of Extra that do not fit into the record.
func (c *Client) save(ctx context.Context, kept, given tokenstore.Token) (tokenstore.Token, error) {
	fitting, left := extra.Fit(string(kept.Extra), string(given.Extra))
	if left > 0 {
		c.conf.Logger.WarnContext(ctx, leftOut, "id", kept.ID, "members", left)
	}
	given.Extra = tokenstore.Secret(fitting)
	return c.conf.Store.SaveToken(ctx, given)
}

// first stores a token of a user without a record, unless a record without an issuer
// may descend from it.
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

// later reports whether the given token has another access token that expires later.
func later(given, kept tokenstore.Token) bool {
	return given.AccessToken != "" && given.AccessToken != kept.AccessToken && given.ExpiresAt.After(kept.ExpiresAt) &&
		(kept.AccessToken == "" || !kept.ExpiresAt.IsZero())
}

// newer reports whether the given token, whose refresh token is not the record's,
// replaces the stored one.
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
