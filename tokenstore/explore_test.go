package tokenstore_test

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/stored"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/doctor"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/memstore"
)

var exploreRuns = flag.Int("explore.runs", 100, "runs of each scenario of TestEveryInterleaving at most, and as many at random; 0: all")

// A world is a memory whose every call waits for a scheduler to let it go on. It
// keeps the history of each secret, from which stale reads are answered.
type world struct {
	memory *memstore.Driver

	mu      sync.Mutex
	pending []*call
	past    map[string][]*driver.Secret // states of each name, nil for absent; the last is the present one
	free    bool                        // calls do not wait any more
	marker  bool                        // to read the marker of keys is a step, too

	violation string // of a rule that no outcome shows

	processes sync.WaitGroup
}

// A call is one call of a driver that waits to be let go on.
type call struct {
	writer int
	text   string
	name   string // of the secret; empty if it is about all
	write  bool
	stale  func() bool // whether there is an older state to answer with
	verb   chan verb
}

// A verb is what becomes of a call.
type verb int

const (
	proceed     verb = iota
	answerStale      // with the state before the present one
	loseAnswer       // apply, but report that the outcome is unknown
	loseCall         // report that the outcome is unknown, and apply nothing
	crashBefore      // the writer dies before the call
	crashAfter       // or just after it
)

func (v verb) String() string {
	return [...]string{"", " (stale)", " (answer lost)", " (call lost)", " (crash before)", " (crash after)"}[v]
}

var (
	errCrashed = fmt.Errorf("the process is dead: %w", context.Canceled)
	errDead    = fmt.Errorf("%w since an earlier call", errCrashed)
)

// A handle is one process's driver.
type handle struct {
	*world
	writer  int
	lag     bool
	ancient bool // stale reads bring an earlier incarnation
	crashed bool // guarded by world.mu
}

// step waits for the scheduler. do applies the call, old answers it from the past.
func step[T any](h *handle, text string, write bool, name string, do func() (T, error), old func() (T, error)) (T, error) {
	var zero T
	h.mu.Lock()
	if h.crashed {
		h.mu.Unlock()
		return zero, errDead
	}
	// No scenario has keys: whether there is a marker of them is the same at any
	// moment, and the explorer takes no step to read it.
	if h.free || !h.marker && !write && name == "keys" {
		h.mu.Unlock()
		return do()
	}
	c := &call{writer: h.writer, text: text, name: name, write: write, verb: make(chan verb)}
	c.stale = func() bool { return h.lag && old != nil && (name == "" || len(h.past[name]) > 1) }
	h.pending = append(h.pending, c)
	h.mu.Unlock()
	switch <-c.verb {
	case answerStale:
		return old()
	case loseAnswer:
		_, err := do()
		if err != nil {
			return zero, err
		}
		return zero, fmt.Errorf("%w: the answer was lost", driver.ErrUnavailable)
	case loseCall:
		return zero, fmt.Errorf("%w: the call was lost", driver.ErrUnavailable)
	case crashBefore:
		h.die()
		return zero, errCrashed
	case crashAfter:
		_, _ = do()
		h.die()
		return zero, errCrashed
	}
	return do()
}

func (h *handle) die() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.crashed = true
}

func (h *handle) note(name string) {
	s, err := h.memory.Get(context.Background(), name)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.past[name] == nil {
		h.past[name] = []*driver.Secret{nil}
	}
	if err != nil {
		h.past[name] = append(h.past[name], nil)
		return
	}
	h.past[name] = append(h.past[name], &s)
}

func (h *handle) before(name string) (driver.Secret, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	past := h.past[name]
	if h.ancient {
		// The last state of the incarnation before.
		for i := len(past) - 1; i > 0; i-- {
			if past[i] == nil && past[i-1] != nil {
				return *past[i-1], nil
			}
		}
	}
	if s := past[len(past)-2]; s != nil {
		return *s, nil
	}
	return driver.Secret{}, driver.ErrNotFound
}

func (h *handle) Properties() driver.Properties {
	p := h.memory.Properties()
	if h.lag {
		p.ReadLag, p.ListLag = driver.Unbounded, driver.Unbounded
	}
	return p
}

func (h *handle) Get(ctx context.Context, name string) (driver.Secret, error) {
	return step(h, "get "+name, false, name,
		func() (driver.Secret, error) { return h.memory.Get(ctx, name) },
		func() (driver.Secret, error) { return h.before(name) })
}

func (h *handle) Fresh(ctx context.Context, name string, than driver.Secret) (driver.Secret, error) {
	return step(h, "fresh "+name, false, name,
		func() (driver.Secret, error) { return h.memory.Fresh(ctx, name, than) }, nil)
}

// A noter is a handle of a driver that keeps leases in notes. Its Fresh may be out
// of date, as far as the caller does not know better; but what is there it finds.
type noter struct{ *handle }

var _ driver.Leaser = noter{}

func (n noter) Fresh(ctx context.Context, name string, than driver.Secret) (driver.Secret, error) {
	now := func() (driver.Secret, error) { return n.memory.Fresh(ctx, name, than) }
	return step(n.handle, "fresh "+name, false, name, now, func() (driver.Secret, error) {
		old, err := n.before(name)
		if err != nil || than.Version != "" && number(old.Version) < number(than.Version) {
			return now()
		}
		return old, nil
	})
}

