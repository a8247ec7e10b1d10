// Package codec defines the fields of a token, and the codecs between the text of a record and
// the bytes that a store keeps.
//
// JSON keeps the text unchanged. Encrypted returns a codec that wraps another codec in
// authenticated encryption with the caller's key. The encryption binds a record to its name: Open
// detects an exchange of two records.
//
// Applications choose a codec in tokenstore.Options. Package codec/tokenfile reads and writes the
// token files of the Zoho SDKs.
package codec
