package vaultstore

import (
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// SetClock makes d take the time from now.
func SetClock(d driver.Secrets, now func() time.Time) { d.(*secrets).now = now }

// LoginPause is how long a login that was refused is not tried again.
const LoginPause = loginPause

// TokenPause is how long a token that the server refuses is believed in.
const TokenPause = tokenPause
