package tokenstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/doctor"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/memstore"
)

// A mortal is the driver of a process that dies just before a write or, if late is set,
// just after the write.
type mortal struct {
	driver.Secrets
	left atomic.Int64 // number of further writes that the process survives
	late bool
}

func doomed(d driver.Secrets, writes int64, late bool) *mortal {
	m := &mortal{Secrets: d, late: late}
	m.left.Store(writes)
	return m
}

// lives reports whether the driver makes the next write, and whether the process receives the
// response.
func (m *mortal) lives() (made, answered bool) {
	left := m.left.Add(-1)
	return left >= 0 || m.late && left == -1, left >= 0
}

func (m *mortal) Create(ctx context.Context, name string, p driver.Payload) (v driver.Version, err error) {
	made, answered := m.lives()
	if made {
		v, err = m.Secrets.Create(ctx, name, p)
	}
	if !answered {
		return "", errCrashed
	}
	return v, err
}

func (m *mortal) Update(ctx context.Context, name string, base driver.Secret, p driver.Payload) (v driver.Version, err error) {
	made, answered := m.lives()
	if made {
		v, err = m.Secrets.Update(ctx, name, base, p)
	}
	if !answered {
		return "", errCrashed
	}
	return v, err
}

func (m *mortal) Delete(ctx context.Context, name string, base driver.Secret) (err error) {
	made, answered := m.lives()
	if made {
		err = m.Secrets.Delete(ctx, name, base)
	}
	if !answered {
		return errCrashed
	}
	return err
}

