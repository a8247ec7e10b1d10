// Package doctor checks a store whose records are in a secret manager: it reports
// what is wrong, repairs it, and rewrites records under other keys.
//
// Programs call the methods Check and Rekey of a tokenstore.Store, and the method
// Check of stores in files and tables. The types here are what these methods take
// and yield.
package doctor
