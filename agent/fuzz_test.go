package agent_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/tokenkeep/tokenkeep/agent"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/memstore"
)

// FuzzRequest checks that no complete request makes the agent panic. Responses to GET and POST,
// and error responses to other methods, must conform to the OpenAPI document. The response to a
// request without the agent's token must not contain the stored access token.
func FuzzRequest(f *testing.F) {
	head := "Host: localhost\r\nContent-Type: application/json\r\n" + agent.TokenHeader + ": " + agentToken + "\r\n"
	for _, seed := range []string{
		"POST /v1/find HTTP/1.1\r\n" + head + "Content-Length: 11\r\n\r\n{\"id\":\"one\"",
		"POST /v1/find_by_id HTTP/1.1\r\n" + head + "Content-Length: 12\r\n\r\n{\"id\":\"one\"}",
		"POST /v1/save HTTP/1.1\r\n" + head + "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
		"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"OPTIONS * HTTP/1.1\r\nHost: localhost\r\nOrigin: null\r\n\r\n",
		"POST http://other/v1/find HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"POST /v1/../v1/find?x HTTP/1.0\r\n\r\n{}",
	} {
		f.Add([]byte(seed))
	}
	store := memstore.New(nil)
	saved, err := store.SaveToken(f.Context(), tokenstore.Token{UserName: "u", ClientID: "c", AccessToken: "1000.stored"})
	if err != nil {
		f.Fatal(err)
	}
	h, err := agent.New(agent.Config{Store: store, PassThrough: true, Token: agentToken, ReadOnly: true})
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte("POST /v1/find_by_id HTTP/1.1\r\n" + head + "Content-Length: 42\r\n\r\n{\"id\":\"" + saved.ID + "\"}"))
	d := schema{}
	if err := json.Unmarshal(agent.Document(), &d); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(data)))
		if err != nil {
			return
		}
		res := httptest.NewRecorder()
		h.ServeHTTP(res, r)
		known := r.Method == http.MethodPost || r.Method == http.MethodGet
		if known || res.Code != http.StatusOK {
			d.check(t, r.Method, r.URL.EscapedPath(), res.Result(), res.Body.Bytes())
		}
		if strings.Contains(res.Body.String(), "1000.stored") && r.Header.Get(agent.TokenHeader) != agentToken {
			t.Error("a request without the header has got a token")
		}
	})
}
