package ledger

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/internal/stored"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rules"
)

// A Writer makes the writes of one operation. The labels that a Writer adds to one incarnation of
// an entry have the same nonce, so that a repeated write adds the same labels. For the exceptions,
// see the methods labels and relabeled.
type Writer struct {
	*Ledger
	nonce string

	// MovedTo is the name of the entry to which Move last moved an entry, or empty. The next
	// attempt of the operation must read this name, because a search by an ID that a caller
	// chose may not find the record yet.
	MovedTo Name
}

// Writer returns a Writer with a random nonce.
func (l *Ledger) Writer() *Writer { return l.WriterOf(l.NewNonce()) }

// WriterOf returns a Writer with the given nonce. Writers with the same nonce add the same
// labels.
func (l *Ledger) WriterOf(nonce string) *Writer { return &Writer{Ledger: l, nonce: nonce} }

// Create stores r as a new entry under name. The error matches driver.ErrExists only if this
// write was not applied and never will be.
func (w *Writer) Create(ctx context.Context, name Name, r stored.Record) (Entry, error) {
	return w.write(ctx, name, Entry{}, r, keepFormer)
}

// Update stores r over base. The error matches driver.ErrConflict or driver.ErrNotFound only
// if this write was not applied and never will be.
func (w *Writer) Update(ctx context.Context, base Entry, r stored.Record) (Entry, error) {
	return w.write(ctx, base.Name, base, r, keepFormer)
}

// maxNonces is the maximum number of write nonces that a record holds. If the response to a
// write is lost, a read recognizes the write by its nonce, unless maxNonces further writes
// have followed.
const maxNonces = 8

