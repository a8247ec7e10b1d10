package main

import (
	"context"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/memstore"
)

var memScheme = scheme{
	name: "mem",
	form: "mem:",
	text: "memory: empty when a command begins, gone when it ends",
	open: openMem,
}

func openMem(_ context.Context, a *app, rest string) (store, error) {
	if rest != "" {
		return nil, usagef("nothing stands behind mem:")
	}
	opts, err := a.storeOptions()
	if err != nil {
		return nil, err
	}
	return portable(tokenstore.New(memstore.NewDriver(), opts))
}

// portable returns what a constructor of a portable store returned. Its errors
// are about how it was called.
func portable(s *tokenstore.Store, err error) (store, error) {
	if err != nil {
		return nil, usage{err}
	}
	return s, nil
}
