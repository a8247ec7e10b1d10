package codec_test

import (
	"crypto/rand"
	"fmt"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/memstore"
)

// Records are encrypted with a key of the program's own, and with a key of a key
// management service in the same way: Tink's tink.AEAD is a codec.AEAD. Package
// keys makes these options from a keys file.
func ExampleEncrypted() {
	key := make([]byte, 32) // from a secret of the program's
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
	store := memstore.New(&tokenstore.Options{Codec: encrypted}) // or awssm.New(client, prefix, …)
	defer func() { _ = store.Close() }()
	fmt.Println(encrypted)
	// Output: codec.Encrypted{redacted}
}
