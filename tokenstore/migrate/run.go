package migrate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/bulk"
	"github.com/tokenkeep/tokenkeep/internal/pace"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rules"
)

// chunk is the maximum number of records per call of SaveAll.
const chunk = 1000

func newPacer() *pace.Pacer { return pace.New(bulk.Throttled, 0) }

// each concurrently calls the function do for the items, as fast as the service accepts the
// calls, and stores the error of each call in the item. If an error would also affect further
// items, no more calls are made, and that error is returned. The function done is called with 1
// after each completed item.
func each(ctx context.Context, p *pace.Pacer, items []*item, done func(int), do func(context.Context, *item) error) error {
	return p.Each(ctx, len(items), func(ctx context.Context, i int) error {
		it := items[i]
		it.err = do(ctx, it)
		switch {
		case bulk.Throttled(it.err):
			return it.err // so that p repeats the call
		case bulk.Lasting(it.err):
			return it.err
		}
		done(1)
		return nil
	})
}

// write saves the items whose action is a save. With Merge, write saves all items.
func (m *migration) write(ctx context.Context) (int, error) {
	b, many := m.to.(saver)
	items := m.items
	if m.o.OnConflict == Merge {
		many = many && m.foresee(ctx) == nil // separate saves show why a record cannot be saved
	} else {
		items = slices.DeleteFunc(slices.Clone(items), func(it *item) bool { return !it.pending() })
	}
	err := ctx.Err()
	if err == nil {
		add := m.track(StepWrite, len(items))
		if many {
			err = m.writeChunks(ctx, b, items, add)
		} else {
			err = m.writeEach(ctx, items, add)
		}
	}
	m.count()
	return m.report.Written, err
}

// pending reports whether the action of an item is a save.
func (it *item) pending() bool { return it.action != none && it.action != keep }

// foresee sets the action that each item has if the items are saved in order. Earlier saves may
// change the record that a later item describes. foresee returns an error if a save would fail.
func (m *migration) foresee(ctx context.Context) error {
	tokens, _, err := bulk.Readable(m.to.GetTokens(ctx))
	if err != nil {
		return err
	}
	there := indexOf(tokens...)
	for _, it := range m.items {
		plan, err := there.Plan(it.token.Fields())
		switch {
		case err != nil:
			return err
		case plan.Record < 0:
			add(there, it.token)
			continue
		case plan.Action == rules.Nothing:
			it.action = none
			continue
		}
		it.action = update
		there.Put(plan.Record, rules.Candidate{Fields: plan.Fields, Updated: there.Records[plan.Record].Updated})
		for _, i := range plan.Absorb {
			there.Put(i, rules.Candidate{})
		}
	}
	return nil
}

// writeEach saves the items with separate calls, concurrently if the order does not matter.
func (m *migration) writeEach(ctx context.Context, items []*item, add func(int)) error {
	p := newPacer()
	for len(items) > 0 {
		end := m.together(items)
		if err := each(ctx, p, items[:end], add, m.writeOne); err != nil {
			return err
		}
		items = items[end:]
	}
	return nil
}

// together returns how many of the items, counted from the first, can be saved concurrently.
// The save of one of these items does not change which record another item finds.
func (m *migration) together(items []*item) int {
	if m.o.OnConflict != Merge {
		// Items of the next precedence must wait until these items are saved.
		now := precedence(items[0].token)
		end := slices.IndexFunc(items, func(it *item) bool { return precedence(it.token) != now })
		if end < 0 {
			end = len(items)
		}
		return end
	}
	users := map[string]bool{}
	for i, it := range items {
		user := it.token.UserName
		if user == "" || users[user] {
			return max(i, 1)
		}
		users[user] = true
	}
	return len(items)
}

// writeOne saves one item, unless the target already has the record of the item. It first
// searches for the record, because the plan may lack recent records of the target: searches may
// lag, and other programs may write.
func (m *migration) writeOne(ctx context.Context, it *item) error {
	if created, err := m.create(ctx, it); created || err != nil {
		return err
	}
	if m.o.OnConflict == Merge {
		return m.mergeOne(ctx, it)
	}
	if like, ok := lookup(it.token); it.action == create && ok {
		has, err := m.to.FindToken(ctx, like)
		if err == nil {
			err = m.decide(it, indexOf(has))
		}
		if err != nil && !errors.Is(err, tokenstore.ErrNotFound) {
			return err
		}
	}
	if !it.pending() {
		return nil
	}
	saved, err := m.to.SaveToken(ctx, it.token)
	if err == nil {
		m.saved(it, saved)
	}
	return err
}

// create creates the record of an item if the target is a creator and, according to the plan,
// lacks the record. It reports whether the call created the record.
func (m *migration) create(ctx context.Context, it *item) (bool, error) {
	c, ok := m.to.(creator)
	if !ok || it.action != create {
		return false, nil
	}
	saved, created, err := c.Create(ctx, it.token)
	switch {
	case created:
		m.saved(it, saved)
	case err != nil && !bulk.Lasting(err):
		err = nil // the following search and save report the reason
	}
	return created, err
}