func number(v driver.Version) int {
	n, err := strconv.Atoi(string(v))
	if err != nil {
		panic(err)
	}
	return n
}

func (n noter) Note(ctx context.Context, name string, base driver.Secret, note string) error {
	_, err := step(n.handle, "note "+name, true, name, func() (struct{}, error) {
		err := n.memory.Note(ctx, name, base, note)
		if err == nil {
			n.note(name)
		}
		return struct{}{}, err
	}, nil)
	return err
}

// driver returns the handle as the scenario wants it.
func (h *handle) driver(sc scenario) driver.Secrets {
	if sc.notes {
		return noter{h}
	}
	return h
}

func (h *handle) Create(ctx context.Context, name string, p driver.Payload) (driver.Version, error) {
	return step(h, "create "+name, true, name, func() (driver.Version, error) {
		v, err := h.memory.Create(ctx, name, p)
		if err == nil {
			h.note(name)
		}
		return v, err
	}, nil)
}

func (h *handle) Update(ctx context.Context, name string, base driver.Secret, p driver.Payload) (driver.Version, error) {
	return step(h, "update "+name, true, name, func() (driver.Version, error) {
		moved := h.overMoved(ctx, name, p.Data)
		v, err := h.memory.Update(ctx, name, base, p)
		if err == nil {
			h.note(name)
			if moved {
				h.mu.Lock()
				h.violation = "an update over " + name + ", which has moved"
				h.mu.Unlock()
			}
		}
		return v, err
	}, nil)
}

// overMoved reports whether data would change an entry that has moved, other than
// into an alias, or an alias.
func (h *handle) overMoved(ctx context.Context, name string, data []byte) bool {
	was, err := h.memory.Get(ctx, name)
	if err != nil {
		return false
	}
	old, err1 := stored.Decode(was.Data)
	next, err2 := stored.Decode(data)
	return err1 != nil || err2 != nil || old.Moved != nil && next.Alias == nil ||
		old.Alias != nil && (next.Alias == nil || *old.Alias != *next.Alias)
}

func (h *handle) Delete(ctx context.Context, name string, base driver.Secret) error {
	_, err := step(h, "delete "+name, true, name, func() (struct{}, error) {
		err := h.memory.Delete(ctx, name, base)
		if err == nil {
			h.note(name)
		}
		return struct{}{}, err
	}, nil)
	return err
}

func (h *handle) Lookup(ctx context.Context, any []driver.Label) iter.Seq2[driver.Named, error] {
	return sorted(step(h, "lookup", false, "",
		func() ([]driver.Named, error) { return collect(h.memory.Lookup(ctx, any)) },
		func() ([]driver.Named, error) { return h.lookupBefore(any), nil }))
}

// lookupBefore answers as an index does that has not caught up: no secret is
// found by what its last write added, and each by what it had before.
func (h *handle) lookupBefore(any []driver.Label) []driver.Named {
	h.mu.Lock()
	defer h.mu.Unlock()
	var found []driver.Named
	for name, past := range h.past {
		at := past[max(0, len(past)-2)]
		if at == nil {
			continue
		}
		for _, l := range at.Labels {
			if slices.ContainsFunc(any, func(a driver.Label) bool { return a.Key == l.Key && a.Value == l.Value }) {
				found = append(found, driver.Named{Name: name, Secret: *at})
				break
			}
		}
	}
	return found
}

func (h *handle) List(ctx context.Context) iter.Seq2[driver.Named, error] {
	return sorted(step(h, "list", false, "",
		func() ([]driver.Named, error) { return collect(h.memory.List(ctx)) }, nil))
}

func (h *handle) Names(ctx context.Context) iter.Seq2[string, error] { return h.memory.Names(ctx) }
func (h *handle) Close() error                                       { return nil }

func collect(seq iter.Seq2[driver.Named, error]) ([]driver.Named, error) {
	var all []driver.Named
	for n, err := range seq {
		if err != nil {
			return nil, err
		}
		all = append(all, n)
	}
	return all, nil
}

func sorted(all []driver.Named, err error) iter.Seq2[driver.Named, error] {
	slices.SortFunc(all, func(a, b driver.Named) int { return strings.Compare(a.Name, b.Name) })
	return func(yield func(driver.Named, error) bool) {
		if err != nil {
			yield(driver.Named{}, err)
			return
		}
		for _, n := range all {
			if !yield(n, nil) {
				return
			}
		}
	}
}

// A scenario is what two processes do at once.
type scenario struct {
	name  string
	setup func(context.Context, *tokenstore.Store)
	ops   []operation // by one process each
	// loose scenarios may leave a second record without a user, by the exception
	// in the contract: when lookups are stale, or if they begin with one.
	loose, duplicates bool
	// check, if set, is asked after each run. crashes is how many processes died.
	check func(crashes int) error
	// broken, if set, is done after setup by a process that dies after its first
	// write, and after is done then.
	broken *operation
	after  func(context.Context, *tokenstore.Store)
	// ids all find a record in the end, if the user's is there.
	ids []string
	// lags says that the processes take searches to be out of date, in runs without
	// stale reads too.
	lags bool
	// ancient says that stale reads bring the end of the incarnation before.
	ancient bool
	// lease is the store's LeaseTTL.
	lease time.Duration
	// notes says that the driver keeps leases in notes.
	notes bool
}

