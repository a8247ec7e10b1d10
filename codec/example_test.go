package codec_test

import (
	"crypto/rand"
	"fmt"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/memstore"
)

// This store encrypts records with the program's key. A tink.AEAD, whose key is in a key
// management service, can replace the codec.AEAD that AESGCM returns. Package keys makes options
// with such a codec from a keys file.
func ExampleEncrypted() {
	key := make([]byte, 32) // from a secret of the program
	_, _ = rand.Read(key)
	aead, err := codec.AESGCM(key)
	if err != nil {
		fmt.Println(err)
		return
	}
	encrypted, err := codec.Encrypted(codec.JSON, aead, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	store := memstore.New(&tokenstore.Options{Codec: encrypted}) // or a store of another package
	defer func() { _ = store.Close() }()
	fmt.Println(encrypted)
	// Output: codec.Encrypted{redacted}
}
