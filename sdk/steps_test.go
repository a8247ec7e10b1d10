package sdk

import (
	"net/http"

	"github.com/tokenkeep/tokenkeep/internal/fakeaws"
	"github.com/tokenkeep/tokenkeep/internal/languages"
	"github.com/tokenkeep/tokenkeep/internal/zohoaccounts"
)

// The calls that get_token makes to the TokenStore.
var (
	byToken = []string{"find_token"}
	byID    = []string{"find_token_by_id"}
)

// get returns a step that calls get_token. The parameter on is the name of the token. If the
// parameter with is not nil, the step first creates the token from the members in that map.
func get(on string, with map[string]string) languages.Step {
	return languages.Step{Do: "get_token", On: on, With: with}
}

// client adds the client and its secret to members, and returns members.
func client(members map[string]string) map[string]string {
	members["client_id"], members["client_secret"] = languages.ClientID, languages.ClientSecret
	return members
}

// code returns a function that simulates the consent of a user. The function sets ${code} to the
// one-time code.
func code(user string) func(*life) {
	return func(l *life) {
		c := languages.Consent()
		c.Email = user
		l.values["code"] = l.Zoho.Code(c)
	}
}

// tokens returns a function that simulates the consent of a user in another program. The function
// sets ${refresh} and ${access} to the tokens.
func tokens(user string) func(*life) {
	return func(l *life) {
		c := languages.Consent()
		c.Email = user
		l.values["refresh"], l.values["access"] = l.Zoho.Tokens(c)
	}
}

// expire returns a step that stores an expired access token in the record of a token. The parameter
// on is the name of the token.
func expire(on string) step {
	return step{what: "a token expires", Step: languages.Step{Do: "save_token", On: "expired",
		With: map[string]string{"id": "${" + on + ".id}", "access_token": "1000.expired", "expires_in": "1"}}}
}

// answer returns a function that makes the accounts server answer every token request with body.
func answer(body string) func(*life) {
	return func(l *life) {
		l.Zoho.Inject(func(r zohoaccounts.Request) *zohoaccounts.Fault {
			if r.Kind == zohoaccounts.API {
				return nil
			}
			return &zohoaccounts.Fault{Status: http.StatusOK, Body: body, Header: http.Header{"Content-Type": {"application/json"}}}
		})
	}
}

// works returns a function that undoes answer, and then simulates the consent of a user.
func works(user string) func(*life) {
	return func(l *life) {
		l.Zoho.Inject(languages.Slow)
		code(user)(l)
	}
}

// recordedLife returns the flows that were recorded with the official SDK. Where the SDK
// requested and saved a token in a flow, the agent requests and saves the token.
func recordedLife() []step {
	steps := []step{
		{what: "grant flow, first", before: code("ann"),
			Step: get("grant", client(map[string]string{"grant_token": "${code}", "redirect_url": "https://app/cb"})),
			want: want{calls: byToken, asks: 1, alive: true, has: map[string]string{"user_name": "ann:6001", "redirect_url": "https://app/cb"}}},
		{what: "1 API call later (authenticate)",
			Step: get("grant", nil), want: want{calls: byID, like: "grant", alive: true}},
		{what: "grant flow again in a new process with same code",
			Step: get("again", client(map[string]string{"grant_token": "${code}", "redirect_url": "https://app/cb"})),
			want: want{calls: byToken, like: "grant"}},
		{what: "refresh flow, same refresh token, no client redirect",
			Step: get("refresh", client(map[string]string{"refresh_token": "${grant.refresh_token}"})),
			want: want{calls: byToken, like: "grant", has: map[string]string{"user_name": "ann:6001", "redirect_url": "https://app/cb"}}},
		{what: "refresh flow, unknown refresh token, find_user on (same user!)", before: tokens("ann"),
			Step: get("refresh2", client(map[string]string{"refresh_token": "${refresh}"})),
			want: want{calls: byToken, asks: 1, alive: true, has: map[string]string{"user_name": "ann:6001", "refresh_token": "${refresh}"}}},
		{what: "the record is that of the user",
			Step: languages.Step{Do: "get_tokens"}, want: want{list: []string{"${refresh2.id}"}}},
		{what: "access flow", before: tokens("ann"),
			Step: get("access", map[string]string{"access_token": "${access}"}),
			want: want{calls: []string{"find_token", "save_token"}, has: map[string]string{"user_name": "ann:6001", "id": "${refresh2.id}"}}},
		{what: "access flow again",
			Step: get("access2", map[string]string{"access_token": "${access}"}),
			want: want{calls: byToken, like: "access", has: map[string]string{"refresh_token": "${refresh2.refresh_token}"}}},
		{what: "id flow (1)",
			Step: get("id", map[string]string{"id": "${access.id}"}), want: want{calls: byID, like: "access"}},
		{what: "id flow (missing 99)",
			Step: get("missing", map[string]string{"id": "99"}), want: want{calls: byID, code: "TOKEN_STORE", class: "not_found"}},
		{what: "user signature only",
			Step: get("user", map[string]string{"user_name": "ann:6001"}), want: want{calls: byToken, like: "access"}},
		{what: "user signature unknown only",
			Step: get("unknown", map[string]string{"user_name": "nobody"}), want: want{calls: byToken, code: "TOKEN"}},
		expire("id"),
		{what: "expired (within 5s) via id flow",
			Step: get("id2", map[string]string{"id": "${id.id}"}), want: want{calls: byID, asks: 1, alive: true}},
		{what: "the token of the SDK keeps the access token of its first call, which is not the one that is used",
			Step: get("id", nil), want: want{calls: byID, like: "id2", alive: true}},
	}
	steps = append(steps, refusals()...)
	return append(steps, []step{
		{what: "remove()", before: works("eve"), Step: languages.Step{Do: "delete_token", ID: "${id.id}"}},
		{what: "remove() of what is not there", Step: languages.Step{Do: "delete_token", ID: "77"}},
		{what: "a record to revoke",
			Step: get("eve", client(map[string]string{"grant_token": "${code}"})), want: want{calls: byToken, asks: 1, alive: true}},
		{what: "revoke()",
			Step: languages.Step{Do: "find_token", On: "revoked", With: map[string]string{"id": "${eve.id}"}},
			want: want{same: true, has: map[string]string{"refresh_token": "${eve.refresh_token}"}}},
	}...)
}

