package conformance

import (
	"context"
	"errors"
	"iter"
	"slices"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// A finder is a plain store whose Search calls the function find.
type finder struct {
	*plain
	find func(p *plain, ctx context.Context, like token) iter.Seq2[token, error]
}

func (f finder) Search(ctx context.Context, like token) iter.Seq2[token, error] {
	return f.find(f.plain, ctx, like)
}

func finding(find func(p *plain, ctx context.Context, like token) iter.Seq2[token, error]) Store {
	return shop(func(p *plain) tokenstore.TokenStore { return finder{p, find} })
}

// asking returns a backend of stores whose Search calls the function change before the search. The
// argument of change is the token to search for.
func asking(change func(like *token)) Store {
	return finding(func(p *plain, ctx context.Context, like token) iter.Seq2[token, error] {
		change(&like)
		return p.Search(ctx, like)
	})
}

// yielding returns a backend of stores whose Search calls the function change with each result,
// and then yields the result as many times as change returns.
func yielding(change func(p *plain, like token, t *token, err *error) int) Store {
	return finding(func(p *plain, ctx context.Context, like token) iter.Seq2[token, error] {
		return func(yield func(token, error) bool) {
			for t, err := range p.Search(ctx, like) {
				for range change(p, like, &t, &err) {
					if !yield(t, err) {
						return
					}
				}
			}
		}
	})
}

// searchMutants are stores whose Search is incorrect.
var searchMutants = []mutant[Store]{
	{"ignores the issuer", "an index by user", "TS-47", asking(func(like *token) { like.Issuer = "" })},
	{"ignores the resource", "", "TS-47", asking(func(like *token) { like.Resource = "" })},
	{"searches by the user alone", "an index by user", "TS-47", asking(func(like *token) {
		if like.UserName != "" {
			like.ClientID = ""
		}
	})},
	{"ignores the fields that it cannot search by", "", "TS-47", asking(func(like *token) {
		*like = token{UserName: like.UserName, ClientID: like.ClientID, Issuer: like.Issuer, Resource: like.Resource}
	})},
	{"yields the records of another client", "an index by a part of the ID", "TS-47", finding(func(p *plain, ctx context.Context, like token) iter.Seq2[token, error] {
		return func(yield func(token, error) bool) {
			for t, err := range p.Search(ctx, like) {
				if !yield(t, err) {
					return
				}
			}
			other, ok := p.first(func(r *row) bool { return like.ClientID != "" && r.ClientID != "" && r.ClientID != like.ClientID })
			if ok {
				yield(other, nil)
			}
		}
	})},
	{"lists everything when there is nothing to search for", "a query without a where clause", "TS-47", finding(func(p *plain, ctx context.Context, like token) iter.Seq2[token, error] {
		if like != (token{}) {
			return p.Search(ctx, like)
		}
		return func(yield func(token, error) bool) {
			ts, _ := p.GetTokens(ctx)
			for _, t := range ts {
				if !yield(t, nil) {
					return
				}
			}
		}
	})},
	{"omits records without a user", "", "TS-47", yielding(func(_ *plain, _ token, t *token, err *error) int {
		if *err == nil && t.UserName == "" {
			return 0
		}
		return 1
	})},
	{"calls an empty result an error", "FindToken", "TS-47", finding(func(p *plain, ctx context.Context, like token) iter.Seq2[token, error] {
		return func(yield func(token, error) bool) {
			n := 0
			for t, err := range p.Search(ctx, like) {
				if n++; !yield(t, err) {
					return
				}
			}
			if n == 0 {
				yield(token{}, wrap("search", "", tokenstore.ErrNotFound))
			}
		}
	})},
	{"yields a record once for each of its labels", "", "TS-47", yielding(func(_ *plain, like token, t *token, err *error) int {
		if *err == nil && t.UserName == like.UserName && t.ClientID == like.ClientID {
			return 2
		}
		return 1
	})},
	{"yields a record that moved under its former ID", "", "TS-47", yielding(func(p *plain, _ token, t *token, err *error) int {
		p.mu.Lock()
		defer p.mu.Unlock()
		for alias, to := range p.aliases {
			if *err == nil && to == t.ID {
				t.ID = alias
				break
			}
		}
		return 1
	})},
	{"yields the records in another order", "", "TS-47", finding(func(p *plain, ctx context.Context, like token) iter.Seq2[token, error] {
		return func(yield func(token, error) bool) {
			var found []token
			for t, err := range p.Search(ctx, like) {
				if err != nil {
					yield(t, err)
					return
				}
				found = append(found, t)
			}
			for _, t := range slices.Backward(found) {
				if !yield(t, nil) {
					return
				}
			}
		}
	})},
	{"one record that cannot be read ends the search", "", "TS-47", yielding(func(_ *plain, _ token, t *token, err *error) int {
		if *err != nil {
			*t = token{}
		}
		return 1
	})},
	{"a search hides a record that cannot be read", "", "TS-47", yielding(func(_ *plain, _ token, _ *token, err *error) int {
		if _, ok := errors.AsType[*tokenstore.UnreadableError](*err); ok {
			return 0
		}
		return 1
	})},
	{"a search ignores the context", "", "TS-47", finding(func(p *plain, ctx context.Context, like token) iter.Seq2[token, error] {
		return p.Search(context.WithoutCancel(ctx), like)
	})},
}
