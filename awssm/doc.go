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
// A store needs nothing but a role with the policy that [Policy] returns. For the
// prefix "oauth/crm" that is
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
// IAM cannot limit the last two to a prefix: the role can read the names and tags of all
// secrets of the region, though not their values. Nor can it stop at a path element: the
// policy of "oauth/crm" covers the secrets below "oauth/crm/eu", too. If the roles of two
// stores must not reach each other's records, give them prefixes of which neither begins
// the other: "oauth/crm" and "oauth/crm-eu".
//
// # Storage
//
// A record is the secret
//
//	<prefix>/<name>
//
// Its content is text: the line
//
//	tokenkeep record
//
// and the record, as the codec of the store writes it. A record that is not UTF-8, or too
// long with that line, is stored as binary. So were all records of earlier versions of this
// package: it reads them, and the next write makes text of them.
//
// A record is found by tags, one key each, with the time as value:
//
//	tokenkeep:<kind>:<digest>:<nonce>
//
// They are added before the write that needs them and removed after the one that does
// not. A write that the service refuses removes its tags again. One whose outcome is
// unknown leaves them to the next write over the same state.
//
// Names and tags are readable in CloudTrail and in lists. They hold digests, keyed ones if
// tokenstore.Options has keys, and never a token or a user name.
//
// Every write is a version. Its ID is derived from the ARN of the secret and the ID of the
// version that it replaces, and is the ClientRequestToken of one PutSecretValue. Secrets
// Manager stores one content under one ID: of the writers that have read the same version
// the first succeeds. The others are refused and leave nothing behind. A request that the
// client repeats is stored once.
//
// A deleted record becomes a tombstone, a text with a mark of its own, so that a writer
// that has read the record is refused. Then the secret is deleted without a recovery
// window. The next secret of that name has another ARN, and writes go to ARNs. Create waits
// for a name that is still being deleted: seconds, as a rule.
//
// Where forced deletion is denied set Options.KeepDeleted: the tombstone stays, and a new
// record is the version after it. The earlier versions, with tokens that may still be
// valid, stay until Secrets Manager removes them, and the last one stays as AWSPREVIOUS:
// revoke tokens that must not leak. A name that an operator has scheduled for deletion
// cannot be used until the deletion is over or undone. Without KeepDeleted a record that is
// created under such a name ends its recovery window.
//
// # Calls
//
// The operations of package driver, of which those of a store consist, take
//
//	Get       1
//	Fresh     2; more where reads lag, about twice the logarithm of how many versions
//	Create    1; if the name was deleted a moment ago, some more until it is free
//	Update    1; 1 before it if there are new labels, 1 after it if some are gone
//	Delete    2
//	Lookup    1 for each ten labels and twenty secrets
//	List      1 for each twenty secrets
//	Names     1 for each hundred secrets
//
// An Update with a base that was read over an hour ago reads it again, which costs as much
// as Fresh. Retries, waits and time-outs are those of the client.
//
// # Cost
//
// By https://aws.amazon.com/secrets-manager/pricing a secret costs $0.40 a month, and
// 10,000 calls cost $0.05. Versions are free, and so are secrets that are scheduled for
// deletion. A record is one secret. A token that is refreshed every hour takes five calls
// each time, 3,600 a month, which is $0.02 more. 10,000 calls that find a token by its user
// and client are 10,000 calls of the service: $0.05. A KMS key of one's own, its requests
// and CloudTrail data events are billed besides.
//
// # Limits
//
// A record has at most 65,536 bytes. An account has 500,000 secrets in a region, and 50
// writes a second. The client retries throttled calls.
//
// A secret has at most 50 tags: those of the record, of Options.Tags, and of writers that
// are under way. A write without room for a tag removes tags that no record has had for an
// hour. If that does not suffice it stores the record without the tag: searches by it miss
// the record, look-ups by ID or by user and client do not. The next write adds the tag, and
// Check reports and repairs that it is missing.
//
// Secrets Manager keeps 100 versions of a secret, and all of the last 24 hours: it takes
// about 100 writes a day and record. A refresh is two, one for the lease and one for the
// token, so that hourly refreshes are 48. Saves count too. A refresh begins only while
// there is room for both of its writes and for four of others. After 95 writes within a day
// Refresh fails with an error matching tokenstore.ErrUnavailable until the first of these
// writes are a day old, and does not ask the authorization server. An answer of that server
// is stored whatever the count. Tokens that live for less than 32 minutes, which are
// refreshed more than 45 times a day, do not suit this service.
//
// # Consistency
//
// AWS documents that all operations of Secrets Manager are eventually consistent, and that
// lists may not reflect the changes of the last five minutes. It gives no bound for reads,
// and does not say whether the decision about a write is consistent. This package relies on
// two things: of two creations of one name one is refused, and so is one of two contents
// for one version ID. It also expects to read a version, which never changes, by its ID
// once it is written. If that takes a while, writers wait and try again.
//
// While the service lags a reader may see a state that was replaced, or a record that was
// deleted, or miss a new one. Fresh, which stores ask before they decide anything, does not
// depend on reads by name: the IDs of a secret's first version and of all that follow are
// known in advance, and it looks for the last one. Staleness costs waiting and second
// reads, and no record.
//
// A version may be removed once it is a day old and 100 have followed. A writer that was
// suspended for so long would find the ID after its base free again. Therefore a base
// counts for an hour.
//
// # Errors
//
// A refusal because of the secret, its tags, a policy or a KMS key matches
// tokenstore.ErrRefused: a replica, a secret that another service manages, a tag policy, a
// key that is disabled. A missing permission matches tokenstore.ErrDenied. Credentials that
// have expired or are not known match driver.ErrCredentials too. DecryptionFailure and
// EncryptionFailure match tokenstore.ErrUnavailable unless the text names the state of the
// key, because KMS may have throttled the request.
//
// A secret that may not be read, whose KMS key cannot be used, or that has no current
// version does not keep List and Lookup from the others. They yield its name with the
// service's reason. A secret without any value under the name of a record is not written
// to, and Check reports it.
//
// # Emulators
//
// The package works on LocalStack 4.14.0. Its BatchGetSecretValue fails as a whole where
// that of Secrets Manager reports one secret: then the package reads the secrets one by
// one. A server that gives a version another ID than the ClientRequestToken keeps no two
// writers apart: writes match tokenstore.ErrRefused.
//
// # Other programs
//
// A write by the command line of AWS or a rotation function does not follow the chain of
// versions. It is read as a record if it has the form of this package. If not it is
// tokenstore.ErrCorrupt, and not written over. A writer that has read the state before does
// not notice it, because one call has no room for a condition on the label AWSCURRENT: the
// write succeeds, and the replaced version is AWSPREVIOUS.
//
// Readers see when an operator moves AWSCURRENT back to an earlier version. The next write
// finds the successors of that version, and goes on from the last of them: the roll-back is
// undone. To make it last, store the content again, after the last version.
//
// Do not turn on rotation, and do not replicate these secrets: a replica cannot be written
// to, and the primary cannot be deleted before its replicas.
package awssm