// prepare brings about what the processes find.
func (sc scenario) prepare(t *testing.T, d driver.Secrets) {
	ctx := t.Context()
	s := open(t, d, sc.lease)
	sc.setup(ctx, s)
	if sc.broken == nil {
		return
	}
	if err := sc.broken.do(ctx, open(t, doomed(d, 1, false), sc.lease)); !errors.Is(err, errCrashed) {
		t.Fatalf("%s ends with %v, want it to break off", sc.broken.name, err)
	}
	sc.after(ctx, s)
}

type operation struct {
	name string
	do   func(context.Context, *tokenstore.Store) error
	then *operation // done next by the same process, if do succeeds
}

func (o operation) all(ctx context.Context, s *tokenstore.Store) error {
	if err := o.do(ctx, s); err != nil || o.then == nil {
		return err
	}
	return o.then.all(ctx, s)
}

// budgets are how often each kind of fault may happen in one run.
type budgets struct{ crashes, losses, stales int }

// A run is one execution, driven by a list of choices.
type run struct {
	choices []int // at each decision, which option
	options []int // how many there were
	trace   []string
	last    []*call
	random  *rand.Rand            // chooses, if it is set
	pick    func([]option) option // or this does
	calls   *recording            // of what the processes call, if it is set

	// asleep are options that were taken before at an earlier decision, and have
	// commuted with everything since: to take them now would repeat another run.
	asleep []option
}

// An option is what can happen next: a call, and what becomes of it.
type option struct {
	call *call
	verb verb
}

func (o option) is(p option) bool {
	return o.call.writer == p.call.writer && o.call.text == p.call.text && o.verb == p.verb
}

// commutes reports whether o and p, of different processes, or sent at once by
// one, lead to the same state in either order.
func (o option) commutes(p option) bool {
	switch {
	case o.call == p.call:
		return false
	case o.verb != proceed && p.verb != proceed:
		return false // they may draw on the same budget
	case !o.call.write && !p.call.write:
		return true
	case o.call.writer == p.call.writer:
		return false
	case o.verb == crashBefore || p.verb == crashBefore:
		return true
	}
	return o.call.name != "" && p.call.name != "" && o.call.name != p.call.name
}

// patience is how many reads in a row a process may do while another one waits
// for the scheduler. More than any operation does but for polling.
const patience = 6

// fair leaves out a process that does nothing but look again and again whether
// another one has got on, while that one waits for the scheduler.
func fair(options []option, last []*call) []option {
	if len(last) < patience {
		return options
	}
	last = last[len(last)-patience:]
	for _, c := range last {
		if c.write || c.writer != last[0].writer {
			return options
		}
	}
	others := slices.DeleteFunc(slices.Clone(options), func(o option) bool { return o.call.writer == last[0].writer })
	if len(others) == 0 {
		return options
	}
	return others
}

// choose returns the option to take, or false if all of them are asleep.
func (r *run) choose(options []option) (option, bool) {
	if r.pick != nil {
		return r.pick(options), true
	}
	awake := slices.DeleteFunc(options, func(o option) bool { return slices.ContainsFunc(r.asleep, o.is) })
	if len(awake) == 0 {
		return option{}, false
	}
	at := len(r.options)
	r.options = append(r.options, len(awake))
	if at >= len(r.choices) {
		c := 0
		if r.random != nil {
			c = r.random.IntN(len(awake))
		}
		r.choices = append(r.choices, c)
	}
	taken := awake[r.choices[at]]
	if r.random != nil {
		return taken, true
	}
	r.asleep = append(r.asleep, awake[:r.choices[at]]...)
	r.asleep = slices.DeleteFunc(r.asleep, func(o option) bool { return !o.commutes(taken) })
	return taken, true
}

// next returns the choices of the run that follows in depth-first order, or nil.
func (r *run) next() []int {
	for i := len(r.options) - 1; i >= 0; i-- {
		if r.choices[i]+1 < r.options[i] {
			return append(slices.Clone(r.choices[:i]), r.choices[i]+1)
		}
	}
	return nil
}

// progress estimates how much of all runs were over before this one, if every
// option at a decision leads to as many runs as the others.
func (r *run) progress() float64 {
	done, share := 0.0, 1.0
	for i, n := range r.options {
		share /= float64(n)
		done += share * float64(r.choices[i])
	}
	return done
}

type result struct {
	done, crashed bool
	err           error
}

// play executes the scenario once, in the order that r chooses. It returns nil if
// that would repeat another run.
func play(t *testing.T, sc scenario, b budgets, r *run) (*world, []result) {
	ctx := t.Context()
	w := &world{memory: memstore.NewDriver(), past: map[string][]*driver.Secret{}, free: true}
	sc.prepare(t, (&handle{world: w, writer: -1}).driver(sc))
	w.free = false
	results := make([]result, len(sc.ops))
	handles := make([]*handle, len(sc.ops))
	for i, op := range sc.ops {
		handles[i] = &handle{world: w, writer: i, lag: b.stales > 0 || sc.lags, ancient: sc.ancient}
		s := open(t, r.calls.of(op.name, handles[i].driver(sc)), sc.lease)
		w.processes.Go(func() {
			err := op.all(ctx, s)
			w.mu.Lock()
			defer w.mu.Unlock()
			results[i] = result{done: true, err: err, crashed: handles[i].crashed}
		})
	}
	if !w.schedule(sc, b, r, results) {
		w.letGo()
		return nil, nil
	}
	w.free = true
	return w, results
}

