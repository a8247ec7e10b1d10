package tokenstore_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/doctor"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/memstore"
)

// A mortalLeaser is a mortal that implements driver.Leaser.
type mortalLeaser struct {
	*mortal
	leaser driver.Leaser
}

func (m mortalLeaser) Note(ctx context.Context, name string, base driver.Secret, note string) error {
	made, answered := m.lives()
	var err error
	if made {
		err = m.leaser.Note(ctx, name, base, note)
	}
	if !answered {
		return errCrashed
	}
	return err
}

// A keyChange holds the options of programs at each step of a change of keys. The first
// step has only the old keys, and the last step only the new keys. The new keys come after the
// old keys in prepared, and before the old keys in both.
type keyChange struct {
	name                       string
	old, prepared, both, after func(*testing.T) *tokenstore.Options
}

func keyChanges() []keyChange {
	none := []byte(tokenstore.NoKey)
	plain := func(*testing.T) *tokenstore.Options { return &tokenstore.Options{LeaseTTL: time.Second} }
	with := func(name []byte, other [][]byte, labels [][]byte, c func(*testing.T) codec.Codec) func(*testing.T) *tokenstore.Options {
		return func(t *testing.T) *tokenstore.Options {
			o := &tokenstore.Options{NameKey: name, OtherNameKeys: other, IndexKeys: labels, LeaseTTL: time.Second}
			if c != nil {
				o.Codec = c(t)
			}
			return o
		}
	}
	sealing := func(key byte, opts *codec.EncryptedOptions) func(*testing.T) codec.Codec {
		return func(t *testing.T) codec.Codec { return encryptedWith(t, key, opts) }
	}
	rotating := func(first, second byte) func(*testing.T) codec.Codec {
		return func(t *testing.T) codec.Codec {
			return encryptedWith(t, first, &codec.EncryptedOptions{Old: []codec.AEAD{aesKey(t, second)}})
		}
	}
	all := with(nameKey, nil, [][]byte{newKey}, sealing(1, nil))
	readsBoth := with(nil, [][]byte{nameKey}, [][]byte{none, newKey}, sealing(1, &codec.EncryptedOptions{WritePlain: true}))
	writesBoth := with(nameKey, [][]byte{none}, [][]byte{newKey, none}, sealing(1, &codec.EncryptedOptions{AllowPlain: true}))
	return []keyChange{
		{"keys come", plain, readsBoth, writesBoth, all},
		{"keys go", all, writesBoth, readsBoth, plain},
		{
			"keys are replaced", all,
			with(nameKey, [][]byte{oldKey}, [][]byte{newKey, oldKey}, rotating(1, 2)),
			with(oldKey, [][]byte{nameKey}, [][]byte{oldKey, newKey}, rotating(2, 1)),
			with(oldKey, nil, [][]byte{oldKey}, sealing(2, nil)),
		},
		{"a key of names comes", plain, with(nil, [][]byte{nameKey}, nil, nil), with(nameKey, [][]byte{none}, nil, nil), with(nameKey, nil, nil, nil)},
	}
}

// populate saves records of several forms. populate returns the records, and a map from each
// ID that must find a record to the current ID of that record.
func populate(t *testing.T, s *tokenstore.Store) (tokens []token, ids map[string]string) {
	t.Helper()
	ctx := t.Context()
	tokens = []token{
		saved(t, s, token{UserName: "ann", ClientID: "c1", RefreshToken: "r1", AccessToken: "a1"}),
		saved(t, s, token{ID: "own", UserName: "bob", ClientID: "c1", RefreshToken: "r2", AccessToken: "a2"}),
		saved(t, s, token{ClientID: "c1", RefreshToken: "r3", AccessToken: "a3"}),
		saved(t, s, token{UserName: "eve", ClientID: "c1", RefreshToken: "r5", AccessToken: "a5"}),
	}
	code := saved(t, s, token{ClientID: "c1", GrantToken: "g4", RefreshToken: "r4", AccessToken: "a4"}).ID
	dan := must(s.SaveToken(ctx, token{ID: code, UserName: "dan"}))
	tokens = append(tokens, dan)
	ids = map[string]string{code: dan.ID}
	for _, k := range tokens {
		ids[k.ID] = k.ID
	}
	return tokens, ids
}

// stands checks that the store holds each record once, that findAll finds the records, and that
// each ID in ids finds its record.
func stands(ctx context.Context, t *testing.T, s *tokenstore.Store, tokens []token, ids map[string]string) {
	t.Helper()
	if err := findAll(ctx, s, tokens); err != nil {
		t.Errorf("%v", err)
	}
	for id, want := range ids {
		if got, err := s.FindTokenByID(ctx, id); err != nil || got.ID != want {
			t.Errorf("by the ID %s, %s is found: %v", id, got.ID, err)
		}
	}
	if got := must2(s.GetTokens(ctx)); len(got) != len(tokens) {
		t.Errorf("there are %d records, want %d", len(got), len(tokens))
	}
	if t.Failed() {
		t.FailNow()
	}
}

func rekeyed(ctx context.Context, s *tokenstore.Store) error {
	var failed []error
	for r, err := range s.Rekey(ctx, nil) {
		if err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", r.Name, err))
		}
	}
	return errors.Join(failed...)
}

// TestKeyChangeSurvivesDeath checks that Rekey can be repeated after its process died
// before or after any of its writes. Programs at the previous step must work until Rekey
// ends. Programs at the next step must work once Rekey has ended.
func TestKeyChangeSurvivesDeath(t *testing.T) {
	t.Parallel()
	for _, change := range keyChanges() {
		for _, notes := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/notes %v", change.name, notes), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					for n := int64(0); diesAt(t, change, n, notes); n++ {
						if n > 500 {
							t.Fatal("it does not come to its end")
						}
					}
				})
			})
		}
	}
}