// refusals returns the flows that end with an exception of the SDK.
func refusals() []step {
	var steps []step
	for _, each := range []struct{ what, user, body, class string }{
		{"expired, refresh answers invalid_code", "bob", `{"error":"invalid_code"}`, "reauth_required"},
		{"expired, refresh answers Access Denied", "cat", `{"error":"Access Denied"}`, "throttled"},
	} {
		steps = append(steps,
			step{what: "a record of " + each.user, before: works(each.user),
				Step: get(each.user, client(map[string]string{"grant_token": "${code}"})),
				want: want{calls: byToken, asks: 1, alive: true}},
			expire(each.user),
			step{what: each.what, before: answer(each.body),
				Step: get(each.user+"2", map[string]string{"id": "${" + each.user + ".id}"}),
				want: want{calls: byID, asks: 1, code: "TOKEN_STORE", class: each.class}},
			step{what: each.what + ", again", // the refusal is stored
				Step: get(each.user+"3", map[string]string{"id": "${" + each.user + ".id}"}),
				want: want{calls: byID, code: "TOKEN_STORE", class: each.class}})
	}
	return steps
}

// withoutUser returns the recorded flows for an agent that does not ask the CRM for the user.
func withoutUser() []step {
	like := client(map[string]string{"grant_token": "${code}"})
	denied := func(l *life) {
		code("ann")(l)
		l.aws.Inject(func(r *fakeaws.Request) *fakeaws.Fault {
			if r.Operation != "CreateSecret" {
				return nil
			}
			return &fakeaws.Fault{Code: "AccessDeniedException", Message: "not authorized to perform: secretsmanager:CreateSecret"}
		})
	}
	return []step{
		{what: "refresh flow, unknown refresh token, find_user=False", before: tokens("ann"),
			Step: get("refresh", client(map[string]string{"refresh_token": "${refresh}"})),
			want: want{calls: byToken, asks: 1, alive: true, has: map[string]string{"user_name": "-", "refresh_token": "${refresh}"}}},
		{what: "grant flow with a store whose save fails", before: denied,
			Step: get("grant", like), want: want{calls: byToken, code: "TOKEN_STORE", class: "denied"}},
		{what: "the one-time code is not lost", before: func(l *life) { l.aws.Inject(nil) },
			Step: get("grant", nil), want: want{calls: byToken, asks: 1, alive: true}},
	}
}

