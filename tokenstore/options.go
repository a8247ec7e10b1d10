package tokenstore

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"time"

	"github.com/tokenkeep/tokenkeep/codec"
)

// Options configures a Store. The zero value, and a nil *Options, are good
// defaults.
type Options struct {
	// NameKey is the HMAC key of names and derived IDs. Rekey alone can change it
	// while there are records. Nil means public digests: anyone who can read names
	// and labels can test guesses of user names against them. A key has at least 16
	// bytes, and all of them are random.
	NameKey []byte

	// OtherNameKeys are further keys that records may be named by, while Rekey
	// moves them from one key to another. NoKey may be among them. The store itself
	// knows which of the keys new records are named by.
	OtherNameKeys [][]byte

	// IndexKeys are the HMAC keys of labels. The first one writes, all of them
	// are searched, so that a key can be replaced. Nil means NameKey and
	// OtherNameKeys. A key has at least 16 bytes; NoKey may be among them.
	IndexKeys [][]byte

	// LeaseTTL is how long one refresh may take before others assume that the
	// process that began it has died. 0 means 30 seconds; the least is one
	// second.
	LeaseTTL time.Duration

	// Now is the clock. Nil means time.Now.
	Now func() time.Time

	// Logger gets a record of what an operator may want to know: conflicts that
	// lasted, records that could not be read, failed clean-ups. Never a secret
	// or a user name. Nil means none.
	Logger *slog.Logger

	// Codec turns records into bytes. Nil means codec.JSON; codec.Encrypted adds
	// envelope encryption.
	Codec codec.Codec

	// Attempts is how often a write that meets other writers is tried. 0 means
	// 100, which takes about a minute.
	Attempts int
}

// NoKey stands for no key in a list of keys, as []byte(NoKey): for public digests. A
// store is on its way from them to a key, or back, when both are in the list.
const NoKey = "tokenkeep: no key"

// String returns what an Options prints, logs and marshals as: nothing of its keys.
func (o Options) String() string {
	return fmt.Sprintf("tokenstore.Options{LeaseTTL: %v, Attempts: %d, …}", o.LeaseTTL, o.Attempts)
}

// Format keeps keys out of whatever prints an Options.
func (o Options) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, o.String()) }

// LogValue keeps keys out of logs.
func (o Options) LogValue() slog.Value { return slog.StringValue(o.String()) }

// MarshalText keeps keys out of what is marshaled.
func (o Options) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

const (
	defaultLeaseTTL = 30 * time.Second
	minLeaseTTL     = time.Second
	defaultAttempts = 100
	minKey          = 16
)

// complete returns a copy of o with defaults in place of zero values.
func (o *Options) complete() (Options, error) {
	var c Options
	if o != nil {
		c = *o
	}
	if err := c.checkKeys(); err != nil {
		return c, err
	}
	if len(c.IndexKeys) == 0 {
		c.IndexKeys = append([][]byte{c.NameKey}, c.OtherNameKeys...)
	}
	// The caller may clear the keys afterwards.
	c.NameKey = ownKey(c.NameKey)
	c.OtherNameKeys = ownKeys(c.OtherNameKeys)
	c.IndexKeys = ownKeys(c.IndexKeys)
	if c.LeaseTTL == 0 {
		c.LeaseTTL = defaultLeaseTTL
	}
	if c.LeaseTTL < minLeaseTTL {
		return c, fmt.Errorf("tokenstore: LeaseTTL is %v, the least is %v", c.LeaseTTL, minLeaseTTL)
	}
	if c.Now == nil {
		// Without the monotonic clock, which may stand still while a function is
		// frozen: a token expires then too.
		c.Now = func() time.Time { return time.Now().Round(0) }
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Codec == nil {
		c.Codec = codec.JSON
	}
	if c.Attempts == 0 {
		c.Attempts = defaultAttempts
	}
	if c.Attempts < 1 {
		return c, fmt.Errorf("tokenstore: Attempts is %d, the least is 1", c.Attempts)
	}
	return c, nil
}

// checkKeys reports keys that cannot be used. Nil in a list is one that was not
// loaded.
func (o *Options) checkKeys() error {
	if o.NameKey != nil && len(o.NameKey) < minKey {
		return fmt.Errorf("tokenstore: a key has %d bytes, the least is %d", len(o.NameKey), minKey)
	}
	for _, key := range slices.Concat(o.OtherNameKeys, o.IndexKeys) {
		if len(key) < minKey {
			return fmt.Errorf("tokenstore: a key has %d bytes, the least is %d", len(key), minKey)
		}
	}
	if slices.ContainsFunc(o.OtherNameKeys, func(key []byte) bool { return bytes.Equal(ownKey(key), ownKey(o.NameKey)) }) {
		return errors.New("tokenstore: NameKey is among OtherNameKeys")
	}
	return nil
}

// ownKey returns a copy of key, nil for none.
func ownKey(key []byte) []byte {
	if string(key) == NoKey {
		return nil
	}
	return bytes.Clone(key)
}

func ownKeys(keys [][]byte) [][]byte {
	var own [][]byte
	for _, key := range keys {
		own = append(own, ownKey(key))
	}
	return own
}
