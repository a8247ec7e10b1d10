// Package keys creates, reads and changes the keys of a store: keys for names, labels and
// encryption.
//
// One JSON document holds the keys in base64. The command "tokenkeep keys new" writes the
// document. Programs read the document with this package:
//
//	k, err := keys.Parse([]byte(secret)) // or keys.Load(path)
//	...
//	store, err := awssm.New(client, "oauth/crm", &awssm.Options{Store: k.Options()})
//
// The document has the following members, of which "v" and at least one key are required:
//
//	v                the version of the format, 1
//	name_keys        keys for names and derived IDs: the first is current
//	index_keys       keys for labels: the first writes labels, searches use all
//	encryption_keys  keys of AES-256-GCM: the first encrypts, all decrypt
//	place            the Place of codec.EncryptedOptions, for secrets from another store
//
// While keys are being added or removed, a null in a list stands for "no key"; see Add, Switch and
// Drop, and docs/keys.md. Instead of a list with one name key, the document may have "name_key"
// with that key. Instead of a null at the end of "encryption_keys", the document may have
// "allow_plain": true.
package keys

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"slices"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// A Kind is the purpose of a key.
type Kind string

// The kinds of keys.
const (
	Names      Kind = "names"      // names of records, and derived IDs
	Labels     Kind = "labels"     // labels by which records are found
	Encryption Kind = "encryption" // encryption of records
)

// Kinds returns Names, Labels and Encryption in a new slice.
func Kinds() []Kind { return []Kind{Names, Labels, Encryption} }

const (
	// keySize is the size of new keys in bytes. AES-256 requires this size.
	keySize = 32

	// minKey is the minimum size in bytes of a key for names or labels.
	minKey = 16

	// maxFile is the maximum size of a document in bytes.
	maxFile = 1 << 20

	version = 1
)

// ErrFormat means that the bytes are not a keys document. Errors that match ErrFormat describe
// the mistake, but never quote the bytes.
var ErrFormat = errors.New("not a keys file")

// Keys holds the keys of a store. A Keys prints, logs and marshals as "keys.Keys{redacted}"; only
// Encode and Options return keys. The methods of a Keys are safe for concurrent use and do not
// modify the Keys. The zero Keys is not usable: see New, Load, Parse and Unused.
type Keys struct {
	// document is a function, because package fmt prints only the address of a function. Package
	// fmt does not call Format for a Keys in an unexported field of another type.
	document func() document
}

// A document is the stored form of Keys. A nil key stands for "no key".
type document struct {
	Version        int      `json:"v"`
	NameKey        []byte   `json:"name_key,omitempty"`
	NameKeys       [][]byte `json:"name_keys,omitempty"`
	IndexKeys      [][]byte `json:"index_keys,omitempty"`
	EncryptionKeys [][]byte `json:"encryption_keys,omitempty"`
	AllowPlain     bool     `json:"allow_plain,omitempty"`
	Place          string   `json:"place,omitempty"`
}

func (d *document) of(kind Kind) *[][]byte {
	switch kind {
	case Names:
		return &d.NameKeys
	case Labels:
		return &d.IndexKeys
	default:
		return &d.EncryptionKeys
	}
}

// New returns Keys with one random key of each given kind, or of every kind if kinds is empty.
func New(kinds ...Kind) *Keys {
	d := document{Version: version}
	if len(kinds) == 0 {
		kinds = Kinds()
	}
	for _, kind := range kinds {
		*d.of(kind) = [][]byte{random()}
	}
	return made(d)
}

func random() []byte {
	key := make([]byte, keySize)
	_, _ = rand.Read(key) // documented never to fail
	return key
}

func made(d document) *Keys { return &Keys{func() document { return d }} }

// Load reads the keys in the file at path. On Unix, the error matches fs.ErrPermission if the
// file's group or other users have any access to the file. As an exception, the group may read a
// file that another user owns. If the content is not a keys document, the error matches ErrFormat.
// Any other error wraps an error from package os. Errors never quote the content.
func Load(path string) (*Keys, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("keys: %w", err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("keys: %w", err)
	}
	if mode, never := info.Mode().Perm(), forbidden(info); mode&never != 0 {
		return nil, fmt.Errorf("keys: %w", &fs.PathError{Op: "open", Path: path,
			Err: fmt.Errorf("%w: others have access to it (mode %04o): chmod %03o", fs.ErrPermission, mode, 0o677&^never)})
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("keys: %w", err)
	}
	return Parse(data)
}

