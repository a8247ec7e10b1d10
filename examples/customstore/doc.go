// Package customstore shows how to implement tokenstore.TokenStore. The Zoho SDKs call such an
// implementation a custom token store. Copy the store that is closer to your case:
//
//   - Memory is for records that a lock protects: records in the memory of a program, or in a
//     table with transactions.
//   - List is for records that a conditional write replaces together: records in one document,
//     in one object, or under one key of a cache.
//
// A store only reads and writes records. Functions of package tokenstore apply the rules:
//
//	Validate   returns an error if no store accepts the token
//	Select     finds the record that a token describes
//	Merge      returns the token for FindToken to return
//	PlanSave   returns the record for SaveToken to store, and the records to replace
//	NewError   returns an error with the operation, the store and the ID
//
// Package conformance contains a suite that checks whether a store follows the rules of the
// interface. The tests in this directory run the suite on both stores. A test of your store
// needs no more code.
//
// Both stores number their records, and refuse a new record whose ID is not a positive number.
// The IDs of these stores therefore never equal an ID that package tokenstore derives.
package customstore
