package tokenstore_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/doctor"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/memstore"
)

// An exercise is an operation whose calls are recorded.
type exercise struct {
	name  string
	setup func(*bench) // its calls are not recorded
	do    func(*bench) error

	faults map[string]verb         // by kind of call: the fault of the first call
	before map[string]func(*bench) // by kind of call: a function to run before the first call

	notes bool // the driver is a driver.Leaser
	lag   bool // the driver declares that reads and searches may lag
	daily int  // the DailyWrites that the driver declares
	keys  bool // the store has a name key
}

// A bench records the calls of one exercise.
type bench struct {
	*testing.T
	exercise
	*world
	calls   *recording
	handles []*handle
	memory  *memstore.Driver
}

// A limited is a driver that declares a limit on the daily writes of a secret.
type limited struct {
	driver.Secrets
	daily int
}

func (l limited) Properties() driver.Properties {
	p := l.Secrets.Properties()
	p.DailyWrites = l.daily
	return p
}

func (b *bench) options() *tokenstore.Options {
	o := &tokenstore.Options{Attempts: 30, LeaseTTL: 3 * time.Second}
	if b.keys {
		o.NameKey = nameKey
	}
	return o
}

// with returns a store for a further process, and records the calls of the store.
func (b *bench) with(o *tokenstore.Options) *tokenstore.Store {
	h := &handle{world: b.world, lag: b.lag}
	b.handles = append(b.handles, h)
	d := h.driver(scenario{notes: b.notes})
	if b.daily > 0 {
		d = limited{d, b.daily}
	}
	return steady(b.T, b.calls.of(fmt.Sprint(len(b.handles)), d), o)
}

func (b *bench) open() *tokenstore.Store { return b.with(b.options()) }

// other returns a store for a further process. The calls of the store are not recorded, and do
// not wait for the scheduler.
func (b *bench) other() *tokenstore.Store {
	h := &handle{world: &world{memory: b.memory, past: b.past, free: true}, lag: b.lag}
	d := h.driver(scenario{notes: b.notes})
	if b.daily > 0 {
		d = limited{d, b.daily}
	}
	return steady(b.T, d, b.options())
}

func (b *bench) save(t token) token { return saved(b.T, b.other(), t) }

// pick chooses the first waiting call, with the fault that b.faults defines for the first
// call of this kind. pick first runs the function that b.before defines for this call.
func (b *bench) pick(options []option) option {
	o := option{options[0].call, proceed}
	kind, _, _ := strings.Cut(o.call.text, " ")
	if f := b.before[kind]; f != nil {
		delete(b.before, kind)
		f(b)
	}
	if v, ok := b.faults[kind]; ok && (v != answerStale || o.call.stale(o.call.from)) {
		delete(b.faults, kind)
		o.verb = v
	}
	return o
}

func (e exercise) record(t *testing.T) string {
	var lines []string
	synctest.Test(t, func(t *testing.T) {
		memory := memstore.NewDriver()
		b := &bench{
			T: t, exercise: e, calls: &recording{nonces: map[string]string{}}, memory: memory,
			world: &world{memory: memory, past: map[string][]*driver.Secret{}, free: true, marker: true},
		}
		if e.setup != nil {
			e.setup(b)
		}
		b.free = false
		results := make([]result, 1)
		b.processes.Go(func() {
			err := e.do(b)
			b.mu.Lock()
			defer b.mu.Unlock()
			results[0] = result{done: true, err: err}
		})
		b.schedule(scenario{ops: []operation{{}}}, budgets{}, &run{pick: b.pick}, results)
		if len(b.before)+len(b.faults) > 0 {
			t.Errorf("%s: what was to come between has not", e.name)
		}
		lines = b.calls.lines
		if err := results[0].err; err != nil {
			lines = append(lines, "error: "+outcome(err))
		}
	})
	return e.name + "\n" + short(lines)
}

func saving(t token) func(*bench) error {
	return func(b *bench) error { return second(b.open().SaveToken(b.Context(), t)) }
}

