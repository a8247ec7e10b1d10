package tokenstore_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

var (
	updateCalls = flag.Bool("update", false, "rewrite testdata/calls")
	fullCalls   = flag.Bool("calls.full", false, "with -update: also write the data of each call, to compare two versions")
)

// A recording holds the calls of drivers, one per line. Numbered names replace random
// strings, so that each run makes the same recording.
type recording struct {
	mu     sync.Mutex
	nonces map[string]string
	lines  []string
	steps  bool // leave out reads of the marker of keys, which have no fixed order
}

// of returns a driver like d that records its calls as those of the named process. If r is nil,
// of returns d itself.
func (r *recording) of(process string, d driver.Secrets) driver.Secrets {
	if r == nil {
		return d
	}
	recorded := recorder{d, r, process}
	if l, ok := d.(driver.Leaser); ok {
		return recordingLeaser{recorded, l}
	}
	return recorded
}

var (
	random  = regexp.MustCompile(`\b[a-z2-7]{16}\b`)
	names   = regexp.MustCompile(`\b[ugrai][a-z2-7]{32}\b`)
	times   = regexp.MustCompile(`\b9\d{11}\b`) // in Unix milliseconds, on the clock of a synctest bubble
	watched = regexp.MustCompile(`"seen":\d+`)
)

// plain shortens the names in text, and replaces the parts that differ between runs.
func (r *recording) plain(text string) string {
	text = random.ReplaceAllStringFunc(text, func(n string) string {
		if r.nonces[n] == "" {
			r.nonces[n] = fmt.Sprintf("n%d", len(r.nonces)+1)
		}
		return r.nonces[n]
	})
	text = times.ReplaceAllString(text, "T")
	text = watched.ReplaceAllString(text, `"seen":S`)
	return names.ReplaceAllStringFunc(text, func(n string) string { return n[:5] })
}

// add adds a line for a call, unless the process is dead or r.steps leaves out the call.
func (r *recording) add(process, call string, err error, result string) {
	if errors.Is(err, errDead) || r.steps && call == "get keys" {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		result = outcome(err)
	}
	r.lines = append(r.lines, r.plain(strings.TrimSpace(process+"  "+call)+" -> "+result))
}

// outcomesOf lists the error classes and their names in recordings. The first class that an
// error matches determines the name.
var outcomesOf = []struct {
	class error
	name  string
}{
	{errCrashed, "dies"},
	{tokenstore.ErrNotPersisted, "not persisted"},
	{tokenstore.ErrAmbiguous, "ambiguous"},
	{tokenstore.ErrIDMismatch, "ID mismatch"},
	{tokenstore.ErrInvalidToken, "invalid token"},
	{tokenstore.ErrWrongKeys, "wrong keys"},
	{driver.ErrNotFound, "not found"},
	{driver.ErrExists, "exists"},
	{driver.ErrConflict, "conflict"},
	{driver.ErrUnavailable, "unavailable"},
	{driver.ErrCorrupt, "corrupt"},
	{context.Canceled, "canceled"},
	{context.DeadlineExceeded, "deadline exceeded"},
}

func outcome(err error) string {
	var refused *tokenstore.RefreshError
	if errors.As(err, &refused) {
		return "refused"
	}
	for _, o := range outcomesOf {
		if errors.Is(err, o.class) {
			return o.name
		}
	}
	return "another error"
}

