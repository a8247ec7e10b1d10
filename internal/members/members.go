// Package members splits JSON objects.
package members

import (
	"bytes"
	"encoding/json"
	"errors"
)

var (
	errNoObject = errors.New("not a JSON object")
	errTwice    = errors.New("a member stands twice")
)

// Split returns the members of a JSON object by their exact names. (Package
// encoding/json would take "ID" for "id".) An object in which a name appears twice is
// an error, because readers could differ on which value holds. Errors quote nothing of
// data.
func Split(data []byte) (map[string]json.RawMessage, error) {
	if !json.Valid(data) {
		return nil, errNoObject
	}
	d := json.NewDecoder(bytes.NewReader(data))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, errNoObject
	}
	members := map[string]json.RawMessage{}
	for d.More() {
		t, err := d.Token()
		name, ok := t.(string)
		if err != nil || !ok {
			return nil, errNoObject
		}
		if _, twice := members[name]; twice {
			return nil, errTwice
		}
		var raw json.RawMessage
		if d.Decode(&raw) != nil {
			return nil, errNoObject
		}
		members[name] = raw
	}
	return members, nil
}
