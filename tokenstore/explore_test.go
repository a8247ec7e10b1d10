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
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/stored"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/doctor"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/memstore"
)

var exploreRuns = flag.Int("explore.runs", 300, "maximum number of runs in order of each setting of TestEveryInterleaving; 0: all runs")

var exploreTime = flag.Duration("explore.time", 0, "how long TestEveryInterleaving looks for runs in order, for each scenario; 0: without a limit")

var exploreEvery = flag.Int("explore.every", 0, "TestReduction compares all settings that have at most this many orders; 0: a few settings")

// A world simulates a secret manager on a memstore.Driver, the memory. Each call waits until a
// scheduler lets the call continue. A world keeps the earlier states of each secret as answers
// to stale reads.
type world struct {
	memory  driver.Leaser
	service service

	mu      sync.Mutex
	pending []*call
	past    map[string][]*driver.Secret // states of each name; nil means that no secret had the name; the last state is current
	labels  map[string][]driver.Label   // labels of each name, if labels are not part of states
	held    map[string]bool             // names of deleted secrets that a finalizer holds
	nonces  int                         // number of nonces of handles that belong to no process
	free    bool                        // calls do not wait for the scheduler
	dead    bool                        // all further calls fail
	marker  bool                        // reads of the marker of keys also wait for the scheduler
	timed   bool                        // the clock of the stores runs while processes pause
	clock   time.Duration               // the time on the clock of the stores, unless the clock runs in a bubble
	began   time.Time                   // when the clock of the stores started, if timed is set
	told    *told                       // the answers that the processes have got; nil means that nothing is recorded
	issuer  *issuer                     // the authorization server, if the scenario has one
	model   *model                      // if not nil, models of the processes take the place of the processes

	lost      bool   // a call, or the response to a call, was lost
	violation string // the violation of a rule that outcomes do not show

	processes sync.WaitGroup
}

// A call is a call of a driver to its service that waits for the scheduler.
type call struct {
	writer    int // the number of the process
	text      string
	name      string // of the secret; empty for a search or list
	write     bool
	labels    bool // the call changes only labels
	do, other func(*handle) (any, error)
	from      *handle
	ends      time.Duration // the deadline of the call on the clock of the world; 0 means none
	result    chan delivery
}

// A delivery is the result of a call that the scheduler has released.
type delivery struct {
	verb  verb
	value any
	err   error
	at    time.Duration // on the clock of the world
}

// stale reports whether h can answer c from an older state.
func (c *call) stale(h *handle) bool {
	return h.lag && !c.write && c.other != nil && (c.name == "" || len(h.past[c.name]) > 1)
}

// holds reports whether a finalizer can hold the name of c, a call of h.
func (c *call) holds(h *handle) bool {
	return c.write && c.other != nil && h.held[c.name] == strings.HasPrefix(c.text, "create ")
}

// A verb says what the scheduler does with a call.
type verb int

const (
	proceed      verb = iota
	answerStale       // answer with an earlier state
	loseAnswer        // apply the call, but report that the outcome is unknown
	loseCall          // do not apply the call, and report that the outcome is unknown
	repeatAfter       // apply the call, and make the client repeat it
	repeatBefore      // do not apply the call, and make the client repeat it
	hold              // let a finalizer hold the name
	crashBefore       // the process dies before the call
	crashAfter        // the process dies just after the call
)

func (v verb) String() string {
	return [...]string{"", " (stale)", " (answer lost)", " (call lost)", " (applied, to be repeated)", " (not applied, to be repeated)", " (held by a finalizer)", " (crash before)", " (crash after)"}[v]
}

var (
	errCrashed = fmt.Errorf("the process is dead: %w", context.Canceled)
	errDead    = fmt.Errorf("%w since an earlier call", errCrashed)
)

// A handle is the driver of one process.
type handle struct {
	*world
	writer  int
	lag     bool // the driver declares that reads and searches may lag
	ancient bool // stale reads return the previous incarnation, if there is one
	crashed bool // guarded by world.mu
	nonces  int  // number of nonces that nonce has returned; guarded by world.mu
}

// step returns the result of a call after the scheduler has executed the call. do applies the
// call through a handle of the world in which the scheduler executes the call. If other is not
// nil, other answers a read from an earlier state, or executes a write while a finalizer holds
// the name.
func step[T any](ctx context.Context, h *handle, text string, write bool, name string, do, other func(*handle) (T, error)) (T, error) {
	c := &call{
		writer: h.writer, text: text, name: name, write: write, labels: strings.Contains(text, "label"),
		do: untyped(do), other: untyped(other), from: h, result: make(chan delivery),
	}
	if at, has := ctx.Deadline(); has {
		c.ends = at.Sub(h.began)
	}
	v, err := h.waits(c)
	typed, _ := v.(T)
	return typed, err
}

func untyped[T any](f func(*handle) (T, error)) func(*handle) (any, error) {
	if f == nil {
		return nil
	}
	return func(h *handle) (any, error) { return f(h) }
}

// waits returns the result of c after the scheduler has executed c.
func (h *handle) waits(c *call) (any, error) {
	h.mu.Lock()
	if h.crashed || h.dead {
		h.mu.Unlock()
		return nil, errDead
	}
	// No scenario has keys, so the result of a read of the marker does not depend on the
	// order of calls. Such a read need not wait for the scheduler.
	if h.free || !h.marker && !c.write && c.name == "keys" {
		h.mu.Unlock()
		v, err := c.do(h)
		h.told.hears(h.writer, "at once "+c.text, v, err)
		return v, err
	}
	h.pending = append(h.pending, c)
	h.mu.Unlock()
	d := <-c.result
	if d.verb == crashBefore || d.verb == crashAfter {
		h.die()
	}
	return d.value, d.err
}