func newStore(t testing.TB, d driver.Secrets, opts *tokenstore.Options) *tokenstore.Store {
	t.Helper()
	s, err := tokenstore.New(d, opts)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// check returns the findings of Check without a grace period, except the finding about a
// missing name key.
func check(t testing.TB, s doctor.Checker, opts doctor.CheckOptions) []doctor.Finding {
	t.Helper()
	opts.Grace = -1
	var findings []doctor.Finding
	for f, err := range s.Check(t.Context(), &opts) {
		if err != nil {
			t.Fatalf("Check: %v", err)
		}
		if f.Kind != doctor.KindStoreUnkeyed {
			findings = append(findings, f)
		}
	}
	return findings
}

func describe(f doctor.Finding) string {
	return fmt.Sprintf("%s %s (%s): %s; repaired %v, %v", f.Kind, f.Name, f.Remedy, f.Detail, f.Repaired, f.Err)
}

// serious returns the findings that require an action.
func serious(findings []doctor.Finding) []doctor.Finding {
	return slices.DeleteFunc(findings, func(f doctor.Finding) bool { return f.Repaired || f.Kind.Harmless() })
}

func repair() operation {
	return operation{name: "repair", do: func(ctx context.Context, s *tokenstore.Store) error {
		for _, err := range s.Check(ctx, &doctor.CheckOptions{Repair: true, Grace: -1}) {
			if err != nil {
				return err
			}
		}
		return nil
	}}
}

func checkScenarios() []scenario {
	ann := tokenstore.Token{UserName: user, ClientID: client}
	annExists := func(ctx context.Context, s *tokenstore.Store) {
		t := ann
		t.ClientSecret, t.RefreshToken, t.AccessToken, t.ExpiresAt = "secret", "refresh0", "access0", at(10)
		must(s.SaveToken(ctx, t))
	}
	one := func(ctx context.Context, s *tokenstore.Store) { consent(ctx, s, "1", 20) }
	two := func(ctx context.Context, s *tokenstore.Store) { consent(ctx, s, "1", 20); consent(ctx, s, "2", 30) }
	second := func(ctx context.Context, s *tokenstore.Store) { annExists(ctx, s); consent(ctx, s, "1", 20) }
	changed := ann
	changed.AccessToken, changed.ExpiresAt = "access9", at(90)
	access := save(changed)
	return []scenario{
		{name: "promotion and repair", setup: one, ops: []operation{promote("1"), repair()}},
		{name: "second consent and repair", setup: second, ops: []operation{promote("1"), repair()}},
		{name: "repair by two", setup: second, ops: []operation{promote("1"), repair(), repair()}},
		{name: "save and repair", setup: second, ops: []operation{access, repair()}},
		{name: "promotion, save of the user and repair", setup: one, ops: []operation{promote("1"), access, repair()}},
		{name: "two consents and repair", setup: two, ops: []operation{promote("1"), promote("2"), repair()}},
		{name: "promotion, deletion of the code's record and repair", setup: one, ops: []operation{promote("1"), remove(idOf("1")), repair()}},
		{name: "second consent, deletion of the user and repair", setup: second, ops: []operation{promote("1"), remove(userID()), repair()}},
		{name: "second consent, the user created again and repair", setup: second, ops: []operation{promote("1"), replace(userID(), access), repair()}},
	}
}

// TestRepairBetweenAnyTwoCalls checks that no record is lost if a repair runs between any
// two calls of processes that save, move and delete records. Depending on the case, a process
// may die at any of its writes, or one response may be lost, or one read may be stale.
func TestRepairBetweenAnyTwoCalls(t *testing.T) {
	for _, sc := range checkScenarios() {
		for _, b := range []faultKind{
			{"k8sstore without faults", budgets{}, k8sstore},
			{"k8sstore with a crash", budgets{crashes: 1}, k8sstore},
			{"k8sstore with a lost answer", budgets{losses: 1}, k8sstore},
			{"vaultstore with a crash", budgets{crashes: 1}, vaultstore},
			{"awssm with a crash and a stale read", budgets{crashes: 1, stales: 1}, awssm},
			{"gcpsm with a crash and a stale read", budgets{crashes: 1, stales: 1}, gcpsm},
		} {
			t.Run(sc.name+"/"+b.name, func(t *testing.T) {
				t.Parallel()
				exploring(t, on(b.service, func() scenario { return sc }), b.budgets)
			})
		}
	}
}

// TestCheckRepairInterruptedMove checks that one repair completes a move that stopped after
// any write, and that a second check finds only redirects.
func TestCheckRepairInterruptedMove(t *testing.T) {
	t.Parallel()
	for _, existing := range []bool{false, true} {
		for writes := range int64(5) {
			for _, late := range []bool{false, true} {
				t.Run(fmt.Sprintf("to an existing record %v, after %d writes, late %v", existing, writes, late), func(t *testing.T) {
					t.Parallel()
					ctx, d := t.Context(), memstore.NewDriver()
					s := newStore(t, d, nil)
					if existing {
						must(s.SaveToken(ctx, tokenstore.Token{UserName: user, ClientID: client, RefreshToken: "refresh0", AccessToken: "access0", ExpiresAt: at(10)}))
					}
					g := consent(ctx, s, "1", 20)
					_, err := newStore(t, doomed(d, writes, late), nil).SaveToken(ctx, tokenstore.Token{ID: g, UserName: user})
					if err != nil && !errors.Is(err, context.Canceled) {
						t.Fatal(err)
					}
					moved := writes > 0 || late
					for _, f := range check(t, s, doctor.CheckOptions{Repair: true}) {
						if !f.Repaired && !f.Kind.Harmless() {
							t.Errorf("not repaired: %s", describe(f))
						}
					}
					for _, f := range check(t, s, doctor.CheckOptions{}) {
						if f.Kind != doctor.KindAlias {
							t.Errorf("afterwards there is still %s", describe(f))
						}
					}
					got, err := s.FindTokenByID(ctx, g)
					if err != nil || moved && got.UserName != user || got.AccessToken != "access1" {
						t.Errorf("the ID finds %q with user %q, %v", got.ID, got.UserName, err)
					}
					if !existing && !moved {
						return
					}
					byUser, err := s.FindToken(ctx, tokenstore.Token{UserName: user, ClientID: client})
					if err != nil || moved && byUser != got {
						t.Errorf("the user finds %q, %v", byUser.ID, err)
					}
				})
			}
		}
	}
}

// TestCheckMoveUnderWay checks that Check reports an unfinished move after two minutes, but
// not immediately.
func TestCheckMoveUnderWay(t *testing.T) {
	t.Parallel()
	ctx, d := t.Context(), memstore.NewDriver()
	now := time.Now()
	s := newStore(t, d, &tokenstore.Options{Now: func() time.Time { return now }})
	g := consent(ctx, s, "1", 20)
	if _, err := newStore(t, doomed(d, 1, false), &tokenstore.Options{Now: func() time.Time { return now }}).
		SaveToken(ctx, tokenstore.Token{ID: g, UserName: user}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	count := func() (n int) {
		for f, err := range s.Check(ctx, nil) {
			if err != nil {
				t.Fatal(err)
			}
			if f.Kind == doctor.KindPromotionUnfinished {
				n++
			}
		}
		return n
	}
	if n := count(); n != 0 {
		t.Errorf("at once, %d moves are reported", n)
	}
	now = now.Add(2 * time.Minute)
	if n := count(); n != 1 {
		t.Errorf("after two minutes, %d moves are reported", n)
	}
}

// image returns the states of the secrets in d as texts, by name.
func image(t testing.TB, d driver.Secrets) map[string]string {
	t.Helper()
	is := map[string]string{}
	for n, err := range d.List(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		is[n.Name] = fmt.Sprint(string(n.Data), n.Labels, n.Version)
	}
	return is
}

func TestRepairWithTheWrongKeysTouchesNothing(t *testing.T) {
	t.Parallel()
	right := tokenstore.Options{NameKey: []byte("the right key of names"), IndexKeys: [][]byte{[]byte("the right key of labels")}}
	for _, c := range []struct {
		what string
		opts tokenstore.Options
	}{
		{"no keys", tokenstore.Options{}},
		{"another key of names", tokenstore.Options{NameKey: []byte("the wrong key of names"), IndexKeys: right.IndexKeys}},
		{"another key of labels", tokenstore.Options{NameKey: right.NameKey, IndexKeys: [][]byte{[]byte("the wrong key of labels")}}},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			ctx, d := t.Context(), memstore.NewDriver()
			s := newStore(t, d, &right)
			for _, n := range []string{"1", "2", "3"} {
				must(s.SaveToken(ctx, tokenstore.Token{ID: consent(ctx, s, n, 20), UserName: user + n}))
			}
			consent(ctx, s, "4", 20)
			before := image(t, d)
			told := false
			for _, f := range check(t, newStore(t, d, &c.opts), doctor.CheckOptions{Repair: true, MergeDuplicates: true}) {
				told = told || f.Kind == doctor.KindKeysForeign
				if f.Repaired {
					t.Errorf("repaired: %s", describe(f))
				}
			}
			if !told {
				t.Error("the check does not say that the keys look wrong")
			}
			for name, state := range image(t, d) {
				if before[name] != state {
					t.Errorf("%s has changed", name)
				}
			}
		})
	}
}

