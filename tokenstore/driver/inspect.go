package driver

import (
	"context"
	"iter"
)

// An Inspector is a Secrets that can be inspected and repaired. It shows data
// beside the states of secrets, which the other methods do not return. Only
// tokenstore.Store.Check and the deletion of merged records use it.
type Inspector interface {
	Secrets

	// Inspect yields every name under the driver's prefix once, in no particular order. The
	// names include those of secrets that are deleted, empty or only named by a label.
	// Inspect changes nothing. Its results may be as old as those of List. An error that is
	// yielded with a Name concerns that secret alone, as in List.
	Inspect(ctx context.Context) iter.Seq2[Inspection, error]

	// Present returns those of the labels that the named secret has, as current
	// as one read can be.
	Present(ctx context.Context, name string, labels []Label) ([]Label, error)

	// Unlabel removes labels that no state of the named secret was committed
	// with. Except for abandoned labels, it is called only while no other process
	// writes. A label that does not exist is not an error.
	Unlabel(ctx context.Context, name string, labels []Label) error

	// Probe makes each kind of call that the driver makes, on a separate secret, and yields
	// the outcomes. The secret is not a record, and Probe deletes it afterwards. Several
	// callers may probe concurrently.
	Probe(ctx context.Context) iter.Seq2[Probed, error]
}

// An Inspection describes everything that the service keeps under one name.
type Inspection struct {
	Name string

	// Labels are all labels of the secret, even if no state of it was committed
	// with them. They have no nonces if the service does not keep nonces.
	Labels []Label

	// Abandoned are those of Labels that are too old to belong to a write in
	// progress. They may be removed while other processes write, if the newest state
	// of the secret does not have them.
	Abandoned []Label

	// Faults are the faults of the secret, and the remains of earlier secrets with its
	// name.
	Faults []Fault
}

// The kinds of Fault. Store.Check yields them, and they do not change.
const (
	FaultTombstone  = "secret-tombstone"       // a remnant of a deleted secret
	FaultEmpty      = "secret-empty"           // a secret without any state, left by an abandoned creation
	FaultDeleted    = "secret-deleted-outside" // deleted by another tool, but not permanently
	FaultRolledBack = "secret-rolled-back"     // another tool has restored an earlier state
	FaultExpires    = "secret-expires"         // the service will delete the current state automatically
	FaultDue        = "versions-due"           // earlier states, with earlier tokens, that should be destroyed
)

// A Fault is an inconsistency of a secret that an interrupted operation or another
// tool left behind.
type Fault struct {
	// Kind is one of the constants above.
	Kind string

	// Detail says what was found, in one line. It holds no part of a payload.
	Detail string

	// Exclusive means that Mend is safe only while no other process writes.
	Exclusive bool

	// Action says what Mend does. It is empty if only a person can decide what to
	// do.
	Action string

	// Mend repairs the fault if it is unchanged. Otherwise the error matches ErrConflict.
	// Unless Exclusive is set, Mend never discards a state that Get has returned since the
	// fault was found. Mend is nil if Action is empty.
	Mend func(ctx context.Context) error
}

// A Probed is the outcome of one kind of call.
type Probed struct {
	// Call is the name of the call in the service's documentation, with its
	// purpose.
	Call string

	// Needs is the permission or capability that the call requires, as spelled in
	// the service's policies.
	Needs string

	// Err is nil if the call was allowed. It matches ErrDenied if the call was
	// not allowed; any other error means that the outcome is unknown.
	Err error
}
