// Package fakek8s simulates a Kubernetes API server for tests, over a real socket, with all
// data in memory. A Server serves the create, get, list, update, patch and delete requests of
// client-go's client for Secrets, in JSON and protocol buffers.
//
// A Server has namespaces, tokens with Roles, selectors, paged lists of one revision, finalizers,
// and compaction. Resource versions count the writes of the whole server. The Server enforces the
// API server's rules for these features. To validate metadata, it calls the API server's own code,
// in k8s.io/apimachinery. A comment beside each less obvious rule cites the source of the rule:
//
//   - core: k8s.io/kubernetes, the named file
//   - apiserver: k8s.io/apiserver, the named file
//   - docs: https://kubernetes.io/docs, the named page
//
// A Server does not record managed fields. It refuses watches, generated names, the deletion of
// collections, and patches other than merge patches.
//
// Tests inject faults with Inject, and read the requests with Requests and Count. The
// tests of module integration compare the responses with those of a real API server.
package fakek8s
