package initializer

import (
	"cmp"
	"context"
	"errors"

	"github.com/tokenkeep/tokenkeep/internal/handover"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// A source finds or creates the record that a Token describes. The error matches
// tokenstore.ErrNotFound if there is no record.
type source func(context.Context, tokenstore.Token) (tokenstore.Token, error)

// sources returns the sources in the order in which open tries them. open tries the next source if
// a source finds no record, or if the authorization server permanently refuses the tokens of the
// record.
//
// A one-time code without a record is new, and must be exchanged. A refresh token without a record
// might come from an old configuration, so open tries the user's record first.
func (c *Client) sources(like tokenstore.Token) []source {
	var list []source
	add := func(when bool, s source) {
		if when {
			list = append(list, s)
		}
	}
	begins := like.ClientID != "" && (like.GrantToken != "" || like.RefreshToken != "")
	user := like.UserName != ""
	switch {
	case like.ID != "":
		add(true, c.byID)
	case begins:
		add(user && like.GrantToken == "", c.byUser)
		add(true, c.byCredential)
		add(true, c.begin)
		add(user && like.GrantToken != "", c.byUser)
	default:
		add(user, c.byUser)
		add(!user, c.byAccess)
		add(like.AccessToken != "", c.beginWithAccess)
	}
	return list
}

// open returns the first session of a Client. If open returns both a session and an error, the
// error matches tokenstore.ErrNotPersisted.
func (c *Client) open(ctx context.Context) (*session, error) {
	like := c.conf.Token
	var refused error
	tried := map[string]bool{}
	ctx = handover.Context(ctx) // so that c.use does not read the same record again
	for _, from := range c.sources(like) {
		t, err := from(ctx, like)
		if errors.Is(err, tokenstore.ErrNotFound) {
			if refused == nil {
				refused = err
			}
			continue
		}
		if err != nil {
			return nil, err
		}
		if tried[t.ID] {
			continue
		}
		tried[t.ID] = true
		if err := c.belongs(t); err != nil {
			return nil, err
		}
		s, err := c.use(ctx, t)
		if !errors.Is(c.classOf(err), ErrReauthRequired) {
			return s, err
		}
		if refused == nil || errors.Is(refused, tokenstore.ErrNotFound) {
			refused = err
		}
	}
	return nil, c.explain(ctx, refused)
}

// byID finds the record with the ID like.ID, regardless of its issuer and resource.
func (c *Client) byID(ctx context.Context, like tokenstore.Token) (tokenstore.Token, error) {
	if like.UserName == "" && like.ClientID == "" {
		return c.conf.Store.FindTokenByID(ctx, like.ID)
	}
	return c.conf.Store.FindToken(ctx, tokenstore.Token{ID: like.ID, UserName: like.UserName, ClientID: like.ClientID})
}

func (c *Client) byUser(ctx context.Context, like tokenstore.Token) (tokenstore.Token, error) {
	return c.conf.Store.FindToken(ctx, c.of(tokenstore.Token{UserName: like.UserName, ClientID: like.ClientID}))
}

// byCredential finds the record that has or had like.GrantToken or like.RefreshToken.
func (c *Client) byCredential(ctx context.Context, like tokenstore.Token) (tokenstore.Token, error) {
	return c.conf.Store.FindToken(ctx, c.of(tokenstore.Token{
		ClientID: like.ClientID, ClientSecret: like.ClientSecret, RedirectURL: like.RedirectURL,
		GrantToken: like.GrantToken, RefreshToken: like.RefreshToken,
	}))
}

// byAccess finds the record with the access token like.AccessToken, regardless of its issuer and
// resource.
func (c *Client) byAccess(ctx context.Context, like tokenstore.Token) (tokenstore.Token, error) {
	return c.conf.Store.FindToken(ctx, tokenstore.Token{AccessToken: like.AccessToken})
}

// begin creates a record from a one-time code or a refresh token before the request to the
// authorization server. Programs that start with the same credential share this record. The
// response is stored in the same record. The record has no user, so that an existing record of the
// user keeps its tokens until the server issues new tokens.
//
// For a refresh token, begin fails with tokenstore.ErrIDMismatch if the user or the token has
// a record without an issuer. The given refresh token might be an earlier token of that record, and
// some servers revoke all tokens of a user if a program sends an earlier refresh token.
func (c *Client) begin(ctx context.Context, like tokenstore.Token) (tokenstore.Token, error) {
	like.UserName = ""
	if like.GrantToken == "" {
		return c.first(ctx, like)
	}
	return c.conf.Store.SaveToken(ctx, like)
}

// beginWithAccess creates a record from an access token alone. It looks up the user before it
// stores the token. A failure during the look-up loses no token, because the caller has the token.
func (c *Client) beginWithAccess(ctx context.Context, like tokenstore.Token) (tokenstore.Token, error) {
	like.APIDomain = cmp.Or(like.APIDomain, c.conf.Environment.APIURL)
	like.UserName = cmp.Or(like.UserName, c.who(ctx, like))
	return c.conf.Store.SaveToken(ctx, like)
}

// use returns a session of the record t with a valid token. If use returns both a session and an
// error, the error matches tokenstore.ErrNotPersisted.
func (c *Client) use(ctx context.Context, t tokenstore.Token) (*session, error) {
	s := c.newSession(t)
	mine, minted := true, false // mine: this process looks up the user
	var err error
	if now := c.conf.Now(); !s.alive(now) || !s.fresh(now) {
		// Only the process that minted the token looks up the user, so that other processes do
		// not repeat the look-up.
		s, minted, err = c.advance(ctx, s)
		if mine = minted; s == nil {
			return nil, err
		}
	}
	if err == nil && mine {
		s = c.named(ctx, s, minted)
	}
	return s, err
}

// named sets the user of the record of s if the record has no user, and returns the resulting
// session. If the look-up or the write fails, named returns s, and the next call of New tries
// again. minted reports whether this Client has just obtained the tokens.
func (c *Client) named(ctx context.Context, s *session, minted bool) *session {
	if s.token.UserName != "" || s.token.ID == "" {
		return s
	}
	name := cmp.Or(c.conf.Token.UserName, c.who(ctx, s.token))
	if name == "" {
		return s
	}
	// SaveToken merges the record into the user's record, if the user has a record.
	news := tokenstore.Token{ID: s.token.ID, UserName: name}
	if minted && s.token.ExpiresAt.IsZero() {
		// The new token has no expiry time, so the store could keep the older token when it
		// merges the records.
		news.AccessToken, news.RefreshToken = s.token.AccessToken, s.token.RefreshToken
	}
	saved, err := c.conf.Store.SaveToken(ctx, news)
	if err != nil {
		c.conf.Logger.WarnContext(ctx, "initializer: a record has no user yet", "id", s.token.ID, "error", err)
		return s
	}
	next := c.newSession(saved)
	if !next.alive(c.conf.Now()) {
		return s // the user's record has no valid access token; the next refresh reads that record
	}
	return next
}

// who asks the CRM for the user of the token t, and returns the user name. It returns "" if
// FindUser is not set or the look-up fails.
func (c *Client) who(ctx context.Context, t tokenstore.Token) string {
	z, ok := c.server.(*zoho)
	if !ok || !c.conf.FindUser {
		return ""
	}
	_, err := c.schemes.of(t)
	name := ""
	if err == nil {
		name, err = z.who(ctx, t)
	}
	if err != nil {
		c.conf.Logger.WarnContext(ctx, "initializer: the user of a token is not known; are the scopes ZohoCRM.users.READ and ZohoCRM.org.READ granted?", "id", t.ID, "error", err)
		return ""
	}
	return name
}
