package tokenstore_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/internal/stored"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/doctor"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/memstore"
)

// markerName is the name of the marker, the secret that identifies the keys of a store.
const markerName = "keys"

// unmark deletes the marker, as if a version of this module without markers had written the
// store.
func unmark(t *testing.T, d *memstore.Driver) {
	t.Helper()
	s, err := d.Get(t.Context(), markerName)
	if err == nil {
		err = d.Delete(t.Context(), markerName, s)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func marked(t *testing.T, d driver.Secrets) bool {
	t.Helper()
	_, err := d.Get(t.Context(), markerName)
	if err != nil && !errors.Is(err, driver.ErrNotFound) {
		t.Fatal(err)
	}
	return err == nil
}

// copyRecord copies a record from one driver to another, as an operator with the keys could.
func copyRecord(t *testing.T, from, to *memstore.Driver, name string, c codec.Codec) {
	t.Helper()
	s, err := from.Get(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	at := func(d *memstore.Driver) codec.Codec {
		if p, ok := c.(codec.Placed); ok {
			return p.At(d.Properties().Place)
		}
		return c
	}
	text, err := at(from).Open(name, s.Data)
	if err != nil {
		t.Fatal(err)
	}
	r, err := stored.Decode(text)
	if err == nil {
		s.Data, err = at(to).Seal(name, r.Born, text)
	}
	if err == nil {
		_, err = to.Create(t.Context(), name, s.Payload)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func encryptedWith(t *testing.T, key byte, opts *codec.EncryptedOptions) codec.Codec {
	t.Helper()
	c, err := codec.Encrypted(codec.JSON, aesKey(t, key), opts)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func aesKey(t *testing.T, key byte) codec.AEAD {
	t.Helper()
	a, err := codec.AESGCM(bytes.Repeat([]byte{key}, 32))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// keySets returns sets of keys by name. No two sets fit the same store.
func keySets(t *testing.T) map[string]*tokenstore.Options {
	return map[string]*tokenstore.Options{
		"none":                 nil,
		"names":                {NameKey: nameKey},
		"other names":          {NameKey: oldKey},
		"labels":               {IndexKeys: [][]byte{newKey}},
		"other labels":         {IndexKeys: [][]byte{oldKey}},
		"encryption":           {Codec: encryptedWith(t, 1, nil)},
		"other encryption":     {Codec: encryptedWith(t, 2, nil)},
		"all":                  {NameKey: nameKey, IndexKeys: [][]byte{newKey}, Codec: encryptedWith(t, 1, nil)},
		"names and encryption": {NameKey: nameKey, Codec: encryptedWith(t, 1, nil)},
	}
}

// attempts runs operations, and returns their errors by operation. If the keys of s fit, each
// operation either creates a record or finds no record.
func attempts(ctx context.Context, s *tokenstore.Store) map[string]error {
	bob := token{UserName: "bob", ClientID: "c1", RefreshToken: "r9", AccessToken: "a9"}
	mint := func(context.Context, token) (token, error) { return token{AccessToken: "a"}, nil }
	return map[string]error{
		"find by user":   second(s.FindToken(ctx, token{UserName: "bob", ClientID: "c1"})),
		"find by token":  second(s.FindToken(ctx, token{ClientID: "c1", RefreshToken: "r9"})),
		"find by own ID": second(s.FindTokenByID(ctx, "nobody's")),
		"find by ID":     second(s.FindTokenByID(ctx, "u"+strings.Repeat("a", 32))),
		"save":           second(s.SaveToken(ctx, bob)),
		"save a code":    second(s.SaveToken(ctx, token{ClientID: "c1", GrantToken: "g9"})),
		"delete":         s.DeleteToken(ctx, "nobody's"),
		"refresh":        second(s.Refresh(ctx, "nobody's", "", mint)),
	}
}

// TestStoreKnowsItsKeys checks that operations fail with ErrWrongKeys and write nothing if
// the store was filled under another set of keys.
func TestStoreKnowsItsKeys(t *testing.T) {
	t.Parallel()
	for filled := range keySets(t) {
		for given := range keySets(t) {
			t.Run(filled+"/"+given, func(t *testing.T) {
				t.Parallel()
				ctx, d := t.Context(), memstore.NewDriver()
				owner := storeOn(t, d, keySets(t)[filled])
				ann := saved(t, owner, annsToken)
				if marked(t, d) != (filled != "none") {
					t.Errorf("the store has a marker: %v", marked(t, d))
				}
				before := image(t, d)
				for what, err := range attempts(ctx, storeOn(t, d.Reopen(), keySets(t)[given])) {
					if wrong := errors.Is(err, tokenstore.ErrWrongKeys); wrong != (filled != given) {
						t.Errorf("%s: error %v", what, err)
					} else if wrong && (errors.Is(err, tokenstore.ErrNotFound) || errors.Is(err, tokenstore.ErrCorrupt)) {
						t.Errorf("%s: the error is of two classes: %v", what, err)
					}
				}
				if filled == given {
					return
				}
				if after := image(t, d); fmt.Sprint(after) != fmt.Sprint(before) {
					t.Error("something was written")
				}
				only(t, owner, ann)
			})
		}
	}
}

// TestUnmarkedStoreIsAdopted checks that a store without a marker accepts its own keys,
// gets a marker with the next write, and refuses other keys.
func TestUnmarkedStoreIsAdopted(t *testing.T) {
	t.Parallel()
	for filled, opts := range keySets(t) {
		if filled == "none" {
			continue
		}
		for what, write := range map[string]func(*testing.T, *tokenstore.Store){
			"a change":   func(t *testing.T, s *tokenstore.Store) { saved(t, s, annsNews) },
			"a creation": func(t *testing.T, s *tokenstore.Store) { saved(t, s, token{UserName: "bob", AccessToken: "a"}) },
		} {
			t.Run(filled+"/"+what, func(t *testing.T) {
				t.Parallel()
				d := memstore.NewDriver()
				saved(t, storeOn(t, d, opts), annsToken)
				unmark(t, d)
				if _, err := storeOn(t, d.Reopen(), opts).FindToken(t.Context(), token{UserName: "bob"}); !errors.Is(err, tokenstore.ErrNotFound) {
					t.Errorf("find: %v, want ErrNotFound", err)
				}
				if marked(t, d) {
					t.Error("a search has written the marker")
				}
				for given, other := range keySets(t) {
					if given == filled || given == "none" {
						continue
					}
					if _, err := storeOn(t, d.Reopen(), other).SaveToken(t.Context(), token{UserName: "eve", AccessToken: "a"}); !errors.Is(err, tokenstore.ErrWrongKeys) {
						t.Errorf("with %s: %v, want ErrWrongKeys", given, err)
					}
				}
				write(t, storeOn(t, d.Reopen(), opts))
				if !marked(t, d) {
					t.Error("no marker was written")
				}
			})
		}
	}
}

// TestMarkerIsReadAgainBeforeACreation checks a Store without keys that found the store empty.
// After another process has saved a record under keys, the Store must fail with ErrWrongKeys.
func TestMarkerIsReadAgainBeforeACreation(t *testing.T) {
	t.Parallel()
	d := memstore.NewDriver()
	s := storeOn(t, d.Reopen(), nil)
	if _, err := s.FindToken(t.Context(), annsToken); !errors.Is(err, tokenstore.ErrNotFound) {
		t.Fatalf("in an empty store: %v", err)
	}
	saved(t, storeOn(t, d, keyed()), annsToken)
	for what, err := range attempts(t.Context(), s) {
		if !errors.Is(err, tokenstore.ErrWrongKeys) {
			t.Errorf("%s: error %v, want ErrWrongKeys", what, err)
		}
	}
}

func TestEmptiedStoreTakesOtherKeys(t *testing.T) {
	t.Parallel()
	d := memstore.NewDriver()
	s := storeOn(t, d, keyed())
	saved(t, s, annsToken)
	if err := s.DeleteTokens(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := secretsOf(t, d); n != 0 {
		t.Errorf("%d secrets are left", n)
	}
	other := storeOn(t, d.Reopen(), &tokenstore.Options{NameKey: newKey})
	saved(t, other, annsToken)
	if _, err := s.SaveToken(t.Context(), token{UserName: "bob", AccessToken: "a"}); !errors.Is(err, tokenstore.ErrWrongKeys) {
		t.Errorf("the handle with the earlier keys: error %v, want ErrWrongKeys", err)
	}
	// DeleteToken keeps the marker, unlike DeleteTokens.
	if err := other.DeleteToken(t.Context(), must2(other.GetTokens(t.Context()))[0].ID); err != nil || !marked(t, d) {
		t.Errorf("the marker went with a record: %v", err)
	}
}

// TestMarkerIsNoRecord checks that the marker contains no key and does not count as a
// record.
func TestMarkerIsNoRecord(t *testing.T) {
	t.Parallel()
	d := memstore.NewDriver()
	opts := &tokenstore.Options{NameKey: nameKey, IndexKeys: [][]byte{newKey}, Codec: encryptedWith(t, 'k', nil)}
	s := storeOn(t, d, opts)
	ann := saved(t, s, annsToken)
	only(t, s, ann)
	m, err := d.Get(t.Context(), markerName)
	if err != nil || !json.Valid(m.Data) {
		t.Fatalf("the marker: %v", err)
	}
	for _, key := range [][]byte{nameKey, newKey, bytes.Repeat([]byte{'k'}, 8)} {
		if bytes.Contains(m.Data, key) {
			t.Error("a key is in the marker")
		}
	}
	for token, err := range s.All(t.Context()) {
		if err != nil || token.ID != ann.ID {
			t.Errorf("All yields %q, %v", token.ID, err)
		}
	}
	if left := check(t, s, doctor.CheckOptions{}); len(left) > 0 {
		t.Errorf("Check: %s", describe(left[0]))
	}
	for r, err := range s.Rekey(t.Context(), nil) {
		if err != nil || r.Name == markerName || r.Rewritten {
			t.Errorf("Rekey: %+v, %v", r, err)
		}
	}

	// The error for a damaged marker matches ErrCorrupt, not ErrWrongKeys.
	d.Overwrite(markerName, []byte("damaged"))
	if _, err := storeOn(t, d.Reopen(), opts).FindToken(t.Context(), token{UserName: "bob"}); !errors.Is(err, tokenstore.ErrCorrupt) {
		t.Errorf("find with a damaged marker: %v, want ErrCorrupt", err)
	}
}

// TestMarkerCostsNothingOnAHit checks that a successful search does not read the marker.
// Searches that find no record must together read the marker once.
func TestMarkerCostsNothingOnAHit(t *testing.T) {
	t.Parallel()
	f := newFaulty()
	saved(t, storeOn(t, f, keyed()), annsToken)
	s := storeOn(t, f, keyed())
	gets := f.count("get")
	for range 3 {
		if _, err := s.FindToken(t.Context(), token{UserName: annsToken.UserName, ClientID: annsToken.ClientID}); err != nil {
			t.Fatal(err)
		}
	}
	if n := f.count("get") - gets; n != 3 {
		t.Errorf("3 hits took %d reads", n)
	}
	gets = f.count("get")
	for range 3 {
		if _, err := s.FindToken(t.Context(), token{UserName: "bob", ClientID: "c1"}); !errors.Is(err, tokenstore.ErrNotFound) {
			t.Fatal(err)
		}
	}
	if n := f.count("get") - gets; n != 4 {
		t.Errorf("3 misses took %d reads, want 4", n)
	}
}

// TestFirstWritesUnderDifferentKeys checks that exactly one of two processes with different
// keys succeeds if both make the first write at the same time.
func TestFirstWritesUnderDifferentKeys(t *testing.T) {
	t.Parallel()
	for range 200 {
		d := memstore.NewDriver()
		errs := make(chan error, 2)
		for _, opts := range []*tokenstore.Options{{NameKey: nameKey}, {NameKey: oldKey}} {
			s := storeOn(t, d.Reopen(), opts)
			go func() { errs <- second(s.SaveToken(t.Context(), annsToken)) }()
		}
		first, other := <-errs, <-errs
		if first != nil {
			first, other = other, first
		}
		if first != nil || !errors.Is(other, tokenstore.ErrWrongKeys) || secretsOf(t, d) != 2 {
			t.Fatalf("errors %v and %v, %d secrets", first, other, secretsOf(t, d))
		}
	}
}

// TestMarkerWithoutARecord checks that other processes can use a store whose first writer
// died before or after any of its writes, such as between the marker and the record.
func TestMarkerWithoutARecord(t *testing.T) {
	t.Parallel()
	for _, late := range []bool{false, true} {
		for n := range int64(3) {
			d := memstore.NewDriver()
			_, _ = storeOn(t, doomed(d, n, late), keyed()).SaveToken(t.Context(), annsToken)
			s := storeOn(t, d.Reopen(), keyed())
			only(t, s, saved(t, s, annsToken))
		}
	}
}
