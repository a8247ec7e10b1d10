package tokenstore_test

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/memstore"
)

// The processes of a scenario take most of the time of a run. A search therefore runs a process
// only to learn what the process does next: which calls it makes after certain answers, or how
// its operation ends. An automaton keeps what the search has learned about one process, and a
// model replaces the processes of a world with automata. The rest of the world works as in a run
// with processes, except that its memory is a shelf, which can be cloned. A world with a model is
// a value that can be cloned, so a search continues from any earlier decision.
//
// An automaton can stand for a process because the answers determine what the process does. The
// nonces come from a counter. No process waits so often that the random length of a pause
// matters, see Steadily. Each process has its own clock. If the clock of the stores advances
// before an answer, the clock of the process advances too. An automaton fails the test if a
// process makes other calls after the same answers or, in a scenario with deadlines, at another
// time.

// models returns the world in which a search begins its runs: the processes have started, and
// models stand for them.
func (c *checker) models(t *testing.T) *world {
	sc := c.fresh()
	var w *world
	synctest.Test(t, func(t *testing.T) {
		w = newWorld(sc.service)
		w.told, w.issuer = newTold(w, len(sc.ops), sc.lease > 0, false), sc.issuer
		sc.prepare(t, w, (&handle{world: w, writer: -1}).driver(sc))
		w.begins(sc)
		memory, err := newShelf(t.Context(), w.memory)
		if err != nil {
			t.Fatal(err)
		}
		w.memory, w.model = memory, &model{}
	})
	w.startModels(t, c.fresh, c.budgets)
	return w
}

// A snapshot is the state of a run with models before a decision.
type snapshot struct {
	world   *world
	faults  budgets
	results []result
	run     run
}

func (w *world) snapshot(b budgets, r *run, results []result) *snapshot {
	return &snapshot{world: w.clone(), faults: b, results: slices.Clone(results), run: run{
		trace: slices.Clone(r.trace), last: slices.Clone(r.last), asleep: slices.Clone(r.asleep), before: r.before,
	}}
}

// checkModels is like check, with models of the processes. The run begins with start, or
// continues from the last decision of its path. If the run would repeat another run, checkModels
// stops the run and returns nil.
func (c *checker) checkModels(t *testing.T, start *world, r *run) (failure error) {
	sc := c.fresh()
	w, b, results := start, c.budgets, make([]result, len(sc.ops))
	if n := len(r.path); n > 0 {
		saved := r.path[n-1].saved
		was := saved.run
		w, b, results = saved.world, saved.faults, slices.Clone(saved.results)
		r.at, r.trace, r.last, r.asleep, r.before = n-1, slices.Clip(was.trace), slices.Clip(was.last), slices.Clone(was.asleep), was.before
	}
	w = w.clone()
	if !w.schedule(sc, b, r, results) {
		return nil
	}
	synctest.Test(t, func(t *testing.T) {
		w.runs()
		w.free, w.model = true, nil
		failure = c.ending(t, w, sc, results, r)
	})
	return failure
}

// A model stands for the processes of a world.
type model struct {
	automata []*automaton
	states   []*localState // of each process
	handles  []*handle     // through which the world executes the calls of each process
}

// A localState is what a process does after certain answers.
type localState struct {
	key    situation   // a digest of the answers
	before *localState // the state before the last answer; nil for the first state
	last   letter      // the last answer

	calls   []*call
	changes []func(*world) // changes of the world on the way to this state
	result  result
	at      time.Duration // when the process made the last of these calls, on the clock of the world
}

// A letter is an answer to the call that text describes.
type letter struct {
	text string
	delivery
}

func (l letter) digest(before situation, clock bool) situation {
	parts := []string{before.String(), l.text, l.verb.String(), fmt.Sprint(l.err), noteOf(l.err)}
	if clock {
		parts = append(parts, l.at.String())
	}
	secret := func(s driver.Secret) {
		parts = append(parts, string(s.Version), string(s.Data), fmt.Sprint(s.Labels, s.Former), s.Incarnation, s.Drop, s.Note)
		if clock {
			parts = append(parts, s.Updated.String())
		}
	}
	switch v := l.value.(type) {
	case driver.Secret:
		secret(v)
	case driver.Version:
		parts = append(parts, string(v))
	case []driver.Named:
		for _, n := range v {
			parts = append(parts, n.Name)
			secret(n.Secret)
		}
	}
	return digest(parts...)
}

