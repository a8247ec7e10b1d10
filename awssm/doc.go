// Package awssm keeps OAuth token records in AWS Secrets Manager.
//
//	config, err := config.LoadDefaultConfig(ctx) // region, credentials, retries
//	...
//	store, err := awssm.New(secretsmanager.NewFromConfig(config), "oauth/crm", nil)
//	...
//	token, err := store.FindToken(ctx, tokenstore.Token{UserName: "ann@example.com:6001", ClientID: "1000.CLIENT"})
//
// # Setup
//
// A store needs only a role with the policy that [Policy] returns. For the prefix "oauth/crm"
// in the region eu-central-1, for example, the policy is
//
//	{
//	  "Version": "2012-10-17",
//	  "Statement": [
//	    {
//	      "Sid": "Records",
//	      "Effect": "Allow",
//	      "Action": [
//	        "secretsmanager:CreateSecret",
//	        "secretsmanager:DeleteSecret",
//	        "secretsmanager:DescribeSecret",
//	        "secretsmanager:GetSecretValue",
//	        "secretsmanager:PutSecretValue"
//	      ],
//	      "Resource": "arn:aws:secretsmanager:eu-central-1:123456789012:secret:oauth/crm/*"
//	    },
//	    {
//	      "Sid": "Labels",
//	      "Effect": "Allow",
//	      "Action": [
//	        "secretsmanager:TagResource",
//	        "secretsmanager:UntagResource"
//	      ],
//	      "Resource": "arn:aws:secretsmanager:eu-central-1:123456789012:secret:oauth/crm/*",
//	      "Condition": {
//	        "ForAllValues:StringLike": {
//	          "aws:TagKeys": [
//	            "tokenkeep:*"
//	          ]
//	        }
//	      }
//	    },
//	    {
//	      "Sid": "Searches",
//	      "Effect": "Allow",
//	      "Action": [
//	        "secretsmanager:BatchGetSecretValue",
//	        "secretsmanager:ListSecrets"
//	      ],
//	      "Resource": "*"
//	    }
//	  ]
//	}
//
// IAM cannot limit the actions in the last statement to a prefix. The role can therefore read the
// names and tags of all secrets in the account, but can read values only under the prefix. The
// policy for "oauth/crm" also covers the secrets under "oauth/crm/eu". To separate the roles of two
// stores, choose prefixes such as "oauth/crm" and "oauth/crm-eu", neither of which is a path prefix
// of the other.
//
// # Storage
//
// A record is a secret named
//
//	<prefix>/<name>
//
// The content of the secret is text: the line
//
//	tokenkeep record
//
// followed by the encoded record. A record is stored as binary if it is not valid UTF-8 or would be
// too long with the first line. The driver reads every binary value as a record.
//
// Searches find a record by the tags that the driver adds. The value of such a tag is the time at
// which a write added the tag. The key represents one label of the record (see driver.Label):
//
//	tokenkeep:<kind>:<digest>:<nonce>
//
// CreateSecret adds the tags of a new record. Update adds the tags of new labels before it stores
// the new state, and removes the tags of replaced labels afterwards. If the service refuses a
// write, the driver removes the tags that no other write added. If the outcome of a write is
// unknown, the tags of the write stay, and the next write over the same state can reuse them.
//
// Names and tags appear in CloudTrail and in lists. The driver writes no token and no user name
// into names and tags. The digests in names and tags are keyed with the NameKey and IndexKeys of
// tokenstore.Options, if these keys are set.
//
// Every write creates a new version. The ID of the first version is derived from the name of the
// secret. The ID of each later version is derived from the ARN of the secret and the ID of the
// previous version. The driver sends the ID as the ClientRequestToken of the write. Secrets Manager
// stores only one value under each version ID. Writers that have read the same version send the
// same ID, so the service refuses all writes but the first. If the client repeats a request, the
// service still stores only one version.
//
// Delete first replaces the record with a tombstone, which is a value with a different first line.
// The service then refuses every other write over the replaced version. After that, Delete deletes
// the secret without a recovery window. The next secret with that name has a different ARN. Update
// and Delete name the secret by ARN, so a writer that has read the deleted record cannot change the
// next secret. While the service is deleting a secret with the same name, Create waits, usually for
// a few seconds and at most for two minutes.
//
// If a policy denies forced deletion, set Options.KeepDeleted. The tombstone then stays, and a new
// record with the same name becomes the next version. The earlier versions stay until Secrets
// Manager removes them, and the last of these versions stays as AWSPREVIOUS. The tokens in these
// versions may still be valid: revoke tokens that must not leak. If an operator has scheduled a
// secret for deletion, a store with KeepDeleted cannot use the name of that secret until the
// deletion is complete or canceled. Without KeepDeleted, Create deletes such a secret before the
// end of the recovery window.
//
// # Calls
//
// The operations of package driver, from which the operations of a store are built, make these
// calls:
//
//	Get       1
//	Fresh     2, or 1 immediately after a read; if reads lag, about 2 log n more for a lag of
//	          n versions
//	Create    1; more if a record with that name was just deleted, until the name is free
//	Update    1; 1 more to add labels, 1 more to remove labels
//	Delete    2
//	Lookup    1 for each twenty secrets that have one of up to ten labels
//	List      1 for each twenty secrets; beyond forty secrets, 1 more for each hundred
//	Names     1 for each hundred secrets
//
// Update and Delete first make the same calls as Fresh if the driver has not read or written the
// base within the last hour. The client controls retries, pauses and timeouts.
//
// # Cost
//
// According to https://aws.amazon.com/secrets-manager/pricing, a secret costs $0.40 a month, and
// 10,000 calls cost $0.05. Versions are free, and so are secrets that are scheduled for deletion. A
// record is one secret. Each refresh takes four calls, and about every tenth refresh takes a fifth
// call. Hourly refreshes therefore take about 3,000 calls a month, at a cost of less than $0.02. A
// look-up by user and client takes one call, so 10,000 look-ups cost $0.05. A customer-managed KMS
// key, requests to that key, and CloudTrail data events are billed separately.
//
// # Limits
//
// A record has at most 65,536 bytes. An account can have 500,000 secrets in a region, and make 50
// writes a second. The client retries throttled calls. By default, the client makes at most three
// attempts.
//
// A secret has at most 50 tags, including the tags in Options.Tags and the tags of writes in
// progress. If there is no room for a tag, a write removes the tags of earlier states. The write
// also removes each tag that is over an hour old and belongs to neither the old nor the new state.
// If there is still no room, the write stores the record without the tag, and lists the missing
// label in the first line of the secret's value. A binary value lists no label. Searches by the
// missing label do not find the record. Look-ups by user and client, or by an ID that SaveToken
// chose, still find the record. The next write tries to add the tag, and Check reports and repairs
// the missing tag.
//
// Secrets Manager keeps 100 versions of a secret, including all versions of the last 24 hours. The
// service therefore accepts about 100 writes of a record in a day. A refresh takes two writes, one
// for the lease and one for the token, so hourly refreshes take 48 writes a day. Each save that
// changes the record takes one more write. A refresh starts only if there is room for its two
// writes and for four other writes. After 95 writes within a day, Refresh fails with an error
// matching tokenstore.ErrUnavailable until the first of these writes is about a day old. A Refresh
// that fails for this reason does not call the authorization server. Once the authorization server
// has issued a token, Refresh tries to store the token regardless of the number of writes left.
// Tokens with a lifetime below 32 minutes are refreshed more than 45 times a day, and are therefore
// not suitable for this service.
//
// # Consistency
//
// AWS documents that all operations of Secrets Manager are eventually consistent, and that lists
// may not reflect the changes of the last five minutes. The documentation gives no bound for reads.
// The documentation also does not state whether the service checks a write against the latest
// state. This package relies on two properties. If two calls create a secret with the same name,
// the service refuses one of them. If two calls store different values under the same version ID,
// the service refuses one of them. Because a version never changes, the package also expects that a
// new version can be read by its ID immediately. If a read does not find the version yet, writers
// wait and retry.
//
// While the service lags, a reader may see a replaced state or a deleted record, or miss a new
// record. The service refuses a write over a replaced state, and the store then calls Fresh. Stores
// also call Fresh before they report that a record does not exist. Fresh may begin with a stale
// read by name, but then looks for the last version by ID. The IDs of a secret's first version and
// of all following versions are known in advance. A lag can cause waiting and further calls, but
// never the loss of a record or an update.
//
// The service may remove a version that is a day old if 100 later versions exist. A writer that was
// suspended for a day could write the version after its base a second time, and so replace newer
// versions. A base is therefore valid for only an hour.
//
// # Errors
//
// If the service refuses a call because of the secret's state or tags, a tag policy, or a KMS key,
// the error matches tokenstore.ErrRefused. Examples are a replica, a secret that another service
// manages, and a disabled key. If a permission is missing, the error matches tokenstore.ErrDenied.
// If the address or the certificate of the server is wrong, the error matches
// tokenstore.ErrRefused. An error about expired or unknown credentials matches tokenstore.ErrDenied
// and driver.ErrCredentials. If a call is throttled, the error matches tokenstore.ErrThrottled.
// DecryptionFailure and EncryptionFailure match tokenstore.ErrUnavailable, because KMS may have
// throttled the request. If the text of such an error names the state of the key, the error matches
// tokenstore.ErrRefused instead.
//
// List and Lookup yield the name of an unreadable secret with the service's reason, and continue.
// For example, a secret is unreadable if a policy denies access, if the KMS key cannot be used, or
// if no version is current. Another program may have created a secret without a value under the
// name of a record. A store does not overwrite such a secret, and Check reports the secret.
//
// # Emulators
//
// The package works with LocalStack 4.14.0. If BatchGetSecretValue cannot read one of several
// secrets, Secrets Manager returns an error for that secret only, but LocalStack fails the whole
// call. After such a failure, the package reads each secret with a separate call. Some servers
// assign an ID other than the ClientRequestToken to a version. These servers cannot refuse a second
// write over the same version, so writes fail with an error matching tokenstore.ErrRefused.
//
// # Other programs
//
// A write by the AWS command line or by a rotation function creates a version whose ID is not
// derived from the ID of the previous version. If the content of that version has the form that
// this package writes, stores read the version as a record. Otherwise reads of the version fail
// with an error matching tokenstore.ErrCorrupt, and a writer that has read the version does not
// overwrite it. A writer that has read the previous state does not detect the foreign version,
// because a call cannot have a condition on the label AWSCURRENT. The write of that writer
// succeeds, and the foreign version becomes AWSPREVIOUS.
//
// If an operator moves AWSCURRENT back to an earlier version, readers see that version. The next
// write finds the later versions, replaces the last of them, and so undoes the rollback. To roll
// back permanently, store the earlier content again as a new version.
//
// Do not rotate or replicate the secrets of a store. Secrets Manager refuses writes to a
// replica, and does not delete a secret that has replicas.
package awssm
