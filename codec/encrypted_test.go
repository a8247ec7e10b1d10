package codec

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
)

// tinkAEAD imitates Tink's tink.AEAD. Its ciphertexts begin with a prefix that names the key,
// followed by a nonce and the sealed text.
type tinkAEAD struct {
	prefix []byte
	gcm    cipher.AEAD
}

func newTinkAEAD(t testing.TB, id byte) *tinkAEAD {
	t.Helper()
	block, err := aes.NewCipher(bytes.Repeat([]byte{id}, 32))
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	return &tinkAEAD{[]byte{1, 0, 0, 0, id}, gcm}
}

func (a *tinkAEAD) Encrypt(plaintext, associatedData []byte) ([]byte, error) {
	nonce := make([]byte, a.gcm.NonceSize())
	if _, err := rand.Read(nonce); err != nil {
		return nil, err
	}
	return a.gcm.Seal(slices.Concat(a.prefix, nonce), nonce, plaintext, associatedData), nil
}

func (a *tinkAEAD) Decrypt(ciphertext, associatedData []byte) ([]byte, error) {
	at := len(a.prefix) + a.gcm.NonceSize()
	if len(ciphertext) < at || !bytes.HasPrefix(ciphertext, a.prefix) {
		return nil, errors.New("aead_factory: decryption failed")
	}
	plaintext, err := a.gcm.Open(nil, ciphertext[len(a.prefix):at], ciphertext[at:], associatedData)
	if err != nil {
		return nil, errors.New("aead_factory: decryption failed")
	}
	return plaintext, nil
}

// sealer returns a codec that encrypts with the key number id, and also decrypts with the keys
// whose numbers are in old.
func sealer(t testing.TB, id byte, old ...byte) Codec {
	t.Helper()
	var opts EncryptedOptions
	for _, id := range old {
		opts.Old = append(opts.Old, newTinkAEAD(t, id))
	}
	return sealerWith(t, id, &opts)
}

