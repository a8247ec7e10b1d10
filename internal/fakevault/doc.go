// Package fakevault simulates a Vault server for tests, over a real socket, with all data in
// memory. A Server serves the requests of github.com/hashicorp/vault/api that concern KV
// secrets engines and tokens.
//
// A Server has namespaces, mounts with arbitrary names, policies, tokens that expire, AppRole
// logins, sealing, standby nodes that lag, and a clock that tests control. The Server enforces
// Vault's rules for these features. A comment beside each less obvious rule cites the source of
// the rule:
//
//   - kv: github.com/hashicorp/vault-plugin-secrets-kv, the named file
//   - core: github.com/hashicorp/vault, the named file
//   - docs: https://developer.hashicorp.com/vault, the named page
//
// Tests inject faults with Inject, and read the requests with Requests and Count.
// The tests of module integration compare the responses of the fake with those of a real
// Vault.
package fakevault
