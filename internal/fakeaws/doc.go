// Package fakeaws simulates AWS Secrets Manager for tests: the service's JSON 1.1 protocol over
// HTTP, with all data in memory.
//
// The package enforces the service's documented rules about names, tokens, sizes, tags, filters,
// staging labels, the number of versions, recovery windows, forced deletion, and IAM policies.
// Tests can advance the clock. Tests can also make reads and lists lag, because the service
// promises only eventual consistency. Writes always use the current state.
//
// A comment beside each less obvious rule cites the source of the rule:
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
// not check signatures. The access key in a request's credential identifies the caller.
package fakeaws
