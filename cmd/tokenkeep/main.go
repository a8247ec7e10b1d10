// Command tokenkeep looks into stores of OAuth tokens and moves records between
// them and the token files of the Zoho SDKs.
//
//	tokenkeep ls --store vault:secret/oauth      what is there
//	tokenkeep import sdk_tokens.txt --store …    a token file of an SDK into a store
//	tokenkeep help                               the rest
//
// Secrets go in by standard input and by files, never by arguments, and come out
// masked unless --reveal is given.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the second signal ends the program at once
	os.Exit(run(ctx, os.Args[1:], os.LookupEnv, os.Stdin, os.Stdout, os.Stderr))
}
