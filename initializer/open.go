package initializer

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// A source is one way to come by the record that is meant. It fails with
// tokenstore.ErrNotFound if it has none.
type source func(context.Context, tokenstore.Token) (tokenstore.Token, error)

// sources returns the ways in the order in which they are tried: the next one is
// if there is no record, or its tokens are refused for good.
//
// A one-time code that no record knows is new, and is there to be exchanged. A
// refresh token that none knows may as well be an old one, from a configuration
// that was written long ago: what the user's record has goes before it.
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

// open returns the first session of a Client.
func (c *Client) open(ctx context.Context) (*session, error) {
	like := c.conf.Token
	var refused error
	tried := map[string]bool{}
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
	return nil, refused
}

// belongs reports whether a record is the user's who is asked for.
func (c *Client) belongs(t tokenstore.Token) error {
	if like := c.conf.Token; like.UserName != "" && t.UserName != "" && like.UserName != t.UserName {
		return fmt.Errorf("%w: the record %q is another user's", tokenstore.ErrIDMismatch, t.ID)
	}
	return nil
}

// byID finds the record with the ID.
func (c *Client) byID(ctx context.Context, like tokenstore.Token) (tokenstore.Token, error) {
	if like.UserName == "" && like.ClientID == "" {
		return c.conf.Store.FindTokenByID(ctx, like.ID)
	}
	return c.conf.Store.FindToken(ctx, tokenstore.Token{ID: like.ID, UserName: like.UserName, ClientID: like.ClientID})
}

// byUser finds the record of the user.
func (c *Client) byUser(ctx context.Context, like tokenstore.Token) (tokenstore.Token, error) {
	return c.conf.Store.FindToken(ctx, tokenstore.Token{UserName: like.UserName, ClientID: like.ClientID})
}

// byCredential finds the record that has, or had, the one-time code or the refresh
// token.
func (c *Client) byCredential(ctx context.Context, like tokenstore.Token) (tokenstore.Token, error) {
	return c.conf.Store.FindToken(ctx, tokenstore.Token{
		ClientID: like.ClientID, ClientSecret: like.ClientSecret, RedirectURL: like.RedirectURL,
		GrantToken: like.GrantToken, RefreshToken: like.RefreshToken,
	})
}

// byAccess finds the record with the access token.
func (c *Client) byAccess(ctx context.Context, like tokenstore.Token) (tokenstore.Token, error) {
	return c.conf.Store.FindToken(ctx, tokenstore.Token{AccessToken: like.AccessToken})
}

// begin makes a record of a one-time code or a refresh token, before anything is
// asked of the authorization server: so that many who start with the same one find
// each other there, and what the server answers has a place to go. The record has
// no user. If the user has one already, its tokens stay as they are until these
// have proved good.
func (c *Client) begin(ctx context.Context, like tokenstore.Token) (tokenstore.Token, error) {
	like.UserName = ""
	return c.conf.Store.SaveToken(ctx, like)
}

// beginWithAccess makes a record of an access token alone. There is nothing to be
// won from the authorization server that could be lost, and so the user comes
// first.
func (c *Client) beginWithAccess(ctx context.Context, like tokenstore.Token) (tokenstore.Token, error) {
	like.APIDomain = cmp.Or(like.APIDomain, c.conf.Environment.APIURL)
	like.UserName = cmp.Or(like.UserName, c.who(ctx, like))
	return c.conf.Store.SaveToken(ctx, like)
}

// use returns the session of a record. The error matches
// tokenstore.ErrNotPersisted if it is not nil and there is a session.
func (c *Client) use(ctx context.Context, t tokenstore.Token) (*session, error) {
	s := c.newSession(t)
	mine := true // it is for this process to find out the user
	var err error
	if now := c.conf.Now(); !s.alive(now) || !s.fresh(now) {
		// Whoever has made the token that this process adopts does it.
		if s, mine, err = c.advance(ctx, s); s == nil {
			return nil, err
		}
	}
	if err == nil && mine {
		s = c.named(ctx, s)
	}
	return s, err
}

// named gives the record of s its user, if it has none and it can be found out.
// If that fails the next start tries again.
func (c *Client) named(ctx context.Context, s *session) *session {
	if s.token.UserName != "" || s.token.ID == "" {
		return s
	}
	name := cmp.Or(c.conf.Token.UserName, c.who(ctx, s.token))
	if name == "" {
		return s
	}
	// The record moves to the user's, and becomes one with it if there is one.
	saved, err := c.conf.Store.SaveToken(ctx, tokenstore.Token{ID: s.token.ID, UserName: name})
	if err != nil {
		c.conf.Logger.WarnContext(ctx, "initializer: a record has no user yet", "id", s.token.ID, "error", err)
		return s
	}
	next := c.newSession(saved)
	if !next.alive(c.conf.Now()) {
		return s // the user's record has later news, which the next refresh brings
	}
	return next
}

// who asks the CRM whose token it is. It returns "" if it is not to, or does not
// find out.
func (c *Client) who(ctx context.Context, t tokenstore.Token) string {
	z, ok := c.server.(*zoho)
	if !ok || !c.conf.FindUser {
		return ""
	}
	name, err := z.who(ctx, t)
	if err != nil {
		c.conf.Logger.WarnContext(ctx, "initializer: the user of a token is not known; are the scopes ZohoCRM.users.READ and ZohoCRM.org.READ granted?", "id", t.ID, "error", err)
		return ""
	}
	return name
}
