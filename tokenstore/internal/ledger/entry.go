package ledger

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rules"
)

// An Entry is a stored secret as it was read. A View turns it into a record.
type Entry struct {
	codec.Record // as it is stored
	Name         Name

	// Token is what the record holds: the fields of the entry with those of Frozen
	// merged into them. Its ID is the name, unless a caller chose one.
	Token codec.Fields

	// Frozen are the entries that have moved here and that no write has merged yet.
	Frozen []Entry

	secret driver.Secret // the base of a write over the entry
	drop   string        // the note that a write over the entry removes
	path   []Name        // stands for the IDs of the frozen entries and redirects that led here
}

// Ref names the incarnation of e.
func (e Entry) Ref() codec.Ref { return codec.Ref{Name: string(e.Name), Born: e.Born} }

// Target returns what e has moved to, or is a redirect to; nil if e is neither frozen
// nor a redirect.
func (e Entry) Target() *codec.Ref {
	if e.Alias != nil {
		return e.Alias
	}
	return e.Moved
}

// WrittenAt returns when e was written, by the writer's clock.
func (e Entry) WrittenAt() time.Time { return time.UnixMilli(e.Updated) }

// Secret returns the state that e was read from: the base of a write over it.
func (e Entry) Secret() driver.Secret { return e.secret }

// Over returns e as read from another reading of the same state.
func (e Entry) Over(s driver.Secret) Entry { e.secret = s; return e }

// WithNote returns e with another note beside it.
func (e Entry) WithNote(note string) Entry { e.secret.Note = note; return e }

// DropNote returns e so that the next write over it removes the note beside it.
func (e Entry) DropNote() Entry { e.drop = e.secret.Note; return e }

// ChosenID returns the ID that a caller chose for the record, or "".
func (e Entry) ChosenID() string {
	if e.Token.ID == string(e.Name) {
		return ""
	}
	return e.Token.ID
}

// Had reports whether name is that of the record or of an entry that was merged into
// it, or is derived from an earlier token or ID of it.
func (e Entry) Had(name Name) bool {
	return e.Name == name || slices.Contains(e.path, name) ||
		slices.Contains(e.Earlier, string(name)) || slices.Contains(e.IDs, string(name)) ||
		slices.ContainsFunc(e.Absorbed, func(ref codec.Ref) bool { return ref.Name == string(name) })
}

// newEntry returns the entry of r, without frozen entries.
func newEntry(name Name, secret driver.Secret, r codec.Record) Entry {
	e := Entry{Record: r, Name: name, Token: r.Fields, secret: secret}
	e.Token.ID = cmp.Or(r.ID, string(name))
	return e
}

// Decode returns the entry that a driver has returned. The error matches ErrCorrupt
// if the secret is not a record.
func (l *Ledger) Decode(name Name, secret driver.Secret) (Entry, error) {
	r, err := l.Codec.Decode(string(name), secret.Data)
	if err != nil {
		return Entry{Name: name}, fmt.Errorf("%w: secret %q: %w", driver.ErrCorrupt, name, err)
	}
	if is := secret.Incarnation; is != "" && r.Born != "" && r.Born != is {
		return Entry{Name: name}, fmt.Errorf("%w: secret %q: it is a state of an earlier incarnation", driver.ErrCorrupt, name)
	}
	secret.Labels = driverLabels(r.Labels)
	return newEntry(name, secret, r), nil
}

// Get reads an entry in one call.
func (l *Ledger) Get(ctx context.Context, name Name) (Entry, error) {
	secret, err := l.Driver.Get(ctx, string(name))
	if err != nil {
		return Entry{}, err
	}
	return l.Decode(name, secret)
}

// Newest reads the newest state of an entry that can be proved, at least as new as
// than.
func (l *Ledger) Newest(ctx context.Context, name Name, than Entry) (Entry, error) {
	secret, err := l.Driver.Fresh(ctx, string(name), than.secret)
	if err != nil {
		return Entry{}, err
	}
	return l.Decode(name, secret)
}

