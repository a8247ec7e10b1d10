package cli

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/tokenkeep/tokenkeep/internal/bulk"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// A searcher finds the records of a user or a client without listing all records. TS-47 in package
// tokenstore describes Search.
type searcher interface {
	Search(ctx context.Context, like tokenstore.Token) iter.Seq2[tokenstore.Token, error]
}

// find returns the record that the parameter like describes. If there is no such record, but the
// user and client have records with another issuer or resource, the error names the flags for these
// records. If these records have different clients, the error also names the client of each record.
func (s *store) find(ctx context.Context, like tokenstore.Token) (tokenstore.Token, error) {
	t, err := s.FindToken(ctx, like)
	if like.UserName == "" || !errors.Is(err, tokenstore.ErrNotFound) {
		return t, err
	}
	others, _, _, failed := s.selected(ctx, tokenstore.Token{UserName: like.UserName, ClientID: like.ClientID})
	if failed != nil {
		return t, err // the user asked for the record, not for advice
	}
	others = slices.DeleteFunc(others, func(o tokenstore.Token) bool {
		same := o.Issuer == like.Issuer && o.Resource == like.Resource // possible if the search is stale
		return same || o.UserName != like.UserName || like.ClientID != "" && o.ClientID != like.ClientID
	})
	if len(others) == 0 {
		return t, err
	}
	what := "this user and client have another issuer or resource"
	several := slices.ContainsFunc(others, func(o tokenstore.Token) bool { return o.ClientID != others[0].ClientID })
	if several {
		what = "this user have other clients, issuers or resources"
	}
	var flags []string
	for _, o := range others {
		flag := flagsOf(o)
		if several {
			if o.Issuer == "" && o.Resource == "" {
				flag = "without --issuer and --resource"
			}
			flag = clientFlag(o) + " " + flag
		}
		flags = append(flags, flag)
	}
	slices.Sort(flags)
	return t, fmt.Errorf("%w; records of %s: give %s", err, what, strings.Join(slices.Compact(flags), ", or "))
}

// clientFlag returns the flag that names the client of a record. In the error, the result of
// flagsOf follows this flag.
func clientFlag(t tokenstore.Token) string {
	if t.ClientID == "" {
		return "no --client, and"
	}
	return "--client " + clean(t.ClientID)
}

// flagsOf returns the flags that name the issuer and the resource of a record.
func flagsOf(t tokenstore.Token) string {
	switch {
	case t.Issuer != "" && t.Resource != "":
		return "--issuer " + clean(t.Issuer) + " --resource " + clean(t.Resource)
	case t.Issuer != "":
		return "--issuer " + clean(t.Issuer)
	case t.Resource != "":
		return "--resource " + clean(t.Resource) + " without --issuer"
	}
	return "neither --issuer nor --resource"
}

// selected returns at least the records that match the UserName, ClientID, Issuer and Resource of
// the parameter like. The result unreadable is the error about unreadable records that may match,
// and err is any other error. If the store cannot search, or UserName and ClientID are both empty,
// selected returns all records, sets the result all, and reports every unreadable record. selected
// does the same if the search fails with ErrInvalidToken or ErrWrongKeys, because GetTokens uses
// neither a description nor labels.
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

// search returns the results of c.Search. The errors have the form of errors from GetTokens.
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

// listError returns err in the form of an error from GetTokens. The parameter kind is the name of
// the store in the error. If err is nil, listError returns nil.
func listError(kind string, err error) error {
	var e *tokenstore.Error
	if errors.As(err, &e) {
		err = e.Err
	}
	return tokenstore.NewError("list", kind, "", err)
}
