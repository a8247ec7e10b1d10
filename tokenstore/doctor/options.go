package doctor

import (
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rules"
)

// A Checker is a store that can be checked and repaired.
type Checker interface {
	// Check yields the faults of the store, in no particular order, and repairs those
	// that opts asks for. opts may be nil: then Check repairs nothing.
	//
	// An error ends the iteration: the store cannot be reached or listed, ctx is done, or
	// opts is invalid (ErrInvalidToken). Earlier findings stand. A record that cannot be
	// read is a finding of KindUnreadable, with the reason in Detail and Err. If a repair
	// fails, Finding.Err says why.
	Check(ctx context.Context, opts *CheckOptions) iter.Seq2[Finding, error]
}

// CheckOptions says what Check does besides reporting.
type CheckOptions struct {
	// Repair repairs what can be repaired while other processes read and write.
	Repair bool

	// MergeDuplicates merges records that are the same: see KindDuplicate. It needs
	// Repair.
	MergeDuplicates bool

	// Purge removes remains that are harmless but take space or cost money. It is safe only
	// while no other process writes to the store. It needs Repair.
	Purge bool

	// Permissions tries each call that the store makes, on a separate secret that is not a
	// record. It writes even without Repair.
	Permissions bool

	// Compare tests whether the server compares before it writes. Every driver promises
	// this comparison, but some emulators leave it out. Compare creates a secret that is not
	// a record. It tries to create this secret again, to update one state of it twice, and to
	// delete a replaced state. Compare writes even without Repair. If the server does not
	// compare, nothing is repaired. Compare has no effect on stores in files and tables.
	Compare bool

	// Grace is the age from which an intermediate state counts as left behind by its
	// writer. 0 means a minute. A negative Grace means no time.
	Grace time.Duration

	// Progress, if it is not nil, is called repeatedly with the number of secrets that were
	// examined so far. The goroutine that iterates calls it.
	Progress func(done int)
}

// defaultGrace is longer than a writer takes from one of its writes to the next.
const defaultGrace = time.Minute

// Complete returns a copy of o with defaults in place of zero values. The error matches
// ErrInvalidToken if MergeDuplicates or Purge is set without Repair.
func (o *CheckOptions) Complete() (CheckOptions, error) {
	var c CheckOptions
	if o != nil {
		c = *o
	}
	if (c.MergeDuplicates || c.Purge) && !c.Repair {
		return c, fmt.Errorf("%w: MergeDuplicates and Purge require Repair", rules.ErrInvalidToken)
	}
	if c.Grace == 0 {
		c.Grace = defaultGrace
	}
	return c, nil
}

// Wants reports whether o asks for the remedy.
func (o CheckOptions) Wants(r Remedy) bool {
	switch r {
	case RemedyRepair:
		return o.Repair
	case RemedyMerge:
		return o.MergeDuplicates
	case RemedyPurge:
		return o.Purge
	case RemedyRekey, RemedyManual:
	}
	return false
}