// mergeOne saves one item, and sets the action of the item to the effect of the save.
func (m *migration) mergeOne(ctx context.Context, it *item) error {
	like, ok := lookup(it.token)
	if it.token.ID != "" {
		like, ok = tokenstore.Token{ID: it.token.ID}, true
	}
	var has tokenstore.Token
	err := tokenstore.ErrNotFound
	if ok {
		has, err = m.to.FindToken(ctx, like)
	}
	if bulk.Lasting(err) {
		return err
	}
	saved, saveErr := m.to.SaveToken(ctx, it.token)
	if saveErr != nil {
		return saveErr
	}
	switch {
	case err != nil:
		it.action = create
	case same(has, saved):
		it.action = none
	default:
		it.action = update
	}
	m.saved(it, saved)
	return nil
}

// saved updates an item after a save that returned the stored record, the parameter as. With
// Merge, the saved item is done, because Run does not read the record back.
func (m *migration) saved(it *item, as tokenstore.Token) {
	it.want.ID, it.written, it.done = as.ID, it.pending(), m.o.OnConflict == Merge
}

// writeChunks saves many records per call. If a chunk cannot be saved, writeChunks saves each
// record of the chunk separately, to find out which records fail.
func (m *migration) writeChunks(ctx context.Context, b saver, items []*item, add func(int)) error {
	for chunk := range slices.Chunk(items, chunk) {
		saved, err := b.SaveAll(ctx, tokens(chunk))
		if err != nil {
			if err := m.writeEach(ctx, chunk, add); err != nil {
				return err
			}
			continue
		}
		for i, it := range chunk {
			m.saved(it, saved[i])
		}
		add(len(chunk))
	}
	return nil
}

// lookup returns the fields of t, other than the ID, by which FindToken finds the record of t.
// It returns false if no such fields are set. The returned token has only fields that the store
// compares, because FindToken copies all given fields to the result.
func lookup(t tokenstore.Token) (like tokenstore.Token, ok bool) {
	switch rules.KeyOf(withoutID(t).Fields()) {
	case rules.KeyUser:
		return tokenstore.FromFields(rules.Identity(t.Fields())), true
	case rules.KeyAccess:
		return tokenstore.Token{AccessToken: t.AccessToken}, true
	case rules.KeyGrant:
		like = tokenstore.Token{ClientID: t.ClientID, Issuer: t.Issuer, Resource: t.Resource, GrantToken: t.GrantToken}
		if like.GrantToken == "" {
			like.RefreshToken = t.RefreshToken
		}
		return like, true
	default:
	}
	return like, false
}

// Reasons why a record that was read back does not count as verified.
var (
	errDifferent   = errors.New("it reads back differently")
	errSharedThere = errors.New("several records of the target have its ID: a search by it fails")
)

// verify reads back every record that the target should have. If the target has no SaveAll,
// verify omits records that Run did not save, because the plan has read them. With DeleteSource,
// verify omits no record.
func (m *migration) verify(ctx context.Context) (int, error) {
	var items []*item
	read := 0
	for _, it := range m.items {
		switch {
		case it.err != nil:
		case !it.pending() && !m.o.DeleteSource && !m.saves():
			it.done = true
			read++
		default:
			items = append(items, it)
		}
	}
	add := m.track(StepVerify, read+len(items))
	add(read)
	err := m.readBack(ctx, items, add)
	m.count()
	return m.report.Verified, err
}

// saves reports whether the target saves many records per call.
func (m *migration) saves() bool {
	_, ok := m.to.(saver)
	return ok
}

// readBack verifies the items, with as few calls as the methods of the target allow.
func (m *migration) readBack(ctx context.Context, items []*item, add func(int)) error {
	if m.saves() {
		return m.verifyAll(ctx, items)
	}
	deadline := time.Now().Add(m.o.Lag)
	if f, ok := m.to.(finder); ok {
		var err error
		if items, err = m.verifyFound(ctx, f, items, add); err != nil {
			return err
		}
	}
	return each(ctx, newPacer(), items, add, func(ctx context.Context, it *item) error { return m.verifyOne(ctx, it, deadline) })
}

// verifyFound reads many records per call. It returns the items whose records it did not find
// or found in another state. Searches may lag, so these items need another read.
func (m *migration) verifyFound(ctx context.Context, f finder, items []*item, add func(int)) (left []*item, err error) {
	like := make([]tokenstore.Token, len(items))
	for i, it := range items {
		like[i] = byName(it.want)
	}
	tokens, _, err := bulk.Readable(f.FindTokens(ctx, like))
	if err != nil {
		return nil, err
	}
	byID := map[string]tokenstore.Token{}
	for _, t := range tokens {
		byID[t.ID] = t
	}
	for _, it := range items {
		if got, ok := byID[it.want.ID]; !ok || !same(got, it.want) {
			left = append(left, it)
			continue
		}
		it.done = true
	}
	add(len(items) - len(left))
	return left, nil
}

