package codec

import "errors"

// ErrFormat means that bytes are not a record, cannot be decrypted, or are the record of
// another name or store. Errors that match ErrFormat describe the mistake, but never quote the
// text of a record.
var ErrFormat = errors.New("not a record")

// A Codec turns the text of a record into the bytes that a store keeps, and back.
// Implementations must be safe for concurrent use.
type Codec interface {
	// Seal returns the stored form of text, the text of the record with the given name. The
	// parameter incarnation, a part of the text that is not secret, distinguishes the record from
	// earlier and later records of the same name.
	Seal(name, incarnation string, text []byte) ([]byte, error)

	// Open returns the text of the record that is stored under name. An error that matches
	// ErrFormat means that data is not a record, or is the record of another name or store.
	Open(name string, data []byte) ([]byte, error)
}

// JSON is the plain codec. Seal and Open return the text of a record unchanged, and check
// nothing. The text is a JSON object in which Field.Column names the member of each field.
var JSON Codec = plain{}

type plain struct{}

func (plain) Seal(_, _ string, text []byte) ([]byte, error) { return text, nil }
func (plain) Open(_ string, data []byte) ([]byte, error)    { return data, nil }

// A Placed is a Codec whose bytes belong to one store. tokenstore.New calls At, and the store
// uses the codec that At returns.
type Placed interface {
	Codec

	// At returns the codec for a store whose driver.Properties.Place equals the parameter place,
	// which may be empty.
	At(place string) Codec
}

// A Rotating is a Codec that reports whether bytes were written with the current key. After a
// change of keys, tokenstore.Store.Rekey calls Current to find the records to rewrite.
type Rotating interface {
	Codec

	// Current reports whether data, the stored form of the record with the given name, was written
	// with the key that Seal uses. The result is undefined if Open cannot read data under name.
	Current(name string, data []byte) bool
}

var (
	_ Rotating = plain{}
	_ Rotating = (*encrypted)(nil)
	_ Placed   = (*encrypted)(nil)
)

// Current returns true, because the codec has no key.
func (plain) Current(string, []byte) bool { return true }
