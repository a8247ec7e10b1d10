package main

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// keySize is the size of the keys that are made: that of AES-256, and of the hash
// behind names and labels.
const keySize = 32

// maxKeysFile is how long a keys file may be.
const maxKeysFile = 1 << 20

// A keysFile holds the keys of names, labels and encryption.
type keysFile struct {
	Version        int      `json:"v"`
	NameKey        []byte   `json:"name_key,omitempty"`
	IndexKeys      [][]byte `json:"index_keys,omitempty"`
	EncryptionKeys [][]byte `json:"encryption_keys,omitempty"`
	AllowPlain     bool     `json:"allow_plain,omitempty"`
}

// storeOptions returns the options of a portable store: what the keys file says,
// if there is one.
func (a *app) storeOptions() (*tokenstore.Options, error) {
	name := a.env(envKeys)
	if name == "" {
		return keysFile{}.options()
	}
	keys, err := readKeys(name)
	if err == nil {
		var opts *tokenstore.Options
		if opts, err = keys.options(); err == nil {
			return opts, nil
		}
	}
	return nil, usagef("the keys file %s: %w", name, err)
}

// readKeys reads a keys file. Errors hold nothing of what is in it.
func readKeys(name string) (keysFile, error) {
	f, err := os.Open(name)
	if err != nil {
		return keysFile{}, bare(err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return keysFile{}, bare(err)
	}
	if mode := info.Mode().Perm(); runtime.GOOS != "windows" && mode&0o077 != 0 {
		return keysFile{}, fmt.Errorf("others can read or write it (mode %04o): chmod 600", mode)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxKeysFile+1))
	switch {
	case err != nil:
		return keysFile{}, bare(err)
	case len(data) > maxKeysFile:
		return keysFile{}, errors.New("it is too long")
	}
	return parseKeys(data)
}

// bare returns an error of package os without the name of the file, which the
// message has already.
func bare(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

func parseKeys(data []byte) (keysFile, error) {
	var k keysFile
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	err := d.Decode(&k)
	_, more := d.Token()
	if err != nil || !errors.Is(more, io.EOF) { // the cause may quote a key
		return keysFile{}, errors.New(`it is not a JSON object of "v", "name_key", "index_keys", "encryption_keys" and "allow_plain", with keys in base64`)
	}
	switch {
	case k.Version != 1:
		return keysFile{}, fmt.Errorf("it has version %d, this program reads version 1", k.Version)
	case k.NameKey == nil && k.IndexKeys == nil && k.EncryptionKeys == nil:
		return keysFile{}, errors.New("there are no keys in it")
	case k.AllowPlain && k.EncryptionKeys == nil:
		return keysFile{}, errors.New("allow_plain goes with encryption_keys")
	}
	return k, nil
}

// options returns the options of a store that uses the keys.
func (k keysFile) options() (*tokenstore.Options, error) {
	o := &tokenstore.Options{NameKey: k.NameKey, IndexKeys: k.IndexKeys}
	if k.EncryptionKeys == nil {
		return o, nil
	}
	var aeads []codec.AEAD
	for i, key := range k.EncryptionKeys {
		aead, err := codec.AESGCM(key)
		if err != nil {
			return nil, fmt.Errorf("encryption key %d: %w", i+1, err)
		}
		aeads = append(aeads, aead)
	}
	if len(aeads) == 0 {
		return nil, errors.New("encryption_keys is empty")
	}
	c, err := codec.Encrypted(codec.JSON, aeads[0], &codec.EncryptedOptions{Old: aeads[1:], AllowPlain: k.AllowPlain})
	o.Codec = c
	return o, err
}

// encode returns the bytes of the file.
func (k keysFile) encode() ([]byte, error) {
	data, err := json.MarshalIndent(k, "", "  ")
	return append(data, '\n'), err
}

func (a *app) keysCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "keys",
		Short: "Make keys for names, labels and encryption",
		Long: `Without keys, whoever can list a store can test guesses of user names against the
names of the records, and whoever can read it can read the tokens. A keys file,
named by TOKENKEEP_KEYS_FILE, keeps such people out. It is JSON, keys in base64:

  v                1
  name_key         makes the names and IDs of records; never change it while there
                   are any: they would not be found
  index_keys       make what records are searched by: the first one writes, all of
                   them are searched
  encryption_keys  AES-256-GCM: the first one writes, all of them read
  allow_plain      true: records that are not encrypted can be read too, while
                   encryption is being introduced

To change an index or encryption key see "tokenkeep rekey --help".`,
		Args: knownCommand,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(&cobra.Command{
		Use:   "new FILE",
		Short: "Write a file of new random keys",
		Long: `Writes a new file that only its owner can read. A file that is there already is
never replaced: without the keys in it, records are lost.`,
		Args: oneArg("FILE"),
		RunE: func(_ *cobra.Command, args []string) error { return a.newKeys(args[0]) },
	})
	return c
}

func (a *app) newKeys(name string) error {
	data, err := keysFile{
		Version:        1,
		NameKey:        randomKey(),
		IndexKeys:      [][]byte{randomKey()},
		EncryptionKeys: [][]byte{randomKey()},
	}.encode()
	if err != nil {
		return err
	}
	switch err := createFile(name, data); {
	case errors.Is(err, fs.ErrExist):
		return usagef("%s is there already, and is not replaced", clean(name))
	case err != nil:
		return err
	}
	if a.json {
		return a.printJSON(map[string]string{"file": name})
	}
	a.printf(`%s has new keys. To use them:

  export %s=%s

Keep a copy in a safe place: without the keys nobody can find or read the records.
`, clean(name), envKeys, shellQuote(name))
	return nil
}

func randomKey() []byte {
	key := make([]byte, keySize)
	_, _ = rand.Read(key) // never fails, by its documentation
	return key
}
