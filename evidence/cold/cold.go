// Package cold contains the code shared by the programs in its subdirectories. Each program gets
// one access token from a secret manager, and ends. A program whose name ends in "bare" uses the
// SDK of the service and golang.org/x/oauth2. The other programs use this module.
package cold

import (
	"context"
	"encoding/json"
	"errors"
	"log"
	"os"
	"time"

	"golang.org/x/oauth2"
)

// Constants that the programs and their measurement share.
const (
	EnvURL = "COLD_URL" // name of the environment variable with the URL of the service

	User   = "ann@example.com"
	Client = "client"

	BareName = "bare" // name of the secret of a program without this module
	Prefix   = "keep" // prefix of the records of a program with this module
)

// Config returns the configuration of the OAuth client. The programs never use TokenURL,
// because the stored access token has not expired.
func Config() *oauth2.Config {
	return &oauth2.Config{ClientID: Client, ClientSecret: "secret", Endpoint: oauth2.Endpoint{TokenURL: "https://id.example.com/token"}}
}

// A Bare is the content of the secret that a program without this module reads.
type Bare struct {
	AccessToken  string    `json:"access_token"`
	RefreshToken string    `json:"refresh_token"`
	Expiry       time.Time `json:"expiry"`
}

// Token returns the access token in secret, which is the JSON form of a Bare. Token gets the
// access token from a TokenSource of golang.org/x/oauth2.
func Token(ctx context.Context, secret []byte) (string, error) {
	var b Bare
	if err := json.Unmarshal(secret, &b); err != nil {
		return "", err
	}
	t, err := Config().TokenSource(ctx, &oauth2.Token{AccessToken: b.AccessToken, RefreshToken: b.RefreshToken, Expiry: b.Expiry}).Token()
	if err != nil {
		return "", err
	}
	return t.AccessToken, nil
}

// Main calls the function token with the URL in EnvURL. If token fails or returns "", Main logs
// the error and exits with status 1.
func Main(token func(ctx context.Context, url string) (string, error)) {
	got, err := token(context.Background(), os.Getenv(EnvURL))
	if err == nil && got == "" {
		err = errors.New("the token is empty")
	}
	if err != nil {
		log.Fatal(err)
	}
}