// A Writer makes the writes of one operation. All labels that they add have one
// nonce: a repeated write adds the same labels.
type Writer struct {
	*Ledger
	nonce string

	// MovedTo is the name of the record that Promote has moved the operation's record
	// to. A search by the ID that a caller chose may not find it there yet.
	MovedTo Name
}

// Writer returns a Writer for one operation.
func (l *Ledger) Writer() *Writer { return l.WriterOf(Nonce()) }

// WriterOf returns a Writer whose labels have the given nonce.
func (l *Ledger) WriterOf(nonce string) *Writer { return &Writer{Ledger: l, nonce: nonce} }

// Create stores r as a new entry. The error matches ErrExists only if this write was
// not applied and never will be.
func (w *Writer) Create(ctx context.Context, name Name, r codec.Record) (Entry, error) {
	return w.write(ctx, name, Entry{}, r)
}

// Update stores r over base. The error matches ErrConflict or ErrNotFound only if this
// write was not applied and never will be.
func (w *Writer) Update(ctx context.Context, base Entry, r codec.Record) (Entry, error) {
	return w.write(ctx, base.Name, base, r)
}

// maxNonces is how many writers of one record may write between a write whose answer
// was lost and the read that looks for it.
const maxNonces = 8

// write stores r under name: over base, or, if base is the zero entry, as a new one.
func (w *Writer) write(ctx context.Context, name Name, base Entry, r codec.Record) (Entry, error) {
	mine := Nonce()
	r.Nonces = append([]string{mine}, r.Nonces...)
	r.Nonces = r.Nonces[:min(len(r.Nonces), maxNonces)]
	now := w.Now().UnixMilli()
	if w.Properties.DailyWrites > 0 {
		r.Writes = counted(r, now)
	}
	r.Updated = now
	r.Born = cmp.Or(r.Born, mine)
	r.Labels = w.relabeled(name, base, w.labels(r, base.Labels, w.nonce))
	data, err := w.Codec.Encode(string(name), r)
	if err != nil {
		return Entry{}, err
	}
	if len(data) > w.Properties.MaxSize {
		return Entry{}, tooLarge(len(data), w.Properties.MaxSize)
	}
	stored := driver.Payload{Data: data, Labels: driverLabels(r.Labels)}
	p := stored
	p.Drop, p.Incarnation = base.drop, r.Born
	var version driver.Version
	if base.Name == "" {
		version, err = w.Driver.Create(ctx, string(name), p)
	} else {
		version, err = w.Driver.Update(ctx, string(name), base.secret, p)
	}
	switch {
	case err == nil:
		w.adopt(ctx)
		return newEntry(name, driver.Secret{Payload: stored, Version: version}, r), nil
	case isOneOf(err, driver.ErrConflict, driver.ErrExists, driver.ErrNotFound, driver.ErrDenied, driver.ErrRefused):
		return Entry{}, err
	}
	return w.outcome(ctx, name, base, mine, err)
}

func tooLarge(size, limit int) error {
	return fmt.Errorf("%w: it would have %d bytes, the limit is %d", rules.ErrTooLarge, size, limit)
}

// relabeled gives the labels that a write adds to its base the nonces that the driver
// wants them to have.
func (l *Ledger) relabeled(name Name, base Entry, labels []codec.Label) []codec.Label {
	labeler, ok := l.Driver.(driver.Labeler)
	if !ok {
		return labels
	}
	added := slices.DeleteFunc(slices.Clone(labels), func(l codec.Label) bool { return slices.Contains(base.Labels, l) })
	kept := slices.DeleteFunc(labels, func(l codec.Label) bool { return slices.Contains(added, l) })
	for _, l := range labeler.Relabel(string(name), base.secret.Version, driverLabels(added)) {
		kept = append(kept, codec.Label(l))
	}
	slices.SortFunc(kept, compareLabels)
	return kept
}

