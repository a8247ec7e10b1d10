package conformance

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// A searcher is a store with the method Search, which must follow TS-47.
type searcher interface {
	Search(ctx context.Context, like token) iter.Seq2[token, error]
}

// searchFor calls the method Search of s, and returns the records and the error that ended the
// iteration. The map unread holds the errors for unreadable records, by the names in these errors.
// If s does not have the method, searchFor skips the case.
func (e *storeEnv) searchFor(ctx context.Context, s *watched, like token) (found []token, unread map[string]error, err error) {
	e.TB.Helper()
	c, ok := s.TokenStore.(searcher)
	if !ok {
		e.TB.Skipf("%T has no Search", s.TokenStore)
	}
	unread = map[string]error{}
	for t, yielded := range c.Search(ctx, like) {
		u, ok := errors.AsType[*tokenstore.UnreadableError](e.checked("Search", yielded))
		switch {
		case err != nil:
			e.Errorf("Search continued after the error %v", err)
		case yielded == nil:
			found = append(found, t)
		case t == token{}:
			err = yielded
		case !ok || t != token{ID: u.Name}:
			e.Errorf("Search yielded a token with the ID %q and the error %v, want an *UnreadableError with that ID alone", t.ID, yielded)
		default:
			unread[u.Name] = yielded
		}
	}
	return found, unread, err
}

