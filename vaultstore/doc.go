// Package vaultstore keeps OAuth token records in HashiCorp Vault, in a KV version 2 secrets
// engine. The package also works with OpenBao.
//
//	client, err := api.NewClient(api.DefaultConfig()) // VAULT_ADDR, VAULT_TOKEN, VAULT_NAMESPACE
//	...
//	store, err := vaultstore.New(client, "secret", "oauth/crm", nil)
//	...
//	token, err := store.FindToken(ctx, tokenstore.Token{UserName: "ann@example.com:6001", ClientID: "1000.CLIENT"})
//
// # Setup
//
// Mount a KV version 2 secrets engine, preferably a separate engine for tokens (see "Storage"):
//
//	vault secrets enable -path=oauth -version=2 kv
//	vault write oauth/config max_versions=2
//
// The client's token needs only the policy that [Policy] returns. For the mount "secret" and
// the prefix "oauth/crm", the policy has these rules:
//
//	path "secret/data/oauth/crm/tokens/*"     { capabilities = ["create", "read", "update"] }
//	path "secret/metadata/oauth/crm/tokens/*" { capabilities = ["list", "read"] }
//	path "secret/destroy/oauth/crm/tokens/*"  { capabilities = ["update"] }
//	path "secret/metadata/oauth/crm/index/*"  { capabilities = ["create", "update", "list", "delete"] }
//
// With Options.Auth, the store logs in if the client has no token, or if the token has expired or
// was revoked. A program therefore needs no goroutine that renews the token, even if the program is
// frozen between calls. The tokens should have the policy "default", which logins grant unless
// configured otherwise. With this policy, a store can distinguish an expired token from a missing
// permission. OpenBao, and Vault before 1.17, send the same text for an expired token and for a
// missing permission. On these servers, a store whose token lacks the policy logs in again after a
// denied call, at most once every 30 seconds.
//
// A KV version 1 engine answers reads as an empty version 2 engine does, and stores any write
// unchanged. A store therefore checks the version of the engine once, before the store first writes
// or first reports that a record does not exist. A response that only version 2 sends proves the
// version. Without such a response, the store reads sys/internal/ui/mounts/<mount>, which a token
// with a policy for the mount may read. If a proxy or a policy forbids that call, the store reads
// <mount>/config. If that call is also forbidden, a store that is about to write first makes a
// conditional write that version 2 refuses. If the mount has another engine or no engine, the error
// matches ErrRefused. The first element of the prefix must not be "data" or another path element of
// the engine's API.
//
// # Storage
//
// A record is a secret at
//
//	<mount>/data/<prefix>/tokens/<name>
//
// The secret has one field: "record", or "record_base64" if the record is not valid UTF-8. The
// driver writes the secret with check-and-set. If several writers have read the same version, at
// most one of their writes succeeds. The driver finds a record by index entries, which are secrets
// with metadata only:
//
//	<mount>/metadata/<prefix>/index/<kind>/<digest>/<name>.<nonce>
//
// One LIST returns the names of all records with a label. The driver adds an entry before the first
// write of a record with the label. The driver removes the entry after the first write without the
// label, or during a later write.
//
// A deletion writes a tombstone, which is a version with the field "deleted", and destroys the
// earlier versions. The driver does not delete the secret itself. If the driver deleted the secret,
// Vault would number the versions of a new record from 1 again. A writer that had read version 1 of
// the old record could then overwrite version 1 of the new record. A driver.Version also contains a
// time, which distinguishes the two versions with the number 1. The time does not prevent the
// overwrite, because Vault compares only the number. Delete secrets together with their metadata
// only while no process writes.
//
// Paths appear in the audit log and in the responses to LIST. Paths contain digests, but never a
// token or a user name. The digests are keyed with the NameKey and IndexKeys of tokenstore.Options,
// if these keys are set.
//
// By default KV keeps ten versions of a secret. The earlier versions contain earlier tokens, which
// may still be valid. Except during checks, a store reads an earlier version only to find out
// whether a write was applied. On a separate mount, set max_versions to 2. A larger number works,
// but keeps more of the earlier tokens. If max_versions is 1 and the response to a write is lost,
// the next write may remove the version that the first write created. The first write then fails
// with an error matching ErrUnavailable even though it was applied.
//
// # Calls
//
// The operations of package driver, from which the operations of a store are built, make these
// calls:
//
//	Get, Fresh    1
//	Create        1 for each label, concurrently; then 1, or 3 if the name has a tombstone
//	Update        1 for each new label, concurrently; then 1; then 1 for each removed label
//	Delete        2, or 3 for a record with more than 32 versions; also 1 for each label
//	Lookup        1 for each label, concurrently; then 1 for each secret, 16 at a time
//	List          1; then 1 for each secret, including tombstones, 16 at a time
//	Names         1
//
// A driver that has not yet read a record makes an additional call to find out which engine is
// mounted (see "Setup"). The driver makes this call before it first writes, reports that a record
// does not exist, or yields a name.
//
// If Vault refuses an Update because of the version, the driver makes one more call to read the
// version after the base. The client repeats failed writes, so an earlier attempt of the same
// Update may have created that version. If that version has the data of the Update, the Update
// succeeds. A write that was applied is therefore never reported as a conflict.
//
// The client controls retries, pauses and timeouts.
//
// # Limits
//
// The size of a record is limited to 64 KiB, so that most records can move to the other services.
// Vault stores the record as JSON, which is at most six times as long. The JSON fits the smallest
// limit of a storage backend, 512 KiB. LIST has no pages: one response contains the names of all
// records.
//
// # Consistency
//
// In Vault's Community Edition, the active node answers all requests, so a write is visible
// immediately.
//
// The performance standbys of Vault Enterprise answer reads themselves. The standbys of OpenBao 2.5
// and later also do, unless disable_standby_reads is set. The responses of such standbys may lag
// behind the active node. There are three ways to handle that lag:
//
//   - Give the client the address of the active node.
//   - If Vault Enterprise is configured with allow_forwarding_via_header, let the client
//     request the active node: client.AddHeader("X-Vault-Forward", "active-node"). Without that
//     setting, Vault refuses such a request. OpenBao ignores the header.
//   - Set ListLag and ReadLag to the maximum lag of a standby.
//
// If a lag is set, reads by Fresh and by the methods that write go to the active node. These reads
// have the header X-Vault-Forward until Vault refuses the header. If the server refuses or ignores
// the header, Fresh waits up to ten seconds for the answering node to catch up with the caller's
// state. Writes always go to the active node, which compares the version. A lag can cause waiting
// and further calls, but never the loss of a record or an update.
//
// # Errors
//
//	400  ErrRefused; ErrConflict if the version has changed; ErrUnavailable while the
//	     engine is being upgraded
//	401  ErrDenied with ErrCredentials
//	403  ErrDenied; with ErrCredentials if Vault says that the token is not valid,
//	     or if the client has no token
//	404  ErrNotFound; ErrRefused if the mount or the namespace does not exist
//	429  ErrThrottled
//	412, 423, 472, 473 and 5xx
//	     ErrUnavailable; ErrRefused if the request is too large
//	other 4xx
//	     ErrRefused
//
// If a connection fails, the error matches ErrUnavailable, or ErrRefused if the scheme of the
// address or the certificate is wrong. Lists and checks report an unreadable secret by name, and
// continue.
//
// # Other programs
//
// Delete records with a store or with the command tokenkeep. If a writer read the record before a
// "vault kv delete", the next write by that writer restores the record. Do not set
// delete_version_after, which makes a record disappear. "tokenkeep doctor" reports the setting
// while the record exists.
//
// Each deleted record leaves a tombstone. Writes that were abandoned or refused may leave index
// entries. A store never mistakes a tombstone or an index entry for a record. If a process is
// killed during Delete, the versions before the tombstone may remain. A repeated Delete
// destroys these versions, as does the deletion of a later record with that name. "tokenkeep
// doctor" finds all these remnants. The command removes tombstones only if an option states
// that no other process writes.
package vaultstore
