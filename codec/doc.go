// Package codec defines the fields of a token in a record. It converts the text of records to
// the bytes that a store keeps, and back.
//
// JSON keeps the text unchanged. Encrypted wraps another codec in authenticated encryption with
// the caller's key. It binds a record to its name, so that two encrypted records cannot be
// exchanged.
//
// Applications choose a codec in tokenstore.Options. Package codec/tokenfile reads and
// writes the token files of the Zoho SDKs.
package codec
