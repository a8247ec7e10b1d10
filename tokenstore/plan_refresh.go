package tokenstore

import (
	"fmt"
	"time"
)

// Fresh reports whether t has an access token other than stale that has not
// expired at the given time, as far as is known.
func Fresh(t Token, stale Secret, at time.Time) bool {
	return t.AccessToken != "" && t.AccessToken != stale && (t.ExpiresAt.IsZero() || at.Before(t.ExpiresAt))
}

// A RefreshPlan is what becomes of a record once mint has returned.
type RefreshPlan struct {
	// Token is what the record is to be.
	Token Token

	// Changed is false if Token is what the record is already.
	Changed bool

	// Again means that what mint returned is not the record's, and that the
	// record has no fresh access token: the refresh begins again, for Token.
	Again bool
}

// Format prints p with its secrets redacted. See Token.Format.
func (p RefreshPlan) Format(f fmt.State, verb rune) {
	type plain RefreshPlan
	printAs(f, verb, plain(p), "RefreshPlan")
}

// PlanRefresh decides what becomes of a record that mint was called for, by the
// rules in the package documentation under "Refreshing". used is the record as
// mint saw it, now the record with the same ID as it is, minted what mint
// returned, and stale what the caller of Refresh takes for useless at the given
// time. Stores outside this package use it as they use PlanSave.
//
// A field that was saved since mint saw the record stays, except an access token
// that is not fresh.
func PlanRefresh(used, now, minted Token, stale Secret, at time.Time) RefreshPlan {
	if !stillThere(used, now) {
		return RefreshPlan{Token: now, Again: !Fresh(now, stale, at)}
	}
	minted.ID, minted.UserName, minted.ClientID = "", "", ""
	if now.AccessToken != used.AccessToken && Fresh(now, stale, at) {
		minted.AccessToken, minted.ExpiresAt = "", time.Time{}
	}
	yield(&minted.ClientSecret, used.ClientSecret, now.ClientSecret)
	yield(&minted.GrantToken, used.GrantToken, now.GrantToken)
	yield(&minted.RedirectURL, used.RedirectURL, now.RedirectURL)
	yield(&minted.APIDomain, used.APIDomain, now.APIDomain)
	next := Merge(now, minted)
	return RefreshPlan{Token: next, Changed: !same(next, now)}
}

// yield empties a minted field whose value was saved while mint ran.
func yield[S ~string](minted *S, used, now S) {
	if used != now {
		*minted = ""
	}
}

// stillThere reports whether the credential that a refresh of used needs is
// still the one of now. It is not if the ID names another record by now: that of
// another user or client. A record that had none may have got one.
func stillThere(used, now Token) bool {
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
