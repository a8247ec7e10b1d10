// Package mcpgo stores the tokens of programs that use github.com/mark3labs/mcp-go. A Store
// implements the interface transport.TokenStore of mcp-go:
//
//	client.NewOAuthStreamableHttpClient(url, transport.OAuthConfig{TokenStore: store, …})
//
// Without a Store, mcp-go keeps tokens in memory, and each process refreshes its own tokens.
package mcpgo

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/mark3labs/mcp-go/client/transport"
	"golang.org/x/oauth2"

	"github.com/tokenkeep/tokenkeep/oauth2keep"
)

// A Store is a transport.TokenStore with the tokens of one user. Its methods are safe for
// concurrent use.
type Store struct {
	keep *oauth2keep.Keeper
	conf *oauth2.Config

	mu sync.Mutex
	ts oauth2.TokenSource
}

var _ transport.TokenStore = (*Store)(nil)

// New returns a Store that uses keep to store and refresh tokens. conf must contain the
// client's ID and secret, and the URL of the token endpoint.
func New(keep *oauth2keep.Keeper, conf *oauth2.Config) *Store {
	return &Store{keep: keep, conf: conf}
}

// GetToken returns a valid access token. The returned token has no refresh token, because
// only the Store refreshes the access token. The error matches transport.ErrNoToken if the
// user must log in.
func (s *Store) GetToken(ctx context.Context) (*transport.Token, error) {
	ts, err := s.source(ctx)
	if err != nil {
		return nil, none(err)
	}
	tok, err := ts.Token()
	if err != nil {
		return nil, none(err)
	}
	scope, _ := tok.Extra("scope").(string)
	return &transport.Token{AccessToken: tok.AccessToken, TokenType: tok.Type(), ExpiresAt: tok.Expiry, Scope: scope}, nil
}

// SaveToken stores the token that results from a login.
func (s *Store) SaveToken(ctx context.Context, token *transport.Token) error {
	given := &oauth2.Token{AccessToken: token.AccessToken, TokenType: token.TokenType, RefreshToken: token.RefreshToken, Expiry: token.ExpiresAt}
	if token.Scope != "" {
		given = given.WithExtra(map[string]any{"scope": token.Scope})
	}
	ts, err := s.keep.TokenSource(context.WithoutCancel(ctx), s.conf, given)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ts = ts
	return nil
}

// source returns the TokenSource of s. The TokenSource remains usable after ctx is done.
func (s *Store) source(ctx context.Context) (oauth2.TokenSource, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ts == nil {
		ts, err := s.keep.TokenSource(context.WithoutCancel(ctx), s.conf, nil)
		if err != nil {
			return nil, err
		}
		s.ts = ts
	}
	return s.ts, nil
}

// none returns an error that wraps err and, if the user must log in, transport.ErrNoToken.
func none(err error) error {
	if errors.Is(err, oauth2keep.ErrReauthRequired) {
		return fmt.Errorf("%w: %w", transport.ErrNoToken, err)
	}
	return err
}