func sealerWith(t testing.TB, id byte, opts *EncryptedOptions) Codec {
	t.Helper()
	c, err := Encrypted(JSON, newTinkAEAD(t, id), opts)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// born is the incarnation of the records in these tests.
const born = "aaaabbbbccccdddd"

func seal(t testing.TB, c Codec, name string, text []byte) []byte {
	t.Helper()
	data, err := c.Seal(name, born, text)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func reads(t *testing.T, what string, c Codec, name string, data, text []byte) {
	t.Helper()
	if got, err := c.Open(name, data); err != nil || !bytes.Equal(got, text) {
		t.Errorf("%s: another text, error %v", what, err)
	}
}

// refused checks that Open failed: err matches ErrFormat and quotes no secrets, and text is nil.
func refused(t *testing.T, what string, text []byte, err error, secrets ...string) {
	t.Helper()
	if !errors.Is(err, ErrFormat) {
		t.Errorf("%s: error %v, want ErrFormat", what, err)
		return
	}
	for _, secret := range append(secrets, secretText) {
		if strings.Contains(fmt.Sprintf("%v %+v %#v %q", err, err, err, err), secret) {
			t.Errorf("%s: the error quotes what it is about", what)
		}
	}
	if text != nil {
		t.Errorf("%s: a text is returned with the error", what)
	}
}

// secretText is a secret in the records of these tests. Errors must not contain secretText.
const secretText = "s3cr3t-value"

// textOf returns the text of a record of user, including secretText.
func textOf(user string) []byte {
	return []byte(`{"v":1,"user_name":"` + user + `","refresh_token":"` + secretText + `","born":"` + born + `"}`)
}

var secretRecord = textOf("ann@example.com:6001")

func TestEncryptedRoundTrip(t *testing.T) {
	t.Parallel()
	for what, r := range map[string][]byte{"a record": secretRecord, "an empty text": {}, "a long one": bytes.Repeat(secretRecord, 100)} {
		c := sealer(t, 1)
		reads(t, what, c, "a", seal(t, c, "a", r), r)
	}
}

func TestEncryptedOpaqueJSON(t *testing.T) {
	t.Parallel()
	data := seal(t, sealer(t, 1), "a", secretRecord)
	if !json.Valid(data) {
		t.Errorf("it is not JSON: %q", data)
	}
	var envelope struct {
		AEAD []byte `json:"aead"`
	}
	if err := json.Unmarshal(data, &envelope); err != nil {
		t.Fatal(err)
	}
	for shift := range 3 {
		inner := base64.StdEncoding.EncodeToString([]byte(secretText[shift : shift+9]))
		if strings.Contains(string(data), inner) || strings.Contains(string(data), secretText) ||
			bytes.Contains(envelope.AEAD, []byte(secretText)) || bytes.Contains(envelope.AEAD, []byte("user_name")) {
			t.Error("part of the record can be read")
		}
	}
}

func TestEncryptedSealTwice(t *testing.T) {
	t.Parallel()
	c := sealer(t, 1)
	if bytes.Equal(seal(t, c, "a", secretRecord), seal(t, c, "a", secretRecord)) {
		t.Error("the ciphertexts are equal")
	}
}

func TestEncryptedOtherName(t *testing.T) {
	t.Parallel()
	c := sealer(t, 1)
	data := seal(t, c, "a", secretRecord)
	for _, name := range []string{"b", "", "a ", "aa"} {
		r, err := c.Open(name, data)
		refused(t, fmt.Sprintf("the record of %q under %q", "a", name), r, err)
	}
}

func TestTwoEncryptedRecordsCannotBeExchanged(t *testing.T) {
	t.Parallel()
	c := sealer(t, 1)
	ann := textOf("ann")
	bob := textOf("bob")
	a, b := seal(t, c, "a", ann), seal(t, c, "b", bob)
	r, err := c.Open("a", b)
	refused(t, "bob's record under ann's name", r, err)
	r, err = c.Open("b", a)
	refused(t, "ann's record under bob's name", r, err)
	reads(t, "each under its own", c, "a", a, ann)
	reads(t, "each under its own", c, "b", b, bob)
}

func TestEncryptedTamperedBits(t *testing.T) {
	t.Parallel()
	c := sealer(t, 1)
	data := seal(t, c, "a", secretRecord)
	for i := range data {
		for bit := range 8 {
			tampered := bytes.Clone(data)
			tampered[i] ^= 1 << bit
			if r, err := c.Open("a", tampered); err == nil && !bytes.Equal(r, secretRecord) {
				t.Errorf("bit %d of byte %d: another record is read", bit, i)
			} else if err != nil {
				refused(t, fmt.Sprintf("bit %d of byte %d", bit, i), r, err)
			}
		}
	}
	for n := range data {
		r, err := c.Open("a", data[:n])
		refused(t, fmt.Sprintf("the first %d bytes", n), r, err)
	}
}

func TestEncryptedTamperedCiphertext(t *testing.T) {
	t.Parallel()
	c := sealer(t, 1)
	var e envelope
	if err := json.Unmarshal(seal(t, c, "a", secretRecord), &e); err != nil {
		t.Fatal(err)
	}
	for i := range e.Ciphertext {
		tampered := envelope{Version: version, Ciphertext: bytes.Clone(e.Ciphertext)}
		tampered.Ciphertext[i] ^= 0x10
		data, err := json.Marshal(tampered)
		if err != nil {
			t.Fatal(err)
		}
		r, err := c.Open("a", data)
		refused(t, fmt.Sprintf("byte %d of the ciphertext", i), r, err)
	}
}

func TestEncryptedUnknownKey(t *testing.T) {
	t.Parallel()
	data := seal(t, sealer(t, 1), "a", secretRecord)
	r, err := sealer(t, 2, 3, 4).Open("a", data)
	refused(t, "a record of an unknown key", r, err)
}

func TestEncryptedKeyRotation(t *testing.T) {
	t.Parallel()
	before, after := sealer(t, 1), sealer(t, 2, 9, 1)
	data := seal(t, before, "a", secretRecord)
	reads(t, "a record of the old key, while rotating", after, "a", data, secretRecord)
	data = seal(t, after, "a", secretRecord)
	reads(t, "a record written while rotating, when the old key is gone", sealer(t, 2), "a", data, secretRecord)
	r, err := before.Open("a", data)
	refused(t, "a record of the new key, for a reader with only the old key", r, err)
	r, err = after.Open("b", seal(t, before, "a", secretRecord))
	refused(t, "a record of the old key under another name", r, err)
}

func TestEncryptedAllowPlain(t *testing.T) {
	t.Parallel()
	data := seal(t, JSON, "a", secretRecord)
	rotating := sealerWith(t, 1, &EncryptedOptions{AllowPlain: true})
	reads(t, "a plain record, while rotating in", rotating, "a", data, secretRecord)
	reads(t, "what is written then, afterwards", sealer(t, 1), "a", seal(t, rotating, "a", secretRecord), secretRecord)
	for what, c := range map[string]Codec{"without options": sealerWith(t, 1, nil), "with old keys": sealer(t, 1, 2)} {
		r, err := c.Open("a", data)
		refused(t, "a plain record "+what, r, err)
	}
}

func TestEncryptedBadEnvelope(t *testing.T) {
	t.Parallel()
	sealed := base64.StdEncoding.EncodeToString([]byte(secretText))
	for _, c := range []Codec{sealer(t, 1), sealerWith(t, 1, &EncryptedOptions{AllowPlain: true})} {
		for what, data := range map[string]string{
			"no base64":          `{"v":1,"aead":"` + secretText + `"}`,
			"a short ciphertext": `{"v":1,"aead":"QQ=="}`,
			"no ciphertext":      `{"v":1,"aead":null}`,
			"a list":             `{"v":1,"aead":["` + sealed + `"]}`,
			"another version":    `{"v":2,"aead":"` + sealed + `"}`,
			"no version":         `{"aead":"` + sealed + `"}`,
			"two ciphertexts":    `{"v":1,"aead":"` + sealed + `","aead":"` + sealed + `"}`,
			"a ciphertext":       `{"v":1,"aead":"` + sealed + `"}`,
		} {
			r, err := c.Open("a", []byte(data))
			refused(t, what, r, err, sealed)
		}
		for what, data := range map[string]string{
			"nothing": ``, "text": secretText, "a string": `"` + secretText + `"`, "null": `null`, "a number": `1`,
			"an array":             `[{"v":1,"refresh_token":"` + secretText + `"}]`,
			"a truncated envelope": `{"v":1,"aead":"` + sealed,
			"an envelope and more": `{"v":1,"aead":"` + sealed + `"}}`,
			"depth without end":    `{"v":1,"x":` + strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000) + `}`,
		} {
			r, err := c.Open("a", []byte(data))
			refused(t, what, r, err)
		}
	}
}

func TestEncryptedMissingArguments(t *testing.T) {
	t.Parallel()
	key := newTinkAEAD(t, 1)
	for what, make := range map[string]func() (Codec, error){
		"a codec":    func() (Codec, error) { return Encrypted(nil, key, nil) },
		"a key":      func() (Codec, error) { return Encrypted(JSON, nil, nil) },
		"an old key": func() (Codec, error) { return Encrypted(JSON, key, &EncryptedOptions{Old: []AEAD{key, nil}}) },
	} {
		if c, err := make(); err == nil || c != nil {
			t.Errorf("without %s: %v, error %v", what, c, err)
		}
	}
}

var errKMS = errors.New("the key management service is away")

// away is an AEAD whose key management service cannot be reached.
type away struct{}

func (away) Encrypt(_, _ []byte) ([]byte, error) { return nil, errKMS }
func (away) Decrypt(_, _ []byte) ([]byte, error) { return nil, errKMS }

func TestEncryptedKeyError(t *testing.T) {
	t.Parallel()
	c, err := Encrypted(JSON, away{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if data, err := c.Seal("a", born, secretRecord); !errors.Is(err, errKMS) || data != nil {
		t.Errorf("Seal returned %d bytes and error %v, want the key's", len(data), err)
	}
	if _, err := c.Open("a", seal(t, sealer(t, 1), "a", secretRecord)); !errors.Is(err, errKMS) {
		t.Errorf("Open returned error %v, want the key's", err)
	}
}

func TestAESGCM(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, 16, 24, 31, 33, 64} {
		if key, err := AESGCM(bytes.Repeat([]byte(secretText), 8)[:n]); err == nil || key != nil || strings.Contains(err.Error(), secretText) {
			t.Errorf("a key of %d bytes: error %v", n, err)
		}
	}
	key, err := AESGCM(bytes.Repeat([]byte{7}, 32))
	if err != nil {
		t.Fatal(err)
	}
	for _, plaintext := range [][]byte{nil, []byte("x"), bytes.Repeat([]byte("long"), 10_000)} {
		sealed, err := key.Encrypt(plaintext, []byte("name"))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := key.Decrypt(sealed, []byte("name")); err != nil || !bytes.Equal(got, plaintext) {
			t.Errorf("%d bytes are not decrypted: error %v", len(plaintext), err)
		}
		if _, err := key.Decrypt(sealed, []byte("another")); err == nil {
			t.Error("other associated data is accepted")
		}
		sealed[len(sealed)-1] ^= 1
		if _, err := key.Decrypt(sealed, []byte("name")); err == nil {
			t.Error("a changed ciphertext is accepted")
		}
	}
	for n := range 12 + 16 {
		if _, err := key.Decrypt(make([]byte, n), nil); err == nil {
			t.Errorf("a ciphertext of %d bytes is accepted", n)
		}
	}
}

// TestAESGCMFormat checks that the standard library can decrypt a ciphertext of AESGCM, which
// consists of a 12-byte nonce and the sealed text.
func TestAESGCMFormat(t *testing.T) {
	t.Parallel()
	raw := bytes.Repeat([]byte{7}, 32)
	key, err := AESGCM(raw)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := key.Encrypt([]byte("text"), []byte("name"))
	if err != nil {
		t.Fatal(err)
	}
	block, err := aes.NewCipher(raw)
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := gcm.Open(nil, sealed[:12], sealed[12:], []byte("name")); err != nil || string(got) != "text" {
		t.Errorf("it is opened as %q, error %v", got, err)
	}
}

func TestCodecConcurrent(t *testing.T) {
	t.Parallel()
	for _, c := range []Codec{JSON, sealer(t, 1, 2)} {
		var wait sync.WaitGroup
		for i := range 16 {
			wait.Go(func() {
				name := fmt.Sprint(i)
				r := textOf(name)
				data, err := c.Seal(name, born, r)
				if err != nil {
					t.Error(err)
					return
				}
				reads(t, name, c, name, data, r)
			})
		}
		wait.Wait()
	}
}

// FuzzDecodeEncrypted checks that Open neither panics nor accepts data that was not encrypted
// for the name. It also checks that the errors of Open quote no secret.
func FuzzDecodeEncrypted(f *testing.F) {
	c := sealer(f, 1, 2)
	f.Add(seal(f, c, "a", secretRecord))
	f.Add(seal(f, JSON, "a", secretRecord))
	f.Add([]byte(`{"v":1,"aead":"QQ==","aead":null}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := c.Open("b", data)
		if err == nil {
			t.Fatalf("%q was read but never written", data)
		}
		refused(t, "bytes", r, err)
	})
}
