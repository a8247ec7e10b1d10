package conformance

import (
	"errors"
	"fmt"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

var corruptCasesOfStore = []testCase[*storeEnv]{
	{"TS-28", "a record that cannot be read is corrupt and is left alone", func(e *storeEnv) {
		s, bad, good := e.corrupted()
		for _, h := range []*watched{s, e.reopen(s)} {
			e.wants("SaveToken of its ID", second(h.SaveToken(e.ctx, token{ID: bad.ID, AccessToken: e.secret()})), tokenstore.ErrCorrupt)
			e.wants("SaveToken of its user and client", second(h.SaveToken(e.ctx, e.of(bad.UserName, bad.ClientID))), tokenstore.ErrCorrupt)
			e.wants("FindToken of its user and client", second(h.FindToken(e.ctx, token{UserName: bad.UserName, ClientID: bad.ClientID})), tokenstore.ErrCorrupt)
			e.wants("FindToken of its ID", second(h.FindToken(e.ctx, token{ID: bad.ID})), tokenstore.ErrCorrupt)
			e.wants("DeleteToken of its ID", h.DeleteToken(e.ctx, bad.ID), tokenstore.ErrCorrupt)
			e.isCorrupt(h, bad.ID)
			e.has(h, good)
		}
	}},
	{"TS-28", "GetTokens and DeleteTokens do the others and report it", func(e *storeEnv) {
		s, bad, good := e.corrupted()
		e.search()
		got, err := s.GetTokens(e.ctx)
		e.wants("GetTokens", err, tokenstore.ErrCorrupt)
		if len(got) != 1 || got[0].ID != good.ID {
			e.Errorf("GetTokens returned %q, want %q, which can be read", idsOf(got), good.ID)
		}
		e.wants("DeleteTokens", s.DeleteTokens(e.ctx), tokenstore.ErrCorrupt)
		e.lacks(s, good.ID)
		e.isCorrupt(s, bad.ID)
	}},
}

// second returns its error.
func second(_ token, err error) error { return err }

// corrupted returns a store with a record that cannot be read, and another.
func (e *storeEnv) corrupted() (s *watched, bad, good token) {
	e.TB.Helper()
	if e.b.Corrupt == nil {
		e.TB.Skipf("Store.Corrupt is nil")
	}
	s = e.open()
	bad, good = e.save(s, e.of("ann", "c1")), e.save(s, e.of("bob", "c1"))
	e.b.Corrupt(e.TB, s.TokenStore, bad.ID)
	e.isCorrupt(s, bad.ID)
	return s, bad, good
}

// isCorrupt checks that the record cannot be read.
func (e *storeEnv) isCorrupt(s *watched, id string) {
	e.TB.Helper()
	e.after(e.b.ReadLag, func() error {
		if _, err := s.FindTokenByID(e.ctx, id); !errors.Is(err, tokenstore.ErrCorrupt) {
			return fmt.Errorf("FindTokenByID of a record that cannot be read returned error %v, want %q", err, tokenstore.ErrCorrupt)
		}
		return nil
	})
}