func TestCheckRefusesWhatDoesNotGoTogether(t *testing.T) {
	t.Parallel()
	s := memstore.New(nil)
	for _, opts := range []doctor.CheckOptions{{MergeDuplicates: true}, {Purge: true}} {
		var last error
		for _, err := range s.Check(t.Context(), &opts) {
			last = err
		}
		if !errors.Is(last, tokenstore.ErrInvalidToken) {
			t.Errorf("Check returns %v", last)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, err := range s.Check(t.Context(), nil) {
		if !errors.Is(err, tokenstore.ErrUnavailable) {
			t.Errorf("Check of a closed store returns %v", err)
		}
	}
	for _, err := range s.Rekey(t.Context(), nil) {
		if !errors.Is(err, tokenstore.ErrUnavailable) {
			t.Errorf("Rekey of a closed store returns %v", err)
		}
	}
}

func TestCheckBreak(t *testing.T) {
	t.Parallel()
	d := memstore.NewDriver()
	s := newStore(t, d, nil)
	for i := range 20 {
		id := must(s.SaveToken(t.Context(), tokenstore.Token{UserName: user + fmt.Sprint(i), AccessToken: "access"})).ID
		d.Overwrite(id, []byte("damaged"))
	}
	n := 0
	for f := range s.Check(t.Context(), nil) {
		if f.Kind == doctor.KindUnreadable {
			n++
			break
		}
	}
	if n != 1 {
		t.Errorf("%d findings", n)
	}
}

// TestCheckRepairConcurrent checks that no data is lost if processes save, refresh and move
// records while another process repairs the store continuously. Some processes die during a
// move.
func TestCheckRepairConcurrent(t *testing.T) {
	t.Parallel()
	const users, rounds = 4, 12
	d := memstore.NewDriver()
	opts := &tokenstore.Options{LeaseTTL: 2 * time.Second}
	ctx := t.Context()
	var (
		work, repairing sync.WaitGroup
		stop            = make(chan struct{})
		mu              sync.Mutex
		consents        = map[string]string{} // users, by the ID of the record without a user
		saved           = map[string]string{} // the last API domains, by user
	)
	repairing.Go(func() {
		s := newStore(t, d, opts)
		for {
			select {
			case <-stop:
				return
			default:
			}
			for f, err := range s.Check(ctx, &doctor.CheckOptions{Repair: true, MergeDuplicates: true, Grace: -1}) {
				if err != nil {
					t.Errorf("Check: %v", err)
					return
				}
				if f.Err != nil && !errors.Is(f.Err, tokenstore.ErrConflict) {
					t.Errorf("a repair fails: %s", describe(f))
				}
			}
		}
	})
	for i := range users {
		name := fmt.Sprintf("user%d", i)
		id := must(newStore(t, d, opts).SaveToken(ctx, tokenstore.Token{UserName: name, ClientID: client, RefreshToken: tokenstore.Secret("refresh of " + name), AccessToken: tokenstore.Secret("access of " + name), ExpiresAt: at(1)})).ID
		work.Go(func() {
			s := newStore(t, d, opts)
			for n := range rounds {
				domain := fmt.Sprintf("https://%s/%d", name, n)
				if _, err := s.SaveToken(ctx, tokenstore.Token{UserName: name, ClientID: client, APIDomain: domain}); err != nil {
					t.Errorf("save: %v", err)
					return
				}
				mu.Lock()
				saved[name] = domain
				mu.Unlock()
			}
		})
		work.Go(func() {
			s := newStore(t, d, opts)
			for n := range rounds {
				now, err := s.FindTokenByID(ctx, id)
				if err == nil {
					_, err = s.Refresh(ctx, id, now.AccessToken, func(context.Context, tokenstore.Token) (tokenstore.Token, error) {
						return tokenstore.Token{AccessToken: tokenstore.Secret(fmt.Sprintf("minted %d of %s", n, name)), ExpiresAt: at(int64(100 + n))}, nil
					})
				}
				if err != nil {
					t.Errorf("refresh: %v", err)
					return
				}
			}
		})
		work.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 1))
			s := newStore(t, d, opts)
			for n := range rounds {
				code := fmt.Sprintf("-%s-%d", name, n)
				g := must(s.SaveToken(ctx, tokenstore.Token{ClientID: client, GrantToken: tokenstore.Secret("grant" + code)})).ID
				must(s.SaveToken(ctx, tokenstore.Token{ID: g, RefreshToken: tokenstore.Secret("refresh" + code), AccessToken: tokenstore.Secret("access" + code), ExpiresAt: at(int64(10 + n))}))
				mu.Lock()
				consents[g] = name
				mu.Unlock()
				m := doomed(d, r.Int64N(6), r.IntN(2) == 0)
				if _, err := newStore(t, m, opts).SaveToken(ctx, tokenstore.Token{ID: g, UserName: name}); err != nil && !errors.Is(err, context.Canceled) {
					t.Errorf("move: %v", err)
					return
				}
			}
		})
	}
	work.Wait()
	close(stop)
	repairing.Wait()

	s := newStore(t, d, opts)
	check(t, s, doctor.CheckOptions{Repair: true})
	if left := serious(check(t, s, doctor.CheckOptions{})); len(left) > 0 {
		t.Errorf("in the end there is still %s", describe(left[0]))
	}
	of := map[string]int{}
	for _, k := range must2(s.GetTokens(ctx)) {
		of[k.UserName]++
		if k.UserName != "" && k.APIDomain != saved[k.UserName] {
			t.Errorf("%s has the API domain %q, and saved %q last", k.UserName, k.APIDomain, saved[k.UserName])
		}
	}
	for name := range saved {
		if of[name] != 1 {
			t.Errorf("%s has %d records", name, of[name])
		}
	}
	for id, name := range consents {
		got, err := s.FindTokenByID(ctx, id)
		if err != nil || got.UserName != "" && got.UserName != name {
			t.Errorf("the consent %s of %s finds a record of %q: %v", id, name, got.UserName, err)
		}
	}
}

