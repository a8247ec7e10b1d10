// Command tokenkeep inspects stores of OAuth tokens, and moves records between
// them and the token files of the Zoho SDKs.
//
//	tokenkeep ls --store vault:secret/oauth      list the records
//	tokenkeep import sdk_tokens.txt --store …    save the records of a token file
//	tokenkeep help                               list all commands
//
// Tokenkeep takes no secrets from arguments. Except for the command token, tokenkeep masks the
// secrets that it prints unless --reveal is given.
package main

import (
	"github.com/tokenkeep/tokenkeep/cli"
	"github.com/tokenkeep/tokenkeep/cli/stores"
)

func main() { cli.Main(stores.All()...) }