// verifyAll compares the items with the result of one call of the target's GetTokens.
func (m *migration) verifyAll(ctx context.Context, items []*item) error {
	tokens, _, err := bulk.Readable(m.to.GetTokens(ctx))
	if err != nil {
		return err
	}
	byID, shared := map[string]tokenstore.Token{}, shared(tokens)
	for _, t := range tokens {
		byID[t.ID] = t
	}
	for _, it := range items {
		got, ok := byID[it.want.ID]
		switch {
		case shared[it.want.ID]:
			it.err = errSharedThere
		case !ok || !same(got, it.want):
			it.err = errDifferent
		default:
			it.done = true
		}
	}
	return nil
}

// verifyOne reads one record. Until the deadline, it reads the record again if the record
// is missing or differs from it.want.
func (m *migration) verifyOne(ctx context.Context, it *item, deadline time.Time) error {
	const first, last = 50 * time.Millisecond, 5 * time.Second
	for pause := first; ; pause = min(2*pause, last) {
		got, err := m.readOne(ctx, it.want)
		switch {
		case err == nil && same(got, it.want):
			it.done = true
			return nil
		case err == nil:
			err = errDifferent
		case !errors.Is(err, tokenstore.ErrNotFound):
			return err
		}
		if time.Now().After(deadline) {
			return err
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}

// byName returns the fields that find the record t with one read: all fields except the ID if
// t has a user and a client, and otherwise only the ID.
func byName(t tokenstore.Token) tokenstore.Token {
	if t.UserName == "" || t.ClientID == "" {
		return tokenstore.Token{ID: t.ID}
	}
	return withoutID(t)
}

// readOne reads the record that want describes. It first searches by user or tokens, because a
// search by an ID that the caller chose may lag more.
func (m *migration) readOne(ctx context.Context, want tokenstore.Token) (tokenstore.Token, error) {
	if like, ok := lookup(want); ok {
		got, err := m.to.FindToken(ctx, like)
		if err == nil && got.ID == want.ID || bulk.Lasting(err) {
			return got, err
		}
	}
	return m.to.FindTokenByID(ctx, want.ID)
}

// Reasons why a verified record is kept in the source.
var (
	errChanged    = errors.New("it has changed in the source, where it stays: migrate again")
	errSharedHere = errors.New("several records of the source have its ID: it stays there, to be removed by hand")
)

// deleteSource removes from the source the records that were verified and have not changed
// since the plan.
func (m *migration) deleteSource(ctx context.Context) (int, error) {
	n := 0
	items := slices.DeleteFunc(slices.Clone(m.items), func(it *item) bool {
		if it.done && slices.ContainsFunc(it.from, func(r record) bool { return m.sharedIDs[r.ID] }) {
			it.err = errSharedHere // a deletion by the ID might remove another record
		}
		if !it.done || it.err != nil {
			return true
		}
		n += len(it.from)
		return false
	})
	add := m.track(StepDelete, n)
	var err error
	if b, ok := m.from.(deleter); ok {
		err = m.deleteAll(ctx, b, items)
	} else {
		from := m.from.(ConditionalDeleter) // tellApart checked the type
		err = each(ctx, newPacer(), items, func(int) {}, func(ctx context.Context, it *item) error {
			err := deleteOne(ctx, from, it)
			if !bulk.Lasting(err) {
				add(len(it.from))
			}
			return err
		})
	}
	m.count()
	return m.report.Deleted, err
}

// deleteOne removes the records of an item from the source. It stops at the first record that
// has changed or cannot be removed.
func deleteOne(ctx context.Context, from ConditionalDeleter, it *item) error {
	for _, r := range it.from {
		err := from.DeleteIfUnchanged(ctx, r.Token)
		if errors.Is(err, tokenstore.ErrConflict) {
			return fmt.Errorf("%w: %w", errChanged, err)
		}
		if err != nil {
			return err
		}
	}
	it.gone = true
	return nil
}

// deleteAll removes the records of all items from the source with one call. It then lists the
// source. If a record of an item remains, the item gets the error errChanged.
func (m *migration) deleteAll(ctx context.Context, b deleter, items []*item) error {
	var all []tokenstore.Token
	for _, it := range items {
		for _, r := range it.from {
			all = append(all, r.Token)
		}
	}
	if _, err := b.DeleteAll(ctx, all); err != nil {
		return err
	}
	left, _, err := bulk.Readable(m.from.GetTokens(ctx))
	if err != nil {
		return err
	}
	there := map[string]bool{}
	for _, t := range left {
		there[t.ID] = true
	}
	for _, it := range items {
		it.gone = !slices.ContainsFunc(it.from, func(r record) bool { return there[r.ID] })
		if !it.gone {
			it.err = errChanged
		}
	}
	return nil
}