// An automaton is the behavior of one process, as far as it is known.
type automaton struct {
	t      *testing.T
	fresh  func() scenario
	faults budgets
	writer int
	start  *world // the world in which the process starts

	states map[situation]*localState
	idle   map[situation]*actor // processes that wait for an answer, by their states
}

// startModels starts the processes of the scenario in w, as models.
func (w *world) startModels(t *testing.T, fresh func() scenario, faults budgets) {
	m := w.model
	for writer := range fresh().ops {
		a := &automaton{t: t, fresh: fresh, faults: faults, writer: writer, start: w, states: map[situation]*localState{}, idle: map[situation]*actor{}}
		actor := a.actor()
		first := actor.state()
		a.idle[first.key] = actor
		sc := fresh()
		m.automata, m.states = append(m.automata, a), append(m.states, first)
		m.handles = append(m.handles, &handle{world: w, writer: writer, lag: sc.lag(faults), ancient: sc.ancient})
	}
	for _, s := range m.states {
		for _, change := range s.changes {
			change(w)
		}
	}
}

// end ends all processes that the automata of m keep.
func (m *model) end() {
	for _, a := range m.automata {
		a.end()
	}
}

// maxIdle is the maximum number of processes that an automaton keeps for later answers.
const maxIdle = 100

// next returns the state after the answer l in the state s.
func (a *automaton) next(s *localState, l letter) *localState {
	key := l.digest(s.key, a.start.told.clock)
	if next := a.states[key]; next != nil {
		return next
	}
	actor := a.in(s)
	next := actor.after(l)
	next.key, next.before, next.last = key, s, l
	a.states[key] = next
	switch {
	case next.result.done:
		actor.end()
	default:
		if len(a.idle) >= maxIdle {
			for key, other := range a.idle {
				delete(a.idle, key)
				other.end()
				break
			}
		}
		a.idle[key] = actor
	}
	return next
}

// in returns a process in the state s.
func (a *automaton) in(s *localState) *actor {
	var missing []*localState
	at := s
	for a.idle[at.key] == nil && at.before != nil {
		missing = append(missing, at)
		at = at.before
	}
	actor := a.idle[at.key]
	if actor == nil {
		actor = a.actor()
		a.same(at, actor.state())
	}
	delete(a.idle, at.key)
	for _, next := range slices.Backward(missing) {
		a.same(next, actor.after(next.last))
	}
	return actor
}

// same fails the test unless a process is in the same state as an earlier process with the same
// answers.
func (a *automaton) same(was, is *localState) {
	texts := func(s *localState) (all []string) {
		for _, c := range s.calls {
			all = append(all, c.text)
		}
		return all
	}
	if !slices.Equal(texts(was), texts(is)) || was.result.done != is.result.done || a.start.told.clock && was.at != is.at {
		a.t.Fatalf("process %d makes the calls %q, but an earlier process made the calls %q after the same answers", a.writer, texts(is), texts(was))
	}
}

func (a *automaton) end() {
	for _, actor := range a.idle {
		actor.end()
	}
}

// An actor is a process that gets the answers to its calls from an automaton. The process runs in
// a bubble, so its clock stands still while it waits for an answer.
type actor struct {
	t       *testing.T
	answers chan letter
	states  chan *localState
	ended   chan struct{}
}

// state returns the next state of the process.
func (p *actor) state() *localState {
	select {
	case s := <-p.states:
		return s
	case <-p.ended:
		p.t.Fatal("the process has failed")
		return nil
	}
}

func (p *actor) after(l letter) *localState {
	p.answers <- l
	return p.state()
}

func (p *actor) end() {
	close(p.answers)
	<-p.ended
}

// actor starts a process.
func (a *automaton) actor() *actor {
	p := &actor{t: a.t, answers: make(chan letter), states: make(chan *localState), ended: make(chan struct{})}
	go func() {
		defer close(p.ended)
		synctest.Test(a.t, func(t *testing.T) { p.run(t, a) })
	}()
	return p
}

