// Package migrate moves the records of one token store to another.
//
// [Plan] reads both stores and decides what becomes of each record. It writes nothing.
// [Migration.Report] returns the plan and the problems that stand in its way: records
// that the source has twice, that the target has in another state, or that it cannot
// hold. [Migration.Run] writes the records, reads every one of them back, and compares:
//
//	m, err := migrate.Plan(ctx, from, to, &migrate.Options{KeepIDs: true})
//	if err != nil {
//		return err
//	}
//	report, err := m.Run(ctx)
//
// A migration that was interrupted is repeated from its start: records that are in the
// target by then are only compared. The source is only read, unless
// [Options.DeleteSource] is set. Run then proves first that the two stores are
// different, and at its end removes the records that were verified and have not changed
// since.
//
// # Stores
//
// The two stores can be of any kind. Plan and Run use these methods of a store, if it
// has them, besides those of a [tokenstore.TokenStore]:
//
//   - SaveAll and DeleteAll, as filestore and sqlstore have them, save and remove many
//     records with one write.
//   - Fits, as they have it too, reports before the first write the records that the
//     store cannot hold.
//   - SameAs reports whether another store is this one under another name. With
//     DeleteSource, both stores must have it.
//   - DeleteIfUnchanged makes a store a [ConditionalDeleter]. With DeleteSource, the
//     source must be one.
//
// A program that writes to the source during a migration loses nothing: a record that
// has changed stays in the source, and the error says so. Writes to the target are
// kept, as Options.OnConflict says, if they come before Run looks the record up there.
package migrate
