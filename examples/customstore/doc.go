// Package customstore shows how to write a TokenStore, which the Zoho SDKs call a custom
// token store. Copy the store that is closer to your case:
//
//   - Memory is for records that a lock protects: records in the memory of a program, or in a
//     table with transactions.
//   - List is for records without a lock, if a write can depend on the version that was read:
//     records in one document, one object, or one key of a cache.
//
// A store only reads and writes records. Package tokenstore decides which record a token
// matches, how a save changes it, and which tokens are invalid:
//
//	Select     the record that a token describes
//	Merge      the token that FindToken returns
//	PlanSave   what SaveToken stores, over which record, and which records it merges
//	NewError   an error with the operation, the store and the ID
//
// Package conformance checks the remaining rules of the interface. The test in this
// directory runs the suite on both stores. A test of your store needs no more code.
//
// Both stores number their records, and refuse IDs that are not numbers. Their IDs therefore never
// equal an ID that package tokenstore derives.
package customstore
