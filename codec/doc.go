// Package codec turns token records into bytes and back.
//
// JSON is the plain form. Encrypted wraps another codec in authenticated
// encryption by a key of the caller's. A record is bound to its name there, so
// that two encrypted records cannot be exchanged.
//
// Applications choose a codec in tokenstore.Options and need nothing else from
// this package.
package codec