// execute executes c with the verb v, and records the answer of its process.
func (w *world) execute(c *call, v verb) delivery {
	h := w.handleOf(c)
	d := h.becomes(c, v)
	w.told.hears(c.writer, c.text+d.verb.String(), d.value, d.err)
	w.told.reads(c, d)
	d.at = w.elapsed()
	return d
}

// handleOf returns the handle through which w executes c.
func (w *world) handleOf(c *call) *handle {
	if w.model != nil {
		return w.model.handles[c.writer]
	}
	return c.from
}

// elapsed returns the time on the clock of the stores.
func (w *world) elapsed() time.Duration {
	if w.timed && w.model == nil {
		return time.Since(w.began)
	}
	return w.clock
}

// passes advances the clock of the stores by d. Without passes, the clock stands still.
func (w *world) passes(d time.Duration) {
	if w.clock += d; w.model == nil {
		<-time.After(d)
	}
}

// runs lets the clock of the stores run from now on.
func (w *world) runs() { w.began, w.timed = time.Now().Add(-w.elapsed()), true }

// begins ends the preparation of the scenario. Further calls wait for the scheduler.
func (w *world) begins(sc scenario) { w.free, w.clock, w.timed = false, w.elapsed(), sc.timed() }

// becomes returns the delivery of c under the verb v. The verb of the delivery is proceed if the
// fault changed nothing.
func (h *handle) becomes(c *call, v verb) delivery {
	d := delivery{verb: v}
	do := c.do
	if h.model != nil && h.timed && c.ends > 0 && h.elapsed() >= c.ends {
		do = func(*handle) (any, error) { return nil, context.DeadlineExceeded }
	}
	switch v {
	case answerStale:
		d.value, d.err = c.other(h)
		if h.told != nil && h.told.text(d.value, d.err) == h.told.text(do(h)) {
			d.verb = proceed
		}
	case hold:
		d.value, d.err = c.other(h)
	case repeatAfter:
		_, _ = do(h)
		d.err = errRepeat
	case repeatBefore:
		d.err = errRepeat
	case loseAnswer:
		if _, err := do(h); err != nil {
			return delivery{err: err}
		}
		d.err = fmt.Errorf("%w: the answer was lost", driver.ErrUnavailable)
	case loseCall:
		d.err = fmt.Errorf("%w: the call was lost", driver.ErrUnavailable)
	case crashBefore:
		d.err = errCrashed
	case crashAfter:
		_, _ = do(h)
		d.err = errCrashed
	default:
		d.value, d.err = do(h)
	}
	return d
}

func (h *handle) die() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.crashed = true
}

func (h *handle) note(name string) {
	s, err := h.memory.Get(context.Background(), name)
	h.told.written(name, s)
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
	return h.earlier(name, h.ancient)
}

