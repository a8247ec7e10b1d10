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
// token. Credentials are plain strings, but a Record prints and logs only the name of its type.
// Times are in milliseconds since the epoch, and durations in milliseconds.
type Record struct {
	// Fields holds the fields of the token. ID is the ID that the caller chose. If the caller chose
	// no ID, ID is empty, and the name of the secret is the ID of the token.
	codec.Fields

	// Born is a random nonce that the record keeps from its creation to its deletion. Born
	// distinguishes the record from other incarnations of the same name.
	Born string

	// Nonces lists the nonces of the last writes, the newest first. If a write was executed, but
	// its response was lost, the writer finds the nonce of the write in Nonces, even after writes
	// by other processes.
	Nonces []string

	// Updated is the time of the last write, by the writer's clock.
	Updated int64

	// Writes counts the writes in each of the last 25 hours, beginning with the hour of Updated.
	// Stores set Writes only if their service limits the number of writes per day.
	Writes []int

	// Labels are the labels with which the record was committed.
	Labels []Label

	// Former lists labels of earlier states that might still be attached to the secret. No label in
	// Former is in Labels, so the store can remove the labels in Former at any time. Stores set
	// Former only if removing a label requires an additional call.
	Former []Label

	// NoAccess reports whether the record has no label for its access token.
	NoAccess bool

	// Earlier lists the names that are derived from earlier tokens of the record.
	Earlier []string

	// Joining lists the records that are about to be merged into this record. Absorbed lists the
	// records that were merged. The file promote.go of package ledger describes both lists.
	Joining, Absorbed []Ref

	// IDs lists further names by which a search finds the record: the names of merged records, and
	// the names derived from the IDs that callers chose for merged records.
	IDs []string

	// Redirects lists the redirects to the record. The IDs of all redirects are in IDs. A
	// redirect can be deleted once searches find the record by all IDs of the redirect.
	Redirects []Redirect

	// Moved is set while this record is being merged into the record that Moved names. Alias is set
	// in the redirect that remains after the merge, and names the target of the redirect.
	Moved, Alias *Ref

	// Lease is the current lease, or nil. Failure is the refusal of the last attempt to refresh the
	// token, or nil if the authorization server did not refuse that attempt.
	Lease   *Lease
	Failure *Failure

	// Took is how long the last refresh had the lease before it began to store the new token.
	// Processes that wait for a refresh derive their pauses from Took.
	Took int64

	unknown map[string]json.RawMessage // members that table does not list
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

// A Redirect names a redirect to a record. Since is the time at which the redirect was created, by
// the clock of its writer.
type Redirect struct {
	Ref
	Since int64 `json:"since"`
}

// A Lease is the right of one process to ask the authorization server for a new token.
type Lease struct {
	ID    string `json:"id"`             // random, for one acquisition
	Until int64  `json:"until"`          // when the holder must stop, by the holder's clock
	For   int64  `json:"for,omitempty"`  // how long other processes wait before they take over the lease; 0 means their own LeaseTTL
	Seen  int64  `json:"seen,omitempty"` // the part of For for which other processes have already waited
}

// A Failure is the stored refusal of an authorization server.
type Failure struct {
	Code      string `json:"code"`
	Permanent bool   `json:"permanent,omitempty"`
	At        int64  `json:"at"`              // the time of the refusal
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
