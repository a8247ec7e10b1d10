package tokenstore

import (
	"context"
	"iter"

	"github.com/tokenkeep/tokenkeep/tokenstore/doctor"
)

// CheckOptions says what Check does besides reporting.
type CheckOptions = doctor.CheckOptions

// KindStoreUnkeyed is the kind of the finding that a store has no name key. Package
// doctor declares all kinds.
const KindStoreUnkeyed = doctor.KindStoreUnkeyed

var (
	_ doctor.Checker = (*Store)(nil)
	_ doctor.Rekeyer = (*Store)(nil)
)

// Check implements doctor.Checker. opts may be nil. Check reads all records, and then reads
// those that look faulty a second time. Each finding is thus based on a state as fresh as
// the backend allows. Check keeps digests of all records in memory, but no token.
//
// Each repair performs the step that the next writer would perform, by compare-and-swap. If
// a save was interrupted while it gave a record its user, Check completes the move and
// never undoes it. Repairs can be interrupted at any point and repeated. Check never writes
// over or deletes a secret that it cannot read. It leaves a record alone if its name does
// not fit the keys, because the Store may have the wrong keys.
//
// If the driver is a driver.Inspector, the check includes the data that the driver
// keeps beside the secrets. For other drivers, Check examines only the labels that each
// record was written with.
func (s *Store) Check(ctx context.Context, opts *CheckOptions) iter.Seq2[doctor.Finding, error] {
	return func(yield func(doctor.Finding, error) bool) {
		if err := s.begin(ctx); err != nil {
			yield(doctor.Finding{}, s.error("check", "", err))
			return
		}
		for f, err := range doctor.Check(ctx, s.ledger, opts) {
			if !yield(f, s.error("check", f.ID, err)) {
				return
			}
		}
	}
}

// Rekey implements doctor.Rekeyer. opts may be nil. Afterwards every record has a name by
// Options.NameKey, labels by the first of Options.IndexKeys, and the form that
// Options.Codec writes. The store then records that only these keys are in use, and all
// other keys can be removed from the configuration. A record keeps its ID even if its name
// changes.
//
// Rekey works while other processes read and write, as long as all of them know both
// the old and the new keys. The order is:
//
//  1. Give every program the new keys after the old ones (for names in OtherNameKeys).
//  2. Give every program the new keys before the old ones.
//  3. Call Rekey.
//  4. Remove the old keys.
//
// With NoKey among the keys, Rekey adds keys to a store without keys, or removes all keys.
//
// Rekey may be interrupted at any point. Called again, it continues with the records that
// are left. Every write is a compare-and-swap. Rekey reads each record back. After the last
// record, it reads the store once more, because a process with the old order of keys may
// have written meanwhile. If such a process keeps writing, the last error matches
// ErrConflict. A record that gets a new name leaves a redirect under the old name.
// Redirects that are younger than the backend's ListLag (a day, if it has no bound) are
// kept until Rekey is called again.
//
// A codec that is not a codec.Rotating cannot tell which records are left. Rekey then
// rewrites all records on every call. A record keeps only digests of its earlier tokens, by
// the old NameKey. Once that key is removed, these tokens no longer find the record.
//
// If the name of a record fits none of the keys, Rekey yields the record with an error
// matching ErrIDMismatch and leaves it alone. The store then still needs all the keys.
func (s *Store) Rekey(ctx context.Context, opts *doctor.RekeyOptions) iter.Seq2[doctor.Rekeyed, error] {
	return func(yield func(doctor.Rekeyed, error) bool) {
		if err := s.begin(ctx); err != nil {
			yield(doctor.Rekeyed{}, s.error("rekey", "", err))
			return
		}
		for r, err := range doctor.Rekey(ctx, s.ledger, s.o.LeaseTTL, opts) {
			if !yield(r, s.error("rekey", r.ID, err)) {
				return
			}
		}
	}
}