func finding(t token) func(*bench) error {
	return func(b *bench) error { return second(b.open().FindToken(b.Context(), t)) }
}

func searchingFor(like token) func(*bench) error {
	return func(b *bench) (all error) {
		for t, err := range b.open().Search(b.Context(), like) {
			b.calls.add("", "found: "+t.ID, err, "yielded")
			all = errors.Join(all, err)
		}
		return all
	}
}

func deleting(id string) func(*bench) error {
	return func(b *bench) error { return b.open().DeleteToken(b.Context(), id) }
}

func refreshing(id string, mint mintFunc) func(*bench) error {
	return func(b *bench) error { return second(b.open().Refresh(b.Context(), id, "access0", mint)) }
}

func checking(o doctor.CheckOptions) func(*bench) error {
	return func(b *bench) error {
		var all error
		for f, err := range b.open().Check(b.Context(), &o) {
			b.calls.add("", strings.TrimSpace(fmt.Sprintf("finding: %s %s", f.Kind, f.Name)), f.Err, map[bool]string{true: "repaired", false: "left"}[f.Repaired])
			all = errors.Join(all, err)
		}
		return all
	}
}

// inTurn runs all functions one after another, even after an error, and joins their errors.
func inTurn(all ...func(*bench) error) func(*bench) error {
	return func(b *bench) error {
		var errs []error
		for _, do := range all {
			errs = append(errs, do(b))
		}
		return errors.Join(errs...)
	}
}

// quietly returns a setup that saves tokens without recording the calls.
func quietly(all ...token) func(*bench) {
	return func(b *bench) {
		for _, t := range all {
			b.save(t)
		}
	}
}

var (
	annOld   = token{UserName: user, ClientID: client, ClientSecret: "secret", RefreshToken: "refresh0", AccessToken: "access0", ExpiresAt: at(-4_000_000_000 + 1)}
	annNew   = token{UserName: user, ClientID: client, AccessToken: "access1", ExpiresAt: at(1)}
	annAPI   = token{UserName: user, ClientID: client, APIDomain: "https://api"}
	codeOnly = token{ClientID: client, ClientSecret: "secret", GrantToken: "grant1"}
	codeRest = token{ClientID: client, GrantToken: "grant1", RefreshToken: "refresh1", AccessToken: "access0", ExpiresAt: at(-4_000_000_000 + 1)}
	codeUser = token{ID: idOf("1"), UserName: user}
	ownCode  = token{ID: "own1", ClientID: client, GrantToken: "grant1", RefreshToken: "refresh1", AccessToken: "access1"}
	ownUser  = token{ID: "own1", UserName: user}
)

