package tokenstore_test

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/stored"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// Most orders of the calls of two processes have the same ending as another order. The
// explorer skips an order if one of the two rules below shows that its ending is not new.
//
// Equal situations. The behavior of a process depends only on the answers to its calls, so the
// sequence of answers represents the state of the process. A situation consists of the content of
// the memory, the answers that each process has got, and any shared state outside the memory,
// such as that of the authorization server. A prospect adds the faults that may still happen, and
// the results of stale reads. Equal prospects have the same continuations. Of two
// prospects of the same situation, the prospect that permits more faults has all continuations of
// the other. The explorer therefore skips an option of a prospect if it has taken the option in a
// prospect that includes this prospect. In a situation:
//
//   - the first write that stored a random nonce represents the nonce, and the number of a
//     write to a secret represents the version. Package tokenstore compares nonces and
//     versions only for equality.
//   - the error of a process that has ended represents the process. For a process that has
//     died, a situation records only its death.
//   - an answer that a fault has not changed counts as an answer without a fault.
//   - the answers before a pause between two attempts of a save or deletion do not count,
//     because the next attempt reads all entries again. Only three facts count: where the
//     process has moved the record, whether the answer to that write was lost, and which
//     labels the process has written.
//
// Calls that commute. Calls of two processes commute if both read, or if they concern
// different names and neither is a search. Two faults do not commute, because both may need
// the same budget. A crash before a call commutes with all calls of the other process. If
// options commute, the explorer takes them in only one order, by means of sleep sets (Godefroid,
// Partial-Order Methods for the Verification of Concurrent Systems, chapters 5 and 6). An
// option that a run has taken sleeps while other runs try its alternatives. A sleeping option
// wakes when a run takes an option that does not commute with the sleeping option. If the
// explorer reaches a situation again, it takes only the awake options that slept at each
// earlier visit.
//
// The clock. In a scenario without leases, the clock of a store shows only whole hours. Pauses
// then change nothing, because no run takes an hour. In a scenario with leases, the clock
// stands still while a process can make progress. Once all processes are idle, the clock
// advances by idleTime before each call, so that leases lapse. In a scenario with deadlines,
// the clock instead runs while a process pauses. In each scenario with leases, the time is part
// of a situation and of each answer. A call commutes with no other call if the clock advances,
// or a process asks the authorization server, after the call.
//
// TestReduction compares the endings of the orders that are not skipped with the endings of
// all orders.

// A situation is a digest of everything that determines how a run can continue.
type situation [16]byte

func digest(parts ...string) situation {
	h := sha256.New()
	for _, p := range parts {
		var size [8]byte
		binary.BigEndian.PutUint64(size[:], uint64(len(p)))
		h.Write(size[:])
		h.Write([]byte(p))
	}
	return situation(h.Sum(nil))
}

func (s situation) String() string { return string(s[:]) }

// A prospect is a situation together with the faults that may still happen.
type prospect struct {
	situation
	past   situation // a digest of the results of stale reads
	faults budgets
	lost   bool // see world.lost
}

// includes reports whether each continuation of q is also a continuation of p, a prospect of
// the same situation.
func (p prospect) includes(q prospect) bool {
	return p.faults.atLeast(q.faults) && (p.past == q.past || q.faults.stales == 0) && (!p.lost || q.lost)
}

func (b budgets) atLeast(other budgets) bool {
	return b.crashes >= other.crashes && b.losses >= other.losses && b.stales >= other.stales &&
		b.repeats >= other.repeats && b.holds >= other.holds
}

// A reduction holds the options that the runs of a scenario have tried.
type reduction struct {
	options map[situation][]*attempted
	noisy   map[choice]bool // choices after which the clock has advanced, or a process has asked the authorization server
}

// A choice is an option, by its name, in a prospect.
type choice struct {
	in     prospect
	option string
}

// An attempted holds the options that runs have taken in a prospect.
type attempted struct {
	in      prospect
	options []string
}

