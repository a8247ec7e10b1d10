package migrate_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/filestore"
	"github.com/tokenkeep/tokenkeep/tokenstore/memstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/migrate"
)

type (
	token = tokenstore.Token
	store = tokenstore.TokenStore
)

func in(t *testing.T, tokens ...token) *tokenstore.Store {
	t.Helper()
	return save(t, memstore.New(nil), tokens...)
}

func save[S store](t *testing.T, s S, tokens ...token) S {
	t.Helper()
	for _, token := range tokens {
		if _, err := s.SaveToken(t.Context(), token); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// file returns a store on a token file that does not exist yet.
func file(t *testing.T) *filestore.Store {
	t.Helper()
	s, err := filestore.New(filepath.Join(t.TempDir(), "tokens.csv"), nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// user returns a record of the named user. The access token of the record is also name.
func user(name string) token {
	return token{UserName: name, ClientID: "c", AccessToken: tokenstore.Secret(name)}
}

func plan(t *testing.T, from migrate.Reader, to store, o migrate.Options) *migrate.Migration {
	t.Helper()
	m, err := migrate.Plan(t.Context(), from, to, &o)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// access returns the access tokens in a store, by user.
func access(t *testing.T, s store) map[string]string {
	t.Helper()
	tokens, err := s.GetTokens(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, token := range tokens {
		all[token.UserName] = string(token.AccessToken)
	}
	return all
}

// TestPlan checks that Plan reports conflicts, and that Run then writes nothing. With SkipBad,
// Run must copy the other records.
func TestPlan(t *testing.T) {
	t.Parallel()
	older := user("ann")
	older.AccessToken = "older"
	for name, test := range map[string]struct {
		from, to []token
		kind     migrate.Kind
		text     string
	}{
		"conflict":     {[]token{user("ann")}, []token{older}, migrate.KindConflict, "in another state"},
		"other client": {[]token{{UserName: "ann", AccessToken: "ann"}}, []token{user("ann")}, migrate.KindConflict, "another client"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			from, to := in(t, append(test.from, user("bob"))...), in(t, test.to...)
			before := access(t, to)
			m := plan(t, from, to, migrate.Options{})
			r, err := m.Run(t.Context())
			if !errors.Is(err, migrate.ErrConflicts) || len(r.Problems) != 1 || r.Create != 1 || r.Written != 0 {
				t.Fatalf("%+v, %v", r, err)
			}
			if p := r.Problems[0]; p.Kind != test.kind || p.User != "ann" || !strings.Contains(p.Err.Error(), test.text) {
				t.Errorf("problem %+v", p)
			}
			if after := access(t, to); len(after) != len(before) {
				t.Errorf("written: %v", after)
			}
			m = plan(t, from, to, migrate.Options{SkipBad: true})
			if r, err := m.Run(t.Context()); !errors.Is(err, migrate.ErrPartial) || r.Verified != 1 || access(t, to)["bob"] != "bob" {
				t.Errorf("SkipBad: %+v, %v", r, err)
			}
		})
	}
}

// A reader is a source that has only GetTokens.
type reader []token

func (r reader) GetTokens(context.Context) ([]token, error) { return r, nil }

// TestPlan_Label checks that the text of a problem names other records by Options.Label.
func TestPlan_Label(t *testing.T) {
	t.Parallel()
	label := func(i int) string { return fmt.Sprintf("line %d", i+2) }
	twice, number := reader{user("ann"), user("bob"), user("ann")}, reader{{ID: "1", AccessToken: "a"}, {ID: "1", AccessToken: "b"}}
	for _, test := range []struct {
		from   reader
		record int
		want   string
	}{
		{twice, 2, "it is the same record as line 2"},
		{number, 1, "it has the same ID as line 2"},
		{reader{user("ann"), {UserName: "bob"}}, 1, "it has no access, refresh or grant token"},
	} {
		for _, policy := range []migrate.Policy{migrate.Stop, migrate.Merge} {
			m := plan(t, test.from, memstore.New(nil), migrate.Options{Label: label, KeepIDs: true, OnConflict: policy})
			problems := m.Report().Problems
			if len(problems) != 1 || problems[0].Record != test.record || problems[0].Err.Error() != test.want {
				t.Errorf("%s: %+v, want %q", policy, problems, test.want)
			}
		}
	}
}

// TestMerge checks that with the policy Merge, Run saves each record as SaveToken does. Run
// must not list a target without SaveAll.
func TestMerge(t *testing.T) {
	t.Parallel()
	source := reader{{UserName: "ann", AccessToken: "newer"}, user("bob"), user("eve")}
	for name, to := range map[string]store{"portable": memstore.New(nil), "file": file(t)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			save(t, to, user("ann"), user("bob"))
			writable := to
			if name == "portable" {
				writable = noList{to}
			}
			var done int
			m := plan(t, source, nil, migrate.Options{
				OnConflict: migrate.Merge,
				Writable:   func(context.Context) (store, error) { return writable, nil },
				Progress:   func(p migrate.Progress) { done = p.Done },
			})
			r, err := m.Run(t.Context())
			if err != nil || r.Verified != 3 || r.Create != 1 || r.Update != 1 || r.Unchanged != 1 || r.Written != 2 || done == 0 {
				t.Errorf("%+v, %v, %d done", r, err, done)
			}
			if got := access(t, to); len(got) != 3 || got["ann"] != "newer" || got["eve"] != "eve" {
				t.Errorf("target: %v", got)
			}
		})
	}
}

// TestMerge_Counts checks that with the policy Merge, the report counts the effect of each
// save. Earlier saves may change the effect of later saves.
func TestMerge_Counts(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		from reader
		to   token
		want [3]int // created, updated, unchanged
		all  int    // number of records after Run
	}{
		"a token that an earlier record replaces": {
			reader{{UserName: "ann", ClientID: "c", AccessToken: "newer"}, {AccessToken: "ann"}}, user("ann"), [3]int{1, 1, 0}, 2,
		},
		"nothing but an ID tells the record": {reader{{ID: "6", RefreshToken: "r"}}, token{ID: "6", RefreshToken: "r"}, [3]int{0, 0, 1}, 1},
		"a token tells the record":           {reader{{AccessToken: "ann", RefreshToken: "r"}}, user("ann"), [3]int{0, 1, 0}, 1},
		"the same as a record that is left out": {
			reader{{ID: "1", AccessToken: "a"}, {ID: "1", UserName: "eve", AccessToken: "b"}, {ID: "3", AccessToken: "b"}}, token{ID: "9", AccessToken: "c"}, [3]int{2, 0, 0}, 3,
		},
	} {
		for kind, to := range map[string]store{"memstore": memstore.New(nil), "filestore": file(t)} {
			t.Run(name+" "+kind, func(t *testing.T) {
				t.Parallel()
				save(t, to, test.to)
				r, _ := plan(t, test.from, to, migrate.Options{OnConflict: migrate.Merge, KeepIDs: true, SkipBad: true}).Run(t.Context())
				if got := [3]int{r.Create, r.Update, r.Unchanged}; got != test.want || r.Verified != got[0]+got[1]+got[2] {
					t.Errorf("created, updated, unchanged: %v, want %v; %+v", got, test.want, r)
				}
				if tokens, err := to.GetTokens(t.Context()); err != nil || len(tokens) != test.all {
					t.Errorf("%d records, want %d; %v", len(tokens), test.all, err)
				}
			})
		}
	}
}

func TestPlan_Arguments(t *testing.T) {
	t.Parallel()
	for text, test := range map[string]struct {
		to store
		o  migrate.Options
	}{
		`OnConflict cannot be "keep"`:  {memstore.New(nil), migrate.Options{OnConflict: migrate.Keep}},
		`Duplicates cannot be "newer"`: {memstore.New(nil), migrate.Options{Duplicates: migrate.Newer}},
		"there is no target":           {nil, migrate.Options{}},
	} {
		if m, err := migrate.Plan(t.Context(), reader{user("ann")}, test.to, &test.o); m != nil || err == nil || err.Error() != "migrate: "+text {
			t.Errorf("%v, want %s", err, text)
		}
	}
	if m, err := migrate.Plan(t.Context(), reader{}, nil, &migrate.Options{OnConflict: migrate.Merge}); m != nil || err == nil {
		t.Errorf("Merge without a target: %v", err)
	}
}

// TestKeep checks that the policy Keep accepts records that no field identifies, and refuses
// invalid records.
func TestKeep(t *testing.T) {
	t.Parallel()
	source := reader{user("ann"), {ID: "2", UserName: "eve"}, {ID: "3", ClientID: "c"}, {ID: "4", UserName: "a\nb"}}
	r := plan(t, source, memstore.New(nil), migrate.Options{Duplicates: migrate.Keep}).Report()
	if r.Create != 3 || len(r.Problems) != 1 || r.Problems[0].ID != "4" {
		t.Errorf("%+v", r)
	}
}

// A noList is a store that returns an error from GetTokens.
type noList struct{ store }

func (noList) GetTokens(context.Context) ([]token, error) { return nil, errors.New("listed") }

// TestPlan_Duplicates checks that Stop reports duplicates as problems, that Merge merges
// duplicates, and that Keep keeps duplicates as separate records.
func TestPlan_Duplicates(t *testing.T) {
	t.Parallel()
	older, newer := user("ann"), user("ann")
	older.ExpiresAt, newer.ExpiresAt = time.UnixMilli(1000), time.UnixMilli(2000)
	newer.AccessToken = "newer"
	for policy, want := range map[migrate.Policy]migrate.Report{
		migrate.Stop:  {Records: 2, Create: 1},
		migrate.Merge: {Records: 2, Create: 1, Merged: 1},
		migrate.Keep:  {Records: 2, Create: 2},
	} {
		r := plan(t, reader{older, newer}, memstore.New(nil), migrate.Options{Duplicates: policy}).Report()
		if r.Records != want.Records || r.Create != want.Create || r.Merged != want.Merged || len(r.Problems) != 2-r.Create-r.Merged {
			t.Errorf("%s: %+v", policy, r)
		}
	}
	to := memstore.New(nil)
	r, err := plan(t, reader{older, newer}, to, migrate.Options{Duplicates: migrate.Merge}).Run(t.Context())
	if err != nil || r.Verified != 1 || access(t, to)["ann"] != "newer" {
		t.Errorf("%+v, %v", r, err)
	}
}

// A picky store refuses the records of one user. Its SaveAll refuses all tokens if a token
// of that user is among them.
type picky struct {
	*filestore.Store

	user string
}

func (s picky) SaveAll(ctx context.Context, tokens []token) ([]token, error) {
	if slices.ContainsFunc(tokens, func(t token) bool { return t.UserName == s.user }) {
		return nil, tokenstore.ErrInvalidToken
	}
	return s.Store.SaveAll(ctx, tokens)
}

func (s picky) SaveToken(ctx context.Context, t token) (token, error) {
	if t.UserName == s.user {
		return token{}, tokenstore.ErrInvalidToken
	}
	return s.Store.SaveToken(ctx, t)
}

// TestPlan_DeleteUnverified checks that no record is deleted under a policy that does not
// verify records.
func TestPlan_DeleteUnverified(t *testing.T) {
	t.Parallel()
	from := in(t, user("ann"))
	m, err := migrate.Plan(t.Context(), from, memstore.New(nil), &migrate.Options{OnConflict: migrate.Merge, DeleteSource: true})
	if err == nil {
		_, err = m.Run(t.Context())
	}
	if err == nil || len(access(t, from)) != 1 {
		t.Errorf("%v, and the source has %v", err, access(t, from))
	}
}

// TestRun_Batch checks that the report names a record that cannot be saved, and that the
// other records are saved.
func TestRun_Batch(t *testing.T) {
	t.Parallel()
	to := picky{file(t), "bob"}
	r, err := plan(t, in(t, user("ann"), user("bob"), user("eve")), to, migrate.Options{}).Run(t.Context())
	if !errors.Is(err, migrate.ErrPartial) || r.Written != 2 || r.Verified != 2 || len(r.Failed) != 1 || r.Failed[0].User != "bob" {
		t.Errorf("%+v, %v", r, err)
	}
}

// A fickle store applies the function change to the records of ann that it reads. If change
// returns an error, the record seems to be missing.
type fickle struct {
	*tokenstore.Store

	change func(*token) error
}

func (s fickle) FindToken(ctx context.Context, like token) (token, error) {
	t, err := s.Store.FindToken(ctx, like)
	if err == nil && t.UserName == "ann" {
		err = s.change(&t)
	}
	return t, err
}

func (s fickle) FindTokens(ctx context.Context, like []token) ([]token, error) {
	tokens, err := s.Store.FindTokens(ctx, like)
	changed := []token{}
	for _, t := range tokens {
		if t.UserName != "ann" || s.change(&t) == nil {
			changed = append(changed, t)
		}
	}
	return changed, err
}

func (s fickle) FindTokenByID(ctx context.Context, id string) (token, error) {
	return s.FindToken(ctx, token{ID: id})
}

// TestRun_Verify checks that a record that reads back with a changed field is not verified,
// and stays in the source.
func TestRun_Verify(t *testing.T) {
	t.Parallel()
	ann := token{
		UserName: "ann", ClientID: "c", ClientSecret: "s", RefreshToken: "r", AccessToken: "a", GrantToken: "g",
		ExpiresAt: time.UnixMilli(1000).UTC(), RedirectURL: "https://a", APIDomain: "https://b",
	}
	for name, change := range map[string]func(*token) error{
		"client":        func(t *token) error { t.ClientID = "x"; return nil },
		"client secret": func(t *token) error { t.ClientSecret = "x"; return nil },
		"refresh token": func(t *token) error { t.RefreshToken = "x"; return nil },
		"access token":  func(t *token) error { t.AccessToken = "x"; return nil },
		"grant token":   func(t *token) error { t.GrantToken = "x"; return nil },
		"expiry":        func(t *token) error { t.ExpiresAt = t.ExpiresAt.Add(time.Millisecond); return nil },
		"redirect URL":  func(t *token) error { t.RedirectURL = ""; return nil },
		"API domain":    func(t *token) error { t.APIDomain = "x"; return nil },
		"ID":            func(t *token) error { t.ID = "x"; return nil },
		"everything":    func(*token) error { return tokenstore.ErrNotFound },
	} {
		from := in(t, ann, user("bob"))
		r, err := plan(t, from, fickle{memstore.New(nil), change}, migrate.Options{DeleteSource: true}).Run(t.Context())
		if !errors.Is(err, migrate.ErrPartial) || r.Verified != 1 || len(r.Failed) != 1 {
			t.Errorf("%s differs: %+v, %v", name, r, err)
		}
		if left := access(t, from); len(left) != 1 || left["ann"] == "" {
			t.Errorf("%s differs: left in the source: %v", name, left)
		}
	}
}

// TestRun_Lag checks that Run repeats the read of a record that is not visible yet, until
// Options.Lag has passed.
func TestRun_Lag(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ lag, late time.Duration }{{time.Minute, 30 * time.Second}, {time.Minute, 2 * time.Minute}} {
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			to := fickle{memstore.New(nil), func(*token) error {
				if time.Since(began) < test.late {
					return tokenstore.ErrNotFound
				}
				return nil
			}}
			r, err := plan(t, in(t, user("ann")), to, migrate.Options{Lag: test.lag}).Run(t.Context())
			if want := test.late < test.lag; (err == nil) != want || (r.Verified == 1) != want {
				t.Errorf("%v late: %+v, %v", test.late, r, err)
			}
		})
	}
}

