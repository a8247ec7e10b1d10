package main

import (
	"context"
	"errors"
	"io"
	"time"

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
		return nil, usagef("mem: takes nothing after the colon")
	}
	opts, err := a.storeOptions()
	if err != nil {
		return nil, err
	}
	s, err := tokenstore.New(memstore.NewDriver(), opts)
	return portable(s, err, portableStore{opts: opts})
}

// A portableStore is a store on a driver.
type portableStore struct {
	*tokenstore.Store
	opts *tokenstore.Options
	at   string // the service and the place in it; "": memory
	late time.Duration
	conn io.Closer // what was opened for the store, and is closed with it; may be nil
}

// portable returns what a constructor of a portable store returned. Its errors
// are about how it was called.
func portable(s *tokenstore.Store, err error, p portableStore) (store, error) {
	if err != nil {
		if p.conn != nil {
			_ = p.conn.Close()
		}
		return nil, usage{withoutPackage(err)}
	}
	p.Store = s
	return p, nil
}

// Close closes the store, and then what it is on.
func (s portableStore) Close() error {
	err := s.Store.Close()
	if s.conn != nil {
		err = errors.Join(err, s.conn.Close())
	}
	return err
}

func (s portableStore) place() string      { return s.at }
func (s portableStore) counted() bool      { return s.at != "" }
func (s portableStore) lag() time.Duration { return s.late }

// Fits saves each token to a memory of its own, which derives the same IDs and
// has the same limits.
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
