package tokenstore_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rules"
	"github.com/tokenkeep/tokenkeep/tokenstore/memstore"
)

type (
	token     = tokenstore.Token
	candidate = tokenstore.Candidate
)

// class returns the error class that err matches, or nil if err matches none.
func class(err error) error {
	for _, class := range errorClasses {
		if errors.Is(err, class) {
			return class
		}
	}
	return nil
}

// A dealer derives tokens from bytes. The fields have few different values, so that the
// tokens often match.
type dealer struct{ bytes []byte }

func (d *dealer) next(n int) int {
	if len(d.bytes) == 0 {
		return 0
	}
	v := int(d.bytes[0]) % n
	d.bytes = d.bytes[1:]
	return v
}

func (d *dealer) text(prefix string) string {
	return []string{"", prefix + "1", prefix + "2"}[d.next(3)]
}

func (d *dealer) token() token {
	return token{
		ID: d.text(""), UserName: d.text("u"), ClientID: d.text("c"), ClientSecret: tokenstore.Secret(d.text("s")),
		RefreshToken: tokenstore.Secret(d.text("r")), AccessToken: tokenstore.Secret(d.text("a")), GrantToken: tokenstore.Secret(d.text("g")),
		ExpiresAt: []time.Time{{}, at(1).UTC(), at(2).UTC()}[d.next(3)], RedirectURL: d.text("x"), APIDomain: d.text("d"),
	}
}

// A listed is a record of a list, with all earlier states of the record. A Store, in contrast,
// keeps only some earlier tokens.
type listed struct {
	token
	updated time.Time
	was     []token // earlier states of the record, and records that were merged into it
}

// A list is a model of a store. Its searches look at every record.
type list []listed

// A recall says which earlier tokens of a record count in a search: grant and refresh tokens if
// past is set, and access tokens if access is set. Earlier IDs always count.
type recall struct{ past, access bool }

// recalls lists the permitted recalls. A Store keeps only some earlier tokens, so any of the
// recalls may apply to an operation.
var recalls = []recall{{}, {past: true}, {past: true, access: true}}

// candidates returns the records of the list as candidates in a search for the token like.
func (l list) candidates(like token, m recall) []candidate {
	var all []candidate
	for _, r := range l {
		c := candidate{Token: r.token, Updated: r.updated}
		for _, w := range r.was {
			client := w.ClientID == r.ClientID || w.ClientID == "" // the client may have been set before the token was replaced
			c.Former.ID = c.Former.ID || like.ID != "" && w.ID == like.ID && w.ID != r.ID
			c.Former.GrantToken = c.Former.GrantToken || m.past && client && like.GrantToken != "" && w.GrantToken == like.GrantToken && w.GrantToken != r.GrantToken
			c.Former.RefreshToken = c.Former.RefreshToken || m.past && client && like.RefreshToken != "" && w.RefreshToken == like.RefreshToken && w.RefreshToken != r.RefreshToken
			c.Former.AccessToken = c.Former.AccessToken || m.access && like.AccessToken != "" && w.AccessToken == like.AccessToken && w.AccessToken != r.AccessToken
		}
		all = append(all, c)
	}
	return all
}

// apply returns the list after a save that follows the plan p. now is the time of the save,
// and id is the ID that the Store returned for the record.
func (l list) apply(p tokenstore.Plan, id string, now time.Time) list {
	next := listed{token: p.Token, updated: now}
	next.ID = id
	var kept list
	for i, r := range l {
		switch {
		case i == p.Record && !p.Changed:
			return l
		case i == p.Record, slices.Contains(p.Absorb, i):
			next.was = append(append(next.was, r.was...), r.token)
		default:
			kept = append(kept, r)
		}
	}
	return append(kept, next)
}

func (l list) has(id string) bool {
	return slices.ContainsFunc(l, func(r listed) bool { return r.ID == id })
}

func (l list) had(id string) bool {
	return slices.ContainsFunc(l, func(r listed) bool {
		return slices.ContainsFunc(r.was, func(w token) bool { return w.ID == id })
	})
}

// knew reports whether a record, before it had a user, held the token from which the name
// of a record for t derives.
func (l list) knew(t token) bool {
	return slices.ContainsFunc(l, func(r listed) bool {
		return slices.ContainsFunc(r.was, func(w token) bool {
			switch {
			case w.UserName != "" || t.UserName != "":
				return false
			case t.GrantToken != "" || t.RefreshToken != "":
				return w.ClientID == t.ClientID && w.GrantToken == t.GrantToken && (t.GrantToken != "" || w.RefreshToken == t.RefreshToken)
			}
			return w.AccessToken == t.AccessToken
		})
	})
}

func (l list) tokens() []token {
	var all []token
	for _, r := range l {
		all = append(all, r.token)
	}
	slices.SortFunc(all, func(a, b token) int { return strings.Compare(a.ID, b.ID) })
	return all
}

// revealed returns t as text, including the secrets, which are only test data.
func revealed(t token) string {
	return fmt.Sprintf("{ID %q, user %q, client %q, secret %q, refresh %q, access %q, grant %q, expires %v, %q, %q}", t.ID, t.UserName, t.ClientID, string(t.ClientSecret),
		string(t.RefreshToken), string(t.AccessToken), string(t.GrantToken), t.ExpiresAt.Unix(), t.RedirectURL, t.APIDomain)
}

func (r listed) String() string {
	text := revealed(r.token)
	for _, w := range r.was {
		text += "\n\t\twas " + revealed(w)
	}
	return text
}

