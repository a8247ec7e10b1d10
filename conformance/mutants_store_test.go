package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// odd is a plain store with some methods replaced. Each function receives the plain store, and
// breaks a rule that the plain store keeps.
type odd struct {
	*plain
	find  func(p *plain, ctx context.Context, like token) (token, error)
	save  func(p *plain, ctx context.Context, t token) (token, error)
	drop  func(p *plain, ctx context.Context, id string) error
	list  func(p *plain, ctx context.Context) ([]token, error)
	clear func(p *plain, ctx context.Context) error
}

func (o odd) FindToken(ctx context.Context, like token) (token, error) {
	if o.find != nil {
		return o.find(o.plain, ctx, like)
	}
	return o.plain.FindToken(ctx, like)
}

func (o odd) FindTokenByID(ctx context.Context, id string) (token, error) {
	return o.FindToken(ctx, token{ID: id})
}

func (o odd) SaveToken(ctx context.Context, t token) (token, error) {
	if o.save != nil {
		return o.save(o.plain, ctx, t)
	}
	return o.plain.SaveToken(ctx, t)
}

func (o odd) DeleteToken(ctx context.Context, id string) error {
	if o.drop != nil {
		return o.drop(o.plain, ctx, id)
	}
	return o.plain.DeleteToken(ctx, id)
}

func (o odd) GetTokens(ctx context.Context) ([]token, error) {
	if o.list != nil {
		return o.list(o.plain, ctx)
	}
	return o.plain.GetTokens(ctx)
}

func (o odd) DeleteTokens(ctx context.Context) error {
	if o.clear != nil {
		return o.clear(o.plain, ctx)
	}
	return o.plain.DeleteTokens(ctx)
}

// oddly returns a backend of odd stores with the functions in o.
func oddly(o odd) Store {
	return shop(func(p *plain) tokenstore.TokenStore {
		made := o
		made.plain = p
		return made
	})
}

// behind returns b with lag as the declared ListLag, even though the stores do not lag.
func behind(b Store, lag time.Duration) Store {
	b.ListLag, b.Settle = lag, func(testing.TB, tokenstore.TokenStore) {}
	return b
}

// first returns the first record, in the order of IDs, for which the function pass returns true.
func (p *plain) first(pass func(r *row) bool) (token, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.candidates(token{}) {
		if r := p.rows[c.Token.ID]; pass(r) {
			return r.token, true
		}
	}
	return token{}, false
}

// store stores t under its ID without any check.
func (p *plain) store(t token) token {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.put(p.rows[t.ID], t)
}

// alter changes a record in place.
func (p *plain) alter(id string, change func(r *row)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r := p.rows[id]; r != nil {
		change(r)
	}
}

// instead returns a replacement for FindToken. If FindToken fails and the function asks returns
// true for the token like, the replacement returns the first record for which the function pass
// returns true.
func instead(asks func(like token) bool, pass func(like token, r *row) bool) func(*plain, context.Context, token) (token, error) {
	return func(p *plain, ctx context.Context, like token) (token, error) {
		t, err := p.FindToken(ctx, like)
		if err != nil && asks(like) {
			if other, ok := p.first(func(r *row) bool { return pass(like, r) }); ok {
				return other, nil
			}
		}
		return t, err
	}
}

// blind saves t as SaveToken does, but does not hold the lock between reading and writing.
// Before the write, blind calls the function change with the merged record.
func blind(ctx context.Context, p *plain, t token, change func(merged *token)) (token, error) {
	p.mu.Lock()
	cs := p.candidates(t)
	p.mu.Unlock()
	plan, err := tokenstore.PlanSave(t, cs)
	if err != nil || len(plan.Absorb) > 0 || t.UserName == "" {
		return p.SaveToken(ctx, t)
	}
	gap(ctx)
	merged := plan.Token
	change(&merged)
	return p.store(merged), nil
}

func storeMutants() []mutant[Store] {
	return slices.Concat(findMutants, saveMutants, issuerMutants, extraMutants, ownerMutants, listingMutants, unchangedMutants, searchMutants, secrecyMutants, refreshMutants)
}

func TestStoreMutants(t *testing.T) { hunt(t, storeMutants(), storeCases(), newStoreEnv) }