func exercises() []exercise {
	dead := func(context.Context, token) (token, error) { return token{}, errCrashed }
	refused := func(permanent bool) mintFunc {
		return func(context.Context, token) (token, error) {
			return token{}, &tokenstore.RefreshError{Code: "invalid_code", Permanent: permanent}
		}
	}
	consented := quietly(codeOnly, codeRest)
	again := quietly(annOld, codeOnly, codeRest)
	moved := quietly(annOld, codeOnly, codeRest, codeUser)
	crowd := quietly(annOld, token{UserName: "bob", ClientID: client, RefreshToken: "refresh5"}, codeOnly, token{ID: "own2", AccessToken: "access6"})
	interrupted := func(b *bench) {
		again(b)
		if err := second((&world{began: time.Now()}).open(b.T, doomed(b.memory.Reopen(), 1, false), 0).SaveToken(b.Context(), codeUser)); !errors.Is(err, errCrashed) {
			b.Errorf("a promotion: %v", err)
		}
	}
	otherSaves := func(b *bench) { b.save(annAPI) }
	all := []exercise{
		{name: "save: a user's first", do: saving(annOld)},
		{name: "save: a change", setup: quietly(annOld), do: saving(annNew)},
		{name: "save: no change", setup: quietly(annOld), do: saving(annOld)},
		{name: "save: by the ID", setup: quietly(annOld), do: saving(token{ID: userID(), APIDomain: "https://api"})},
		{name: "save: by the refresh token", setup: quietly(annOld), do: saving(token{ClientID: client, RefreshToken: "refresh0", AccessToken: "access1"})},
		{name: "save: by a token that was replaced", setup: quietly(codeOnly, codeRest, token{ID: idOf("1"), RefreshToken: "refresh2"}), do: saving(token{ClientID: client, RefreshToken: "refresh1", APIDomain: "https://api"})},
		{name: "save: a code", do: saving(codeOnly)},
		{name: "save: a code again", setup: consented, do: saving(codeOnly)},
		{name: "save: a code and what it was exchanged for", do: inTurn(saving(codeOnly), saving(codeRest))},
		{name: "save: a refresh token alone", do: saving(token{ClientID: client, RefreshToken: "refresh1"})},
		{name: "save: an access token alone", do: saving(token{AccessToken: "access1"})},
		{name: "save: an ID of one's own", do: saving(ownCode)},
		{name: "save: an ID that there is not", do: saving(token{ID: idOf("7"), AccessToken: "access1"})},
		{name: "save: another user's ID", setup: quietly(annOld), do: saving(token{ID: userID(), UserName: "bob"})},
		{name: "save: with keys", keys: true, do: inTurn(saving(annOld), saving(annNew))},
		{name: "save: where reads are late", lag: true, setup: quietly(annOld), do: inTurn(saving(annOld), saving(annNew), saving(codeOnly))},
		{name: "save: as often as a day allows", daily: 40, setup: quietly(annOld), do: inTurn(saving(annNew), saving(annAPI))},

		{name: "promotion: to a new record", setup: consented, do: saving(codeUser)},
		{name: "promotion: a second consent", setup: again, do: saving(codeUser)},
		{name: "promotion: again", setup: moved, do: saving(codeUser)},
		{name: "promotion: of an ID of one's own", setup: quietly(ownCode), do: saving(ownUser)},
		{name: "promotion: of an ID of one's own to a user's record", setup: quietly(annOld, ownCode), do: saving(ownUser)},
		{name: "promotion: where reads are late", lag: true, setup: again, do: saving(codeUser)},
		{name: "promotion: with the client", setup: quietly(token{AccessToken: "access1"}), do: saving(token{AccessToken: "access1", ClientID: client, UserName: user})},

		{name: "find: by user and client", setup: quietly(annOld), do: finding(token{UserName: user, ClientID: client})},
		{name: "find: by user", setup: quietly(annOld), do: finding(token{UserName: user})},
		{name: "find: by one of two of a user", setup: quietly(annOld, token{UserName: user, ClientID: "other", AccessToken: "access3"}), do: finding(token{UserName: user})},
		{name: "find: by refresh token", setup: quietly(annOld), do: finding(token{ClientID: client, RefreshToken: "refresh0"})},
		{name: "find: by code", setup: consented, do: finding(codeOnly)},
		{name: "find: by access token", setup: quietly(annOld), do: finding(token{AccessToken: "access0"})},
		{name: "find: by ID and more", setup: quietly(annOld), do: finding(token{ID: userID(), UserName: user})},
		{name: "find: by the code of a user", setup: moved, do: finding(codeOnly)},
		{name: "find: while a promotion is interrupted", setup: interrupted, do: inTurn(finding(annAPI), finding(codeOnly), finding(token{AccessToken: "access0"}))},
		{name: "find: nothing", do: inTurn(finding(annAPI), finding(token{UserName: user}), finding(codeOnly), finding(token{AccessToken: "access0"}))},
		{name: "find: nothing, with keys", keys: true, do: finding(annAPI)},
		{name: "find: where reads are late", lag: true, setup: quietly(annOld), do: inTurn(finding(annAPI), finding(token{UserName: "bob", ClientID: client}), finding(token{AccessToken: "access0"}))},
		{name: "find by ID: a user's", setup: quietly(annOld), do: finding(token{ID: userID()})},
		{name: "find by ID: a former one", setup: moved, do: finding(token{ID: idOf("1")})},
		{name: "find by ID: one's own", setup: quietly(ownCode), do: finding(token{ID: "own1"})},
		{name: "find by ID: one's own, former", setup: quietly(ownCode, ownUser), do: finding(token{ID: "own1"})},
		{name: "find by ID: nothing", do: inTurn(finding(token{ID: userID()}), finding(token{ID: "own1"}))},

		{name: "search: by user", setup: crowd, do: searchingFor(token{UserName: user})},
		{name: "search: by client", setup: crowd, do: searchingFor(token{ClientID: client})},
		{name: "search: by user and client", setup: crowd, do: searchingFor(token{UserName: user, ClientID: client})},
		{name: "search: while a promotion is interrupted", setup: interrupted, do: searchingFor(token{ClientID: client})},
		{name: "search: where reads are late", lag: true, setup: crowd, do: inTurn(searchingFor(token{UserName: user, ClientID: client}), searchingFor(token{UserName: "eve", ClientID: client}))},
		{name: "search: nothing", do: searchingFor(token{UserName: user})},
		{name: "search: with keys", keys: true, setup: crowd, do: searchingFor(token{UserName: user})},

		{name: "delete: a user's", setup: quietly(annOld), do: deleting(userID())},
		{name: "delete: with what has moved to it", setup: moved, do: deleting(userID())},
		{name: "delete: by a former ID", setup: moved, do: deleting(idOf("1"))},
		{name: "delete: by an ID of one's own", setup: quietly(ownCode), do: deleting("own1")},
		{name: "delete: while a promotion is interrupted", setup: interrupted, do: deleting(userID())},
		{name: "delete: nothing", do: inTurn(deleting(userID()), deleting("own1"))},
		{name: "delete if unchanged: it is", setup: quietly(annOld), do: func(b *bench) error { return b.open().DeleteIfUnchanged(b.Context(), b.save(annOld)) }},
		{name: "delete if unchanged: it is not", setup: quietly(annOld), do: func(b *bench) error {
			was := b.save(annOld)
			b.save(annAPI)
			return b.open().DeleteIfUnchanged(b.Context(), was)
		}},

		{name: "all: list", setup: crowd, do: func(b *bench) error { return second(b.open().GetTokens(b.Context())) }},
		{name: "all: list while a promotion is interrupted", setup: interrupted, do: func(b *bench) error { return second(b.open().GetTokens(b.Context())) }},
		{name: "all: delete", setup: crowd, do: func(b *bench) error { return b.open().DeleteTokens(b.Context()) }},
		{name: "all: delete, with keys", keys: true, setup: crowd, do: func(b *bench) error { return b.open().DeleteTokens(b.Context()) }},

		{name: "refused: a write that was lost", setup: quietly(annOld), faults: map[string]verb{"update": loseCall}, do: saving(annNew)},
		{name: "lost answer: of a creation", faults: map[string]verb{"create": loseAnswer}, do: saving(annOld)},
		{name: "lost answer: of an update", setup: quietly(annOld), faults: map[string]verb{"update": loseAnswer}, do: saving(annNew)},
		{name: "lost answer: of a promotion", setup: again, faults: map[string]verb{"update": loseAnswer}, do: saving(codeUser)},
		{name: "lost answer: of a deletion", setup: quietly(annOld), faults: map[string]verb{"delete": loseAnswer}, do: deleting(userID())},
		{name: "lost answer: of a lease", setup: quietly(annOld), faults: map[string]verb{"update": loseAnswer}, do: refreshing(userID(), answer("access9"))},
		{name: "lost answer: of a note", notes: true, setup: quietly(annOld), faults: map[string]verb{"note": loseAnswer}, do: refreshing(userID(), answer("access9"))},
		{name: "lost answer: after which others write", setup: quietly(annOld), faults: map[string]verb{"update": loseAnswer}, before: map[string]func(*bench){"fresh": otherSaves}, do: saving(annNew)},
		{name: "conflict: of an update", setup: quietly(annOld), before: map[string]func(*bench){"update": otherSaves}, do: saving(annNew)},
		{name: "conflict: of a creation", before: map[string]func(*bench){"create": func(b *bench) { b.save(annOld) }}, do: saving(annNew)},
		{name: "conflict: with a deletion", setup: quietly(annOld), before: map[string]func(*bench){"update": func(b *bench) { _ = b.other().DeleteToken(b.Context(), userID()) }}, do: saving(annNew)},
		{name: "conflict: of a promotion", setup: again, before: map[string]func(*bench){"update": otherSaves}, do: saving(codeUser)},
		{name: "conflict: of a deletion", setup: quietly(annOld), before: map[string]func(*bench){"delete": otherSaves}, do: deleting(userID())},
		{name: "stale: an earlier state", lag: true, setup: quietly(annOld, annAPI), faults: map[string]verb{"get": answerStale}, do: saving(annNew)},
		{name: "stale: not there yet", lag: true, setup: quietly(annOld), faults: map[string]verb{"get": answerStale}, do: saving(annNew)},
		{name: "stale: a search", lag: true, setup: quietly(codeOnly, codeRest), faults: map[string]verb{"lookup": answerStale}, do: finding(token{ClientID: client, RefreshToken: "refresh1"})},

		{name: "refresh: where it has not expired", setup: quietly(annNew), do: refreshing(userID(), dead)},
		{name: "refresh: nothing", do: refreshing(userID(), dead)},
		{name: "refresh: lease in the record", setup: quietly(annOld), do: refreshing(userID(), answer("access9"))},
		{name: "refresh: lease in a note", notes: true, setup: quietly(annOld), do: refreshing(userID(), answer("access9"))},
		{name: "refresh: of a code's record", notes: true, setup: consented, do: refreshing(idOf("1"), answer("access9"))},
		{name: "refresh: by a former ID", notes: true, setup: moved, do: refreshing(idOf("1"), answer("access9"))},
		{name: "refresh: where reads are late", lag: true, notes: true, setup: quietly(annOld), do: refreshing(userID(), answer("access9"))},
		{name: "refresh: as often as a day allows", daily: 6, setup: quietly(annOld), do: inTurn(refreshing(userID(), answer("access0")), refreshing(userID(), answer("access0")), refreshing(userID(), answer("access9")))},
		{name: "refresh: refused for now", setup: quietly(annOld), do: inTurn(refreshing(userID(), refused(false)), refreshing(userID(), answer("access9")))},
		{name: "refresh: refused for good", notes: true, setup: quietly(annOld), do: inTurn(refreshing(userID(), refused(true)), refreshing(userID(), answer("access9")))},
		{name: "refresh: while others save", setup: quietly(annOld), do: func(b *bench) error {
			return refreshing(userID(), func(ctx context.Context, t token) (token, error) {
				otherSaves(b)
				return answer("access9")(ctx, t)
			})(b)
		}},
		{name: "refresh: while others save, lease in a note", notes: true, setup: quietly(annOld), do: func(b *bench) error {
			return refreshing(userID(), func(ctx context.Context, t token) (token, error) {
				otherSaves(b)
				return answer("access9")(ctx, t)
			})(b)
		}},
	}
	for _, notes := range []bool{false, true} {
		first := map[bool]string{false: "update", true: "note"}[notes]
		all = append(all,
			exercise{name: "refresh: the holder has died, lease in a note " + fmt.Sprint(notes), notes: notes, setup: quietly(annOld), faults: map[string]verb{first: crashAfter},
				do: inTurn(refreshing(userID(), answer("access8")), refreshing(userID(), answer("access9")))},
			exercise{name: "refresh: the caller leaves before the holder, lease in a note " + fmt.Sprint(notes), notes: notes, setup: quietly(annOld), faults: map[string]verb{first: crashAfter},
				do: inTurn(refreshing(userID(), answer("access8")), func(b *bench) error {
					ctx, cancel := context.WithTimeout(b.Context(), 2*time.Second)
					defer cancel()
					return second(b.open().Refresh(ctx, userID(), "access0", answer("access7")))
				})})
	}
	for _, v := range []verb{crashBefore, crashAfter} {
		for _, c := range []struct {
			name, kind string
			setup      func(*bench)
		}{{"to a new record", "create", consented}, {"to a new record", "update", consented}, {"to a user's record", "update", again}} {
			all = append(all, exercise{
				name: fmt.Sprintf("crash: of a promotion %s%s the first %s", c.name, strings.TrimSuffix(strings.TrimPrefix(v.String(), " (crash"), ")"), c.kind), setup: c.setup,
				faults: map[string]verb{c.kind: v}, do: inTurn(saving(codeUser), saving(annNew), saving(codeUser)),
			})
		}
		all = append(all, exercise{name: "crash: of a first save" + v.String(), faults: map[string]verb{"create": v}, do: inTurn(saving(annOld), saving(annNew))})
	}
	duplicate := func(b *bench) {
		b.save(annOld)
		b.save(token{ClientID: client, RefreshToken: "refresh7", AccessToken: "access7"})
		b.save(token{ID: userID(), RefreshToken: "refresh7"})
	}
	return append(all,
		exercise{name: "check: a sound store", setup: crowd, do: checking(doctor.CheckOptions{Grace: -1})},
		exercise{name: "check: a sound store with keys", keys: true, setup: crowd, do: checking(doctor.CheckOptions{Grace: -1})},
		exercise{name: "check: an interrupted promotion", setup: interrupted, do: checking(doctor.CheckOptions{Grace: -1})},
		exercise{name: "check: repair of an interrupted promotion", setup: interrupted, do: checking(doctor.CheckOptions{Grace: -1, Repair: true})},
		exercise{name: "check: repair of an alias whose record is gone", setup: func(b *bench) {
			moved(b)
			was, err := b.memory.Get(b.Context(), userID())
			if err == nil {
				err = b.memory.Delete(b.Context(), userID(), was)
			}
			if err != nil {
				b.Error(err)
			}
		}, do: checking(doctor.CheckOptions{Grace: -1, Repair: true, Purge: true})},
		exercise{name: "check: repair of what no codec reads", setup: func(b *bench) {
			crowd(b)
			b.memory.Overwrite(userID(), []byte("by hand"))
		}, do: checking(doctor.CheckOptions{Grace: -1, Repair: true})},
		exercise{name: "check: duplicates", setup: duplicate, do: checking(doctor.CheckOptions{Grace: -1, Repair: true, MergeDuplicates: true})},
		exercise{name: "check: whether the server compares", do: checking(doctor.CheckOptions{Compare: true})},

		exercise{name: "rekey: keys come", setup: func(b *bench) { moved(b); crowd(b) }, do: func(b *bench) error {
			o := b.options()
			o.NameKey, o.OtherNameKeys = nameKey, [][]byte{[]byte(tokenstore.NoKey)}
			return rekeyed(b.Context(), b.with(o))
		}},
		exercise{name: "rekey: nothing is left", keys: true, setup: crowd, do: func(b *bench) error { return rekeyed(b.Context(), b.open()) }},
		exercise{name: "same: one place", do: func(b *bench) error { return second(b.open().SameAs(b.Context(), b.open())) }},
		exercise{name: "same: two places", do: func(b *bench) error {
			return second(b.open().SameAs(b.Context(), memstore.New(nil)))
		}},
	)
}

// TestCallsOfOperations checks that each operation makes the calls that testdata records.
func TestCallsOfOperations(t *testing.T) {
	t.Parallel()
	var text strings.Builder
	for i, e := range exercises() {
		if i > 0 {
			text.WriteByte('\n')
		}
		text.WriteString(e.record(t))
	}
	golden(t, "operations.txt", text.String())
	names := strings.Split(text.String(), "\n\n")
	slices.Sort(names)
	if len(slices.Compact(names)) < len(exercises()) {
		t.Error("two exercises are the same")
	}
}
