// Package integration tests tokenkeep against real servers. It is a module of
// its own, is never tagged, and nothing that users get depends on it.
//
// # Vault
//
// StartVault starts a server that has the core of HashiCorp Vault, its policies,
// tokens and leases included; see command vaultdev below this folder. It needs
// neither Docker nor a vault binary, and is ready in a fraction of a second. The
// first use builds it, which takes some minutes and a few gigabytes of Go's
// caches; after that the program is found in the user's cache directory until
// the module's dependencies change.
//
// These environment variables have a say in it:
//
//	TOKENKEEP_VAULT_ADDR   use this server, with the token in VAULT_TOKEN; tests
//	                       add mounts, policies and tokens of their own to it, and
//	                       remove them
//	TOKENKEEP_VAULT_MOUNT  the KV version 2 engine of that server, if it is not "secret"
//	TOKENKEEP_VAULTDEV     start this program in place of building one
//	TOKENKEEP_REQUIRE      backends that have to be there, as in "vault,localstack":
//	                       a test that would be skipped for lack of one fails
//
// With -short nothing is built: a test that needs a program which is not there is
// skipped.
//
// Vault's core has a license that is not an open source license. The file NOTICE
// says what that means here.
package integration
