package customstore_test

import (
	"context"
	"strconv"
	"sync"
	"testing"

	"github.com/tokenkeep/tokenkeep/conformance"
	"github.com/tokenkeep/tokenkeep/examples/customstore"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// count returns the ith ID that a test chooses for a record. The IDs are 1000 apart, so that
// the IDs that a store assigns after a chosen ID do not reach the next chosen ID.
func count(i int) string { return strconv.Itoa(1000 * (i + 1)) }

func TestMemory(t *testing.T) {
	t.Parallel()
	conformance.RunStore(t, conformance.Store{
		Open: func(testing.TB) tokenstore.TokenStore { return &customstore.Memory{} },
		// No other process can open a store in memory.
		Reopen:        func(_ testing.TB, s tokenstore.TokenStore) tokenstore.TokenStore { return s },
		ForeignFormat: true, // the store keeps only the fields of tokens
		OwnID:         count,
		MaxRecord:     -1, // the store does not limit the size of a record
	})
}

func TestList(t *testing.T) {
	t.Parallel()
	var places sync.Map // from each *customstore.List to its *place
	open := func(p *place) tokenstore.TokenStore {
		s := customstore.NewList(p)
		places.Store(s, p)
		return s
	}
	of := func(s tokenstore.TokenStore) *place {
		p, _ := places.Load(s)
		return p.(*place)
	}
	conformance.RunStore(t, conformance.Store{
		Open:          func(testing.TB) tokenstore.TokenStore { return open(&place{}) },
		Reopen:        func(_ testing.TB, s tokenstore.TokenStore) tokenstore.TokenStore { return open(of(s)) },
		Writes:        func(_ testing.TB, s tokenstore.TokenStore) int64 { return of(s).version() },
		ForeignFormat: true,
		OwnID:         count,
		MaxRecord:     -1,
	})
}

type place struct {
	mu   sync.Mutex
	page customstore.Page
}

func (p *place) Load(ctx context.Context) (customstore.Page, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.page, ctx.Err()
}

func (p *place) Swap(ctx context.Context, version int64, page customstore.Page) (bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := ctx.Err(); err != nil || version != p.page.Version {
		return false, err
	}
	page.Version = version + 1
	p.page = page
	return true, nil
}

func (p *place) version() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.page.Version
}
