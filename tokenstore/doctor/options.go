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
	// The iteration ends with an error if the store cannot be reached or listed, or if ctx is
	// done. It ends with an error matching tokenstore.ErrInvalidToken if opts is invalid. The
	// findings yielded before an error remain valid. A record that cannot be read is a finding
	// of KindUnreadable, with the reason in Finding.Err. If a repair fails, Finding.Err holds
	// the error of the repair.
	Check(ctx context.Context, opts *CheckOptions) iter.Seq2[Finding, error]
}

// CheckOptions configures Check. The zero value makes Check only report.
type CheckOptions struct {
	// Repair makes the repairs that are safe while other processes read and write.
	Repair bool

	// MergeDuplicates merges duplicate records: see KindDuplicate. MergeDuplicates requires
	// Repair.
	MergeDuplicates bool

	// Purge removes harmless remnants, which take space or cost money. Purge is safe only
	// while no other process writes to the store. Purge requires Repair.
	Purge bool

	// Permissions tests whether the service allows each call that the store makes. The test
	// uses a separate secret that is not a record, and writes even without Repair. Permissions
	// has no effect on stores in files and tables, or if the driver is not a driver.Inspector.
	Permissions bool

	// Compare tests whether the server refuses a write over a state that is not current. Every
	// driver promises this refusal, but some emulators accept such a write. The test creates a
	// secret that is not a record, even without Repair. It then tries to create the secret
	// again, to update one state of the secret twice, and to delete a replaced state. If the
	// server accepts one of these calls, Check repairs nothing. Compare has no effect on
	// stores in files and tables.
	Compare bool

	// Grace is the age at which Check assumes that the writer of an intermediate state has
	// died. 0 means a minute. If Grace is negative, Check assumes at any age that the writer
	// has died.
	Grace time.Duration

	// Progress, if it is not nil, is called repeatedly with the number of secrets listed so
	// far. The calls are made by the goroutine that iterates.
	Progress func(done int)
}

// defaultGrace is longer than the time between two writes of one operation.
const defaultGrace = time.Minute

// Complete returns a copy of o with defaults in place of zero values. A nil o counts as the
// zero value. The error matches tokenstore.ErrInvalidToken if MergeDuplicates or Purge is set
// without Repair.
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
