package driver

import (
	"context"
	"iter"
)

// An Inspector is a Secrets that can be inspected and repaired. It shows the data
// beside the states of secrets, which the other methods do not return. Only
// tokenstore.Store.Check and the deletion of merged records use it.
type Inspector interface {
	Secrets

	// Inspect yields every name under the driver's prefix once, in no particular
	// order: secrets that Get returns, and also secrets that are deleted, empty or
	// only named by a label. It changes nothing. Its results may be as old as those
	// of List. An error that is yielded with a Name concerns that secret alone, as
	// in List.
	Inspect(ctx context.Context) iter.Seq2[Inspection, error]

	// Present returns those of the labels that are beside the named secret, as
	// fresh as one read gets.
	Present(ctx context.Context, name string, labels []Label) ([]Label, error)

	// Unlabel removes labels that no state of the named secret was committed
	// with. Except for abandoned labels, it is called only while nothing else
	// writes. A label that does not exist is not an error.
	Unlabel(ctx context.Context, name string, labels []Label) error

	// Probe makes each call that the driver makes, on a secret of its own, and
	// yields the outcomes. The secret is not a record, and Probe deletes it
	// afterwards. Several callers may probe concurrently.
	Probe(ctx context.Context) iter.Seq2[Probed, error]
}

// An Inspection describes what the service keeps under one name.
type Inspection struct {
	Name string

	// Labels are all labels beside the secret, even if no state of it was committed
	// with them. They have no nonces if the service does not keep nonces.
	Labels []Label

	// Abandoned are those of Labels that are too old to belong to a write under way.
	// They may be removed while others write, if the newest state of the secret does
	// not have them.
	Abandoned []Label

	// Faults are the faults of the secret, and the remains of earlier ones.
	Faults []Fault
}

// The kinds of Fault. They are part of what tokenstore.Store.Check yields, and
// stay.
const (
	FaultTombstone  = "secret-tombstone"       // a deleted secret of which the service keeps a remnant
	FaultEmpty      = "secret-empty"           // a secret without any state, as an abandoned creation leaves it
	FaultDeleted    = "secret-deleted-outside" // deleted by another tool, and not for good
	FaultRolledBack = "secret-rolled-back"     // an earlier state was made the present one by another tool
	FaultExpires    = "secret-expires"         // the service will delete the present state by itself
	FaultDue        = "versions-due"           // earlier states, with earlier tokens, that ought to be destroyed
)

// A Fault is an inconsistency of a secret that an interrupted operation or another
// tool left behind.
type Fault struct {
	// Kind is one of the constants above.
	Kind string

	// Detail says what was found, in one line. It holds no part of a payload.
	Detail string

	// Exclusive means that Mend is safe only while nothing else writes.
	Exclusive bool

	// Action says what Mend does. It is empty if only a person can decide what to
	// do.
	Action string

	// Mend repairs the fault if it is unchanged. Otherwise the error matches
	// ErrConflict. Mend never discards a state that Get has returned since the
	// fault was found. It is nil if Action is empty.
	Mend func(ctx context.Context) error
}

// A Probed is the outcome of one kind of call.
type Probed struct {
	// Call names the call as the service's documentation does, and its purpose.
	Call string

	// Needs is the permission or capability that the call takes, as the
	// service's policies spell it.
	Needs string

	// Err is nil if the call was allowed. It matches ErrDenied if it was not;
	// any other error means that the outcome is not known.
	Err error
}
