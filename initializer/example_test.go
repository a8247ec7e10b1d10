package initializer_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"

	"github.com/tokenkeep/tokenkeep/initializer"
	"github.com/tokenkeep/tokenkeep/internal/zohoaccounts"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/memstore"
)

// The first call of New exchanges the code. Later calls with the same Config find the record, and
// send no request to the accounts server while the token is valid.
func ExampleNew() {
	zoho := zohoaccounts.New(nil) // simulates the servers of Zoho
	zoho.AddClient(zohoaccounts.Client{ID: "1000.CLIENT", Secret: "secret", DataCenter: "eu"})
	code := zoho.Code(zohoaccounts.Consent{ClientID: "1000.CLIENT", Email: "ann@example.com", ZGID: "6001"})

	ctx := context.Background()
	store := memstore.New(nil) // or a store of another package, such as awssm or k8sstore
	for range 2 {
		client, err := initializer.New(ctx, initializer.Config{
			Environment: initializer.EU.Production(),
			Token:       tokenstore.Token{ClientID: "1000.CLIENT", ClientSecret: "secret", GrantToken: tokenstore.Secret(code)},
			Store:       store,
			FindUser:    true,
			HTTPClient:  &http.Client{Transport: zoho},
		})
		if err != nil {
			log.Fatal(err)
		}
		t, err := client.Token(ctx)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(t.UserName, t.APIDomain)
		res, err := client.HTTPClient(ctx).Get("/crm/v8/org")
		if err != nil {
			log.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
		fmt.Println(res.Status)
	}
	fmt.Println("codes exchanged:", zoho.Count(zohoaccounts.Exchange))
	// Output:
	// ann@example.com:6001 https://www.zohoapis.eu
	// 200 OK
	// ann@example.com:6001 https://www.zohoapis.eu
	// 200 OK
	// codes exchanged: 1
}
