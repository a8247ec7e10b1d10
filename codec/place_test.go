package codec

import (
	"bytes"
	"encoding/json"
	"expvar"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func at(t testing.TB, c Codec, place string) Codec {
	t.Helper()
	p, ok := c.(Placed)
	if !ok {
		t.Fatal("the codec is not a Placed")
	}
	return p.At(place)
}

func TestRecordOfAnotherStoreIsRefused(t *testing.T) {
	t.Parallel()
	c := sealer(t, 1)
	staging, production := at(t, c, "vaultstore/kv/staging"), at(t, c, "vaultstore/kv/production")
	data := seal(t, staging, "a", secretRecord)
	reads(t, "in its own store", staging, "a", data, secretRecord)
	r, err := production.Open("a", data)
	refused(t, "a record of staging in production", r, err)
	for _, place := range []string{"kv/staging", "kv/production"} {
		if !strings.Contains(err.Error(), place) {
			t.Errorf("the error does not name %s: %v", place, err)
		}
	}
	if current := production.(Rotating).Current("a", data); current {
		t.Error("it is current there")
	}

	// A change of the place in the envelope makes the ciphertext unreadable.
	forged := bytes.Replace(data, []byte("staging"), []byte("production"), 1)
	r, err = production.Open("a", forged)
	refused(t, "the same with the place replaced", r, err)
	var v map[string]any
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	for _, member := range []string{"place", "born"} {
		without := map[string]any{}
		for k, value := range v {
			if k != member {
				without[k] = value
			}
		}
		text, err := json.Marshal(without)
		if err != nil {
			t.Fatal(err)
		}
		r, err := staging.Open("a", text)
		refused(t, "the envelope without "+member, r, err)
	}
}

func TestIncarnationIsAuthenticated(t *testing.T) {
	t.Parallel()
	c := at(t, sealer(t, 1), "here")
	data := seal(t, c, "a", secretRecord)
	reads(t, "as it was written", c, "a", data, secretRecord)
	got, err := c.Open("a", bytes.Replace(data, []byte(born), []byte("bbbbbbbbbbbbbbbb"), 1))
	refused(t, "with another incarnation", got, err)
}

// TestEarlierEnvelopeIsRead checks that an envelope that authenticates only the name is
// readable but not current.
func TestEarlierEnvelopeIsRead(t *testing.T) {
	t.Parallel()
	key := newTinkAEAD(t, 1)
	plaintext := secretRecord
	ciphertext, err := key.Encrypt(plaintext, []byte("a"))
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(envelope{Version: version, Ciphertext: ciphertext})
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(data, []byte("place")) || bytes.Contains(data, []byte("born")) {
		t.Fatalf("it is not the earlier form: %s", data)
	}
	c := at(t, sealer(t, 1), "here")
	reads(t, "the earlier form", c, "a", data, secretRecord)
	r, err := c.Open("b", data)
	refused(t, "the earlier form under another name", r, err)
	if c.(Rotating).Current("a", data) {
		t.Error("the earlier form is current")
	}
	if !c.(Rotating).Current("a", seal(t, c, "a", secretRecord)) {
		t.Error("what Seal writes is not current")
	}
}

func TestPlaceOfTheCallerComesFirst(t *testing.T) {
	t.Parallel()
	moved := at(t, sealerWith(t, 1, &EncryptedOptions{Place: "old"}), "new")
	data := seal(t, at(t, sealer(t, 1), "old"), "a", secretRecord)
	reads(t, "a record of the old place", moved, "a", data, secretRecord)
	reads(t, "what is written then", at(t, sealer(t, 1), "old"), "a", seal(t, moved, "a", secretRecord), secretRecord)
}

func TestPlainIsWrittenUntilAllHaveTheKey(t *testing.T) {
	t.Parallel()
	c := sealerWith(t, 1, &EncryptedOptions{WritePlain: true})
	data := seal(t, c, "a", secretRecord)
	reads(t, "by a program without the key", JSON, "a", data, secretRecord)
	sealed := seal(t, sealer(t, 1), "a", secretRecord)
	reads(t, "an encrypted record", c, "a", sealed, secretRecord)
	if current := c.(Rotating).Current; !current("a", data) || current("a", sealed) {
		t.Error("what it writes is not current, or what it does not write is")
	}
}

// leakyKey is an AEAD whose key package fmt would print.
type leakyKey struct{ Key string }

func (leakyKey) Encrypt(p, _ []byte) ([]byte, error) { return p, nil }
func (leakyKey) Decrypt(c, _ []byte) ([]byte, error) { return c, nil }

func TestNothingPrintsAKey(t *testing.T) {
	t.Parallel()
	const secret = "a canary of a key in 32 bytes...."
	gcm, err := AESGCM([]byte(secret)[:32])
	if err != nil {
		t.Fatal(err)
	}
	opts := EncryptedOptions{Old: []AEAD{leakyKey{secret}, gcm}}
	c, err := Encrypted(JSON, leakyKey{secret}, &opts)
	if err != nil {
		t.Fatal(err)
	}
	for what, v := range map[string]any{"codec": c, "placed": c.(Placed).At("x"), "options": opts, "pointer": &opts, "AESGCM": gcm} {
		texts := []string{fmt.Sprint(slog.AnyValue(v).Resolve())}
		nested := struct{ V any }{v}
		hidden := struct{ v any }{v}
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T", "%p", "%t"} {
			if what == "options" && verb == "%p" {
				continue // package fmt calls no methods for this verb: see tokenstore.Secret
			}
			texts = append(texts, fmt.Sprintf(verb, v), fmt.Sprintf(verb, nested))
			if what != "options" && what != "pointer" {
				texts = append(texts, fmt.Sprintf(verb, hidden), fmt.Sprintf(verb, &hidden))
			}
		}
		var log bytes.Buffer
		slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "v", v, "n", nested)
		slog.New(slog.NewTextHandler(&log, nil)).Info("x", "v", v, "n", nested)
		texts = append(texts, log.String(), expvar.Func(func() any { return nested }).String())
		for _, text := range texts {
			if strings.Contains(text, "canary") || strings.Contains(text, fmt.Sprintf("%x", "canary")) || strings.Contains(text, "99 97 110 97 114 121") {
				t.Errorf("%s prints as %s", what, text)
			}
		}
	}
}
