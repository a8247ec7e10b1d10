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

// A Record is the content of one secret: a token, and what the store needs to know
// about it. Its credentials are plain strings; a Record prints and logs only its name.
type Record struct {
	// Fields are those of the token. ID is the ID that the caller chose. If it is
	// empty, the name of the secret is the ID.
	codec.Fields

	// Born is a random nonce that the record keeps from its creation to its deletion.
	// It distinguishes the record from other incarnations of the same name.
	Born string

	// Nonces are those of the last writes, the newest first. A writer whose answer was
	// lost finds its own nonce here, even if other processes have written since.
	Nonces []string

	// Updated is when the record was written, by the writer's clock.
	Updated int64

	// Writes counts the writes of the last 25 hours, the hour of Updated first.
	// It is kept where a service limits the writes of a day.
	Writes []int

	// Labels are the labels that the record was committed with.
	Labels []Label

	// Earlier are names that earlier tokens of the record would derive.
	Earlier []string

	// Joining are records that are about to be merged into this one, and Absorbed are
	// records that have been. See package ledger on promotion.
	Joining, Absorbed []Ref

	// IDs are names of IDs that find the record: the names of merged records, and the
	// names of IDs that callers chose for them.
	IDs []string

	// Redirects are redirects to the record whose IDs are all in IDs. They can be
	// deleted once the labels that find the record by these IDs are old enough.
	Redirects []Redirect

	// Moved is set in a frozen record, which is being merged into another one. Alias is
	// set in the redirect that remains.
	Moved, Alias *Ref

	// Lease is the right to refresh the token. Failure is the outcome of the last
	// attempt if it failed.
	Lease   *Lease
	Failure *Failure

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

// A Redirect names a redirect to a record, and when it became one, by the writer's
// clock.
type Redirect struct {
	Ref
	Since int64 `json:"since"`
}

// A Lease is the right of one process to ask the authorization server for a new
// token.
type Lease struct {
	ID    string `json:"id"`             // random, of one acquisition
	Until int64  `json:"until"`          // when the holder stops, by its clock
	For   int64  `json:"for,omitempty"`  // how long others watch it before they take it over; 0: for their LeaseTTL
	Seen  int64  `json:"seen,omitempty"` // how much of that time was watched by waiters that had to leave
}

// A Failure is an authorization server's refusal.
type Failure struct {
	Code      string `json:"code"`
	Permanent bool   `json:"permanent,omitempty"`
	At        int64  `json:"at"`
	Retry     int64  `json:"retry"`           // not before this time
	Count     int    `json:"count,omitempty"` // of failures in a row
	Of        string `json:"of"`              // a digest of the credentials that were refused
}

// Unknown returns the names of members that a later version of the format has
// put into the record. They are kept when the record is written.
func (r Record) Unknown() []string {
	names := make([]string, 0, len(r.unknown))
	for name := range r.unknown {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Format keeps credentials out of whatever prints a Record.
func (r Record) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "stored.Record{redacted}") }

// LogValue keeps credentials out of logs.
func (r Record) LogValue() slog.Value { return slog.StringValue("stored.Record{redacted}") }

// MarshalJSON fails: Encode writes records.
func (r Record) MarshalJSON() ([]byte, error) {
	return nil, errors.New("stored: a Record is written by Encode")
}
