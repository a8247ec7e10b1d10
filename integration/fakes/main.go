// Fakes serves the fakes of the cloud services that tokenkeep's own tests use, as
// a program of its own: for where the real services, or others' emulators of them,
// cannot be had.
//
//	fakes aws    AWS Secrets Manager, of package fakeaws
//	fakes gcp    Google Cloud Secret Manager, of package fakegcp
//
// When it is ready it prints one line on standard output,
//
//	listening http://127.0.0.1:PORT
//
// and answers requests until it gets an interrupt or a SIGTERM or, with -stdin,
// until its standard input is closed. With -localstack fakeaws behaves as LocalStack
// 4.14.0 does where that differs from AWS. Everything is kept in memory.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/fakeaws"
	"github.com/tokenkeep/tokenkeep/internal/fakegcp"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "fakes: %v\n", err)
		os.Exit(1)
	}
}

// run serves until ctx is done, or standard input is closed if the arguments say
// so.
func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New("which? aws or gcp")
	}
	flags := flag.NewFlagSet("fakes "+args[0], flag.ExitOnError)
	addr := flags.String("addr", "127.0.0.1:0", "listen on `host:port`")
	stdin := flags.Bool("stdin", false, "exit when standard input is closed")
	localStack := flags.Bool("localstack", false, "of aws: behave as LocalStack 4.14.0 does")
	_ = flags.Parse(args[1:]) // it exits
	if *stdin {
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		defer cancel()
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			cancel()
		}()
	}
	switch args[0] {
	case "aws":
		return serveAWS(ctx, *addr, &fakeaws.Options{LocalStack: *localStack})
	case "gcp":
		server := fakegcp.New(&fakegcp.Options{Addr: *addr})
		defer server.Close()
		fmt.Printf("listening http://%s\n", server.Addr)
		<-ctx.Done()
		return nil
	default:
		return fmt.Errorf("there is no %q, only aws and gcp", args[0])
	}
}

// serveAWS serves Secrets Manager, and the page by which LocalStack says that it
// is ready.
func serveAWS(ctx context.Context, addr string, opts *fakeaws.Options) error {
	mux := http.NewServeMux()
	mux.Handle("/", fakeaws.NewService(opts))
	mux.HandleFunc("GET /_localstack/health", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"services": {"secretsmanager": "available"}, "edition": "fakeaws", "version": "of this module"}`)
	})
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	fmt.Printf("listening http://%s\n", listener.Addr())
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
		return server.Close()
	}
}
