// Package stored defines the stored form of a token record, and its JSON text.
package stored

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"

	"github.com/tokenkeep/tokenkeep/codec"
)

// A Record is the content of one secret: a token, and the state that the store keeps with the
// token. Its credentials are plain strings; a Record prints and logs only the name of its
// type. Times are in milliseconds since the epoch, and durations in milliseconds.
type Record struct {
	// Fields are the fields of the token. ID is the ID that the caller chose. If the caller
	// chose no ID, the name of the secret is the ID.
	codec.Fields

	// Born is a random nonce that the record keeps from its creation to its deletion.
	// It distinguishes the record from other incarnations of the same name.
	Born string

	// Nonces are the nonces of the last writes, the newest first. A writer that received no
	// response finds its own nonce in Nonces, even if other processes have written since.
	Nonces []string

	// Updated is the time of the last write by the writer's clock.
	Updated int64

	// Writes counts the writes in each of the last 25 hours, the hour of Updated first. Writes
	// is kept if a service limits the number of writes per day.
	Writes []int

	// Labels are the labels with which the record was committed.
	Labels []Label

	// Former are labels of earlier states that might still be attached to the secret. Labels
	// does not contain them, so the store can remove the former labels at any time. Former is
	// kept if removing labels requires additional calls.
	Former []Label

	// NoAccess is set if the record has no label for its access token.
	NoAccess bool

	// Earlier lists the names that are derived from earlier tokens of the record.
	Earlier []string

	// Joining lists the records that are about to be merged into this record, and Absorbed
	// lists the records that were merged. Package ledger describes both lists under "A
	// promotion".
	Joining, Absorbed []Ref

	// IDs lists further names that find the record. These are the names of merged records, and
	// the names derived from the IDs that callers chose for merged records.
	IDs []string

	// Redirects lists the redirects to the record. The IDs of all redirects are in IDs. A
	// redirect can be deleted once searches find the record by all IDs of the redirect.
	Redirects []Redirect

	// Moved is set in a frozen record, which is being merged into another record. Alias is set in
	// the redirect that remains after the merge.
	Moved, Alias *Ref

	// Lease is the right to refresh the token. Failure is the refusal of the last attempt, if
	// the authorization server refused that attempt.
	Lease   *Lease
	Failure *Failure

	// Took is the time from the lease of the last refresh to the new token, in milliseconds.
	// Waiters derive their pauses from Took.
	Took int64

	unknown map[string]json.RawMessage // members of a later version of the format
}

// A Label is a searchable attribute: see package driver.
type Label struct {
	Key   string `json:"k"`
	Value string `json:"v"`
	Nonce string `json:"n"`
}

// A Ref names one incarnation of a record.
type Ref struct {
	Name string `json:"name"`
	Born string `json:"born"`
}

// A Redirect names a redirect to a record and the time at which it was made, by the
// writer's clock.
type Redirect struct {
	Ref
	Since int64 `json:"since"`
}

// A Lease is the right of one process to ask the authorization server for a new token.
type Lease struct {
	ID    string `json:"id"`             // random, for one acquisition
	Until int64  `json:"until"`          // when the holder must stop, by the holder's clock
	For   int64  `json:"for,omitempty"`  // how long waiters watch the lease before they take it over; 0 means their own LeaseTTL
	Seen  int64  `json:"seen,omitempty"` // the part of For that earlier waiters have already watched
}

// A Failure is the stored refusal of an authorization server.
type Failure struct {
	Code      string `json:"code"`
	Permanent bool   `json:"permanent,omitempty"`
	At        int64  `json:"at"`
	Retry     int64  `json:"retry"`           // no attempt before this time
	Count     int    `json:"count,omitempty"` // number of consecutive failures
	Of        string `json:"of"`              // a digest of the refused credentials
}

// Unknown returns the sorted names of the members that this version of the format does not
// define. Encode preserves these members.
func (r Record) Unknown() []string {
	names := make([]string, 0, len(r.unknown))
	for name := range r.unknown {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Format prints "stored.Record{redacted}" for every verb.
func (r Record) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "stored.Record{redacted}") }

// LogValue returns "stored.Record{redacted}".
func (r Record) LogValue() slog.Value { return slog.StringValue("stored.Record{redacted}") }

// MarshalJSON returns an error, because only Encode writes records.
func (r Record) MarshalJSON() ([]byte, error) {
	return nil, errors.New("stored: a Record is written by Encode")
}
