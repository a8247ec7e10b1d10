// Package doctor checks a store whose records are in a secret manager. It reports and
// repairs faults, and rewrites records under other keys.
//
// Programs call the methods Check and Rekey of a tokenstore.Store, and the method Check
// of stores in files and tables. This package declares the types that these methods
// take and yield.
package doctor
