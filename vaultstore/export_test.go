package vaultstore

import (
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// SetClock makes now the clock of d.
func SetClock(d driver.Secrets, now func() time.Time) { d.(*secrets).now = now }

// LoginPause is the time for which a refused login is not retried.
const LoginPause = loginPause

// TokenPause is the time for which a token from a login counts as valid even though the server
// denies calls.
const TokenPause = tokenPause