func must2(tokens []tokenstore.Token, err error) []tokenstore.Token {
	if err != nil {
		panic(err)
	}
	return tokens
}

// These are the keys in the tests of Rekey. The tests replace the keys of labels and of
// records.
var (
	namesKey  = []byte("a key of names that stays")
	labelsOld = []byte("the old key of labels")
	labelsNew = []byte("the new key of labels")
	recordOld = bytes.Repeat([]byte{1}, 32)
	recordNew = bytes.Repeat([]byte{2}, 32)
)

func rotated(t testing.TB, labels [][]byte, records [][]byte) *tokenstore.Options {
	t.Helper()
	var keys []codec.AEAD
	for _, k := range records {
		a, err := codec.AESGCM(k)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, a)
	}
	c, err := codec.Encrypted(codec.JSON, keys[0], &codec.EncryptedOptions{Old: keys[1:]})
	if err != nil {
		t.Fatal(err)
	}
	return &tokenstore.Options{NameKey: namesKey, IndexKeys: labels, Codec: c}
}

// findAll returns an error unless s finds each token by its ID, its user if it has one, its
// access token, and its refresh token.
func findAll(ctx context.Context, s *tokenstore.Store, tokens []tokenstore.Token) error {
	for _, k := range tokens {
		likes := []tokenstore.Token{{ID: k.ID}, {AccessToken: k.AccessToken}, {ClientID: k.ClientID, RefreshToken: k.RefreshToken}}
		if k.UserName != "" {
			likes = append(likes, tokenstore.Token{UserName: k.UserName}, tokenstore.Token{UserName: k.UserName, ClientID: k.ClientID})
		}
		for i, like := range likes {
			if got, err := s.FindToken(ctx, like); err != nil || got.ID != k.ID || got.RefreshToken != k.RefreshToken {
				return fmt.Errorf("by key %d of %s, %s is found: %w", i, k.ID, got.ID, err)
			}
		}
	}
	return nil
}

