package tokenstore

import (
	"bytes"
	"fmt"
	"log/slog"
	"time"

	"github.com/tokenkeep/tokenkeep/codec"
)

// Options configures a Store. The zero value, and a nil *Options, are good
// defaults.
type Options struct {
	// NameKey is the HMAC key of names and derived IDs. It must not change while
	// records exist: they would not be found. Nil means public digests, which
	// whoever can read names and labels can test guesses of user names against.
	// A key has at least 16 bytes.
	NameKey []byte

	// IndexKeys are the HMAC keys of labels. The first one writes, all of them
	// are searched, so that a key can be replaced. Nil means NameKey. A key has
	// at least 16 bytes.
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

// Format keeps keys out of whatever prints an Options.
func (o Options) Format(f fmt.State, _ rune) {
	_, _ = fmt.Fprintf(f, "tokenstore.Options{LeaseTTL: %v, Attempts: %d, …}", o.LeaseTTL, o.Attempts)
}

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
	for i, key := range append([][]byte{c.NameKey}, c.IndexKeys...) {
		// An empty index key is as good as a short one: as bad.
		if (key != nil || i > 0) && len(key) < minKey {
			return c, fmt.Errorf("tokenstore: a key has %d bytes, the least is %d", len(key), minKey)
		}
	}
	// The caller may clear the keys afterwards.
	c.NameKey = bytes.Clone(c.NameKey)
	keys := make([][]byte, 0, max(1, len(c.IndexKeys)))
	for _, key := range c.IndexKeys {
		keys = append(keys, bytes.Clone(key))
	}
	if len(keys) == 0 {
		keys = append(keys, c.NameKey)
	}
	c.IndexKeys = keys
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
