package doctor

import (
	"context"
	"time"
)

// A StatusReader is a store that can report the state of the refreshes of a record.
type StatusReader interface {
	// Status returns the state of the refreshes of the record with the given ID. It writes
	// nothing and takes no lease. The result may be out of date by the lag of the backend. The
	// error matches tokenstore.ErrNotFound if the record does not exist.
	Status(ctx context.Context, id string) (Status, error)
}

// A Status describes the refreshes of a record.
type Status struct {
	// Written is the time of the last write of the record, by the clock of the writer. Written
	// is zero for stores in files and tables, which do not store the time.
	Written time.Time

	// Refusal is the last stored refusal of the authorization server. Refusal is nil if no
	// refusal is stored, or if the credentials were replaced after the refusal.
	Refusal *Refusal

	// Lease is the lease on the record, or nil if the record has no lease.
	Lease *Lease
}

// A Refusal is an authorization server's refusal to refresh a token.
type Refusal struct {
	Code      string    // the server's own code, such as "invalid_grant"
	Permanent bool      // the refusal applies until the credentials of the record change
	Count     int       // number of consecutive refusals
	At        time.Time // when the server answered

	// Counts is set if a refresh at this time would fail with this refusal, without a request
	// to the server.
	Counts bool

	// Retry is the earliest time at which a refresh asks the server again. Retry has no
	// meaning if Permanent is set.
	Retry time.Time
}

// A Lease is the right of a process to refresh a record.
type Lease struct {
	// Until is when the lease ends, by the clock of the holder. Until may be in the past if
	// the holder has died. Until is zero for stores in files and tables, whose leases end with
	// the process of the holder.
	Until time.Time
}