// TestRekeyKilled kills several calls of Rekey, and lets the last call complete. The new keys
// alone must then be enough to find all records. Meanwhile, other processes search with both
// orders of the keys, and save with the new order.
func TestRekeyKilled(t *testing.T) {
	t.Parallel()
	ctx, d := t.Context(), memstore.NewDriver()
	before := newStore(t, d, rotated(t, [][]byte{labelsOld}, [][]byte{recordOld}))
	var tokens []tokenstore.Token
	for n := range 40 {
		k := tokenstore.Token{
			ClientID: client, RefreshToken: tokenstore.Secret(fmt.Sprint("refresh", n)), AccessToken: tokenstore.Secret(fmt.Sprint("access", n)),
			ExpiresAt: at(int64(n)).UTC(),
		}
		switch n % 4 {
		case 0, 1:
			k.UserName = fmt.Sprint("user", n)
		case 2: // a record that moves to a user, and leaves a redirect
			k.GrantToken = tokenstore.Secret(fmt.Sprint("grant", n))
			id := must(before.SaveToken(ctx, k)).ID
			k = tokenstore.Token{ID: id, UserName: fmt.Sprint("user", n)}
		}
		tokens = append(tokens, must(before.SaveToken(ctx, k)))
	}
	// Leave a record with an unfinished move.
	g := consent(ctx, before, "way", 20)
	if _, err := newStore(t, doomed(d, 2, false), rotated(t, [][]byte{labelsOld}, [][]byte{recordOld})).
		SaveToken(ctx, tokenstore.Token{ID: g, UserName: "on the way"}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}

	both := rotated(t, [][]byte{labelsNew, labelsOld}, [][]byte{recordNew, recordOld})
	other := rotated(t, [][]byte{labelsOld, labelsNew}, [][]byte{recordOld, recordNew})
	var readers sync.WaitGroup
	stop := make(chan struct{})
	for _, opts := range []*tokenstore.Options{both, other} {
		readers.Go(func() {
			for s := newStore(t, d, opts); ; {
				select {
				case <-stop:
					return
				default:
				}
				if err := findAll(ctx, s, tokens); err != nil {
					t.Errorf("meanwhile: %v", err)
					return
				}
			}
		})
	}
	readers.Go(func() {
		s := newStore(t, d, both)
		for n := range 30 {
			must(s.SaveToken(ctx, tokenstore.Token{ID: tokens[n].ID, APIDomain: fmt.Sprint("https://", n)}))
		}
	})

	r := rand.New(rand.NewPCG(7, 7))
	deaths := 0
	for done := false; !done; {
		m := doomed(d, 1+r.Int64N(6), r.IntN(2) == 0)
		done = true
		for _, err := range newStore(t, m, both).Rekey(ctx, nil) {
			if err != nil {
				if !errors.Is(err, context.Canceled) {
					t.Fatalf("Rekey: %v", err)
				}
				done = false
				deaths++
			}
		}
	}
	close(stop)
	readers.Wait()
	if deaths < 3 {
		t.Errorf("Rekey died only %d times", deaths)
	}

	// No process has written under the old keys since the last pass, so Rekey rewrites
	// nothing.
	for r, err := range newStore(t, d, both).Rekey(ctx, nil) {
		if err != nil || r.Rewritten {
			t.Errorf("afterwards %s is rewritten: %v, %v", r.Name, r.Rewritten, err)
		}
	}
	after := newStore(t, d, rotated(t, [][]byte{labelsNew}, [][]byte{recordNew}))
	if err := findAll(ctx, after, tokens); err != nil {
		t.Errorf("with the new keys alone: %v", err)
	}
	if got, err := after.FindTokenByID(ctx, g); err != nil || got.UserName != "on the way" || got.AccessToken != "accessway" {
		t.Errorf("the record that was on its way: %q, %v", got.UserName, err)
	}
	if got := must2(after.GetTokens(ctx)); len(got) != len(tokens)+1 {
		t.Errorf("there are %d records, want %d", len(got), len(tokens)+1)
	}
	if left := serious(check(t, after, doctor.CheckOptions{})); len(left) > 0 {
		t.Errorf("there is %s", describe(left[0]))
	}
}

