package initializer

import (
	"fmt"
	"strings"

	"github.com/tokenkeep/tokenkeep/internal/refusal"
)

// A meaning classifies an error code by the reason for the refusal.
type meaning int

const (
	meansUnknown meaning = iota // a refusal for an unknown reason
	meansConsent                // the user must consent again
	meansClient                 // the client or its configuration is wrong
	meansWait                   // too many requests
	meansServer                 // the server failed
)

const (
	codeDenied       = refusal.Throttled
	codeInvalidGrant = "invalid_grant"

	// Codes that this package assigns to a refusal in place of a code from the server.
	codeNoCredential    = "no_refresh_token"
	codeInvalidResponse = "invalid_response"
	codeServerError     = "server_error"
	codeThrottled       = "too_many_requests"
	codeUnknown         = "unknown_error"
)

// codes lists known error codes of authorization servers, grouped by meaning and source. Codes are
// compared in the form that the function plain returns, so Slack's invalid_refresh_token and
// HubSpot's INVALID_REFRESH_TOKEN are the same code.
var codes = []struct {
	source  string
	meaning meaning
	codes   []string
}{
	{"RFC 6749, 4.1.2.1 and 5.2", meansConsent, []string{"access_denied", codeInvalidGrant}},
	{"RFC 6750, 3.1", meansConsent, []string{"invalid_token"}},
	{"RFC 8628, 3.5", meansConsent, []string{"expired_token"}},
	{"RFC 9470, 3", meansConsent, []string{"insufficient_user_authentication"}},
	{"OpenID Connect Core, 3.1.2.6", meansConsent, []string{"account_selection_required", "consent_required", "interaction_required", "login_required"}},
	{"OpenID Connect Unmet Authentication Requirements", meansConsent, []string{"unmet_authentication_requirements"}},
	{"Zoho", meansConsent, []string{"invalid_code"}},
	{"GitHub", meansConsent, []string{"bad_refresh_token", "bad_verification_code", "unverified_user_email"}},
	{"Slack, oauth.v2.access and auth", meansConsent, []string{"account_inactive", "code_already_used", "code_expired", "invalid_auth", "invalid_refresh_token", "org_login_required", "token_expired", "token_revoked", "two_factor_setup_required", "user_not_found"}},
	{"OpenAI", meansConsent, []string{"refresh_token_expired", "refresh_token_invalid", "refresh_token_invalidated", "refresh_token_reused", "refresh_token_revoked"}},
	{"HubSpot", meansConsent, []string{"bad_auth_code", "expired_authentication", "expired_auth_code"}},
	{"Facebook, OAuthException", meansConsent, []string{"OAuthException 102", "OAuthException 190"}},
	{"Strava, field and code", meansConsent, []string{"code_expired", "code_invalid", "authorization_code_expired", "authorization_code_invalid"}},
	{"Auth0", meansConsent, []string{"mfa_required", "expired_refresh_token"}},
	{"Google", meansConsent, []string{"invalid_rapt"}},
	{"Salesforce", meansConsent, []string{"inactive_user", "inactive_org"}},
	{"Apigee", meansConsent, []string{"keymanagement.service.InvalidRefreshToken", "keymanagement.service.refresh_token_expired", "keymanagement.service.refresh_token_revoked"}},
	{"LinkedIn", meansConsent, []string{"expired_access_token", "revoked_access_token", "revoked_refresh_token", "authorization_code_not_found"}},
	{"Microsoft, suberror", meansConsent, []string{"bad_token"}},
	{"Yahoo", meansConsent, []string{"invalid_authorization_code"}},
	{"many", meansConsent, []string{"authorization_revoked", "expired_code", "expired_grant", "grant_expired", "reauth_required", "reauthorization_required", "refresh_token_not_found", "revoked_token", "session_expired", "token_invalid", "token_not_found"}},
	{"this package", meansConsent, []string{codeNoCredential}},

	{"RFC 6749, 4.1.2.1 and 5.2", meansClient, []string{"invalid_client", "invalid_request", "invalid_scope", "unauthorized_client", "unsupported_grant_type", "unsupported_response_type"}},
	{"RFC 7591, 3.2.2", meansClient, []string{"invalid_client_metadata", "invalid_redirect_uri", "invalid_software_statement", "unapproved_software_statement"}},
	{"RFC 8707, 2", meansClient, []string{"invalid_target"}},
	{"RFC 9396, 5", meansClient, []string{"invalid_authorization_details"}},
	{"RFC 9449, 5 and 8", meansClient, []string{"invalid_dpop_proof", "use_dpop_nonce"}},
	{"RFC 7009, 2.2.1", meansClient, []string{"unsupported_token_type"}},
	{"Zoho", meansClient, []string{"invalid_client_secret", "invalid_client_type", "inactive_client", "oauthscope_invalid"}},
	{"GitHub", meansClient, []string{"application_suspended", "incorrect_client_credentials", "redirect_uri_mismatch"}},
	{"Google", meansClient, []string{"admin_policy_enforced", "deleted_client", "disabled_client", "org_internal", "restricted_client"}},
	{"Slack, oauth.v2.access", meansClient, []string{"bad_client_secret", "bad_redirect_uri", "invalid_client_id", "invalid_grant_type", "oauth_authorization_url_mismatch"}},
	{"HubSpot", meansClient, []string{"bad_client_id", "bad_grant_type", "mismatch_redirect_uri_auth_code", "missing_client_id", "missing_client_secret"}},
	{"Salesforce", meansClient, []string{"invalid_app_access", "invalid_client_credentials"}},
	{"Facebook, OAuthException", meansClient, []string{"OAuthException 101", "OAuthException 191"}},
	{"Strava, field and code", meansClient, []string{"application_invalid", "client_id_invalid", "client_secret_invalid", "redirect_uri_invalid"}},
	{"Apigee", meansClient, []string{"oauth.v2.InvalidClientIdentifier", "keymanagement.service.InvalidClient"}},
	{"many", meansClient, []string{"bad_client_credentials", "client_disabled", "client_not_found", "invalid_redirect_url", "redirect_mismatch", "unknown_client"}},
	{"this package", meansClient, []string{"http_401"}},

	{"RFC 8628, 3.5", meansWait, []string{"slow_down"}},
	{"Slack", meansWait, []string{"accesslimited", "rate_limited"}},
	{"Facebook, OAuthException", meansWait, []string{"OAuthException 4", "OAuthException 17", "OAuthException 32", "OAuthException 613"}},
	{"AWS", meansWait, []string{"LimitExceededException", "SlowDownException", "Throttling", "ThrottlingException", "TooManyRequestsException"}},
	{"many", meansWait, []string{"quota_exceeded", "rate_limit", "rate_limit_error", "rate_limit_exceeded", "rate_limit_reached", codeThrottled}},

	{"RFC 6749, 4.1.2.1", meansServer, []string{codeServerError, "temporarily_unavailable"}},
	{"RFC 8628, 3.5", meansServer, []string{"authorization_pending"}},
	{"Slack", meansServer, []string{"fatal_error", "request_timeout", "service_unavailable", "team_added_to_org"}},
	{"Facebook, OAuthException", meansServer, []string{"OAuthException 2"}},
	{"many", meansServer, []string{"internal_error", "internal_server_error", "timeout", "unavailable"}},
	{"this package", meansServer, []string{codeInvalidResponse}},
}

