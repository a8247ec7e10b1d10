package customstore

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// A Memory is a TokenStore that keeps its records in memory. The zero value is an empty store.
// The methods of a Memory are safe for concurrent use.
type Memory struct {
	mu      sync.Mutex
	records map[string]tokenstore.Candidate // the records by ID
	last    int                             // the largest ID that a record ever had, even if the record was deleted
	writes  int64                           // number of saves, which takes the place of a clock
}

var _ tokenstore.TokenStore = (*Memory)(nil)

// FindToken implements tokenstore.TokenStore.
func (m *Memory) FindToken(ctx context.Context, like tokenstore.Token) (tokenstore.Token, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t, err := find(ctx, like, m.candidates())
	return t, tokenstore.NewError("find", "memory", like.ID, err)
}

// FindTokenByID implements tokenstore.TokenStore.
func (m *Memory) FindTokenByID(ctx context.Context, id string) (tokenstore.Token, error) {
	return m.FindToken(ctx, tokenstore.Token{ID: id})
}

// SaveToken implements tokenstore.TokenStore.
func (m *Memory) SaveToken(ctx context.Context, t tokenstore.Token) (tokenstore.Token, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	saved, err := m.save(ctx, t)
	return saved, tokenstore.NewError("save", "memory", t.ID, err)
}

func (m *Memory) save(ctx context.Context, t tokenstore.Token) (tokenstore.Token, error) {
	records := m.candidates()
	p, err := plan(ctx, t, records)
	if err != nil || !p.Changed {
		return p.Token, err
	}
	for _, i := range p.Absorb {
		delete(m.records, records[i].Token.ID)
	}
	if p.Token.ID == "" {
		p.Token.ID = strconv.Itoa(m.last + 1)
	}
	m.last = max(m.last, number(p.Token.ID))
	if m.records == nil {
		m.records = map[string]tokenstore.Candidate{}
	}
	m.writes++
	m.records[p.Token.ID] = tokenstore.Candidate{Token: p.Token, Updated: time.Unix(m.writes, 0)}
	return p.Token, nil
}

// DeleteToken implements tokenstore.TokenStore.
func (m *Memory) DeleteToken(ctx context.Context, id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return tokenstore.NewError("delete", "memory", id, err)
	}
	delete(m.records, id)
	return nil
}

// GetTokens implements tokenstore.TokenStore.
func (m *Memory) GetTokens(ctx context.Context) ([]tokenstore.Token, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, tokenstore.NewError("list", "memory", "", err)
	}
	return tokens(m.candidates()), nil
}

// DeleteTokens implements tokenstore.TokenStore.
func (m *Memory) DeleteTokens(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return tokenstore.NewError("delete all", "memory", "", err)
	}
	clear(m.records)
	return nil
}

// candidates returns all records. A store that can search needs to return only the records
// that share the ID, the user, or a refresh, access or grant token with the given token.
func (m *Memory) candidates() []tokenstore.Candidate { return slices.Collect(maps.Values(m.records)) }

// Memory and List share the following functions.

// find returns the record that matches the token like, merged with the fields of that token.
func find(ctx context.Context, like tokenstore.Token, records []tokenstore.Candidate) (tokenstore.Token, error) {
	if err := ctx.Err(); err != nil {
		return tokenstore.Token{}, err
	}
	if err := tokenstore.Validate(like); err != nil {
		return tokenstore.Token{}, err
	}
	i, err := tokenstore.Select(like, records)
	if err != nil {
		return tokenstore.Token{}, err
	}
	return tokenstore.Merge(records[i].Token, like), nil
}

// plan returns the changes to records that SaveToken must make to save t. If t is a new record
// whose ID is not a positive number, the error matches tokenstore.ErrInvalidToken.
func plan(ctx context.Context, t tokenstore.Token, records []tokenstore.Candidate) (tokenstore.Plan, error) {
	if err := ctx.Err(); err != nil {
		return tokenstore.Plan{}, err
	}
	p, err := tokenstore.PlanSave(t, records)
	if err == nil && p.Record < 0 && t.ID != "" && number(t.ID) == 0 {
		return tokenstore.Plan{}, fmt.Errorf("%w: an ID is a number", tokenstore.ErrInvalidToken)
	}
	return p, err
}

// number returns the positive number whose decimal form is id, or 0 if id has another form.
func number(id string) int {
	n, err := strconv.Atoi(id)
	if err != nil || n < 1 || strconv.Itoa(n) != id {
		return 0
	}
	return n
}

// tokens returns the tokens of records in the lexical order of their IDs.
func tokens(records []tokenstore.Candidate) []tokenstore.Token {
	all := make([]tokenstore.Token, 0, len(records))
	for _, c := range records {
		all = append(all, c.Token)
	}
	slices.SortFunc(all, func(a, b tokenstore.Token) int { return cmp.Compare(a.ID, b.ID) })
	return all
}
