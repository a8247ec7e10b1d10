package driver

import (
	"context"
	"iter"
)

// An Inspector is a Secrets that can be looked into and mended: it tells what
// the other methods do not show, because none of it is the state of a secret.
// tokenstore.Store.Check asks for it; nothing else does.
type Inspector interface {
	Secrets

	// Inspect yields what there is under the driver's prefix, in no particular
	// order, each name once: secrets that Get returns, and also those that are
	// deleted, empty or only named by a label. It changes nothing. What it
	// yields may be as old as what List yields. An error that is yielded with a
	// Name concerns that secret alone, as in List.
	Inspect(ctx context.Context) iter.Seq2[Inspection, error]

	// Present returns those of the labels that really are beside the named
	// secret, as fresh as one reading gets.
	Present(ctx context.Context, name string, labels []Label) ([]Label, error)

	// Unlabel removes labels that no state of the named secret was committed
	// with. It is called while nothing else writes, but for abandoned ones. Labels
	// that are not there are no error.
	Unlabel(ctx context.Context, name string, labels []Label) error

	// Probe makes each call that the driver makes, on a secret of its own that is
	// no record and is gone afterwards as far as Delete removes one, and yields
	// what became of it. If several callers do so at once it still answers.
	Probe(ctx context.Context) iter.Seq2[Probed, error]
}

// An Inspection is what there is under one name.
type Inspection struct {
	Name string

	// Labels are all that are beside the secret, those included that no state of
	// it was committed with. Where the service does not keep nonces they have
	// none.
	Labels []Label

	// Abandoned are those of Labels that were added so long ago that no write that
	// is under way has added them. They may be removed while others write, if the
	// newest state of the secret does not have them.
	Abandoned []Label

	// Faults are what is wrong, or remains of what was.
	Faults []Fault
}

// The kinds of Fault. They are part of what tokenstore.Store.Check yields, and
// stay.
const (
	FaultTombstone  = "secret-tombstone"       // a deleted secret of which the service keeps a remnant
	FaultEmpty      = "secret-empty"           // a secret without any state, as a creation that broke off leaves it
	FaultDeleted    = "secret-deleted-outside" // deleted by another tool, and not for good
	FaultRolledBack = "secret-rolled-back"     // an earlier state was made the present one by another tool
	FaultExpires    = "secret-expires"         // the service will delete the present state by itself
	FaultDue        = "versions-due"           // earlier states, with earlier tokens, that ought to be destroyed
)

// A Fault is something about a secret that the driver would not have left so, had
// nothing come in between.
type Fault struct {
	// Kind is one of the constants above.
	Kind string

	// Detail says what was found, in one line. It holds no part of a payload.
	Detail string

	// Exclusive says that Mend is safe only while nothing else writes.
	Exclusive bool

	// Action says what Mend does. It is empty if only a person can decide what is
	// to be done.
	Action string

	// Mend does away with the fault, if it still is as it was found. The error
	// matches ErrConflict if it is not. Nothing that a Get has returned since is
	// lost by it. Nil if Action is empty.
	Mend func(ctx context.Context) error
}

// A Probed is what became of one kind of call.
type Probed struct {
	// Call is the call, as the service's documentation names it, and what for.
	Call string

	// Needs is the permission or capability that the call takes, as the
	// service's policies spell it.
	Needs string

	// Err is nil if the call was allowed. It matches ErrDenied if it was not;
	// any other error says that it could not be found out.
	Err error
}
