// Package integration tests tokenkeep against real servers. The package is in a separate
// module that is never tagged; no released package depends on it.
//
// This command starts the necessary servers, runs all tests, and prints a line for each
// backend at the end:
//
//	go -C integration test -parallel 8 -timeout 25m
//
// The line shows the server and its version, whether the server is real or a stand-in, and how
// many cases passed, failed and were skipped. With a list of packages, as in ./..., the go
// command shows these lines only with -v. The cases spend most of their time waiting, so many
// of them can run in parallel.
//
// # Where servers come from
//
// If there is a Docker engine, testcontainers-go runs the servers in containers. The
// containers use the published images, if the engine has them or can pull them. Otherwise the
// servers come from these sources:
//
//   - vault: from the command vaultdev, which contains the core of HashiCorp Vault. The first
//     build of vaultdev takes minutes and gigabytes of Go's caches. The program stays in the
//     user's cache folder, and is built again only if its source changes. vaultdev is a
//     separate module with its own license: see integration/vaultdev/NOTICE.
//   - localstack: from the fake that the tests of package awssm use, in the mode that
//     behaves like LocalStack 4.14.0. The report lists it as a stand-in. To
//     run the suites on the fake in its AWS mode, run "fakes aws" without -localstack
//     and set TOKENKEEP_AWS_ENDPOINT.
//   - kubernetes: always from the command kubedev, a process with kube-apiserver, etcd and
//     RBAC. The first build of kubedev takes as long as that of vaultdev.
//   - mysql: from the MariaDB installed on this machine, if any.
//
// OpenBao cannot be built from the Go module proxy, so openbao uses only the published
// image. Without an engine, or if the image cannot be pulled, the tests of openbao are
// skipped, and the report says why.
//
// Without an engine the same programs run as processes. Google publishes no emulator of
// its Secret Manager: gcp is always the fake from the tests of package gcpsm, or the
// server that TOKENKEEP_GCP_ENDPOINT names.
//
// Containers are removed at the end, even if the tests are interrupted. Later runs remove
// the containers of a killed run after two hours. If a server crashes, the cases that use
// it fail and show its output.
//
// # Environment
//
//	TOKENKEEP_REQUIRE           backends that have to run, as in "vault,mysql": the
//	                            run fails if no case of one of them passes
//	TOKENKEEP_VAULT_IMAGE       images to use instead of the pinned ones; an image that is
//	TOKENKEEP_LOCALSTACK_IMAGE  named here has no stand-in
//	TOKENKEEP_MYSQL_IMAGE
//	TOKENKEEP_OPENBAO_IMAGE
//	LOCALSTACK_AUTH_TOKEN       is passed on to LocalStack, whose later images ask for it
//	TOKENKEEP_VAULT_ADDR        use this server, with the token in VAULT_TOKEN
//	TOKENKEEP_VAULT_MOUNT       its KV version 2 engine, if that is not "secret"
//	TOKENKEEP_AWS_ENDPOINT      use this Secrets Manager: a URL, or "real" for the
//	                            service, with the region and credentials that the SDK finds
//	TOKENKEEP_GCP_ENDPOINT      use this Secret Manager: a host:port without TLS, or "real"
//	TOKENKEEP_GCP_PARENT        the project, as in "projects/p"
//	TOKENKEEP_MYSQL_DSN         use this server
//	TOKENKEEP_KUBECONFIG        use the cluster that this configuration names, with an
//	                            account that may create namespaces, accounts and roles
//	TOKENKEEP_CANNOT            a regular expression for the names of cases that such a
//	                            server is known to fail; the cases are skipped and listed
//	TOKENKEEP_FULL              if set, the tests use larger sizes: for example, 200 instead
//	                            of 24 processes are killed while they refresh a token
//	TOKENKEEP_VAULTDEV          start this program in place of building one
//	TOKENKEEP_KUBEDEV
//
// On an external server, the tests use unique names and remove all data that they create. Cases
// that such a server cannot pass are skipped. The report lists them by name below the backend's
// line.
//
// DOCKER_HOST and the variables of testcontainers-go have their usual meaning. The tests set
// three variables, unless the environment sets them: TESTCONTAINERS_RYUK_DISABLED if the
// reaper's image is not available, TESTCONTAINERS_HOST_OVERRIDE if the tests run on the
// engine's machine, and TESTCONTAINERS_SESSION_ID.
//
// With -short, vaultdev and kubedev are not built, and tests that need a missing program are
// skipped.
package integration