// outcome decides whether the write with the given nonce was applied although err
// came back.
func (l *Ledger) outcome(ctx context.Context, name Name, base Entry, mine string, err error) (Entry, error) {
	now, readErr := l.Newest(ctx, name, base)
	switch {
	case errors.Is(readErr, driver.ErrNotFound) && base.Name != "":
		return Entry{}, readErr
	case readErr != nil:
		return Entry{}, err
	case slices.Contains(now.Nonces, mine):
		return now, nil
	case base.Name == "":
		return Entry{}, fmt.Errorf("%w: another writer created it", driver.ErrExists)
	case now.secret.Version != base.secret.Version:
		return Entry{}, fmt.Errorf("%w: another writer came first", driver.ErrConflict)
	}
	return Entry{}, err
}

// errBusy means that a rewrite has to wait for another day.
var errBusy = fmt.Errorf("%w: the service takes no more of the record today", driver.ErrUnavailable)

// Rewrite writes e over itself: the labels are then by the first index key, and the
// bytes as the codec writes them now. It adds the labels in absent again.
func (l *Ledger) Rewrite(ctx context.Context, e Entry, absent []driver.Label) (Entry, error) {
	if l.Room(e.Record, 0) < l.Properties.DailyWrites*2/5 { // the rest is for refreshes
		return Entry{}, errBusy
	}
	base := e
	base.Labels = slices.DeleteFunc(slices.Clone(e.Labels), func(label codec.Label) bool {
		return slices.Contains(absent, driver.Label(label))
	})
	return l.Writer().Update(ctx, base, e.Record)
}

// Hours is how many hours a day can have a part in.
const Hours = 25

// counted returns r.Writes with one more write at the given time.
func counted(r codec.Record, now int64) []int {
	passed := max(now/time.Hour.Milliseconds()-r.Updated/time.Hour.Milliseconds(), 0)
	counts := make([]int, min(passed, Hours), Hours+len(r.Writes))
	counts = append(counts, r.Writes...)
	counts = counts[:min(len(counts), Hours)]
	if len(counts) == 0 {
		return []int{1}
	}
	counts[0]++
	return counts
}

// Room returns how many states of the record the service takes in the hours to come,
// the given number of hours from now, if no process writes one until then.
func (l *Ledger) Room(r codec.Record, later int64) int {
	if l.Properties.DailyWrites == 0 {
		return math.MaxInt
	}
	left := l.Properties.DailyWrites + 1 // counted counts one that is not made
	for _, n := range counted(r, l.Now().UnixMilli()+later*time.Hour.Milliseconds()) {
		left -= n
	}
	return left
}

// ClockSkew is how far clocks are apart at most.
const ClockSkew = 5 * time.Minute

// unboundedLag is how long searches are taken to be out of date where the service
// documents no bound.
const unboundedLag = 24 * time.Hour

// Outlived reports whether every search sees what was committed at the given time,
// in milliseconds by any clock.
func (l *Ledger) Outlived(since int64) bool {
	lag := l.Properties.ListLag
	switch lag {
	case 0:
		return true
	case driver.Unbounded:
		lag = unboundedLag
	}
	return l.Now().Sub(time.UnixMilli(since))-ClockSkew >= lag
}

// Note returns the note that is the lease: its members, in their order, with dots
// between them.
func Note(lease codec.Lease) string {
	note := fmt.Sprintf("%s.%d.%d", lease.ID, lease.Until, lease.For)
	if lease.Seen > 0 {
		note += "." + strconv.FormatInt(lease.Seen, 10)
	}
	return note
}

// Noted returns the lease in the note beside e, or nil if there is no note. A note of
// another form is a lease that has lapsed.
func (e Entry) Noted() *codec.Lease {
	if e.secret.Note == "" {
		return nil
	}
	part := strings.Split(e.secret.Note, ".")
	lease := codec.Lease{ID: part[0]}
	for i, n := range []*int64{&lease.Until, &lease.For, &lease.Seen} {
		if i+1 < len(part) {
			*n, _ = strconv.ParseInt(part[i+1], 10, 64)
		}
	}
	return &lease
}
