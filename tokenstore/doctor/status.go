package doctor

import (
	"context"
	"time"
)

// A StatusReader is a store that can report the state of the refreshes of a record.
type StatusReader interface {
	// Status returns the state of the refreshes of the record with the given ID. It
	// changes nothing, and takes no lease. The state may be a moment old. The error
	// matches tokenstore.ErrNotFound if the record does not exist.
	Status(ctx context.Context, id string) (Status, error)
}

// A Status is what a store keeps about the refreshes of a record, besides its token.
type Status struct {
	// Written is the time of the last write of the record, by the clock of the writer.
	// It is zero if the store does not keep it: stores in files and tables do not.
	Written time.Time

	// Refusal is the last response of the authorization server, if it was a refusal that
	// is kept. It is nil otherwise.
	Refusal *Refusal

	// Lease is the lease of the process that refreshes the record now. It is nil if no
	// process does.
	Lease *Lease
}

// A Refusal is a refusal of an authorization server to refresh a token.
type Refusal struct {
	Code      string    // the server's own code, such as "invalid_grant"
	Permanent bool      // the refusal counts until the credentials of the record change
	Count     int       // number of consecutive refusals
	At        time.Time // when the server answered

	// Counts is set if a refresh fails with this refusal now, without a request.
	Counts bool

	// Retry is when the next refresh asks the server again. It has no meaning if Permanent
	// is set.
	Retry time.Time
}

// A Lease is the right of a process to refresh a record.
type Lease struct {
	// Until is when the lease ends, by the clock of its holder. It may have passed if the
	// holder has died. Until is zero in stores in files and tables, whose leases end with
	// their holder.
	Until time.Time
}