var findMutants = []mutant[Store]{
	{"ignores the user that comes with an ID", "Zoho FileStore", "TS-01", oddly(odd{find: func(p *plain, ctx context.Context, like token) (token, error) {
		if like.ID != "" {
			like.UserName, like.ClientID = "", ""
		}
		return p.FindToken(ctx, like)
	}})},
	{"never finds by ID", "Zoho find_token, DBStore", "TS-01", oddly(odd{find: func(p *plain, ctx context.Context, like token) (token, error) {
		if like.ID != "" && like.UserName != "" {
			like.ID = ""
		}
		return p.FindToken(ctx, like)
	}})},
	{"compares names in lower case", "certmagic Safe, MySQL collations", "TS-02", oddly(odd{
		find: func(p *plain, ctx context.Context, like token) (token, error) {
			like.UserName = strings.ToLower(like.UserName)
			return p.FindToken(ctx, like)
		},
		save: func(p *plain, ctx context.Context, t token) (token, error) {
			t.UserName = strings.ToLower(t.UserName)
			return p.SaveToken(ctx, t)
		},
	})},
	{"trims names", "CHAR columns", "TS-02", oddly(odd{find: func(p *plain, ctx context.Context, like token) (token, error) {
		like.UserName = strings.TrimSpace(like.UserName)
		return p.FindToken(ctx, like)
	}})},
	{"finds any client of the user", "Zoho row 1", "TS-02", oddly(odd{find: instead(
		func(like token) bool { return like.UserName != "" && like.ID == "" },
		func(like token, r *row) bool { return r.UserName == like.UserName })})},
	{"takes the first of several", "Zoho FileStore, first row wins", "TS-03", oddly(odd{find: instead(
		func(like token) bool { return like.UserName != "" && like.ClientID == "" },
		func(like token, r *row) bool { return r.UserName == like.UserName })})},
	{"falls through to the tokens of an unknown user", "", "TS-04", oddly(odd{find: instead(
		func(like token) bool { return like.UserName != "" && like.ID == "" },
		func(like token, r *row) bool {
			return like.RefreshToken != "" && r.RefreshToken == like.RefreshToken ||
				like.AccessToken != "" && r.AccessToken == like.AccessToken || like.GrantToken != "" && r.GrantToken == like.GrantToken
		})})},
	{"returns nothing on a match", "Zoho Python DBStore", "TS-05", oddly(odd{find: func(p *plain, ctx context.Context, like token) (token, error) {
		_, err := p.FindToken(ctx, like)
		return token{}, err
	}})},
	{"finds by access token whatever the client", "", "TS-05", oddly(odd{find: instead(
		func(like token) bool { return like.UserName == "" && like.ID == "" && like.AccessToken != "" },
		func(like token, r *row) bool { return r.AccessToken == like.AccessToken })})},
	{"does not compare the client", "Zoho FileStore row 3", "TS-06", oddly(odd{find: instead(
		func(like token) bool { return rowOf(like) == rowGrant },
		func(like token, r *row) bool {
			return like.RefreshToken != "" && r.RefreshToken == like.RefreshToken || like.GrantToken != "" && r.GrantToken == like.GrantToken
		})})},
	{"does not try the refresh token if there is a grant token", "Zoho DBStore", "TS-06", oddly(odd{find: func(p *plain, ctx context.Context, like token) (token, error) {
		if rowOf(like) == rowGrant && like.GrantToken != "" {
			like.RefreshToken = ""
		}
		return p.FindToken(ctx, like)
	}})},
	{"asks for the client secret", "Zoho row 3", "TS-06", oddly(odd{find: func(p *plain, ctx context.Context, like token) (token, error) {
		if rowOf(like) == rowGrant && like.ClientSecret == "" {
			return token{}, wrap("find", "", tokenstore.ErrInvalidToken)
		}
		return p.FindToken(ctx, like)
	}})},
	{"takes the first record, with a user or without", "Zoho FileStore, first row wins", "TS-07", oddly(odd{find: func(p *plain, ctx context.Context, like token) (token, error) {
		if rowOf(like) == rowGrant {
			if t, ok := p.first(func(r *row) bool {
				return r.ClientID == like.ClientID && (r.RefreshToken == like.RefreshToken && like.RefreshToken != "" || r.GrantToken == like.GrantToken && like.GrantToken != "")
			}); ok {
				return t, nil
			}
		}
		return p.FindToken(ctx, like)
	}})},
	{"keeps no earlier tokens", "", "TS-08", oddly(odd{save: func(p *plain, ctx context.Context, t token) (token, error) {
		got, err := p.SaveToken(ctx, t)
		p.alter(got.ID, func(r *row) { r.grants, r.refresh = nil, nil })
		return got, err
	}})},
	{"goes back to an earlier token", "", "TS-08", oddly(odd{save: func(p *plain, ctx context.Context, t token) (token, error) {
		got, err := p.SaveToken(ctx, t)
		if err == nil && t.RefreshToken != "" && got.RefreshToken != t.RefreshToken {
			got.RefreshToken = t.RefreshToken
			p.alter(got.ID, func(r *row) { r.RefreshToken = t.RefreshToken })
		}
		return got, err
	}})},
	{"finds the first row when there is nothing to search for", "Zoho DBStore without a where clause", "TS-09", oddly(odd{find: instead(
		func(like token) bool { return rowOf(like) == rowNone },
		func(token, *row) bool { return true })})},
	{"finds by a refresh token without a client", "Zoho Python DBStore, or before and", "TS-09", oddly(odd{find: instead(
		func(like token) bool { return like.RefreshToken != "" && like.ClientID == "" },
		func(like token, r *row) bool { return r.RefreshToken == like.RefreshToken })})},
	{"saves a refresh token without a client over a user's record", "Zoho Python DBStore, or before and", "TS-09", oddly(odd{save: func(p *plain, ctx context.Context, t token) (token, error) {
		if rowOf(t) == rowNone && t.RefreshToken != "" {
			if r, ok := p.first(func(r *row) bool { return r.RefreshToken == t.RefreshToken }); ok {
				t.ID = r.ID
			}
		}
		return p.SaveToken(ctx, t)
	}})},
	{"returns nothing and no error", "Zoho find_token", "TS-10", oddly(odd{find: func(p *plain, ctx context.Context, like token) (token, error) {
		t, err := p.FindToken(ctx, like)
		if errors.Is(err, tokenstore.ErrNotFound) {
			err = nil
		}
		return t, err
	}})},
	{"returns what was asked for when it is not found", "Zoho PHP FileStore", "TS-10", oddly(odd{find: func(p *plain, ctx context.Context, like token) (token, error) {
		t, err := p.FindToken(ctx, like)
		if errors.Is(err, tokenstore.ErrNotFound) {
			return like, nil
		}
		return t, err
	}})},
	{"does not say between which records it cannot decide", "", "TS-10", oddly(odd{find: func(p *plain, ctx context.Context, like token) (token, error) {
		t, err := p.FindToken(ctx, like)
		if errors.Is(err, tokenstore.ErrAmbiguous) {
			err = wrap("find", "", tokenstore.ErrAmbiguous)
		}
		return t, err
	}})},
	{"calls what it may not see yet absent, and nothing more", "", "TS-10", behind(oddly(odd{}), 5*time.Minute)},
	{"calls what it may not see yet absent, and there is no bound", "", "TS-10", behind(oddly(odd{}), driver.Unbounded)},
	{"pairs a new access token with the old expiry", "Zoho rule 1", "TS-11", oddly(odd{find: func(p *plain, ctx context.Context, like token) (token, error) {
		access := like.AccessToken
		if rowOf(like) != rowAccess {
			like.AccessToken = ""
		}
		t, err := p.FindToken(ctx, like)
		if access != "" {
			t.AccessToken = access
		}
		return t, err
	}})},
	{"does not lay anything over the record", "", "TS-11", oddly(odd{find: func(p *plain, ctx context.Context, like token) (token, error) {
		t, err := p.FindToken(ctx, like)
		if err != nil {
			return t, err
		}
		return p.FindTokenByID(ctx, t.ID)
	}})},
	{"lays an earlier token over the present one", "", "TS-11", oddly(odd{find: func(p *plain, ctx context.Context, like token) (token, error) {
		t, err := p.FindToken(ctx, like)
		if err == nil && like.RefreshToken != "" {
			t.RefreshToken = like.RefreshToken
		}
		return t, err
	}})},
}

