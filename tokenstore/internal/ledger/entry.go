package ledger

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/internal/stored"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// An Entry is a stored secret as it was read, or a record that a View has assembled from
// several entries.
type Entry struct {
	stored.Record // the content of the secret, without the fields of Frozen
	Name          Name

	// Token holds the fields of the record: the fields of the secret, merged with the fields
	// of Frozen. Token.ID is the stored ID or, if no ID is stored, Name.
	Token codec.Fields

	// Frozen holds the entries that have moved to this entry and are not merged yet.
	Frozen []Entry

	secret driver.Secret // the base of a write over the entry
	drop   string        // the note that a write over the entry removes
	path   []Name        // names that stand for the IDs of the entries that lead to this entry
}

// Ref returns a reference to the incarnation of e.
func (e Entry) Ref() stored.Ref { return stored.Ref{Name: string(e.Name), Born: e.Born} }

// Target returns a reference to the entry to which e has moved. It returns nil if e is
// neither frozen nor a redirect.
func (e Entry) Target() *stored.Ref {
	if e.Alias != nil {
		return e.Alias
	}
	return e.Moved
}

// WrittenAt returns when e was written, by the writer's clock.
func (e Entry) WrittenAt() time.Time { return time.UnixMilli(e.Updated) }

// Secret returns the state of the secret as it was read or written. A write over e uses this
// state as its base.
func (e Entry) Secret() driver.Secret { return e.secret }

// Over returns e with s as the base of a write. s must have the version of e.
func (e Entry) Over(s driver.Secret) Entry { e.secret = s; return e }

// WithNote returns e with note as the note beside the secret.
func (e Entry) WithNote(note string) Entry { e.secret.Note = note; return e }

// DropNote returns a copy of e. A write over the copy removes the note that was read with e.
func (e Entry) DropNote() Entry { e.drop = e.secret.Note; return e }

// ChosenID returns the ID of the record, or "" if the ID is the name of e.
func (e Entry) ChosenID() string {
	if e.Token.ID == string(e.Name) {
		return ""
	}
	return e.Token.ID
}

// Had reports whether name is the name of e or of an entry that has moved to e. Had also
// returns true if name derives from an earlier grant or refresh token of the record, or
// stands for a former ID of the record.
func (e Entry) Had(name Name) bool {
	return e.Name == name || slices.Contains(e.path, name) ||
		slices.Contains(e.Earlier, string(name)) || slices.Contains(e.IDs, string(name)) ||
		slices.ContainsFunc(e.Absorbed, func(ref stored.Ref) bool { return ref.Name == string(name) })
}

// toEntry decodes a secret that the driver returned. The error matches driver.ErrCorrupt if the
// secret cannot be decoded, or is a state of an earlier incarnation.
func (l *Ledger) toEntry(name Name, secret driver.Secret) (Entry, error) {
	r, err := l.decode(name, secret.Data)
	if err != nil {
		return Entry{Name: name}, fmt.Errorf("%w: secret %q: %w", driver.ErrCorrupt, name, err)
	}
	if is := secret.Incarnation; is != "" && r.Born != "" && r.Born != is {
		return Entry{Name: name}, fmt.Errorf("%w: secret %q: it is a state of an earlier incarnation", driver.ErrCorrupt, name)
	}
	secret.Labels, secret.Former = driverLabels(r.Labels), driverLabels(r.Former)
	return newEntry(name, secret, r), nil
}

func (l *Ledger) decode(name Name, data []byte) (stored.Record, error) {
	text, err := l.Codec.Open(string(name), data)
	if err != nil {
		return stored.Record{}, err
	}
	return stored.Decode(text)
}

// Get reads the named entry, which may be out of date by up to the driver's ReadLag. The
// error matches driver.ErrNotFound if the secret does not exist, and driver.ErrCorrupt if the
// secret is not a record.
func (l *Ledger) Get(ctx context.Context, name Name) (Entry, error) {
	secret, err := l.Driver.Get(ctx, string(name))
	if err != nil {
		return Entry{}, err
	}
	return l.toEntry(name, secret)
}

// Newest is like Get, but reads the newest state that the driver can prove. The parameter than is
// the newest entry that the caller has read, or the zero Entry. The result is never older than this
// entry.
func (l *Ledger) Newest(ctx context.Context, name Name, than Entry) (Entry, error) {
	secret, err := l.Driver.Fresh(ctx, string(name), than.secret)
	if err != nil {
		return Entry{}, err
	}
	return l.toEntry(name, secret)
}

// Hours is the maximum number of clock hours that a period of 24 hours overlaps.
const Hours = 25

// counted returns the Writes of r after one more write. The parameter now is the time of that
// write, in Unix milliseconds.
func counted(r stored.Record, now int64) []int {
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

// Room returns how many more states of r the service will accept at a later time, if no process
// writes r before that time. The parameter later is the number of hours until that time. If the
// service has no daily limit, Room returns math.MaxInt.
func (l *Ledger) Room(r stored.Record, later int64) int {
	if l.Properties.DailyWrites == 0 {
		return math.MaxInt
	}
	left := l.Properties.DailyWrites + 1 // counted adds one write that Room does not make
	for _, n := range counted(r, l.Now().UnixMilli()+later*time.Hour.Milliseconds()) {
		left -= n
	}
	return left
}

// ClockSkew is the largest assumed difference between the clocks of two processes.
const ClockSkew = 5 * time.Minute

// unboundedLag is the assumed lag of searches if the service documents no bound.
const unboundedLag = 24 * time.Hour

// Outlived reports whether every search sees a write that was committed at the given time. The time
// is in Unix milliseconds, by the clock of any process.
func (l *Ledger) Outlived(since int64) bool {
	lag := l.Properties.ListLag
	switch lag {
	case 0:
		return true
	case driver.Unbounded:
		lag = unboundedLag
	default:
	}
	return l.Now().Sub(time.UnixMilli(since))-ClockSkew >= lag
}

// Note returns the text of lease for a note: ID, Until and For, followed by Seen if Seen is
// positive. Dots separate the parts.
func Note(lease stored.Lease) string {
	note := fmt.Sprintf("%s.%d.%d", lease.ID, lease.Until, lease.For)
	if lease.Seen > 0 {
		note += "." + strconv.FormatInt(lease.Seen, 10)
	}
	return note
}

// Noted returns the lease in the note beside e, or nil if there is no note. Noted reads a
// missing or malformed number as 0. A lease whose Until is 0 counts as lapsed.
func (e Entry) Noted() *stored.Lease {
	if e.secret.Note == "" {
		return nil
	}
	part := strings.Split(e.secret.Note, ".")
	lease := stored.Lease{ID: part[0]}
	for i, n := range []*int64{&lease.Until, &lease.For, &lease.Seen} {
		if i+1 < len(part) {
			*n, _ = strconv.ParseInt(part[i+1], 10, 64)
		}
	}
	return &lease
}
