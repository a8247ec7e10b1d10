// Package fakeaws simulates AWS Secrets Manager for tests: the service's JSON 1.1
// protocol over HTTP, with all data in memory.
//
// The package enforces what the service documents: names, tokens, sizes, tags and filters,
// staging labels, the quota of versions, recovery windows, delayed forced deletion, and IAM
// policies. Tests advance the clock. Reads and lists lag as far as tests require, because the
// service promises only eventual consistency. Writes always use the current state.
//
// A comment beside each less obvious rule cites its source:
//
//   - model: the named shape of the service's API model, as in the doc comments
//     and constraints of github.com/aws/aws-sdk-go-v2/service/secretsmanager
//   - guide: the AWS Secrets Manager User Guide, the named page
//   - tags: the page API_Tag of the API reference, and the "Tag naming and usage
//     conventions" that it refers to
//   - seen: recorded from the service itself by public test suites (moto's tests
//     marked aws_verified, LocalStack's validated snapshots)
//
// Tests inject faults with Inject, and read the requests with Requests and Count. The fake does
// not check signatures: it attributes a request to the access key in its credential.
package fakeaws
