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
	// Check yields what is wrong with the store, in no particular order, and
	// repairs what opts asks for. opts may be nil: then it only looks.
	//
	// An error ends the iteration: the store cannot be reached or listed, or ctx is
	// done. What was yielded before it stands. A record that cannot be read is a
	// finding of KindUnreadable, with the reason in Detail and Err. That a fault
	// could not be repaired is in Finding.Err.
	Check(ctx context.Context, opts *CheckOptions) iter.Seq2[Finding, error]
}

// CheckOptions says what Check is to do besides looking.
type CheckOptions struct {
	// Repair repairs what can be repaired while others read and write.
	Repair bool

	// MergeDuplicates merges records that are the same one: see KindDuplicate.
	// It goes with Repair.
	MergeDuplicates bool

	// Purge removes remains that do no harm but cost something. It is safe only
	// while nothing else writes to the store, and goes with Repair.
	Purge bool

	// Permissions tries each call that the store makes, with a secret of its own
	// that is not a record. It writes, whatever Repair says.
	Permissions bool

	// Compare tries whether the server compares before it writes. Every driver
	// promises that, and some emulators do not do it. Compare creates a secret that
	// is not a record twice, and writes and deletes one state of it twice. It
	// writes, whatever Repair says. If the server does not compare, nothing is
	// repaired. Stores in files and tables compare by themselves.
	Compare bool

	// Grace is how old an intermediate state has to be before it counts as left
	// behind by a writer. 0 means a minute; a negative Grace, no time at all.
	Grace time.Duration

	// Progress, if it is not nil, is called now and then, by the goroutine that
	// iterates, with the number of secrets that were looked at.
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
