package conformance

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// plain is a TokenStore that keeps all rules, with a single lock. The broken stores wrap
// plain stores. plain also shows that the suite does not require more than the rules.
type plain struct {
	*shelf
	foreign bool // has a foreign format, with numbers as IDs
}

// A shelf holds the records that several handles share.
type shelf struct {
	mu      sync.Mutex
	rows    map[string]*row   // by ID
	aliases map[string]string // ID of a merged record to the ID of the resulting record
	count   int
	writes  int64

	stale, lose bool // how the next deletion must fail
}

// A row is a stored record with its earlier tokens.
type row struct {
	token
	updated         int
	grants, refresh []tokenstore.Secret // all earlier tokens
	unread          error               // the error from a read, if the record is unreadable
}

func newPlain() *plain {
	return &plain{shelf: &shelf{rows: map[string]*row{}, aliases: map[string]string{}}}
}

func (p *plain) made() *plain { return p }

// digest returns an ID that has the form of a derived ID.
func digest(kind string, parts ...string) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q", append(parts, kind)))
	return kind + strings.ToLower(base32.StdEncoding.EncodeToString(sum[:20]))
}

func (p *plain) id(t token) string {
	switch {
	case p.foreign:
		highest := 0
		for id := range p.rows {
			n, _ := strconv.Atoi(id)
			highest = max(highest, n)
		}
		return strconv.Itoa(highest + 1)
	case t.UserName != "":
		return digest("u", t.UserName, t.ClientID, t.Issuer, t.Resource)
	case t.GrantToken != "":
		return digest("g", t.ClientID, t.Issuer, t.Resource, string(t.GrantToken))
	case t.RefreshToken != "":
		return digest("r", t.ClientID, t.Issuer, t.Resource, string(t.RefreshToken))
	}
	return digest("a", t.Issuer, t.Resource, string(t.AccessToken))
}

// candidates returns all records as candidates for the token like. The caller must hold p.mu.
func (p *plain) candidates(like token) []tokenstore.Candidate {
	var cs []tokenstore.Candidate
	for _, r := range p.rows {
		cs = append(cs, tokenstore.Candidate{Token: r.token, Updated: time.Unix(int64(r.updated), 0), Former: tokenstore.Former{
			ID:           p.aliases[like.ID] == r.ID,
			GrantToken:   like.GrantToken != r.GrantToken && slices.Contains(r.grants, like.GrantToken),
			RefreshToken: like.RefreshToken != r.RefreshToken && slices.Contains(r.refresh, like.RefreshToken),
		}})
	}
	slices.SortFunc(cs, func(a, b tokenstore.Candidate) int { return cmp.Compare(a.Token.ID, b.Token.ID) })
	return cs
}

func wrap(op, id string, err error) error { return tokenstore.NewError(op, "plain", id, err) }

func (p *plain) find(like token) (token, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	cs := p.candidates(like)
	i, err := tokenstore.Select(like, cs)
	if err != nil {
		return token{}, err
	}
	if err := p.rows[cs[i].Token.ID].unread; err != nil {
		return token{}, err
	}
	if cs[i].Former.GrantToken {
		like.GrantToken = ""
	}
	if cs[i].Former.RefreshToken {
		like.RefreshToken = ""
	}
	return tokenstore.Merge(cs[i].Token, like), nil
}

func (p *plain) FindToken(ctx context.Context, like token) (token, error) {
	if err := ctx.Err(); err != nil {
		return token{}, wrap("find", like.ID, err)
	}
	t, err := p.find(like)
	return t, wrap("find", like.ID, err)
}

func (p *plain) FindTokenByID(ctx context.Context, id string) (token, error) {
	return p.FindToken(ctx, token{ID: id})
}