// TestRun_SameStore checks that Run removes no record if source and target are the same
// store, even if one or both stores are wrapped.
func TestRun_SameStore(t *testing.T) {
	t.Parallel()
	d := memstore.NewDriver()
	open := func() *tokenstore.Store {
		s, err := tokenstore.New(d.Reopen(), nil)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	kind := func(*token) error { return nil }
	f := save(t, file(t), user("ann"))
	save(t, open(), user("ann"))
	for name, test := range map[string]struct {
		from, to store
		want     error
	}{
		"two handles":    {open(), open(), migrate.ErrSameStore},
		"wrapped source": {fickle{open(), kind}, open(), migrate.ErrSameStore},
		"wrapped both":   {fickle{open(), kind}, fickle{open(), kind}, migrate.ErrSameStore},
		"one file":       {f, picky{f, ""}, migrate.ErrSameStore},
		"without SameAs": {open(), plain{memstore.New(nil)}, nil},
	} {
		r, err := plan(t, test.from, test.to, migrate.Options{DeleteSource: true}).Run(t.Context())
		if err == nil || test.want != nil && !errors.Is(err, test.want) || r.Deleted != 0 || r.Written != 0 {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
	r, err := plan(t, open(), memstore.New(nil), migrate.Options{DeleteSource: true}).Run(t.Context())
	if err != nil || r.Deleted != 1 {
		t.Errorf("two stores: %+v, %v", r, err)
	}
}

// A plain store has only the methods of a TokenStore.
type plain struct{ store }

// TestRun_Writable checks that the target is opened for writing once, after the plan.
func TestRun_Writable(t *testing.T) {
	t.Parallel()
	var opened atomic.Int32
	planned, to := memstore.New(nil), memstore.New(nil)
	o := migrate.Options{Writable: func(context.Context) (store, error) { opened.Add(1); return to, nil }}
	m := plan(t, in(t, user("ann")), planned, o)
	if opened.Load() != 0 {
		t.Error("opened for the plan")
	}
	if r, err := m.Run(t.Context()); err != nil || r.Verified != 1 || opened.Load() != 1 || access(t, to)["ann"] != "ann" {
		t.Errorf("%+v, %v, opened %d times", r, err, opened.Load())
	}
}

// TestRun_Again checks that a second migration completes an interrupted one.
func TestRun_Again(t *testing.T) {
	t.Parallel()
	from, to := in(t, user("ann"), user("bob")), memstore.New(nil)
	m := plan(t, from, to, migrate.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if r, err := m.Run(ctx); !errors.Is(err, migrate.ErrPartial) || !errors.Is(err, context.Canceled) || len(r.Failed) != 0 {
		t.Errorf("canceled: %+v, %v", r, err)
	}
	save(t, to, user("ann"))
	r, err := plan(t, from, to, migrate.Options{}).Run(t.Context())
	if err != nil || r.Unchanged != 1 || r.Written != 1 || r.Verified != 2 {
		t.Errorf("again: %+v, %v", r, err)
	}
}
