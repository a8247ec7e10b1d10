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

// Check implements doctor.Checker. It reads all records, and then reads those that look
// faulty again: each finding rests on a state as fresh as the backend allows. Check
// keeps digests of all records in memory, but no token.
//
// Each repair performs the step that the next writer would, by compare-and-swap. An
// interrupted promotion is completed, never rolled back. Repairs can be interrupted at
// any point and repeated. Check never writes over or deletes a secret that it cannot
// read. It leaves a record alone if the name does not fit, because the Store may have
// been given the wrong keys.
//
// If the driver is a driver.Inspector, the check includes the data that the driver
// keeps beside the secrets. For other drivers, Check compares labels only with the
// contents of the records.
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

// Rekey implements doctor.Rekeyer. Afterwards every record is named by Options.NameKey,
// its labels are by the first of Options.IndexKeys, and its bytes are as Options.Codec
// writes them. The store then says that it is under these keys alone, and all others
// can be removed from the configuration. A record keeps its ID even if its name
// changes.
//
// Rekey works while other processes read and write, as long as all of them know both
// the old and the new keys. The order is:
//
//  1. Give every program the new keys behind the old ones (for names in OtherNameKeys).
//  2. Give every program the new keys before the old ones.
//  3. Call Rekey.
//  4. Remove the old keys.
//
// NoKey among the keys brings keys into a store without any, or takes them out again.
//
// Rekey may be interrupted at any point. Called again, it continues with the records
// that are left. Every write is a compare-and-swap. Rekey reads each record back. When
// all are done it reads the store once more, because a process with the old order of
// keys may have written meanwhile. If such a process goes on writing, the last error
// matches ErrConflict. Redirects that are younger than the backend's ListLag (a day, if
// it has no bound) stay until Rekey is called again.
//
// A codec that is not a codec.Rotating cannot tell which records are left. Rekey then
// rewrites all records on every call. Of its earlier tokens a record keeps only digests
// by the old NameKey. Once that key is removed, these tokens no longer find the record.
//
// If the name of a record fits none of the keys, Rekey yields it with an error matching
// ErrIDMismatch and leaves it alone. The store then remains under all the keys.
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
