package codec

import "errors"

// ErrFormat means that bytes are not a record. Errors that match it say what is
// wrong and hold nothing of the bytes.
var ErrFormat = errors.New("not a record")

// A Codec turns the text of a record into the bytes that a store keeps, and back.
// Implementations are safe for concurrent use.
type Codec interface {
	// Seal returns the stored form of a record's text under name. incarnation is a part
	// of the text that is not secret. It distinguishes the record from earlier and
	// later records of the same name.
	Seal(name, incarnation string, text []byte) ([]byte, error)

	// Open returns the text of the record that is stored under name. The error matches
	// ErrFormat if data is not such a record, or is the record of another name.
	Open(name string, data []byte) ([]byte, error)
}

// JSON is the plain codec. It stores the text of records as it is: a JSON object with
// a version, whose members are named as in the token files and tables of the Zoho
// SDKs.
var JSON Codec = plain{}

type plain struct{}

func (plain) Seal(_, _ string, text []byte) ([]byte, error) { return text, nil }
func (plain) Open(_ string, data []byte) ([]byte, error)    { return data, nil }

// A Placed is a Codec whose bytes belong to one store. tokenstore.New calls At and uses
// the codec that it returns.
type Placed interface {
	Codec

	// At returns the codec for the store at place: driver.Properties.Place, which is
	// empty if the driver does not say.
	At(place string) Codec
}

// A Rotating is a Codec that can tell whether bytes are as it would write them now.
// Rekey asks it which records still have to be rewritten after a change of keys.
type Rotating interface {
	Codec

	// Current reports whether data, which Open reads under name, was written with the
	// key that Seal uses.
	Current(name string, data []byte) bool
}

var (
	_ Rotating = plain{}
	_ Rotating = (*encrypted)(nil)
	_ Placed   = (*encrypted)(nil)
)

// Current returns true: there is no key.
func (plain) Current(string, []byte) bool { return true }
