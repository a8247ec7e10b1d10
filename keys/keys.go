// Package keys reads and makes the keys of a store: those of names, labels and
// encryption.
//
// Keys live in one JSON document, with keys in base64. The command "tokenkeep keys
// new" writes it, and the same document serves the command and programs alike:
//
//	k, err := keys.Parse([]byte(secret)) // or keys.Load(path)
//	...
//	store, err := awssm.New(client, "oauth/crm", &awssm.Options{Store: k.Options()})
//
// The document has these members, all but "v" optional:
//
//	v                1
//	name_keys        what names and derived IDs are made with: the first is current
//	index_keys       what records are searched by: the first writes, all are searched
//	encryption_keys  AES-256-GCM: the first writes, all of them read
//	place            names the store, if its secrets were copied from elsewhere
//
// In a list null stands for no key, while keys come or go: Add, Switch and Drop are
// the steps, and docs/keys.md has them in full. A document with "name_key" in the
// place of a list of one, and with "allow_plain" in the place of a null behind the
// encryption keys, is read too.
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
	"runtime"
	"slices"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// A Kind is what a key is for.
type Kind string

// The kinds of key.
const (
	Names      Kind = "names"      // of records, and IDs that are derived
	Labels     Kind = "labels"     // what records are searched by
	Encryption Kind = "encryption" // of records
)

// Kinds returns all kinds.
func Kinds() []Kind { return []Kind{Names, Labels, Encryption} }

const (
	// keySize is the size of the keys that are made: that of AES-256, and of the
	// hash behind names and labels.
	keySize = 32

	// minKey is the least size of a key of names or labels.
	minKey = 16

	// maxFile is how long a document may be.
	maxFile = 1 << 20

	version = 1
)

// ErrFormat means that bytes are not the keys of a store. The text of an error that
// matches it says what is wrong, and holds nothing of the bytes.
var ErrFormat = errors.New("not a keys file")

// Keys are the keys of a store. They print, log and marshal as their type alone:
// Encode is the one way in which they leave the program. Methods are safe for
// concurrent use, and none changes what it is called on.
type Keys struct {
	// Behind a function, which package fmt prints as an address where it cannot
	// call Format.
	document func() document
}

// A document is the stored form. A nil key stands for none.
type document struct {
	Version        int      `json:"v"`
	NameKey        []byte   `json:"name_key,omitempty"`
	NameKeys       [][]byte `json:"name_keys,omitempty"`
	IndexKeys      [][]byte `json:"index_keys,omitempty"`
	EncryptionKeys [][]byte `json:"encryption_keys,omitempty"`
	AllowPlain     bool     `json:"allow_plain,omitempty"`
	Place          string   `json:"place,omitempty"`
}

// of returns the keys of a kind.
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

// New makes random keys of the given kinds, one each; without kinds, of all.
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
	_, _ = rand.Read(key) // never fails, by its documentation
	return key
}

func made(d document) *Keys { return &Keys{func() document { return d }} }

// Load reads the keys in a file. It refuses a file that others than its owner can
// read or write. Errors match ErrFormat or those of package fs, and hold nothing of
// the file.
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
	if mode := info.Mode().Perm(); runtime.GOOS != "windows" && mode&0o077 != 0 {
		return nil, fmt.Errorf("keys: %w", &fs.PathError{Op: "open", Path: path,
			Err: fmt.Errorf("%w: others can read or write it (mode %04o): chmod 600", fs.ErrPermission, mode)})
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("keys: %w", err)
	}
	return Parse(data)
}

// Parse reads the keys in a document, for a program that has it from a secret
// manager or from its environment. Errors match ErrFormat, and hold nothing of data.
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
	if err != nil || !errors.Is(more, io.EOF) { // the cause may quote a key
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

// check reports keys that cannot be used.
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
				return fmt.Errorf("%s key %d stands there twice", member, i+1)
			case none(key):
				continue
			case kind == Encryption && len(key) != size:
				return fmt.Errorf("%s key %d has %d bytes, not %d", member, i+1, len(key), size)
			case len(key) < size:
				return fmt.Errorf("%s key %d has %d bytes, the least is %d", member, i+1, len(key), size)
			}
			any = true
		}
	}
	if !any {
		return errors.New("there are no keys in it")
	}
	return nil
}

// Encode returns the document, to be written to a file that only its owner can read,
// or to a secret manager. It holds the keys.
func (k *Keys) Encode() []byte {
	d := k.document()
	if len(d.NameKeys) == 1 {
		d.NameKey, d.NameKeys = d.NameKeys[0], nil
	}
	data, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		panic("keys: " + err.Error()) // bytes and text alone: it cannot happen
	}
	return append(data, '\n')
}

// Options returns options of a store that uses the keys. Each call returns new
// ones: the caller may set the other fields.
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

// listed returns keys in the form that tokenstore.Options has them in lists.
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

// codec returns the codec of the encryption keys, nil if there are none.
func (d *document) codec() codec.Codec {
	var aeads []codec.AEAD
	for _, key := range d.EncryptionKeys {
		if none(key) {
			continue
		}
		aead, err := codec.AESGCM(key)
		if err != nil {
			panic("keys: " + err.Error()) // its size was checked
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
		panic("keys: " + err.Error()) // a codec and keys are there
	}
	return c
}

const redacted = "keys.Keys{redacted}"

// String returns the name of the type.
func (k Keys) String() string { return redacted }

// Format keeps the keys out of whatever prints them.
func (k Keys) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// LogValue keeps the keys out of logs.
func (k Keys) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText keeps the keys out of what is marshaled.
func (k Keys) MarshalText() ([]byte, error) { return []byte(redacted), nil }
