package customstore

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// A Place stores a single Page, for example in an object in a bucket or under a key of a
// cache. Its methods must be safe for concurrent use.
type Place interface {
	// Load returns the Page that was stored last, or the zero Page if no Page was stored.
	Load(ctx context.Context) (Page, error)

	// Swap replaces the current Page with p, under a new version, if the current Page has the
	// given version. Swap ignores p.Version. It reports whether the Page was replaced.
	Swap(ctx context.Context, version int64, p Page) (bool, error)
}

// A Page is the content of a Place. Do not modify the elements of Tokens, because all callers
// that have loaded the Page share the elements.
type Page struct {
	Version int64 // different for each Page that was stored; 0 if no Page was stored
	Tokens  []tokenstore.Token
	Last    int // the largest ID that a record ever had, even if the record was deleted
}

// A List is a TokenStore that keeps its records in a Place. Its methods are safe for
// concurrent use. Create a List with NewList.
type List struct{ place Place }

var _ tokenstore.TokenStore = (*List)(nil)

// NewList returns a List that keeps its records in the given Place. Other Lists may use the same
// Place concurrently.
func NewList(place Place) *List { return &List{place} }

// FindToken implements tokenstore.TokenStore.
func (l *List) FindToken(ctx context.Context, like tokenstore.Token) (tokenstore.Token, error) {
	p, err := l.place.Load(ctx)
	var t tokenstore.Token
	if err == nil {
		t, err = find(ctx, like, p.candidates())
	}
	return t, tokenstore.NewError("find", "list", like.ID, err)
}

// FindTokenByID implements tokenstore.TokenStore.
func (l *List) FindTokenByID(ctx context.Context, id string) (tokenstore.Token, error) {
	return l.FindToken(ctx, tokenstore.Token{ID: id})
}

// SaveToken implements tokenstore.TokenStore.
func (l *List) SaveToken(ctx context.Context, t tokenstore.Token) (saved tokenstore.Token, err error) {
	err = l.change(ctx, func(p *Page) (bool, error) {
		plan, err := plan(ctx, t, p.candidates())
		saved = plan.Token
		if err != nil || !plan.Changed {
			return false, err
		}
		if saved.ID == "" {
			saved.ID = strconv.Itoa(p.Last + 1)
		}
		p.Last = max(p.Last, number(saved.ID))
		kept := make([]tokenstore.Token, 0, len(p.Tokens)+1)
		for i, have := range p.Tokens {
			if i != plan.Record && !slices.Contains(plan.Absorb, i) {
				kept = append(kept, have)
			}
		}
		kept = append(kept, saved) // last, because saved is the newest record
		p.Tokens = kept
		return true, nil
	})
	if err != nil {
		saved = tokenstore.Token{}
	}
	return saved, tokenstore.NewError("save", "list", t.ID, err)
}

// DeleteToken implements tokenstore.TokenStore.
func (l *List) DeleteToken(ctx context.Context, id string) error {
	err := l.change(ctx, func(p *Page) (bool, error) {
		i := slices.IndexFunc(p.Tokens, func(t tokenstore.Token) bool { return t.ID == id })
		if i < 0 {
			return false, nil
		}
		p.Tokens = slices.Delete(slices.Clone(p.Tokens), i, i+1)
		return true, nil
	})
	return tokenstore.NewError("delete", "list", id, err)
}

// GetTokens implements tokenstore.TokenStore.
func (l *List) GetTokens(ctx context.Context) ([]tokenstore.Token, error) {
	p, err := l.place.Load(ctx)
	if err != nil {
		return nil, tokenstore.NewError("list", "list", "", err)
	}
	return tokens(p.candidates()), nil
}

// DeleteTokens implements tokenstore.TokenStore.
func (l *List) DeleteTokens(ctx context.Context) error {
	err := l.change(ctx, func(p *Page) (bool, error) {
		changed := len(p.Tokens) > 0
		p.Tokens = nil
		return changed, nil
	})
	return tokenstore.NewError("delete all", "list", "", err)
}

// attempts is the maximum number of attempts to change a Page. A further attempt is necessary
// only if another writer has replaced the Page in the meantime.
const attempts = 1000

// change calls f with the current Page, and stores the Page if f reports a change. If another
// writer has replaced the Page in the meantime, change calls f again with the new Page. If the
// last attempt fails too, change returns an error that matches tokenstore.ErrConflict.
func (l *List) change(ctx context.Context, f func(*Page) (changed bool, err error)) error {
	for range attempts {
		p, err := l.place.Load(ctx)
		if err != nil {
			return err
		}
		version := p.Version
		if changed, err := f(&p); err != nil || !changed {
			return err
		}
		if swapped, err := l.place.Swap(ctx, version, p); err != nil || swapped {
			return err
		}
	}
	return fmt.Errorf("%w: in each of %d attempts", tokenstore.ErrConflict, attempts)
}

// candidates returns the tokens of p as candidates. The order of the tokens in p determines
// their age, because SaveToken appends the newest token.
func (p Page) candidates() []tokenstore.Candidate {
	all := make([]tokenstore.Candidate, 0, len(p.Tokens))
	for i, t := range p.Tokens {
		all = append(all, tokenstore.Candidate{Token: t, Updated: time.Unix(int64(i), 0)})
	}
	return all
}
