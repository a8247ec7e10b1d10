package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// TestZoho checks that the server at the printed address issues an access token for the printed
// record.
func TestZoho(t *testing.T) {
	t.Parallel()
	ctx, stop := context.WithCancel(t.Context())
	out, in := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, []string{"zoho"}, in) }()
	lines := bufio.NewScanner(out)
	var text [2]string
	for i := range text {
		if !lines.Scan() {
			t.Fatal(lines.Err())
		}
		text[i] = lines.Text()
	}
	address, ok := strings.CutPrefix(text[0], "listening ")
	var record map[string]string
	if err := json.Unmarshal([]byte(text[1]), &record); !ok || err != nil {
		t.Fatalf("it printed %q", text)
	}
	form := url.Values{
		"grant_type": {"refresh_token"}, "client_id": {record["client_id"]},
		"client_secret": {record["client_secret"]}, "refresh_token": {record["refresh_token"]},
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, address+"/oauth/v2/token", strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	var answer map[string]any
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil || answer["access_token"] == nil {
		t.Errorf("status %d, %v, error %v", response.StatusCode, answer, err)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestUnknownService(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{nil, {"help"}} {
		if err := run(t.Context(), args, io.Discard); err == nil || !strings.Contains(err.Error(), services) {
			t.Errorf("%q: error %v", args, err)
		}
	}
}
