package rowstore

import (
	"context"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/observed"
	"github.com/tokenkeep/tokenkeep/tokenstore/observe"
)

// watched returns a Table that reports the reads, updates and locks of table to o. It returns
// table itself if o does not observe calls.
func watched(store string, table Table, o *observe.Observer) Table {
	if !observed.Calls(o) {
		return table
	}
	return watchedTable{table, source{table, store, o}}
}

// A source is a Source that reports its calls to an Observer.
type source struct {
	of    Source
	store string
	o     *observe.Observer
}

// Read implements Source.
func (s source) Read(ctx context.Context, about *codec.Fields) (_ *Rows, err error) {
	ctx, done := observed.Begin(ctx, s.o, s.store, observe.OpRead)
	defer func() { done(err) }()
	return s.of.Read(ctx, about)
}

// Update implements Source.
func (s source) Update(ctx context.Context, about *codec.Fields, change Change) (err error) {
	ctx, done := observed.Begin(ctx, s.o, s.store, observe.OpUpdate)
	defer func() { done(err) }()
	return s.of.Update(ctx, about, change)
}

// A watchedTable is a Table that reports calls of Read, Update and Lock to an Observer.
type watchedTable struct {
	Table

	source source
}

// Read implements Source.
func (t watchedTable) Read(ctx context.Context, about *codec.Fields) (*Rows, error) {
	return t.source.Read(ctx, about)
}

// Update implements Source.
func (t watchedTable) Update(ctx context.Context, about *codec.Fields, change Change) error {
	return t.source.Update(ctx, about, change)
}

// Lock implements Table.
func (t watchedTable) Lock(ctx context.Context, id string) (_ Lock, err error) {
	ctx, done := observed.Begin(ctx, t.source.o, t.source.store, observe.OpLock)
	defer func() { done(err) }()
	l, err := t.Table.Lock(ctx, id)
	if l == nil || err != nil {
		return nil, err
	}
	return watchedLock{l, source{l, t.source.store, t.source.o}}, nil
}

// A watchedLock is a Lock that reports calls of Read, Update and SetNote to an Observer.
type watchedLock struct {
	Lock

	source source
}

// Read implements Source.
func (l watchedLock) Read(ctx context.Context, about *codec.Fields) (*Rows, error) {
	return l.source.Read(ctx, about)
}

// Update implements Source.
func (l watchedLock) Update(ctx context.Context, about *codec.Fields, change Change) error {
	return l.source.Update(ctx, about, change)
}

// SetNote implements Lock.
func (l watchedLock) SetNote(ctx context.Context, text string) (err error) {
	ctx, done := observed.Begin(ctx, l.source.o, l.source.store, observe.OpNote)
	defer func() { done(err) }()
	return l.Lock.SetNote(ctx, text)
}
