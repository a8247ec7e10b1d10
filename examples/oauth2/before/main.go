// Command before is examples/oauth2 without a store. It loses each new refresh token that the
// server issues.
package main

import (
	"context"
	"encoding/json"
	"io"
	"log"
	"os"

	"golang.org/x/oauth2"
)

func main() {
	ctx, tok := context.Background(), &oauth2.Token{}
	must(tok, json.Unmarshal([]byte(os.Getenv("TOKEN")), tok))
	conf := &oauth2.Config{ClientID: os.Getenv("CLIENT_ID"), ClientSecret: os.Getenv("CLIENT_SECRET")}
	conf.Endpoint.TokenURL = os.Getenv("TOKEN_URL")

	client := conf.Client(ctx, tok)
	res := must(client.Get(os.Getenv("API_URL")))
	defer res.Body.Close()
	must(io.Copy(os.Stdout, res.Body))
}

func must[T any](v T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return v
}
