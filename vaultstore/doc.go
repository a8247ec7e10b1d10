// Package vaultstore keeps OAuth token records in HashiCorp Vault, in a KV version 2
// secrets engine. OpenBao works too.
//
//	client, err := api.NewClient(api.DefaultConfig()) // VAULT_ADDR, VAULT_TOKEN, VAULT_NAMESPACE, …
//	...
//	store, err := vaultstore.New(client, "secret", "oauth/crm", nil)
//	...
//	token, err := store.FindToken(ctx, tokenstore.Token{UserName: "ann@example.com:6001", ClientID: "1000.CLIENT"})
//
// # Setup
//
// Mount a KV version 2 secrets engine, best one of its own, so that its settings can suit
// tokens (see "Storage"):
//
//	vault secrets enable -path=oauth -version=2 kv
//	vault write oauth/config max_versions=2
//
// The token of the client needs the policy that [Policy] returns, and no more. For the
// mount "secret" and the prefix "oauth/crm" that is
//
//	path "secret/data/oauth/crm/tokens/*"     { capabilities = ["create", "read", "update"] }
//	path "secret/metadata/oauth/crm/tokens/*" { capabilities = ["list", "read"] }
//	path "secret/destroy/oauth/crm/tokens/*"  { capabilities = ["update"] }
//	path "secret/metadata/oauth/crm/index/*"  { capabilities = ["create", "update", "list", "delete"] }
//
// With Options.Auth the store logs in by itself when the client has no token or Vault does
// not know it any more, so that a program which is frozen between calls needs no goroutine
// to renew it. The tokens should have the policy "default", as they do unless the role says
// otherwise: with it a store can tell an expired token from a policy that lacks something.
// OpenBao, and Vault before 1.17, refuse both in the same words. There a store without that
// policy logs in at most once in 30 seconds to find out.
//
// A mount of KV version 1 answers like an empty store, and keeps in the clear whatever it
// is sent. So a store learns once what is mounted, before it writes and before it says that
// a record does not exist: from an answer that only version 2 gives, or from
// sys/internal/ui/mounts, which a token may read if it has a policy for the mount. Where a
// proxy or a policy forbids that, it reads <mount>/config, and failing that makes a write
// on a condition that version 2 refuses. Another engine, or none, is ErrRefused. The prefix
// is the path of the secret: it does not begin with "data/" or another part of the API.
//
// # Storage
//
// A record is the secret
//
//	<mount>/data/<prefix>/tokens/<name>
//
// with one field, "record", or "record_base64" for a record that is not text. It is written
// with check-and-set: of writers that read the same version one succeeds. A record is found
// by secrets that have metadata only,
//
//	<mount>/metadata/<prefix>/index/<kind>/<digest>/<name>.<nonce>
//
// so that one LIST finds the names. They are added before the write that needs them and
// removed after the one that does not.
//
// A deleted record becomes a tombstone, a version with the field "deleted", and the
// versions before it are destroyed. The secret itself stays: if it were deleted with its
// metadata Vault would number its versions from 1 again, and a writer that had read version
// 1 of the old record would write over version 1 of the new one. For the same reason a
// Version holds the time of the version besides its number. That does not stop such a
// writer, for Vault compares the number alone: remove secrets with their metadata only
// while nothing else writes.
//
// Paths are readable in the audit log and by LIST. They hold digests, keyed ones if
// tokenstore.Options has keys, and never a token or a user name.
//
// KV keeps ten versions of a secret by default, and the earlier ones hold earlier tokens,
// which may still be valid. A store reads them only to find out whether a write was applied.
// Set max_versions to 2 on a mount of its own. More does no harm. With 1 a writer whose
// answer was lost and who was overtaken is told "unavailable", and looks again, where it
// could have been told that it had succeeded.
//
// # Calls
//
// The operations of package driver, of which those of a store consist, take
//
//	Get, Fresh    1
//	Create        1 for each label, at once; then 1, or 3 if the name was deleted before
//	Update        1 for each new label, at once; then 1; then 1 for each label that is gone
//	Delete        2, or 3 for a record with more than 32 versions; with the second, 1 for each label
//	Lookup        1 for each label, at once; then 1 for each secret, 16 at a time
//	List          1; then 1 for each secret, deleted ones included, 16 at a time
//	Names         1
//
// A driver that has not read a record yet makes one call more, once, before it writes, says
// that a record does not exist, or yields Names: it asks what is mounted.
//
// An Update that lost to another writer costs one call more, which looks at the version of
// that writer: the client repeats writes that failed, and the version may be of its own
// first attempt. So a write that was applied is never reported as lost.
//
// Retries, waits and time-outs are those of the client. A call that Vault refuses because
// the token has expired is made a second time after a login.
//
// # Limits
//
// A record has at most 64 KiB, so that it can be moved to the other services. Vault stores
// it as JSON, which makes it at most six times as long; that fits the smallest limit of a
// storage backend, 512 KiB. LIST has no pages: the names of all records come in one answer.
//
// # Consistency
//
// The active node of a cluster has one truth, and in Vault's Community Edition it answers
// everything: a write is read and found at once.
//
// The performance standbys of Vault Enterprise and, unless disable_standby_reads is set,
// the standbys of OpenBao 2.5 and later answer reads themselves, from what has reached
// them. There are three ways to live with that:
//
//   - Give the client the address of the active node.
//   - Where Vault Enterprise is configured with allow_forwarding_via_header, let the client
//     ask for the active node: client.AddHeader("X-Vault-Forward", "active-node"). Without
//     that setting Vault fails such a request, and OpenBao does not know the header.
//   - Set ListLag and ReadLag to how far behind a standby may be.
//
// With a lag set, Fresh and the reads of the writing methods ask for the active node by
// that header, until Vault refuses it. Where it is not honored Fresh waits until the node
// that answers has caught up with the state that the caller knows. Writes always go to the
// active node and decide: a lag costs waiting and repeated attempts, and no record.
//
// # Errors
//
//	400  ErrRefused; ErrConflict if it is the version; ErrUnavailable while the
//	     engine is being upgraded
//	401  ErrDenied with ErrCredentials
//	403  ErrDenied; with ErrCredentials if Vault says that the token is not valid,
//	     or if the client has none
//	404  ErrNotFound; ErrRefused if it is the mount or the namespace
//	412, 423, 429, 472, 473 and 5xx
//	     ErrUnavailable; ErrRefused if what was sent is too large
//	other 4xx
//	     ErrRefused
//
// A connection that fails is ErrUnavailable. If it fails because of the scheme of the
// address or the certificate it is ErrRefused. Lists and checks name a secret that cannot
// be read and go on.
//
// # Other programs
//
// Delete records with a store or the command tokenkeep. A writer that has read the record
// undoes a "vault kv delete". Do not set delete_version_after: a record would disappear.
// "tokenkeep doctor" reports it while the record exists.
//
// A tombstone is left for each deleted name, and index entries by writes that were
// abandoned or lost to others. Neither is ever taken for a record. A process that dies in
// the middle of Delete leaves the versions before the tombstone. The same Delete, repeated,
// destroys them, and so does the next one of that name. "tokenkeep doctor" finds all of
// these, and removes tombstones when it is told that nothing else writes.
package vaultstore
