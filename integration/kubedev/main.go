// Kubedev is a Kubernetes API server for tests: kube-apiserver and the etcd that it needs,
// in one process, with RBAC, service accounts and their tokens, and no other part of a
// cluster.
//
// When the program is ready, it prints one line on standard output,
//
//	listening https://127.0.0.1:PORT
//
// and answers requests until it gets an interrupt or a SIGTERM or, with -stdin, until its
// standard input is closed. The flag -storage names the data folder, which contains
// apiserver.crt, the certificate that clients must trust. If the program is started again with
// the same folder and the same -addr, it continues with the data, even if the earlier process was
// killed. The environment variable KUBEDEV_TOKEN contains the token of an administrator.
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/pflag"
	"go.etcd.io/etcd/server/v3/embed"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
	"k8s.io/kubernetes/cmd/kube-apiserver/app/options"
)

// startTimeout is the time that etcd and the API server each have to become ready.
const startTimeout = 140 * time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "kubedev: %v\n", err)
		os.Exit(1)
	}
}

// run serves until ctx is done or, with -stdin, until standard input is closed.
func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("kubedev", flag.ExitOnError)
	addr := flags.String("addr", "127.0.0.1:0", "listen on `host:port`")
	storage := flags.String("storage", "", "keep everything in `folder`")
	compaction := flags.Duration("compact-every", 5*time.Minute, "forget earlier states after this `time`")
	stdin := flags.Bool("stdin", false, "exit when standard input is closed")
	_ = flags.Parse(args) // exits on errors
	token := os.Getenv("KUBEDEV_TOKEN")
	if flags.NArg() > 0 || *storage == "" || token == "" {
		return errors.New("it takes -storage and KUBEDEV_TOKEN, and no arguments")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// The program watches standard input from the start, because the parent process can end
	// before the server is ready.
	if *stdin {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			cancel()
		}()
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", *addr)
	if err != nil {
		return err
	}
	etcd, err := startEtcd(ctx, filepath.Join(*storage, "etcd"))
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	defer etcd.Close()
	server, err := configure(ctx, listener, *storage, token, etcd.Clients[0].Addr().String(), *compaction)
	if err != nil {
		return err
	}
	failed := make(chan error, 1)
	go func() { failed <- app.Run(ctx, server) }()
	address := "https://" + listener.Addr().String()
	if err := ready(ctx, address, token, failed); err != nil {
		return err
	}
	fmt.Printf("listening %s\n", address)
	return ignoreDone(ctx, <-failed)
}

// ignoreDone returns err, or nil if ctx is done, because stopping the program is not a
// failure.
func ignoreDone(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// startEtcd starts a single-member etcd. The data that a process has written survives a
// kill of the process, so etcd does not synchronize its files to the disk.
func startEtcd(ctx context.Context, dir string) (*embed.Etcd, error) {
	anyPort := []url.URL{{Scheme: "http", Host: "127.0.0.1:0"}}
	config := embed.NewConfig()
	config.Dir, config.LogLevel, config.UnsafeNoFsync = dir, "error", true
	config.ListenClientUrls, config.AdvertiseClientUrls = anyPort, anyPort
	config.ListenPeerUrls, config.AdvertisePeerUrls = anyPort, anyPort
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	etcd, err := embed.StartEtcd(config)
	if err != nil {
		return nil, err
	}
	select {
	case <-etcd.Server.ReadyNotify():
		return etcd, nil
	case err = <-etcd.Err():
	case <-ctx.Done():
		err = ctx.Err()
	case <-time.After(startTimeout):
		err = errors.New("etcd was not ready")
	}
	etcd.Close()
	return nil, err
}

// configure returns the options of an API server that accepts connections from listener.
func configure(ctx context.Context, listener net.Listener, storage, token, etcd string, compaction time.Duration) (options.CompletedOptions, error) {
	var none options.CompletedOptions
	key, tokens := filepath.Join(storage, "accounts.key"), filepath.Join(storage, "tokens.csv")
	if err := errors.Join(writeKey(key), os.WriteFile(tokens, []byte(token+",admin,admin,system:masters\n"), 0o600)); err != nil {
		return none, err
	}
	s := options.NewServerRunOptions()
	s.SecureServing.Listener, s.SecureServing.BindPort = listener, listener.Addr().(*net.TCPAddr).Port
	flags := pflag.NewFlagSet("kube-apiserver", pflag.ContinueOnError)
	for _, set := range s.Flags().FlagSets {
		flags.AddFlagSet(set)
	}
	if err := flags.Parse([]string{
		"--etcd-servers=http://" + etcd,
		"--etcd-compaction-interval=" + compaction.String(),
		"--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none",
		"--cert-dir=" + storage,
		"--authorization-mode=RBAC",
		"--token-auth-file=" + tokens,
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + key, "--service-account-signing-key-file=" + key,
		"--service-cluster-ip-range=10.0.0.0/24",
	}); err != nil {
		return none, err
	}
	if err := s.GenericServerRunOptions.ComponentGlobalsRegistry.Set(); err != nil {
		return none, err
	}
	completed, err := s.Complete(ctx)
	if err != nil {
		return none, err
	}
	return completed, errors.Join(completed.Validate()...)
}

// writeKey writes a new key that signs service account tokens to path, unless the file exists.
func writeKey(path string) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), 0o600)
}

// ready waits until the server at address reports that it is ready.
func ready(ctx context.Context, address, token string, failed <-chan error) error {
	// The certificate is not verified, because this process is the server.
	client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	defer client.CloseIdleConnections()
	deadline := time.After(startTimeout)
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, address+"/readyz", nil)
		if err != nil {
			return err
		}
		request.Header.Set("Authorization", "Bearer "+token)
		if answer, err := client.Do(request); err == nil {
			_, _ = io.Copy(io.Discard, answer.Body) // keeps the connection, because handshakes are slow on a busy machine
			_ = answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case err := <-failed:
			return errors.Join(errors.New("the API server ended before it was ready"), err)
		case <-deadline:
			return errors.New("the API server was not ready")
		case <-time.After(50 * time.Millisecond):
		}
	}
}