func (l list) String() string {
	text := ""
	for _, r := range l {
		text += "\n\t" + r.String()
	}
	return text
}

// FuzzIndexes checks that a Store, which searches by names and labels, has the same results
// as a list, which searches all records. Some tokens have a user, and some have a chosen or
// derived ID. Some saves assign a record to a user or merge records.
func FuzzIndexes(f *testing.F) {
	f.Add([]byte{})
	for row := range byte(5) {
		f.Add([]byte{0, 0, 0, 1, 0, 1, 1, 1, 1, 0, 0, 0, 0, row, 1, 0, 0, 2, 1, 0, 0, 0, 0, 2, row, 0, 1, 0, 1, 1, 0, 0, 0, 0, 3, row, 0, 0, 0, 0, 0, 0, 0, 0, 0})
		f.Add([]byte{0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 1, 0, 0, 0, 0, row, 0, 0, 1, 0, 1, 0, 1, 0, 0, 0})
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 300 {
			return
		}
		memory, d := memstore.NewDriver(), dealer{data}
		var model list
		now := at(0).UTC()
		ids := []string{"own1", "own2"} // the IDs that tokens can have: these two, and those of saved records
		for len(d.bytes) > 0 {
			now = now.Add(time.Second)
			s := storeOn(t, memory.Reopen(), &tokenstore.Options{Now: func() time.Time { return now }})
			op, given := d.next(4), d.token()
			if given.ID != "" {
				given.ID = ids[d.next(len(ids))]
			}
			// Skip a derived ID that no record has or had. Such an ID may still find a record
			// by the token from which the ID was derived.
			gone := given.ID != "" && !strings.HasPrefix(given.ID, "own") && !model.has(given.ID) && !model.had(given.ID)
			switch {
			case gone:
			case op <= 1:
				got, err := s.SaveToken(t.Context(), given)
				var ways []string
				ok := false
				for _, m := range recalls {
					p, planErr := tokenstore.PlanSave(given, model.candidates(given, m))
					ways = append(ways, fmt.Sprintf("%s over %d and %v, %v", revealed(p.Token), p.Record, p.Absorb, planErr))
					switch {
					case planErr != nil:
						ok = err != nil && class(err) == class(planErr)
					case p.Record < 0 && model.knew(given):
						ok = errors.Is(err, tokenstore.ErrIDMismatch)
					}
					if planErr == nil && !ok {
						want := p.Token
						if moves := p.Record >= 0 && model[p.Record].UserName == "" && want.UserName != ""; want.ID == "" || moves && !strings.HasPrefix(want.ID, "own") {
							want.ID = got.ID
						}
						if ok = err == nil && got == want && (p.Record >= 0 || !model.had(got.ID)); ok {
							model = model.apply(p, got.ID, now)
							ids = append(ids, got.ID)
						}
					}
					if ok {
						break
					}
				}
				if !ok {
					t.Fatalf("saving %s\namong %v\nbrings %s, %v; the list says\n%s", revealed(given), model, revealed(got), err, strings.Join(ways, "\nor "))
				}
			case op == 2:
				got, err := s.FindToken(t.Context(), given)
				if !model.finds(given, got, err) {
					t.Fatalf("finding %s\namong %v\nbrings %s, %v", revealed(given), model, revealed(got), err)
				}
			case given.ID != "":
				err := s.DeleteToken(t.Context(), given.ID)
				at, _ := tokenstore.Select(token{ID: given.ID}, model.candidates(given, recall{past: true}))
				left, listErr := s.GetTokens(t.Context())
				if err != nil || listErr != nil {
					t.Fatalf("deleting %q: %v, %v", given.ID, err, listErr)
				}
				if at >= 0 && (model[at].ID == given.ID || len(left) < len(model)) {
					model = slices.Delete(model, at, at+1)
				}
			}
			if got, err := s.GetTokens(t.Context()); err != nil || !slices.Equal(got, model.tokens()) {
				t.Fatalf("the store holds %+v, error %v, the list\n%+v", got, err, model.tokens())
			}
			for _, r := range model {
				for _, like := range []token{
					{ID: r.ID}, {UserName: r.UserName, ClientID: r.ClientID}, {UserName: r.UserName}, {AccessToken: r.AccessToken},
					{ClientID: r.ClientID, RefreshToken: r.RefreshToken}, {ClientID: r.ClientID, GrantToken: r.GrantToken},
				} {
					if rules.KeyOf(like.Fields()) == rules.KeyNone {
						continue
					}
					if got, err := s.FindToken(t.Context(), like); !model.finds(like, got, err) {
						t.Fatalf("finding %s\namong %v\nbrings %s, %v", revealed(like), model, revealed(got), err)
					}
				}
			}
		}
	})
}

// finds reports whether a search of the list for the token like may return got and err.
func (l list) finds(like, got token, err error) bool {
	for _, m := range recalls {
		candidates := l.candidates(like, m)
		i, want := tokenstore.Select(like, candidates)
		if want != nil {
			if err != nil && class(err) == class(want) {
				return true
			}
			continue
		}
		news := like
		if candidates[i].Former.GrantToken {
			news.GrantToken = ""
		}
		if candidates[i].Former.RefreshToken {
			news.RefreshToken = ""
		}
		if err == nil && got == tokenstore.Merge(candidates[i].Token, news) {
			return true
		}
	}
	return false
}
