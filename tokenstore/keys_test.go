package tokenstore_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/memstore"
)

var (
	nameKey = []byte("a key of names, 16 bytes or more")
	oldKey  = []byte("an old key of labels, 16 or more")
	newKey  = []byte("a new key of labels, 16 or more")
)

func keyed(index ...[]byte) *tokenstore.Options {
	return &tokenstore.Options{NameKey: nameKey, IndexKeys: index}
}

// labelsOf returns the labels of all secrets in d, sorted and without their nonces.
func labelsOf(t *testing.T, d *memstore.Driver) []string {
	t.Helper()
	var labels []string
	for s, err := range d.List(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range s.Labels {
			labels = append(labels, l.Key+" "+l.Value)
		}
	}
	slices.Sort(labels)
	return labels
}

// searches holds tokens for which FindToken finds Ann's record only by a label.
var searches = map[string]token{
	"the user alone":             {UserName: "ann"},
	"the refresh token":          {ClientID: "c1", RefreshToken: "r1"},
	"the access token":           {AccessToken: "a1"},
	"the grant token":            {ClientID: "c1", GrantToken: "g1"},
	"an earlier refresh token":   {ClientID: "c1", RefreshToken: "r0"},
	"the ID of the caller's own": {ID: "own"},
}

func annWithHistory(t *testing.T, s *tokenstore.Store) {
	t.Helper()
	saved(t, s, token{ID: "own", UserName: "ann", ClientID: "c1", RefreshToken: "r0", AccessToken: "a1", GrantToken: "g1"})
	saved(t, s, token{ID: "own", RefreshToken: "r1"})
}

func TestIndexKeyRotation(t *testing.T) {
	t.Parallel()
	d := memstore.NewDriver()
	annWithHistory(t, storeOn(t, d, keyed(oldKey)))
	before := labelsOf(t, d)
	rotating, after := storeOn(t, d.Reopen(), keyed(newKey, oldKey)), storeOn(t, d.Reopen(), keyed(newKey))
	for what, like := range searches {
		if got, err := rotating.FindToken(t.Context(), like); err != nil || got.ID != "own" {
			t.Errorf("while rotating, by %s: %+v, error %v", what, got, err)
		}
		if _, err := after.FindToken(t.Context(), like); !errors.Is(err, tokenstore.ErrWrongKeys) {
			t.Errorf("with the new key alone, by %s: error %v, want ErrWrongKeys", what, err)
		}
	}
	// A save replaces all labels of the record with labels under the first index key.
	saved(t, rotating, token{ID: "own", APIDomain: "https://api.example.com"})
	for _, label := range labelsOf(t, d) {
		if slices.Contains(before, label) {
			t.Errorf("the label %s is still one of the old key", label)
		}
	}
	for what, like := range searches {
		for _, s := range []*tokenstore.Store{rotating, after} {
			if got, err := s.FindToken(t.Context(), like); err != nil || got.ID != "own" || got.APIDomain == "" {
				t.Errorf("after rotating, by %s: %+v, error %v", what, got, err)
			}
		}
	}
	if all, err := after.GetTokens(t.Context()); err != nil || len(all) != 1 {
		t.Errorf("%d records, error %v, want 1", len(all), err)
	}
}

func TestSaveTokenOldIndexKey(t *testing.T) {
	t.Parallel()
	for what, like := range searches {
		d := memstore.NewDriver()
		annWithHistory(t, storeOn(t, d, keyed(oldKey)))
		like.APIDomain = "https://api.example.com"
		got := saved(t, storeOn(t, d.Reopen(), keyed(newKey, oldKey)), like)
		if got.ID != "own" || got.UserName != "ann" {
			t.Errorf("by %s it is saved as %+v", what, got)
		}
		only(t, storeOn(t, d.Reopen(), keyed(newKey)), got)
	}
}

func TestFindTokenOtherIndexKey(t *testing.T) {
	t.Parallel()
	d := memstore.NewDriver()
	want := saved(t, storeOn(t, d, keyed(oldKey)), annsToken)
	got, err := storeOn(t, d.Reopen(), keyed(newKey)).FindToken(t.Context(), token{UserName: "ann", ClientID: "c1"})
	if err != nil || got != want {
		t.Errorf("%+v, error %v, want\n%+v", got, err, want)
	}
}

func TestNoIndexKeyIsTheNameKey(t *testing.T) {
	t.Parallel()
	d, e := memstore.NewDriver(), memstore.NewDriver()
	saved(t, storeOn(t, d, keyed()), annsToken)
	saved(t, storeOn(t, e, keyed(nameKey)), annsToken)
	if got, want := labelsOf(t, d), labelsOf(t, e); !slices.Equal(got, want) || len(got) == 0 {
		t.Errorf("the labels are %v, want %v", got, want)
	}
}

