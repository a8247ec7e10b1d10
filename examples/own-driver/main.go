// Command own-driver is the command tokenkeep with an additional kind of store, box:PATH. The
// driver of this store is in box.go. Of the secret managers that tokenkeep supports, the
// command includes only HashiCorp Vault.
package main

import (
	"github.com/tokenkeep/tokenkeep/cli"
	"github.com/tokenkeep/tokenkeep/cli/scheme"
	"github.com/tokenkeep/tokenkeep/cli/stores/vault"
)

func main() { cli.Main(schemes()...) }

func schemes() []scheme.Scheme {
	const text = "a box, which is one file, created if it does not exist"
	return []scheme.Scheme{vault.Scheme(), {Name: "box", Form: "box:PATH", Text: text, Open: open}}
}
