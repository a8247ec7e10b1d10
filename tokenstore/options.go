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
	"github.com/tokenkeep/tokenkeep/tokenstore/observe"
)

// Options configures a Store. A nil *Options is equivalent to the zero value, which selects
// the defaults.
type Options struct {
	// NameKey is the HMAC key of names and derived IDs. While there are records, only
	// Rekey can change it. Nil means public digests: anyone who can read names and
	// labels can test guesses of user names against them. A key consists of at least 16
	// random bytes.
	NameKey []byte

	// OtherNameKeys are further keys that records may be named by, while Rekey moves
	// records from one key to another. NoKey may be among them. The store records which of
	// the keys names new records.
	OtherNameKeys [][]byte

	// IndexKeys are the HMAC keys of labels. Labels are written with the first key, and
	// searches use all keys, so that a key can be replaced. Nil means NameKey and
	// OtherNameKeys. A key has at least 16 bytes; NoKey may be among them.
	IndexKeys [][]byte

	// LeaseTTL is how long one refresh may take before other processes assume that the
	// holder has died. 0 means 30 seconds; the minimum is one second.
	LeaseTTL time.Duration

	// NoAccessLabel leaves out the label of the access token. On AWS and Vault a refresh is
	// then three calls, one of them after the response of the authorization server.
	// FindToken and SaveToken then cannot find a record by its access token alone if it has
	// a user, grant token or refresh token. A change of the option takes effect on a record
	// at its next save or refresh. All programs that share a store should use the same
	// value. Check and Rekey leave each record as its last save or refresh left it.
	NoAccessLabel bool

	// Now is the clock. Nil means time.Now.
	Now func() time.Time

	// Logger receives events that concern an operator: lasting conflicts, unreadable
	// records, failed clean-ups. It never receives a secret or a user name. Nil means
	// no log.
	Logger *slog.Logger

	// Codec turns records into bytes. Nil means codec.JSON; codec.Encrypted adds
	// envelope encryption.
	Codec codec.Codec

	// Attempts is the maximum number of attempts of a write that conflicts with other
	// writers. 0 means 100, which takes about a minute.
	Attempts int

	// Observer is told how refreshes end and how long calls take, for metrics and traces.
	// It is never told a secret, a user name or an ID. Nil means no Observer, which costs
	// nothing.
	Observer *Observer
}

// An Observer holds functions that a store calls to report its work. Package observe
// documents it.
type Observer = observe.Observer

// NoKey, as []byte(NoKey), stands for public digests in a list of keys. A list with
// NoKey and a key is for a store that changes from public digests to the key, or back.
const NoKey = "tokenkeep: no key"

// String returns the text of an Options for prints, logs and marshaling. It holds no
// key.
func (o Options) String() string {
	return fmt.Sprintf("tokenstore.Options{LeaseTTL: %v, Attempts: %d, …}", o.LeaseTTL, o.Attempts)
}

// Format prints o.String() for every verb, so that keys are not printed.
func (o Options) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, o.String()) }

// LogValue keeps keys out of logs.
func (o Options) LogValue() slog.Value { return slog.StringValue(o.String()) }

// MarshalText returns o.String(), so that keys are not marshaled.
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
		return c, fmt.Errorf("tokenstore: LeaseTTL is %v, the minimum is %v", c.LeaseTTL, minLeaseTTL)
	}
	if c.Now == nil {
		// Drop the monotonic clock, which may stop while the process is suspended. Tokens
		// also expire during that time.
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
		return c, fmt.Errorf("tokenstore: Attempts is %d, the minimum is 1", c.Attempts)
	}
	return c, nil
}

// checkKeys returns an error if a key is too short. A nil key in a list is also an error,
// because the program has probably failed to load it.
func (o *Options) checkKeys() error {
	if o.NameKey != nil && len(o.NameKey) < minKey {
		return fmt.Errorf("tokenstore: a key has %d bytes, the minimum is %d", len(o.NameKey), minKey)
	}
	for _, key := range slices.Concat(o.OtherNameKeys, o.IndexKeys) {
		if len(key) < minKey {
			return fmt.Errorf("tokenstore: a key has %d bytes, the minimum is %d", len(key), minKey)
		}
	}
	if slices.ContainsFunc(o.OtherNameKeys, func(key []byte) bool { return bytes.Equal(ownKey(key), ownKey(o.NameKey)) }) {
		return errors.New("tokenstore: NameKey is among OtherNameKeys")
	}
	return nil
}

// ownKey returns a copy of key, or nil for NoKey.
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
