package agent

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// An operation implements one path. The function do receives the token in the request, and returns
// the body of the response.
type operation struct {
	name      string
	do        func(*Handler, context.Context, tokenstore.Token) ([]byte, error)
	forbidden func(*Config) bool // reports whether a Config disables the operation; nil means never
}

var operations = map[string]operation{
	"/v1/find":       {"find", (*Handler).find, nil},
	"/v1/find_by_id": {"find_by_id", (*Handler).findByID, nil},
	"/v1/save":       {"save", (*Handler).save, func(c *Config) bool { return c.ReadOnly }},
	"/v1/delete":     {"delete", (*Handler).delete, func(c *Config) bool { return c.ReadOnly || c.NoDelete }},
	"/v1/list":       {"list", (*Handler).list, func(c *Config) bool { return c.NoList }},
	"/v1/delete_all": {"delete_all", (*Handler).deleteAll, func(c *Config) bool { return c.ReadOnly || c.NoDelete }},
	"/v1/token":      {"token", (*Handler).token, nil},
	"/v1/rejected":   {"rejected", (*Handler).rejected, nil},
}

// onlyID returns an error unless t has an ID and no other field.
func onlyID(t tokenstore.Token) error {
	if t.ID == "" || t != (tokenstore.Token{ID: t.ID}) {
		return fmt.Errorf("%w: it has an id, and nothing else", errBody)
	}
	return nil
}

func (h *Handler) find(ctx context.Context, like tokenstore.Token) ([]byte, error) {
	t, persisted, err := h.fresh(ctx, like)
	if err == nil {
		err = h.lasts(t)
	}
	if err != nil {
		return nil, err
	}
	return record(t, persisted)
}

func (h *Handler) findByID(ctx context.Context, like tokenstore.Token) ([]byte, error) {
	if err := onlyID(like); err != nil {
		return nil, err
	}
	return h.find(ctx, like)
}

// lasts returns errExpiring if t expires so soon that an SDK would refresh the token itself. With
// PassThrough, lasts returns nil.
func (h *Handler) lasts(t tokenstore.Token) error {
	if !h.conf.PassThrough && !t.ExpiresAt.IsZero() && t.ExpiresAt.Sub(h.now()) < sdkExpiry {
		return errExpiring
	}
	return nil
}

// A freshToken is the response body of /v1/token.
type freshToken struct {
	AccessToken  string `json:"access_token"`
	TokenType    string `json:"token_type,omitempty"` // scheme for the header Authorization
	ExpiryTime   string `json:"expiry_time,omitempty"`
	APIDomain    string `json:"api_domain,omitempty"`
	ID           string `json:"id"`
	UserName     string `json:"user_name,omitempty"`
	ClientID     string `json:"client_id,omitempty"`
	NotPersisted bool   `json:"not_persisted,omitempty"`
}

func (h *Handler) token(ctx context.Context, like tokenstore.Token) ([]byte, error) {
	t, persisted, err := h.fresh(ctx, like)
	if err != nil {
		return nil, err
	}
	scheme := ""
	if h.conf.PassThrough {
		if t.AccessToken == "" || !t.ExpiresAt.IsZero() && !h.now().Before(t.ExpiresAt) {
			return nil, errExpired
		}
	} else if scheme, err = h.scheme(ctx, like); err != nil {
		return nil, err
	}
	f := t.Fields()
	a := freshToken{
		AccessToken: f.AccessToken, APIDomain: f.APIDomain, ID: f.ID, UserName: f.UserName, ClientID: f.ClientID,
		TokenType: scheme, NotPersisted: !persisted,
	}
	if f.ExpiryTime != 0 {
		a.ExpiryTime = fmt.Sprint(f.ExpiryTime)
	}
	return json.Marshal(a) //nolint:gosec // the response is for a caller that may have the token
}

// scheme returns the scheme for the Authorization header, in the spelling of oauth2.Token.Type.
func (h *Handler) scheme(ctx context.Context, like tokenstore.Token) (string, error) {
	e, err := h.entry(ctx, like)
	if err != nil {
		return "", err
	}
	source, err := e.client.TokenSource(ctx).Token()
	if err != nil {
		return "", err
	}
	return source.Type(), nil
}

func (h *Handler) rejected(ctx context.Context, like tokenstore.Token) ([]byte, error) {
	stale := like.AccessToken
	switch {
	case stale == "":
		return nil, fmt.Errorf("%w: it has no access_token", errBody)
	case h.conf.PassThrough:
		return nil, errForbidden
	}
	if other := (tokenstore.Token{AccessToken: stale}); like != other {
		like.AccessToken = ""
	}
	e, err := h.entry(ctx, like)
	if err != nil {
		return nil, err
	}
	t, err := e.client.Rejected(ctx, stale)
	t, persisted, err := h.settle(e, t, err)
	if err != nil {
		return nil, err
	}
	return record(t, persisted)
}

func (h *Handler) save(ctx context.Context, t tokenstore.Token) ([]byte, error) {
	t, err := h.mayWrite(ctx, t)
	if err != nil {
		return nil, err
	}
	saved, err := h.conf.Store.SaveToken(ctx, t)
	h.clients.forget(true, t.ID, saved.ID)
	if err != nil {
		return nil, err
	}
	return record(saved, true)
}