// diesAt runs the test twice: for a Rekey whose process dies before the write with the index
// n, and for a Rekey whose process dies after that write. diesAt reports whether a process
// died.
func diesAt(t *testing.T, change keyChange, n int64, notes bool) (died bool) {
	t.Helper()
	ctx := t.Context()
	for _, late := range []bool{false, true} {
		d := memstore.NewDriver()
		tokens, ids := populate(t, newStore(t, d, change.old(t)))
		if n == 0 {
			stands(ctx, t, newStore(t, d.Reopen(), change.prepared(t)), tokens, ids)
			stands(ctx, t, newStore(t, d.Reopen(), change.both(t)), tokens, ids)
		}
		m := doomed(d, n, late)
		var dying driver.Secrets = m
		if notes {
			dying = mortalLeaser{m, d}
		}
		err := rekeyed(ctx, newStore(t, dying, change.both(t)))
		if errors.Is(err, context.Canceled) {
			died = true
		} else if err != nil {
			t.Fatalf("write %d: %v", n, err)
		}
		for _, opts := range []*tokenstore.Options{change.prepared(t), change.both(t)} {
			s := newStore(t, d.Reopen(), opts)
			stands(ctx, t, s, tokens, ids)
			// Other programs must be able to write and create records in any intermediate
			// state.
			for _, k := range tokens {
				k.APIDomain += "x"
				saved(t, s, k)
			}
			made := saved(t, s, token{UserName: fmt.Sprint("new", len(tokens)), ClientID: "c1", RefreshToken: tokenstore.Secret(fmt.Sprint("r", len(tokens)+1)), AccessToken: tokenstore.Secret(fmt.Sprint("n", len(tokens)))})
			tokens = append(tokens, made)
			ids[made.ID] = made.ID
		}
		if err := rekeyed(ctx, newStore(t, d.Reopen(), change.both(t))); err != nil {
			t.Fatalf("write %d, again: %v", n, err)
		}
		stands(ctx, t, newStore(t, d.Reopen(), change.prepared(t)), tokens, ids)
		after := newStore(t, d.Reopen(), change.after(t))
		stands(ctx, t, after, tokens, ids)
		if left := serious(check(t, after, doctor.CheckOptions{})); len(left) > 0 {
			t.Fatalf("write %d: there is %s", n, describe(left[0]))
		}
		if _, err := newStore(t, d.Reopen(), change.old(t)).SaveToken(ctx, token{UserName: "zoe", AccessToken: "z"}); !errors.Is(err, tokenstore.ErrWrongKeys) {
			t.Fatalf("write %d: with the old keys alone: %v, want ErrWrongKeys", n, err)
		}
	}
	return died
}

// TestNothingPublicIsLeft checks that Rekey replaces digests without a key if it adds keys to
// a store. The test covers all labels, and the names of the records of users.
func TestNothingPublicIsLeft(t *testing.T) {
	t.Parallel()
	d := memstore.NewDriver()
	change := keyChanges()[0]
	populate(t, newStore(t, d, change.old(t)))
	public := map[string]bool{}
	for name := range image(t, d) {
		public[name] = strings.HasPrefix(name, "u")
	}
	for _, l := range labelsOf(t, d) {
		public[l] = true
	}
	if err := rekeyed(t.Context(), newStore(t, d.Reopen(), change.both(t))); err != nil {
		t.Fatal(err)
	}
	for name := range image(t, d) {
		if public[name] {
			t.Errorf("the name %s is still there", name)
		}
	}
	for _, l := range labelsOf(t, d) {
		if public[l] {
			t.Errorf("the label %s is still there", l)
		}
	}
}

// TestRefreshWhileARecordIsRenamed checks that no second process calls mint if Rekey
// renames a record during its refresh.
func TestRefreshWhileARecordIsRenamed(t *testing.T) {
	t.Parallel()
	for _, notes := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			ctx, d, change := t.Context(), memstore.NewDriver(), keyChanges()[0]
			opened := func(opts *tokenstore.Options) *tokenstore.Store {
				opts.LeaseTTL = 30 * time.Second
				if notes {
					return newStore(t, d.Reopen(), opts)
				}
				return newStore(t, plainly{Secrets: d.Reopen()}, opts)
			}
			ann := saved(t, opened(change.old(t)), token{UserName: "ann", ClientID: "c1", RefreshToken: "r1", AccessToken: "a1"})
			mints := 0
			mint := func(context.Context, token) (token, error) {
				mints++
				<-time.After(10 * time.Second) // on the bubble's clock
				return token{AccessToken: tokenstore.Secret(fmt.Sprint("minted", mints)), RefreshToken: "r2"}, nil
			}
			answers := make(chan error, 2)
			for i := range 2 {
				go func() {
					<-time.After(time.Duration(i) * 3 * time.Second)
					got, err := opened(change.both(t)).Refresh(ctx, ann.ID, "a1", mint)
					if err == nil && got.AccessToken != "minted1" {
						err = fmt.Errorf("the token is %q", string(got.AccessToken))
					}
					answers <- err
				}()
			}
			<-time.After(time.Second)
			if err := rekeyed(ctx, opened(change.both(t))); err != nil {
				t.Errorf("notes %v: Rekey: %v", notes, err)
			}
			for range 2 {
				if err := <-answers; err != nil {
					t.Errorf("notes %v: %v", notes, err)
				}
			}
			if got, err := opened(change.after(t)).FindTokenByID(ctx, ann.ID); err != nil || mints != 1 || got.RefreshToken != "r2" {
				t.Errorf("notes %v: %d mints, the refresh token is %q, %v", notes, mints, string(got.RefreshToken), err)
			}
		})
	}
}
