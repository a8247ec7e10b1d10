package doctor_test

import (
	"bytes"
	"context"
	"fmt"
	"log"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/doctor"
	"github.com/tokenkeep/tokenkeep/tokenstore/memstore"
)

// A nightly job checks a store, repairs what the next writer would repair, and reports
// the rest.
func ExampleChecker() {
	ctx := context.Background()
	store := memstore.New(nil)
	if _, err := store.SaveToken(ctx, tokenstore.Token{UserName: "ann@example.com", ClientID: "1000.CLIENT", RefreshToken: "1000.refresh"}); err != nil {
		log.Fatal(err)
	}

	for finding, err := range store.Check(ctx, &doctor.CheckOptions{Repair: true}) {
		if err != nil {
			log.Fatal(err) // the store cannot be reached or listed
		}
		fmt.Println(finding.Kind, finding.Repaired, finding.Remedy)
	}
	// Output:
	// store-unkeyed false manual
}

// A store that was opened without keys gets a name key. Every program is given the new
// key before, with NoKey among OtherNameKeys, and loses NoKey after it.
func ExampleRekeyer() {
	ctx := context.Background()
	driver := memstore.NewDriver()
	before, err := tokenstore.New(driver, nil)
	if err != nil {
		log.Fatal(err)
	}
	saved, err := before.SaveToken(ctx, tokenstore.Token{UserName: "ann@example.com", ClientID: "1000.CLIENT", RefreshToken: "1000.refresh"})
	if err != nil {
		log.Fatal(err)
	}

	key := bytes.Repeat([]byte{7}, 32) // from a secret manager, or package keys
	store, err := tokenstore.New(driver.Reopen(), &tokenstore.Options{NameKey: key, OtherNameKeys: [][]byte{[]byte(tokenstore.NoKey)}})
	if err != nil {
		log.Fatal(err)
	}
	rewritten := 0
	for r, err := range store.Rekey(ctx, nil) {
		if err != nil {
			log.Fatal(err) // Rekey goes on from here when it is called again
		}
		if r.Rewritten {
			rewritten++
		}
	}

	after, err := tokenstore.New(driver.Reopen(), &tokenstore.Options{NameKey: key})
	if err != nil {
		log.Fatal(err)
	}
	found, err := after.FindTokenByID(ctx, saved.ID) // a record keeps its ID
	fmt.Println(rewritten > 0, found.UserName, err)
	// Output:
	// true ann@example.com <nil>
}