var saveMutants = []mutant[Store]{
	{"erases what the token does not have", "Zoho Java DBStore, on duplicate key update", "TS-12", oddly(odd{save: func(p *plain, ctx context.Context, t token) (token, error) {
		got, err := p.SaveToken(ctx, t)
		if err == nil {
			t.ID, t.UserName, t.ClientID = got.ID, got.UserName, got.ClientID
			p.alter(got.ID, func(r *row) { r.token = t })
			return t, nil
		}
		return got, err
	}})},
	{"an answer without a refresh token erases it", "apify/mcpc #373", "TS-12", oddly(odd{save: func(p *plain, ctx context.Context, t token) (token, error) {
		got, err := p.SaveToken(ctx, t)
		if err == nil && t.AccessToken != "" && t.RefreshToken == "" {
			p.alter(got.ID, func(r *row) { r.RefreshToken = "" })
			got.RefreshToken = ""
		}
		return got, err
	}})},
	{"saves by the first match and not by the ID", "Zoho DBStore", "TS-12", oddly(odd{save: func(p *plain, ctx context.Context, t token) (token, error) {
		if r, ok := p.first(func(r *row) bool { return r.AccessToken == t.AccessToken && t.AccessToken != "" }); ok {
			t.ID, t.UserName, t.ClientID = r.ID, r.UserName, r.ClientID
		}
		return p.SaveToken(ctx, t)
	}})},
	{"keeps the expiry of the access token before", "", "TS-13", oddly(odd{save: func(p *plain, ctx context.Context, t token) (token, error) {
		before, _ := p.find(token{ID: t.ID})
		got, err := p.SaveToken(ctx, t)
		if err == nil && got.ExpiresAt.IsZero() {
			got.ExpiresAt = before.ExpiresAt
			p.alter(got.ID, func(r *row) { r.ExpiresAt = got.ExpiresAt })
		}
		return got, err
	}})},
	{"writes what is there already", "", "TS-14", oddly(odd{save: func(p *plain, ctx context.Context, t token) (token, error) {
		got, err := p.SaveToken(ctx, t)
		if err == nil {
			return p.store(got), nil
		}
		return got, err
	}})},
	{"returns no ID", "Zoho DBStore, update", "TS-15", oddly(odd{save: func(p *plain, ctx context.Context, t token) (token, error) {
		got, err := p.SaveToken(ctx, t)
		got.ID = ""
		return got, err
	}})},
	{"makes the ID from the refresh token", "zcrm-python-sdk 2.x", "TS-15", oddly(odd{save: func(p *plain, ctx context.Context, t token) (token, error) {
		got, err := p.SaveToken(ctx, t)
		if err == nil && got.RefreshToken != "" && derived().MatchString(got.ID) {
			p.mu.Lock()
			defer p.mu.Unlock()
			r := p.rows[got.ID]
			delete(p.rows, got.ID)
			r.ID = digest("u", string(got.RefreshToken))
			p.rows[r.ID] = r
			return r.token, nil
		}
		return got, err
	}})},
	{"creates a record of nothing", "", "TS-17", oddly(odd{save: func(p *plain, ctx context.Context, t token) (token, error) {
		got, err := p.SaveToken(ctx, t)
		if errors.Is(err, tokenstore.ErrNotFound) {
			return p.store(t), nil
		}
		return got, err
	}})},
	{"two saves of different fields leave one", "read, merge, put", "TS-19", oddly(odd{save: func(p *plain, ctx context.Context, t token) (token, error) {
		return blind(ctx, p, t, func(*token) {})
	}})},
	{"saves a redacted token", "tokens that went through a log", "TS-22", oddly(odd{save: func(p *plain, ctx context.Context, t token) (token, error) {
		got, err := p.SaveToken(ctx, t)
		if t.RefreshToken == "[redacted]" {
			return p.store(t), nil
		}
		return got, err
	}})},
	{"makes UTF-8 of the fields", "encoding/json", "TS-22", oddly(odd{save: func(p *plain, ctx context.Context, t token) (token, error) {
		t.UserName = strings.ToValidUTF8(t.UserName, "\ufffd")
		return p.SaveToken(ctx, t)
	}})},
	{"cuts off what is too large", "MySQL without strict mode", "TS-22", oddly(odd{save: func(p *plain, ctx context.Context, t token) (token, error) {
		for _, f := range contents {
			*f.of(&t) = (*f.of(&t))[:min(len(*f.of(&t)), 4<<10)]
		}
		return p.SaveToken(ctx, t)
	}})},
	{"writes first and finds out then that it is too large", "", "TS-22", oddly(odd{save: func(p *plain, ctx context.Context, t token) (token, error) {
		got, err := p.SaveToken(ctx, t)
		if errors.Is(err, tokenstore.ErrTooLarge) && t.ID != "" {
			p.alter(t.ID, func(r *row) { r.token = tokenstore.Merge(r.token, t) })
		}
		return got, err
	}})},
	{"keeps seconds", "expires_in", "TS-23", oddly(odd{save: func(p *plain, ctx context.Context, t token) (token, error) {
		t.ExpiresAt = t.ExpiresAt.Truncate(time.Second)
		return p.SaveToken(ctx, t)
	}})},
	{"keeps times of a zone", "", "TS-23", oddly(odd{find: func(p *plain, ctx context.Context, like token) (token, error) {
		t, err := p.FindToken(ctx, like)
		t.ExpiresAt = t.ExpiresAt.In(time.FixedZone("here", 3600))
		return t, err
	}})},
	{"rounds times", "", "TS-23", oddly(odd{save: func(p *plain, ctx context.Context, t token) (token, error) {
		t.ExpiresAt = t.ExpiresAt.Round(time.Millisecond)
		return p.SaveToken(ctx, t)
	}})},
}

