package tokenstore

import (
	"context"
	"iter"

	"github.com/tokenkeep/tokenkeep/tokenstore/doctor"
)

// CheckOptions says what Check is to do besides looking.
type CheckOptions = doctor.CheckOptions

// KindStoreUnkeyed is the kind of finding that says that a store has no name key.
// Package doctor has all kinds.
const KindStoreUnkeyed = doctor.KindStoreUnkeyed

var (
	_ doctor.Checker = (*Store)(nil)
	_ doctor.Rekeyer = (*Store)(nil)
)

// Check implements doctor.Checker. It reads all records, and once more those that
// look as if something were wrong: what it reports it has read as fresh as the
// backend allows. It keeps digests of all records in memory, and no token.
//
// Each repair performs the step that the next writer would, by compare-and-swap. An
// interrupted promotion is completed, never rolled back. Repairs can be interrupted
// at any point and done again. Check never writes over or deletes what it cannot
// read. It leaves a record alone whose name does not fit, because the keys that the
// Store was given may be the wrong ones.
//
// If the driver is a driver.Inspector the check includes what it keeps beside the
// secrets. For other drivers labels are compared only with what the records say.
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

// Rekey implements doctor.Rekeyer. After it every record is named by Options.NameKey,
// its labels are by the first of Options.IndexKeys, and its bytes are as
// Options.Codec writes them. The store then says that it is under these keys alone:
// all others can be taken out of the configuration. A record keeps its ID whatever
// its name is.
//
// Rekey works while others read and write, as long as all of them know both the old
// and the new keys. Give every program the new keys behind the old ones (for names
// in OtherNameKeys), then before them, then call Rekey, then take out the old ones.
// NoKey among the keys brings keys into a store without, and takes them out of one.
//
// Rekey may be interrupted at any point. Called again it goes on with what is left,
// by compare-and-swap like any write. Each record is read back, and when all are
// done the store is read once more, because a process with the old order of keys may
// have written meanwhile. If such a process goes on writing, the last error matches
// ErrConflict. Aliases that are younger than the backend's ListLag (a day, if it
// has no bound) stay until it is called again.
//
// A codec that is not a codec.Rotating cannot tell which records are left: then all
// are rewritten, each time. A record keeps only a digest by the old NameKey of its
// earlier tokens. They no longer find it once that key is taken out.
//
// A record whose name fits none of the keys is yielded with an error matching
// ErrIDMismatch and left alone, and the store goes on to be under all the keys.
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
