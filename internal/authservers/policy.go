package authservers

import "time"

// A Policy is how a server treats codes and tokens. The zero Policy has refresh tokens
// that neither rotate nor end.
type Policy struct {
	Name   string // what the server does, for the name of a test
	Source string // the page on which a provider says so

	// CodeLife and AccessLife are how long one-time codes and access tokens are good.
	// 0 means 10 minutes and an hour.
	CodeLife, AccessLife time.Duration

	// Unstated leaves expires_in out of the answers. Access tokens end all the same.
	Unstated bool

	// RevokesCode makes the reuse of a code revoke the tokens that it was exchanged for.
	// A code is refused the second time in any case.
	RevokesCode bool

	// Rotates makes every refresh replace the refresh token.
	Rotates bool

	// Grace is how long a refresh token that was replaced still works, as long as none
	// of its successors has been used. Without Repeats each use gives another successor,
	// and all of them are good; with Repeats it gives the tokens of the first use.
	Grace   time.Duration
	Repeats bool

	// Revokes makes the use of a replaced refresh token, past Grace, revoke the whole
	// family: all refresh and access tokens of the consent.
	Revokes bool

	// Supersedes makes a refresh end the access tokens before it.
	Supersedes bool

	// Idle is how long a refresh token lives without use; 0 means for ever.
	Idle time.Duration
}

// Policies returns what providers document. Where a provider lets its customers choose a
// duration, the one here is an example.
func Policies() []Policy {
	const day = 24 * time.Hour
	return []Policy{
		{
			// The customer chooses the Rotation Overlap Period. Within it the previous token
			// gives a new one; the token before that one triggers breach detection.
			Name:    "the previous refresh token gives another one for a while",
			Source:  "https://auth0.com/docs/secure/tokens/refresh-tokens/configure-refresh-token-rotation",
			Rotates: true, Grace: 30 * time.Second, Revokes: true,
		},
		{
			// GRACE and retryable?, and test/integration/oauth_refresh_replay_test.rb: "a retry
			// within the grace window gets the same successor, and rotates nothing".
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
			// will no longer work." Eight hours, and six months from the last refresh.
			Name:    "a refresh ends both tokens before it",
			Source:  "https://docs.github.com/en/developers/apps/refreshing-user-to-server-access-tokens",
			Rotates: true, Supersedes: true, AccessLife: 8 * time.Hour, Idle: 183 * day,
		},
		{
			// Each use of the refresh token begins its 60 days again.
			Name:   "a refresh token ends by idleness",
			Source: "https://opensource.adobe.com/acrobat-sign/developer_guide/oauth.html",
			Idle:   60 * day,
		},
		{
			// The list of the members of an answer has no expires_in. The session timeout of
			// the organisation ends a token.
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