// Parse reads the keys in a document, such as the value of a secret or of an environment
// variable. Errors match ErrFormat and never quote data.
func Parse(data []byte) (*Keys, error) {
	bad := func(format string, args ...any) (*Keys, error) {
		return nil, fmt.Errorf("keys: %w: %s", ErrFormat, fmt.Sprintf(format, args...))
	}
	if len(data) > maxFile {
		return bad("it is too long")
	}
	var d document
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	err := decoder.Decode(&d)
	_, more := decoder.Token()
	if err != nil || !errors.Is(more, io.EOF) { // the decoder's error might quote a key
		return bad(`it is not a JSON object of "v", "name_keys", "index_keys", "encryption_keys" and "place", with keys in base64`)
	}
	switch {
	case d.Version != version:
		return bad("it has version %d, this program reads version %d", d.Version, version)
	case d.NameKey != nil && d.NameKeys != nil:
		return bad("it has both name_key and name_keys")
	case d.AllowPlain && d.EncryptionKeys == nil:
		return bad("allow_plain goes with encryption_keys")
	}
	if d.NameKey != nil {
		d.NameKeys, d.NameKey = [][]byte{d.NameKey}, nil
	}
	if d.AllowPlain && !slices.ContainsFunc(d.EncryptionKeys, none) {
		d.EncryptionKeys = append(d.EncryptionKeys, nil)
	}
	d.AllowPlain = false
	if err := d.check(); err != nil {
		return bad("%v", err)
	}
	return made(d), nil
}

func none(key []byte) bool { return key == nil }

// check returns an error if d has a key of an unusable size, a repeated key, an empty list, or no
// key.
func (d *document) check() error {
	any := false
	for _, kind := range Kinds() {
		list := *d.of(kind)
		member := map[Kind]string{Names: "name", Labels: "index", Encryption: "encryption"}[kind]
		if list != nil && len(list) == 0 {
			return fmt.Errorf("%s_keys is empty", member)
		}
		for i, key := range list {
			size := minKey
			if kind == Encryption {
				size = keySize
			}
			switch {
			case slices.ContainsFunc(list[:i], func(k []byte) bool { return bytes.Equal(k, key) && none(k) == none(key) }):
				return fmt.Errorf("%s key %d is repeated", member, i+1)
			case none(key):
				continue
			case kind == Encryption && len(key) != size:
				return fmt.Errorf("%s key %d has %d bytes, not %d", member, i+1, len(key), size)
			case len(key) < size:
				return fmt.Errorf("%s key %d has %d bytes, the minimum is %d", member, i+1, len(key), size)
			}
			any = true
		}
	}
	if !any {
		return errors.New("there are no keys in it")
	}
	return nil
}

// Encode returns the document, which contains the keys. Store the document only in a secret
// manager, or in a file that only the owner of the file can read.
func (k *Keys) Encode() []byte {
	d := k.document()
	if len(d.NameKeys) == 1 {
		d.NameKey, d.NameKeys = d.NameKeys[0], nil
	}
	data, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		panic("keys: " + err.Error()) // cannot happen: the values are bytes and text
	}
	return append(data, '\n')
}

// Options returns options for a store that uses the keys. It sets only the fields that the keys
// determine. Each call returns a new value with copies of the keys, which the caller may change.
func (k *Keys) Options() *tokenstore.Options {
	d := k.document()
	var o tokenstore.Options
	if len(d.NameKeys) > 0 {
		o.NameKey = bytes.Clone(d.NameKeys[0])
		o.OtherNameKeys = listed(d.NameKeys[1:])
	}
	if slices.ContainsFunc(d.IndexKeys, func(key []byte) bool { return !none(key) }) {
		o.IndexKeys = listed(d.IndexKeys)
	}
	o.Codec = d.codec()
	return &o
}

// listed returns a copy of keys with tokenstore.NoKey in place of nil.
func listed(keys [][]byte) [][]byte {
	var list [][]byte
	for _, key := range keys {
		if none(key) {
			key = []byte(tokenstore.NoKey)
		}
		list = append(list, bytes.Clone(key))
	}
	return list
}

// codec returns a codec with the encryption keys, or nil if d has no encryption keys.
func (d *document) codec() codec.Codec {
	var aeads []codec.AEAD
	for _, key := range d.EncryptionKeys {
		if none(key) {
			continue
		}
		aead, err := codec.AESGCM(key)
		if err != nil {
			panic("keys: " + err.Error()) // cannot happen: check verifies the size
		}
		aeads = append(aeads, aead)
	}
	if len(aeads) == 0 {
		return nil
	}
	c, err := codec.Encrypted(codec.JSON, aeads[0], &codec.EncryptedOptions{
		Old:        aeads[1:],
		AllowPlain: slices.ContainsFunc(d.EncryptionKeys, none),
		WritePlain: none(d.EncryptionKeys[0]),
		Place:      d.Place,
	})
	if err != nil {
		panic("keys: " + err.Error()) // cannot happen: the codec and its keys are not nil
	}
	return c
}

const redacted = "keys.Keys{redacted}"

// String returns "keys.Keys{redacted}".
func (k Keys) String() string { return redacted }

// Format prints "keys.Keys{redacted}" for every verb.
func (k Keys) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// LogValue returns "keys.Keys{redacted}".
func (k Keys) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText returns "keys.Keys{redacted}".
func (k Keys) MarshalText() ([]byte, error) { return []byte(redacted), nil }
