// Package k8sstore keeps OAuth token records in Kubernetes, one Secret for each record.
//
//	config, err := rest.InClusterConfig()
//	...
//	config.QPS = -1
//	client, err := corev1.NewForConfig(config) // k8s.io/client-go/kubernetes/typed/core/v1
//	...
//	store, err := k8sstore.New(client, "crm-tokens", "oauth-crm", nil)
//	...
//	token, err := store.FindToken(ctx, tokenstore.Token{UserName: "ann@example.com:6001", ClientID: "1000.CLIENT"})
//
// # Setup
//
// Use a separate namespace for the records, and read "Who can read a record" first. The
// program's service account needs only the Role that [Policy] returns:
//
//	apiVersion: rbac.authorization.k8s.io/v1
//	kind: Role
//	metadata:
//	  namespace: crm-tokens
//	  name: tokens
//	rules:
//	- apiGroups: [""]
//	  resources: ["secrets"]
//	  verbs: ["get", "list", "create", "patch", "delete"]
//
// Bind the Role with "kubectl create rolebinding tokens --role=tokens
// --serviceaccount=crm:crm-sync -n crm-tokens". The program may run in a different namespace,
// or outside of the cluster.
//
// A client of client-go sends on average at most 5 requests a second unless its config sets
// QPS. With a QPS of -1, the client does not limit its requests, but the server may.
//
// # Storage
//
// A record is a Secret named "<prefix>-<name>" of the type "tokenkeep.dev/record". Kubernetes
// does not allow changing the type of a Secret. A store lists its records by that type, and
// never mistakes another Secret for a record. The only data item, "record", holds the record.
// Each label of the record is a label of the Secret with an empty value:
//
//	<digest>.tokenkeep.dev/<kind>.label
//
// The annotation tokenkeep.dev/incarnation binds an encrypted record to its Secret. Names and
// labels appear in the audit log. They contain digests, but never a token or a user name. The
// digests are keyed with the NameKey and IndexKeys of tokenstore.Options, if these keys are set.
//
// An update is a merge patch with the UID and resource version of the expected state. The server
// applies the patch only to that state. If several writers have read the same state, only the first
// write succeeds. Data and labels change together. The server preserves all parts of the Secret
// that the patch does not mention, such as labels, owners and finalizers of other programs. A
// deletion also contains the UID and resource version of the expected state.
//
// If Options.Owner names an object, that object owns the Secrets that a store creates. Kubernetes
// deletes these Secrets together with the owner. Do not choose a Deployment that is deleted and
// created again during updates.
//
// # Who can read a record
//
// The protection of a Secret depends on its namespace and on etcd:
//
//   - The Role does not name Secrets, because the names of records are not known in
//     advance and rules cannot match prefixes. The program, like any account with the
//     verb "list" or "watch" on Secrets, can read every Secret of the namespace.
//   - Anyone who may create a Pod, a Deployment or a Job in the namespace can mount and read
//     any Secret of the namespace. In a separate namespace without Pods, no account needs that
//     permission.
//   - etcd stores Secrets unencrypted unless the API server is configured to encrypt them
//     (EncryptionConfiguration, --encryption-provider-config). Without encryption, disks, backups
//     and snapshots of etcd contain the Secrets in plain text. With a KMS provider, the key is not
//     on the disk of etcd. Managed services differ: search their documentation for "envelope
//     encryption".
//   - The API server can log request bodies. The audit policy should use at most the level
//     "Metadata" for Secrets. client-go logs bodies at klog level 8 and above.
//
// Encryption by the codec (tokenstore.Options.Codec) protects against all four risks:
// Kubernetes then stores only ciphertext, and the key is stored elsewhere.
//
// # Calls
//
// The operations of package driver, from which the operations of a store are built, make these
// calls:
//
//	Get, Fresh    1 GET
//	Create        1 POST; then 1 GET if the name is in use
//	Update        1 PATCH
//	Delete        1 DELETE
//	Lookup        1 LIST for each label, concurrently; the lists contain the data of the records
//	List, Names   1 LIST for 500 records of the namespace
//
// Finding a record by name therefore takes 1 call. In addition to reads, a save takes 1 call,
// and a refresh takes 2: one for the lease and one for the new token.
//
// The client controls retries, pauses and timeouts. client-go repeats a request, even a write,
// whose response has a Retry-After header. A server that limits its clients sends 429 with that
// header, and a server without a connection to etcd sends 5xx with that header. If a repeated write
// is refused, an earlier attempt may have been applied. After the refusal of a repeated Create or
// Update, the driver reads the Secret and compares its data with the data of the write. If the
// outcome remains unknown, the error matches ErrUnavailable, never ErrConflict.
//
// # Limits
//
// The size of a record is limited to 64 KiB, so that most records can move to the other services.
// Kubernetes accepts 1 MiB for all data of a Secret. The storage of etcd limits the number of
// records; etcd recommends at most 8 GiB for the whole cluster. A ResourceQuota may set a lower
// limit. A record takes 2 KiB to 4 KiB with its labels. Kubernetes is not designed for millions of
// objects: use another service for more than about ten thousand records.
//
// # Consistency
//
// Reads and lists request the newest state, which the server confirms with a quorum of
// etcd. A write is visible immediately: ListLag and ReadLag are zero.
//
// The pages of one list show the state at a single point in time for as long as etcd keeps that
// state: five minutes by default. After that time, the list continues with the current state. Each
// record that exists from the beginning to the end of the list is listed once.
//
// A version consists of the UID of the Secret and the revision of etcd, which is a counter for the
// whole cluster. After etcd is restored from a backup, the revision continues from the backup, and
// the same revisions occur again. Stop the programs during the restoration, or restore with
// "etcdutl snapshot restore --bump-revision".
//
// # Errors
//
//	400, 405, 406, 413, 415, 422  ErrRefused
//	401  ErrDenied with ErrCredentials
//	403  ErrDenied; ErrRefused for a quota, or for a namespace that is being deleted
//	404  ErrNotFound; ErrRefused if the namespace does not exist, or for a response from a proxy
//	409  ErrExists if the name is in use; ErrConflict if the state has changed; ErrUnavailable if the
//	     conflict is about another object, or for a response from a proxy
//	429  ErrThrottled
//	408, 410 and 5xx
//	     ErrUnavailable; ErrRefused if the request is too large
//
// If a connection fails, the error matches ErrUnavailable, or ErrRefused if the scheme of the
// address or the certificate is wrong. If the client's own rate limit refuses a request, the error
// matches ErrThrottled. If a plug-in could not fetch credentials, the error matches ErrUnavailable
// and ErrCredentials. Reads cannot distinguish a missing namespace from a namespace without
// records. Creating a record in a missing namespace fails with an error that matches ErrRefused.
//
// # Other programs
//
// Deleting a Secret with kubectl deletes the record permanently. If another program adds a
// finalizer, a deleted Secret remains until the finalizer is removed. Meanwhile, readers do not
// see the record, but its name is in use. Create waits up to 30 seconds for the name to become
// free. "tokenkeep doctor" reports the Secret. The command also repairs labels that another
// tool has removed or added. A record cannot be changed if its Secret was made immutable: read
// the token, delete the record, and save the token again.
//
// Exclude the Secrets of a store from backup and GitOps tools. A restored earlier state
// contains tokens that the authorization server may have replaced.
package k8sstore