// A book maps the error codes of one authorization server to meanings.
type book struct {
	own  map[string]error // Config.Refusals
	zoho bool
}

// look returns a known code in the spelling of Config.Refusals or of this package, and its meaning.
// It returns false if the code is unknown or longer than maxCode bytes.
func (b book) look(code string) (string, meaning, bool) {
	if len(code) > maxCode {
		return "", meansUnknown, false
	}
	word := plain(code)
	for own, class := range b.own {
		if plain(own) == word {
			m, _ := meaningOf(class)
			return own, m, true
		}
	}
	if b.zoho && word == plain(codeDenied) {
		return codeDenied, meansWait, true
	}
	for _, row := range codes {
		for _, known := range row.codes {
			if plain(known) == word {
				return known, row.meaning, true
			}
		}
	}
	return "", meansUnknown, false
}

const maxCode = 128

// plain returns the ASCII letters and digits of a code, in lower case.
func plain(code string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		}
		return -1
	}, code)
}

func (m meaning) class() error {
	switch m {
	case meansConsent:
		return ErrReauthRequired
	case meansClient:
		return ErrClient
	case meansWait:
		return ErrThrottled
	case meansServer:
		return ErrServer
	case meansUnknown:
	}
	return ErrRefused
}

// meaningOf returns the meaning with the given class, or false if no meaning has this class.
func meaningOf(class error) (meaning, bool) {
	for m := meansUnknown; m <= meansServer; m++ {
		if m.class() == class { //nolint:errorlint // A configuration names the class itself.
			return m, true
		}
	}
	return meansUnknown, false
}

// checkRefusals returns an error if own, the value of Config.Refusals, has an invalid code or
// class.
func checkRefusals(own map[string]error) error {
	for code, class := range own {
		if !codeForm().MatchString(code) || plain(code) == "" {
			return fmt.Errorf("initializer: Config.Refusals: %q is not an error code", code)
		}
		if _, ok := meaningOf(class); !ok {
			return fmt.Errorf("initializer: Config.Refusals: the class of %q is none of ErrReauthRequired, ErrClient, ErrThrottled, ErrServer and ErrRefused", code)
		}
	}
	return nil
}