func (h *Handler) delete(ctx context.Context, t tokenstore.Token) ([]byte, error) {
	if err := onlyID(t); err != nil {
		return nil, err
	}
	if h.conf.Clients != nil {
		_, err := h.lookUp(ctx, t)
		if errors.Is(err, tokenstore.ErrNotFound) {
			return nothing, nil
		}
		if err != nil {
			return nil, err
		}
	}
	err := h.conf.Store.DeleteToken(ctx, t.ID)
	h.clients.forget(err != nil, t.ID)
	return nothing, err
}

// unread describes an existing record that cannot be read.
type unread struct {
	Name  string `json:"name"` // the name of the secret
	Class string `json:"class"`
}

// all returns the records that this agent serves, and descriptions of the unreadable records of all
// clients.
func (h *Handler) all(ctx context.Context) ([]tokenstore.Token, []unread, error) {
	tokens, err := h.conf.Store.GetTokens(ctx)
	if err != nil && tokens == nil {
		return nil, nil, err
	}
	unreadable := []unread{}
	for _, u := range unreadables(err) {
		unreadable = append(unreadable, unread{u.Name, classOf(u).name})
	}
	if err != nil && len(unreadable) == 0 {
		return nil, nil, err
	}
	tokens = slices.DeleteFunc(tokens, func(t tokenstore.Token) bool { return !h.serves(t.ClientID) })
	return tokens, unreadable, nil
}

// unreadables returns the UnreadableErrors in the tree of err, an error from GetTokens.
func unreadables(err error) (all []*tokenstore.UnreadableError) {
	if u, ok := err.(*tokenstore.UnreadableError); ok { //nolint:errorlint // walks the tree of errors
		return []*tokenstore.UnreadableError{u}
	}
	switch w := err.(type) { //nolint:errorlint // walks the tree of errors
	case interface{ Unwrap() []error }:
		for _, each := range w.Unwrap() {
			all = append(all, unreadables(each)...)
		}
	case interface{ Unwrap() error }:
		return unreadables(w.Unwrap())
	}
	return all
}

func (h *Handler) list(ctx context.Context, t tokenstore.Token) ([]byte, error) {
	if t != (tokenstore.Token{}) {
		return nil, fmt.Errorf("%w: it has no members", errBody)
	}
	tokens, unreadable, err := h.all(ctx)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	b.WriteString(`{"tokens":[`)
	for i, t := range tokens {
		if i > 0 {
			b.WriteByte(',')
		}
		if err := appendToken(&b, t); err != nil {
			return nil, err
		}
	}
	b.WriteString(`],"unreadable":`)
	text, err := json.Marshal(unreadable)
	b.Write(text)
	b.WriteByte('}')
	return b.Bytes(), err
}

func (h *Handler) deleteAll(ctx context.Context, t tokenstore.Token) ([]byte, error) {
	if t != (tokenstore.Token{}) {
		return nil, fmt.Errorf("%w: it has no members", errBody)
	}
	defer h.clients.forget(true)
	if h.conf.Clients == nil {
		return nothing, h.conf.Store.DeleteTokens(ctx)
	}
	tokens, _, err := h.all(ctx)
	for _, t := range tokens {
		err = cmp.Or(err, h.conf.Store.DeleteToken(ctx, t.ID))
	}
	return nothing, err
}

// serves reports whether the agent serves the records of the OAuth client with the given ID.
func (h *Handler) serves(client string) bool {
	return h.conf.Clients == nil || slices.Contains(h.conf.Clients, client)
}

// mayWrite returns t if the caller may save t. If the agent serves all clients, mayWrite allows
// every save. Otherwise, if t has an ID but no client ID, mayWrite adds the client ID of the record
// with the ID of t. If no served client has such a record, the error matches
// tokenstore.ErrNotFound. If t has neither an ID nor a client ID, or belongs to a client that is
// not served, the error is errForbidden.
func (h *Handler) mayWrite(ctx context.Context, t tokenstore.Token) (tokenstore.Token, error) {
	if h.conf.Clients == nil {
		return t, nil
	}
	if t.ClientID == "" && t.ID != "" {
		have, err := h.lookUp(ctx, tokenstore.Token{ID: t.ID})
		if err != nil {
			return t, err
		}
		t.ClientID = have.ClientID
	}
	if t.ClientID == "" || !h.serves(t.ClientID) {
		return t, errForbidden
	}
	return t, nil
}

// lookUp returns the record in the store that the parameter like describes. If the agent does not
// serve the client of the record, the error matches tokenstore.ErrNotFound.
func (h *Handler) lookUp(ctx context.Context, like tokenstore.Token) (tokenstore.Token, error) {
	t, err := h.conf.Store.FindToken(ctx, like)
	if err == nil && !h.serves(t.ClientID) {
		return tokenstore.Token{}, fmt.Errorf("%w: this agent does not serve the client", tokenstore.ErrNotFound)
	}
	return t, err
}