// TestRekeyDryRun checks that a dry run reports the rewrites but writes nothing. Rekey must
// also not change a record whose name derives from another NameKey.
func TestRekeyDryRun(t *testing.T) {
	t.Parallel()
	ctx, d := t.Context(), memstore.NewDriver()
	old := must(newStore(t, d, rotated(t, [][]byte{labelsOld}, [][]byte{recordOld})).SaveToken(ctx, tokenstore.Token{UserName: user, AccessToken: "access1"}))
	both := newStore(t, d, rotated(t, [][]byte{labelsNew, labelsOld}, [][]byte{recordNew, recordOld}))
	current := must(both.SaveToken(ctx, tokenstore.Token{UserName: user + "2", AccessToken: "access2"}))
	opts := rotated(t, [][]byte{labelsNew}, [][]byte{recordNew})
	opts.NameKey = []byte("another key of names")
	elsewhere := memstore.NewDriver()
	foreign := must(newStore(t, elsewhere, opts).SaveToken(ctx, tokenstore.Token{UserName: user, AccessToken: "access3"}))
	copyRecord(t, elsewhere, d, foreign.ID, opts.Codec)
	broken := must(both.SaveToken(ctx, tokenstore.Token{UserName: user + "4", AccessToken: "access4"}))
	d.Overwrite(broken.ID, []byte("damaged"))

	before := image(t, d)
	for _, dry := range []bool{true, false} {
		rewritten := map[string]bool{}
		refused := map[string]error{}
		for r, err := range both.Rekey(ctx, &doctor.RekeyOptions{DryRun: dry}) {
			rewritten[r.Name], refused[r.Name] = r.Rewritten, err
		}
		if len(rewritten) != 4 || !rewritten[old.ID] || rewritten[current.ID] || rewritten[foreign.ID] || rewritten[broken.ID] {
			t.Errorf("dry %v: rewritten are %v", dry, rewritten)
		}
		if refused[old.ID] != nil || refused[current.ID] != nil || !errors.Is(refused[foreign.ID], tokenstore.ErrIDMismatch) || !errors.Is(refused[broken.ID], tokenstore.ErrCorrupt) {
			t.Errorf("dry %v: errors are %v", dry, refused)
		}
		for name, state := range image(t, d) {
			if changed := before[name] != state; changed != (!dry && name == old.ID) {
				t.Errorf("dry %v: %s has changed: %v", dry, name, changed)
			}
		}
	}
}

