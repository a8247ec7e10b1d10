// Package integration tests tokenkeep against real servers and stand-ins. The package is in a
// separate module without releases, on which no released package depends.
//
// This command starts the servers, runs the tests, and prints a report at the end. The report has
// a line for each backend, which is a kind of server:
//
//	go -C integration test -parallel 8 -timeout 25m
//
// The line shows the server, its version, and whether the server is real or a stand-in. The line
// also shows how many cases passed, failed and were skipped. If no case ran, the line says why.
// With a list of packages, as in ./..., the go command shows the report only with -v. Most cases
// spend their time waiting, so many cases can run in parallel.
//
// # Where servers come from
//
// If there is a Docker engine, testcontainers-go runs vault, openbao, localstack and mysql in
// containers. The containers use the published images, if the engine has them or can pull them.
// Otherwise, and always for kubernetes and gcp, the servers come from these sources:
//
//   - vault: the command vaultdev, which contains the core of HashiCorp Vault. The first build
//     of vaultdev takes minutes and gigabytes of Go's caches. The build stays in the user's cache
//     folder for at least 14 days after its last use. After a change to the source or the Go
//     version, vaultdev is built again. vaultdev is a separate module with its own license: see
//     integration/vaultdev/NOTICE.
//   - localstack: the fake that the tests of package awssm use, in the mode that behaves like
//     LocalStack 4.14.0. To run the suites on the fake in its AWS mode, run "fakes aws" without
//     -localstack, and set TOKENKEEP_AWS_ENDPOINT.
//   - mysql: the MariaDB installed on this machine, if any.
//   - kubernetes: the command kubedev, one process with kube-apiserver, etcd and RBAC. The first
//     build of kubedev takes as long as the first build of vaultdev.
//   - gcp: the fake that the tests of package gcpsm use, because Google publishes no emulator of
//     its Secret Manager.
//
// If there is an engine, vaultdev, the fake for localstack and MariaDB run in images that the
// tests build. The tests build images on Linux only. Without an engine, these programs run as
// processes. kubedev and the fake for gcp always run as processes.
//
// OpenBao cannot be built from the Go module proxy, so openbao has no stand-in. Without an
// engine, or if the published image cannot be pulled, the tests of openbao are skipped.
//
// Containers are removed at the end, even if the tests are interrupted. If a run is killed, later
// runs remove its containers after four hours. If a server crashes, the cases that use the server
// fail, and the run prints the server's output once.
//
// # Environment
//
//	TOKENKEEP_REQUIRE           backends that have to run, as in "vault,mysql": the run fails
//	                            unless at least one case of each of these backends passes
//	TOKENKEEP_VAULT_IMAGE       images to use instead of the pinned ones; an image that is
//	TOKENKEEP_LOCALSTACK_IMAGE  named here has no stand-in
//	TOKENKEEP_MYSQL_IMAGE
//	TOKENKEEP_OPENBAO_IMAGE
//	LOCALSTACK_AUTH_TOKEN       token for LocalStack's images after 4.14.0
//	TOKENKEEP_VAULT_ADDR        use the server at this URL, with the token in VAULT_TOKEN
//	TOKENKEEP_VAULT_MOUNT       path of its KV version 2 engine, if that is not "secret"
//	TOKENKEEP_AWS_ENDPOINT      use this Secrets Manager: a URL, or "real" for the
//	                            service, with the region and credentials that the SDK finds
//	TOKENKEEP_GCP_ENDPOINT      use this Secret Manager: a host:port without TLS, or "real"
//	TOKENKEEP_GCP_PARENT        the project, as in "projects/p"
//	TOKENKEEP_MYSQL_DSN         use the server with this data source name
//	TOKENKEEP_KUBECONFIG        path of a kubeconfig file: use its cluster, with an account
//	                            that may create namespaces, service accounts and roles
//	TOKENKEEP_CANNOT            a regular expression for the names of cases that an external
//	                            server is known to fail; these cases are skipped and listed
//	TOKENKEEP_FULL              if set, the tests use larger sizes: for example, 200 instead
//	                            of 24 processes are killed while they refresh a token
//	TOKENKEEP_VAULTDEV          programs to start instead of building vaultdev and kubedev
//	TOKENKEEP_KUBEDEV
//
// A server that the environment names is external. On an external server, the tests use unique
// names and remove all data that they create. Cases that the server cannot pass are skipped. The
// report lists these cases by name below the backend's line.
//
// DOCKER_HOST and the variables of testcontainers-go have their usual meaning. The tests set
// three variables, unless the environment sets them: TESTCONTAINERS_RYUK_DISABLED if the
// reaper's image is not available, TESTCONTAINERS_HOST_OVERRIDE if the tests run on the
// engine's machine, and TESTCONTAINERS_SESSION_ID.
//
// With -short, vaultdev and kubedev are not built, and tests that need a missing program are
// skipped.
package integration
