// Vaultdev is a Vault server for tests: the core of HashiCorp Vault with its
// HTTP interface, its policies, tokens and leases, the KV secrets engine and the
// AppRole auth method, and nothing else of it. Everything is kept in memory and
// is gone when it exits, unless -storage says otherwise.
//
// When it is ready it prints one line on standard output,
//
//	listening http://127.0.0.1:PORT
//
// and answers requests until it gets an interrupt or a SIGTERM or, with -stdin,
// until its standard input is closed. By then there is a KV version 2 secrets
// engine, which has finished its preparations, and AppRole at auth/approle. The
// ID of the root token is the value of VAULT_DEV_ROOT_TOKEN_ID, or "root".
//
// With -storage it keeps everything in a folder and begins as Vault does in
// production: to be initialized, once, and to be unsealed after each start, both
// by calls of Vault's API. There is nothing in it then that is not asked for.
//
// The program contains code under the Business Source License: see the file
// NOTICE. It is not to be distributed.
package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	vaulthttp "github.com/hashicorp/vault/http"
	"github.com/hashicorp/vault/internalshared/configutil"
	"github.com/hashicorp/vault/vault"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "vaultdev: %v\n", err)
		os.Exit(1)
	}
}

// run serves until ctx is done, or standard input is closed if the arguments
// say so.
func run(ctx context.Context, args []string) (err error) {
	flags := flag.NewFlagSet("vaultdev", flag.ExitOnError)
	addr := flags.String("addr", "127.0.0.1:0", "listen on `host:port`")
	mount := flags.String("mount", "secret", "mount the KV engine at `path`")
	storage := flags.String("storage", "", "keep everything in `folder`, and begin sealed")
	stdin := flags.Bool("stdin", false, "exit when standard input is closed")
	keyFile := flags.String("unseal-key-file", "", "write the key that unseals the server, in hexadecimal, to `file`")
	level := flags.String("log-level", "error", "log what is at least that `important` to standard error: trace, debug, info, warn, error, off")
	_ = flags.Parse(args) // it exits
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if *storage != "" && *keyFile != "" {
		return errors.New("with -storage there is no key before somebody initializes the server")
	}
	if hclog.LevelFromString(*level) == hclog.NoLevel {
		return fmt.Errorf("no log level is called %q", *level)
	}

	// Standard input is watched from the start: whoever started the program may
	// be gone before it is ready.
	if *stdin {
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		defer cancel()
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			cancel()
		}()
	}

	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", *addr)
	if err != nil {
		return err
	}
	defer listener.Close()
	url := "http://" + listener.Addr().String()

	c := config{
		logger:  hclog.New(&hclog.LoggerOptions{Level: hclog.LevelFromString(*level), Output: os.Stderr}),
		url:     url,
		storage: *storage,
		token:   cmp.Or(os.Getenv("VAULT_DEV_ROOT_TOKEN_ID"), "root"),
		mount:   *mount,
	}
	core, err := newCore(c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, core.Shutdown()) }()
	if *storage == "" {
		key, err := prepare(ctx, core, c)
		if err != nil {
			return ignoreDone(ctx, err)
		}
		if *keyFile != "" {
			if err := writeKey(*keyFile, key); err != nil {
				return err
			}
		}
	}

	server := &http.Server{
		Handler: vaulthttp.Handler.Handler(&vault.HandlerProperties{
			Core:           core,
			ListenerConfig: &configutil.Listener{Type: "tcp", Address: listener.Addr().String()},
		}),
		ReadHeaderTimeout: time.Minute,
		ErrorLog:          core.Logger().Named("http").StandardLogger(&hclog.StandardLoggerOptions{InferLevels: true}),
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	fmt.Printf("listening %s\n", url)

	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	// Requests under way get a moment to end. What hangs after that is cut off:
	// nobody is served by a test server that does not stop.
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if server.Shutdown(grace) != nil {
		_ = server.Close()
	}
	return nil
}

// ignoreDone returns err unless it comes from ctx being done: to be stopped
// before it is ready is no failure of the program.
func ignoreDone(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil
	}
	return err
}

// writeKey writes key to the named file. Whoever waits for the file finds all of
// the key or no file.
func writeKey(name string, key []byte) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".unseal-key-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = io.Copy(f, bytes.NewBufferString(hex.EncodeToString(key)+"\n"))
	if err := errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return os.Rename(f.Name(), name)
}
