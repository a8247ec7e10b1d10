package codec

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"

	"github.com/tokenkeep/tokenkeep/internal/members"
)

// An AEAD provides authenticated encryption with associated data. AESGCM returns an AEAD. A
// tink.AEAD of the library Tink is also an AEAD, and can use a key in a key management service.
// Implementations must be safe for concurrent use.
type AEAD interface {
	Encrypt(plaintext, associatedData []byte) ([]byte, error)
	Decrypt(ciphertext, associatedData []byte) ([]byte, error)
}

// EncryptedOptions configures Encrypted.
type EncryptedOptions struct {
	// Old lists earlier keys. Open tries the current key and then the keys in Old. Seal uses only
	// the current key.
	Old []AEAD

	// AllowPlain makes unencrypted records readable. Clear AllowPlain once all records are
	// encrypted. Until then, anyone who can write to the store can replace an encrypted record
	// with a plain record.
	AllowPlain bool

	// WritePlain makes the codec write records unencrypted, and read both plain and encrypted
	// records. To begin encryption, set WritePlain until all programs have the key. To end
	// encryption, set WritePlain again.
	WritePlain bool

	// Place, if not empty, replaces the place that the driver of the store reports in
	// driver.Properties. If the secrets were copied from another store, set Place to the place of
	// that store. Different values of Place also distinguish two stores whose drivers report the
	// same place.
	Place string
}

// String returns "codec.EncryptedOptions{redacted}".
func (EncryptedOptions) String() string { return "codec.EncryptedOptions{redacted}" }

// Format prints o.String() for every verb, so that keys are not printed.
func (o EncryptedOptions) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, o.String()) }

// LogValue returns o.String(), so that keys are not logged.
func (o EncryptedOptions) LogValue() slog.Value { return slog.StringValue(o.String()) }

// MarshalText returns o.String(), so that keys are not marshaled.
func (o EncryptedOptions) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// Encrypted returns a codec that encrypts the output of inner with key. The codec implements
// Placed and Rotating. A nil opts is the same as the zero EncryptedOptions. Encrypted returns an
// error if inner, key or an old key is nil.
//
// The associated data is the name of the secret, the place of the store and the record's
// incarnation. A record copied from another name or another store cannot be decrypted: the error
// matches ErrFormat. As an exception, a record copied to another store can be decrypted under its
// own name if the place of either store is empty. If Decrypt fails for any reason, such as a
// failure of a key management service, the error from Open matches ErrFormat. The codec also reads
// records from an earlier version of this package, whose associated data is only the name.
// Encryption does not detect a rollback: an older ciphertext of the same record in the same store
// can be decrypted.
func Encrypted(inner Codec, key AEAD, opts *EncryptedOptions) (Codec, error) {
	if inner == nil || key == nil {
		return nil, errors.New("codec: Encrypted needs a codec and a key")
	}
	e := &encrypted{inner: inner}
	keys := []AEAD{key}
	if opts != nil {
		keys = append(keys, opts.Old...)
		e.writePlain = opts.WritePlain
		e.readPlain = opts.AllowPlain || opts.WritePlain
		e.place, e.fixed = opts.Place, opts.Place != ""
	}
	if slices.Contains(keys, nil) {
		return nil, errors.New("codec: an old key is nil")
	}
	e.keys = func() []AEAD { return keys }
	return e, nil
}

// An encrypted is the codec that Encrypted returns. Package fmt does not call Format for a value in
// an unexported field. So keys is a function: package fmt prints only its address.
type encrypted struct {
	inner      Codec
	keys       func() []AEAD // the first key encrypts
	readPlain  bool
	writePlain bool
	place      string
	fixed      bool // the caller has set the place
}

// Format prints "codec.Encrypted{redacted}" for every verb.
func (e *encrypted) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, "codec.Encrypted{redacted}")
}

// At implements Placed. It ignores place if the caller has set EncryptedOptions.Place.
func (e *encrypted) At(place string) Codec {
	if e.fixed {
		return e
	}
	at := *e
	at.place = place
	return &at
}

const version = 1

// An envelope is the stored form of an encrypted record. It is JSON, because some services store
// only text. Place and Born are authenticated but not secret. An envelope that authenticates
// only the name has neither Place nor Born.
type envelope struct {
	Version    int     `json:"v"`
	Place      *string `json:"place,omitempty"`
	Born       string  `json:"born,omitempty"`
	Ciphertext []byte  `json:"aead"`
}

// associated returns the associated data for the record with the given name.
func (v envelope) associated(name string) []byte {
	if v.Place == nil {
		return []byte(name)
	}
	return sized("tokenkeep record", *v.Place, name, v.Born)
}

// sized returns the concatenation of parts, each prefixed with its length, so that
// ("a", "bc") and ("ab", "c") differ.
func sized(parts ...string) []byte {
	var b []byte
	for _, p := range parts {
		b = binary.BigEndian.AppendUint64(b, uint64(len(p)))
		b = append(b, p...)
	}
	return b
}

