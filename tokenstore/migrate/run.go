package migrate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/bulk"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rules"
)

const (
	// workers is how many calls to a service are under way at once.
	workers = 16

	// chunk is how many records a saver gets at once.
	chunk = 1000
)

// each calls do for each item, several at a time, and notes the error with the item. It
// stops at an error that the next item would meet too, and returns it.
func (m *migration) each(ctx context.Context, items []*item, do func(context.Context, *item) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	atOnce := workers
	if m.o.OnConflict == Merge {
		atOnce = 1
	}
	slots := make(chan struct{}, atOnce)
	var wait sync.WaitGroup
	for _, it := range items {
		slots <- struct{}{}
		if ctx.Err() != nil {
			break
		}
		wait.Go(func() {
			defer func() { <-slots }()
			if it.err = do(ctx, it); bulk.Lasting(it.err) {
				cancel(it.err)
			}
		})
	}
	wait.Wait()
	return context.Cause(ctx)
}

// write saves the records that the target does not have as it should, and with Merge
// all of them.
func (m *migration) write(ctx context.Context) (int, error) {
	b, many := m.to.(saver)
	items := m.items
	if m.o.OnConflict == Merge {
		many = many && m.foresee(ctx) == nil // one by one they say why they cannot be saved
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

// pending reports whether an item is to be saved.
func (it *item) pending() bool { return it.action != none && it.action != keep }

// foresee sets what saving the items does, one after the other. A record may be another
// one by the time that a later item is saved.
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

// writeEach saves records one by one, several at a time.
func (m *migration) writeEach(ctx context.Context, items []*item, add func(int)) error {
	for len(items) > 0 {
		// Items of the next precedence wait until these are in the target.
		now := precedence(items[0].token)
		end := slices.IndexFunc(items, func(it *item) bool { return precedence(it.token) != now })
		if end < 0 {
			end = len(items)
		}
		err := m.each(ctx, items[:end], func(ctx context.Context, it *item) error {
			defer add(1)
			if m.o.OnConflict == Merge {
				return m.mergeOne(ctx, it)
			}
			return m.writeOne(ctx, it)
		})
		if err != nil {
			return err
		}
		items = items[end:]
	}
	return nil
}

// writeOne saves one record, unless the target has it by now. The list of the target
// may lack recent records, and other programs may write.
func (m *migration) writeOne(ctx context.Context, it *item) error {
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

// mergeOne saves one record, and sets what that did.
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

// saved notes that an item was saved, and its ID. With Merge the result of the store is
// not verified.
func (m *migration) saved(it *item, as tokenstore.Token) {
	it.want.ID, it.written, it.done = as.ID, it.pending(), m.o.OnConflict == Merge
}

// writeChunks saves many records at a time. If a chunk cannot be saved, it saves the
// records of the chunk one by one, to get the error of each.
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

// lookup returns the fields by which t is looked up, apart from its ID, and reports
// whether there are any. It returns only fields that the store compares, because
// FindToken lays the given fields over the result.
func lookup(t tokenstore.Token) (like tokenstore.Token, ok bool) {
	switch rules.KeyOf(withoutID(t).Fields()) {
	case rules.KeyUser:
		return tokenstore.Token{UserName: t.UserName, ClientID: t.ClientID}, true
	case rules.KeyAccess:
		return tokenstore.Token{AccessToken: t.AccessToken}, true
	case rules.KeyGrant:
		like = tokenstore.Token{ClientID: t.ClientID, GrantToken: t.GrantToken}
		if like.GrantToken == "" {
			like.RefreshToken = t.RefreshToken
		}
		return like, true
	default:
	}
	return like, false
}

// Reasons why a record that was read back does not count as moved.
var (
	errDifferent   = errors.New("it reads back differently")
	errSharedThere = errors.New("several records of the target have its ID: a search by it fails")
)

// verify reads back every record that should be in the target by now.
func (m *migration) verify(ctx context.Context) (int, error) {
	items := slices.DeleteFunc(slices.Clone(m.items), func(it *item) bool { return it.err != nil })
	add := m.track(StepVerify, len(items))
	var err error
	if _, ok := m.to.(saver); ok {
		err = m.verifyAll(ctx, items)
	} else {
		deadline := time.Now().Add(m.o.Lag)
		err = m.each(ctx, items, func(ctx context.Context, it *item) error {
			defer add(1)
			return m.verifyOne(ctx, it, deadline)
		})
	}
	m.count()
	return m.report.Verified, err
}

// verifyAll reads all records at once.
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

// verifyOne reads one record. Until the deadline it reads again if the record is
// missing or not as it should be.
func (m *migration) verifyOne(ctx context.Context, it *item, deadline time.Time) error {
	const first, last = 50 * time.Millisecond, 5 * time.Second
	for pause := first; ; pause = min(2*pause, last) {
		got, err := m.readBack(ctx, it.want)
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

// readBack reads a record. A look-up by user or tokens is more current than one by an
// ID that the caller chose.
func (m *migration) readBack(ctx context.Context, want tokenstore.Token) (tokenstore.Token, error) {
	if like, ok := lookup(want); ok {
		got, err := m.to.FindToken(ctx, like)
		if err == nil && got.ID == want.ID || bulk.Lasting(err) {
			return got, err
		}
	}
	return m.to.FindTokenByID(ctx, want.ID)
}

// Reasons why a record that is in the target stays in the source.
var (
	errChanged    = errors.New("it has changed in the source, where it stays: migrate again")
	errSharedHere = errors.New("several records of the source have its ID: it stays there, to be removed by hand")
)

// deleteSource removes the records that were verified and have not changed since.
func (m *migration) deleteSource(ctx context.Context) (int, error) {
	n := 0
	items := slices.DeleteFunc(slices.Clone(m.items), func(it *item) bool {
		if it.done && slices.ContainsFunc(it.from, func(r record) bool { return m.sharedIDs[r.ID] }) {
			it.err = errSharedHere // a removal by the ID might remove another record
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
		from := m.from.(ConditionalDeleter) // tellApart has checked it
		err = m.each(ctx, items, func(ctx context.Context, it *item) error {
			defer add(len(it.from))
			return deleteOne(ctx, from, it)
		})
	}
	m.count()
	return m.report.Deleted, err
}

// deleteOne removes the records of the source that an item is made of.
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

// deleteAll removes the records that the items are made of, at once.
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
