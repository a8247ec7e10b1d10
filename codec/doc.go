// Package codec has the fields of a token as records keep them, and turns the text of
// records into the bytes that a store keeps.
//
// JSON keeps the text as it is. Encrypted wraps another codec in authenticated
// encryption with the caller's key. It binds a record to its name, so that two
// encrypted records cannot be exchanged.
//
// Applications choose a codec in tokenstore.Options. Package codec/tokenfile reads and
// writes the token files of the Zoho SDKs.
package codec
