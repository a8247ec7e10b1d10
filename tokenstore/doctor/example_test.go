package doctor_test

import (
	"bytes"
	"context"
	"fmt"
	"log"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/doctor"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/memstore"
)

// This program checks a store, makes the repairs that are safe while other processes run, and
// prints all findings.
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

// This program measures the service behind a driver with few calls. It opens two drivers, as
// two processes do.
func ExampleMeasure() {
	ctx := context.Background()
	first := memstore.NewDriver()
	m, err := doctor.Measure(ctx, first, &doctor.MeasureOptions{
		Others: []driver.Secrets{first.Reopen()},
		Rounds: 2, Racers: 3, Samples: 5,
	})
	if err != nil {
		log.Fatal(err) // m holds the results so far
	}
	for _, races := range m.Races {
		for _, round := range races.Rounds {
			fmt.Println(races.Of, "winners:", round.Winners)
		}
	}
	fmt.Println("findings:", len(m.Findings))
	// Output:
	// update winners: 1
	// update winners: 1
	// create winners: 1
	// create winners: 1
	// findings: 0
}

// This program gives a name key to a store that was used without keys. Before the program
// runs, give every other program the new key, with NoKey among OtherNameKeys. Afterwards,
// remove NoKey.
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

	key := bytes.Repeat([]byte{7}, 32) // in production, a random key from a secret manager
	store, err := tokenstore.New(driver.Reopen(), &tokenstore.Options{NameKey: key, OtherNameKeys: [][]byte{[]byte(tokenstore.NoKey)}})
	if err != nil {
		log.Fatal(err)
	}
	rewritten := 0
	for r, err := range store.Rekey(ctx, nil) {
		if err != nil {
			log.Fatal(err) // call Rekey again to continue
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
