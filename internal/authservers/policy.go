package authservers

import "time"

// A Policy defines how a server treats codes and tokens. With the zero Policy, refresh tokens
// neither rotate nor expire.
type Policy struct {
	Name   string // describes the policy; used in names of tests
	Source string // URL at which a provider documents the policy

	// CodeLife and AccessLife are the lifetimes of one-time codes and access tokens. 0 means
	// 10 minutes for codes and one hour for access tokens.
	CodeLife, AccessLife time.Duration

	// Unstated reports whether responses omit expires_in. Access tokens still expire.
	Unstated bool

	// RevokesCode reports whether the reuse of a code revokes the tokens that the server issued for
	// the code. The reuse itself always fails.
	RevokesCode bool

	// Rotates reports whether every refresh replaces the refresh token.
	Rotates bool

	// Grace is the time for which a replaced refresh token still works, unless one of its
	// successors was used. Without Repeats, each use returns another successor, and all
	// successors are valid. With Repeats, each use returns the tokens of the first use.
	Grace   time.Duration
	Repeats bool

	// Revokes reports whether a refused use of a replaced refresh token revokes the whole family:
	// all refresh and access tokens of the consent.
	Revokes bool

	// Supersedes reports whether a refresh invalidates the earlier access tokens of the consent.
	Supersedes bool

	// Idle is the time for which an unused refresh token stays valid; 0 means forever.
	Idle time.Duration
}

// Policies returns the documented policies of providers. If a provider lets its customers
// choose a duration, the policy has an example value.
func Policies() []Policy {
	const day = 24 * time.Hour
	return []Policy{
		{
			// The customer chooses the Rotation Overlap Period. During that period, the
			// previous refresh token can be exchanged for another new token. The use of an
			// older token triggers breach detection.
			Name:    "the previous refresh token gives another one for a while",
			Source:  "https://auth0.com/docs/secure/tokens/refresh-tokens/configure-refresh-token-rotation",
			Rotates: true, Grace: 30 * time.Second, Revokes: true,
		},
		{
			// See GRACE and retryable? in the file that Source names.
			// test/integration/oauth_refresh_replay_test.rb says: "a retry within the grace
			// window gets the same successor, and rotates nothing".
			Name:    "the previous refresh token gives the same tokens for a while",
			Source:  "https://github.com/basecamp/fizzy/blob/054f68a3875715b7fcaddf7a26a6af12f2e98d72/app/models/oauth/retired_refresh_token.rb",
			Rotates: true, Grace: time.Minute, Repeats: true, Revokes: true,
		},
		{
			Name:    "a replaced refresh token revokes its family",
			Source:  "https://docs.pingidentity.com/pingone/applications/p1_refresh_token_rotation.html",
			Rotates: true, Revokes: true,
		},
		{
			// "Once you use a refresh token, that refresh token and the old user access token
			// will no longer work." An access token is valid for eight hours. A refresh token is
			// valid for six months from the refresh that issued it.
			Name:    "a refresh ends both tokens before it",
			Source:  "https://docs.github.com/en/developers/apps/refreshing-user-to-server-access-tokens",
			Rotates: true, Supersedes: true, AccessLife: 8 * time.Hour, Idle: 183 * day,
		},
		{
			// Each use of a refresh token makes the token valid for another 60 days.
			Name:   "a refresh token ends by idleness",
			Source: "https://opensource.adobe.com/acrobat-sign/developer_guide/oauth.html",
			Idle:   60 * day,
		},
		{
			// The documented response has no expires_in. The session timeout of the
			// organization ends a token.
			Name:     "answers state no lifetime",
			Source:   "https://developer.salesforce.com/docs/atlas.en-us.222.0.api_rest.meta/api/intro_understanding_refresh_token_oauth.htm",
			Unstated: true, AccessLife: 2 * time.Hour,
		},
		{
			Name:        "a code that is used twice revokes its tokens",
			Source:      "http://members.orcid.org/api/news/auth-code-behavior-update-tokens-revoked-if-same-auth-code-used-twice",
			RevokesCode: true,
		},
	}
}
