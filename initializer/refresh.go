package initializer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

const (
	pause       = time.Second      // pause before another attempt while the token is valid
	grace       = 5 * time.Second  // additional time for a request whose context was canceled
	rejectPause = time.Minute      // minimum time between two replacements of tokens that the API rejects
	saveTime    = 30 * time.Second // maximum time for storing a token that only this process has
	patience    = 2 * time.Second  // maximum wait for other processes while the token is valid
)

// renew returns a session with an access token other than the parameter stale. If the access token
// in stale is still valid and cannot be replaced yet, the session may have that token. The
// parameter rejected reports whether the API rejected that token. One goroutine of a Client renews
// the session for all goroutines. If renew returns both a session and an error, the error matches
// tokenstore.ErrNotPersisted.
func (c *Client) renew(ctx context.Context, stale tokenstore.Secret, rejected bool) (*session, error) {
	if s := c.current.Load(); s != nil && s.replaces(stale, c.conf.Now()) {
		return s, nil
	}
	return c.flights.Do(ctx, "", func() (*session, bool, error) {
		next, err := c.lead(ctx, stale, rejected)
		return next, next == nil && ctx.Err() != nil, err
	}, func(next *session, _ error) bool {
		return next == nil || next.token.AccessToken != stale || !rejected
	})
}

// lead is the part of renew that one goroutine runs for all goroutines.
func (c *Client) lead(ctx context.Context, stale tokenstore.Secret, rejected bool) (*session, error) {
	s := c.current.Load()
	switch {
	case s == nil:
		return nil, c.over()
	case s.replaces(stale, c.conf.Now()):
		return s, nil // renewed by an earlier goroutine
	}
	next, err := c.next(ctx, s, rejected && s.token.AccessToken == stale)
	if next != nil && !c.current.CompareAndSwap(s, next) {
		return nil, c.over() // closed or revoked in the meantime
	}
	return next, err
}

func (s *session) replaces(stale tokenstore.Secret, now time.Time) bool {
	return s.token.AccessToken != stale && s.fresh(now)
}

// next returns the session that replaces s. It first stores an unsaved token, and then refreshes a
// token that is due or rejected.
func (c *Client) next(ctx context.Context, s *session, rejected bool) (*session, error) {
	var unsaved error
	if s.unsaved != nil {
		repaired, err := c.repair(ctx, s)
		if err == nil {
			rejected = rejected && repaired.token.AccessToken == s.token.AccessToken
			s = repaired
		}
		unsaved = err
	}
	now := c.conf.Now()
	if !rejected && s.alive(now) && (s.due.IsZero() || now.Before(s.due)) {
		if unsaved != nil {
			return s.retryAt(now.Add(pause)), unsaved
		}
		return s, nil
	}
	if !rejected {
		next, _, err := c.advance(ctx, s)
		return next, err
	}
	next, _, err := c.refresh(ctx, s, func() {})
	if next != nil {
		next.rejected = now
	}
	return next, err
}

// errBusy is the reason that advance logs if it stops waiting for another process or the store.
var errBusy = errors.New("the wait for the store was ended, because the current token is valid")

// advance is like refresh, but returns s with a later due time if the refresh fails and s is alive.
// If s is alive, advance stops waiting after the duration patience, unless a request to the
// authorization server has already begun.
func (c *Client) advance(ctx context.Context, s *session) (next *session, minted bool, err error) {
	short, cancel := context.WithCancel(ctx)
	defer cancel()
	begun := func() {}
	if s.alive(c.conf.Now()) {
		late := time.AfterFunc(patience, cancel)
		defer late.Stop()
		begun = func() { late.Stop() }
	}
	next, minted, err = c.refresh(short, s, begun)
	if next == nil && short.Err() != nil && ctx.Err() == nil {
		err = errBusy
	}
	now := c.conf.Now()
	if next != nil || ctx.Err() != nil || !s.alive(now) {
		return next, minted, err
	}
	c.conf.Logger.WarnContext(ctx, "initializer: a token that expires soon could not be replaced", "id", s.token.ID, "error", err)
	return s.dueAt(now.Add(pause)), minted, nil
}

func (s *session) dueAt(t time.Time) *session {
	next := *s
	next.due = t
	if t.After(s.token.ExpiresAt) {
		next.due = s.token.ExpiresAt
	}
	return &next
}

func (s *session) retryAt(t time.Time) *session {
	next, u := *s, *s.unsaved
	u.retry = t
	next.unsaved = &u
	return &next
}