func (p *actor) run(t *testing.T, a *automaton) {
	sc := a.fresh()
	w := newWorld(sc.service)
	w.memory, w.free, w.timed, w.clock = a.start.memory, false, a.start.timed, a.start.clock
	w.began = w.began.Add(-a.start.elapsed())
	w.told, w.issuer = newTold(w, len(sc.ops), sc.lease > 0, false), sc.issuer
	var mu sync.Mutex
	var changes []func(*world)
	change := func(f func(*world)) {
		mu.Lock()
		defer mu.Unlock()
		changes = append(changes, f)
	}
	w.told.later = func(f func(*told)) { change(func(w *world) { f(w.told) }) }
	if sc.issuer != nil {
		sc.issuer.later = func(f func(*issuer)) { change(func(w *world) { f(w.issuer) }) }
	}
	results := make([]result, len(sc.ops))
	for i := range results {
		results[i].done = i != a.writer
	}
	w.start(t, sc, a.faults, a.writer, nil, results)
	for {
		ready := w.settle(results)
		p.states <- &localState{calls: ready, changes: changes, result: results[a.writer], at: w.elapsed()}
		changes = nil
		l, more := <-p.answers
		if !more {
			w.kill()
			return
		}
		passed := l.at - w.elapsed()
		w.clock = l.at
		<-time.After(passed)
		w.answer(l)
	}
}

// answer answers a waiting call.
func (w *world) answer(l letter) {
	w.mu.Lock()
	i := slices.IndexFunc(w.pending, func(c *call) bool { return c.text == l.text })
	c := w.pending[i]
	w.pending = slices.Delete(w.pending, i, i+1)
	w.mu.Unlock()
	c.result <- l.delivery
}

// kill ends all processes. Their waiting calls and all further calls fail.
func (w *world) kill() {
	w.mu.Lock()
	w.dead = true
	waiting := w.pending
	w.pending = nil
	w.mu.Unlock()
	for _, c := range waiting {
		c.result <- delivery{verb: crashBefore, err: errCrashed}
	}
	w.processes.Wait()
}

// ready returns the waiting calls in the order in which settle returns them.
func (m *model) ready(results []result) []*call {
	var all []*call
	for i, s := range m.states {
		results[i] = s.result
		all = append(all, s.calls...)
	}
	return all
}

// answers moves the process that made c to its next state.
func (m *model) answers(w *world, c *call, d delivery) {
	a := m.automata[c.writer]
	next := a.next(m.states[c.writer], letter{c.text, d})
	m.states[c.writer] = next
	if w.timed {
		w.clock = max(w.clock, next.at)
	}
	for _, change := range next.changes {
		change(w)
	}
}

// clone returns an independent copy of a world with a model.
func (w *world) clone() *world {
	n := &world{
		memory: w.memory.(*shelf).clone(), service: w.service, past: maps.Clone(w.past), labels: maps.Clone(w.labels),
		held: maps.Clone(w.held), nonces: w.nonces, timed: w.timed, clock: w.clock, began: w.began, lost: w.lost, violation: w.violation,
	}
	for name, past := range n.past {
		n.past[name] = slices.Clip(past)
	}
	m := *w.model
	n.model = &m
	m.states, m.handles = slices.Clone(m.states), nil
	for _, h := range w.model.handles {
		m.handles = append(m.handles, &handle{world: n, writer: h.writer, lag: h.lag, ancient: h.ancient})
	}
	n.memory.(*shelf).now = n.now
	n.told = w.told.clone(n)
	if i := w.issuer; i != nil {
		n.issuer = &issuer{minted: slices.Clone(i.minted), busy: i.busy, most: i.most}
	}
	return n
}

// now returns the time at which the memory stores a state.
func (w *world) now() time.Time { return epoch.Add(w.elapsed()) }

func (t *told) clone(w *world) *told {
	n := &told{
		clock: t.clock, brief: t.brief, began: t.began, world: w,
		nonces: maps.Clone(t.nonces), versions: maps.Clone(t.versions), writes: maps.Clone(t.writes), labelings: maps.Clone(t.labelings), texts: maps.Clone(t.texts),
		heard: slices.Clone(t.heard), moved: slices.Clone(t.moved), labels: slices.Clone(t.labels),
	}
	for i := range t.answers {
		n.answers, n.same = append(n.answers, maps.Clone(t.answers[i])), append(n.same, slices.Clip(t.same[i]))
	}
	return n
}

// A shelf is a memory that can be cloned. The version of a state depends only on the name of the
// secret, and on the number of writes to that name. A shelf ignores contexts, and a world with a
// model refuses calls after their deadlines. Its name and its errors are those of a
// memstore.Driver, so the endings of runs with models can be compared with those of other runs.
type shelf struct {
	mu      sync.Mutex
	secrets map[string]driver.Secret
	writes  map[string]int
	now     func() time.Time // set by the world
}

