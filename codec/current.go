package codec

// A Rotating is a Codec that can tell whether bytes are as it would write them
// now. tokenstore.Store.Rekey asks it which records are left to be written anew
// after a key was replaced.
type Rotating interface {
	Codec

	// Current reports whether data, stored under name, was written with the key
	// that Encode uses. It is false for what Decode cannot read.
	Current(name string, data []byte) bool
}

var (
	_ Rotating = plain{}
	_ Rotating = (*encrypted)(nil)
	_ Placed   = (*encrypted)(nil)
)

// Current reports whether data is a record: there is no key.
func (p plain) Current(name string, data []byte) bool {
	_, err := p.Decode(name, data)
	return err == nil
}

// Current reports whether data is as Encode writes it: encrypted with the first key
// for this store, or plain. If the codec inside cannot tell more, being able to read
// is enough.
func (e *encrypted) Current(name string, data []byte) bool {
	v, sealed, err := e.open(data)
	if err != nil || sealed == e.writePlain {
		return false
	}
	plaintext := data
	if sealed {
		if v.Place == nil || *v.Place != e.place {
			return false
		}
		if plaintext, err = e.keys()[0].Decrypt(v.Ciphertext, v.associated(name)); err != nil {
			return false
		}
	}
	if inner, ok := e.inner.(Rotating); ok {
		return inner.Current(name, plaintext)
	}
	_, err = e.inner.Decode(name, plaintext)
	return err == nil
}
