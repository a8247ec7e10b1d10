// Package fakevault simulates a Vault server for tests, over a real socket, with all data
// in memory. It has the part of Vault's HTTP interface that github.com/hashicorp/vault/api
// and a KV secrets engine need.
//
// It has several mounts with arbitrary names, namespaces, tokens that expire, a
// clock that tests control, policies, AppRole logins, sealing, and standby nodes
// that lag. It enforces what Vault enforces. A comment beside each less obvious
// rule cites its source:
//
//   - kv: github.com/hashicorp/vault-plugin-secrets-kv, the named file
//   - core: github.com/hashicorp/vault, the named file
//   - docs: https://developer.hashicorp.com/vault, the named page
//
// Tests inject faults with Inject, and read the requests with Requests and Count.
// The tests of module integration compare the responses of the fake with those of a real
// Vault.
package fakevault
