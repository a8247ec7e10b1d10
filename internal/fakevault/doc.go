// Package fakevault is a Vault server for tests: the part of Vault's HTTP
// interface that github.com/hashicorp/vault/api and a KV version 2 secrets
// engine need, spoken over a real socket and kept in memory.
//
// It has several mounts with names of one's own, namespaces, tokens that expire
// on a clock of one's own, policies, AppRole logins, sealing, and standby nodes
// that lag. It enforces what Vault enforces; a rule that is easily forgotten has
// its source in a comment beside it:
//
//   - kv: github.com/hashicorp/vault-plugin-secrets-kv, the named file
//   - core: github.com/hashicorp/vault, the named file
//   - docs: https://developer.hashicorp.com/vault, the named page
//
// Tests break things on purpose with Inject, and look at what was asked for with
// Requests and Count. What the fake answers is compared with what a real Vault
// answers by the tests of module integration.
package fakevault
