package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

const (
	// migrateWorkers is how many calls to a service are under way at once.
	migrateWorkers = 16

	// migrateChunk is how many records a batcher gets at once.
	migrateChunk = 1000
)

// each calls do for each item, several at a time, and notes the error with the
// item. It stops at an error that the next item would meet too, and returns it.
func each(ctx context.Context, items []*item, do func(context.Context, *item) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	slots := make(chan struct{}, migrateWorkers)
	var wait sync.WaitGroup
	for _, it := range items {
		slots <- struct{}{}
		if ctx.Err() != nil {
			break
		}
		wait.Go(func() {
			defer func() { <-slots }()
			if it.err = do(ctx, it); hopeless(it.err) {
				cancel(it.err)
			}
		})
	}
	wait.Wait()
	return context.Cause(ctx)
}

// write saves the records that the target does not have as it should.
func (m *migration) write(ctx context.Context) (int, error) {
	items := slices.DeleteFunc(slices.Clone(m.plan.items), func(it *item) bool {
		return it.action == actionNone || it.action == actionKeep
	})
	bar := m.progress("writing", len(items))
	defer bar.done()
	if b, ok := m.to.(batcher); ok {
		return m.writeChunks(ctx, b, items, bar)
	}
	err := m.writeEach(ctx, items, bar)
	return m.report.written(m.plan), err
}

// writeEach saves records one by one, several at a time.
func (m *migration) writeEach(ctx context.Context, items []*item, bar *bar) error {
	for len(items) > 0 {
		// The next ones are not begun before all of these are there: see order.
		now := order(items[0].token)
		end := slices.IndexFunc(items, func(it *item) bool { return order(it.token) != now })
		if end < 0 {
			end = len(items)
		}
		err := each(ctx, items[:end], func(ctx context.Context, it *item) error {
			defer bar.step()
			return m.writeOne(ctx, it)
		})
		if err != nil {
			return err
		}
		items = items[end:]
	}
	return nil
}

// writeOne saves one record, unless the target has it by now: a list may lack what
// is young, and others may write.
func (m *migration) writeOne(ctx context.Context, it *item) error {
	if like := minimal(it.token); it.action == actionCreate && tokenstore.KeyOf(like) != tokenstore.KeyNone {
		has, err := m.to.FindToken(ctx, like)
		if err == nil {
			err = m.o.decide(it, newIndex(has))
		}
		if err != nil && !errors.Is(err, tokenstore.ErrNotFound) {
			return err
		}
	}
	if it.action == actionNone || it.action == actionKeep {
		return nil
	}
	saved, err := m.to.SaveToken(ctx, it.token)
	if err != nil {
		return err
	}
	it.want.ID, it.written = saved.ID, true
	return nil
}

// writeChunks saves records many at a time. A chunk that cannot be saved says of
// none of its records why: one by one they do.
func (m *migration) writeChunks(ctx context.Context, b batcher, items []*item, bar *bar) (int, error) {
	for chunk := range slices.Chunk(items, migrateChunk) {
		tokens := make([]tokenstore.Token, len(chunk))
		for i, it := range chunk {
			tokens[i] = it.token
		}
		saved, err := b.SaveAll(ctx, tokens)
		if err != nil {
			if err := m.writeEach(ctx, chunk, bar); err != nil {
				return m.report.written(m.plan), err
			}
			continue
		}
		for i, it := range chunk {
			it.want.ID, it.written = saved[i].ID, true
		}
		bar.add(len(chunk))
	}
	return m.report.written(m.plan), nil
}

// minimal returns what t's record is found by, apart from its ID: no more than the
// store compares, because what it is asked for it lays over what it has.
func minimal(t tokenstore.Token) tokenstore.Token {
	like := identity(withoutID(t))
	if like.GrantToken != "" {
		like.RefreshToken = ""
	}
	return like
}