// earlier returns the result of a stale read of name: the state before the current state or, if
// ancient is set, the last state of the previous incarnation if there is one. The caller must
// hold w.mu.
func (w *world) earlier(name string, ancient bool) (driver.Secret, error) {
	past := w.past[name]
	if ancient {
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
	p.LabelBatch = h.service.labelBatch
	return p
}

func (h *handle) Get(ctx context.Context, name string) (driver.Secret, error) {
	return step(ctx, h, "get "+name, false, name,
		func(h *handle) (driver.Secret, error) { return h.memory.Get(ctx, name) },
		func(h *handle) (driver.Secret, error) { return h.before(name) })
}

func (h *handle) Fresh(ctx context.Context, name string, than driver.Secret) (driver.Secret, error) {
	return step(ctx, h, "fresh "+name, false, name,
		func(h *handle) (driver.Secret, error) { return h.memory.Fresh(ctx, name, than) }, nil)
}

// A noter is a handle that implements driver.Leaser. Its method Fresh may return an earlier
// state if that state is at least as new as the parameter than. Fresh does not miss an
// existing secret.
type noter struct{ *handle }

var _ driver.Leaser = noter{}

func (n noter) Fresh(ctx context.Context, name string, than driver.Secret) (driver.Secret, error) {
	now := func(h *handle) (driver.Secret, error) { return h.memory.Fresh(ctx, name, than) }
	return step(ctx, n.handle, "fresh "+name, false, name, now, func(h *handle) (driver.Secret, error) {
		old, err := h.before(name)
		if err != nil || than.Version != "" && number(old.Version) < number(than.Version) {
			return now(h)
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
	_, err := step(ctx, n.handle, "note "+name, true, name, func(h *handle) (struct{}, error) {
		err := h.memory.Note(ctx, name, base, note)
		if err == nil {
			h.note(name)
		}
		return struct{}{}, err
	}, nil)
	return err
}

func (h *handle) driver(sc scenario) driver.Secrets {
	d := h.service.driver(h)
	if sc.notes {
		d = noter{h}
	}
	if sc.wrap != nil && h.writer >= 0 {
		d = sc.wrap(d)
	}
	return d
}

func (h *handle) Create(ctx context.Context, name string, p driver.Payload) (driver.Version, error) {
	v, err := step(ctx, h, "create "+name, true, name, func(h *handle) (driver.Version, error) { return h.creates(ctx, name, p) }, nil)
	h.told.carried(h.writer, p.Data, errors.Is(err, driver.ErrUnavailable))
	return v, err
}

func (h *handle) creates(ctx context.Context, name string, p driver.Payload) (driver.Version, error) {
	v, err := h.memory.Create(ctx, name, p)
	if err == nil {
		h.note(name)
	}
	return v, err
}

func (h *handle) Update(ctx context.Context, name string, base driver.Secret, p driver.Payload) (driver.Version, error) {
	v, err := step(ctx, h, "update "+name, true, name, func(h *handle) (driver.Version, error) { return h.updates(ctx, name, base, p) }, nil)
	h.told.carried(h.writer, p.Data, errors.Is(err, driver.ErrUnavailable))
	return v, err
}

func (h *handle) updates(ctx context.Context, name string, base driver.Secret, p driver.Payload) (driver.Version, error) {
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
}

// overMoved reports whether data would change the target of a redirect, or replace a moved
// entry with an entry other than a redirect.
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
	_, err := step(ctx, h, "delete "+name, true, name, func(h *handle) (struct{}, error) { return struct{}{}, h.deletes(ctx, name, base) }, nil)
	return err
}

func (h *handle) deletes(ctx context.Context, name string, base driver.Secret) error {
	err := h.memory.Delete(ctx, name, base)
	if err == nil {
		h.note(name)
	}
	return err
}

func (h *handle) Lookup(ctx context.Context, any []driver.Label) iter.Seq2[driver.Named, error] {
	return sorted(step(ctx, h, "lookup", false, "",
		func(h *handle) ([]driver.Named, error) { return collect(h.memory.Lookup(ctx, any)) },
		func(h *handle) ([]driver.Named, error) { return h.lookupBefore(any), nil }))
}

// lookupBefore answers like an index that lags. For each secret, lookupBefore returns the state
// before the last write, if that state had one of the labels.
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
	slices.SortFunc(found, func(a, b driver.Named) int { return strings.Compare(a.Name, b.Name) })
	return found
}

func (h *handle) List(ctx context.Context) iter.Seq2[driver.Named, error] {
	return sorted(step(ctx, h, "list", false, "",
		func(h *handle) ([]driver.Named, error) { return collect(h.memory.List(ctx)) }, nil))
}

func (h *handle) Names(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for named, err := range h.List(ctx) {
			if !yield(named.Name, err) {
				return
			}
		}
	}
}

func (h *handle) Close() error { return nil }

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

// A scenario describes concurrent operations of several processes.
type scenario struct {
	name  string
	setup func(context.Context, *tokenstore.Store)
	ops   []operation // each is run by a separate process
	// A loose scenario may leave a second record without a user if look-ups are stale, as
	// the package documentation permits. A scenario with duplicates begins with such a
	// record, which may remain after a fault.
	loose, duplicates bool
	// checks are called after each run, with the issuer and the number of processes that died.
	checks []func(i *issuer, crashes int) error
	// If broken is not nil, a process runs that operation once setup has returned, and dies
	// after its first write. Another process then calls the function in the field after.
	broken *operation
	after  func(context.Context, *tokenstore.Store)
	// ids are the IDs that foundByIDs looks up at the end of a run.
	ids []string
	// lags means that the driver declares a lag even in runs without stale reads. lags has no
	// effect in a scenario with a service.
	lags bool
	// ancient means that stale reads return the last state of the previous incarnation, if
	// there is one.
	ancient bool
	// lease is the LeaseTTL of the stores, or 0 in a scenario without leases.
	lease time.Duration
	// issuer, if not nil, is the authorization server that the processes share.
	issuer *issuer
	// wrap, if not nil, wraps the driver in a driver that breaks a promise.
	wrap func(driver.Secrets) driver.Secrets
	// notes means that the driver keeps leases in notes.
	notes bool
	// faultless means that the scenario does not run with faults.
	faultless bool
	// service is the service that all processes use.
	service service
}

// timed reports whether the clock of the stores runs while a process pauses.
func (sc scenario) timed() bool {
	return slices.ContainsFunc(sc.ops, func(o operation) bool { return o.within || o.then != nil && o.then.within })
}

// prepare creates the records with which the processes start.
func (sc scenario) prepare(t *testing.T, w *world, d driver.Secrets) {
	ctx := t.Context()
	s := w.open(t, d, sc.lease)
	sc.setup(ctx, s)
	if sc.broken == nil {
		return
	}
	if err := sc.broken.do(ctx, w.open(t, doomed(d, 1, false), sc.lease)); !errors.Is(err, errCrashed) {
		t.Fatalf("%s ends with %v, want it to be interrupted", sc.broken.name, err)
	}
	sc.after(ctx, s)
}

type operation struct {
	name string
	do   func(context.Context, *tokenstore.Store) error
	then *operation // the next operation of the same process, if do succeeds

	forgets bool // after a pause, the operation uses nothing that it has read before
	within  bool // the operation limits the time of its calls
}

// all executes o and the operations that follow o. Before each operation, all calls the
// parameter begins.
func (o operation) all(ctx context.Context, s *tokenstore.Store, begins func(operation)) error {
	begins(o)
	if err := o.do(ctx, s); err != nil || o.then == nil {
		return err
	}
	return o.then.all(ctx, s, begins)
}

// budgets limits how often each kind of fault may happen in one run.
type budgets struct{ crashes, losses, stales, repeats, holds int }

// A run is one execution of a scenario. A list of decisions determines the run.
type run struct {
	path   []decision // the decisions to repeat, followed by further decisions of this run
	at     int        // number of decisions that this run has taken
	trace  []string
	last   []*call
	random *rand.Rand            // if set, makes the choices
	pick   func([]option) option // if set, makes the choices
	calls  *recording            // records the calls of the processes, if set
	all    bool                  // the run may repeat other runs

	// tried holds the options that other runs have tried. asleep holds the options that other
	// runs tried at an earlier decision, if they commute with all options that this run has
	// taken since that decision.
	tried   *reduction
	asleep  []option
	now     func() prospect
	save    func() *snapshot // if set, saves the state of the run
	outside func() string
	before  string // the state outside the memory before the last decision
}

// A decision is the choice of an option in one prospect.
type decision struct {
	in    prospect
	left  []string // names of the options to try
	taken int
	saved *snapshot // the state before the decision, if further runs can begin there
}

// An option is a possible next step: a call, and the verb for the call.
type option struct {
	call *call
	verb verb
}

func (o option) String() string { return fmt.Sprint(o.call.writer, o.call.text, o.verb) }

// loses reports whether the operation of the call may fail after the call has changed
// nothing, or only added labels.
func (o option) loses() bool {
	return o.verb == loseCall || o.verb == repeatBefore || o.verb == hold || o.verb == loseAnswer && o.call.labels
}

func (o option) is(p option) bool {
	return o.call.writer == p.call.writer && o.call.text == p.call.text && o.verb == p.verb
}

// commutes reports whether o and p lead to the same state in either order. The two calls must be
// of different processes, or concurrent calls of one process.
func (o option) commutes(p option) bool {
	switch {
	case o.call.writer == p.call.writer && o.call.text == p.call.text:
		return false
	case o.verb != proceed && p.verb != proceed:
		return false // both faults may need the same budget
	case !o.call.write && !p.call.write:
		return true
	case o.call.writer == p.call.writer:
		return false
	case o.verb == crashBefore || p.verb == crashBefore:
		return true
	}
	return o.call.name != "" && p.call.name != "" && o.call.name != p.call.name
}

// idleTime is the time that passes before each call while all processes are idle.
const idleTime = 3 * time.Second

// fair returns options without the options of idle processes. If all processes that wait for
// the scheduler are idle, fair returns all options and true.
func (w *world) fair(options []option) ([]option, bool) {
	idle := map[int]bool{}
	for _, o := range options {
		if _, known := idle[o.call.writer]; !known {
			idle[o.call.writer] = w.told.idle(o.call.writer)
		}
	}
	others := slices.DeleteFunc(slices.Clone(options), func(o option) bool { return idle[o.call.writer] })
	if len(others) == 0 {
		return options, true
	}
	return others, false
}

// choose returns the option to take, or false if other runs have taken all options that can lead
// to a new ending.
func (r *run) choose(options []option) (option, bool) {
	switch {
	case r.pick != nil:
		return r.pick(options), true
	case r.random != nil:
		return options[r.random.IntN(len(options))], true
	}
	r.at++
	awake := slices.DeleteFunc(slices.Clone(options), func(o option) bool { return slices.ContainsFunc(r.asleep, o.is) })
	if r.at > len(r.path) {
		d := decision{}
		if r.all {
			for _, o := range options {
				d.left = append(d.left, o.String())
			}
		} else {
			d.in = r.now()
			d.left = r.tried.left(d.in, awake)
		}
		if r.save != nil && len(d.left) > 1 {
			d.saved = r.save()
		}
		if len(d.left) == 0 {
			return option{}, false
		}
		r.path = append(r.path, d)
	}
	d := r.path[r.at-1]
	if !r.all && r.save != nil && r.now() != d.in {
		panic("the explorer has returned to another situation")
	}
	taken := options[slices.IndexFunc(options, func(o option) bool { return o.String() == d.left[d.taken] })]
	if !r.all {
		r.sleep(d, options, taken)
	}
	return taken, true
}

// sleep updates r.asleep for a step that takes the option in the parameter taken. sleep adds the
// options that earlier runs took in this situation, and removes the options that do not commute
// with the option of the step.
func (r *run) sleep(d decision, options []option, taken option) {
	for _, o := range options {
		if slices.Contains(d.left[:d.taken], o.String()) && !r.tried.noisy[choice{d.in, o.String()}] {
			r.asleep = append(r.asleep, o)
		}
	}
	r.asleep = slices.DeleteFunc(r.asleep, func(o option) bool { return !o.commutes(taken) })
}

// listen checks whether the last decision has changed the state outside the memory. If so,
// listen records that the option of that decision commutes with no other option.
func (r *run) listen() {
	if r.tried == nil || r.outside == nil {
		return
	}
	outside := r.outside()
	if r.at > 0 && outside != r.before {
		d := r.path[r.at-1]
		r.tried.noisy[choice{d.in, d.left[d.taken]}] = true
		r.asleep = nil
	}
	r.before = outside
}

// next returns the path of the next run in depth-first order, or nil if r was the last run.
func (r *run) next() []decision {
	for i := len(r.path) - 1; i >= 0; i-- {
		if r.path[i].taken+1 < len(r.path[i].left) {
			next := slices.Clone(r.path[:i+1])
			next[i].taken++
			return next
		}
	}
	return nil
}

// progress estimates the share of all runs that precede r. The estimate assumes that all options
// of a decision lead to the same number of runs.
func (r *run) progress() float64 {
	done, share := 0.0, 1.0
	for _, d := range r.path {
		share /= float64(len(d.left))
		done += share * float64(d.taken)
	}
	return done
}

type result struct {
	done, crashed bool
	err           error
}

func newWorld(s service) *world {
	return &world{
		timed: true, began: time.Now(), memory: memstore.NewDriver(), service: s, free: true,
		past: map[string][]*driver.Secret{}, labels: map[string][]driver.Label{}, held: map[string]bool{},
	}
}

// cold returns the driver of a newly started process. Calls of the driver do not wait for the
// scheduler while w.free is set.
func (w *world) cold() driver.Secrets { return w.service.driver(&handle{world: w, writer: -1}) }

// play executes the scenario once, in the order that r chooses.
func play(t *testing.T, sc scenario, b budgets, r *run) (*world, []result) {
	w := newWorld(sc.service)
	w.told, w.issuer = newTold(w, len(sc.ops), sc.lease > 0, r.tried == nil), sc.issuer
	sc.prepare(t, w, (&handle{world: w, writer: -1}).driver(sc))
	w.begins(sc)
	results := make([]result, len(sc.ops))
	for i := range sc.ops {
		w.start(t, sc, b, i, r.calls, results)
	}
	w.schedule(sc, b, r, results)
	w.free = true
	w.runs()
	return w, results
}

// start starts the process with the given number.
func (w *world) start(t *testing.T, sc scenario, b budgets, writer int, calls *recording, results []result) {
	op := sc.ops[writer]
	h := &handle{world: w, writer: writer, lag: sc.lag(b), ancient: sc.ancient}
	s := w.open(t, calls.of(op.name, h.driver(sc)), sc.lease)
	s.SetNonces(h.nonce)
	begun := 0
	var current operation
	s.OnPause(func() {
		if current.forgets {
			w.told.forgets(writer, fmt.Sprint("pause of operation ", begun))
		}
	})
	w.processes.Go(func() {
		err := op.all(t.Context(), s, func(o operation) { begun, current = begun+1, o })
		w.mu.Lock()
		defer w.mu.Unlock()
		results[writer] = result{done: true, err: err, crashed: h.crashed}
	})
}

// schedule lets the processes make one call at a time, until all processes have ended. If the
// run would repeat another run, schedule returns false early.
func (w *world) schedule(sc scenario, b budgets, r *run, results []result) bool {
	for {
		ready := w.settle(results)
		if len(ready) == 0 {
			r.listen()
			return true
		}
		options, idle := w.fair(w.options(b, ready))
		clock := w.clock
		if idle && sc.lease > 0 && !w.timed {
			w.passes(idleTime)
		}
		if r.random == nil && !r.all && sc.lease == 0 {
			options = once(options, r.last)
		}
		if w.model != nil {
			r.save = func() *snapshot {
				s := w.snapshot(b, r, results)
				s.world.clock = clock // a run that continues from s lets the time pass again
				return s
			}
		}
		r.now, r.outside = func() prospect { return w.prospect(sc, b, results) }, func() string { return w.outside() }
		r.listen()
		o, ok := r.choose(options)
		if !ok {
			return false
		}
		switch o.verb {
		case answerStale:
			b.stales--
		case loseAnswer, loseCall:
			b.losses--
		case repeatAfter, repeatBefore:
			b.repeats--
		case hold:
			b.holds--
		case crashBefore, crashAfter:
			b.crashes--
		}
		w.lost = w.lost || o.loses()
		r.last = append(r.last, o.call)
		r.trace = append(r.trace, fmt.Sprintf("%s: %s%s", sc.ops[o.call.writer].name, o.call.text, o.verb))
		w.release(o.call, o.verb)
	}
}

// options returns the options for the waiting calls within the budgets. Options without a fault
// come first.
func (w *world) options(b budgets, ready []*call) []option {
	var options []option
	for _, c := range ready {
		options = append(options, option{c, proceed})
	}
	for _, c := range ready {
		if b.stales > 0 && c.stale(w.handleOf(c)) {
			options = append(options, option{c, answerStale})
		}
		if b.losses > 0 && c.write {
			options = append(options, option{c, loseAnswer}, option{c, loseCall})
		}
		if b.repeats > 0 && c.write {
			options = append(options, option{c, repeatAfter}, option{c, repeatBefore})
		}
		if b.holds > 0 && c.holds(w.handleOf(c)) {
			options = append(options, option{c, hold})
		}
		if b.crashes > 0 && c.write {
			options = append(options, option{c, crashBefore}, option{c, crashAfter})
		}
	}
	return options
}

// once removes the options in which a process that has already made a write crashes before its
// next write. Such a crash has the same effect as a crash just after the previous write: between
// two writes, a process that does not call mint only reads.
func once(options []option, last []*call) []option {
	return slices.DeleteFunc(options, func(o option) bool {
		return o.verb == crashBefore && slices.ContainsFunc(last, func(c *call) bool { return c.write && c.writer == o.call.writer })
	})
}

// settle lets time pass until every process has ended or waits for the scheduler, and returns
// the waiting calls in a deterministic order.
func (w *world) settle(results []result) []*call {
	if w.model != nil {
		return w.model.ready(results)
	}
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

func (w *world) release(c *call, v verb) {
	if w.model != nil {
		w.model.answers(w, c, w.execute(c, v))
		return
	}
	w.mu.Lock()
	w.pending = slices.DeleteFunc(w.pending, func(p *call) bool { return p == c })
	w.mu.Unlock()
	c.result <- w.execute(c, v)
}

// epoch is when the clock of a bubble begins.
var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func (w *world) open(t *testing.T, d driver.Secrets, lease time.Duration) *tokenstore.Store {
	opts := &tokenstore.Options{Attempts: 30, LeaseTTL: lease}
	opts.Now = func() time.Time {
		passed := w.elapsed()
		if lease == 0 {
			passed = passed.Truncate(time.Hour)
		}
		return epoch.Add(passed)
	}
	return steady(t, d, opts)
}

func steady(t *testing.T, d driver.Secrets, opts *tokenstore.Options) *tokenstore.Store {
	s, err := tokenstore.New(d, opts)
	if err != nil {
		t.Fatal(err)
	}
	s.Steadily() // the decisions of a run must determine its result
	return s
}

// dump returns the records that a newly started process sees, as text. If users is set, dump
// leaves out records without a user.
func dump(t *testing.T, w *world, users bool) string {
	ctx := t.Context()
	s := w.open(t, w.cold(), 0)
	tokens, err := s.GetTokens(ctx)
	if err != nil {
		t.Fatalf("GetTokens: %v", err)
	}
	var b strings.Builder
	for _, k := range tokens {
		if users && k.UserName == "" {
			continue
		}
		fmt.Fprintf(&b, "%s user=%s client=%s issuer=%s secret=%s refresh=%s access=%s grant=%s expires=%d api=%s\n", k.ID, k.UserName, k.ClientID, k.Issuer,
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

// found returns an error unless FindToken finds every record by its ID, its user, and each of its
// tokens. found also returns an error if a user has two records at one client. If loose is set,
// found does not search by access tokens, or by tokens of records without a user.
func found(t *testing.T, w *world, loose bool) error {
	ctx := t.Context()
	s := w.open(t, w.cold(), 0)
	tokens, err := s.GetTokens(ctx)
	if err != nil {
		return err
	}
	users := map[tokenstore.Token]string{}
	for _, k := range tokens {
		likes := []tokenstore.Token{{ID: k.ID}}
		of := tokenstore.Token{ClientID: k.ClientID, Issuer: k.Issuer, Resource: k.Resource}
		if k.UserName != "" {
			like := of
			like.UserName = k.UserName
			if other, twice := users[like]; twice {
				return fmt.Errorf("two records of one user: %s and %s", other, k.ID)
			}
			users[like] = k.ID
			likes = append(likes, like)
		}
		if k.UserName != "" || !loose {
			if k.RefreshToken != "" && k.ClientID != "" {
				like := of
				like.RefreshToken = k.RefreshToken
				likes = append(likes, like)
			}
			if k.GrantToken != "" && k.ClientID != "" {
				like := of
				like.GrantToken = k.GrantToken
				likes = append(likes, like)
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

// foundByIDs returns an error unless each of ids finds the user's record, or a record without
// a user. If the user's record does not exist, foundByIDs returns nil.
func foundByIDs(t *testing.T, w *world, ids []string) error {
	s := w.open(t, w.cold(), 0)
	want, err := s.FindToken(t.Context(), tokenstore.Token{UserName: user, ClientID: client})
	if errors.Is(err, tokenstore.ErrNotFound) {
		return nil
	}
	for _, id := range ids {
		// If a process died before it moved the record, the ID finds a separate record
		// without a user.
		if got, err := s.FindTokenByID(t.Context(), id); err != nil || got.ID != want.ID && got.UserName != "" {
			return fmt.Errorf("the ID %q finds %q, error %v", id, got.ID, err)
		}
	}
	return err
}

// outcomes returns the permitted results of a scenario: the dumps after its operations have
// run one after another, in any order. The operations of a process need not run if maybe is
// set for the process.
func outcomes(t *testing.T, fresh func() scenario, maybe []bool, users bool) map[string]bool {
	allowed := map[string]bool{}
	for _, order := range orders(fresh(), maybe) {
		sc := fresh()
		sc.ops = slices.Clone(sc.ops)
		w := newWorld(service{})
		s := w.open(t, &handle{world: w}, sc.lease)
		sc.prepare(t, w, &handle{world: w, writer: -1})
		for _, i := range order {
			if sc.ops[i].do == nil {
				continue // an earlier operation of the process failed
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

// orders returns every order of the operations, as lists of the indices of their processes.
// Orders may leave out the last operations of processes for which maybe is set.
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

// exploring runs the scenario with its calls in different orders, injects faults within the
// budgets, and checks the state after each run. exploring skips orders whose ending is known to
// be that of another order.
func exploring(t *testing.T, fresh func() scenario, b budgets) {
	c := newChecker(fresh, b)
	if *exploreTime > 0 { // the timer is outside all bubbles, because a bubble has its own clock
		timer := time.AfterFunc(*exploreTime, func() { c.late.Store(true) })
		defer timer.Stop()
	}
	samples := *exploreRuns / 15
	if len(fresh().ops) > 2 {
		samples = cmp.Or(2*samples, 20_000) // three processes have too many orders to run all of them
	} else {
		err, finished := c.search(t, *exploreRuns)
		if err != nil {
			t.Fatal(err)
		}
		if finished {
			t.Logf("all of %d runs", c.runs)
			return
		}
		t.Logf("%d runs in order", c.runs)
		// The first runs of a depth-first search differ only near their ends, so try random
		// runs as well.
	}
	synctest.Test(t, func(t *testing.T) {
		for seed := range samples {
			if c.late.Load() {
				t.Logf("%d runs at random", seed)
				return
			}
			if err := c.check(t, &run{random: rand.New(rand.NewPCG(uint64(seed), 0))}); err != nil {
				t.Fatal(err)
			}
		}
		t.Logf("%d runs at random", samples)
	})
}

type checker struct {
	fresh func() scenario
	budgets
	late    atomic.Bool                // set when the time for a search is over
	allowed map[string]map[string]bool // permitted outcomes, by the processes whose operations may be incomplete
	all     bool                       // do not skip orders, and use no models
	runs    int
	endings map[situation]bool // collects the endings of the runs, if not nil
}

func newChecker(fresh func() scenario, b budgets) *checker {
	return &checker{fresh: fresh, budgets: b, allowed: map[string]map[string]bool{}}
}

// search plays runs in depth-first order. The parameter most limits the number of runs, unless it
// is 0. search stops at the first failure, or once c.late is set. finished reports whether search
// has played all runs. The caller must be in a bubble if and only if c.all is set.
func (c *checker) search(t *testing.T, most int) (failure error, finished bool) {
	tried := newReduction()
	var path []decision
	check := c.check
	if !c.all {
		start := c.models(t)
		defer start.model.end()
		check = func(t *testing.T, r *run) error { return c.checkModels(t, start, r) }
	}
	for (most == 0 || c.runs < most) && !c.late.Load() {
		c.runs++
		r := &run{path: path, all: c.all, tried: tried}
		if err := check(t, r); err != nil {
			return err, false
		}
		if path = r.next(); path == nil {
			return nil, true
		}
		if c.runs%10_000 == 0 {
			t.Logf("%d runs, about %.1f %% of all, %d situations", c.runs, 100*r.progress(), len(tried.options))
		}
	}
	return nil, false
}

// check plays one run, and returns an error if the resulting state is wrong.
func (c *checker) check(t *testing.T, r *run) error {
	sc := c.fresh()
	w, results := play(t, sc, c.budgets, r)
	return c.ending(t, w, sc, results, r)
}

// ending returns an error if the state after the run r is wrong.
func (c *checker) ending(t *testing.T, w *world, sc scenario, results []result, r *run) error {
	if c.endings != nil {
		c.endings[w.end(t, sc, results)] = true
	}
	if err := c.judge(t, w, sc, results); err != nil {
		return fmt.Errorf("after\n\t%s\n%w", strings.Join(r.trace, "\n\t"), err)
	}
	return nil
}

// end returns a digest of the state after a run, and of the results of the processes.
func (w *world) end(t *testing.T, sc scenario, results []result) situation {
	if sc.lease == 0 {
		return w.situation(sc, results)
	}
	// Stored times can depend on the order of pauses, so leave times out.
	parts := []string{dump(t, w, false)}
	for _, r := range results {
		parts = append(parts, w.ending(r))
	}
	return digest(parts...)
}

// judge returns an error if the state after a run is not permitted. judge also repeats the
// operations of dead processes, and checks the records after each repetition.
func (c *checker) judge(t *testing.T, w *world, sc scenario, results []result) error {
	b := c.budgets
	loose := sc.loose && b.stales > 0 || sc.duplicates && (b.stales > 0 || b.crashes > 0 || w.lost)
	maybe, crashes, err := unfinished(sc, b, results, loose)
	if err != nil {
		return err
	}
	key := fmt.Sprint(maybe, loose)
	if c.allowed[key] == nil {
		c.allowed[key] = outcomes(t, c.fresh, maybe, loose)
	}
	if w.violation != "" {
		return errors.New(w.violation)
	}
	for _, check := range sc.checks {
		if err := check(w.issuer, crashes); err != nil {
			return err
		}
	}
	got := dump(t, w, loose)
	if err := found(t, w, loose); err != nil {
		return fmt.Errorf("%w\n%s", err, dump(t, w, false))
	}
	if !c.allowed[key][got] && !(loose && sc.duplicates) {
		return fmt.Errorf("left\n%s\nwhich no order of the operations leaves; allowed:\n%s", got, strings.Join(slices.Sorted(maps.Keys(c.allowed[key])), "or\n"))
	}
	if err := foundByIDs(t, w, sc.ids); err != nil {
		return fmt.Errorf("%w\n%s", err, dump(t, w, false))
	}
	return repeated(t, w, sc, results, loose)
}

// unfinished reports, by process, whether operations may be incomplete, and returns the number
// of processes that died. If an operation failed for a reason that is not permitted, unfinished
// returns an error.
func unfinished(sc scenario, b budgets, results []result, loose bool) (maybe []bool, crashes int, failure error) {
	maybe = make([]bool, len(sc.ops))
	for i, res := range results {
		switch {
		case res.crashed:
			crashes++
			maybe[i] = true
		case loose:
			maybe[i] = true
		case res.err == nil:
		case errors.Is(res.err, tokenstore.ErrUnavailable) && b.losses+b.repeats+b.holds > 0,
			errors.Is(res.err, tokenstore.ErrNotPersisted):
			maybe[i] = true
		case acceptable(res.err):
			maybe[i] = true // another process may have deleted the record; judge checks the remaining state
		default:
			return nil, 0, fmt.Errorf("%s: %w", sc.ops[i].name, res.err)
		}
	}
	return maybe, crashes, nil
}

// repeated runs the operations of dead processes again from the start, and checks the
// records after each operation.
func repeated(t *testing.T, w *world, sc scenario, results []result, loose bool) error {
	for i, res := range results {
		if !res.crashed {
			continue
		}
		s := w.open(t, w.cold(), sc.lease)
		if err := sc.ops[i].all(t.Context(), s, func(operation) {}); err != nil && !acceptable(err) {
			return fmt.Errorf("%s again: %w", sc.ops[i].name, err)
		}
		if err := found(t, w, loose); err != nil {
			return fmt.Errorf("%s again: %w\n%s", sc.ops[i].name, err, dump(t, w, false))
		}
	}
	return nil
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
	return operation{name: "save", forgets: true, do: func(ctx context.Context, s *tokenstore.Store) error {
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

// consent saves a one-time code, and then the tokens that were issued for the code. consent
// returns the ID of the record.
func consent(ctx context.Context, s *tokenstore.Store, n string, expires int64) string {
	g := must(s.SaveToken(ctx, tokenstore.Token{ClientID: client, ClientSecret: "secret", GrantToken: tokenstore.Secret("grant" + n)}))
	must(s.SaveToken(ctx, tokenstore.Token{ID: g.ID, RefreshToken: tokenstore.Secret("refresh" + n), AccessToken: tokenstore.Secret("access" + n), ExpiresAt: at(expires)}))
	return g.ID
}

// idOf returns the ID of the record of grant token n before the record has a user.
func idOf(n string) string {
	return derivedID(tokenstore.Token{ClientID: client, GrantToken: tokenstore.Secret("grant" + n)})
}

func userID() string {
	return derivedID(tokenstore.Token{ClientID: client, UserName: user, GrantToken: "x"})
}

var derivedIDs sync.Map // IDs by token

// derivedID returns the ID that a store without keys derives for a new record.
func derivedID(t tokenstore.Token) string {
	if id, known := derivedIDs.Load(t); known {
		return id.(string)
	}
	id := must(memstore.New(nil).SaveToken(context.Background(), t)).ID
	derivedIDs.Store(t, id)
	return id
}

func promote(n string) operation {
	return operation{name: "promote " + n, forgets: true, do: func(ctx context.Context, s *tokenstore.Store) error {
		_, err := s.SaveToken(ctx, tokenstore.Token{ID: idOf(n), UserName: user})
		return err
	}}
}

func remove(id string) operation {
	return operation{name: "delete " + id[:1], forgets: true, do: func(ctx context.Context, s *tokenstore.Store) error { return s.DeleteToken(ctx, id) }}
}

// replace returns an operation that deletes the record with the given ID. The parameter by is the
// next operation of the process.
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
	bothExist := func(ctx context.Context, s *tokenstore.Store) {
		annExists(ctx, s)
		must(s.SaveToken(ctx, tokenstore.Token{UserName: "bob@example.com", ClientID: client, RefreshToken: "refresh2"}))
	}
	one := func(ctx context.Context, s *tokenstore.Store) { consent(ctx, s, "1", 20) }
	two := func(ctx context.Context, s *tokenstore.Store) { consent(ctx, s, "1", 20); consent(ctx, s, "2", 30) }
	second := func(ctx context.Context, s *tokenstore.Store) { annExists(ctx, s); consent(ctx, s, "1", 20) }
	ann := tokenstore.Token{UserName: user, ClientID: client}
	with := func(t tokenstore.Token, change func(*tokenstore.Token)) tokenstore.Token { change(&t); return t }
	fields := save(with(ann, func(t *tokenstore.Token) { t.RefreshToken = "refresh9"; t.APIDomain = "https://api" }))
	elsewhere := save(with(ann, func(t *tokenstore.Token) { t.Issuer, t.RefreshToken = "https://as.example", "refresh8" }))
	access := save(with(ann, func(t *tokenstore.Token) { t.AccessToken = "access9"; t.ExpiresAt = at(90) }))
	// renew deletes Ann's record and saves it again, so that a stale read returns the
	// earlier incarnation.
	renew := func(ctx context.Context, s *tokenstore.Store) {
		if err := s.DeleteToken(ctx, userID()); err != nil {
			panic(err)
		}
		must(s.SaveToken(ctx, tokenstore.Token{UserName: user, ClientID: client, RefreshToken: "refresh5", AccessToken: "access5", ExpiresAt: at(50)}))
	}
	// redirected leaves an old redirect, which the next write of the user's record removes.
	redirected := func(ctx context.Context, s *tokenstore.Store) {
		annExists(ctx, s)
		must(s.SaveToken(ctx, tokenstore.Token{ID: consent(ctx, s, "1", 20), UserName: user}))
		must(s.SaveToken(ctx, tokenstore.Token{UserName: user, ClientID: client, APIDomain: "https://first"}))
		<-time.After(48 * time.Hour)
	}
	own := func(n string, expires int64) func(context.Context, *tokenstore.Store) {
		return func(ctx context.Context, s *tokenstore.Store) {
			must(s.SaveToken(ctx, tokenstore.Token{ID: "own" + n, ClientID: client, GrantToken: tokenstore.Secret("grant" + n)}))
			// A stale search misses the labels that the last write added. After two writes, a
			// stale search still finds the label of the grant token.
			must(s.SaveToken(ctx, tokenstore.Token{ID: "own" + n, RefreshToken: tokenstore.Secret("refresh" + n), AccessToken: tokenstore.Secret("access" + n), ExpiresAt: at(expires)}))
		}
	}
	owns := func(ctx context.Context, s *tokenstore.Store) {
		annExists(ctx, s)
		own("1", 20)(ctx, s)
		own("2", 30)(ctx, s)
	}
	promoteOwn := func(n string) operation {
		return operation{name: "promote own" + n, forgets: true, do: func(ctx context.Context, s *tokenstore.Store) error {
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
		{name: "two first saves of one user at two issuers", setup: nothing, ops: []operation{access, elsewhere}},
		{name: "promotion at one issuer and a save at another", setup: one, ops: []operation{promote("1"), elsewhere}},
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
		{name: "second consent and the user deleted and created again", setup: second, ops: []operation{promote("1"), replace(userID(), access)}},
		{name: "deletion and creation by two", setup: annExists, ops: []operation{replace(userID(), access), replace(userID(), fields)}},
		{name: "save while the user is deleted and created again", setup: annExists, ops: []operation{
			save(tokenstore.Token{UserName: user, ClientID: client, APIDomain: "https://api", GrantToken: "grant9"}), replace(userID(), access),
		}},
		{name: "deletion of what was saved again", setup: again, ancient: true, ops: []operation{remove(userID())}},
		{name: "deletion and a save of what was saved again", setup: again, ancient: true, ops: []operation{remove(userID()), access}},
		{name: "two deletions of what was saved again", setup: again, ancient: true, ops: []operation{remove(userID()), remove(userID())}},
		{name: "deletion of all that was saved again", setup: again, ancient: true, ops: []operation{
			{name: "delete all", do: func(ctx context.Context, s *tokenstore.Store) error { return s.DeleteTokens(ctx) }},
		}},
		// The next two scenarios run without faults, because a crash can leave some of the
		// records.
		{name: "deletion of all and a consent", faultless: true, setup: one, ops: []operation{
			{name: "delete all", do: func(ctx context.Context, s *tokenstore.Store) error { return s.DeleteTokens(ctx) }}, promote("1"),
		}},
		{name: "deletion of all while one is saved", faultless: true, setup: bothExist, ops: []operation{
			{name: "delete all", do: func(ctx context.Context, s *tokenstore.Store) error { return s.DeleteTokens(ctx) }}, access,
		}},
		{name: "interrupted promotion, and a user who was saved again", setup: second, broken: &broken, after: renew, ancient: true, ops: []operation{promote("1")}},
		{name: "interrupted promotion, and a save of a user who was saved again", setup: second, broken: &broken, after: renew, ancient: true, ops: []operation{promote("1"), access}},
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

func TestEveryInterleaving(t *testing.T) {
	for _, sc := range scenarios() {
		for _, b := range sc.kinds() {
			t.Run(sc.name+"/"+b.name, func(t *testing.T) {
				t.Parallel()
				exploring(t, on(b.service, func() scenario { return sc }), b.budgets)
			})
		}
	}
}