func newReduction() *reduction {
	return &reduction{options: map[situation][]*attempted{}, noisy: map[choice]bool{}}
}

// left returns the names of the awake options that no run has taken in p or in a prospect that
// includes p. left records these options as taken.
func (r *reduction) left(p prospect, awake []option) []string {
	var here *attempted
	taken := map[string]bool{}
	for _, a := range r.options[p.situation] {
		if a.in == p {
			here = a
		}
		if a.in.includes(p) {
			for _, name := range a.options {
				taken[name] = true
			}
		}
	}
	var left []string
	for _, o := range awake {
		if name := o.String(); !taken[name] {
			left = append(left, name)
		}
	}
	if here == nil {
		here = &attempted{in: p}
		r.options[p.situation] = append(r.options[p.situation], here)
	}
	here.options = append(here.options, left...)
	return left
}

// A told records the answers that the processes of a world have got.
type told struct {
	clock bool // time is part of a situation
	brief bool // situations are not needed
	began time.Time
	world *world

	// If later is not nil, changes of the recorded answers go to later, which applies them to
	// the told of another world.
	later func(func(*told))

	mu        sync.Mutex
	nonces    map[string]string
	versions  map[driver.Version]string
	writes    map[string]int      // number of writes by name
	labelings map[string]int      // number of nonces of labels by name
	texts     map[string]string   // texts of secrets
	heard     []situation         // answers, by process
	moved     []situation         // where each process has moved a record
	labels    []situation         // labels that each process has written
	answers   []map[string]string // the last answer to each call, by process
	same      [][]answered        // the last consecutive reads of each process that returned nothing new
}

type answered struct {
	call *call
	text string
}

func newTold(w *world, processes int, clock, brief bool) *told {
	t := &told{
		clock: clock, brief: brief, began: w.began, world: w,
		nonces: map[string]string{}, versions: map[driver.Version]string{}, writes: map[string]int{}, labelings: map[string]int{}, texts: map[string]string{},
		heard: make([]situation, processes), moved: make([]situation, processes), labels: make([]situation, processes),
		answers: make([]map[string]string, processes), same: make([][]answered, processes),
	}
	for i := range t.answers {
		t.answers[i] = map[string]string{}
	}
	return t
}

// of reports whether t records the answers of the writer. A nil told records nothing, and no
// told records the answers of writer -1, which runs the setup.
func (t *told) of(writer int) bool { return t != nil && writer >= 0 }

// now returns the time as a string, or "" if the time is not part of a situation.
func (t *told) now() string {
	if !t.clock {
		return ""
	}
	return t.world.elapsed().String()
}

// inWord reports whether c can be part of a nonce.
func inWord(c rune) bool { return c >= 'a' && c <= 'z' || c >= '2' && c <= '7' }

func outsideWord(c rune) bool { return !inWord(c) }

// noncesIn returns the words of text that have the form of a nonce.
func noncesIn(text string) []string {
	const length = 16
	return slices.DeleteFunc(strings.FieldsFunc(text, outsideWord), func(w string) bool { return len(w) != length })
}

