// Package customstore shows how to write a TokenStore of one's own: what the Zoho
// SDKs call a custom token store. Copy the one that is closer to what you have.
//
//   - Memory keeps records where a lock keeps others out while it reads, decides and
//     writes: in the memory of a program, or a table in a transaction.
//   - List keeps them where there is no lock, but a write can be made to depend on
//     what was read: one document, one object, one key of a cache.
//
// What is left to a store is to get at the records. What a token matches, what a save
// does to which record, and what is refused is decided by package tokenstore:
//
//	Select     which of the records a token describes
//	Merge      what FindToken returns of it
//	PlanSave   what SaveToken stores, over which record, and which it absorbs
//	NewError   how errors say what failed where
//
// Package conformance checks the rest. Its test of both stores is in this folder, and
// is all that a test of a store needs; it found the mistakes that are easy to make.
//
// Both have IDs that are counted, and refuse others: then nobody can take an ID for
// one of those that stores of package tokenstore derive.
package customstore