// schedule lets the processes do one call at a time, until all have ended. It
// returns false if that would repeat another run.
func (w *world) schedule(sc scenario, b budgets, r *run, results []result) bool {
	for {
		ready := w.settle(results)
		if len(ready) == 0 {
			return true
		}
		options := fair(b.options(ready), r.last)
		if r.random == nil && sc.check == nil && sc.lease == 0 {
			options = once(options, r.last)
		}
		o, ok := r.choose(options)
		if !ok {
			return false
		}
		switch o.verb {
		case answerStale:
			b.stales--
		case loseAnswer, loseCall:
			b.losses--
		case crashBefore, crashAfter:
			b.crashes--
		}
		r.last = append(r.last, o.call)
		r.trace = append(r.trace, fmt.Sprintf("%s: %s%s", sc.ops[o.call.writer].name, o.call.text, o.verb))
		w.release(o.call, o.verb)
	}
}

// options returns what can become of the calls that wait, first that they go on.
func (b budgets) options(ready []*call) []option {
	var options []option
	for _, c := range ready {
		options = append(options, option{c, proceed})
	}
	for _, c := range ready {
		if b.stales > 0 && c.stale() {
			options = append(options, option{c, answerStale})
		}
		if b.losses > 0 && c.write {
			options = append(options, option{c, loseAnswer}, option{c, loseCall})
		}
		if b.crashes > 0 && c.write {
			options = append(options, option{c, crashBefore}, option{c, crashAfter})
		}
	}
	return options
}

// once leaves out the crash of a process before a write that is not its first one. It
// leaves what the crash after the write before has left: a process only reads between
// two writes, unless it calls mint.
func once(options []option, last []*call) []option {
	return slices.DeleteFunc(options, func(o option) bool {
		return o.verb == crashBefore && slices.ContainsFunc(last, func(c *call) bool { return c.write && c.writer == o.call.writer })
	})
}

// settle lets time pass until every process has either ended or waits for the
// scheduler, and returns the calls that wait, in an order that does not depend on
// chance.
func (w *world) settle(results []result) []*call {
	for {
		synctest.Wait()
		w.mu.Lock()
		busy := map[int]bool{}
		for i, r := range results {
			busy[i] = !r.done
		}
		ready := slices.Clone(w.pending)
		for _, c := range ready {
			delete(busy, c.writer)
		}
		w.mu.Unlock()
		sleeping := false
		for _, b := range busy {
			sleeping = sleeping || b
		}
		if !sleeping {
			slices.SortFunc(ready, func(a, b *call) int {
				return cmp.Or(cmp.Compare(a.writer, b.writer), strings.Compare(a.text, b.text))
			})
			return ready
		}
		<-time.After(100 * time.Millisecond) // on the bubble's clock
	}
}

// letGo ends a run: all that wait go on, as do those who come.
func (w *world) letGo() {
	w.mu.Lock()
	w.free = true
	waiting := w.pending
	w.pending = nil
	w.mu.Unlock()
	for _, c := range waiting {
		c.verb <- proceed
	}
	w.processes.Wait()
}

func (w *world) release(c *call, v verb) {
	w.mu.Lock()
	w.pending = slices.DeleteFunc(w.pending, func(p *call) bool { return p == c })
	w.mu.Unlock()
	c.verb <- v
}

func open(t *testing.T, d driver.Secrets, lease time.Duration) *tokenstore.Store {
	return steady(t, d, &tokenstore.Options{Attempts: 30, LeaseTTL: lease})
}

// steady returns a store in which chance does not decide what happens first.
func steady(t *testing.T, d driver.Secrets, opts *tokenstore.Options) *tokenstore.Store {
	s, err := tokenstore.New(d, opts)
	if err != nil {
		t.Fatal(err)
	}
	s.Steadily() // a run is played again by its choices alone
	return s
}

// dump is what a process that starts cold sees: all records, or only those of
// users.
func dump(t *testing.T, w *world, users bool) string {
	ctx := t.Context()
	s := open(t, w.memory.Reopen(), 0)
	tokens, err := s.GetTokens(ctx)
	if err != nil {
		t.Fatalf("GetTokens: %v", err)
	}
	var b strings.Builder
	for _, k := range tokens {
		if users && k.UserName == "" {
			continue
		}
		fmt.Fprintf(&b, "%s user=%s client=%s secret=%s refresh=%s access=%s grant=%s expires=%d api=%s\n", k.ID, k.UserName, k.ClientID,
			string(k.ClientSecret), string(k.RefreshToken), string(k.AccessToken), string(k.GrantToken), expiry(k), k.APIDomain)
	}
	return b.String()
}

func expiry(t tokenstore.Token) int64 {
	if t.ExpiresAt.IsZero() {
		return 0
	}
	return t.ExpiresAt.UnixMilli()
}

