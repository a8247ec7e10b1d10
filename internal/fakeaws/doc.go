// Package fakeaws is AWS Secrets Manager for tests: the service's JSON 1.1
// protocol over HTTP, kept in memory.
//
// It enforces what the service documents: names, tokens, sizes, tags and filters,
// staging labels, the quota of versions, recovery windows, forced deletion that
// takes a while, and IAM policies. All of it goes by a clock that tests move.
// Reads and lists lag as far as tests want, because the service promises no more
// than that they will be consistent in the end; what a ClientRequestToken or a
// name decides when something is written does not lag.
//
// A rule that is easily forgotten has its source in a comment beside it:
//
//   - model: the service's API model, as the doc comments and constraints of
//     github.com/aws/aws-sdk-go-v2/service/secretsmanager have it, the named shape
//   - guide: the AWS Secrets Manager User Guide, the named page
//   - tags: the page API_Tag of the API reference, and the "Tag naming and usage
//     conventions" that it refers to
//   - seen: what public test suites have recorded of the service itself
//     (moto's tests marked aws_verified, LocalStack's validated snapshots)
//
// Tests break things on purpose with Inject, and look at what was asked for with
// Requests and Count. Signatures are not checked: a request counts as one of the
// access key that it names.
package fakeaws
