package main

import (
	"context"
	"errors"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/memstore"
)

var memScheme = scheme{
	name: "mem",
	form: "mem:",
	text: "memory: empty when a command begins, gone when it ends",
	open: openMem,
}

func openMem(_ context.Context, a *app, rest string) (*store, error) {
	if rest != "" {
		return nil, usagef("mem: takes nothing after the colon")
	}
	opts, err := a.storeOptions()
	if err != nil {
		return nil, err
	}
	s, err := tokenstore.New(memstore.NewDriver(), opts)
	return portable(s, err, opts, &store{})
}

// A portableStore is a store on a driver.
type portableStore struct {
	*tokenstore.Store

	opts *tokenstore.Options
}

// portable completes a store on a driver by what a constructor of package tokenstore
// returned. The constructor's errors are about how it was called.
func portable(s *tokenstore.Store, err error, opts *tokenstore.Options, on *store) (*store, error) {
	if err != nil {
		_ = on.Close()
		return nil, usage{withoutPackage(err)}
	}
	result := *on
	result.TokenStore = portableStore{s, opts}
	result.close = func() error { return errors.Join(s.Close(), on.Close()) }
	return &result, nil
}

// Fits returns, for each token, why the store cannot hold it, or nil. It saves each of
// them to a memory of its own, which derives the same IDs and has the same limits.
func (s portableStore) Fits(ctx context.Context, tokens []tokenstore.Token) ([]error, error) {
	errs := make([]error, len(tokens))
	for i, t := range tokens {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		_, errs[i] = memstore.New(s.opts).SaveToken(ctx, t)
	}
	return errs, nil
}
