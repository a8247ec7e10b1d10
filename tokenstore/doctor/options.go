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
	// An error ends the iteration: the store cannot be reached or listed, or ctx is
	// done. Earlier findings stand. A record that cannot be read is a finding of
	// KindUnreadable, with the reason in Detail and Err. If a repair fails, Finding.Err
	// has the reason.
	Check(ctx context.Context, opts *CheckOptions) iter.Seq2[Finding, error]
}

// CheckOptions says what Check does besides reporting.
type CheckOptions struct {
	// Repair repairs what can be repaired while other processes read and write.
	Repair bool

	// MergeDuplicates merges records that are the same: see KindDuplicate. It needs
	// Repair.
	MergeDuplicates bool

	// Purge removes remains that do no harm but cost something. It is safe only while
	// nothing else writes to the store. It needs Repair.
	Purge bool

	// Permissions tries each call that the store makes, with a secret of its own that
	// is not a record. It writes even without Repair.
	Permissions bool

	// Compare tests whether the server compares before it writes. Every driver promises
	// that, and some emulators do not do it. Compare twice creates a secret that is not
	// a record, and twice writes and deletes one state of it. It writes even without
	// Repair. If the server does not compare, nothing is repaired. Stores in files and
	// tables compare by themselves.
	Compare bool

	// Grace is the age from which an intermediate state counts as left behind by its
	// writer. 0 means a minute; a negative Grace, no time at all.
	Grace time.Duration

	// Progress, if it is not nil, is called now and then with the number of secrets
	// that were examined. The goroutine that iterates calls it.
	Progress func(done int)
}

// defaultGrace is longer than any writer takes from one swap to the next.
const defaultGrace = time.Minute

// Complete returns a copy of o with defaults in place of zero values.
func (o *CheckOptions) Complete() (CheckOptions, error) {
	var c CheckOptions
	if o != nil {
		c = *o
	}
	if (c.MergeDuplicates || c.Purge) && !c.Repair {
		return c, fmt.Errorf("%w: MergeDuplicates and Purge go with Repair", rules.ErrInvalidToken)
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