// A listener is a driver whose method List first calls the function in the field list.
type listener struct {
	driver.Secrets
	list func()
}

func (l *listener) List(ctx context.Context) iter.Seq2[driver.Named, error] {
	l.list()
	return l.Secrets.List(ctx)
}

// TestRekeyWritersWithOldKeys checks that Rekey ends with ErrConflict if another process
// keeps writing with the old keys.
func TestRekeyWritersWithOldKeys(t *testing.T) {
	t.Parallel()
	ctx, d := t.Context(), memstore.NewDriver()
	stubborn := newStore(t, d, rotated(t, [][]byte{labelsOld, labelsNew}, [][]byte{recordOld, recordNew}))
	id := must(stubborn.SaveToken(ctx, tokenstore.Token{UserName: user, AccessToken: "access"})).ID
	n := 0
	listening := &listener{Secrets: d, list: func() {
		n++
		must(stubborn.SaveToken(ctx, tokenstore.Token{ID: id, APIDomain: fmt.Sprint("https://", n)}))
	}}
	s := newStore(t, listening, rotated(t, [][]byte{labelsNew, labelsOld}, [][]byte{recordNew, recordOld}))
	var last error
	for _, err := range s.Rekey(ctx, nil) {
		last = err
	}
	if !errors.Is(last, tokenstore.ErrConflict) {
		t.Errorf("Rekey ends with %v after %d passes", last, n)
	}
}

// An unanswered is a driver that calls u.before at each write of the marker. If u.before returns
// true, the driver loses the response to the write.
type unanswered struct {
	driver.Secrets
	before func() bool
}

func (u *unanswered) Update(ctx context.Context, name string, base driver.Secret, p driver.Payload) (driver.Version, error) {
	lost := name == "keys" && u.before()
	v, err := u.Secrets.Update(ctx, name, base, p)
	if lost && err == nil {
		return "", fmt.Errorf("%w: the response was lost", driver.ErrUnavailable)
	}
	return v, err
}

// TestRekeyLostResponse checks that Rekey passes over all records once more after it has removed
// the old keys from the marker, even if it does not get the response to that write. In
// the test, another process creates a record under the old keys just before the write.
func TestRekeyLostResponse(t *testing.T) {
	t.Parallel()
	ctx, d := t.Context(), memstore.NewDriver()
	old := newStore(t, d, rotated(t, [][]byte{labelsOld, labelsNew}, [][]byte{recordOld, recordNew}))
	must(old.SaveToken(ctx, tokenstore.Token{UserName: user, AccessToken: "access1"}))
	writes := 0
	lossy := &unanswered{Secrets: d, before: func() bool {
		writes++
		if writes == 2 { // the first write adds the new keys
			must(old.SaveToken(ctx, tokenstore.Token{UserName: "late", AccessToken: "access2"}))
		}
		return writes == 2
	}}
	for _, err := range newStore(t, lossy, rotated(t, [][]byte{labelsNew, labelsOld}, [][]byte{recordNew, recordOld})).Rekey(ctx, nil) {
		if err != nil {
			t.Fatal(err)
		}
	}
	if writes < 2 {
		t.Fatalf("Rekey has written the marker %d times", writes)
	}
	found, err := newStore(t, d, rotated(t, [][]byte{labelsNew}, [][]byte{recordNew})).FindToken(ctx, tokenstore.Token{AccessToken: "access2"})
	if err != nil || found.UserName != "late" {
		t.Errorf("with the new keys alone, the late record is %q, %v", found.UserName, err)
	}
}