// searches checks that Search(like) yields exactly want, in the order of the IDs.
func (e *storeEnv) searches(s *watched, what string, like token, want ...token) {
	e.TB.Helper()
	want = slices.Clone(want)
	slices.SortFunc(want, func(a, b token) int { return cmp.Compare(a.ID, b.ID) })
	e.after(max(e.b.ListLag, e.b.ReadLag), func() error {
		got, unread, err := e.searchFor(e.ctx, s, like)
		if err != nil || len(unread) > 0 {
			return fmt.Errorf("the search by %s yielded %d records and the errors %v and %v", what, len(got), err, unread)
		}
		if !slices.Equal(idsOf(got), idsOf(want)) {
			return fmt.Errorf("the search by %s yielded %q, want %q", what, idsOf(got), idsOf(want))
		}
		for i := range want {
			if err := differ("the search by "+what, got[i], want[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

var searchCases = []testCase[*storeEnv]{
	{"TS-47", "Search yields the records of a user, of a client, and of both", func(e *storeEnv) {
		s := e.open()
		e.searches(s, "user, in an empty store", token{UserName: "ann"})
		var saved []token
		for _, t := range []token{e.of("ann", ""), e.of("ann", "c1"), e.of("ann", "c2"), e.of("bob", "c1"), e.of("Ann", "C1")} {
			saved = append(saved, e.save(s, t))
		}
		saved = append(saved, e.save(s, token{ClientID: "c1", RefreshToken: e.secret()}))
		own := e.of("bob", "c3")
		own.ID = e.own(0)
		saved = append(saved, e.save(s, own))
		for _, h := range []*watched{s, e.reopen(s)} {
			e.searches(h, "user", token{UserName: "ann"}, saved[0], saved[1], saved[2])
			e.searches(h, "user with an ID of the caller's", token{UserName: "bob"}, saved[3], saved[6])
			e.searches(h, "client", token{ClientID: "c1"}, saved[1], saved[3], saved[5])
			e.searches(h, "user and client", token{UserName: "ann", ClientID: "c1"}, saved[1])
			e.searches(h, "unknown user", token{UserName: "eve"})
			e.searches(h, "unknown client", token{ClientID: "c"})
			e.searches(h, "user and client of two records", token{UserName: "bob", ClientID: "c2"})
		}
	}},
	{"TS-47", "Search compares the issuer and the resource that are given", func(e *storeEnv) {
		s := e.open()
		var saved []token
		for _, t := range servers {
			saved = append(saved, e.take(s, t))
		}
		other := saved[1]
		other.ID, other.UserName, other.RefreshToken = "", "bob", e.secret()
		other = e.take(s, other)
		e.searches(s, "user and client", annsOfOne, saved...)
		e.searches(s, "user", anyOfAnns, saved...)
		e.searches(s, "client", token{ClientID: "c1"}, append(slices.Clone(saved), other)...)
		e.searches(s, "client and issuer", at(2, token{ClientID: "c1"}), saved[1], saved[3], other)
		e.searches(s, "user and issuer", at(2, anyOfAnns), saved[1], saved[3])
		e.searches(s, "user, client and resource", at(5, annsOfOne), saved[3], saved[4])
		e.searches(s, "user, client, issuer and resource", at(4, annsOfOne), saved[3])
		e.searches(s, "client and unknown issuer", token{ClientID: "c1", Issuer: "https://one.example/"})
		e.searches(s, "issuer as resource", token{ClientID: "c1", Resource: saved[1].Issuer})
	}},
	{"TS-47", "Search yields a record that changed or moved once, under its current ID", func(e *storeEnv) {
		s := e.open()
		first := e.save(s, e.of("ann", "c1"))
		code := e.consent(s)
		e.answer(s, code, hour(9))
		merged := e.save(s, token{ID: code.ID, UserName: "ann"})
		alone := e.consent(s)
		e.answer(s, alone, hour(9))
		moved := e.save(s, token{ID: alone.ID, UserName: "bob"})
		if merged.ID != first.ID && !e.b.ForeignFormat {
			e.Errorf("the merged record has the ID %q, want %q", merged.ID, first.ID)
		}
		bare := e.save(s, token{RefreshToken: e.secret(), AccessToken: e.secret()})
		e.search()
		given := e.save(s, token{ID: bare.ID, ClientID: "c1"})
		for _, h := range []*watched{s, e.reopen(s)} {
			e.searches(h, "client", token{ClientID: "c1"}, merged, moved, given)
			e.searches(h, "user", token{UserName: "ann"}, merged)
			e.searches(h, "another user", token{UserName: "bob"}, moved)
		}
		e.remove(s, moved.ID)
		e.searches(s, "client", token{ClientID: "c1"}, merged, given)
		e.searches(s, "user whose record was deleted", token{UserName: "bob"})
	}},
	{"TS-47", "Search by user and client finds a new record after at most the lag of reads", func(e *storeEnv) {
		s := e.open()
		for _, user := range []string{"ann", "bob"} {
			record := e.save(s, e.of(user, "c1"))
			other := e.reopen(s)
			e.after(e.b.ReadLag, func() error {
				got, _, err := e.searchFor(e.ctx, other, token{UserName: user, ClientID: "c1"})
				if err != nil || len(got) != 1 {
					return fmt.Errorf("the search yielded %q and the error %v, want %q", idsOf(got), err, record.ID)
				}
				return differ("the search", got[0], record)
			})
		}
	}},
	{"TS-47", "an unreadable record hides no other", func(e *storeEnv) {
		s := e.openRefusing()
		other := e.save(s, e.of("bob", "c1"))
		for _, reason := range reasons {
			bad, good := e.save(s, e.of("ann", "c1")), e.save(s, e.of("ann", "c2"))
			e.search()
			e.b.Refuse(e.TB, s.TokenStore, bad.ID, reason)
			for _, c := range []struct {
				like, want token
			}{{token{UserName: "ann"}, good}, {token{ClientID: "c1"}, other}} {
				got, unread, err := e.searchFor(e.ctx, s, c.like)
				if err != nil || len(got) != 1 || got[0] != c.want || len(unread) != 1 {
					e.Errorf("Search yielded %q and the errors %v and %v, want %q and an error about %q", idsOf(got), err, unread, c.want.ID, bad.ID)
				}
				e.reports("Search", unread[bad.ID], bad.ID, reason)
			}
			e.b.Refuse(e.TB, s.TokenStore, bad.ID, nil)
			e.searches(s, "user", token{UserName: "ann"}, bad, good)
		}
	}},
	{"TS-47", "a corrupt record hides no other, and matters only to the searches that may find it", func(e *storeEnv) {
		s, bad, good := e.corrupted()
		e.search()
		e.searches(s, "another user", token{UserName: good.UserName}, good)
		got, unread, err := e.searchFor(e.ctx, s, token{ClientID: "c1"})
		if err != nil || len(got) != 1 || got[0] != good || len(unread) != 1 {
			e.Errorf("Search yielded %q and the errors %v and %v, want %q and an error about %q", idsOf(got), err, unread, good.ID, bad.ID)
		}
		e.wants("Search", unread[bad.ID], tokenstore.ErrCorrupt)
		if got, unread, err := e.searchFor(e.ctx, s, token{UserName: bad.UserName}); err != nil || len(got) > 0 || unread[bad.ID] == nil {
			e.Errorf("Search yielded %q and the errors %v and %v, want only an error about %q", idsOf(got), err, unread, bad.ID)
		}
	}},
	{"TS-47", "a search without user and client, or by another field, is refused", func(e *storeEnv) {
		s := e.open()
		record := e.save(s, e.of("ann", "c1"))
		e.search()
		likes := map[string]token{
			"nothing": {}, "an issuer alone": {Issuer: "https://one.example"}, "a resource alone": {Resource: "https://api.example"},
			"an ID alone": {ID: record.ID}, "an expiry": {UserName: "ann", ExpiresAt: hour(1)}, "an invalid user": {UserName: "\xff"},
		}
		for _, f := range fields {
			if slices.Contains([]string{"UserName", "ClientID", "Issuer", "Resource"}, f.name) {
				continue
			}
			like := token{UserName: "ann"}
			*f.of(&like) = cmp.Or(*f.of(&record), string(e.secret()))
			likes["user and "+f.name] = like
		}
		for what, like := range likes {
			got, unread, err := e.searchFor(e.ctx, s, like)
			if !errors.Is(err, tokenstore.ErrInvalidToken) || len(got)+len(unread) > 0 {
				e.Errorf("the search by %s yielded %d records and the error %v, want only ErrInvalidToken", what, len(got)+len(unread), err)
			}
		}
	}},
	{"TS-47", "a search with a context that is done yields only its error", func(e *storeEnv) {
		s := e.open()
		record := e.save(s, e.of("ann", "c1"))
		e.searches(s, "user", token{UserName: "ann"}, record)
		canceled, cancel := context.WithCancel(e.ctx)
		cancel()
		late, cancel := context.WithDeadline(e.ctx, deadline())
		defer cancel()
		for _, ctx := range []context.Context{canceled, late} {
			e.promptly("Search", func() {
				got, unread, err := e.searchFor(ctx, s, token{UserName: "ann"})
				if !errors.Is(err, ctx.Err()) || len(got)+len(unread) > 0 {
					e.Errorf("Search with a context that is done yielded %d records and the error %v", len(got)+len(unread), err)
				}
			})
		}
		e.fuses(func(ctx context.Context) {
			got, unread, err := e.searchFor(ctx, s, token{ClientID: "c1"})
			if err != nil && !errors.Is(err, context.Canceled) || err == nil && len(got) != 1 || len(unread) > 0 {
				e.Errorf("Search whose context was canceled yielded %d records and the errors %v and %v", len(got), err, unread)
			}
		})
	}},
	{"TS-47", "Search stops when the loop ends", func(e *storeEnv) {
		s := e.open()
		for _, client := range []string{"c1", "c2", "c3"} {
			e.save(s, e.of("ann", client))
		}
		e.search()
		if got, _, err := e.searchFor(e.ctx, s, token{UserName: "ann"}); err != nil || len(got) != 3 {
			e.Fatalf("Search yielded %d records and the error %v, want 3 records", len(got), err)
		}
		n := 0
		for range s.TokenStore.(searcher).Search(e.ctx, token{UserName: "ann"}) {
			if n++; n == 2 {
				break
			}
		}
		if n != 2 {
			e.Errorf("Search yielded %d records, want 2, after which the loop ended", n)
		}
	}},
}
