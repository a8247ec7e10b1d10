// Package observe lets a program observe the refreshes of a store and the calls that the store
// makes to its backend.
//
// The options of every store include an Observer. An Observer receives kinds and durations, but
// no ID, user name, token or error text. Metrics from an Observer therefore contain no secrets
// and have few distinct label values. Module otelkeep exports the kinds and durations as
// OpenTelemetry spans and metrics.
package observe

import (
	"context"
	"time"
)

// An Observer holds functions that a store calls. Each function may be nil. A store calls
// the functions synchronously, so a slow function delays the store. The functions must be
// safe for concurrent use.
type Observer struct {
	// Refresh is called when a refresh of a record begins. store is the kind of store, such
	// as "awssm". The refresh continues with the context that Refresh returns, which must
	// be derived from ctx. The store calls done once, when the refresh ends.
	//
	// If several goroutines use the same store to refresh a record concurrently, the store
	// calls Refresh for only one of them. The other goroutines wait for the result of that
	// refresh.
	Refresh func(ctx context.Context, store string) (_ context.Context, done func(Refreshed))

	// Call is called when the store begins a call to its backend. The call continues
	// with the context that Call returns, which must be derived from ctx. The store calls
	// done once, when the call ends.
	//
	// For a tokenstore.Store, each call is a call of a driver's method, and may send
	// several requests to the service. An update, for example, adds labels, commits, and
	// removes labels. The client of the service sends the requests with the returned
	// context.
	Call func(ctx context.Context, c Call) (_ context.Context, done func(Called))
}

// Refreshed describes the outcome of a refresh.
type Refreshed struct {
	Result Result

	// Class is the class of the error, or "" if there is none.
	Class Class

	// Waited is the time from the beginning of the refresh until the beginning of its last
	// request to the authorization server. If the refresh made no request, Waited is the
	// duration of the refresh.
	Waited time.Duration

	// Asked is the total time of the requests to the authorization server. Asked is 0 if the
	// refresh made no request.
	Asked time.Duration

	// Lag is the time since another writer stored the adopted token, if Result is
	// ResultAdopted, and otherwise 0. Lag has a resolution of a millisecond, and is inexact if
	// the clocks of the two processes differ. If the difference of the clock readings is
	// negative, Lag is 0. Lag is also 0 in stores on files and tables, which do not keep the
	// time of a write.
	Lag time.Duration
}

// A Result says how a refresh ended.
type Result string

// The results of a refresh.
const (
	ResultMinted       Result = "minted"        // this process got a token from the authorization server and stored it
	ResultAdopted      Result = "adopted"       // another writer stored a token during the refresh
	ResultCurrent      Result = "current"       // the record already had another token when the refresh began
	ResultRefused      Result = "refused"       // the authorization server refused the refresh
	ResultRefusalKept  Result = "refusal_kept"  // an earlier refusal still counts, so the refresh made no request
	ResultUnanswered   Result = "unanswered"    // the response of the authorization server was unusable or missing
	ResultNotPersisted Result = "not_persisted" // this process got a token but could not store it
	ResultCanceled     Result = "canceled"      // the context of the caller was done
	ResultFailed       Result = "failed"        // the refresh failed for another reason
)

// Results returns all results.
func Results() []Result {
	return []Result{
		ResultMinted, ResultAdopted, ResultCurrent, ResultRefused, ResultRefusalKept, ResultUnanswered,
		ResultNotPersisted, ResultCanceled, ResultFailed,
	}
}

// A Call is a call that a store makes to its backend.
type Call struct {
	Store     string // the kind of store, such as "awssm"
	Operation Operation
}

// Called describes how a call ended.
type Called struct {
	// Class is the class of the error, or "" if there is none. For an iterator, Class
	// describes only the error that ended the iteration, not errors about individual secrets.
	Class Class

	// Took is the duration of the call. For an iterator, Took excludes the time spent in the
	// loop body.
	Took time.Duration
}

// An Operation says which kind of call a store makes to its backend.
type Operation string

// The operations of a store on a driver. Each except OpRepair stands for a method of
// driver.Secrets, driver.Leaser, driver.Sweeper or driver.Inspector.
const (
	OpGet     Operation = "get"
	OpFresh   Operation = "fresh"
	OpCreate  Operation = "create"
	OpUpdate  Operation = "update"
	OpDelete  Operation = "delete"
	OpNote    Operation = "note"
	OpSweep   Operation = "sweep"
	OpLookup  Operation = "lookup"
	OpList    Operation = "list"
	OpNames   Operation = "names"
	OpInspect Operation = "inspect"
	OpPresent Operation = "present"
	OpUnlabel Operation = "unlabel"
	OpProbe   Operation = "probe"
	OpRepair  Operation = "repair" // driver.Fault.Mend
)

// The operations of a store on a file or table, besides OpUpdate and OpNote.
const (
	OpRead Operation = "read" // read some or all rows
	OpLock Operation = "lock" // take the right to refresh a record
)

// Operations returns all operations.
func Operations() []Operation {
	return []Operation{
		OpGet, OpFresh, OpCreate, OpUpdate, OpDelete, OpNote, OpSweep, OpLookup, OpList, OpNames,
		OpInspect, OpPresent, OpUnlabel, OpProbe, OpRepair, OpRead, OpLock,
	}
}

// A Class says which kind of error occurred.
type Class string

// The classes of errors. Most correspond to error classes of package tokenstore.
const (
	ClassNotFound    Class = "not_found"
	ClassAmbiguous   Class = "ambiguous"
	ClassExists      Class = "exists"
	ClassConflict    Class = "conflict"
	ClassIDMismatch  Class = "id_mismatch"
	ClassInvalid     Class = "invalid"
	ClassTooLarge    Class = "too_large"
	ClassDenied      Class = "denied"
	ClassRefused     Class = "refused" // the set-up of the service does not allow the call
	ClassThrottled   Class = "throttled"
	ClassUnavailable Class = "unavailable"
	ClassCorrupt     Class = "corrupt"
	ClassWrongKeys   Class = "wrong_keys"
	ClassCanceled    Class = "canceled"
	ClassDeadline    Class = "deadline_exceeded"
	ClassReauth      Class = "reauth_required"   // the authorization server refused permanently
	ClassTemporary   Class = "temporary_refusal" // the authorization server refused temporarily
	ClassClient      Class = "client"            // the authorization server refused the client
	ClassServer      Class = "server"            // the response of the authorization server was unusable or missing
	ClassOther       Class = "other"
)

// Classes returns all classes.
func Classes() []Class {
	return []Class{
		ClassNotFound, ClassAmbiguous, ClassExists, ClassConflict, ClassIDMismatch, ClassInvalid, ClassTooLarge,
		ClassDenied, ClassRefused, ClassThrottled, ClassUnavailable, ClassCorrupt, ClassWrongKeys, ClassCanceled,
		ClassDeadline, ClassReauth, ClassTemporary, ClassClient, ClassServer, ClassOther,
	}
}
