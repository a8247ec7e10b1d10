package cli

import (
	"context"
	"errors"
	"iter"

	"github.com/tokenkeep/tokenkeep/internal/bulk"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// A searcher finds the records of a user or a client without the other records (TS-47 in package
// tokenstore).
type searcher interface {
	Search(ctx context.Context, like tokenstore.Token) iter.Seq2[tokenstore.Token, error]
}

// selected returns at least the records that like selects by its UserName, ClientID, Issuer and
// Resource. unreadable is the error about unreadable records that like may select, and err any
// other error. If the store cannot search, or like has neither a UserName nor a ClientID,
// selected returns all records, sets all, and reports every unreadable record. It also returns
// all records if like is not a valid search, or if the store lacks keys by which records are
// labelled, because GetTokens needs no labels.
func (s *store) selected(ctx context.Context, like tokenstore.Token) (tokens []tokenstore.Token, all bool, unreadable, err error) {
	if c, ok := s.TokenStore.(searcher); ok && like.UserName+like.ClientID != "" {
		tokens, unreadable, err = s.search(ctx, c, like)
		if !errors.Is(err, tokenstore.ErrWrongKeys) && !errors.Is(err, tokenstore.ErrInvalidToken) {
			return tokens, false, unreadable, err
		}
	}
	tokens, unreadable, err = bulk.Readable(s.GetTokens(ctx))
	return tokens, true, unreadable, err
}

// search returns the results of c.Search. Its errors have the form of those of GetTokens.
func (s *store) search(ctx context.Context, c searcher, like tokenstore.Token) (tokens []tokenstore.Token, unreadable, err error) {
	var causes []error
	kind := ""
	for t, err := range c.Search(ctx, like) {
		var e *tokenstore.Error
		if errors.As(err, &e) {
			kind = e.Store
		}
		var u *tokenstore.UnreadableError
		switch {
		case err == nil:
			tokens = append(tokens, t)
		case t.ID == "" || !errors.As(err, &u):
			return nil, nil, listError(kind, err)
		default:
			causes = append(causes, u)
		}
	}
	return tokens, listError(kind, errors.Join(causes...)), nil
}

// listError returns err as an error of GetTokens of the named kind of store, or nil.
func listError(kind string, err error) error {
	var e *tokenstore.Error
	if errors.As(err, &e) {
		err = e.Err
	}
	return tokenstore.NewError("list", kind, "", err)
}
