package main

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"github.com/tokenkeep/tokenkeep/initializer"
	"github.com/tokenkeep/tokenkeep/internal/stored"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/memstore"
)

// A localCost is the cost of a part that makes no calls to a service.
type localCost struct {
	Name   string
	Allocs int
	Time   time.Duration // median
}

const (
	localSource = "initializer: TokenSource, fresh"
	localReuse  = "oauth2.ReuseTokenSource, fresh"
)

type local struct {
	name string
	do   func() error
}

// filled saves n tokens, and returns them as candidates.
func filled(ctx context.Context, store *tokenstore.Store, n int) ([]tokenstore.Candidate, error) {
	candidates := make([]tokenstore.Candidate, n)
	for i := range candidates {
		t, err := store.SaveToken(ctx, numbered(i, far))
		if err != nil {
			return nil, err
		}
		candidates[i].Token = t
	}
	return candidates, nil
}

// locals returns the parts of operations that make no calls to a service.
func locals(ctx context.Context) ([]local, error) {
	store := memstore.New(nil)
	candidates, err := filled(ctx, store, 10)
	if err != nil {
		return nil, err
	}
	t := candidates[len(candidates)/2].Token
	byUser := tokenstore.Token{UserName: t.UserName, ClientID: t.ClientID}
	news := [2]tokenstore.Token{byUser, byUser}
	for i := range news {
		news[i].AccessToken, news[i].ExpiresAt = tokenstore.Secret(fmt.Sprintf("1000.access-%d.0123456789abcdef0123456789abcdef", i)), far
	}
	rec := stored.Record{Fields: t.Fields(), Born: "0123456789abcdef", Nonces: []string{"0123456789abcdef"},
		Updated: t.ExpiresAt.UnixMilli(), Labels: []stored.Label{{Key: "user", Value: t.ID, Nonce: "0123456789abcdef"}}}
	rec.ID = ""
	data, err := stored.Encode(rec)
	if err != nil {
		return nil, err
	}
	client, err := initializer.New(ctx, initializer.Config{
		Environment: initializer.US.Production(), Store: memstore.New(nil), Token: tokenstore.Token{AccessToken: "token", ExpiresAt: far},
	})
	if err != nil {
		return nil, err
	}
	source := client.TokenSource(ctx)
	reuse := oauth2.ReuseTokenSource(&oauth2.Token{AccessToken: "token", Expiry: far}, nil)
	turn := 0
	var merged tokenstore.Token
	return []local{
		{"match: Select among 10 records", func() error { _, err := tokenstore.Select(byUser, candidates); return err }},
		{"merge: Merge", func() error {
			merged = tokenstore.Merge(t, news[0])
			if merged.AccessToken != news[0].AccessToken {
				return errors.New("not merged")
			}
			return nil
		}},
		{"match and merge: PlanSave among 10 records", func() error { _, err := tokenstore.PlanSave(news[0], candidates); return err }},
		{"encode: stored.Encode", func() error { _, err := stored.Encode(rec); return err }},
		{"decode: stored.Decode", func() error { _, err := stored.Decode(data); return err }},
		{"memstore: FindTokenByID", func() error { _, err := store.FindTokenByID(ctx, t.ID); return err }},
		{"memstore: FindToken by user and client (digest, decode, match)", func() error { _, err := store.FindToken(ctx, byUser); return err }},
		{"memstore: FindToken by refresh token", func() error {
			_, err := store.FindToken(ctx, tokenstore.Token{ClientID: t.ClientID, RefreshToken: t.RefreshToken})
			return err
		}},
		{"memstore: SaveToken, unchanged", func() error { _, err := store.SaveToken(ctx, byUser); return err }},
		{"memstore: SaveToken, a new access token (digest, match, merge, encode)", func() error { turn++; _, err := store.SaveToken(ctx, news[turn%2]); return err }},
		{"initializer: Client.Token, fresh", func() error { _, err := client.Token(ctx); return err }},
		{localSource, func() error { _, err := source.Token(); return err }},
		{localReuse, func() error { _, err := reuse.Token(); return err }},
	}, nil
}

// allocations returns the number of allocations of each part. Other goroutines must not
// allocate while allocations runs.
func allocations(ctx context.Context) ([]localCost, error) {
	parts, err := locals(ctx)
	if err != nil {
		return nil, err
	}
	all := make([]localCost, len(parts))
	for i, p := range parts {
		for range 20 { // until the record's lists of earlier writes have their full length
			err = errors.Join(err, p.do())
		}
		all[i] = localCost{Name: p.name, Allocs: int(testing.AllocsPerRun(200, func() { err = errors.Join(err, p.do()) }))}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return all, nil
}

// measureLocal times each part once in each round, and returns the costs of the parts.
// measureLocal also returns the ratio of the times of two sources with a valid token: a
// TokenSource of this module and oauth2.ReuseTokenSource.
func measureLocal(ctx context.Context, rounds int) ([]localCost, interval, error) {
	all, err := allocations(ctx)
	if err != nil {
		return nil, interval{}, err
	}
	parts, err := locals(ctx)
	if err != nil {
		return nil, interval{}, err
	}
	sizes := make([]int, len(parts))
	for i, p := range parts {
		sizes[i] = 1
		for took := time.Duration(0); took < batchTime; sizes[i] *= 2 {
			if took, err = batch(p.do, sizes[i]); err != nil {
				return nil, interval{}, fmt.Errorf("%s: %w", p.name, err)
			}
		}
	}
	times := map[string][]time.Duration{} // times of a million runs, because one run can take less than ten nanoseconds
	for range rounds {
		for i, p := range parts {
			took, err := batch(p.do, sizes[i])
			if err != nil {
				return nil, interval{}, fmt.Errorf("%s: %w", p.name, err)
			}
			times[p.name] = append(times[p.name], took*million/time.Duration(sizes[i]))
		}
	}
	for i := range all {
		all[i].Time = median(times[all[i].Name]) / million
	}
	return all, ratioOf(times[localSource], times[localReuse]), nil
}

const (
	batchTime = 2 * time.Millisecond
	million   = 1_000_000
)

// batch calls the function do n times, and returns the total duration.
func batch(do func() error, n int) (time.Duration, error) {
	began := time.Now()
	for range n {
		if err := do(); err != nil {
			return 0, err
		}
	}
	return time.Since(began), nil
}
