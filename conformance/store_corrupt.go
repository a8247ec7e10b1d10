package conformance

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

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
	{"TS-28", "GetTokens and DeleteTokens process the other records and report the unreadable one", func(e *storeEnv) {
		s, bad, good := e.corrupted()
		e.search()
		got, err := s.GetTokens(e.ctx)
		e.reports("GetTokens", err, bad.ID, tokenstore.ErrCorrupt)
		if len(got) != 1 || got[0].ID != good.ID {
			e.Errorf("GetTokens returned %q, want %q, which can be read", idsOf(got), good.ID)
		}
		e.reports("DeleteTokens", s.DeleteTokens(e.ctx), bad.ID, tokenstore.ErrCorrupt)
		e.lacks(s, good.ID)
		e.isCorrupt(s, bad.ID)
	}},
	{"TS-28", "a record that the service refuses hides no other, whatever the reason", func(e *storeEnv) {
		s := e.openRefusing()
		for _, reason := range reasons {
			bad, good := e.save(s, e.of("ann", "c1")), e.save(s, e.of("bob", "c1"))
			e.search()
			e.b.Refuse(e.TB, s.TokenStore, bad.ID, reason)
			got, err := s.GetTokens(e.ctx)
			e.reports("GetTokens", err, bad.ID, reason)
			if len(got) != 1 || got[0].ID != good.ID {
				e.Errorf("GetTokens returned %q, want %q, which can be read", idsOf(got), good.ID)
			}
			for what, like := range keys(good) {
				e.finds(s, what, like, good)
			}
			for what, like := range keys(bad) {
				e.misses(s, what+" of a record that cannot be read", like, classOf(reason))
			}
			e.reports("DeleteTokens", s.DeleteTokens(e.ctx), bad.ID, reason)
			e.b.Refuse(e.TB, s.TokenStore, bad.ID, nil)
			e.lacks(s, good.ID)
			e.keeps(s, bad)
			e.remove(s, bad.ID)
		}
	}},
	{"TS-28", "no save creates a second record beside one that cannot be read", func(e *storeEnv) {
		s := e.openRefusing()
		for _, reason := range reasons {
			bad := e.save(s, e.of("ann", "c1"))
			e.search()
			e.b.Refuse(e.TB, s.TokenStore, bad.ID, reason)
			writes := e.writes(s)
			for what, t := range map[string]token{
				"the ID":            {ID: bad.ID, AccessToken: e.secret()},
				"user and client":   e.of("ann", "c1"),
				"the refresh token": {ClientID: "c1", RefreshToken: bad.RefreshToken, AccessToken: e.secret()},
			} {
				e.refuses(s, what+" of a record that cannot be read", t, classOf(reason))
			}
			if n := e.writes(s); n != writes {
				e.Errorf("%d writes for saves that were refused", n-writes)
			}
			e.b.Refuse(e.TB, s.TokenStore, bad.ID, nil)
			e.keeps(s, bad)
			e.remove(s, bad.ID)
		}
	}},
	{"TS-28", "a record is not taken for the only one of its user beside one that cannot be read", func(e *storeEnv) {
		s := e.openRefusing()
		bad, other := e.save(s, e.of("ann", "c1")), e.save(s, e.of("ann", "c2"))
		e.search()
		e.b.Refuse(e.TB, s.TokenStore, bad.ID, tokenstore.ErrRefused)
		e.wants("FindToken of a user with a record that cannot be read", second(s.FindToken(e.ctx, token{UserName: "ann"})), tokenstore.ErrRefused, tokenstore.ErrAmbiguous)
		e.wants("SaveToken of a user with a record that cannot be read", second(s.SaveToken(e.ctx, token{UserName: "ann", APIDomain: "https://new.example"})), tokenstore.ErrRefused, tokenstore.ErrAmbiguous)
		e.finds(s, "user and client", token{UserName: "ann", ClientID: "c2"}, other)
		e.b.Refuse(e.TB, s.TokenStore, bad.ID, nil)
		e.keeps(s, bad, other)
	}},
}

// reasons are errors that a read of an unreadable record may return.
var reasons = []error{
	fmt.Errorf("%w: edited by hand", tokenstore.ErrCorrupt),
	fmt.Errorf("%w: no right to decrypt", tokenstore.ErrDenied),
	fmt.Errorf("%w: the version is disabled", tokenstore.ErrRefused),
	fmt.Errorf("%w: status 503", tokenstore.ErrUnavailable),
	errors.New("a reason without a class"),
}

// classOf returns the class that reason matches. If reason matches no class, classOf returns
// tokenstore.ErrUnavailable.
func classOf(reason error) error {
	for _, class := range classes {
		if errors.Is(reason, class) {
			return class
		}
	}
	return tokenstore.ErrUnavailable
}

// openRefusing returns an empty store whose records Store.Refuse can make unreadable. If
// Store.Refuse is nil, openRefusing skips the case.
func (e *storeEnv) openRefusing() *watched {
	e.TB.Helper()
	if e.b.Refuse == nil {
		e.TB.Skipf("Store.Refuse is nil")
	}
	return e.open()
}

// reports checks that err matches the class of reason, and contains an *UnreadableError that has
// the given ID and matches reason. The text of err must contain the ID and the text of reason.
func (e *storeEnv) reports(op string, err error, id string, reason error) {
	e.TB.Helper()
	e.wants(op, err, classOf(reason))
	u, ok := errors.AsType[*tokenstore.UnreadableError](err)
	if !ok || u.Name != id || !errors.Is(u, reason) {
		e.Errorf("the error of %s is %v, want an *UnreadableError of %q with the reason %q", op, err, id, reason)
	}
	if err != nil && (!strings.Contains(err.Error(), strconv.Quote(id)) || !strings.Contains(err.Error(), reason.Error())) {
		e.Errorf("the error of %s is %q, want the name %q and the reason %q in it", op, err, id, reason)
	}
}

// second returns err, the error from a method that also returns a token.
func second(_ token, err error) error { return err }

// corrupted returns a store with the unreadable record bad and the readable record good. If
// Store.Corrupt is nil, corrupted skips the case.
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

// isCorrupt checks that FindTokenByID returns an error matching tokenstore.ErrCorrupt.
func (e *storeEnv) isCorrupt(s *watched, id string) {
	e.TB.Helper()
	e.after(e.b.ReadLag, func() error {
		if _, err := s.FindTokenByID(e.ctx, id); !errors.Is(err, tokenstore.ErrCorrupt) {
			return fmt.Errorf("FindTokenByID of a record that cannot be read returned error %v, want %q", err, tokenstore.ErrCorrupt)
		}
		return nil
	})
}