// refresh calls the Refresh method of the store to replace the token of s. minted reports whether
// that method chose this Client to ask the authorization server. Before a chosen Client sends a
// request, it calls the function begun. If refresh returns both a session and an error, the error
// matches tokenstore.ErrNotPersisted.
func (c *Client) refresh(ctx context.Context, s *session, begun func()) (next *session, minted bool, err error) {
	if err := c.refused.counts(s.token, c.conf.Now()); err != nil {
		return nil, false, err
	}
	m := &minter{Client: c, unsaved: s, begun: begun}
	defer func() { c.keep(s.token, err) }()
	t, err := c.refresher.Refresh(ctx, s.token.ID, s.token.AccessToken, m.mint)
	if lost(err) {
		// Stores of a foreign format drop the ID of a record that was merged into the user's
		// record.
		if found, again := c.again(ctx, s.token); again == nil && found.ID != s.token.ID {
			t, err = c.refresher.Refresh(ctx, found.ID, s.token.AccessToken, m.mint)
		}
	}
	if err != nil && !errors.Is(err, tokenstore.ErrNotPersisted) {
		return nil, m.minted, err
	}
	if m.failed != nil {
		return nil, true, m.failed
	}
	if other := c.belongs(t); other != nil {
		return nil, m.minted, other
	}
	next = c.newSession(t)
	if err != nil {
		next.unsaved = &unsaved{used: s.token}
		if m.minted { // by this Client, not by another Client of the same store
			next.unsaved.used = m.used
		}
	}
	if now := c.conf.Now(); !next.due.IsZero() && !now.Before(next.due) {
		// The token expires within EarlyExpiry, so every call would otherwise refresh the token.
		next.due = now.Add(t.ExpiresAt.Sub(now) / 2)
	}
	if m.minted {
		c.conf.Logger.InfoContext(ctx, "initializer: a token was refreshed", "id", t.ID, "expires", t.ExpiresAt)
	}
	return next, m.minted, err
}

// keep stores err in c.refused if err is a refusal of the client. Otherwise, keep removes the
// refusal in c.refused.
func (c *Client) keep(used tokenstore.Token, err error) {
	if refused, ok := errors.AsType[*tokenstore.RefreshError](err); ok && !refused.Client {
		err = nil // the store keeps this refusal
	}
	c.refused.keep(err, used, c.conf.Now())
}

// lost reports whether err means that the record does not exist.
func lost(err error) bool {
	return errors.Is(err, tokenstore.ErrNotFound) && !errors.Is(err, tokenstore.ErrNotPersisted)
}

// again finds the record of t by fields other than its ID.
func (c *Client) again(ctx context.Context, t tokenstore.Token) (tokenstore.Token, error) {
	if t.ClientID == "" || t.GrantToken == "" && t.RefreshToken == "" {
		return c.conf.Store.FindToken(ctx, c.of(tokenstore.Token{UserName: t.UserName, ClientID: t.ClientID}))
	}
	return c.conf.Store.FindToken(ctx, c.of(tokenstore.Token{ClientID: t.ClientID, GrantToken: t.GrantToken, RefreshToken: t.RefreshToken}))
}

// A minter asks the authorization server for new tokens during one call of Client.refresh.
type minter struct {
	*Client
	unsaved *session // might have a refresh token that is not stored
	begun   func()
	minted  bool
	used    tokenstore.Token
	failed  error // the error from a refresh that returned only a new refresh token
}

// mint requests an access token for record. It uses the refresh token or, if the record has neither
// a refresh token nor an access token, the one-time code. If mint can use neither of these, it
// returns a permanent *tokenstore.RefreshError without a request.
func (m *minter) mint(ctx context.Context, record tokenstore.Token) (tokenstore.Token, error) {
	if err := m.belongs(record); err != nil {
		return tokenstore.Token{}, err
	}
	m.begun()
	m.minted, m.used = true, record
	t := m.configured(record)
	if s := m.unsaved; s != nil && s.unsaved != nil && record.RefreshToken == s.unsaved.used.RefreshToken {
		t.RefreshToken = cmp.Or(s.token.RefreshToken, t.RefreshToken)
	}
	ask := m.server.refresh
	if t.RefreshToken == "" {
		if t.GrantToken == "" || t.AccessToken != "" {
			return tokenstore.Token{}, &tokenstore.RefreshError{Code: codeNoCredential, Permanent: true}
		}
		ask = m.server.exchange
	}
	ctx, cancel := outlast(ctx)
	defer cancel()
	got, err := ask(ctx, t)
	if err != nil && got.RefreshToken != "" && got.RefreshToken != t.RefreshToken {
		got, err = m.rescue(ctx, t, got.RefreshToken)
	}
	if err != nil {
		return tokenstore.Token{}, err
	}
	if m.conf.OAuth2 == nil {
		got.ClientSecret = t.ClientSecret
	}
	return got, nil
}

// rescue handles a response with a new refresh token but no usable access token. The earlier
// refresh token might be invalid, so rescue sends one request with the new refresh token. If that
// request also fails and the record has an access token, rescue sets m.failed. rescue then returns
// the old access token with the new refresh token, so that the store keeps the new refresh token.
func (m *minter) rescue(ctx context.Context, t tokenstore.Token, refresh tokenstore.Secret) (tokenstore.Token, error) {
	t.RefreshToken = refresh
	got, err := m.server.refresh(ctx, t)
	got.RefreshToken = cmp.Or(got.RefreshToken, refresh)
	if err != nil && m.used.AccessToken != "" {
		m.failed, err = err, nil
		got.AccessToken = m.used.AccessToken
	}
	return got, err
}