// rejections returns steps that call the API with access tokens that are revoked before they
// expire.
func rejections() []step {
	revoked := func(on string) func(*life) {
		return func(l *life) { l.Zoho.Expire(l.values[on+".access_token"]) }
	}
	repaired := []int{http.StatusUnauthorized, http.StatusOK}
	return []step{
		{what: "a record", before: code("ann"),
			Step: get("ann", client(map[string]string{"grant_token": "${code}"})), want: want{calls: byToken, asks: 1, alive: true}},
		{what: "a call with a good token",
			Step: languages.Step{Do: "call", On: "ann"}, want: want{statuses: []int{http.StatusOK}}},
		{what: "the first access token is revoked", before: revoked("ann"),
			Step: languages.Step{Do: "call", On: "ann"}, want: want{statuses: repaired, asks: 1}},
		{what: "the next call",
			Step: languages.Step{Do: "call", On: "ann"}, want: want{statuses: []int{http.StatusOK}}},

		{what: "a record that is refreshed", before: code("bob"),
			Step: get("bob", client(map[string]string{"grant_token": "${code}"})), want: want{calls: byToken, asks: 1, alive: true}},
		expire("bob"),
		{what: "the second access token is used",
			Step: get("bob", nil), want: want{calls: byID, asks: 1, alive: true}},
		{what: "the second access token is revoked", before: revoked("bob"),
			Step: languages.Step{Do: "call", On: "bob"}, want: want{statuses: repaired, asks: 1}},
		{what: "another token is refused",
			Step: languages.Step{Do: "rejected", On: "nothing", With: map[string]string{"user_name": "nobody", "access_token": "1000.unknown"}},
			want: want{code: "TOKEN_STORE", class: "not_found"}},
	}
}

// contract returns the steps that each TokenStore must pass, with an agent that has the flag
// --pass-through.
func contract() []step {
	user := func(members ...string) map[string]string {
		with := map[string]string{"user_name": "u", "client_id": "c", "client_secret": "s"}
		for i := 0; i < len(members); i += 2 {
			with[members[i]] = members[i+1]
		}
		return with
	}
	store := func(do, on string, with map[string]string) languages.Step {
		return languages.Step{Do: do, On: on, With: with}
	}
	fails := want{code: "TOKEN_STORE"}
	return []step{
		{what: "a miss", Step: store("find_token", "like", user()), want: want{none: true}},
		{what: "save", Step: store("save_token", "saved", user("redirect_url", "https://r/", "access_token", "a"))},
		{what: "the same instance is filled, and what the caller has stays",
			Step: store("find_token", "like", user("client_secret", "own")),
			want: want{same: true, like: "saved", has: map[string]string{"client_secret": "own", "redirect_url": "https://r/", "expires_in": "-"}}},
		{what: "find by ID", Step: languages.Step{Do: "find_token_by_id", ID: "${saved.id}"},
			want: want{like: "saved", has: map[string]string{"user_name": "u", "client_id": "c", "client_secret": "s"}}},
		{what: "list", Step: languages.Step{Do: "get_tokens"}, want: want{list: []string{"${saved.id}"}}},
		{what: "another kind of token is found", Step: languages.Step{Do: "find_token", On: "other", Other: true}, want: want{same: true}},
		{what: "another kind of token is saved", Step: store("save_token", "other", nil)},
		{what: "delete", Step: languages.Step{Do: "delete_token", ID: "${saved.id}"}},
		{what: "an unknown ID", Step: languages.Step{Do: "find_token_by_id", ID: "${saved.id}"},
			want: want{code: "TOKEN_STORE", class: "not_found"}},
		{what: "save again", Step: store("save_token", "saved", user("access_token", "b"))},
		{what: "delete all", Step: languages.Step{Do: "delete_tokens"}},
		{what: "nothing is left", Step: languages.Step{Do: "get_tokens"}, want: want{list: []string{}}},
		{what: "nothing to save", Step: store("save_token", "nothing", map[string]string{"user_name": "v"}), want: want{code: "TOKEN_STORE", class: "not_found"}},
		{what: "an agent that is away", Step: languages.Step{Do: "get_tokens", Address: "http://127.0.0.1:1"}, want: fails},
		{what: "an agent on a Unix socket that is away", Step: languages.Step{Do: "get_tokens", Address: "unix:/nonexistent/socket"}, want: fails},
		{what: "a token that no header can have", Step: languages.Step{Do: "get_tokens", Token: "secret-1\nsecret-2"}, want: fails},
		{what: "a wrong token", Step: languages.Step{Do: "get_tokens", Token: "wrong"}, want: want{code: "TOKEN_STORE", class: "unauthorized"}},
	}
}