// found checks that every record is found by every key that it has.
func found(t *testing.T, w *world, loose bool) error {
	ctx := t.Context()
	s := open(t, w.memory.Reopen(), 0)
	tokens, err := s.GetTokens(ctx)
	if err != nil {
		return err
	}
	users := map[[2]string]string{}
	for _, k := range tokens {
		likes := []tokenstore.Token{{ID: k.ID}}
		if k.UserName != "" {
			if other, twice := users[[2]string{k.UserName, k.ClientID}]; twice {
				return fmt.Errorf("two records of one user: %s and %s", other, k.ID)
			}
			users[[2]string{k.UserName, k.ClientID}] = k.ID
			likes = append(likes, tokenstore.Token{UserName: k.UserName, ClientID: k.ClientID})
		}
		if k.UserName != "" || !loose {
			if k.RefreshToken != "" && k.ClientID != "" {
				likes = append(likes, tokenstore.Token{ClientID: k.ClientID, RefreshToken: k.RefreshToken})
			}
			if k.GrantToken != "" && k.ClientID != "" {
				likes = append(likes, tokenstore.Token{ClientID: k.ClientID, GrantToken: k.GrantToken})
			}
			if k.AccessToken != "" && !loose {
				likes = append(likes, tokenstore.Token{AccessToken: k.AccessToken})
			}
		}
		for i, like := range likes {
			f, err := s.FindToken(ctx, like)
			if err != nil {
				return fmt.Errorf("record %s is not found by key %d: %w", k.ID, i, err)
			}
			if f.ID != k.ID {
				return fmt.Errorf("key %d of record %s finds %s", i, k.ID, f.ID)
			}
		}
	}
	return nil
}

// foundByIDs checks that the record of the user, if there is one, is found by all
// the IDs.
func foundByIDs(t *testing.T, w *world, ids []string) error {
	s := open(t, w.memory.Reopen(), 0)
	want, err := s.FindToken(t.Context(), tokenstore.Token{UserName: user, ClientID: client})
	if errors.Is(err, tokenstore.ErrNotFound) {
		return nil
	}
	for _, id := range ids {
		// Where the process died that was to move it, it is a record of its own.
		if got, err := s.FindTokenByID(t.Context(), id); err != nil || got.ID != want.ID && got.UserName != "" {
			return fmt.Errorf("the ID %q finds %q, error %v", id, got.ID, err)
		}
	}
	return err
}

// outcomes are what a scenario may end in: what the operations leave behind when
// they are done one after the other, in any order; those of processes in maybe
// need not be done to the end.
func outcomes(t *testing.T, fresh func() scenario, maybe []bool, users bool) map[string]bool {
	allowed := map[string]bool{}
	for _, order := range orders(fresh(), maybe) {
		sc := fresh()
		sc.ops = slices.Clone(sc.ops)
		w := &world{memory: memstore.NewDriver(), free: true, past: map[string][]*driver.Secret{}}
		s := open(t, &handle{world: w}, sc.lease)
		sc.prepare(t, &handle{world: w})
		for _, i := range order {
			if sc.ops[i].do == nil {
				continue // an operation before it failed
			}
			if err := sc.ops[i].do(t.Context(), s); err != nil || sc.ops[i].then == nil {
				sc.ops[i].do = nil
				continue
			}
			sc.ops[i] = *sc.ops[i].then
		}
		allowed[dump(t, w, users)] = true
	}
	return allowed
}

// orders returns every order of the operations, each given by its process.
func orders(sc scenario, maybe []bool) [][]int {
	var all [][]int
	var extend func(done []int, left []*operation)
	extend = func(done []int, left []*operation) {
		finished := true
		for i, o := range left {
			if o == nil {
				continue
			}
			finished = finished && maybe[i]
			next := slices.Clone(left)
			next[i] = o.then
			extend(append(slices.Clone(done), i), next)
		}
		if finished {
			all = append(all, done)
		}
	}
	var first []*operation
	for i := range sc.ops {
		first = append(first, &sc.ops[i])
	}
	extend(nil, first)
	return all
}

// explore runs the scenario in every order of its calls, with faults within the
// budgets, and checks what is left after each.
func explore(t *testing.T, fresh func() scenario, b budgets) {
	c := checker{fresh: fresh, budgets: b, allowed: map[string]map[string]bool{}}
	samples := *exploreRuns
	if len(fresh().ops) > 2 {
		samples = cmp.Or(samples, 20_000) // of three processes' orders there are too many
	} else {
		var choices []int
		for runs := 1; *exploreRuns == 0 || runs <= *exploreRuns; runs++ {
			r := &run{choices: choices}
			c.check(t, r)
			if choices = r.next(); choices == nil {
				t.Logf("all of %d runs", runs)
				return
			}
			if runs%50_000 == 0 {
				t.Logf("%d runs, about %.0f %% of all", runs, 100*r.progress())
			}
		}
		// Depth first, what was tried so far differs in how it ends.
	}
	for seed := range samples {
		c.check(t, &run{random: rand.New(rand.NewPCG(uint64(seed), 0))})
	}
	t.Logf("%d runs at random", samples)
}

// A checker plays runs of a scenario and checks what is left after each.
type checker struct {
	fresh func() scenario
	budgets
	allowed map[string]map[string]bool // by who need not have finished
}

