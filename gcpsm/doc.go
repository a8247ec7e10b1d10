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
// Without versions.get and versions.destroy a store works, but old versions stay and cost
// money. The role can be granted under the condition that the name begins with the prefix,
// with the project's number, not its ID:
//
//	resource.name.startsWith("projects/123456789/secrets/oauth-")
//
// secrets.list and secrets.create are asked of the project, which has no such name: put
// those two in a role that is granted without the condition. An account that may list sees
// the names, labels and annotations of all secrets of the project.
//
// With Options.KMSKey or the keys of Options.Replicas, Secret Manager's service agent needs
// roles/cloudkms.cryptoKeyEncrypterDecrypter on each key.
//
// # Storage
//
// A record is the secret
//
//	<parent>/secrets/<prefix>-<name>
//
// Its state is the version that the alias "current" means; "latest" may be one that was
// never committed. The payload is the record behind a line
//
//	tokenkeep1 <incarnation>
//
// where the incarnation is random, and the same from the creation of the secret to its
// deletion. To see a record:
//
//	gcloud secrets versions access current --secret=oauth-u4fz…
//
// A record is found by labels, one for each kind,
//
//	<kind>_<24 characters of a digest>: <the other 8>
//
// since a label has one value, and keys and values have 63 characters at most. One
// ListSecrets finds a record by any of several. One annotation, "tokenkeep", holds the
// incarnation, the number and the etag of the current version and a digest of its content,
// the lease of a refresh, and the versions that are to be destroyed. Other labels,
// annotations and aliases of a secret stay as they are.
//
// Names, labels and annotations are readable in audit logs and in the notifications of
// Pub/Sub topics. They hold digests, keyed ones if tokenstore.Options has keys, and never a
// token or a user name.
//
// A write adds a version, which no reader sees. Then it makes the version the state by one
// UpdateSecret, which moves the alias, the labels and the annotation together and carries
// the etag of the secret that was read. Of several writers one succeeds. Another one
// destroys the version that it has added, if the refusal leaves no doubt. The next commit
// finds the version of a writer who died, because its number is between two states.
//
// A version that is not the state any more stays for two hours, for readers that are
// behind. Then the next write destroys it, and so does it with one that never was the
// state. A destruction carries the etag of the version, which was stored in the annotation
// under the etag of the secret: a secret that was deleted and created again has versions of
// the same numbers, and other etags. Each write looks at 16 versions at most.
//
// A write destroys after its commit, which proves that none of the versions is the state.
// If the process dies in between, or the answer of the commit is lost, or a destruction
// fails and this process does not write the record again soon, a version stays that is
// listed nowhere. It costs as much as an active version until it is destroyed by hand, or
// the record is deleted.
//
// A lease of a refresh is one UpdateSecret of the annotation: it makes no version.
//
// A deletion is final, and also carries the etag. A secret without a state, which a process
// has created before it died, is not a record. The next save of the same record adopts it.
//
// # Calls
//
// The operations of package driver, of which those of a store consist, take
//
//	Get       1
//	Fresh     1, or 2 if the state is not the one the caller knows
//	Create    3
//	Update    3, and 1 for each version that is due
//	Note      1 after Fresh
//	Delete    2
//	Lookup    1; then 1 for each secret, 16 at a time
//	List      1 for each 25,000; then 1 for each secret, 16 at a time
//	Names     1 for each 25,000
//
// Update and Delete take one call less if this driver has just written the secret or asked
// Fresh for it: it remembers the etags of the last 256 secrets. These are not tokens, and
// an etag that is out of date costs one call. Other writers, and reads that contradict each
// other, cost further calls.
//
// Reads are repeated when the service is unavailable or the quota used up, writes only in
// the second case: first after 0.1 seconds (the client's own default is 2), then after up
// to 3, for 20 seconds or as long as the context lasts. Then the error matches
// tokenstore.ErrUnavailable.
//
// # Cost
//
// By https://cloud.google.com/secret-manager/pricing a version that is not destroyed costs
// $0.06 a month in each location (one, with automatic replication), and 10,000 accesses
// cost $0.03. Management calls are free. A record that is refreshed every hour has 3
// versions, after months as after hours: $0.18 a month. A record that is not written any
// more keeps its versions.
//
// A program that finds a record by its user once a minute makes 43,200 accesses a month,
// which are $0.13.
//
// # Limits
//
// A record has at most 65,508 bytes: the room that is left of 64 KiB. With Options.Labels a
// secret has at most the 64 labels that Google Cloud allows.
//
// By https://cloud.google.com/secret-manager/quotas a project has 90,000 accesses, 600
// reads of metadata and 600 writes a minute, and a secret about 2 writes a second (80 in a
// location). A refresh takes 3 writes (the lease, the version, the commit), a fourth that
// destroys, and 1 or 2 reads: a project can have 150 refreshes a minute, which is 9,000
// tokens of one hour. A search by user and client, or by ID, takes accesses alone, and so
// does waiting for the refresh of another process. A search by the user alone, or by a
// token, takes one of the 600 reads. GetTokens of many records takes a few reads and an
// access for each.
//
// # Consistency
//
// Secret Manager promises one thing of reads: a version is read by its number as soon as it
// was added. All else, the alias, the metadata and lists, "typically converges within
// minutes, but may take a few hours"
// (https://cloud.google.com/secret-manager/docs/consistency). So ListLag and ReadLag are
// driver.Unbounded. Etags decide about writes, on the true state:
//
//   - A reader by the alias may see an earlier state for a while, and a search may miss a
//     new record. If the version behind the alias is destroyed the metadata are asked for
//     the newest. If they are behind too, which shows in a later version that can be read,
//     the error matches ErrUnavailable, and never ErrNotFound.
//   - A driver reads its own writes: if it has seen a later state than the alias shows, it
//     reads that one by its number.
//   - Before Fresh says that a record does not exist it looks for its version 1 by number.
//   - A writer who reads metadata that are behind is refused. It waits for them for up to
//     ten seconds, and is then told that there was a conflict.
//
// A lag costs waiting and repeated attempts, and no record, no update and no second request
// for a token.
//
// # Errors
//
// An error of the service has a class of package driver by its code, and by the reason in
// its details or text where the code does not tell:
//
//	NOT_FOUND            ErrNotFound; ErrRefused if the project, the location or the
//	                     key does not exist
//	ALREADY_EXISTS       ErrExists
//	FAILED_PRECONDITION  of UpdateSecret, DeleteSecret and DestroySecretVersion:
//	                     ErrConflict, it is the etag. Of the other calls, and
//	                     with a policy or a key as the reason: ErrRefused
//	PERMISSION_DENIED    ErrDenied; ErrRefused if the API is not enabled, billing
//	                     is off, or a policy of the organization forbids it
//	UNAUTHENTICATED      ErrDenied with ErrCredentials; ErrUnavailable with
//	                     ErrCredentials if a token could not be fetched
//	INVALID_ARGUMENT,    ErrRefused; ErrUnavailable if a checksum shows that a
//	OUT_OF_RANGE,        payload was damaged on its way
//	UNIMPLEMENTED
//	RESOURCE_EXHAUSTED   ErrUnavailable; ErrRefused if the quota is 0
//	all others           ErrUnavailable; ErrRefused if it is the certificate
//
// # Emulators
//
// A server that accepts a write and does not keep all of it, as emulators of a part of the
// service do, is refused by the first write: ErrRefused.
//
// # Other programs
//
// Labels, annotations and aliases of one's own may be put on a secret at any time. Moving
// the alias "current" back to a version that still exists rolls the record back; a writer
// that had read the later one is refused. A version that was added by hand is not a state.
// If the alias is moved to one that does not begin with the line above, the record is
// ErrCorrupt. So is it without the alias, which "tokenkeep doctor --repair" restores.
//
// A version that was disabled or destroyed by hand, and a key that is disabled, make the
// record unreadable too: ErrRefused, at once and with the service's text. A missing
// permission on one secret is ErrDenied. Lists report such a record by its name and go on.
//
// Do not set expiration or version_destroy_ttl: the first deletes the record, and the
// second makes old versions cost money for longer. "tokenkeep doctor" reports a secret that
// expires.
package gcpsm
