package rules

import (
	"cmp"
	"strings"
	"time"

	"github.com/tokenkeep/tokenkeep/codec"
)

// Fresh reports whether f has an access token that differs from the parameter stale and has not
// expired. The parameter at is the current time. A token without an expiry counts as not expired.
func Fresh(f codec.Fields, stale string, at time.Time) bool {
	return f.AccessToken != "" && f.AccessToken != stale && (f.ExpiryTime == 0 || at.Before(time.UnixMilli(f.ExpiryTime)))
}

// A RefreshPlan describes the new state of a record after mint has returned.
type RefreshPlan struct {
	// Fields is the new state of the record.
	codec.Fields

	// Changed is set if Fields differs from the current state of the record.
	Changed bool

	// Again is set if the token from mint does not fit the current record and that record has no
	// fresh access token. The refresh must begin again with Fields.
	Again bool
}

// PlanRefresh returns the plan for a record after a call of mint. The parameters used and now are
// the record that mint was called with, and the record that has the same ID after the call. The
// parameter minted is the token that mint returned. The parameter stale is the access token that
// the caller of Refresh rejects.
//
// PlanRefresh keeps a field that was saved while mint ran, except an access token that is not
// fresh. The parameter at is the current time. If the record no longer has the credential that mint
// was called with, the plan contains nothing from minted.
func PlanRefresh(used, now, minted codec.Fields, stale string, at time.Time) RefreshPlan {
	answered := minted.Extra
	if !stillThere(used, now) {
		return RefreshPlan{Fields: now, Again: !Fresh(now, stale, at)}
	}
	minted = WithIdentity(minted, codec.Fields{})
	minted.ID = ""
	if now.AccessToken != used.AccessToken && Fresh(now, stale, at) {
		minted.AccessToken, minted.ExpiryTime, minted.TokenType, minted.Scope = "", 0, "", ""
	}
	for field, was := range used.All() {
		switch field.Name {
		case "AccessToken", "ExpiryTime", "TokenType", "Scope": // handled together above
		case "Extra": // each member is handled below
		default:
			if field.Text(now) != was {
				_ = field.Set(&minted, "")
			}
		}
	}
	minted.Extra = codec.MergeExtra(minted.Extra, codec.ExtraSince(used.Extra, now.Extra))
	next := Merge(now, minted)
	if len(next.Extra) > codec.MaxExtra {
		// The minted token must be stored, but the minted Extra and the Extra of the record
		// are too large together. Keep only the minted Extra or, if mint returned none, that
		// of the record.
		next.Extra = cmp.Or(answered, now.Extra)
	}
	return RefreshPlan{Fields: next, Changed: next != now}
}

// Answer returns the result of mint in canonical form, or the error from Validate. It leaves out a
// Scope, IDToken or Extra that no store accepts, because the result of mint may be the only copy of
// a new refresh token.
func Answer(minted codec.Fields) (codec.Fields, error) {
	for _, part := range []codec.Fields{{Scope: minted.Scope}, {IDToken: minted.IDToken}, {Extra: minted.Extra}} {
		if Validate(part) == nil {
			continue
		}
		switch {
		case part.Scope != "":
			minted.Scope = ""
		case part.IDToken != "":
			minted.IDToken = ""
		default:
			minted.Extra = ""
		}
	}
	return Canonical(minted)
}

// Lean returns the parameter minted without Scope, IDToken and Extra, which a refresh does not
// need, and reports whether the result differs from the parameter. Lean also removes the token type
// Bearer, because a token without a type counts as a Bearer token.
func Lean(minted codec.Fields) (lean codec.Fields, changed bool) {
	lean = minted
	lean.Scope, lean.IDToken, lean.Extra = "", "", ""
	if strings.EqualFold(lean.TokenType, "Bearer") {
		lean.TokenType = ""
	}
	return lean, lean != minted
}

// stillThere reports whether a record still has the credential with which it was refreshed. The
// parameters used and now are the record before and after the call of mint. stillThere returns
// false if the ID now belongs to the record of another user or client. A record without a user may
// have received a user and missing parts of its client while mint ran.
func stillThere(used, now codec.Fields) bool {
	switch {
	case !CanBecome(used, now):
		return false
	case used.RefreshToken != "":
		return used.RefreshToken == now.RefreshToken
	case used.GrantToken != "":
		return used.GrantToken == now.GrantToken && now.RefreshToken == ""
	}
	// Without a refresh token and a grant token, the user or the access token must show that
	// the record is the same.
	return now.GrantToken == "" && now.RefreshToken == "" &&
		(used.UserName != "" || used.AccessToken == now.AccessToken)
}
