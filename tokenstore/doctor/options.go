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
	// Check yields the faults of the store, in no particular order, and makes the repairs
	// that opts asks for. A nil opts counts as the zero value, with which Check only reports.
	//
	// An error ends the iteration: the store cannot be reached or listed, ctx is done, or
	// opts is invalid (ErrInvalidToken). Findings yielded earlier remain valid. A record that
	// cannot be read is a finding of KindUnreadable, with the reason in Detail and Err. If a
	// repair fails, Finding.Err says why.
	Check(ctx context.Context, opts *CheckOptions) iter.Seq2[Finding, error]
}

// CheckOptions configures Check. The zero value makes Check only report.
type CheckOptions struct {
	// Repair makes the repairs that are safe while other processes read and write.
	Repair bool

	// MergeDuplicates merges duplicate records: see KindDuplicate. It requires Repair.
	MergeDuplicates bool

	// Purge removes harmless remnants, which take space or cost money. It is safe only while
	// no other process writes to the store. It requires Repair.
	Purge bool

	// Permissions tests whether the service allows each call that the store makes. The test
	// uses a separate secret that is not a record, and writes even without Repair.
	Permissions bool

	// Compare tests whether the server compares the current state with the base of a write
	// before it writes. Every driver promises this comparison, but some emulators do not make
	// it. Compare creates a secret that is not a record, even without Repair. It tries to
	// create this secret again, to update one state of it twice, and to delete a replaced
	// state. If the server does not compare, Check repairs nothing. Compare has no effect on
	// stores in files and tables.
	Compare bool

	// Grace is the age at which Check assumes that the writer of an intermediate state has
	// died. 0 means a minute. A negative Grace makes Check assume at any age that the writer
	// has died.
	Grace time.Duration

	// Progress, if it is not nil, is called repeatedly with the number of secrets listed so
	// far, by the goroutine that iterates.
	Progress func(done int)
}

// defaultGrace is longer than the time between two writes of one operation.
const defaultGrace = time.Minute

// Complete returns a copy of o with defaults in place of zero values. A nil o counts as the
// zero value. The error matches ErrInvalidToken if MergeDuplicates or Purge is set without
// Repair.
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
