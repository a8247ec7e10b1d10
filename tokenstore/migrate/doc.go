// Package migrate copies the records of one token store to another. On request, it then removes
// the copied records from the first store.
//
// [Plan] reads both stores and decides how to copy each record. It writes nothing.
// [Migration.Report] returns the plan and its problems. By default, a record has a problem if
// the source has duplicates of the record, or if the target has the record in another state. A
// record that the source cannot read, or that the target cannot hold, also has a problem.
// [Migration.Run] writes the records. Unless Options.OnConflict is [Merge], Run then verifies
// each record, by reading the record back from the target and comparing the fields. For example:
//
//	m, err := migrate.Plan(ctx, from, to, &migrate.Options{KeepIDs: true})
//	if err != nil {
//		return err
//	}
//	report, err := m.Run(ctx)
//
// Run saves and reads many records concurrently. It increases the number of concurrent calls
// until the service throttles calls, and repeats throttled calls.
//
// To continue an interrupted migration, call Plan and Run again. Run does not write records
// that the target already has. Run writes to the source only if [Options.DeleteSource] is set.
// With this option, Run first proves that the two stores are different. At the end, Run removes
// from the source the records that were verified and have not changed since Plan.
//
// # Stores
//
// The two stores can be of any kind. In addition to the methods of a [tokenstore.TokenStore],
// Plan and Run use the following methods if a store has them:
//
//   - SaveAll and DeleteAll, as in filestore and sqlstore, save and remove many records
//     with one write.
//   - Create and FindTokens, as in tokenstore.Store, need few calls. Create creates a record
//     without a preceding search. FindTokens finds many records for the plan and the
//     verification.
//   - Fits, as in filestore and sqlstore, reports the records that the store cannot hold,
//     before the first write.
//   - SameAs reports whether another store is the same store under another name. With
//     DeleteSource, both stores must have this method.
//   - DeleteIfUnchanged, the method of a [ConditionalDeleter], removes a record that has not
//     changed. With DeleteSource, the source must have this method.
//
// A program can write to the source during a migration without losing a change. Run does not
// delete a record that has changed in the source, and the error names the record. If another
// program writes a record to the target before Run searches for the record, Run applies
// Options.OnConflict.
package migrate
