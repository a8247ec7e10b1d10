package oauth2keep_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/oauth2"

	"github.com/tokenkeep/tokenkeep/oauth2keep"
	"github.com/tokenkeep/tokenkeep/tokenstore/memstore"
)

func Example() {
	ctx := context.Background()
	conf := &oauth2.Config{ClientID: "app", Endpoint: oauth2.Endpoint{TokenURL: "https://id.example.com/token"}}
	store := memstore.New(nil) // or a store of another package, such as awssm or filestore
	keep := oauth2keep.New(store, oauth2keep.As{User: "ann"})

	_, err := keep.TokenSource(ctx, conf, nil)
	fmt.Println(errors.Is(err, oauth2keep.ErrReauthRequired)) // the user must log in

	// A program can get tok from conf.Exchange. The method keep.Exchange stores the code and the
	// token itself.
	tok := &oauth2.Token{AccessToken: "token of ann", RefreshToken: "…", Expiry: time.Now().Add(time.Hour)}
	if _, err := keep.TokenSource(ctx, conf, tok); err != nil {
		fmt.Println(err)
	}

	// The next run, or another process, gets the same token.
	ts, err := keep.TokenSource(ctx, conf, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	got, err := ts.Token()
	fmt.Println(got.AccessToken, err)
	// Output:
	// true
	// token of ann <nil>
}
