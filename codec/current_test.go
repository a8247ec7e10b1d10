package codec_test

import (
	"bytes"
	"testing"

	"github.com/tokenkeep/tokenkeep/codec"
)

// TestRotatingCurrent checks that bytes are current only in the form that Seal writes. Seal
// encrypts with the first key of a codec, or writes plain text if the codec has no key.
func TestRotatingCurrent(t *testing.T) {
	t.Parallel()
	key := func(b byte) codec.AEAD {
		a, err := codec.AESGCM(bytes.Repeat([]byte{b}, 32))
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	encrypted := func(first codec.AEAD, opts *codec.EncryptedOptions) codec.Rotating {
		c, err := codec.Encrypted(codec.JSON, first, opts)
		if err != nil {
			t.Fatal(err)
		}
		return c.(codec.Rotating)
	}
	const name = "u4fz"
	text := []byte(`{"v":1,"user_name":"ann","access_token":"access"}`)
	before := encrypted(key(1), nil)
	after := encrypted(key(2), &codec.EncryptedOptions{Old: []codec.AEAD{key(1)}, AllowPlain: true})
	sealed, err := before.Seal(name, "born", text)
	if err != nil {
		t.Fatal(err)
	}
	renewed, err := after.Seal(name, "born", text)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what  string
		codec codec.Rotating
		name  string
		data  []byte
		want  bool
	}{
		{"what the first key wrote", before, name, sealed, true},
		{"what the present first key wrote", after, name, renewed, true},
		{"what an old key wrote", after, name, sealed, false},
		{"a plain record where keys are", after, name, text, false},
		{"a record that was copied to another name", after, "u5ga", renewed, false},
		{"a plain record where no keys are", codec.JSON.(codec.Rotating), name, text, true},
		{"what is no record, where keys are", after, name, []byte("no"), false},
	} {
		if got := c.codec.Current(c.name, c.data); got != c.want {
			t.Errorf("%s: Current is %v", c.what, got)
		}
	}
}
