package tokenstore_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/internal/stored"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/memstore"
)

// sealed returns options with a name key and an encryption key.
func sealed(t *testing.T) *tokenstore.Options {
	t.Helper()
	key, err := codec.AESGCM(bytes.Repeat([]byte{7}, 32))
	if err != nil {
		t.Fatal(err)
	}
	c, err := codec.Encrypted(codec.JSON, key, nil)
	if err != nil {
		t.Fatal(err)
	}
	return &tokenstore.Options{NameKey: nameKey, Codec: c}
}

// TestRecordOfAnotherStoreIsCorrupt checks that a store does not read a record that was
// copied from another store with the same keys.
func TestRecordOfAnotherStoreIsCorrupt(t *testing.T) {
	t.Parallel()
	staging, production := memstore.NewDriver(), memstore.NewDriver()
	id := saved(t, storeOn(t, production, sealed(t)), annsToken).ID
	if other := saved(t, storeOn(t, staging, sealed(t)), annsToken).ID; other != id {
		t.Fatalf("the IDs are %q and %q", id, other)
	}
	theirs, err := staging.Get(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	production.Overwrite(id, theirs.Data)
	s := storeOn(t, production.Reopen(), sealed(t))
	for what, err := range map[string]error{
		"find": second(s.FindTokenByID(t.Context(), id)), "save": second(s.SaveToken(t.Context(), annsNews)),
		"delete": s.DeleteToken(t.Context(), id),
	} {
		if !errors.Is(err, tokenstore.ErrCorrupt) {
			t.Errorf("%s: error %v, want ErrCorrupt", what, err)
		}
	}
	if now, err := production.Get(t.Context(), id); err != nil || !bytes.Equal(now.Data, theirs.Data) {
		t.Errorf("it was written over: %v", err)
	}
}

// TestEarlierIncarnationIsCorrupt checks that a store does not read a state of a deleted
// record that was restored over a later record with the same name.
func TestEarlierIncarnationIsCorrupt(t *testing.T) {
	t.Parallel()
	for what, opts := range map[string]*tokenstore.Options{"plain": nil, "encrypted": sealed(t)} {
		d := memstore.NewDriver()
		s := storeOn(t, d, opts)
		id := saved(t, s, annsToken).ID
		before, err := d.Get(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.DeleteToken(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		saved(t, s, annsToken)
		d.Overwrite(id, before.Data)
		if _, err := storeOn(t, d.Reopen(), opts).FindTokenByID(t.Context(), id); !errors.Is(err, tokenstore.ErrCorrupt) {
			t.Errorf("%s: error %v, want ErrCorrupt", what, err)
		}
	}
}

// TestRecordWithoutAPlaceIsBound checks that an encrypted record that is not bound to a
// driver's Place is readable, and that Rekey binds the record.
func TestRecordWithoutAPlaceIsBound(t *testing.T) {
	t.Parallel()
	d := memstore.NewDriver()
	s := storeOn(t, d, sealed(t))
	id := saved(t, s, annsToken).ID
	now, err := d.Get(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	c := sealed(t).Codec
	placed := c.(codec.Placed).At(d.Properties().Place)
	text, err := placed.Open(id, now.Data)
	if err != nil {
		t.Fatal(err)
	}
	r, err := stored.Decode(text)
	if err != nil {
		t.Fatal(err)
	}
	unbound, err := c.Seal(id, r.Born, text)
	if err != nil {
		t.Fatal(err)
	}
	d.Overwrite(id, unbound)
	if _, err := s.FindTokenByID(t.Context(), id); err != nil {
		t.Fatalf("it is not read: %v", err)
	}
	n := 0
	for done, err := range s.Rekey(t.Context(), nil) {
		if err != nil {
			t.Fatal(err)
		}
		if done.Rewritten {
			n++
		}
	}
	if now, err = d.Get(t.Context(), id); err != nil || n != 1 || !placed.(codec.Rotating).Current(id, now.Data) {
		t.Errorf("%d were bound: %v", n, err)
	}
}
