// Package fakegcp simulates Google Cloud's Secret Manager for tests, over a real socket, with
// all data in memory. It implements the methods of the gRPC interface that package gcpsm and
// its tests need.
//
// The package supports global and regional secrets, etags, checksums, labels, annotations,
// aliases, filters, pages, permissions and quotas. Tests can advance the clock, and can make
// reads lag. The package enforces the documented rules of Secret Manager. A comment beside each
// less obvious rule cites the source of the rule:
//
//   - proto: the comments of package secretmanagerpb, at the named field or method
//   - docs: https://cloud.google.com/secret-manager, the named page
//   - inferred: not documented; the fake has the strictest behavior that Secret Manager may
//     have
//
// Tests inject faults with Inject, and read the calls with Requests and Count. A test can also
// call the methods of the Server directly, as an operator. Direct calls are not counted, and
// are not subject to faults, permissions or quotas.
package fakegcp