func (p *plain) SaveToken(ctx context.Context, t token) (token, error) {
	if err := ctx.Err(); err != nil {
		return token{}, wrap("save", t.ID, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	got, err := p.save(t)
	return got, wrap("save", t.ID, err)
}

// save implements SaveToken. The caller must hold p.mu.
func (p *plain) save(t token) (token, error) {
	cs := p.candidates(t)
	plan, err := tokenstore.PlanSave(t, cs)
	switch {
	case err != nil:
		return token{}, err
	case plan.Record < 0 && derived().MatchString(t.ID):
		return token{}, tokenstore.ErrInvalidToken
	case plan.Record < 0 && p.foreign && t.ID != "" && !decimal(t.ID):
		return token{}, tokenstore.ErrInvalidToken
	case plan.Record < 0 && (p.aliases[p.id(plan.Token)] != "" || p.rows[p.id(plan.Token)] != nil):
		return token{}, tokenstore.ErrIDMismatch
	case size(plan.Token) > 64<<10:
		return token{}, tokenstore.ErrTooLarge
	}
	var old *row
	if plan.Record >= 0 {
		old = p.rows[cs[plan.Record].Token.ID]
		if old.unread != nil {
			return token{}, old.unread
		}
	}
	if !plan.Changed {
		return old.token, nil
	}
	for _, i := range plan.Absorb {
		p.become(cs[i].Token.ID, old)
	}
	return p.put(old, plan.Token), nil
}

// become removes the record with the given ID, and makes the ID an alias for the row in the
// parameter into. A store with a foreign format keeps no aliases. The caller must hold p.mu.
func (p *plain) become(id string, into *row) {
	from := p.rows[id]
	delete(p.rows, id)
	if p.foreign {
		return
	}
	into.grants = append(into.grants, from.GrantToken)
	into.refresh = append(into.refresh, from.RefreshToken)
	into.grants = append(into.grants, from.grants...)
	into.refresh = append(into.refresh, from.refresh...)
	p.aliases[id] = into.ID
	for alias, to := range p.aliases {
		if to == id {
			p.aliases[alias] = into.ID
		}
	}
}

// put stores t in place of the row old, or as a new record if old is nil. The caller must hold p.mu.
func (p *plain) put(old *row, t token) token {
	p.writes++
	p.count++
	r := &row{token: t, updated: p.count}
	if old != nil {
		delete(p.rows, old.ID)
		if !p.foreign {
			r.grants = slices.Concat(old.grants, []tokenstore.Secret{old.GrantToken})
			r.refresh = slices.Concat(old.refresh, []tokenstore.Secret{old.RefreshToken})
			if old.UserName == "" && t.UserName != "" && derived().MatchString(old.ID) {
				r.ID = p.id(t)
				p.rows[r.ID] = r
				p.rows[old.ID] = old
				p.become(old.ID, r)
			}
		}
	}
	if r.ID == "" {
		r.ID = p.id(t)
	}
	p.rows[r.ID] = r
	return r.token
}

func size(t token) int {
	n := 0
	for _, f := range fields {
		n += len(*f.of(&t))
	}
	return n
}

func decimal(id string) bool {
	n, err := strconv.Atoi(id)
	return err == nil && n > 0 && strconv.Itoa(n) == id
}

func (p *plain) DeleteToken(ctx context.Context, id string) error {
	if err := ctx.Err(); err != nil {
		return wrap("delete", id, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stale, p.lose = false, false // the store reads again after a stale read, and repeats a lost deletion
	return wrap("delete", id, p.drop(cmp.Or(p.aliases[id], id)))
}

// drop removes the record with the given ID. If the record is unreadable, drop returns an
// *UnreadableError. The caller must hold p.mu.
func (p *plain) drop(id string) error {
	r := p.rows[id]
	if r == nil {
		return nil
	}
	if r.unread != nil {
		return &tokenstore.UnreadableError{Name: id, Err: r.unread}
	}
	p.writes++
	delete(p.rows, id)
	for alias, to := range p.aliases {
		if to == id {
			delete(p.aliases, alias)
		}
	}
	return nil
}

// DeleteIfUnchanged removes the record with the ID of t if the record equals t.
func (p *plain) DeleteIfUnchanged(ctx context.Context, t token) error {
	if err := ctx.Err(); err != nil {
		return wrap("delete", t.ID, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch r := p.rows[t.ID]; {
	case r == nil:
		return nil
	case r.token != t:
		return wrap("delete", t.ID, tokenstore.ErrConflict)
	}
	delete(p.rows, t.ID)
	return nil
}

// Search yields the records with the user, client, issuer and resource of the token like.
func (p *plain) Search(ctx context.Context, like token) iter.Seq2[token, error] {
	return func(yield func(token, error) bool) {
		found, err := p.search(ctx, like)
		if err != nil {
			yield(token{}, wrap("search", "", err))
			return
		}
		for _, unread := range []bool{false, true} { // the errors follow the records
			for _, r := range found {
				switch {
				case (r.unread != nil) != unread:
				case unread && !yield(token{ID: r.ID}, wrap("search", r.ID, &tokenstore.UnreadableError{Name: r.ID, Err: r.unread})):
					return
				case !unread && !yield(r.token, nil):
					return
				}
			}
		}
	}
}

// search returns the rows that Search(like) must yield, ordered by ID.
func (p *plain) search(ctx context.Context, like token) (found []row, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	only := token{UserName: like.UserName, ClientID: like.ClientID, Issuer: like.Issuer, Resource: like.Resource}
	if like != only || like.UserName == "" && like.ClientID == "" {
		return nil, tokenstore.ErrInvalidToken
	}
	if err := tokenstore.Validate(like); err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.candidates(token{}) {
		r := p.rows[c.Token.ID]
		if (like.UserName == "" || r.UserName == like.UserName) && (like.ClientID == "" || r.ClientID == like.ClientID) &&
			(like.Issuer == "" || r.Issuer == like.Issuer) && (like.Resource == "" || r.Resource == like.Resource) {
			found = append(found, *r)
		}
	}
	return found, nil
}

func (p *plain) GetTokens(ctx context.Context) ([]token, error) {
	if err := ctx.Err(); err != nil {
		return nil, wrap("list", "", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var ts []token
	var err error
	for _, c := range p.candidates(token{}) {
		if reason := p.rows[c.Token.ID].unread; reason != nil {
			err = errors.Join(err, &tokenstore.UnreadableError{Name: c.Token.ID, Err: reason})
		} else {
			ts = append(ts, c.Token)
		}
	}
	return ts, wrap("list", "", err)
}

func (p *plain) DeleteTokens(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return wrap("delete all", "", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var err error
	for _, c := range p.candidates(token{}) {
		err = errors.Join(err, p.drop(c.Token.ID))
	}
	return wrap("delete all", "", err)
}

// shelved is implemented by stores that wrap a plain store.
type shelved interface {
	tokenstore.TokenStore
	made() *plain
}

// shop returns a Store whose functions Open and Reopen return wrap(p) for a plain store p.
func shop(wrap func(*plain) tokenstore.TokenStore) Store {
	made := func(s tokenstore.TokenStore) *plain { return s.(shelved).made() }
	refuse := func(_ testing.TB, s tokenstore.TokenStore, id string, reason error) {
		p := made(s)
		p.mu.Lock()
		defer p.mu.Unlock()
		if r := p.rows[id]; r != nil {
			r.unread = reason
		}
	}
	return Store{
		Open: func(testing.TB) tokenstore.TokenStore { return wrap(newPlain()) },
		Reopen: func(_ testing.TB, s tokenstore.TokenStore) tokenstore.TokenStore {
			again := *made(s)
			return wrap(&again)
		},
		Corrupt: func(t testing.TB, s tokenstore.TokenStore, id string) { refuse(t, s, id, tokenstore.ErrCorrupt) },
		Refuse:  refuse,
		Stale: func(_ testing.TB, s tokenstore.TokenStore, _ string) func() {
			return func() { made(s).stale = true }
		},
		Lose: func(_ testing.TB, s tokenstore.TokenStore) { made(s).lose = true },
		Writes: func(_ testing.TB, s tokenstore.TokenStore) int64 {
			p := made(s)
			p.mu.Lock()
			defer p.mu.Unlock()
			return p.writes
		},
		Trace: func(_ testing.TB, s tokenstore.TokenStore) []string {
			p := made(s)
			p.mu.Lock()
			defer p.mu.Unlock()
			trace := []string{"shelf"}
			for id := range p.rows {
				trace = append(trace, id)
			}
			return trace
		},
	}
}

func TestPlain(t *testing.T) {
	RunStore(t, shop(func(p *plain) tokenstore.TokenStore { return p }))
}

func TestPlainForeign(t *testing.T) {
	b := shop(func(p *plain) tokenstore.TokenStore {
		p.foreign = true
		return p
	})
	b.ForeignFormat = true
	b.OwnID = func(i int) string { return strconv.Itoa(1000 * (i + 1)) }
	RunStore(t, b)
}