// written assigns names to the version and the new nonces of s, the state that was just
// written under name.
func (t *told) written(name string, s driver.Secret) {
	if t == nil || t.brief {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.writes[name]++
	write := fmt.Sprintf("<write %d of %s>", t.writes[name], name)
	if _, known := t.versions[s.Version]; !known {
		t.versions[s.Version] = write
	}
	for i, nonce := range noncesIn(string(s.Data) + " " + s.Note) {
		if _, known := t.nonces[nonce]; !known {
			t.nonces[nonce] = fmt.Sprintf("<nonce %d of %s>", i, write)
		}
	}
}

// labelled assigns names to the new nonces in labels, the labels of the named secret after a
// change.
func (t *told) labelled(name string, labels []driver.Label) {
	if t == nil || t.brief {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, l := range labels {
		if _, known := t.nonces[l.Nonce]; !known {
			t.labelings[name]++
			t.nonces[l.Nonce] = fmt.Sprintf("<nonce of labeling %d of %s>", t.labelings[name], name)
		}
	}
}

// carried updates t for the writer of data: it records which nonces in data were stored, and the
// labels in data. If the write moved a record, carried also records the target. The parameter
// lost means that the writer got no answer to the write.
func (t *told) carried(writer int, data []byte, lost bool) {
	if !t.of(writer) || t.brief {
		return
	}
	if t.later != nil {
		t.later(func(t *told) { t.carried(writer, data, lost) })
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	known := ""
	for _, nonce := range noncesIn(string(data)) {
		known += t.nonces[nonce] + ","
	}
	t.heard[writer] = digest(t.heard[writer].String(), known)
	r, err := stored.Decode(data)
	for _, l := range r.Labels {
		t.labels[writer] = digest(t.labels[writer].String(), l.Key, l.Value, t.nonces[l.Nonce])
	}
	if err != nil || r.Moved == nil || t.nonces[r.Nonces[0]] == "" {
		return
	}
	t.moved[writer] = digest(r.Moved.Name)
	if lost {
		t.moved[writer] = t.heard[writer]
	}
}

// forgets discards the recorded answers of the writer. It keeps the labels that the writer has
// written, and the target of its move. The parameter why names the reason.
func (t *told) forgets(writer int, why string) {
	if t.later != nil {
		t.later(func(t *told) { t.forgets(writer, why) })
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.heard[writer] = digest(why, t.moved[writer].String(), t.labels[writer].String())
}

// known is like plain, for a caller that does not hold t.mu.
func (t *told) known(text string) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.plain(text)
}

// plain replaces nonces in text by their names. The caller must hold t.mu.
func (t *told) plain(text string) string {
	var b strings.Builder
	for text != "" {
		rest := strings.TrimLeftFunc(text, inWord)
		word := text[:len(text)-len(rest)]
		b.WriteString(cmp.Or(t.nonces[word], word))
		text = strings.TrimLeftFunc(rest, outsideWord)
		b.WriteString(rest[:len(rest)-len(text)])
	}
	return b.String()
}

// secret returns a string that represents s. The caller must hold t.mu.
func (t *told) secret(s driver.Secret) string {
	key := string(s.Version) + " " + s.Note
	if t.brief {
		return key
	}
	text, known := t.texts[key]
	if !known {
		at := s.Updated.Sub(t.began)
		if !t.clock {
			at = at.Truncate(time.Hour)
		}
		text = t.versions[s.Version] + t.plain(fmt.Sprintf("%s\n%v\n%s\n%s\n%s\n%v", s.Data, s.Labels, s.Incarnation, s.Drop, s.Note, at))
		t.texts[key] = text
	}
	return text
}

// noteOf returns the note that an error of Note reports, or "".
func noteOf(err error) string {
	var noted *driver.NoteError
	if errors.As(err, &noted) {
		return noted.Note
	}
	return ""
}

func (t *told) text(v any, err error) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil {
		return "error " + t.plain(err.Error()+" "+noteOf(err))
	}
	switch v := v.(type) {
	case driver.Secret:
		return t.secret(v)
	case driver.Version:
		return t.versions[v]
	case []driver.Named:
		all := make([]string, 0, len(v))
		for _, n := range v {
			all = append(all, n.Name+" "+t.secret(n.Secret))
		}
		slices.Sort(all)
		return strings.Join(all, "\n")
	default:
		return ""
	}
}

func (t *told) hears(writer int, call string, v any, err error) {
	if !t.of(writer) || t.brief {
		return
	}
	if t.later != nil {
		t.later(func(t *told) { t.hears(writer, call, v, err) })
		return
	}
	text := t.text(v, err)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.heard[writer] = digest(t.heard[writer].String(), call, text, t.now())
}

// reads determines whether the answer to c is new to the process that made c, and records the
// result. An answer to a write, or to a call with a fault, always counts as new.
func (t *told) reads(c *call, d delivery) {
	writer, is := c.writer, d.verb
	if !t.of(writer) {
		return
	}
	text := t.text(d.value, d.err)
	t.mu.Lock()
	defer t.mu.Unlock()
	if before, known := t.answers[writer][c.text]; known && before == text && !c.write && is == proceed {
		t.same[writer] = append(t.same[writer], answered{c, text})
		return
	}
	t.answers[writer][c.text] = text
	t.same[writer] = nil
}

// patience is the number of consecutive reads without a new result after which a process
// counts as idle. Only a process that polls makes so many such reads.
const patience = 6

// idle reports whether the last reads of the writer returned nothing new, and would still return
// nothing new.
func (t *told) idle(writer int) bool {
	if !t.of(writer) {
		return false
	}
	t.mu.Lock()
	same := t.same[writer]
	t.mu.Unlock()
	return len(same) >= patience && !slices.ContainsFunc(same, func(a answered) bool { return t.text(a.call.do(t.world.handleOf(a.call))) != a.text })
}

// outside returns the state that the processes share outside the memory, and the time.
func (w *world) outside() string {
	if w.issuer == nil {
		return w.told.now()
	}
	return w.told.now() + " " + w.issuer.String()
}

func (w *world) prospect(sc scenario, b budgets, results []result) prospect {
	p := prospect{situation: w.situation(sc, results), faults: b, lost: w.lost}
	if b.stales == 0 {
		return p
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(w.past)) {
		if len(w.past[name]) > 1 {
			parts = append(parts, name, w.told.text(w.earlier(name, sc.ancient)), w.told.text(w.earlier(name, false)))
		}
	}
	p.past = digest(parts...)
	return p
}

func (w *world) situation(sc scenario, results []result) situation {
	w.mu.Lock()
	defer w.mu.Unlock()
	parts := []string{w.violation, w.outside()}
	for _, name := range slices.Sorted(maps.Keys(w.past)) {
		parts = append(parts, fmt.Sprint(name, w.told.writes[name]), w.told.text(w.memory.Get(context.Background(), name)))
	}
	parts = append(parts, w.beside())
	for i, r := range results {
		if r.done {
			parts = append(parts, "ended "+w.ending(r))
		} else {
			parts = append(parts, w.told.heard[i].String())
		}
	}
	return digest(parts...)
}

func (w *world) beside() string {
	var all []string
	for name, labels := range w.labels {
		for _, l := range labels {
			all = append(all, w.told.known(fmt.Sprint(name, " has ", l)))
		}
	}
	for name := range w.held {
		all = append(all, name+" is held")
	}
	slices.Sort(all)
	return strings.Join(all, "\n")
}

func (w *world) ending(r result) string {
	if r.err == nil || r.crashed {
		return fmt.Sprint(r.crashed)
	}
	return w.told.text(nil, r.err)
}

// settings returns, by name, the explorer's scenarios of one or two processes and the
// refresh scenarios, each with every kind of fault that it allows.
func settings() map[string]func() (func() scenario, budgets) {
	all := map[string]func() (func() scenario, budgets){}
	add := func(fresh func() scenario, kinds []faultKind) {
		for _, kind := range kinds {
			all[fresh().name+"/"+kind.name] = func() (func() scenario, budgets) { return on(kind.service, fresh), kind.budgets }
		}
	}
	for _, sc := range scenarios() {
		if len(sc.ops) <= 2 {
			add(func() scenario { return sc }, sc.kinds())
		}
	}
	for _, fresh := range refreshScenarios() {
		add(fresh, refreshFaults())
		add(inNotes(fresh), noteFaults())
	}
	return all
}

// small lists settings with so few orders that TestReduction can run all of them. The flag
// -explore.every selects further settings.
var small = []string{
	"two cold starts with one code/k8sstore without faults",
	"removal of an alias and the user deleted and saved again/k8sstore without faults",
	"two first saves of one user/k8sstore with a crash",
	"save and delete/k8sstore with a lost answer",
	"two first saves of one user/k8sstore with a repeated write",
	"save and delete/k8sstore with finalizers",
	"two first saves of one user/vaultstore with a crash",
	"save and delete/vaultstore with a lost answer",
	"save and delete/awssm with a crash and a stale read",
	"deletion and a save of what was saved again/gcpsm with stale reads",
	"interrupted promotion, and a user who was saved again/gcpsm with a lost call and a stale read",
	"removal of an alias and a repair/gcpsm with a lost call and a stale read",
	"a refresh and a save/k8sstore with a crash",
	"a refresh and a deletion, with notes/gcpsm with a crash",
}

// TestReduction checks that the orders that the explorer runs have the same endings as all
// orders.
func TestReduction(t *testing.T) {
	t.Parallel()
	for name, setting := range settings() {
		if *exploreEvery == 0 && !slices.Contains(small, name) {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fresh, b := setting()
			compare(t, fresh, b)
		})
	}
}

func compare(t *testing.T, fresh func() scenario, b budgets) {
	every, few := newChecker(fresh, b), newChecker(fresh, b)
	every.all, every.endings, few.endings = true, map[situation]bool{}, map[situation]bool{}
	var finished bool
	synctest.Test(t, func(t *testing.T) {
		var err error
		if err, finished = every.search(t, *exploreEvery); err != nil {
			t.Fatal(err)
		}
	})
	if !finished {
		t.Skipf("more than %d orders", every.runs)
	}
	if err, finished := few.search(t, 0); err != nil || !finished {
		t.Fatal(err)
	}
	if !maps.Equal(every.endings, few.endings) || few.runs > every.runs {
		t.Errorf("%d endings of %d orders, and %d of all %d", len(few.endings), few.runs, len(every.endings), every.runs)
	}
	t.Logf("%d endings of %d orders and of all %d", len(few.endings), few.runs, every.runs)
}

// A sloppy is a driver that breaks a promise of the driver that it wraps. Each function that
// is not nil replaces the method of the same name. The function get also replaces Fresh.
type sloppy struct {
	driver.Secrets
	properties func(driver.Properties) driver.Properties
	get        func(context.Context, driver.Secrets, string) (driver.Secret, error)
	create     func(context.Context, driver.Secrets, string, driver.Payload) (driver.Version, error)
	update     func(context.Context, driver.Secrets, string, driver.Secret, driver.Payload) (driver.Version, error)
	delete     func(context.Context, driver.Secrets, string, driver.Secret) error
	lookup     func(context.Context, driver.Secrets, []driver.Label) iter.Seq2[driver.Named, error]
	list       func(context.Context, driver.Secrets) iter.Seq2[driver.Named, error]
}

func (c sloppy) Properties() driver.Properties {
	if c.properties == nil {
		return c.Secrets.Properties()
	}
	return c.properties(c.Secrets.Properties())
}

func (c sloppy) Get(ctx context.Context, name string) (driver.Secret, error) {
	if c.get == nil {
		return c.Secrets.Get(ctx, name)
	}
	return c.get(ctx, c.Secrets, name)
}

func (c sloppy) Fresh(ctx context.Context, name string, than driver.Secret) (driver.Secret, error) {
	if c.get == nil {
		return c.Secrets.Fresh(ctx, name, than)
	}
	return c.get(ctx, c.Secrets, name)
}

func (c sloppy) Create(ctx context.Context, name string, p driver.Payload) (driver.Version, error) {
	if c.create == nil {
		return c.Secrets.Create(ctx, name, p)
	}
	return c.create(ctx, c.Secrets, name, p)
}

func (c sloppy) Update(ctx context.Context, name string, base driver.Secret, p driver.Payload) (driver.Version, error) {
	if c.update == nil {
		return c.Secrets.Update(ctx, name, base, p)
	}
	return c.update(ctx, c.Secrets, name, base, p)
}

func (c sloppy) Delete(ctx context.Context, name string, base driver.Secret) error {
	if c.delete == nil {
		return c.Secrets.Delete(ctx, name, base)
	}
	return c.delete(ctx, c.Secrets, name, base)
}

func (c sloppy) Lookup(ctx context.Context, any []driver.Label) iter.Seq2[driver.Named, error] {
	if c.lookup == nil {
		return c.Secrets.Lookup(ctx, any)
	}
	return c.lookup(ctx, c.Secrets, any)
}

func (c sloppy) List(ctx context.Context) iter.Seq2[driver.Named, error] {
	if c.list == nil {
		return c.Secrets.List(ctx)
	}
	return c.list(ctx, c.Secrets)
}

// A mutant is a setting with a broken driver.
type mutant struct {
	name, setting string
	driver        sloppy
}

// findsFaults checks that the explorer finds the fault of each mutant.
func findsFaults(t *testing.T, mutants []mutant) {
	for _, m := range mutants {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			fresh, b := settings()[m.setting]()
			c := newChecker(func() scenario {
				sc := fresh()
				sc.wrap = func(d driver.Secrets) driver.Secrets {
					broken := m.driver
					broken.Secrets = d
					return broken
				}
				return sc
			}, b)
			err, finished := c.search(t, 0)
			if err == nil {
				t.Fatalf("not found in %d runs, all: %t", c.runs, finished)
			}
			t.Logf("found in run %d", c.runs)
		})
	}
}

