// Package driverkit holds the parts that drivers of secret managers have in common. The
// adapters awssm, gcpsm, vaultstore and k8sstore use this package. Other drivers can use the
// package, too.
//
// # The shape of a driver
//
// The four adapters have the same files:
//
//	<package>.go  Options, New, NewDriver, and the permissions that a store needs
//	doc.go        setup, storage, calls, cost, limits, consistency, errors
//	driver.go     the methods of driver.Secrets, in the order of the interface
//	calls.go      the calls of the service, one method each
//	state.go      one state of a secret, its version and its labels
//	errors.go     classify and callError: the class of each error of the client
//	inspect.go    the methods of driver.Inspector
//
// # Contents
//
// [Fetch], [FetchListed] and [Each] make several calls concurrently. [Seq] makes an iterator
// from a function with a callback. [Backoff] and [Sleep] wait, and [Misses] holds names that
// reads did not find. [CallError] and [Repeats] help to build the errors that package driver
// requires. [Probes] tests permissions. [Without] removes labels from a list, and [LegalName]
// checks names.
package driverkit