// newShelf returns a shelf with the secrets of d.
func newShelf(ctx context.Context, d driver.Secrets) (*shelf, error) {
	all, err := collect(d.List(ctx))
	s := &shelf{secrets: map[string]driver.Secret{}, writes: map[string]int{}}
	for _, n := range all {
		s.secrets[n.Name] = n.Secret
	}
	return s, err
}

func (s *shelf) clone() *shelf {
	return &shelf{secrets: maps.Clone(s.secrets), writes: maps.Clone(s.writes), now: s.now}
}

var _ driver.Leaser = (*shelf)(nil)

func (s *shelf) Close() error { return nil }

func (s *shelf) Names(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for n, err := range s.List(ctx) {
			if !yield(n.Name, err) {
				return
			}
		}
	}
}

func (s *shelf) Properties() driver.Properties {
	return driver.Properties{Name: "memstore", MaxSize: memstore.MaxSize}
}

func (s *shelf) Get(_ context.Context, name string) (driver.Secret, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now, ok := s.secrets[name]; ok {
		return now, nil
	}
	return driver.Secret{}, fmt.Errorf("memstore: get %q: %w", name, driver.ErrNotFound)
}

func (s *shelf) Fresh(ctx context.Context, name string, _ driver.Secret) (driver.Secret, error) {
	return s.Get(ctx, name)
}

// based returns the state of the named secret if its version is that of base.
func (s *shelf) based(op, name string, base driver.Secret) (driver.Secret, error) {
	now, ok := s.secrets[name]
	switch {
	case !ok:
		return now, fmt.Errorf("memstore: %s %q: %w", op, name, driver.ErrNotFound)
	case now.Version != base.Version:
		return now, fmt.Errorf("memstore: %s %q: %w", op, name, driver.ErrConflict)
	}
	return now, nil
}

func (s *shelf) Create(_ context.Context, name string, p driver.Payload) (driver.Version, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.secrets[name]; ok {
		return "", fmt.Errorf("memstore: create %q: %w", name, driver.ErrExists)
	}
	return s.put(name, driver.Secret{}, p), nil
}

func (s *shelf) Update(_ context.Context, name string, base driver.Secret, p driver.Payload) (driver.Version, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	was, err := s.based("update", name, base)
	if err != nil {
		return "", err
	}
	p.Incarnation = was.Incarnation
	return s.put(name, was, p), nil
}

func (s *shelf) put(name string, was driver.Secret, p driver.Payload) driver.Version {
	s.writes[name]++
	of := fnv.New32a()
	_, _ = of.Write([]byte(name))
	next := driver.Secret{
		Payload: p, Note: was.Note, Updated: s.now(),
		Version: driver.Version(fmt.Sprintf("%d%04d", of.Sum32()%1_000_000+1, s.writes[name])),
	}
	if next.Note == p.Drop {
		next.Note = ""
	}
	next.Drop = ""
	s.secrets[name] = next
	return next.Version
}

func (s *shelf) Note(_ context.Context, name string, base driver.Secret, note string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, err := s.based("note", name, base)
	if err != nil {
		return err
	}
	if now.Note != base.Note {
		return &driver.NoteError{Note: now.Note, Err: fmt.Errorf("memstore: note %q: %w", name, driver.ErrConflict)}
	}
	now.Note = note
	s.secrets[name] = now
	return nil
}

func (s *shelf) Delete(_ context.Context, name string, base driver.Secret) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.based("delete", name, base); err != nil && !errors.Is(err, driver.ErrNotFound) {
		return err
	}
	delete(s.secrets, name)
	return nil
}

func (s *shelf) Lookup(ctx context.Context, any []driver.Label) iter.Seq2[driver.Named, error] {
	return s.each(func(now driver.Secret) bool {
		return slices.ContainsFunc(now.Labels, func(l driver.Label) bool {
			return slices.ContainsFunc(any, func(a driver.Label) bool { return a.Key == l.Key && a.Value == l.Value })
		})
	})
}

func (s *shelf) List(context.Context) iter.Seq2[driver.Named, error] {
	return s.each(func(driver.Secret) bool { return true })
}

func (s *shelf) each(has func(driver.Secret) bool) iter.Seq2[driver.Named, error] {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []driver.Named
	for name, now := range s.secrets {
		if has(now) {
			all = append(all, driver.Named{Name: name, Secret: now})
		}
	}
	slices.SortFunc(all, func(a, b driver.Named) int { return strings.Compare(a.Name, b.Name) })
	return func(yield func(driver.Named, error) bool) {
		for _, n := range all {
			if !yield(n, nil) {
				return
			}
		}
	}
}