func (e *encrypted) Seal(name, incarnation string, text []byte) ([]byte, error) {
	text, err := e.inner.Seal(name, incarnation, text)
	if err != nil || e.writePlain {
		return text, err
	}
	v := envelope{Version: version, Place: &e.place, Born: incarnation}
	v.Ciphertext, err = e.keys()[0].Encrypt(text, v.associated(name))
	if err != nil {
		return nil, fmt.Errorf("codec: encrypt: %w", err)
	}
	return json.Marshal(v)
}

func (e *encrypted) Open(name string, data []byte) ([]byte, error) {
	v, sealed, err := e.open(data)
	if err != nil {
		return nil, err
	}
	if !sealed {
		if !e.readPlain {
			return nil, fmt.Errorf("codec: %w: it is not encrypted", ErrFormat)
		}
		return e.inner.Open(name, data)
	}
	var failed error
	for _, key := range e.keys() {
		text, err := key.Decrypt(v.Ciphertext, v.associated(name))
		if err == nil {
			return e.inner.Open(name, text)
		}
		failed = err
	}
	return nil, fmt.Errorf("codec: %w: decrypt: %w", ErrFormat, failed)
}

// Current reports whether data has the form that Seal writes: encrypted with the first key for
// this store or, with WritePlain, plain. If inner is not a Rotating, Current checks only that
// inner can read the text.
func (e *encrypted) Current(name string, data []byte) bool {
	v, sealed, err := e.open(data)
	if err != nil || sealed == e.writePlain {
		return false
	}
	text := data
	if sealed {
		if v.Place == nil || *v.Place != e.place {
			return false
		}
		if text, err = e.keys()[0].Decrypt(v.Ciphertext, v.associated(name)); err != nil {
			return false
		}
	}
	if inner, ok := e.inner.(Rotating); ok {
		return inner.Current(name, text)
	}
	_, err = e.inner.Open(name, text)
	return err == nil
}

// open returns the envelope in data. sealed reports whether data is an envelope. Errors match
// ErrFormat. If the envelope is for another store, the error contains both places.
func (e *encrypted) open(data []byte) (v envelope, sealed bool, err error) {
	parts, err := members.Split(data)
	if err != nil {
		return v, false, fmt.Errorf("codec: %w: %w", ErrFormat, err)
	}
	raw, sealed := parts["aead"]
	if !sealed {
		return v, false, nil
	}
	place, placed := parts["place"]
	born, bears := parts["born"]
	if json.Unmarshal(parts["v"], &v.Version) != nil || v.Version != version ||
		json.Unmarshal(raw, &v.Ciphertext) != nil ||
		placed && json.Unmarshal(place, &v.Place) != nil || bears && json.Unmarshal(born, &v.Born) != nil {
		return v, true, fmt.Errorf("codec: %w: the envelope is of another form or version", ErrFormat)
	}
	if v.Place != nil && *v.Place != "" && e.place != "" && *v.Place != e.place {
		return v, true, fmt.Errorf("codec: %w: it was encrypted for the store at %.200q, and this one is at %.200q", ErrFormat, *v.Place, e.place)
	}
	return v, true, nil
}

// AESGCM returns an AEAD that uses AES-256-GCM with random 12-byte nonces. It returns an error
// unless key has 32 bytes. Replace key before it has encrypted 2^32 records.
func AESGCM(key []byte) (AEAD, error) {
	if len(key) != 32 {
		return nil, fmt.Errorf("codec: an AES-256 key has 32 bytes, this one has %d", len(key))
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	return &aesGCM{gcm}, nil
}

// An aesGCM is used only through a pointer. For a pointer in an unexported field, package fmt
// does not call Format, and prints only the address.
type aesGCM struct{ gcm cipher.AEAD }

// Format prints "codec.AESGCM{redacted}" for every verb.
func (a *aesGCM) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "codec.AESGCM{redacted}") }

func (a *aesGCM) Encrypt(plaintext, associatedData []byte) ([]byte, error) {
	nonce := make([]byte, a.gcm.NonceSize(), a.gcm.NonceSize()+len(plaintext)+a.gcm.Overhead())
	if _, err := rand.Read(nonce); err != nil {
		return nil, err
	}
	return a.gcm.Seal(nonce, nonce, plaintext, associatedData), nil
}

func (a *aesGCM) Decrypt(ciphertext, associatedData []byte) ([]byte, error) {
	if len(ciphertext) < a.gcm.NonceSize() {
		return nil, errors.New("ciphertext is too short")
	}
	nonce, sealed := ciphertext[:a.gcm.NonceSize()], ciphertext[a.gcm.NonceSize():]
	return a.gcm.Open(nil, nonce, sealed, associatedData)
}