func (c *checker) check(t *testing.T, r *run) {
	sc, b := c.fresh(), c.budgets
	w, results := play(t, sc, b, r)
	if w == nil {
		return // it would repeat another run
	}
	lost := slices.ContainsFunc(r.trace, func(step string) bool { return strings.HasSuffix(step, loseCall.String()) })
	loose := sc.loose && b.stales > 0 || sc.duplicates && (b.stales > 0 || b.crashes > 0 || lost)
	fail := func(format string, args ...any) {
		t.Helper()
		t.Fatalf("after\n\t%s\n%s", strings.Join(r.trace, "\n\t"), fmt.Sprintf(format, args...))
	}
	maybe := make([]bool, len(sc.ops))
	crashes := 0
	for i, res := range results {
		switch {
		case res.crashed:
			crashes++
			maybe[i] = true
		case loose:
			maybe[i] = true
		case res.err == nil:
		case errors.Is(res.err, tokenstore.ErrUnavailable) && b.losses > 0,
			errors.Is(res.err, tokenstore.ErrNotPersisted):
			maybe[i] = true
		case errors.Is(res.err, tokenstore.ErrNotFound), errors.Is(res.err, tokenstore.ErrInvalidToken), errors.Is(res.err, tokenstore.ErrIDMismatch):
			maybe[i] = true // it met a deletion; what may be left is checked below
		default:
			fail("%s: %v", sc.ops[i].name, res.err)
		}
	}
	key := fmt.Sprint(maybe, loose)
	if c.allowed[key] == nil {
		c.allowed[key] = outcomes(t, c.fresh, maybe, loose)
	}
	if w.violation != "" {
		fail("%s", w.violation)
	}
	if sc.check != nil {
		if err := sc.check(crashes); err != nil {
			fail("%v", err)
		}
	}
	if err := found(t, w, loose); err != nil {
		fail("%v\n%s", err, dump(t, w, false))
	}
	if got := dump(t, w, loose); !c.allowed[key][got] && !(loose && sc.duplicates) {
		fail("left\n%s\nwhich no order of the operations leaves; allowed:\n%s", got, strings.Join(slices.Sorted(maps.Keys(c.allowed[key])), "or\n"))
	}
	if err := foundByIDs(t, w, sc.ids); err != nil {
		fail("%v\n%s", err, dump(t, w, false))
	}
	// Whoever finds an operation unfinished does it again, from anew.
	for i, res := range results {
		if res.crashed {
			s := open(t, w.memory.Reopen(), sc.lease)
			if err := sc.ops[i].all(t.Context(), s); err != nil && !acceptable(err) {
				fail("%s again: %v", sc.ops[i].name, err)
			}
			if err := found(t, w, loose); err != nil {
				fail("%s again: %v\n%s", sc.ops[i].name, err, dump(t, w, false))
			}
		}
	}
}

func acceptable(err error) bool {
	return errors.Is(err, tokenstore.ErrNotFound) || errors.Is(err, tokenstore.ErrInvalidToken) || errors.Is(err, tokenstore.ErrIDMismatch)
}

const (
	client = "client"
	user   = "ann@example.com"
)

func at(second int64) time.Time { return time.Unix(4_000_000_000+second, 0) }

func save(t tokenstore.Token) operation {
	return operation{name: "save", do: func(ctx context.Context, s *tokenstore.Store) error {
		_, err := s.SaveToken(ctx, t)
		return err
	}}
}

func must(t tokenstore.Token, err error) tokenstore.Token {
	if err != nil {
		panic(err)
	}
	return t
}

// consent saves a one-time code and what it was exchanged for.
func consent(ctx context.Context, s *tokenstore.Store, n string, expires int64) string {
	g := must(s.SaveToken(ctx, tokenstore.Token{ClientID: client, ClientSecret: "secret", GrantToken: tokenstore.Secret("grant" + n)}))
	must(s.SaveToken(ctx, tokenstore.Token{ID: g.ID, RefreshToken: tokenstore.Secret("refresh" + n), AccessToken: tokenstore.Secret("access" + n), ExpiresAt: at(expires)}))
	return g.ID
}

// idOf returns the ID that a grant token's record has before it has a user.
func idOf(n string) string {
	s := memstore.New(nil)
	return must(s.SaveToken(context.Background(), tokenstore.Token{ClientID: client, GrantToken: tokenstore.Secret("grant" + n)})).ID
}

func userID() string {
	s := memstore.New(nil)
	return must(s.SaveToken(context.Background(), tokenstore.Token{ClientID: client, UserName: user, GrantToken: "x"})).ID
}

func promote(n string) operation {
	return operation{name: "promote " + n, do: func(ctx context.Context, s *tokenstore.Store) error {
		_, err := s.SaveToken(ctx, tokenstore.Token{ID: idOf(n), UserName: user})
		return err
	}}
}

func remove(id string) operation {
	return operation{name: "delete " + id[:1], do: func(ctx context.Context, s *tokenstore.Store) error { return s.DeleteToken(ctx, id) }}
}

// replace deletes a record and saves another.
func replace(id string, by operation) operation {
	o := remove(id)
	o.name, o.then = "replace", &by
	return o
}

