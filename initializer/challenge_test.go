package initializer

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestChallenge(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		fields []string
		want   bool
	}{
		{[]string{`Bearer error="invalid_token"`}, true},
		{[]string{`Bearer realm="x", error="invalid_token", error_description="The access token expired"`}, true},
		{[]string{`bearer ERROR=invalid_token`}, true},
		{[]string{`BEARER   realm="x"  ,  error  =  "invalid_token"`}, true},
		{[]string{"Bearer\trealm=x,\terror=\"invalid_token\""}, true},
		{[]string{`Bearer realm="a, b", error="invalid_token"`}, true},
		{[]string{`Bearer realm="a \"quoted\" \\ one", error="invalid_token"`}, true},
		{[]string{`Bearer error="invalid\_token"`}, true},
		{[]string{`, ,Bearer error="invalid_token",,`}, true},
		{[]string{`Basic realm="x", Bearer realm="y", error="invalid_token"`}, true},
		{[]string{`Basic, Bearer error="invalid_token"`}, true},
		{[]string{`Negotiate YII+/aB0==, Bearer error="invalid_token"`}, true},
		{[]string{`Negotiate YII, Bearer error="invalid_token"`}, true},
		{[]string{`Bearer error="invalid_token", Basic realm="x"`}, true},
		{[]string{`Digest realm="x", qop="auth,auth-int", nonce=a1, Bearer error="invalid_token"`}, true},
		{[]string{`Basic realm="x"`, `Bearer error="invalid_token"`}, true},
		{[]string{`Bearer error="invalid_token"`, `Basic realm="x"`}, true},
		{[]string{`Zoho-oauthtoken error="invalid_token"`}, true},
		{[]string{`DPoP algs="ES256", error="invalid_token"`}, true},
		{[]string{`Bearer realm="x" error="invalid_token"`}, true}, // without the comma
		{[]string{`Bearer realm="x"; error="invalid_token"; y`, `Bearer @ , error="invalid_token"`}, true},

		{nil, false},
		{[]string{``, ` `, `,`, `=`, `"`, `"error="invalid_token"`}, false},
		{[]string{`Bearer`, `Bearer realm="x"`}, false},
		{[]string{`Bearer error="insufficient_scope"`}, false},
		{[]string{`Bearer error="invalid_request", error_description="invalid_token"`}, false},
		{[]string{`Bearer realm="error=invalid_token"`}, false},
		{[]string{`Bearer realm="x, error=\"invalid_token\""`}, false},
		{[]string{`Bearer realm="x, error=invalid_token`}, false},
		{[]string{`Bearer xerror="invalid_token", error_="invalid_token"`}, false},
		{[]string{`Bearer error="invalid_token2"`, `Bearer error=" invalid_token"`}, false},
		{[]string{`error="invalid_token"`}, false},
		{[]string{`invalid_token`, `Bearer invalid_token`, `Bearer error`, `Bearer error=`}, false},
	} {
		res := &http.Response{Header: http.Header{"Www-Authenticate": c.fields}, Body: io.NopCloser(strings.NewReader("a body"))}
		if got := invalidToken(res); got != c.want {
			t.Errorf("%q: %t", c.fields, got)
		}
		if body, err := io.ReadAll(res.Body); err != nil || string(body) != "a body" {
			t.Errorf("%q: the body is %q", c.fields, body)
		}
	}
}

func TestChallengeIsTakenApart(t *testing.T) {
	t.Parallel()
	got := parseChallenges(`Basic realm="a, b", charset=UTF-8 , Negotiate ab+/==, NTLM,Digest A="1", b = 2`)
	var words []string
	for _, c := range got {
		words = append(words, c.scheme, fmt.Sprint(c.params))
	}
	want := []string{"basic", "map[charset:UTF-8 realm:a, b]", "negotiate", "map[]", "ntlm", "map[]", "digest", "map[a:1 b:2]"}
	if !slices.Equal(words, want) {
		t.Errorf("got  %q\nwant %q", words, want)
	}
}

// FuzzChallenge checks that parseChallenges terminates for every field, and that every scheme is
// in lower case and not empty.
func FuzzChallenge(f *testing.F) {
	for _, seed := range []string{`Bearer error="invalid_token"`, `a b==, c d="\"", e=f`, `,,"`, `a =`, "\x00=\"\\"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, field string) {
		for _, c := range parseChallenges(field) {
			if c.scheme == "" || c.scheme != strings.ToLower(c.scheme) {
				t.Errorf("%q: the scheme is %q", field, c.scheme)
			}
		}
	})
}

// FuzzAnswer checks that rule does not panic, and accepts only responses with an access token.
// It also checks that error codes have the usual form and contain no secret.
func FuzzAnswer(f *testing.F) {
	for _, seed := range []string{`{"access_token":"a","refresh_token":"r"}`, `access_token=a&error=b`, `{"error":{"code":1,"type":"t"}}`, `{"errors":[[{}]]}`, "\ufeff{"} {
		f.Add(200, []byte(seed))
		f.Add(401, []byte(seed))
	}
	j := judge{now: time.Now}
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		m, refused := j.rule(reply{status: status, body: body, header: http.Header{}}, []string{"secret-of-mine"})
		switch {
		case refused == nil && m.token("access_token") == "":
			t.Errorf("%q is taken for an answer", body)
		case refused != nil && (!codeForm().MatchString(refused.Code) || strings.Contains(refused.Code, "secret-of-mine")):
			t.Errorf("%q: the code is %q", body, refused.Code)
		}
	})
}
