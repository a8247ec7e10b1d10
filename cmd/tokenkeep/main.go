// Command tokenkeep inspects stores of OAuth tokens, and moves records between
// them and the token files of the Zoho SDKs.
//
//	tokenkeep ls --store vault:secret/oauth      what is there
//	tokenkeep import sdk_tokens.txt --store …    a token file of an SDK into a store
//	tokenkeep help                               the rest
//
// Secrets are read from standard input and from files, never from arguments, and
// are printed masked unless --reveal is given.
package main

import (
	"github.com/tokenkeep/tokenkeep/cli"
	"github.com/tokenkeep/tokenkeep/cli/stores"
)

func main() { cli.Main(stores.All()...) }
