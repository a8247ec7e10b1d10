package keys

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
)

// To change keys while programs run, each step is given to every program before
// the next one is taken:
//
//  1. Add: programs know the new keys, and write by the old ones.
//  2. Switch: programs write by the new keys.
//  3. "tokenkeep rekey", or tokenstore.Store.Rekey.
//  4. Drop: programs know the new keys alone.

// Unused returns what a store without keys begins with: nothing to write by. Only Add
// makes keys of it.
func Unused() *Keys { return made(document{Version: version}) }

// Add returns k with a new key of each kind behind the present ones; without kinds,
// of all. Where there is no key yet, none stands before the new one.
func (k *Keys) Add(kinds ...Kind) (*Keys, error) { return k.add(random, kinds) }

// AddNone returns k with no key behind the present ones of each kind that k has, for
// keys that are to be taken out; without kinds, of all.
func (k *Keys) AddNone(kinds ...Kind) (*Keys, error) {
	d := k.document()
	if len(kinds) == 0 {
		kinds = slices.DeleteFunc(Kinds(), func(kind Kind) bool { return *d.of(kind) == nil })
	}
	return k.add(func() []byte { return nil }, kinds)
}

func (k *Keys) add(key func() []byte, kinds []Kind) (*Keys, error) {
	d := k.document()
	if len(kinds) == 0 {
		kinds = Kinds()
	}
	for _, kind := range kinds {
		list := slices.Clone(*d.of(kind))
		if len(list) > 1 {
			return nil, fmt.Errorf("keys: the keys of %s are being changed already: switch and drop come first", kind)
		}
		if list == nil {
			list = [][]byte{nil}
		}
		list = append(list, key())
		*d.of(kind) = list
	}
	if err := d.check(); err != nil {
		return nil, fmt.Errorf("keys: %w", err)
	}
	return made(d), nil
}

// Switch returns k with the last key of each kind as the first.
func (k *Keys) Switch() (*Keys, error) {
	d := k.document()
	changed := false
	for _, kind := range Kinds() {
		list := *d.of(kind)
		if len(list) > 1 {
			last := len(list) - 1
			*d.of(kind) = append([][]byte{list[last]}, list[:last]...)
			changed = true
		}
	}
	if !changed {
		return nil, errNoChange
	}
	return made(d), nil
}

var errNoChange = errors.New("keys: no keys are being changed: add comes first")

// Drop returns k with the first key of each kind alone. It returns nil if that is
// no key of any kind: the store is without keys.
func (k *Keys) Drop() (*Keys, error) {
	d := k.document()
	changed, left := false, false
	for _, kind := range Kinds() {
		list := *d.of(kind)
		if len(list) == 0 {
			continue
		}
		changed = changed || len(list) > 1
		*d.of(kind) = [][]byte{bytes.Clone(list[0])}
		if none(list[0]) {
			*d.of(kind) = nil
		}
		left = left || !none(list[0])
	}
	switch {
	case !changed:
		return nil, errNoChange
	case !left:
		return nil, nil
	}
	return made(d), nil
}
