// Fakes serves one of the fake services that tokenkeep's own tests use. Use the program if
// neither the real service nor an emulator is available.
//
//	fakes aws     AWS Secrets Manager, from package fakeaws
//	fakes gcp     Google Cloud Secret Manager, from package fakegcp
//	fakes zoho    Zoho's accounts server and CRM, from package zohoaccounts
//
// When the server is ready, the program prints a line with the address on standard output:
//
//	listening http://127.0.0.1:PORT
//
// For zoho, a second line is a token record for the server, in the form that "tokenkeep save"
// reads. The program answers requests until it gets an interrupt or a SIGTERM or, with -stdin,
// until its standard input is closed. With -localstack, fakeaws behaves like LocalStack 4.14.0.
// The servers keep all data in memory.
package main

import (
	"context"
	"encoding/json"
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
	"github.com/tokenkeep/tokenkeep/internal/zohoaccounts"
)

const services = "aws, gcp or zoho"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "fakes: %v\n", err)
		os.Exit(1)
	}
}

// run serves until ctx is done or, with -stdin, until standard input is closed.
func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) == 0 {
		return errors.New("name a service: " + services)
	}
	flags := flag.NewFlagSet("fakes "+args[0], flag.ExitOnError)
	addr := flags.String("addr", "127.0.0.1:0", "listen on `host:port`")
	stdin := flags.Bool("stdin", false, "exit when standard input is closed")
	localStack := flags.Bool("localstack", false, "of aws: behave as LocalStack 4.14.0 does")
	_ = flags.Parse(args[1:]) // exits on errors
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
		return serve(ctx, *addr, aws(&fakeaws.Options{LocalStack: *localStack}), out)
	case "gcp":
		server := fakegcp.New(&fakegcp.Options{Addr: *addr})
		defer server.Close()
		_, _ = fmt.Fprintf(out, "listening http://%s\n", server.Addr)
		<-ctx.Done()
		return nil
	case "zoho":
		server, record, err := zoho()
		if err != nil {
			return err
		}
		return serve(ctx, *addr, server, out, record)
	default:
		return fmt.Errorf("there is no fake of %q: name %s", args[0], services)
	}
}

// aws returns a fake of Secrets Manager, with LocalStack's health page.
func aws(opts *fakeaws.Options) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", fakeaws.NewService(opts))
	mux.HandleFunc("GET /_localstack/health", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"services": {"secretsmanager": "available"}, "edition": "fakeaws", "version": "of this module"}`)
	})
	return mux
}

// zoho returns a fake accounts server with one client, and a token record for that client.
func zoho() (server http.Handler, record string, err error) {
	s := zohoaccounts.New(nil)
	s.AddClient(zohoaccounts.Client{ID: "1000.CLIENT", Secret: "secret"})
	refresh, _ := s.Tokens(zohoaccounts.Consent{ClientID: "1000.CLIENT", Email: "ann@example.com", ZGID: "1"})
	text, err := json.Marshal(map[string]string{
		"user_name": "ann@example.com", "client_id": "1000.CLIENT", "client_secret": "secret", "refresh_token": refresh,
	})
	return s, string(text), err
}

// serve serves h at addr until ctx is done. serve prints the address, and then the given lines,
// to out.
func serve(ctx context.Context, addr string, h http.Handler, out io.Writer, lines ...string) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	for _, line := range append([]string{"listening http://" + listener.Addr().String()}, lines...) {
		_, _ = fmt.Fprintln(out, line)
	}
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
		return server.Close()
	}
}
