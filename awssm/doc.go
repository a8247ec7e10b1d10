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
// the policy is
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
// IAM cannot limit the last two actions to a prefix. The role can therefore read the names and
// tags of all secrets in the account, but not their values. The policy for "oauth/crm" also
// covers the secrets under "oauth/crm/eu". To separate the roles of two stores, choose
// prefixes of which neither is a path prefix of the other, such as "oauth/crm" and
// "oauth/crm-eu".
//
// # Storage
//
// A record is a secret named
//
//	<prefix>/<name>
//
// Its content is text: the line
//
//	tokenkeep record
//
// followed by the record as the store's codec encodes it. A record that is not UTF-8, or that
// would be too long with the first line, is stored as binary. The driver also reads binary
// records that earlier versions of this package have written.
//
// The driver finds a record by its tags. Each label is stored as the key of a tag; the value
// is the time at which a write added the tag:
//
//	tokenkeep:<kind>:<digest>:<nonce>
//
// The driver adds a tag before the first write that lists the label. It removes the tag after a
// later write that does not list the label. If the service refuses a write, the driver removes
// the tags that it has added for the write. If the outcome of a write is unknown, its tags stay
// for the next write over the same state.
//
// Names and tags appear in CloudTrail and in lists. Names and tags contain digests, which are
// keyed if tokenstore.Options has keys, but never a token or a user name.
//
// Every write creates a new version. The ID of the version is derived from the ARN of the secret
// and the ID of the version that it replaces. The driver sends the ID as the ClientRequestToken
// of one PutSecretValue. Secrets Manager stores only one value under each version ID. Writers
// that have read the same version send the same ID, so only the first of them succeeds. The
// service refuses the later writes, which create no version. A request that the client repeats
// is stored only once.
//
// Delete first replaces the record with a tombstone, a payload with a different first line. The
// service then refuses a write over the deleted record. Then Delete deletes the secret without a
// recovery window. The next secret with that name has a different ARN. A write names its secret
// by the ARN, so a writer that has read the deleted record cannot change the next secret. While
// a secret with the name is still being deleted, Create waits, usually for seconds and for at
// most two minutes.
//
// If forced deletion is denied, set Options.KeepDeleted: the tombstone stays, and a new record
// becomes the next version. The earlier versions, whose tokens may still be valid, stay until
// Secrets Manager removes them, and the last of them stays as AWSPREVIOUS. Revoke tokens that
// must not leak. With KeepDeleted, the name of a secret that an operator has scheduled for
// deletion cannot be used until the deletion is complete or canceled. Without KeepDeleted,
// Create deletes such a secret before its recovery window ends.
//
// # Calls
//
// The operations of package driver, from which the operations of a store are built,
// make these calls:
//
//	Get       1
//	Fresh     2, or 1 immediately after a read; if reads lag, about 2 log n more for a lag of
//	          n versions
//	Create    1; more if a record with that name was just deleted, until the name is free
//	Update    1; 1 before it to add labels, 1 after it to remove labels
//	Delete    2
//	Lookup    1 for each ten labels and twenty secrets
//	List      1 for each twenty secrets
//	Names     1 for each hundred secrets
//
// An Update whose base was read more than an hour ago first reads the record again, with the
// same calls as Fresh. The client determines retries, pauses and time-outs.
//
// # Cost
//
// According to https://aws.amazon.com/secrets-manager/pricing a secret costs $0.40 a month,
// and 10,000 calls cost $0.05. Versions are free, and so are secrets scheduled for deletion.
// A record is one secret. Each refresh takes four calls, and every tenth refresh one more.
// Hourly refreshes therefore take 3,000 calls a month, which cost less than $0.02. Finding a
// token by user and client takes one call: 10,000 searches cost $0.05. A customer-managed KMS
// key, its requests and CloudTrail data events are billed separately.
//
// # Limits
//
// A record has at most 65,536 bytes. An account can have 500,000 secrets in a region,
// and make 50 writes a second. The client retries throttled calls; by default it makes
// three attempts.
//
// A secret has at most 50 tags: those of the record, of Options.Tags, and of writes in
// progress. If there is no room for a tag, a write removes tags that are over an hour old and
// that the record does not list. If there is still no room, the write stores the record
// without the tag. Searches by that tag then miss the record, but look-ups by ID or by user
// and client find it. The next write adds the tag, and Check reports and repairs the missing
// tag.
//
// Secrets Manager keeps 100 versions of a secret, including all versions of the last 24 hours.
// The service therefore accepts about 100 writes of a record in a day. A refresh takes two
// writes, one for the lease and one for the token, so hourly refreshes take 48 writes a day.
// Saves also count. A refresh starts only if there is room for both of its writes and for four
// other writes. After 95 writes within a day, Refresh fails with an error matching
// tokenstore.ErrUnavailable until the first of these writes is a day old. A Refresh that fails
// for this reason does not call the authorization server. Once the authorization server has
// responded, Refresh stores the new token even if the limit is exceeded. Tokens with a lifetime
// below 32 minutes, which are refreshed more than 45 times a day, are not suitable for this
// service.
//
// # Consistency
//
// AWS documents that all operations of Secrets Manager are eventually consistent, and that
// lists may not reflect the changes of the last five minutes. The documentation gives no bound
// for reads, and does not state whether the check of a write is consistent. This package
// relies on two properties. The service refuses one of two creations of the same name. It also
// refuses one of two different values for the same version ID. The package also expects that a
// version, which never changes, can be read by its ID once it is written. If a read does not
// find such a version yet, writers wait and retry.
//
// While the service lags, a reader may see a state that was replaced or a record that was
// deleted, or miss a new record. Stores call Fresh before they write or report that a record
// does not exist, and Fresh does not depend on reads by name. The IDs of a secret's first
// version and of all following versions are known in advance, and Fresh looks for the last
// version. A stale read causes waiting and additional reads, but never the loss of a record.
//
// A version may be removed once it is a day old and 100 others have followed. A writer that was
// suspended for that long could write the version after its base a second time, over newer
// versions. Therefore a base is valid for only an hour.
//
// # Errors
//
// A refusal because of the secret, its tags, a policy or a KMS key matches
// tokenstore.ErrRefused. Examples are a replica, a secret that another service manages, a tag
// policy and a disabled key. A missing permission matches tokenstore.ErrDenied. Expired or
// unknown credentials also match driver.ErrCredentials. A throttled call matches
// tokenstore.ErrThrottled. DecryptionFailure and EncryptionFailure match
// tokenstore.ErrUnavailable, because KMS may have throttled the request. If the text names the
// state of the key, these errors match tokenstore.ErrRefused.
//
// List and Lookup continue after an unreadable secret, and yield its name with the service's
// reason. A secret is unreadable if a policy denies access, if its KMS key cannot be used, or
// if it has no current version. Another program may have created a secret without a value
// under the name of a record. A store does not overwrite that secret, and Check reports it.
//
// # Emulators
//
// The package works with LocalStack 4.14.0. If BatchGetSecretValue cannot read one of several
// secrets, Secrets Manager reports that secret, but LocalStack fails the whole call. After such
// a failure, the package reads the secrets one by one. A server that assigns a version an ID
// other than the ClientRequestToken cannot arbitrate between writers: the errors of writes match
// tokenstore.ErrRefused.
//
// # Other programs
//
// A write by the AWS command line or by a rotation function makes a version whose ID is not
// derived from the previous version. If the content has the form that this package writes,
// stores read it as a record. Otherwise the errors of reads match tokenstore.ErrCorrupt, and
// writers that read the version do not overwrite it. A writer that has read the previous state
// does not detect the foreign version, because a call cannot have a condition on the label
// AWSCURRENT. The write of such a writer succeeds, and the replaced version becomes AWSPREVIOUS.
//
// If an operator moves AWSCURRENT back to an earlier version, readers see that version. The next
// write finds the successors of that version and continues from the last successor, which undoes
// the roll-back. To roll back permanently, store the content again as a new version after the
// last version.
//
// Do not rotate or replicate the secrets of a store. Secrets Manager refuses writes to a
// replica, and does not delete a secret that has replicas.
package awssm