// TestCheckLapsedLease checks that Check reports and removes a lapsed lease in a note, but
// not a lease that is still held.
func TestCheckLapsedLease(t *testing.T) {
	t.Parallel()
	ctx, d := t.Context(), memstore.NewDriver()
	s := newStore(t, d, nil)
	id := must(s.SaveToken(ctx, tokenstore.Token{UserName: user, AccessToken: "access"})).ID
	note := func(until time.Time) {
		base, err := d.Fresh(ctx, id, driver.Secret{})
		if err == nil {
			err = d.Note(ctx, id, base, fmt.Sprintf("dead.%d", until.UnixMilli()))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	note(time.Now().Add(time.Minute))
	if found := check(t, s, doctor.CheckOptions{Repair: true}); len(found) > 0 {
		t.Errorf("a lease that is held is reported: %s", describe(found[0]))
	}
	note(time.Now().Add(-time.Hour))
	found := check(t, s, doctor.CheckOptions{Repair: true})
	if len(found) != 1 || found[0].Kind != doctor.KindLeaseLapsed || !found[0].Repaired {
		t.Errorf("%d findings", len(found))
	}
	if now, err := d.Fresh(ctx, id, driver.Secret{}); err != nil || now.Note != "" {
		t.Errorf("the note is %q, %v", now.Note, err)
	}
}

// A contested is a driver whose first deletions fail with ErrConflict.
type contested struct {
	driver.Secrets
	losses atomic.Int64 // number of further deletions that fail
}

func (c *contested) Delete(ctx context.Context, name string, base driver.Secret) error {
	if c.losses.Add(-1) >= 0 {
		return fmt.Errorf("%w: another writer came first", driver.ErrConflict)
	}
	return c.Secrets.Delete(ctx, name, base)
}

// TestCheckMergeDuplicatesContended checks that Check merges duplicates even if its first
// deletions fail with a conflict.
func TestCheckMergeDuplicatesContended(t *testing.T) {
	t.Parallel()
	ctx, d := t.Context(), memstore.NewDriver()
	c := &contested{Secrets: d}
	s := newStore(t, c, nil)
	nobody := must(s.SaveToken(ctx, tokenstore.Token{ClientID: client, RefreshToken: "refresh", APIDomain: "https://api"}))
	ann := must(s.SaveToken(ctx, tokenstore.Token{UserName: user, ClientID: client, RefreshToken: "refresh", AccessToken: "access", ExpiresAt: at(1)}))
	if found := check(t, s, doctor.CheckOptions{Repair: true}); len(found) != 1 || found[0].Kind != doctor.KindDuplicate || found[0].Repaired || found[0].Name != nobody.ID {
		t.Fatalf("without being asked to merge, Check finds %d", len(found))
	}
	c.losses.Store(2)
	if found := check(t, s, doctor.CheckOptions{Repair: true, MergeDuplicates: true}); len(found) != 1 || !found[0].Repaired {
		t.Fatalf("merging, Check finds %d", len(found))
	}
	all := must2(s.GetTokens(ctx))
	if len(all) != 1 || all[0].ID != ann.ID || all[0].AccessToken != "access" || all[0].APIDomain != "https://api" {
		t.Errorf("there are %d records", len(all))
	}
	if got, err := s.FindTokenByID(ctx, nobody.ID); err != nil || got.ID != ann.ID {
		t.Errorf("the ID that was merged finds %q, %v", got.ID, err)
	}
}
