// Vaultdev is a Vault server for tests: the core of HashiCorp Vault with its
// HTTP interface, its policies, tokens and leases, the KV secrets engine and the
// AppRole auth method, and no other part of Vault. Without -storage, all data is
// in memory and is lost when the program exits.
//
// When the program is ready, it prints one line on standard output,
//
//	listening http://127.0.0.1:PORT
//
// and answers requests until it gets an interrupt or a SIGTERM or, with -stdin,
// until its standard input is closed. When the line appears, a KV version 2
// secrets engine is ready, and AppRole is at auth/approle. The ID of the root
// token is the value of VAULT_DEV_ROOT_TOKEN_ID, or "root".
//
// With -storage, the data is in a folder, in Vault's integrated storage (Raft),
// and the program starts like Vault in production: clients must initialize the
// server once, and must unseal the server after each start. No engine and no auth
// method is mounted.
//
// The program contains code under the Business Source License: see the file
// NOTICE. Do not distribute the program.
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

// run serves until ctx is done or, with -stdin, until standard input is closed.
func run(ctx context.Context, args []string) (err error) {
	flags := flag.NewFlagSet("vaultdev", flag.ExitOnError)
	addr := flags.String("addr", "127.0.0.1:0", "listen on `host:port`")
	mount := flags.String("mount", "secret", "mount the KV engine at `path`")
	storage := flags.String("storage", "", "keep the data in `folder`, and begin sealed")
	stdin := flags.Bool("stdin", false, "exit when standard input is closed")
	keyFile := flags.String("unseal-key-file", "", "write the key that unseals the server, in hexadecimal, to `file`")
	level := flags.String("log-level", "error", "log messages of this `level` and above to standard error: trace, debug, info, warn, error, off")
	_ = flags.Parse(args) // exits on errors
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if *storage != "" && *keyFile != "" {
		return errors.New("with -storage, the server has no unseal key until it is initialized")
	}
	if hclog.LevelFromString(*level) == hclog.NoLevel {
		return fmt.Errorf("no log level is called %q", *level)
	}

	// The program watches standard input from the start, because the parent process can
	// end before the program is ready.
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
	// Requests in progress have two seconds to end. After two seconds, the connections
	// are closed, because a test server must stop.
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if server.Shutdown(grace) != nil {
		_ = server.Close()
	}
	return nil
}

// ignoreDone returns err, or nil if ctx is done and caused err. A program that is
// stopped before it is ready has not failed.
func ignoreDone(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil
	}
	return err
}

// writeKey writes key to the named file. A process that waits for the file finds
// the whole key or no file.
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
