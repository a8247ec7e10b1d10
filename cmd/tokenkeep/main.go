// Command tokenkeep keeps OAuth token records in secret managers and other stores: it lists,
// saves, refreshes and removes records. It also copies records from one store to another, and
// imports and exports the token files of the Zoho SDKs.
//
//	tokenkeep ls --store vault:secret/oauth      list the records
//	tokenkeep import sdk_tokens.txt --store …    save the records of a token file
//	tokenkeep help                               list all commands
//
// Tokenkeep takes no secrets from arguments. Unless --reveal is given, commands mask the secrets
// that they print. The exception is the command token.
package main

import (
	"github.com/tokenkeep/tokenkeep/cli"
	"github.com/tokenkeep/tokenkeep/cli/stores"
)

func main() { cli.Main(stores.All()...) }
