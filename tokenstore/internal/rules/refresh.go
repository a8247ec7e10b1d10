package rules

import (
	"time"

	"github.com/tokenkeep/tokenkeep/codec"
)

// Fresh reports whether f has an access token other than stale that is not known to
// have expired at the given time.
func Fresh(f codec.Fields, stale string, at time.Time) bool {
	return f.AccessToken != "" && f.AccessToken != stale && (f.ExpiryTime == 0 || at.Before(time.UnixMilli(f.ExpiryTime)))
}

// A RefreshPlan describes what becomes of a record after mint has returned.
type RefreshPlan struct {
	// Fields are the new state of the record.
	codec.Fields

	// Changed reports whether Fields differ from the present state of the record.
	Changed bool

	// Again means that the token from mint is not for this record any more, and that
	// the record has no fresh access token. The refresh begins again, for Fields.
	Again bool
}

// PlanRefresh decides what becomes of a record after mint was called for it. The record
// that mint was called with is used, and the record with this ID is now. The token that
// mint returned is minted. The caller of Refresh rejects the access token stale.
//
// A field that was saved while mint ran stays, except an access token that is not fresh
// at the given time.
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

// stillThere reports whether now still has the credential that a refresh of used needs.
// It returns false if the ID now names the record of another user or client. A record
// without a user or client may have got one.
func stillThere(used, now codec.Fields) bool {
	switch {
	case used.UserName != "" && used.UserName != now.UserName, used.ClientID != "" && used.ClientID != now.ClientID:
		return false
	case used.RefreshToken != "":
		return used.RefreshToken == now.RefreshToken
	case used.GrantToken != "":
		return used.GrantToken == now.GrantToken && now.RefreshToken == ""
	}
	// No credential in the record shows what was used. The user or the access token has
	// to show that the record is the same.
	return now.GrantToken == "" && now.RefreshToken == "" &&
		(used.UserName != "" || used.AccessToken == now.AccessToken)
}