// write stores r under name. It replaces base, or creates a new entry if base is the zero
// Entry.
func (w *Writer) write(ctx context.Context, name Name, base Entry, r stored.Record, how disposal) (Entry, error) {
	if base.Name == "" || how == leaveReplaced {
		r.NoAccess = w.NoAccess
	}
	mine := w.NewNonce()
	r.Nonces = append([]string{mine}, r.Nonces...)
	r.Nonces = r.Nonces[:min(len(r.Nonces), maxNonces)]
	now := w.Now().UnixMilli()
	if w.Properties.DailyWrites > 0 {
		r.Writes = counted(r, now)
	}
	r.Updated = now
	r.Born = cmp.Or(r.Born, mine)
	r.Labels = w.relabeled(name, base, w.labels(r, base.Record))
	r.Former = w.former(base, r, how)
	data, err := w.encode(name, r)
	if err != nil {
		return Entry{}, err
	}
	if len(data) > w.Properties.MaxSize {
		return Entry{}, tooLarge(len(data), w.Properties.MaxSize)
	}
	stored := driver.Payload{Data: data, Labels: driverLabels(r.Labels), Former: driverLabels(r.Former)}
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

// A disposal determines what a write does with the labels that the write replaces, and with
// the labels in Former.
type disposal int

const (
	keepFormer    disposal = iota // removes replaced labels; if there are any, also removes Former
	leaveReplaced                 // leaves replaced labels to a later write if possible, so that the save of a token is fast
	removeFormer                  // removes replaced labels and Former
)

// maxFormer bounds the number of labels that a record leaves to later writes, because
// services limit the labels of a secret.
const maxFormer = 16

// former returns the labels that a write of r over base leaves to a later write. No write
// adds these labels again, so a later write can remove the labels while other processes
// write.
func (l *Ledger) former(base Entry, r stored.Record, how disposal) []stored.Label {
	batch := l.Properties.LabelBatch
	if batch == 0 || base.Name == "" || how == removeFormer || r.Moved != nil || r.Alias != nil {
		return nil
	}
	replaced := slices.DeleteFunc(slices.Clone(base.Labels), func(label stored.Label) bool { return slices.Contains(r.Labels, label) })
	left := slices.Concat(base.Former, replaced)
	switch {
	case len(replaced) == 0:
		return base.Former
	case how != leaveReplaced, len(replaced) == len(base.Labels), len(left) > maxFormer:
		return nil // if all labels are replaced, the old labels are under another key, and must be removed
	case len(base.Former) >= batch:
		return replaced
	}
	return left
}

func newEntry(name Name, secret driver.Secret, r stored.Record) Entry {
	e := Entry{Record: r, Name: name, Token: r.Fields, secret: secret}
	e.Token.ID = cmp.Or(r.ID, string(name))
	return e
}

func (l *Ledger) encode(name Name, r stored.Record) ([]byte, error) {
	text, err := stored.Encode(r)
	if err != nil {
		return nil, err
	}
	return l.Codec.Seal(string(name), r.Born, text)
}

func tooLarge(size, limit int) error {
	return fmt.Errorf("%w: it would have %d bytes, the limit is %d", rules.ErrTooLarge, size, limit)
}

// relabeled returns labels after setting the nonces of the labels that base lacks. The driver
// chooses these nonces. relabeled modifies the elements of labels.
func (l *Ledger) relabeled(name Name, base Entry, labels []stored.Label) []stored.Label {
	if l.Labeler == nil {
		return labels
	}
	added := slices.DeleteFunc(slices.Clone(labels), func(l stored.Label) bool { return slices.Contains(base.Labels, l) })
	kept := slices.DeleteFunc(labels, func(l stored.Label) bool { return slices.Contains(added, l) })
	for _, l := range l.Labeler.Relabel(string(name), base.secret.Version, driverLabels(added)) {
		kept = append(kept, stored.Label(l))
	}
	slices.SortFunc(kept, compareLabels)
	return kept
}

// outcome reads the entry to find out whether a write was applied even though the driver
// returned err. The parameter mine is the nonce of the write. If the write was applied, outcome
// returns the entry. If the write can never be applied, the error matches driver.ErrExists,
// driver.ErrConflict or driver.ErrNotFound. Otherwise, the error is err.
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

var errBusy = fmt.Errorf("%w: the service accepts few more writes of the record today, and refreshes need them", driver.ErrUnavailable)

// Rewrite stores e again, with labels under the first index key and data in the form that the codec
// writes. The parameter absent holds labels that e was committed with but the service lacks.
// Rewrite adds these labels, too. If too few writes of the record remain today, the error matches
// driver.ErrUnavailable.
func (l *Ledger) Rewrite(ctx context.Context, e Entry, absent []driver.Label) (Entry, error) {
	if l.Room(e.Record, 0) < l.Properties.DailyWrites*2/5 { // leave the other writes to refreshes
		return Entry{}, errBusy
	}
	base := e
	base.Labels = slices.DeleteFunc(slices.Clone(e.Labels), func(label stored.Label) bool {
		return slices.Contains(absent, driver.Label(label))
	})
	return l.Writer().write(ctx, e.Name, base, e.Record, removeFormer)
}

const (
	maxEarlier = 2  // earlier tokens of each kind that a record keeps: the first and the last
	maxIDs     = 10 // former IDs that a record keeps; each has a label

	// room is the number of bytes that Fits reserves for the lists of merged entries.
	room = 4 << 10
)

// Fits returns an error that matches rules.ErrTooLarge if a record leaves too little room for
// the entries that a promotion moves to the record. The parameters into and f are the record and
// its token. Call Fits before the first swap of the promotion: a record without room for these
// entries could never be written again.
func (w *Writer) Fits(into Entry, f codec.Fields) error {
	r := into.Record
	r.Fields = f
	r.ID = into.ID
	r.Labels = w.labels(r, into.Record)
	data, err := w.encode(into.Name, r)
	if err == nil && len(data)+room > w.Properties.MaxSize {
		err = tooLarge(len(data)+room, w.Properties.MaxSize)
	}
	return err
}

// Commit stores f as the token of rec, and returns the token as stored. It merges the frozen
// entries of rec and the records in rest into rec. Commit then replaces each merged entry with a
// redirect, or deletes the entry. A failure of these last writes is not an error. The error is
// Retryable if another writer came first.
func (w *Writer) Commit(ctx context.Context, v *View, rec Entry, f codec.Fields, rest []Entry) (codec.Fields, error) {
	next := rec.Record
	next.Fields = f
	next.ID = rec.ChosenID()
	w.keepEarlier(&next, rec.Fields)
	next.Joining = slices.Clone(next.Joining)
	redundant := w.settle(ctx, v, rec, &next)
	for _, from := range rec.Frozen {
		w.keepIDs(&next, from)
		takeLease(&next, rec.Record, from.Record)
		next.Joining = slices.DeleteFunc(next.Joining, func(ref stored.Ref) bool { return ref == from.Ref() })
		next.Absorbed = append(next.Absorbed, from.Ref())
	}
	redirects, more := w.mergeRest(&next, rest)
	written, err := w.write(ctx, rec.Name, rec, next, leaveReplaced)
	if err != nil {
		return codec.Fields{}, Lost(err)
	}
	for _, e := range slices.Concat(rec.Frozen, redirects) {
		w.redirect(ctx, e, written)
	}
	for _, e := range slices.Concat(redundant, more) {
		w.removeRedundant(ctx, e, written)
	}
	return written.Token, nil
}

// CommitNew stores f as a new record under name. The error is Retryable if the name has a
// record, or if another writer came first.
func (w *Writer) CommitNew(ctx context.Context, v *View, name Name, f codec.Fields) (codec.Fields, error) {
	var next stored.Record
	base, err := v.Read(ctx, name)
	switch {
	case errors.Is(err, driver.ErrNotFound):
		base = Entry{}
	case err != nil:
		return codec.Fields{}, err
	case base.Target() != nil:
		// base has moved to a record that was deleted since. A frozen entry must not be
		// overwritten, so delete base first.
		if err := w.RemoveDead(ctx, base); err != nil {
			return codec.Fields{}, err
		}
		base = Entry{}
	case rules.HasCredential(base.Fields):
		return codec.Fields{}, Again(fmt.Errorf("%w: %q", driver.ErrConflict, name))
	default:
		next = base.Record // base was created only for another entry to move to, and that entry may still move
	}
	next.Fields = f
	written, err := w.write(ctx, name, base, next, leaveReplaced)
	return written.Token, Lost(err)
}

// mergeRest adds the IDs and earlier tokens of the records in rest to next. It returns the
// records that must become redirects. The other records are redundant, because searches will
// find next by all IDs of these records.
func (w *Writer) mergeRest(next *stored.Record, rest []Entry) (redirects, redundant []Entry) {
	for _, other := range rest {
		kept := w.keepIDs(next, other)
		if kept && w.Properties.ListLag == 0 {
			redundant = append(redundant, other)
			continue
		}
		// next has no room for the IDs of other, or searches may not yet find next by these
		// IDs.
		redirects = append(redirects, other)
		if kept {
			next.Redirects = append(next.Redirects, stored.Redirect{Ref: other.Ref(), Since: w.Now().UnixMilli()})
		}
	}
	return redirects, redundant
}

// removeRedundant deletes e if searches find another record, the parameter into, by the IDs of e.
// It logs a failure, except a conflict with another writer.
func (w *Writer) removeRedundant(ctx context.Context, e, into Entry) {
	found, err := w.Labelled(ctx, into, e)
	if err == nil && found {
		err = w.Driver.Delete(ctx, string(e.Name), e.secret)
	}
	if err != nil && !errors.Is(err, driver.ErrConflict) {
		w.Logger.WarnContext(ctx, "tokenstore: an entry that was merged into a record could not be removed", "name", string(e.Name), "into", string(into.Name))
	}
}

// settle updates the lists of merged entries in next, the new state of e. If a merged entry is
// still frozen, settle replaces the entry with a redirect. A redirect is redundant once searches
// find e by all IDs of the redirect. settle returns the redundant redirects, which can be
// deleted after the commit of next. If a redirect can become redundant, next lists the redirect
// until a read shows that the redirect does not exist.
func (w *Writer) settle(ctx context.Context, v *View, e Entry, next *stored.Record) (redundant []Entry) {
	next.Redirects = nil
	keep := func(redirect stored.Redirect) {
		from, gone := w.redundant(ctx, v, redirect)
		if gone {
			return
		}
		redundant = append(redundant, from...)
		next.Redirects = append(next.Redirects, redirect)
	}
	for _, redirect := range e.Redirects {
		keep(redirect)
	}
	next.Absorbed = nil
	for _, ref := range e.Absorbed {
		from, err := w.merged(ctx, v, ref)
		switch {
		case errors.Is(err, driver.ErrNotFound):
			continue
		case err == nil && from.Alias != nil:
			if w.replaces(*next, from) {
				keep(stored.Redirect{Ref: ref, Since: from.Updated})
			}
			continue
		case err == nil && from.Moved != nil:
			w.redirect(ctx, from, e)
		}
		next.Absorbed = append(next.Absorbed, ref)
	}
	return redundant
}

// redundant returns a slice with only the entry of redirect if the entry exists and searches do not
// need it. Otherwise, redundant returns nil. gone reports whether a read has shown that the
// redirect does not exist.
func (w *Writer) redundant(ctx context.Context, v *View, redirect stored.Redirect) (entry []Entry, gone bool) {
	if !w.Outlived(redirect.Since) {
		return nil, false
	}
	from, err := v.Read(ctx, Name(redirect.Name))
	switch {
	case errors.Is(err, driver.ErrNotFound), err == nil && (from.Born != redirect.Born || from.Alias == nil):
		return nil, true
	case err != nil:
		return nil, false
	}
	return []Entry{from}, false
}

// merged reads the merged entry that ref names. The error matches driver.ErrNotFound if the
// entry does not exist.
func (w *Writer) merged(ctx context.Context, v *View, ref stored.Ref) (Entry, error) {
	gone := func(e Entry, err error) bool {
		return errors.Is(err, driver.ErrNotFound) || err == nil && e.Born != ref.Born
	}
	from, err := v.Read(ctx, Name(ref.Name))
	if gone(from, err) && !v.Current() {
		// After a stale read, settle would drop the entry from Absorbed even though the entry is
		// still frozen. A repair would then merge the old tokens of the entry a second time.
		from, err = v.Reread(ctx, Name(ref.Name))
	}
	if gone(from, err) {
		return Entry{}, driver.ErrNotFound
	}
	return from, err
}

// takeLease gives next the lease and the last failure of a merged record if next took over the
// refresh and grant tokens of that record. The parameter from is the merged record. If next has no
// lease, next gets the lease of the merged record in any case, because a refresh may still run
// under that lease.
func takeLease(next *stored.Record, before, from stored.Record) {
	theirs := from.RefreshToken == next.RefreshToken && from.GrantToken == next.GrantToken &&
		(from.RefreshToken != before.RefreshToken || from.GrantToken != before.GrantToken)
	if theirs {
		next.Failure = from.Failure
	}
	if from.Lease != nil && (theirs || next.Lease == nil) {
		next.Lease = from.Lease
	}
}

// keepIDs adds to r the names of replaced tokens of e, which is merged into r. If r has room for
// all IDs by which a search finds e, keepIDs also adds these IDs and returns true. Otherwise,
// keepIDs adds no ID and returns false, and e must remain as a redirect.
func (l *Ledger) keepIDs(r *stored.Record, e Entry) bool {
	l.keepEarlier(r, e.Fields)
	ids := slices.Clone(r.IDs)
	for _, name := range l.idsOf(e) {
		if !l.hasID(*r, ids, name) {
			ids = append(ids, string(name))
		}
	}
	if len(ids) > maxIDs {
		return false
	}
	r.IDs = ids
	return true
}

// keepEarlier adds to r.Earlier the names of the grant and refresh tokens that r no longer has. The
// parameter before holds these tokens.
func (l *Ledger) keepEarlier(r *stored.Record, before codec.Fields) {
	n := l.Namer()
	if before.GrantToken != "" && before.GrantToken != r.GrantToken {
		r.Earlier = addEarlier(r.Earlier, n.Grant(rules.ClientOf(before), before.GrantToken))
	}
	if before.RefreshToken != "" && before.RefreshToken != r.RefreshToken {
		r.Earlier = addEarlier(r.Earlier, n.Refresh(rules.ClientOf(before), before.RefreshToken))
	}
}

// addEarlier adds the name of a replaced token to earlier. It keeps the first and the last
// name of each kind.
func addEarlier(earlier []string, name Name) []string {
	if slices.Contains(earlier, string(name)) {
		return earlier
	}
	var kind, others []string
	for _, e := range earlier {
		if Name(e).Kind() == name.Kind() {
			kind = append(kind, e)
		} else {
			others = append(others, e)
		}
	}
	if len(kind) == maxEarlier {
		kind = kind[:maxEarlier-1]
	}
	return append(append(others, kind...), string(name))
}

// idsOf returns the names that stand for the IDs by which searches find e.
func (l *Ledger) idsOf(e Entry) []Name {
	names := append([]Name{e.Name}, namesOf(e.IDs)...)
	if e.ID != "" {
		names = append(names, l.Namer().ID(e.ID))
	}
	for _, ref := range e.Absorbed {
		names = append(names, Name(ref.Name))
	}
	return names
}

// replaces reports whether every ID that finds e also finds r.
func (l *Ledger) replaces(r stored.Record, e Entry) bool {
	return !slices.ContainsFunc(l.idsOf(e), func(name Name) bool { return !l.hasID(r, r.IDs, name) })
}

// hasID reports whether name stands for the ID of r, or is one of ids.
func (l *Ledger) hasID(r stored.Record, ids []string, name Name) bool {
	return slices.Contains(ids, string(name)) || r.ID != "" && name == l.Namer().ID(r.ID)
}
