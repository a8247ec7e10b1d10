// Package integration tests tokenkeep against real servers. It is a module of
// its own, is never tagged, and nothing that users get depends on it.
//
//	go -C integration test -parallel 8 -timeout 25m
//
// runs everything, starts what it needs, and prints a line for each backend when
// it is over: what it ran on, which version that has, whether it is the real thing
// or a stand-in, and how many cases passed, failed and were skipped. (With a list
// of packages, as in ./..., the go command shows these lines with -v only.) The
// cases wait more than they compute, hence -parallel.
//
// # Where servers come from
//
// Where there is a Docker engine the servers run in containers, by
// testcontainers-go: of published images, if the engine has them or can pull them.
// If it cannot, images are built here:
//
//   - vault: of the command vaultdev, which has the core of HashiCorp Vault. Its
//     first build takes minutes and gigabytes of Go's caches; after that the
//     program is in the user's cache folder until it changes. It is a module of its
//     own with a license of its own: see the file NOTICE there.
//   - localstack: of the fake that the tests of package awssm use, in the mode in
//     which it behaves as LocalStack 4.14.0 does. This is not LocalStack, and the
//     line says so. "fakes aws" without -localstack, and TOKENKEEP_AWS_ENDPOINT,
//     run the suites on it as it stands for AWS.
//   - mysql: of the MariaDB that is installed on this machine, if one is.
//
// Without an engine the same programs run as processes. Google publishes no
// emulator of its Secret Manager: gcp is always the fake of the tests of package
// gcpsm, or what TOKENKEEP_GCP_ENDPOINT names.
//
// Containers are removed when the tests are over, also when they are interrupted;
// what a killed run leaves is removed by the next one, after two hours. A server
// that dies fails the cases that use it, with what it printed.
//
// # Environment
//
//	TOKENKEEP_REQUIRE           backends that have to run, as in "vault,mysql": the
//	                            run fails if one does not
//	TOKENKEEP_VAULT_IMAGE       the images, in the place of the pinned ones; there is
//	TOKENKEEP_LOCALSTACK_IMAGE  no stand-in for an image that is named here
//	TOKENKEEP_MYSQL_IMAGE
//	LOCALSTACK_AUTH_TOKEN       is passed on to LocalStack, whose later images ask for it
//	TOKENKEEP_VAULT_ADDR        use this server, with the token in VAULT_TOKEN
//	TOKENKEEP_VAULT_MOUNT       its KV version 2 engine, if that is not "secret"
//	TOKENKEEP_AWS_ENDPOINT      use this Secrets Manager: a URL, or "real" for the
//	                            service, with the region and credentials that the SDK finds
//	TOKENKEEP_GCP_ENDPOINT      use this Secret Manager: a host:port without TLS, or "real"
//	TOKENKEEP_GCP_PARENT        the project, as in "projects/p"
//	TOKENKEEP_MYSQL_DSN         use this server
//	TOKENKEEP_CANNOT            cases that such a server is known to fail, as a regular
//	                            expression for their names: they are skipped, and listed
//	TOKENKEEP_FULL              if it is set, the sizes that take long: 200 processes are
//	                            killed while they refresh a token under each of two
//	                            rules, not 24, and so on
//	TOKENKEEP_VAULTDEV          start this program in place of building one
//
// On a server that somebody else runs the tests use names of their own, and remove
// what they have made. What such a server cannot do is skipped, and listed by name
// below the backend's line.
//
// DOCKER_HOST and the variables of testcontainers-go have their usual meaning.
// Two are set if they are not: TESTCONTAINERS_RYUK_DISABLED where the image of the
// reaper cannot be had, and TESTCONTAINERS_HOST_OVERRIDE where the tests see the
// engine's machine as their own.
//
// With -short nothing is built: a test that needs a program which is not there is
// skipped.
package integration
