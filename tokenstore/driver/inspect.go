package driver

import (
	"context"
	"iter"
)

// An Inspector is a Secrets that can also examine and repair the data that the service keeps
// beside the states of secrets, and test permissions. Only tokenstore.Store.Check and the
// deletion of merged records use an Inspector.
type Inspector interface {
	Secrets

	// Inspect yields every name under the driver's prefix once, in no particular order. The
	// names include those of deleted secrets, those of secrets without a state, and those that
	// occur only in labels. Inspect changes nothing. The results may lag by up to
	// Properties.ListLag. An error that is yielded with a Name concerns only the secret with
	// that name, as in List.
	Inspect(ctx context.Context) iter.Seq2[Inspection, error]

	// Present returns the elements of labels that the named secret has. A secret that does not
	// exist is not an error.
	Present(ctx context.Context, name string, labels []Label) ([]Label, error)

	// Unlabel removes the given labels from the named secret. The current state must not need
	// these labels. Unlabel ignores labels that the secret does not have. If a label is not in
	// Inspection.Abandoned, Unlabel is safe only while no other process writes.
	Unlabel(ctx context.Context, name string, labels []Label) error

	// Probe makes each kind of call that the driver makes, and yields the outcomes. Probe
	// changes no record. Probe deletes the secrets that it creates, but may leave a tombstone.
	// Several callers may probe concurrently.
	Probe(ctx context.Context) iter.Seq2[Probed, error]
}

// An Inspection describes the labels and faults of the secrets with one name.
type Inspection struct {
	Name string

	// Labels are all labels of the secret, including labels with which no state was committed.
	// The labels have no nonces if the service does not keep nonces.
	Labels []Label

	// Abandoned are the elements of Labels that are too old to belong to a write in progress.
	// Such a label may be removed while other processes write, unless the newest state of the
	// secret has the label.
	Abandoned []Label

	// Faults are the inconsistencies of the secret, including remnants of earlier secrets with the
	// same name.
	Faults []Fault
}

// The kinds of Fault. Store.Check reports these values, which never change.
const (
	FaultTombstone  = "secret-tombstone"       // a remnant of a deleted secret
	FaultEmpty      = "secret-empty"           // a secret without any state, left by an abandoned creation
	FaultDeleted    = "secret-deleted-outside" // a secret that another tool deleted, but not permanently
	FaultRolledBack = "secret-rolled-back"     // a secret of which another tool restored an earlier state
	FaultExpires    = "secret-expires"         // a secret whose current state the service will delete automatically
	FaultDue        = "versions-due"           // earlier states, with earlier tokens, that should be destroyed
)

// A Fault is an inconsistency of a secret that an interrupted operation or another
// tool left behind.
type Fault struct {
	// Kind is the kind of fault, such as FaultTombstone.
	Kind string

	// Detail describes the fault in one line, without any part of a payload.
	Detail string

	// Exclusive means that Mend is safe only while no other process writes.
	Exclusive bool

	// Action describes the repair that Mend makes. Action is empty if an operator must choose
	// the repair.
	Action string

	// Mend repairs the fault. If the secret has changed since the fault was found, the error
	// may match ErrConflict. Unless Exclusive is set, Mend never discards a state that was
	// committed after the fault was found. Mend is nil if Action is empty.
	Mend func(ctx context.Context) error
}

// A Probed is the outcome of one kind of call.
type Probed struct {
	// Call names the call, such as "GetSecretValue" or "the LIST of the records".
	Call string

	// Needs names the permission or capability that the call requires, as the service's
	// policies spell it.
	Needs string

	// Err is nil if the service allows the call, and matches ErrDenied if the service denies
	// the call. Any other error means that the outcome is unknown.
	Err error
}
