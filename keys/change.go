package keys

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
)

// To change keys while programs run, give the result of Add, Switch or Drop to every program before
// the next step:
//
//  1. Add: programs read with the old and the new keys, and write with the old keys.
//  2. Switch: programs read with the old and the new keys, and write with the new keys.
//  3. Rewrite the records with "tokenkeep rekey" or tokenstore.Store.Rekey.
//  4. Drop: programs read and write only with the new keys.

// Unused returns Keys that contain no key. To introduce keys in a store without keys, call Add on
// the result.
func Unused() *Keys { return made(document{Version: version}) }

// Add returns a copy of k with a new random key after the current key of each given kind. Without
// kinds, Add adds one key of every kind. If a kind has no key, Add first gives the kind "no key" as
// the current key. Add returns an error if a given kind already has more than one key, because the
// keys of that kind are being changed. "No key" counts as a key.
func (k *Keys) Add(kinds ...Kind) (*Keys, error) { return k.add(random, kinds) }

// AddNone returns a copy of k with "no key" after the current key of each given kind. Without
// kinds, AddNone adds "no key" for every kind that has a key. Use AddNone to begin the removal of
// keys. AddNone returns an error if a given kind has no key, or already has more than one key.
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

// Switch returns a copy of k with the last key of each kind moved to the front. It returns an error
// if no kind has more than one key. "No key" counts as a key.
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

// Drop returns a copy of k with only the first key of each kind. If the copy would contain no key,
// Drop returns a nil *Keys and a nil error. Drop returns an error if no kind has more than one key.
// "No key" counts as a key.
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