// digest returns a digest of a record, its ID included.
func digest(t tokenstore.Token) [sha256.Size]byte {
	h := sha256.New()
	for _, text := range t.Fields().All() {
		_, _ = fmt.Fprintf(h, "%d:%s", len(text), text)
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// What can be wrong with a record that is read back.
var (
	errDifferent   = errors.New("it reads back differently")
	errSharedThere = errors.New("several records of the target have its ID: a search by it fails")
)

// verify reads every record back that is in the target by now.
func (m *migration) verify(ctx context.Context) (int, error) {
	items := slices.DeleteFunc(slices.Clone(m.plan.items), func(it *item) bool { return it.err != nil })
	bar := m.progress("verifying", len(items))
	defer bar.done()
	if _, ok := m.to.(batcher); ok {
		return m.verifyAll(ctx, items)
	}
	var deadline time.Time
	if lag := m.to.lag(); lag > 0 {
		deadline = m.now().Add(lag)
	}
	err := each(ctx, items, func(ctx context.Context, it *item) error {
		defer bar.step()
		return m.verifyOne(ctx, it, deadline)
	})
	return verified(items), err
}

// verifyAll reads all records at once.
func (m *migration) verifyAll(ctx context.Context, items []*item) (int, error) {
	tokens, _, err := readable(m.to.GetTokens(ctx))
	if err != nil {
		return 0, err
	}
	byID, shared := map[string]tokenstore.Token{}, sharedIDs(tokens)
	for _, t := range tokens {
		byID[t.ID] = t
	}
	for _, it := range items {
		got, ok := byID[it.want.ID]
		switch {
		case shared[it.want.ID]:
			it.err = errSharedThere
		case !ok || digest(got) != digest(it.want):
			it.err = errDifferent
		default:
			it.done = true
		}
	}
	return verified(items), nil
}

// verifyOne reads one record, until the deadline again if it is not there or not
// as it should be.
func (m *migration) verifyOne(ctx context.Context, it *item, deadline time.Time) error {
	const first, last = 50 * time.Millisecond, 5 * time.Second
	for pause := first; ; pause = min(2*pause, last) {
		got, err := m.readBack(ctx, it.want)
		switch {
		case err == nil && digest(got) == digest(it.want):
			it.done = true
			return nil
		case err == nil:
			err = errDifferent
		case !errors.Is(err, tokenstore.ErrNotFound):
			return err
		}
		if m.now().After(deadline) {
			return err
		}
		if sleepErr := sleep(ctx, pause); sleepErr != nil {
			return sleepErr
		}
	}
}

// readBack reads a record. By what it is found by apart from its ID, the answer is
// newer than by an ID of the caller's own.
func (m *migration) readBack(ctx context.Context, want tokenstore.Token) (tokenstore.Token, error) {
	if like := minimal(want); tokenstore.KeyOf(like) != tokenstore.KeyNone {
		got, err := m.to.FindToken(ctx, like)
		if err == nil && got.ID == want.ID || hopeless(err) {
			return got, err
		}
	}
	return m.to.FindTokenByID(ctx, want.ID)
}

func verified(items []*item) int {
	n := 0
	for _, it := range items {
		if it.done {
			n++
		}
	}
	return n
}

// sleep waits for d, or until ctx is done.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// deleteSource removes from the source what was verified and has not changed
// since.
func (m *migration) deleteSource(ctx context.Context) (int, error) {
	items := slices.DeleteFunc(slices.Clone(m.plan.items), func(it *item) bool {
		if it.done && slices.ContainsFunc(it.from, func(t tokenstore.Token) bool { return m.plan.shared[t.ID] }) {
			it.err = errSharedHere
		}
		return !it.done || it.err != nil
	})
	n := 0
	for _, it := range items {
		n += len(it.from)
	}
	m.announce("removing %d of %s of %s, which are verified in %s", n, records(m.report.Records), clean(m.o.from), clean(m.o.to))
	bar := m.progress("removing from the source", len(items))
	defer bar.done()
	if b, ok := m.from.(batcher); ok {
		return m.deleteAll(ctx, b, items)
	}
	err := each(ctx, items, func(ctx context.Context, it *item) error {
		defer bar.step()
		return m.deleteOne(ctx, it)
	})
	return m.report.deleted(m.plan), err
}

// Why a record stays in the source that is in the target.
var (
	// errChanged means that it was written while it was being moved.
	errChanged = errors.New("it has changed in the source, where it stays: migrate again")

	// errSharedHere means that what is removed by its ID might be another one.
	errSharedHere = errors.New("several records of the source have its ID: it stays there, to be removed by hand")
)

// deleteOne removes what an item is made of.
func (m *migration) deleteOne(ctx context.Context, it *item) error {
	for _, t := range it.from {
		err := m.from.DeleteIfUnchanged(ctx, t)
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

// deleteAll removes what the items are made of, at once.
func (m *migration) deleteAll(ctx context.Context, b batcher, items []*item) (int, error) {
	var tokens []tokenstore.Token
	for _, it := range items {
		tokens = append(tokens, it.from...)
	}
	if _, err := b.DeleteAll(ctx, tokens); err != nil {
		return m.report.deleted(m.plan), err
	}
	left, _, err := readable(m.from.GetTokens(ctx))
	if err != nil {
		return m.report.deleted(m.plan), err
	}
	there := map[string]bool{}
	for _, t := range left {
		there[t.ID] = true
	}
	for _, it := range items {
		it.gone = !slices.ContainsFunc(it.from, func(t tokenstore.Token) bool { return there[t.ID] })
		if !it.gone {
			it.err = errChanged
		}
	}
	return m.report.deleted(m.plan), nil
}
