package migrate_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/filestore"
	"github.com/tokenkeep/tokenkeep/tokenstore/memstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/migrate"
)

// This program migrates the token file of an SDK to another store. A real program would use
// the driver of a secret manager instead of memstore.
func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	from, err := filestore.New(filepath.Join(dir, "tokens.csv"), nil)
	if err != nil {
		log.Fatal(err)
	}
	for _, user := range []string{"ann", "bob"} {
		if _, err := from.SaveToken(ctx, tokenstore.Token{UserName: user, ClientID: "c", RefreshToken: "r-" + tokenstore.Secret(user)}); err != nil {
			log.Fatal(err)
		}
	}
	to := memstore.New(nil)

	m, err := migrate.Plan(ctx, from, to, &migrate.Options{KeepIDs: true})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("new records:", m.Report().Create)
	for _, p := range m.Report().Problems {
		fmt.Println("problem:", p.ID, p.Kind, p.Err)
	}
	report, err := m.Run(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("verified:", report.Verified)
	bob, err := to.FindTokenByID(ctx, "2")
	fmt.Println(bob.UserName, err)
	// Output:
	// new records: 2
	// verified: 2
	// bob <nil>
}
