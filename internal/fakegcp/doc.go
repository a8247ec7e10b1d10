// Package fakegcp simulates Google Cloud's Secret Manager for tests, over a real socket,
// with all data in memory. It has the part of the gRPC interface that
// cloud.google.com/go/secretmanager and a store of secrets need.
//
// It has global and regional secrets, etags, checksums, labels, annotations,
// aliases, filters, pages, permissions, quotas, a clock that tests control, and
// reads that lag. It enforces what Secret Manager documents. A comment beside each
// less obvious rule cites its source:
//
//   - proto: the comments of package secretmanagerpb, at the named field or method
//   - docs: https://cloud.google.com/secret-manager, the named page
//   - inferred: not documented; the fake takes the strictest behavior that Secret
//     Manager may have
//
// Tests inject faults with Inject, and read the calls with Calls and Count.
// Methods of the service that a test calls directly on the Server act as an
// operator: they are neither counted nor subject to faults.
package fakegcp
