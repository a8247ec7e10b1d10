// Package doctor checks stores. It reports and repairs faults, rewrites records under other
// keys, and measures whether a service keeps the promises of package driver.
//
// Programs call the methods Check and Rekey of a tokenstore.Store, or the method Check of a
// store in a file or table. This package declares the arguments and results of these methods.
package doctor
