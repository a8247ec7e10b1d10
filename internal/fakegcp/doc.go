// Package fakegcp is a Secret Manager for tests: the part of Google Cloud's
// gRPC interface that cloud.google.com/go/secretmanager and a store of secrets
// need, spoken over a real socket and kept in memory.
//
// It has global and regional secrets, etags, checksums, labels, annotations,
// aliases, filters, pages, permissions, quotas, a clock of one's own and readers
// that lag. It enforces what Secret Manager documents; a rule that is easily
// forgotten has its source in a comment beside it:
//
//   - proto: the comments of package secretmanagerpb, at the named field or method
//   - docs: https://cloud.google.com/secret-manager, the named page
//   - inferred: not documented, and what the fake does is the stricter of what
//     Secret Manager may do
//
// Tests break things on purpose with Inject, and look at what was asked for with
// Calls and Count. A method of the service that a test calls on the Server itself
// is an operator's: it is neither counted nor broken.
package fakegcp