// configured returns t with the configured ClientSecret, because the stored secret might be
// outdated. It adds the configured RedirectURL if t has none. If the configuration has no ClientID,
// or t has another ClientID, configured returns t unchanged.
func (c *Client) configured(t tokenstore.Token) tokenstore.Token {
	like := c.conf.Token
	if like.ClientID == "" || like.ClientID != t.ClientID {
		return t
	}
	t.ClientSecret = cmp.Or(like.ClientSecret, t.ClientSecret)
	t.RedirectURL = cmp.Or(t.RedirectURL, like.RedirectURL)
	if c.conf.OAuth2 != nil && c.conf.OAuth2.ClientID == t.ClientID {
		t.ClientSecret = cmp.Or(like.ClientSecret, tokenstore.Secret(c.conf.OAuth2.ClientSecret))
	}
	return t
}

// outlast returns a context for a request whose response might be the only copy of a refresh token.
// After ctx is canceled, the returned context continues for the duration grace, but not beyond the
// deadline of ctx.
func outlast(ctx context.Context) (context.Context, context.CancelFunc) {
	long, cancel := context.WithCancel(context.WithoutCancel(ctx))
	until := func() {}
	deadline, ends := ctx.Deadline()
	if ends {
		long, until = context.WithDeadline(long, deadline)
	}
	late := time.AfterFunc(grace, cancel)
	late.Stop()
	stop := context.AfterFunc(ctx, func() {
		if ends && errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return // long ends at the same deadline, with context.DeadlineExceeded
		}
		late.Reset(grace)
	})
	return long, func() {
		stop()
		late.Stop()
		until()
		cancel()
	}
}

// repair stores the unsaved token of s, unless the store has a newer token or the record was
// deleted. If repair fails, it returns s and an error that matches tokenstore.ErrNotPersisted.
func (c *Client) repair(ctx context.Context, s *session) (*session, error) {
	used := s.unsaved.used
	record, err := c.conf.Store.FindTokenByID(ctx, s.token.ID)
	if lost(err) {
		c.conf.Logger.ErrorContext(ctx, "initializer: a token was not stored because its record was deleted", "id", s.token.ID)
		saved := *s
		saved.unsaved = nil
		return &saved, nil
	}
	if err == nil {
		err = c.belongs(record)
	}
	if err != nil {
		return s, notPersisted(err)
	}
	rotated := s.token.RefreshToken != used.RefreshToken
	replaced := record.RefreshToken != used.RefreshToken
	there := c.newSession(record)
	if record.AccessToken != used.AccessToken && there.alive(c.conf.Now()) && (replaced || !rotated) {
		return there, nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveTime)
	defer cancel()
	saved, err := c.conf.Store.SaveToken(ctx, tokenstore.Token{
		ID: s.token.ID, AccessToken: s.token.AccessToken, ExpiresAt: s.token.ExpiresAt,
		RefreshToken: s.token.RefreshToken, APIDomain: s.token.APIDomain,
		Scope: s.token.Scope, TokenType: s.token.TokenType, IDToken: s.token.IDToken, Extra: s.token.Extra,
	})
	if err != nil {
		return s, notPersisted(err)
	}
	c.conf.Logger.InfoContext(ctx, "initializer: a token was stored that could not be before", "id", saved.ID)
	return c.named(ctx, c.newSession(saved), true), nil
}

// alone adds a Refresh method to a store that is not a Refresher. The method does not prevent two
// Clients from refreshing a record concurrently.
type alone struct {
	tokenstore.TokenStore
	now     func() time.Time
	refused *memory
}

// Refresh implements tokenstore.Refresher.
func (a alone) Refresh(ctx context.Context, id string, stale tokenstore.Secret, mint func(context.Context, tokenstore.Token) (tokenstore.Token, error)) (tokenstore.Token, error) {
	record, err := a.FindTokenByID(ctx, id)
	if err != nil {
		return tokenstore.Token{}, err
	}
	if tokenstore.Fresh(record, stale, a.now()) {
		return record, nil
	}
	if err := a.refused.counts(record, a.now()); err != nil {
		return tokenstore.Token{}, err
	}
	minted, err := mint(ctx, record)
	if refused, ok := errors.AsType[*tokenstore.RefreshError](err); !ok || !refused.Client {
		a.refused.keep(err, record, a.now())
	}
	if err != nil {
		return tokenstore.Token{}, err
	}
	minted.ID = id
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveTime)
	defer cancel()
	saved, err := a.SaveToken(ctx, minted)
	if err != nil {
		return tokenstore.Merge(record, minted), notPersisted(err)
	}
	return saved, nil
}

func notPersisted(err error) error { return fmt.Errorf("%w: %w", tokenstore.ErrNotPersisted, err) }