func scenarios() []scenario {
	nothing := func(context.Context, *tokenstore.Store) {}
	annExists := func(ctx context.Context, s *tokenstore.Store) {
		must(s.SaveToken(ctx, tokenstore.Token{UserName: user, ClientID: client, ClientSecret: "secret", RefreshToken: "refresh0", AccessToken: "access0", ExpiresAt: at(10)}))
	}
	one := func(ctx context.Context, s *tokenstore.Store) { consent(ctx, s, "1", 20) }
	two := func(ctx context.Context, s *tokenstore.Store) { consent(ctx, s, "1", 20); consent(ctx, s, "2", 30) }
	second := func(ctx context.Context, s *tokenstore.Store) { annExists(ctx, s); consent(ctx, s, "1", 20) }
	ann := tokenstore.Token{UserName: user, ClientID: client}
	with := func(t tokenstore.Token, change func(*tokenstore.Token)) tokenstore.Token { change(&t); return t }
	fields := save(with(ann, func(t *tokenstore.Token) { t.RefreshToken = "refresh9"; t.APIDomain = "https://api" }))
	access := save(with(ann, func(t *tokenstore.Token) { t.AccessToken = "access9"; t.ExpiresAt = at(90) }))
	// Ann's record is deleted and saved again: a stale read brings the earlier
	// incarnation.
	renew := func(ctx context.Context, s *tokenstore.Store) {
		if err := s.DeleteToken(ctx, userID()); err != nil {
			panic(err)
		}
		must(s.SaveToken(ctx, tokenstore.Token{UserName: user, ClientID: client, RefreshToken: "refresh5", AccessToken: "access5", ExpiresAt: at(50)}))
	}
	// What is left of a code's record was seen by all searches for long: the next
	// write of the user's record removes it.
	redirected := func(ctx context.Context, s *tokenstore.Store) {
		annExists(ctx, s)
		must(s.SaveToken(ctx, tokenstore.Token{ID: consent(ctx, s, "1", 20), UserName: user}))
		must(s.SaveToken(ctx, tokenstore.Token{UserName: user, ClientID: client, APIDomain: "https://first"}))
		<-time.After(48 * time.Hour)
	}
	own := func(n string, expires int64) func(context.Context, *tokenstore.Store) {
		return func(ctx context.Context, s *tokenstore.Store) {
			must(s.SaveToken(ctx, tokenstore.Token{ID: "own" + n, ClientID: client, GrantToken: tokenstore.Secret("grant" + n)}))
			// A search that is out of date does not see what the last write added.
			must(s.SaveToken(ctx, tokenstore.Token{ID: "own" + n, RefreshToken: tokenstore.Secret("refresh" + n), AccessToken: tokenstore.Secret("access" + n), ExpiresAt: at(expires)}))
		}
	}
	owns := func(ctx context.Context, s *tokenstore.Store) {
		annExists(ctx, s)
		own("1", 20)(ctx, s)
		own("2", 30)(ctx, s)
	}
	promoteOwn := func(n string) operation {
		return operation{name: "promote own" + n, do: func(ctx context.Context, s *tokenstore.Store) error {
			_, err := s.SaveToken(ctx, tokenstore.Token{ID: "own" + n, UserName: user})
			return err
		}}
	}
	repair := operation{name: "repair", do: func(ctx context.Context, s *tokenstore.Store) error {
		for f, err := range s.Check(ctx, &doctor.CheckOptions{Repair: true}) {
			if err != nil || f.Err != nil {
				return errors.Join(err, f.Err)
			}
		}
		return nil
	}}
	again := func(ctx context.Context, s *tokenstore.Store) { annExists(ctx, s); renew(ctx, s) }
	broken := promote("1")
	return []scenario{
		{name: "two first saves of one user", setup: nothing, ops: []operation{fields, access}},
		{name: "two saves of different fields", setup: annExists, ops: []operation{fields, access}},
		{name: "save and delete", setup: annExists, ops: []operation{access, remove(userID())}},
		{name: "delete and delete", setup: annExists, ops: []operation{remove(userID()), remove(userID())}},
		{name: "two cold starts with one code", setup: nothing, ops: []operation{
			save(tokenstore.Token{ClientID: client, GrantToken: "grant1"}), save(tokenstore.Token{ClientID: client, GrantToken: "grant1"}),
		}},
		{name: "one promotion by two", setup: one, ops: []operation{promote("1"), promote("1")}},
		{name: "two consents at once", setup: two, ops: []operation{promote("1"), promote("2")}},
		{name: "a second consent by two", setup: second, ops: []operation{promote("1"), promote("1")}},
		{name: "promotion and a save of the user", setup: one, ops: []operation{promote("1"), access}},
		{name: "second consent and a save of the user", setup: second, ops: []operation{promote("1"), access}},
		{name: "promotion and deletion of the code's record", setup: one, ops: []operation{promote("1"), remove(idOf("1"))}},
		{name: "second consent and deletion of the user", setup: second, ops: []operation{promote("1"), remove(userID())}},
		{name: "second consent and deletion of the code's record", setup: second, ops: []operation{promote("1"), remove(idOf("1"))}},
		{name: "promotion and a cold start with the code", setup: one, loose: true, ops: []operation{
			promote("1"), save(tokenstore.Token{ClientID: client, GrantToken: "grant1", APIDomain: "https://api"}),
		}},
		{name: "promotion and a save by the ID", setup: one, ops: []operation{
			promote("1"), save(tokenstore.Token{ID: idOf("1"), AccessToken: "access9", ExpiresAt: at(90)}),
		}},
		{name: "promotion and a save by the refresh token", setup: one, loose: true, ops: []operation{
			promote("1"), save(tokenstore.Token{ClientID: client, RefreshToken: "refresh1", AccessToken: "access9", ExpiresAt: at(90)}),
		}},
		{name: "second consent and the user deleted and created anew", setup: second, ops: []operation{promote("1"), replace(userID(), access)}},
		{name: "deletion and creation by two", setup: annExists, ops: []operation{replace(userID(), access), replace(userID(), fields)}},
		{name: "save while the user is deleted and created anew", setup: annExists, ops: []operation{
			save(tokenstore.Token{UserName: user, ClientID: client, APIDomain: "https://api", GrantToken: "grant9"}), replace(userID(), access),
		}},
		{name: "deletion of what was saved again", setup: again, ancient: true, ops: []operation{remove(userID())}},
		{name: "deletion and a save of what was saved again", setup: again, ancient: true, ops: []operation{remove(userID()), access}},
		{name: "two deletions of what was saved again", setup: again, ancient: true, ops: []operation{remove(userID()), remove(userID())}},
		{name: "deletion of all that was saved again", setup: again, ancient: true, ops: []operation{
			{name: "delete all", do: func(ctx context.Context, s *tokenstore.Store) error { return s.DeleteTokens(ctx) }},
		}},
		{name: "promotion that broke off, and a user who was saved again", setup: second, broken: &broken, after: renew, ancient: true, ops: []operation{promote("1")}},
		{name: "promotion that broke off, and a save of a user who was saved again", setup: second, broken: &broken, after: renew, ancient: true, ops: []operation{promote("1"), access}},
		{name: "removal of an alias and a save by the old ID", setup: redirected, lags: true, ids: []string{idOf("1")}, ops: []operation{
			access, save(tokenstore.Token{ID: idOf("1"), APIDomain: "https://api"}),
		}},
		{name: "removal of an alias by two", setup: redirected, lags: true, ids: []string{idOf("1")}, ops: []operation{access, fields}},
		{name: "removal of an alias and a deletion by the old ID", setup: redirected, lags: true, ops: []operation{access, remove(idOf("1"))}},
		{name: "removal of an alias and a deletion of the user", setup: redirected, lags: true, ops: []operation{access, remove(userID())}},
		{name: "removal of an alias and the user deleted and saved again", setup: redirected, lags: true, ops: []operation{access, replace(userID(), fields)}},
		{name: "removal of an alias and a cold start with the code", setup: redirected, lags: true, loose: true, ids: []string{idOf("1")}, ops: []operation{
			access, save(tokenstore.Token{ClientID: client, GrantToken: "grant1", APIDomain: "https://api"}),
		}},
		{name: "removal of an alias and a repair", setup: redirected, lags: true, ids: []string{idOf("1")}, ops: []operation{access, repair}},
		{name: "removal of an alias and a refresh by the old ID", setup: redirected, lags: true, lease: time.Minute, ids: []string{idOf("1")}, ops: []operation{
			fields, {name: "refresh", do: func(ctx context.Context, s *tokenstore.Store) error {
				_, err := s.Refresh(ctx, idOf("1"), "access1", func(context.Context, tokenstore.Token) (tokenstore.Token, error) {
					return tokenstore.Token{AccessToken: "access7", ExpiresAt: at(70)}, nil
				})
				return err
			}},
		}},
		{name: "two own IDs become one record", setup: owns, ids: []string{"own1", "own2"}, ops: []operation{promoteOwn("1"), promoteOwn("2")}},
		{name: "an own ID becomes a user's twice", setup: owns, ids: []string{"own1"}, ops: []operation{promoteOwn("1"), promoteOwn("1")}},
		{name: "an own ID becomes a user's, and a deletion by it", setup: owns, ops: []operation{promoteOwn("1"), remove("own1")}},
		{name: "an own ID becomes a user's, and a save by it", setup: owns, ids: []string{"own1"}, ops: []operation{
			promoteOwn("1"), save(tokenstore.Token{ID: "own1", AccessToken: "access9", ExpiresAt: at(90)}),
		}},
		{name: "one promotion by three", setup: one, ops: []operation{promote("1"), promote("1"), promote("1")}},
		{name: "two consents and a deletion", setup: two, ops: []operation{promote("1"), promote("2"), remove(userID())}},
		{name: "duplicates that two savers find", duplicates: true, setup: func(ctx context.Context, s *tokenstore.Store) {
			must(s.SaveToken(ctx, tokenstore.Token{ClientID: client, RefreshToken: "refresh0", APIDomain: "https://api"}))
			annExists(ctx, s)
		}, ops: []operation{
			save(tokenstore.Token{ClientID: client, RefreshToken: "refresh0", AccessToken: "access8", ExpiresAt: at(80)}), access,
		}},
	}
}

type faultKind struct {
	name string
	budgets
}

// faultKinds are what may go wrong in one run.
func faultKinds() []faultKind {
	return []faultKind{
		{"without faults", budgets{}},
		{"with a crash", budgets{crashes: 1}},
		{"with a lost answer", budgets{losses: 1}},
		{"with stale reads", budgets{stales: 2}},
		{"with a crash and a stale read", budgets{crashes: 1, stales: 1}},
		{"with a lost call and a stale read", budgets{losses: 1, stales: 1}},
	}
}

func TestEveryInterleaving(t *testing.T) {
	for _, sc := range scenarios() {
		for _, b := range faultKinds() {
			t.Run(sc.name+"/"+b.name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) { explore(t, func() scenario { return sc }, b.budgets) })
			})
		}
	}
}
