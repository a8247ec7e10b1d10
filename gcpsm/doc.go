// Package gcpsm keeps OAuth token records in Google Cloud Secret Manager.
//
//	client, err := secretmanager.NewClient(ctx) // the usual Google credentials
//	...
//	store, err := gcpsm.New(client, "projects/crm-prod", "oauth", nil)
//	...
//	token, err := store.FindToken(ctx, tokenstore.Token{UserName: "ann@example.com:6001", ClientID: "1000.CLIENT"})
//
// # Setup
//
// Enable the API secretmanager.googleapis.com. The program's service account needs the
// permissions that [Permissions] returns, in a custom role:
//
//	secretmanager.secrets.create
//	secretmanager.secrets.delete
//	secretmanager.secrets.get
//	secretmanager.secrets.list
//	secretmanager.secrets.update
//	secretmanager.versions.access
//	secretmanager.versions.add
//	secretmanager.versions.destroy
//	secretmanager.versions.get
//
// The last two permissions are optional. Without versions.destroy, replaced versions stay active
// and cost money. Without versions.get, versions that were never committed may stay active. To
// limit the role to the prefix, grant the role with a condition that contains the number, not the
// ID, of the project:
//
//	resource.name.startsWith("projects/123456789/secrets/oauth-")
//
// The permissions secrets.list and secrets.create apply to the project, whose name does not match
// the condition. Grant these two permissions in a second role, without the condition. An account
// that may list secrets can see the names, labels and annotations of all secrets in the project.
//
// If you set Options.KMSKey or the KMSKey of a Replica, Secret Manager's service agent needs
// the role roles/cloudkms.cryptoKeyEncrypterDecrypter on each key.
//
// # Storage
//
// A record is a secret named
//
//	<parent>/secrets/<prefix>-<name>
//
// The state of the record is the version to which the alias "current" points. The alias "latest"
// may point to a version that was never committed. The payload of a version is the line
//
//	tokenkeep1 <incarnation>
//
// followed by the record. The incarnation is random, and stays the same until the secret is
// deleted. To see a record:
//
//	gcloud secrets versions access current --secret=oauth-u4fz2k6q3w7x5c2a
//
// Searches find a record by its labels. Each label has the key and the value
//
//	<kind>_<24 characters of a digest>: <the other 8 characters>
//
// The key contains part of the digest, because a secret can have several labels of one kind, and
// each label needs its own key. One call of ListSecrets can search for several labels. The
// annotation "tokenkeep" holds the incarnation, the lease of a refresh, and the versions to
// destroy. The annotation also holds the number and etag of the current version, and a digest of
// the record. The driver preserves other labels, annotations and aliases of a secret.
//
// Names, labels and annotations appear in audit logs and in notifications to Pub/Sub topics. The
// driver writes no token and no user name into names, labels and annotations. The digests in names
// and labels are keyed with the NameKey and IndexKeys of tokenstore.Options, if these keys are set.
//
// A write first adds a version, to which the alias does not point yet. Then one UpdateSecret with
// the etag that the writer has read changes the alias, the labels and the annotation together. If
// several writers have read the same state, at most one succeeds. A writer whose update is refused,
// or conflicts with another update, destroys the version that it added. If the writer is killed,
// the next commit finds that version by its number, which lies between the numbers of two states.
//
// A replaced version stays for two hours, because readers may lag. The next write after that time
// destroys the version. Versions that never became the state are destroyed in the same way. Each
// request to destroy a version carries the etag of the version. If the annotation does not hold the
// etag, one write stores the etag, and a later write destroys the version. If the secret is deleted
// and created again, the new versions have the old numbers but different etags. Each write destroys
// or examines at most 16 versions.
//
// A write destroys earlier versions only after its UpdateSecret, which proves that none of these
// versions is the state. A commit also removes these versions from the annotation. A version
// therefore remains if the process is killed between the commit and the destruction of the version,
// if the response to the commit is lost, or if the destruction fails. If the destruction fails,
// only the next commit of the same process tries again. A remaining version costs as much as any
// active version until an operator destroys the version or the record is deleted.
//
// A refresh of a record with a user takes its lease with one UpdateSecret of the annotation,
// without a new version.
//
// A deletion is permanent. The request carries the etag of the secret. A process that is killed
// while it creates a record may leave a secret without a state. Such a secret is not a record. The
// next save of the same record reuses the secret.
//
// # Calls
//
// The operations of package driver, from which the operations of a store are built,
// make these calls:
//
//	Get       1
//	Fresh     1, or 2 if the caller passes no state; 1 access, and no read of
//	          metadata, if a read has just reported that the record does not exist
//	Create    3
//	Update    3, of which 2 are concurrent, and 1 for each version that is due
//	Note      1 after Fresh
//	Delete    2
//	Lookup    1; then 1 for each secret, 16 at a time
//	List      1 for each 25,000; then 1 for each secret, 16 at a time
//	Names     1 for each 25,000
//
// The driver caches the metadata of up to 256 secrets that the driver has written or that Fresh has
// read. Update and Delete make one call fewer if the metadata are in the cache. If the cached etag
// is outdated, Update and Delete make one call more than without the cache. An Update with an
// outdated base may make one more call, which destroys the version that the Update added.
// Concurrent writers and stale reads cause further calls.
//
// The driver repeats reads if the service is unavailable or a quota is exhausted. The driver
// repeats writes only if a quota is exhausted. Pauses are random. The first pause is at most 0.1
// seconds, and later pauses are at most 3 seconds. Repetitions end after 20 seconds, or shortly
// before the deadline of the context. After the last repetition, the error matches
// tokenstore.ErrUnavailable, or tokenstore.ErrThrottled for a quota. A refresh that waits for
// another process does not repeat throttled reads, because the refresh soon reads again.
//
// # Cost
//
// According to https://cloud.google.com/secret-manager/pricing, a version that is not destroyed
// costs $0.06 a month in each location. Automatic replication counts as one location. 10,000
// accesses cost $0.03. Management calls are free. A record that is refreshed every hour has about 3
// active versions at any time, at a cost of $0.18 a month. After the last write of a record, the
// versions that were replaced within the previous two hours stay active.
//
// A program that finds a record by user and client once a minute makes 43,200 accesses a month, at
// a cost of $0.13.
//
// # Limits
//
// A record has at most 65,508 bytes: 64 KiB without the first line. Google Cloud allows at most 64
// labels on a secret, including the labels in Options.Labels.
//
// According to https://cloud.google.com/secret-manager/quotas, a project can make 90,000 accesses,
// 600 reads of metadata and 600 writes a minute. A secret accepts about 2 writes a second, and a
// regional secret 80. A refresh takes 4 writes (lease, version, commit, destruction of a version),
// and 1 or 2 reads of metadata. A project can therefore make 150 refreshes a minute, enough for
// 9,000 tokens with a lifetime of one hour. A look-up by user and client, or by an ID that
// SaveToken chose, takes only accesses. Waiting for the refresh of another process also takes only
// accesses. A search by user alone, or by token, takes one of the 600 reads of metadata. GetTokens
// takes one read of metadata for each 25,000 secrets, and one access for each record.
//
// # Consistency
//
// Secret Manager guarantees only that a version can be read by its number as soon as the version
// has been added. Everything else, including the alias, the metadata and lists, "typically
// converges within minutes, but may take a few hours"
// (https://cloud.google.com/secret-manager/docs/consistency). ListLag and ReadLag are therefore
// driver.Unbounded. Etags protect writes, because the service compares the etag of a write with the
// etag of the newest state. The driver handles stale reads as follows:
//
//   - A read by the alias may return an earlier state for a while, and a search may miss a new
//     record. If the version to which the alias points was destroyed, the driver reads the metadata
//     to find the newest version. If the metadata also stay stale for ten seconds, the error
//     matches ErrUnavailable rather than ErrNotFound.
//   - A driver reads its own writes: if the cache shows a later state than the alias, the driver
//     reads the later state by number.
//   - If the service returns no metadata, Fresh reads version 1 by number. Fresh then reports that
//     the record does not exist only if there is no version 1.
//   - Secret Manager refuses a write with the etag of stale metadata. The driver waits up to ten
//     seconds for current metadata. If the metadata stay stale, the error matches ErrConflict.
//
// A lag can cause waiting and further calls, but never the loss of a record or an update. A lag
// also never causes a second request to the authorization server.
//
// # Errors
//
// The class of an error depends on the code that the service returns. For some codes, the class
// also depends on the reason in the details, or on the text of the error:
//
//	NOT_FOUND            ErrNotFound; ErrRefused if the project, the location or the
//	                     key does not exist
//	ALREADY_EXISTS       ErrExists
//	FAILED_PRECONDITION  ErrConflict for UpdateSecret, DeleteSecret and
//	                     DestroySecretVersion, because the etag is outdated; ErrRefused
//	                     for other calls, and if a policy or a key is the reason
//	PERMISSION_DENIED    ErrDenied; ErrRefused if the API is not enabled, billing
//	                     is off, or a policy of the organization forbids the call
//	UNAUTHENTICATED      ErrDenied with ErrCredentials; ErrUnavailable with
//	                     ErrCredentials if a token could not be fetched
//	INVALID_ARGUMENT,    ErrRefused; ErrUnavailable if a checksum shows that a
//	OUT_OF_RANGE,        payload was damaged in transit
//	UNIMPLEMENTED
//	RESOURCE_EXHAUSTED   ErrThrottled; ErrRefused if the quota is 0
//	other codes          ErrUnavailable; ErrRefused if the TLS handshake fails
//
// # Emulators
//
// Some emulators accept a write, but do not store all fields. The first write to such a server
// fails with an error matching ErrRefused.
//
// # Other programs
//
// An operator can roll a record back by moving the alias "current" to an earlier version. An Update
// over the later version then fails with an error matching ErrConflict. A version that another tool
// adds is not the state until the alias points to it. If the alias points to a version without the
// line "tokenkeep1 <incarnation>", reads fail with an error matching ErrCorrupt. A record without
// the alias is also unreadable; "tokenkeep doctor --repair" restores the alias.
//
// A record is also unreadable if an operator has disabled or destroyed the current version, or
// disabled the key. The error matches ErrRefused and contains the service's text. If a permission
// on one secret is missing, the error matches ErrDenied. Lists report an unreadable record by name,
// and continue.
//
// Do not set an expiration, which deletes the record, or version_destroy_ttl, which delays the
// destruction of old versions. "tokenkeep doctor" reports a secret that expires.
package gcpsm
