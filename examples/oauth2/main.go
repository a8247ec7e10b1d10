// Command oauth2 calls an API with golang.org/x/oauth2 and stores the tokens. The README of this
// repository compares this program with examples/oauth2/before.
package main

import (
	"context"
	"encoding/json"
	"io"
	"log"
	"os"

	"github.com/tokenkeep/tokenkeep/oauth2keep"
	"github.com/tokenkeep/tokenkeep/tokenstore/filestore" // or awssm, gcpsm, vaultstore, …
	"golang.org/x/oauth2"
)

func main() {
	ctx, tok := context.Background(), &oauth2.Token{}
	must(tok, json.Unmarshal([]byte(os.Getenv("TOKEN")), tok))
	conf := &oauth2.Config{ClientID: os.Getenv("CLIENT_ID"), ClientSecret: os.Getenv("CLIENT_SECRET")}
	conf.Endpoint.TokenURL = os.Getenv("TOKEN_URL")

	keep := oauth2keep.New(must(filestore.New("tokens.csv", nil)), oauth2keep.As{User: "me"})
	client := must(keep.Client(ctx, conf, tok))
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