func TestNamesAndLabels(t *testing.T) {
	t.Parallel()
	seen := map[string]string{}
	for what, opts := range map[string]*tokenstore.Options{
		"no keys": nil, "a name key": {NameKey: nameKey}, "another name key": {NameKey: oldKey}, "an index key": {IndexKeys: [][]byte{newKey}},
	} {
		d := memstore.NewDriver()
		s := storeOn(t, d, opts)
		saved(t, s, token{ID: "own-" + canary, UserName: "user-" + canary, ClientID: "client-" + canary, RefreshToken: canary + "1", AccessToken: canary + "2", GrantToken: canary + "3", ClientSecret: canary + "4"})
		saved(t, s, token{ClientID: "client-" + canary, GrantToken: canary + "5"})
		saved(t, s, token{AccessToken: canary + "6"})
		for name, err := range d.Names(t.Context()) {
			if err != nil || leaks(name) {
				t.Errorf("with %s a name is %q, error %v", what, name, err)
			}
			if name == markerName {
				continue
			}
			if opts == nil || opts.IndexKeys == nil {
				if other, ok := seen[name]; ok {
					t.Errorf("the name %q is the same with %s and with %s", name, what, other)
				}
				seen[name] = what
			}
		}
		for _, label := range labelsOf(t, d) {
			if leaks(label) || strings.Contains(label, "own") {
				t.Errorf("with %s a label is %q", what, label)
			}
			if other, ok := seen[label]; ok && other != what {
				t.Errorf("the label %q is the same with %s and with %s", label, what, other)
			}
			seen[label] = what
		}
	}
}

func TestAnotherNameKeyIsWrong(t *testing.T) {
	t.Parallel()
	d := memstore.NewDriver()
	annWithHistory(t, storeOn(t, d, keyed(oldKey)))
	other := storeOn(t, d.Reopen(), &tokenstore.Options{NameKey: oldKey, IndexKeys: [][]byte{oldKey}})
	for what, like := range searches {
		if _, err := other.FindToken(t.Context(), like); !errors.Is(err, tokenstore.ErrWrongKeys) {
			t.Errorf("by %s: error %v, want ErrWrongKeys", what, err)
		}
	}
}

func TestSaveTokenTooLarge(t *testing.T) {
	t.Parallel()
	big := func(n int) tokenstore.Secret { return tokenstore.Secret(strings.Repeat("x", n)) }
	large := token{RefreshToken: big(24 << 10), AccessToken: big(24 << 10), GrantToken: big(24 << 10), ClientSecret: canary}
	half := token{RefreshToken: big(24 << 10), AccessToken: big(24 << 10)}
	for _, c := range []struct {
		what  string
		setup []token
		save  func(setup []token) token
	}{
		{"a new record of a user", nil, func([]token) token { t := large; t.UserName = "ann"; return t }},
		{"a new record without a user", nil, func([]token) token { return large }},
		{"a record that grows", []token{{UserName: "ann", RefreshToken: half.RefreshToken, AccessToken: half.AccessToken}}, func([]token) token {
			return token{UserName: "ann", GrantToken: big(24 << 10)}
		}},
		{"a record that grows, by its ID", []token{{UserName: "ann", RefreshToken: half.RefreshToken, AccessToken: half.AccessToken}}, func(setup []token) token {
			return token{ID: setup[0].ID, ClientSecret: big(24 << 10)}
		}},
	} {
		f := newFaulty()
		s := storeOn(t, f, nil)
		var setup []token
		for _, given := range c.setup {
			setup = append(setup, saved(t, s, given))
		}
		writes := f.count("create") + f.count("update")
		_, err := s.SaveToken(t.Context(), c.save(setup))
		if !errors.Is(err, tokenstore.ErrTooLarge) || leaks(err.Error()) || len(err.Error()) > 300 {
			t.Errorf("%s: error %v, want ErrTooLarge", c.what, err)
		}
		if n := f.count("create") + f.count("update"); n != writes {
			t.Errorf("%s: %d writes", c.what, n-writes)
		}
	}
}

func TestForeignSecret(t *testing.T) {
	t.Parallel()
	const foreign = `{"password":"` + canary + `"}`
	d := memstore.NewDriver()
	s := storeOn(t, d, nil)
	id := saved(t, s, annsToken).ID
	saved(t, s, token{UserName: "bob", RefreshToken: "r"})
	for _, data := range []string{foreign, canary, "\xff", `{"v":1,"refresh_token":7}`, `{"v":3,"refresh_token":"` + canary + `"}`} {
		d.Overwrite(id, []byte(data))
		for op, err := range map[string]error{
			"find":       second(s.FindToken(t.Context(), annsToken)),
			"find by ID": second(s.FindTokenByID(t.Context(), id)),
			"save":       second(s.SaveToken(t.Context(), annsNews)),
			"delete":     s.DeleteToken(t.Context(), id),
			"delete all": second(nil, s.DeleteTokens(t.Context())),
		} {
			if !errors.Is(err, tokenstore.ErrCorrupt) || leaks(shown(err)) {
				t.Errorf("%s: error %v, want ErrCorrupt", op, err)
			}
		}
		if got, err := d.Get(t.Context(), id); err != nil || string(got.Data) != data {
			t.Errorf("it was changed: error %v", err)
		}
		kept := saved(t, s, token{UserName: "bob", RefreshToken: "r"})
		if got, err := s.GetTokens(t.Context()); !errors.Is(err, tokenstore.ErrCorrupt) || len(got) != 1 || got[0] != kept {
			t.Errorf("the others are %+v, error %v", got, err)
		}
	}
}

func second(_ any, err error) error { return err }