var ownerMutants = []mutant[Store]{
	{"moves a record to another user", "Zoho FileStore, by ID only", "TS-16", oddly(odd{save: func(p *plain, ctx context.Context, t token) (token, error) {
		got, err := p.SaveToken(ctx, t)
		if errors.Is(err, tokenstore.ErrIDMismatch) {
			p.alter(t.ID, func(r *row) { r.token = tokenstore.Merge(r.token, t) })
			return t, nil
		}
		return got, err
	}})},
	{"a second client overwrites the first", "Zoho rule 1", "TS-16", oddly(odd{save: func(p *plain, ctx context.Context, t token) (token, error) {
		if r, ok := p.first(func(r *row) bool { return r.UserName == t.UserName && t.UserName != "" && t.ID == "" }); ok {
			t.ID, t.ClientID = r.ID, r.ClientID
		}
		return p.SaveToken(ctx, t)
	}})},
	{"a new ID makes a second record of the user", "Zoho FileStore, by ID only", "TS-16", oddly(odd{save: func(p *plain, ctx context.Context, t token) (token, error) {
		got, err := p.SaveToken(ctx, t)
		if errors.Is(err, tokenstore.ErrIDMismatch) {
			if _, known := p.first(func(r *row) bool { return r.ID == t.ID }); !known {
				return p.store(t), nil
			}
		}
		return got, err
	}})},
	{"two processes create a user's record at once", "Zoho stores, read, then insert", "TS-18", oddly(odd{save: func(p *plain, ctx context.Context, t token) (token, error) {
		return blind(ctx, p, t, func(merged *token) {
			if merged.ID == "" {
				merged.ID = "row " + text(8)
			}
		})
	}})},
	{"two users are mixed", "max(id)+1, read, then write", "TS-18", oddly(odd{save: func(p *plain, ctx context.Context, t token) (token, error) {
		if t.UserName == "" || t.ID != "" {
			return p.SaveToken(ctx, t)
		}
		p.mu.Lock()
		next := strconv.Itoa(len(p.rows) + 1)
		p.mu.Unlock()
		return blind(ctx, p, t, func(merged *token) {
			if merged.ID == "" {
				merged.ID = next
			}
		})
	}})},
	{"the eleventh user fails", "Zoho DBStore, max(id) of text", "TS-18", oddly(odd{save: func(p *plain, ctx context.Context, t token) (token, error) {
		return numbered(ctx, p, t, func(id string) error { return tokenstore.ErrUnavailable })
	}})},
	{"the eleventh user overwrites the tenth", "Zoho Java DBStore, on duplicate key update", "TS-18", oddly(odd{save: func(p *plain, ctx context.Context, t token) (token, error) {
		return numbered(ctx, p, t, func(string) error { return nil })
	}})},
	{"makes a second record of a token without a key", "", "TS-09", oddly(odd{save: func(p *plain, ctx context.Context, t token) (token, error) {
		if rowOf(t) != rowNone || t.AccessToken == "" {
			return p.SaveToken(ctx, t)
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		if old := p.rows[p.id(t)]; old != nil {
			return p.put(old, tokenstore.Merge(old.token, t)), nil
		}
		return p.put(nil, t), nil
	}})},
	{"a record cannot get a user who holds its code", "", "TS-20", oddly(odd{save: func(p *plain, ctx context.Context, t token) (token, error) {
		code, err := p.find(token{ID: t.ID})
		other, err2 := p.find(token{UserName: t.UserName, ClientID: code.ClientID})
		if err == nil && err2 == nil && code.ID != other.ID && code.GrantToken != "" && code.GrantToken == other.GrantToken {
			return token{}, wrap("save", t.ID, tokenstore.ErrAmbiguous)
		}
		return p.SaveToken(ctx, t)
	}})},
	{"a promoted record stays beside the user's", "", "TS-20", oddly(odd{save: func(p *plain, ctx context.Context, t token) (token, error) {
		before, err := p.FindTokenByID(ctx, t.ID)
		got, err2 := p.SaveToken(ctx, t)
		if err == nil && before.UserName == "" && got.UserName != "" {
			p.store(before)
		}
		return got, err2
	}})},
	{"a second consent wins though it expires earlier", "", "TS-20", oddly(odd{save: func(p *plain, ctx context.Context, t token) (token, error) {
		before, err := p.FindTokenByID(ctx, t.ID)
		if err == nil && before.UserName == "" && t.UserName != "" {
			t.AccessToken, t.RefreshToken, t.ExpiresAt = before.AccessToken, before.RefreshToken, before.ExpiresAt
		}
		return p.SaveToken(ctx, t)
	}})},
	{"the other ID is forgotten", "", "TS-20", oddly(odd{find: func(p *plain, ctx context.Context, like token) (token, error) {
		t, err := p.FindToken(ctx, like)
		if err == nil && like.ID != "" && t.ID != like.ID {
			return token{}, wrap("find", like.ID, tokenstore.ErrNotFound)
		}
		return t, err
	}})},
	{"of many other IDs two are kept", "bounded lists of former names", "TS-20", oddly(odd{save: func(p *plain, ctx context.Context, t token) (token, error) {
		got, err := p.SaveToken(ctx, t)
		p.mu.Lock()
		defer p.mu.Unlock()
		n := 0
		for alias, id := range p.aliases {
			if id == got.ID && alias != t.ID {
				if n++; n > 1 {
					delete(p.aliases, alias)
				}
			}
		}
		return got, err
	}})},
	{"a user's second consent is refused", "", "TS-20", oddly(odd{save: func(p *plain, ctx context.Context, t token) (token, error) {
		if other, err := p.find(token{UserName: t.UserName, ClientID: "c1"}); err == nil && t.ID != "" && t.UserName != "" && other.ID != t.ID {
			return token{}, wrap("save", t.ID, tokenstore.ErrIDMismatch)
		}
		return p.SaveToken(ctx, t)
	}})},
	{"trims IDs", "CSV readers", "TS-21", oddly(odd{save: func(p *plain, ctx context.Context, t token) (token, error) {
		t.ID = strings.TrimSpace(t.ID)
		return p.SaveToken(ctx, t)
	}})},
	{"gives every record an ID of its own", "Zoho DBStore, auto increment", "TS-21", oddly(odd{save: func(p *plain, ctx context.Context, t token) (token, error) {
		if _, err := p.FindTokenByID(ctx, t.ID); err != nil {
			t.ID = ""
		}
		return p.SaveToken(ctx, t)
	}})},
	{"takes an ID in the form of a derived one", "", "TS-21", oddly(odd{save: func(p *plain, ctx context.Context, t token) (token, error) {
		got, err := p.SaveToken(ctx, t)
		if errors.Is(err, tokenstore.ErrInvalidToken) && derived().MatchString(t.ID) {
			return p.store(t), nil
		}
		return got, err
	}})},
}

// numbered saves a user's new record under max(id)+1, where max compares strings. If that ID is
// in use, numbered calls the function taken, and overwrites the record unless this function
// returns an error.
func numbered(ctx context.Context, p *plain, t token, taken func(id string) error) (token, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	highest, known := "0", t.UserName == "" || t.ID != ""
	for id, r := range p.rows {
		highest = max(highest, id)
		known = known || r.UserName == t.UserName && r.ClientID == t.ClientID
	}
	if !known {
		n, _ := strconv.Atoi(highest)
		t.ID = strconv.Itoa(n + 1)
		if p.rows[t.ID] != nil {
			if err := taken(t.ID); err != nil {
				return token{}, wrap("save", t.ID, err)
			}
			return p.put(p.rows[t.ID], t), nil
		}
	}
	got, err := p.save(t)
	return got, wrap("save", t.ID, err)
}

var listingMutants = []mutant[Store]{
	{"deleting what is not there fails", "Zoho FileStore", "TS-24", oddly(odd{drop: func(p *plain, ctx context.Context, id string) error {
		if _, err := p.FindTokenByID(ctx, id); err != nil {
			return err
		}
		return p.DeleteToken(ctx, id)
	}})},
	{"an index finds what was deleted", "an index beside the records", "TS-24", shop(func(p *plain) tokenstore.TokenStore { return &indexed{plain: p} })},
	{"the other ID survives deletion", "", "TS-24", oddly(odd{drop: func(p *plain, ctx context.Context, id string) error {
		t, err := p.FindTokenByID(ctx, id)
		if err == nil && t.ID != id {
			return nil
		}
		return p.DeleteToken(ctx, id)
	}})},
	{"a later write brings a deleted record back", "Gitlawb/zero #668, lost tombstones", "TS-25", shop(func(p *plain) tokenstore.TokenStore { return &tombstones{plain: p} })},
	{"a save brings back what it has read", "read, merge, put", "TS-25", oddly(odd{save: func(p *plain, ctx context.Context, t token) (token, error) {
		return blind(ctx, p, t, func(*token) {})
	}})},
	{"is in the order of saving", "Zoho FileStore", "TS-26", oddly(odd{list: func(p *plain, ctx context.Context) ([]token, error) {
		ts, err := p.GetTokens(ctx)
		slices.Reverse(ts)
		return ts, err
	}})},
	{"no records are an error", "", "TS-26", oddly(odd{list: func(p *plain, ctx context.Context) ([]token, error) {
		ts, err := p.GetTokens(ctx)
		if err == nil && len(ts) == 0 {
			err = wrap("list", "", tokenstore.ErrNotFound)
		}
		return ts, err
	}})},
	{"lists a record under each of its IDs", "", "TS-26", oddly(odd{list: func(p *plain, ctx context.Context) ([]token, error) {
		ts, err := p.GetTokens(ctx)
		p.mu.Lock()
		defer p.mu.Unlock()
		for alias, id := range p.aliases {
			if r := p.rows[id]; r != nil {
				t := r.token
				t.ID = alias
				ts = append(ts, t)
			}
		}
		return ts, err
	}})},
	{"reads on from the second page for ever, or stops at the first", "", "TS-26", oddly(odd{list: func(p *plain, ctx context.Context) ([]token, error) {
		ts, err := p.GetTokens(ctx)
		return ts[:min(len(ts), 20)], err
	}})},
	{"leaves records without a user", "", "TS-27", oddly(odd{clear: func(p *plain, ctx context.Context) error {
		ts, err := p.GetTokens(ctx)
		for _, t := range ts {
			if t.UserName != "" {
				err = errors.Join(err, p.DeleteToken(ctx, t.ID))
			}
		}
		return err
	}})},
	{"one record that cannot be read fails all", "", "TS-28", oddly(odd{list: func(p *plain, ctx context.Context) ([]token, error) {
		ts, err := p.GetTokens(ctx)
		if err != nil {
			ts = nil
		}
		return ts, err
	}})},
	{"hides a record that cannot be read", "", "TS-28", oddly(odd{list: func(p *plain, ctx context.Context) ([]token, error) {
		ts, err := p.GetTokens(ctx)
		if errors.Is(err, tokenstore.ErrCorrupt) {
			err = nil
		}
		return ts, err
	}})},
	{"takes another incarnation for the deletion that it could not confirm", "a model of AWS, 5 of 2,800 histories", "TS-24", oddly(odd{drop: func(p *plain, ctx context.Context, id string) error {
		if p.stale && p.lose {
			p.stale, p.lose = false, false
			return ctx.Err()
		}
		return p.DeleteToken(ctx, id)
	}})},
	{"one record that is refused fails all", "AWS, one key that is denied", "TS-28", oddly(odd{list: func(p *plain, ctx context.Context) ([]token, error) {
		ts, err := p.GetTokens(ctx)
		if err != nil && !errors.Is(err, tokenstore.ErrCorrupt) {
			ts = nil
		}
		return ts, err
	}})},
	{"hides a record that is refused", "Secret Manager, one version that is disabled", "TS-28", oddly(odd{list: func(p *plain, ctx context.Context) ([]token, error) {
		ts, err := p.GetTokens(ctx)
		if errors.Is(err, tokenstore.ErrRefused) {
			err = nil
		}
		return ts, err
	}})},
	{"does not say which record is refused", "", "TS-28", oddly(odd{list: func(p *plain, ctx context.Context) ([]token, error) {
		ts, err := p.GetTokens(ctx)
		if errors.Is(err, tokenstore.ErrDenied) {
			err = wrap("list", "", tokenstore.ErrDenied)
		}
		return ts, err
	}})},
	{"deletes none if one is refused", "", "TS-28", oddly(odd{clear: func(p *plain, ctx context.Context) error {
		if _, err := p.GetTokens(ctx); err != nil && !errors.Is(err, tokenstore.ErrCorrupt) {
			return err
		}
		return p.DeleteTokens(ctx)
	}})},
	{"deletes what it is refused to read", "", "TS-28", oddly(odd{clear: func(p *plain, ctx context.Context) error {
		_, err := p.GetTokens(ctx)
		p.mu.Lock()
		for id, r := range p.rows {
			if r.unread != nil && !errors.Is(r.unread, tokenstore.ErrCorrupt) {
				delete(p.rows, id)
			}
		}
		p.mu.Unlock()
		return errors.Join(err, p.DeleteTokens(ctx))
	}})},
	{"takes the record that it can read for the only one of a user", "", "TS-28", oddly(odd{find: func(p *plain, ctx context.Context, like token) (token, error) {
		t, err := p.FindToken(ctx, like)
		if errors.Is(err, tokenstore.ErrAmbiguous) {
			if other, ok := p.first(func(r *row) bool { return r.UserName == like.UserName && r.unread == nil }); ok {
				return other, nil
			}
		}
		return t, err
	}})},
	{"creates a second record beside one that is refused", "", "TS-28", oddly(odd{save: func(p *plain, ctx context.Context, t token) (token, error) {
		got, err := p.SaveToken(ctx, t)
		if errors.Is(err, tokenstore.ErrDenied) && t.ID == "" {
			t.ID = "copy"
			return p.store(t), nil
		}
		return got, err
	}})},
	{"writes over a record that cannot be read", "", "TS-28", oddly(odd{save: func(p *plain, ctx context.Context, t token) (token, error) {
		if got, err := p.find(token{UserName: t.UserName, ClientID: t.ClientID}); errors.Is(err, tokenstore.ErrCorrupt) {
			return p.store(tokenstore.Merge(got, t)), nil
		}
		return p.SaveToken(ctx, t)
	}})},
	{"deletes a record that cannot be read", "", "TS-28", oddly(odd{drop: func(p *plain, ctx context.Context, id string) error {
		p.alter(id, func(r *row) { r.unread = nil })
		return p.DeleteToken(ctx, id)
	}})},
	{"takes a record that cannot be read for nothing", "", "TS-28", oddly(odd{find: func(p *plain, ctx context.Context, like token) (token, error) {
		t, err := p.FindToken(ctx, like)
		if errors.Is(err, tokenstore.ErrCorrupt) {
			err = wrap("find", like.ID, tokenstore.ErrNotFound)
		}
		return t, err
	}})},
	{"answers from a cache of its own", "external-secrets #3312", "TS-34", shop(func(p *plain) tokenstore.TokenStore { return &cached{plain: p, known: map[string]token{}} })},
	{"reads everything when it is opened", "token files", "TS-34", shop(func(p *plain) tokenstore.TokenStore {
		p.mu.Lock()
		defer p.mu.Unlock()
		old := &plain{shelf: &shelf{rows: map[string]*row{}, aliases: map[string]string{}}}
		for id, r := range p.rows {
			old.rows[id] = r
		}
		return odd{plain: p, list: func(p *plain, ctx context.Context) ([]token, error) {
			if len(old.rows) > 0 {
				return old.GetTokens(ctx)
			}
			return p.GetTokens(ctx)
		}}
	})},
}

// A hasty is a plain store whose DeleteIfUnchanged calls the function drop.
type hasty struct {
	*plain
	drop func(p *plain, ctx context.Context, t token) error
}

func (h hasty) DeleteIfUnchanged(ctx context.Context, t token) error {
	return h.drop(h.plain, ctx, t)
}

func hastily(drop func(p *plain, ctx context.Context, t token) error) Store {
	return shop(func(p *plain) tokenstore.TokenStore { return hasty{p, drop} })
}

var unchangedMutants = []mutant[Store]{
	{"compares in one step and deletes in the next", "read, compare, delete", "TS-43", hastily(func(p *plain, ctx context.Context, t token) error {
		now, err := p.FindTokenByID(ctx, t.ID)
		switch {
		case errors.Is(err, tokenstore.ErrNotFound):
			return nil
		case err != nil:
			return err
		case now != t:
			return wrap("delete", t.ID, tokenstore.ErrConflict)
		}
		gap(ctx)
		return p.DeleteToken(ctx, t.ID)
	})},
	{"compares the tokens alone", "", "TS-43", hastily(func(p *plain, ctx context.Context, t token) error {
		now, err := p.FindTokenByID(ctx, t.ID)
		if err == nil && now.AccessToken == t.AccessToken && now.RefreshToken == t.RefreshToken {
			return p.DeleteIfUnchanged(ctx, now)
		}
		return p.DeleteIfUnchanged(ctx, t)
	})},
	{"fails where there is no record", "", "TS-43", hastily(func(p *plain, ctx context.Context, t token) error {
		if _, err := p.FindTokenByID(ctx, t.ID); err != nil {
			return err
		}
		return p.DeleteIfUnchanged(ctx, t)
	})},
}

// indexed is a store that also finds records by an index of refresh tokens. DeleteToken does not
// update the index.
type indexed struct {
	*plain
	index sync.Map // refresh token to the token
}

func (s *indexed) SaveToken(ctx context.Context, t token) (token, error) {
	got, err := s.plain.SaveToken(ctx, t)
	s.index.Store(got.RefreshToken, got)
	return got, err
}

func (s *indexed) FindToken(ctx context.Context, like token) (token, error) {
	t, err := s.plain.FindToken(ctx, like)
	if got, ok := s.index.Load(like.RefreshToken); ok && errors.Is(err, tokenstore.ErrNotFound) && got.(token).ClientID == like.ClientID {
		return got.(token), nil
	}
	return t, err
}

// tombstones is a store whose next save restores the records that the same handle deleted.
type tombstones struct {
	*plain
	mu      sync.Mutex
	dropped []token
}

func (s *tombstones) DeleteToken(ctx context.Context, id string) error {
	t, err := s.plain.FindTokenByID(ctx, id)
	if err == nil {
		s.mu.Lock()
		s.dropped = append(s.dropped, t)
		s.mu.Unlock()
	}
	return s.plain.DeleteToken(ctx, id)
}

func (s *tombstones) SaveToken(ctx context.Context, t token) (token, error) {
	got, err := s.plain.SaveToken(ctx, t)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, old := range s.dropped {
		if old.ID != got.ID {
			s.store(old)
		}
	}
	s.dropped = nil
	return got, err
}

// cached is a store that answers FindTokenByID from a cache of earlier results.
type cached struct {
	*plain
	mu    sync.Mutex
	known map[string]token
}

func (s *cached) FindTokenByID(ctx context.Context, id string) (token, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t, ok := s.known[id]; ok {
		return t, nil
	}
	t, err := s.plain.FindTokenByID(ctx, id)
	if err == nil {
		s.known[id] = t
	}
	return t, err
}

var secrecyMutants = []mutant[Store]{
	{"ignores the context", "", "TS-29", oddly(odd{save: func(p *plain, ctx context.Context, t token) (token, error) {
		return p.SaveToken(context.WithoutCancel(ctx), t)
	}})},
	{"calls a context that is done unavailable", "", "TS-29", oddly(odd{list: func(p *plain, ctx context.Context) ([]token, error) {
		ts, err := p.GetTokens(ctx)
		if err != nil && !errors.Is(err, tokenstore.ErrCorrupt) {
			err = wrap("list", "", tokenstore.ErrUnavailable)
		}
		return ts, err
	}})},
	{"returns bare errors", "", "TS-30", oddly(odd{find: func(p *plain, ctx context.Context, like token) (token, error) {
		t, err := p.FindToken(ctx, like)
		return t, errors.Unwrap(err)
	}})},
	{"returns errors without a class", "", "TS-30", oddly(odd{find: func(p *plain, ctx context.Context, like token) (token, error) {
		t, err := p.FindToken(ctx, like)
		if err != nil {
			err = &tokenstore.Error{Op: "find", Store: "plain", Err: errors.New(err.Error())}
		}
		return t, err
	}})},
	{"quotes the token in an error", "SDKs that log a request", "TS-31", oddly(odd{find: func(p *plain, ctx context.Context, like token) (token, error) {
		t, err := p.FindToken(ctx, like)
		if errors.Is(err, tokenstore.ErrAmbiguous) {
			err = &tokenstore.Error{Op: "find", Store: "plain", Err: fmt.Errorf("%w: %s", err, string(like.AccessToken))}
		}
		return t, err
	}})},
	{"quotes half a token in an error", "masks that show the beginning", "TS-31", oddly(odd{save: func(p *plain, ctx context.Context, t token) (token, error) {
		got, err := p.SaveToken(ctx, t)
		if errors.Is(err, tokenstore.ErrIDMismatch) && len(t.RefreshToken) > 20 {
			err = &tokenstore.Error{Op: "save", Store: "plain", Err: fmt.Errorf("%w: %x…", err, []byte(t.RefreshToken[:20]))}
		}
		return got, err
	}})},
	{"puts a part of the refresh token into the ID", "zcrm-python-sdk 2.x", "TS-31", oddly(odd{save: func(p *plain, ctx context.Context, t token) (token, error) {
		if t.UserName == "" || t.ID != "" || t.RefreshToken == "" {
			return p.SaveToken(ctx, t)
		}
		t.ID = "python_" + t.UserName + "_" + string(t.RefreshToken[:20])
		return p.SaveToken(ctx, t)
	}})},
	{"returns the list that it keeps", "scs memstore", "TS-32", shop(func(p *plain) tokenstore.TokenStore { return &lending{plain: p} })},
	{"shares a variable between calls", "", "TS-33", shop(func(p *plain) tokenstore.TokenStore { return &shared{plain: p} })},
}

// lending is a store whose GetTokens returns the same slice until a record changes.
type lending struct {
	*plain
	mu     sync.Mutex
	writes int64
	list   []token
}

func (s *lending) GetTokens(ctx context.Context) ([]token, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.plain.mu.Lock()
	writes := s.plain.writes
	s.plain.mu.Unlock()
	if s.list == nil || s.writes != writes {
		ts, err := s.plain.GetTokens(ctx)
		if err != nil {
			return ts, err
		}
		s.list, s.writes = ts, writes
	}
	return s.list, nil
}

// shared is a store that keeps the token of a save in a variable that all saves share.
type shared struct {
	*plain
	t atomic.Pointer[token]
}

func (s *shared) SaveToken(ctx context.Context, t token) (token, error) {
	mine := t
	s.t.Store(&mine)
	gap(ctx)
	other := *s.t.Load()
	if t.UserName != "" && other.UserName != "" && t.ID == "" && other.ID == "" {
		t.AccessToken = other.AccessToken
	}
	return s.plain.SaveToken(ctx, t)
}

// The rows of the table under "Matching" in package tokenstore. rowOther is row 0 or row 1.
const (
	rowOther = iota
	rowAccess
	rowGrant
	rowNone
)

// rowOf returns the row of the table that applies to the token like.
func rowOf(like token) int {
	switch {
	case like.ID != "" || like.UserName != "":
		return rowOther
	case like.AccessToken != "" && like.ClientID == "" && like.ClientSecret == "":
		return rowAccess
	case like.ClientID != "" && (like.GrantToken != "" || like.RefreshToken != ""):
		return rowGrant
	}
	return rowNone
}
