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
	// NameKey is the HMAC key of names and derived IDs. In a store with records, only Rekey
	// can replace the key. Nil means digests without a key: anyone who can read names and
	// labels can test guesses of user names against the digests. A key must have at least 16
	// bytes, which should be random.
	NameKey []byte

	// OtherNameKeys are the other keys from which names of records may be derived, while
	// Rekey moves records from one key to another. Each key must have at least 16 bytes and
	// differ from NameKey. NoKey may be among the keys. The store records which key derives
	// the names of new records.
	OtherNameKeys [][]byte

	// IndexKeys are the HMAC keys of labels. Writes use the first key, and searches use all
	// keys. An empty list means NameKey followed by OtherNameKeys. Each key must have at least
	// 16 bytes. NoKey may be among the keys.
	IndexKeys [][]byte

	// LeaseTTL is how long a process may hold the lease of a refresh. After that time,
	// other processes assume that the holder has died. 0 means 30 seconds; the minimum is
	// one second.
	LeaseTTL time.Duration

	// NoAccessLabel omits the label of the access token from records. On AWS and Vault, a
	// refresh then takes three calls, one of them after the response of the authorization
	// server. With this option, FindToken and SaveToken cannot find a record by its access
	// token alone if the record has a user, grant token or refresh token. A change of the
	// option takes effect on a record at the next save or refresh of that record. All
	// programs that share a store should use the same value. Check and Rekey do not apply a
	// change of the option.
	NoAccessLabel bool

	// Now returns the current time. Nil means time.Now.
	Now func() time.Time

	// Logger receives events that an operator should know about, such as lasting conflicts,
	// unreadable records and failed cleanups. No event contains a secret or a user name.
	// Nil means that nothing is logged.
	Logger *slog.Logger

	// Codec encodes and decodes records. Nil means codec.JSON. The codec that
	// codec.Encrypted returns adds envelope encryption.
	Codec codec.Codec

	// Attempts is the maximum number of attempts at a write that conflicts with other
	// writers. 0 means 100 attempts, which take about a minute.
	Attempts int

	// Observer receives the results of refreshes and the durations of calls, for metrics
	// and traces, but no secret, user name or ID. Nil means no Observer.
	Observer *Observer
}

// An Observer holds functions that a store calls to report its work. See package observe.
type Observer = observe.Observer

// NoKey stands for digests without a key, as an element of Options.OtherNameKeys or
// Options.IndexKeys. A program lists NoKey together with a key while its store changes from
// digests without a key to that key, or back.
const NoKey = "tokenkeep: no key"

// String returns LeaseTTL and Attempts as text, without any key.
func (o Options) String() string {
	return fmt.Sprintf("tokenstore.Options{LeaseTTL: %v, Attempts: %d, …}", o.LeaseTTL, o.Attempts)
}

// Format prints o.String() for every verb, so that keys are not printed.
func (o Options) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, o.String()) }

// LogValue returns o.String() as a value, so that keys are not logged.
func (o Options) LogValue() slog.Value { return slog.StringValue(o.String()) }

// MarshalText returns o.String(), so that keys are not marshaled.
func (o Options) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

const (
	defaultLeaseTTL = 30 * time.Second
	minLeaseTTL     = time.Second
	defaultAttempts = 100
	minKey          = 16
)

// complete returns a copy of o with defaults in place of zero values. It returns an error if
// an option is invalid.
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
	// The caller may clear its keys after New has returned.
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
		// Round(0) drops the reading of the monotonic clock, which may stop while the process
		// is suspended. Tokens expire even while the process is suspended.
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

// checkKeys returns an error if a key is too short, or if NameKey is among OtherNameKeys. A
// nil key in a list is an error, because the program has probably failed to load the key.
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