// TestReductionFindsFaults checks that the orders that are not skipped reveal the fault of
// each broken driver.
func TestReductionFindsFaults(t *testing.T) {
	t.Parallel()
	overwrite := func(ctx context.Context, d driver.Secrets, name string, p driver.Payload) (driver.Version, error) {
		now, err := d.Get(ctx, name)
		if err != nil {
			return "", err
		}
		return d.Update(ctx, name, now, p)
	}
	findsFaults(t, []mutant{
		{"an update compares nothing", "two saves of different fields/k8sstore without faults", sloppy{
			update: func(ctx context.Context, d driver.Secrets, name string, _ driver.Secret, p driver.Payload) (driver.Version, error) {
				return overwrite(ctx, d, name, p)
			},
		}},
		{"an update is a deletion and a creation", "two saves of different fields/k8sstore with a crash", sloppy{
			update: func(ctx context.Context, d driver.Secrets, name string, base driver.Secret, p driver.Payload) (driver.Version, error) {
				if err := d.Delete(ctx, name, base); err != nil {
					return "", err
				}
				return d.Create(ctx, name, p)
			},
		}},
		{"a deletion compares nothing", "promotion and deletion of the code's record/k8sstore without faults", sloppy{
			delete: func(ctx context.Context, d driver.Secrets, name string, base driver.Secret) error {
				now, err := d.Get(ctx, name)
				if errors.Is(err, driver.ErrNotFound) {
					return d.Delete(ctx, name, base)
				}
				return d.Delete(ctx, name, now)
			},
		}},
		{"an update that failed counts as done", "two saves of different fields/gcpsm with a lost call and a stale read", sloppy{
			update: func(ctx context.Context, d driver.Secrets, name string, base driver.Secret, p driver.Payload) (driver.Version, error) {
				v, err := d.Update(ctx, name, base, p)
				if errors.Is(err, driver.ErrUnavailable) {
					return base.Version, nil
				}
				return v, err
			},
		}},
		{"what has changed counts as deleted", "deletion and a save of what was saved again/gcpsm with stale reads", sloppy{
			delete: func(ctx context.Context, d driver.Secrets, name string, base driver.Secret) error {
				err := d.Delete(ctx, name, base)
				if errors.Is(err, driver.ErrConflict) {
					return nil
				}
				return err
			},
		}},
		{"two hold one lease", "two refreshers/k8sstore without faults", sloppy{
			update: func(ctx context.Context, d driver.Secrets, name string, _ driver.Secret, p driver.Payload) (driver.Version, error) {
				return overwrite(ctx, d, name, p)
			},
		}},
	})
}
