package agent

import (
	"context"
	"errors"
	"time"

	"github.com/tokenkeep/tokenkeep/initializer"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

const (
	firstPause   = time.Second      // pause between the first refusal of an OAuth client and the next attempt
	longestPause = time.Minute      // maximum pause; the pause doubles after each further refusal
	storePause   = 30 * time.Second // pause before a cached record is read again from a store that was unavailable
)

// fresh returns the record that the parameter like describes, with a valid access token unless
// PassThrough is set. The result persisted reports whether the token is stored.
func (h *Handler) fresh(ctx context.Context, like tokenstore.Token) (t tokenstore.Token, persisted bool, err error) {
	if h.conf.PassThrough {
		t, err = h.lookUp(ctx, like)
		return t, true, err
	}
	e, err := h.entry(ctx, like)
	if err != nil {
		return tokenstore.Token{}, false, err
	}
	t, err = e.client.Token(ctx)
	return h.settle(e, t, err)
}

// settle updates e after an operation on e.client that returned t and err. If err matches
// tokenstore.ErrNotFound, settle drops e. If err matches tokenstore.ErrNotPersisted but t has an
// access token, settle returns t and false, without an error.
func (h *Handler) settle(e *entry, t tokenstore.Token, err error) (tokenstore.Token, bool, error) {
	persisted := e.client.Persisted()
	e.kept.Store(!persisted)
	switch {
	case errors.Is(err, tokenstore.ErrNotPersisted) && t.AccessToken != "":
		return t, false, nil
	case errors.Is(err, tokenstore.ErrNotFound):
		h.clients.drop(e) // the record was deleted
	}
	return t, persisted, err
}

// entry returns the entry for the record that the parameter like describes. If no current entry is
// in memory, entry calls the method open, once for all concurrent callers with the same
// description. If the entry holds an error, entry returns that error, too.
func (h *Handler) entry(ctx context.Context, like tokenstore.Token) (*entry, error) {
	like, err := h.asked(like)
	if err != nil {
		return nil, err
	}
	k := h.clients.keyOf(like)
	if e := h.clients.get(k); e != nil && h.current(e) {
		return e, e.failed
	}
	return h.clients.flights.Do(ctx, string(k[:]), func() (*entry, bool, error) {
		e := h.clients.get(k)
		if e != nil && h.current(e) {
			return e, false, e.failed
		}
		e, err := h.open(ctx, like, k, e)
		return e, err != nil && ctx.Err() != nil, err
	}, func(*entry, error) bool { return true })
}

// current reports whether e can be used without reading the store. An entry whose token could not
// be stored is always current, because the entry holds the only copy of the token.
func (h *Handler) current(e *entry) bool {
	age := h.now().UnixNano() - e.opened.Load()
	if e.failed != nil {
		return age < int64(e.pause)
	}
	return age < int64(h.conf.MaxAge) || e.kept.Load()
}

// begins reports whether the agent can create a record from the parameter like. It returns false
// unless the parameter has a client ID, a one-time code or refresh token, and no ID.
func begins(like tokenstore.Token) bool {
	return like.ID == "" && like.ClientID != "" && (like.GrantToken != "" || like.RefreshToken != "")
}

// asked returns a copy of the parameter like for a look-up. The copy has neither access token nor
// expiry if other fields identify the record. If the agent serves only one client and the copy has
// an ID or a user name but no client ID, asked adds the ID of that client. If the agent does not
// serve the client, the error is errForbidden. If the token is invalid, asked returns the error
// from tokenstore.Validate.
func (h *Handler) asked(like tokenstore.Token) (tokenstore.Token, error) {
	if err := tokenstore.Validate(like); err != nil {
		return like, err
	}
	if like.ID != "" || like.UserName != "" || begins(like) {
		like.AccessToken, like.ExpiresAt = "", time.Time{} // the record may have a newer access token than the caller
	}
	if like.ClientID == "" && (like.ID != "" || like.UserName != "") && len(h.conf.Clients) == 1 {
		like.ClientID = h.conf.Clients[0]
	}
	if like.ClientID != "" && !h.serves(like.ClientID) {
		return like, errForbidden
	}
	return like, nil
}

// client returns a Client for the record that the parameter like describes. client first looks up
// the record if ReadOnly forbids creating a record, or if the agent does not serve like.ClientID.
// client also looks up the record if like.ID and like.UserName are empty and begins(like) is false.
func (h *Handler) client(ctx context.Context, like tokenstore.Token) (*initializer.Client, error) {
	if h.conf.ReadOnly && begins(like) || !h.serves(like.ClientID) || like.ID == "" && like.UserName == "" && !begins(like) {
		t, err := h.lookUp(ctx, like)
		if err != nil {
			return nil, err
		}
		like = tokenstore.Token{ID: t.ID, ClientID: t.ClientID, ClientSecret: like.ClientSecret}
	}
	c := h.conf.Initializer
	c.Token = like
	client, err := initializer.New(ctx, c)
	if client != nil {
		return client, nil // client.Token reports the error
	}
	return nil, err
}

// away reports whether err means that the store cannot be used at the moment.
func away(err error) bool {
	return errors.Is(err, tokenstore.ErrUnavailable) || errors.Is(err, tokenstore.ErrDenied) || errors.Is(err, context.DeadlineExceeded)
}

// open reads or creates the record that the parameter like describes, refreshes the record's token
// if necessary, and adds an entry under the key k. If a current entry for the same record is in
// memory, open instead adds k to that entry. open returns the entry with the key k. The parameter
// old is the previous entry for k, or nil.
func (h *Handler) open(ctx context.Context, like tokenstore.Token, k key, old *entry) (*entry, error) {
	client, err := h.client(ctx, like)
	if err != nil {
		return h.unopened(k, old, err)
	}
	t, err := client.Token(ctx)
	if err != nil && !errors.Is(err, tokenstore.ErrNotPersisted) {
		return nil, err
	}
	keys := []key{k}
	if like.ClientSecret == "" || like.ClientSecret == t.ClientSecret {
		id, err := h.asked(tokenstore.Token{ID: t.ID}) // the key that find_by_id uses
		if err != nil {
			return nil, err
		}
		byID := h.clients.keyOf(id)
		if begins(like) {
			h.clients.forget(true, t.ID) // if the user consented again, entries for the record are outdated
		}
		if same := h.clients.get(byID); same != nil && same.client != nil && h.current(same) && client.Persisted() {
			h.clients.alias(same, k)
			return same, nil
		}
		keys = append(keys, byID)
	}
	e := &entry{id: t.ID, client: client}
	e.opened.Store(h.now().UnixNano())
	e.kept.Store(!client.Persisted())
	return e, h.clients.put(e, keys...)
}

// unopened returns the results for open after the method client failed with err. If old has a
// Client and the store cannot be used, unopened returns old. If the authorization server refused
// the OAuth client, unopened adds an entry with err, and returns the entry and err.
func (h *Handler) unopened(k key, old *entry, err error) (*entry, error) {
	now := h.now()
	switch {
	case old != nil && old.client != nil && away(err):
		// With this value of opened, the entry remains current for storePause.
		old.opened.Store(now.Add(storePause - h.conf.MaxAge).UnixNano())
		return old, nil
	case old != nil:
		h.clients.drop(old)
	}
	if !errors.Is(err, initializer.ErrClient) {
		return nil, err
	}
	// Stores do not record that an OAuth client was refused, so the agent keeps the error in an
	// entry.
	e := &entry{failed: err, pause: firstPause}
	if old != nil && old.failed != nil {
		e.pause = min(2*old.pause, longestPause)
	}
	e.opened.Store(now.UnixNano())
	_ = h.clients.put(e, k) // if put fails, the next request goes to the authorization server
	return e, err
}
