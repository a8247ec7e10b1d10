package rules

import (
	"time"

	"github.com/tokenkeep/tokenkeep/codec"
)

// Fresh reports whether f has an access token other than stale that has not
// expired at the given time, as far as is known.
func Fresh(f codec.Fields, stale string, at time.Time) bool {
	return f.AccessToken != "" && f.AccessToken != stale && (f.ExpiryTime == 0 || at.Before(time.UnixMilli(f.ExpiryTime)))
}

// A RefreshPlan is what becomes of a record once mint has returned.
type RefreshPlan struct {
	// Fields are what the record is to be.
	codec.Fields

	// Changed is false if Fields are what the record is already.
	Changed bool

	// Again means that what mint returned is not the record's, and that the
	// record has no fresh access token: the refresh begins again, for Fields.
	Again bool
}

// PlanRefresh decides what becomes of a record that mint was called for. used is the
// record as mint saw it, now the record that has its ID now, minted what mint
// returned, and stale what the caller of Refresh takes for useless at the given time.
//
// A field that was saved since mint saw the record stays, except an access token
// that is not fresh.
func PlanRefresh(used, now, minted codec.Fields, stale string, at time.Time) RefreshPlan {
	if !stillThere(used, now) {
		return RefreshPlan{Fields: now, Again: !Fresh(now, stale, at)}
	}
	minted.ID, minted.UserName, minted.ClientID = "", "", ""
	if now.AccessToken != used.AccessToken && Fresh(now, stale, at) {
		minted.AccessToken, minted.ExpiryTime = "", 0
	}
	for field, was := range used.All() {
		switch field.Name {
		case "AccessToken", "ExpiryTime": // decided together, above
		default:
			if field.Text(now) != was {
				_ = field.Set(&minted, "")
			}
		}
	}
	next := Merge(now, minted)
	return RefreshPlan{Fields: next, Changed: next != now}
}

// stillThere reports whether now still has the credential that a refresh of used
// needs. It does not if the ID names another record by now: that of another user or
// client. A record without a user or client may have got one.
func stillThere(used, now codec.Fields) bool {
	switch {
	case used.UserName != "" && used.UserName != now.UserName, used.ClientID != "" && used.ClientID != now.ClientID:
		return false
	case used.RefreshToken != "":
		return used.RefreshToken == now.RefreshToken
	case used.GrantToken != "":
		return used.GrantToken == now.GrantToken && now.RefreshToken == ""
	}
	// Nothing in the record says what was used. That it is the same record takes
	// its user or its access token.
	return now.GrantToken == "" && now.RefreshToken == "" &&
		(used.UserName != "" || used.AccessToken == now.AccessToken)
}
