package tokenstore

import (
	"context"
	"iter"

	"github.com/tokenkeep/tokenkeep/tokenstore/doctor"
)

// CheckOptions configures the repairs and additional tests of Store.Check.
type CheckOptions = doctor.CheckOptions

// KindStoreUnkeyed is the kind of the finding that a store has no name key. Package
// doctor declares all kinds.
const KindStoreUnkeyed = doctor.KindStoreUnkeyed

var (
	_ doctor.Checker = (*Store)(nil)
	_ doctor.Rekeyer = (*Store)(nil)
)

// Check implements doctor.Checker. opts may be nil. Check reads all records, and then rereads
// the records that look faulty. A finding about a readable record is therefore based on the
// newest state that the driver can prove. Check keeps digests of all records in memory, but
// no token.
//
// Check changes a record only by compare-and-swap. If a save was interrupted while it assigned
// a record to a user, Check completes the assignment and never undoes it. A repair that was
// interrupted at any point can be repeated. Check never overwrites or deletes a secret that it
// cannot read. If the name of a record does not fit the keys of s, these keys may be wrong.
// For such a record, Check only completes assignments and merges duplicates.
//
// If the driver is a driver.Inspector, Check also examines the data that the service keeps
// beside the secrets. For other drivers, Check examines only the labels with which each
// record was written.
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

// Rekey implements doctor.Rekeyer. opts may be nil. After an iteration without an error, all
// labels are derived from the first of Options.IndexKeys, and every record has the form that
// Options.Codec writes. The names of all records are derived from Options.NameKey, except
// names that derive from a token that the record no longer has. All other keys can then be
// removed from the configuration. A record keeps its ID even if its name changes.
//
// Other processes can read and write during Rekey if all of them have both the old and the
// new keys. Replace keys in this order:
//
//  1. Add the new keys to every program, after the old keys. The new name key goes into
//     OtherNameKeys.
//  2. In every program, move the new keys before the old keys. The new name key goes into
//     NameKey, and the old name key into OtherNameKeys.
//  3. Call Rekey.
//  4. Remove the old keys from every program.
//
// To add keys to a store without keys, use NoKey as the old key. To remove all keys, use NoKey
// as the new key.
//
// Rekey may be interrupted at any point. The next call continues with the remaining
// records. Every write is a compare-and-swap, and Rekey reads each written record back.
// After the last record, Rekey reads the store again, because a process with the old order of
// keys may have written meanwhile. If such a process keeps writing, the last error matches
// ErrConflict.
//
// A record that gets a new name leaves a redirect, a secret without tokens, under its old
// name. If searches lag, Rekey removes only redirects that are older than ListLag plus five
// minutes. An unbounded ListLag counts as a day. Later calls remove the other redirects.
//
// If Options.Codec is not a codec.Rotating, Rekey cannot tell which records remain, and
// rewrites all records on every call.
//
// A record keeps digests of its earlier tokens. Rekey does not replace a digest that was
// computed with the old NameKey, so searches by earlier tokens fail once that key is removed.
//
// If the name of a record fits none of the keys, Rekey does not change the record, and yields
// its name with an error matching ErrIDMismatch. In that case, no key can be removed from the
// configuration.
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