// data returns a text that represents the data of the named secret. The text does not depend
// on the parts of the data that differ between runs.
func (r *recording) data(name string, data []byte) string {
	if len(data) == 0 {
		return "none"
	}
	var marker struct{ Names, Labels, Records []any }
	if name == "keys" && json.Unmarshal(data, &marker) == nil { // the digests of the marker differ between runs because of its random salt
		return fmt.Sprintf("%d names, %d labels, %d records", len(marker.Names), len(marker.Labels), len(marker.Records))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	text := r.plain(string(data))
	if *fullCalls {
		return text
	}
	return sum(text)
}

func sum(text string) string {
	digest := sha256.Sum256([]byte(text))
	return hex.EncodeToString(digest[:4])
}

func labelText(labels []driver.Label) string {
	var all []string
	for _, l := range labels {
		text := l.Key + ":" + l.Value[:min(4, len(l.Value))]
		if l.Nonce != "" {
			text += "/" + l.Nonce
		}
		all = append(all, text)
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

func (r *recording) payload(name string, p driver.Payload, err error) string {
	if errors.Is(err, errDead) {
		return "" // a dead process makes no call
	}
	text := "data " + r.data(name, p.Data)
	if len(p.Labels) > 0 {
		text += ", labels " + labelText(p.Labels)
	}
	if p.Drop != "" {
		text += ", drop " + p.Drop
	}
	if p.Incarnation != "" {
		text += ", incarnation " + p.Incarnation
	}
	return text
}

// A recorder is a driver that records its calls and their results.
type recorder struct {
	driver.Secrets
	*recording
	process string
}

func (r recorder) Get(ctx context.Context, name string) (driver.Secret, error) {
	s, err := r.Secrets.Get(ctx, name)
	r.add(r.process, "get "+name, err, "v"+string(s.Version))
	return s, err
}

func (r recorder) Fresh(ctx context.Context, name string, than driver.Secret) (driver.Secret, error) {
	s, err := r.Secrets.Fresh(ctx, name, than)
	r.add(r.process, newer("fresh "+name, than), err, strings.TrimSpace(fmt.Sprintf("v%s %s", s.Version, s.Note)))
	return s, err
}

// newer returns the text of a call. If than.Version is not empty, newer adds it to the text.
func newer(call string, than driver.Secret) string {
	if than.Version == "" {
		return call
	}
	return call + " than v" + string(than.Version)
}

func (r recorder) Create(ctx context.Context, name string, p driver.Payload) (driver.Version, error) {
	v, err := r.Secrets.Create(ctx, name, p)
	r.add(r.process, fmt.Sprintf("create %s %s", name, r.payload(name, p, err)), err, "v"+string(v))
	return v, err
}

func (r recorder) Update(ctx context.Context, name string, base driver.Secret, p driver.Payload) (driver.Version, error) {
	v, err := r.Secrets.Update(ctx, name, base, p)
	r.add(r.process, fmt.Sprintf("update %s v%s %s", name, base.Version, r.payload(name, p, err)), err, "v"+string(v))
	return v, err
}

func (r recorder) Delete(ctx context.Context, name string, base driver.Secret) error {
	err := r.Secrets.Delete(ctx, name, base)
	r.add(r.process, fmt.Sprintf("delete %s v%s", name, base.Version), err, "done")
	return err
}

func (r recorder) Lookup(ctx context.Context, any []driver.Label) iter.Seq2[driver.Named, error] {
	return r.all("lookup "+labelText(any), r.Secrets.Lookup(ctx, any))
}

func (r recorder) List(ctx context.Context) iter.Seq2[driver.Named, error] {
	return r.all("list", r.Secrets.List(ctx))
}

func (r recorder) Names(ctx context.Context) iter.Seq2[string, error] {
	r.add(r.process, "names", nil, "")
	return r.Secrets.Names(ctx)
}

// all adds a search or list and its results to the recording, and returns the results.
func (r recorder) all(text string, seq iter.Seq2[driver.Named, error]) iter.Seq2[driver.Named, error] {
	all, err := collect(seq)
	var found []string
	for _, n := range all {
		found = append(found, fmt.Sprintf("%s v%s", n.Name, n.Version))
	}
	r.add(r.process, text, err, "["+strings.Join(found, ", ")+"]")
	return sorted(all, err)
}

type recordingLeaser struct {
	recorder
	leaser driver.Leaser
}

func (r recordingLeaser) Note(ctx context.Context, name string, base driver.Secret, note string) error {
	err := r.leaser.Note(ctx, name, base, note)
	r.add(r.process, fmt.Sprintf("note %s v%s %q for %q", name, base.Version, note, base.Note), err, "done")
	return err
}

// golden compares got with the named file in testdata/calls. If -update is set, golden writes
// the file instead.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", "calls", name)
	if *updateCalls {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	had, have := strings.Split(string(want), "\n"), strings.Split(got, "\n")
	for i := range max(len(had), len(have)) {
		if i >= len(had) || i >= len(have) || had[i] != have[i] {
			t.Fatalf("%s: line %d differs:\nwas\t%s\nis\t%s\n(-update rewrites it, -calls.full with the data)",
				path, i+1, strings.Join(had[min(i, len(had)):min(i+3, len(had))], "\n\t"), strings.Join(have[min(i, len(have)):min(i+3, len(have))], "\n\t"))
		}
	}
}

// short joins lines, and writes consecutive equal lines only once, with a count.
func short(lines []string) string {
	var b strings.Builder
	for i := 0; i < len(lines); {
		n := 1
		for i+n < len(lines) && lines[i+n] == lines[i] {
			n++
		}
		fmt.Fprintf(&b, "  %s", lines[i])
		if n > 1 {
			fmt.Fprintf(&b, "  (%d times)", n)
		}
		b.WriteByte('\n')
		i += n
	}
	return b.String()
}

func recordRun(t *testing.T, sc scenario, b budgets, r *run) *recording {
	var calls *recording
	synctest.Test(t, func(t *testing.T) {
		calls = &recording{nonces: map[string]string{}, steps: true}
		r.calls = calls
		play(t, sc, b, r)
	})
	return calls
}

// TestCallsOfScenarios checks that the explorer's scenarios make the calls that testdata
// records. The test plays each scenario once with the processes one after another, and
// several times in random orders with faults. For the random orders, testdata holds only
// digests of the calls.
func TestCallsOfScenarios(t *testing.T) {
	t.Parallel()
	const seeds = 10
	all := scenarios()
	sequences, schedules := make([]string, len(all)), make([]string, len(all))
	t.Run("all", func(t *testing.T) {
		for i, sc := range all {
			t.Run(sc.name, func(t *testing.T) {
				t.Parallel()
				sequences[i] = sc.name + "\n" + short(recordRun(t, sc, budgets{}, &run{pick: first}).lines)
				for _, f := range plainFaults() {
					calls := 0
					var text strings.Builder
					for seed := range uint64(seeds) {
						r := &run{random: rand.New(rand.NewPCG(seed, 1))}
						rec := recordRun(t, sc, f.budgets, r)
						calls += len(rec.lines)
						fmt.Fprintln(&text, strings.Join(r.trace, "\n"), strings.Join(rec.lines, "\n"))
					}
					schedules[i] += fmt.Sprintf("%s/%s: %d runs, %d calls, %s\n", sc.name, f.name, seeds, calls, sum((&recording{}).plain(text.String())))
				}
			})
		}
	})
	golden(t, "scenarios.txt", strings.Join(sequences, "\n"))
	golden(t, "schedules.txt", strings.Join(schedules, ""))
}

func first(options []option) option { return options[0] }
