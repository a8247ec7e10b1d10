// Package fakek8s simulates a Kubernetes API server for tests, over a real socket, with all
// data in memory. It serves the create, get, list, update, patch and delete requests of
// client-go's client for Secrets, in JSON and protocol buffers.
//
// It has namespaces, tokens with Roles, selectors, paged lists of one revision,
// resource versions counted by the whole server, finalizers, and compaction. It
// enforces what the API server enforces. The API server's own code in
// k8s.io/apimachinery checks metadata. A comment beside each less obvious rule cites
// its source:
//
//   - core: k8s.io/kubernetes, the named file
//   - apiserver: k8s.io/apiserver, the named file
//   - docs: https://kubernetes.io/docs, the named page
//
// It leaves out managed fields. It refuses requests for watches, apply and generated
// names.
//
// Tests inject faults with Inject, and read the requests with Requests and Count. The
// tests of module integration compare the responses with those of a real API server.
package fakek8s
