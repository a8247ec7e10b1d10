package codec

import "errors"

// ErrFormat means that bytes are not a record. Errors that match ErrFormat describe the mistake,
// but never quote the bytes.
var ErrFormat = errors.New("not a record")

// A Codec turns the text of a record into the bytes that a store keeps, and back.
// Implementations are safe for concurrent use.
type Codec interface {
	// Seal returns the stored form of a record's text under name. incarnation is a part
	// of the text that is not secret. It distinguishes the record from earlier and
	// later records of the same name.
	Seal(name, incarnation string, text []byte) ([]byte, error)

	// Open returns the text of the record that is stored under name. An error that matches
	// ErrFormat means that data is not a record, or is the record of another name.
	Open(name string, data []byte) ([]byte, error)
}

// JSON is the plain codec. It stores the text of a record unchanged, and Open does not check
// it. The text is a JSON object whose members are named as in the Zoho SDKs' token files.
var JSON Codec = plain{}

type plain struct{}

func (plain) Seal(_, _ string, text []byte) ([]byte, error) { return text, nil }
func (plain) Open(_ string, data []byte) ([]byte, error)    { return data, nil }

// A Placed is a Codec whose bytes belong to one store. tokenstore.New calls At and uses
// the codec that it returns.
type Placed interface {
	Codec

	// At returns the codec for the store at place. place is driver.Properties.Place, which may
	// be empty.
	At(place string) Codec
}

// A Rotating is a Codec that reports whether bytes are written with the current key. After a
// change of keys, Rekey uses it to find the records that must be rewritten.
type Rotating interface {
	Codec

	// Current reports whether data was written with the key that Seal uses. The result
	// means nothing for data that Open cannot read under name.
	Current(name string, data []byte) bool
}

var (
	_ Rotating = plain{}
	_ Rotating = (*encrypted)(nil)
	_ Placed   = (*encrypted)(nil)
)

// Current returns true, because the codec has no key.
func (plain) Current(string, []byte) bool { return true }
