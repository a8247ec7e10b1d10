package codec

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
)

// AEAD is authenticated encryption with associated data. Tink's tink.AEAD
// satisfies it, and with it the key management services that Tink supports; so
// does what AESGCM returns. It must be safe for concurrent use.
type AEAD interface {
	Encrypt(plaintext, associatedData []byte) ([]byte, error)
	Decrypt(ciphertext, associatedData []byte) ([]byte, error)
}

// EncryptedOptions are the ways in which Encrypted can be told to read more than
// it writes, while keys are being replaced.
type EncryptedOptions struct {
	// Old are keys that records may still be encrypted with.
	Old []AEAD

	// AllowPlain makes records readable that are not encrypted yet. Leave it off
	// once all are: with it, whoever can write to the store can put a plain
	// record in the place of an encrypted one.
	AllowPlain bool
}

// Encrypted returns a codec that encrypts what inner encodes with key. The name
// of the secret is the associated data: a record that was copied to another name
// is not decrypted. opts may be nil.
func Encrypted(inner Codec, key AEAD, opts *EncryptedOptions) (Codec, error) {
	if inner == nil || key == nil {
		return nil, errors.New("codec: Encrypted needs a codec and a key")
	}
	e := encrypted{inner: inner, keys: []AEAD{key}}
	if opts != nil {
		e.keys = append(e.keys, opts.Old...)
		e.allowPlain = opts.AllowPlain
	}
	for _, k := range e.keys {
		if k == nil {
			return nil, errors.New("codec: an old key is nil")
		}
	}
	return e, nil
}

type encrypted struct {
	inner      Codec
	keys       []AEAD // the first one writes
	allowPlain bool
}

// envelope is the stored form: still JSON text, so that services that keep text
// keep it too.
type envelope struct {
	Version    int    `json:"v"`
	Ciphertext []byte `json:"aead"`
}

func (e encrypted) Encode(name string, r Record) ([]byte, error) {
	plaintext, err := e.inner.Encode(name, r)
	if err != nil {
		return nil, err
	}
	ciphertext, err := e.keys[0].Encrypt(plaintext, []byte(name))
	if err != nil {
		return nil, fmt.Errorf("codec: encrypt: %w", err)
	}
	return json.Marshal(envelope{Version: version, Ciphertext: ciphertext})
}

func (e encrypted) Decode(name string, data []byte) (Record, error) {
	members, err := object(data)
	if err != nil {
		return Record{}, err
	}
	raw, sealed := members["aead"]
	if !sealed {
		if !e.allowPlain {
			return Record{}, fmt.Errorf("codec: %w: it is not encrypted", ErrFormat)
		}
		return e.inner.Decode(name, data)
	}
	var v int
	var ciphertext []byte
	if json.Unmarshal(members["v"], &v) != nil || v != version || json.Unmarshal(raw, &ciphertext) != nil {
		return Record{}, fmt.Errorf("codec: %w: the envelope is of another form or version", ErrFormat)
	}
	var failed error
	for _, key := range e.keys {
		plaintext, err := key.Decrypt(ciphertext, []byte(name))
		if err == nil {
			return e.inner.Decode(name, plaintext)
		}
		failed = err
	}
	return Record{}, fmt.Errorf("codec: %w: decrypt: %w", ErrFormat, failed)
}

// AESGCM returns AES-256-GCM with a random nonce, under a key of 32 bytes. One
// key is good for 2^32 writes.
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
	return aesGCM{gcm}, nil
}

type aesGCM struct{ gcm cipher.AEAD }

func (a aesGCM) Encrypt(plaintext, associatedData []byte) ([]byte, error) {
	nonce := make([]byte, a.gcm.NonceSize(), a.gcm.NonceSize()+len(plaintext)+a.gcm.Overhead())
	if _, err := rand.Read(nonce); err != nil {
		return nil, err
	}
	return a.gcm.Seal(nonce, nonce, plaintext, associatedData), nil
}

func (a aesGCM) Decrypt(ciphertext, associatedData []byte) ([]byte, error) {
	if len(ciphertext) < a.gcm.NonceSize() {
		return nil, errors.New("ciphertext is too short")
	}
	nonce, sealed := ciphertext[:a.gcm.NonceSize()], ciphertext[a.gcm.NonceSize():]
	return a.gcm.Open(nil, nonce, sealed, associatedData)
}
