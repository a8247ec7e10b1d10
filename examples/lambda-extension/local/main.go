// Command local runs several instances of this example's function on a stand-in for AWS
// Lambda. Each instance has its own extension. A fake of Zoho's accounts server issues the
// tokens, and a fake of Secrets Manager keeps the tokens. The command needs Go and Python, but
// no network.
//
//	go run ./examples/lambda-extension/local [-instances 10]
//
// The classes in sdk/python/test/standin.py replace Zoho's official SDK. The function, the
// TokenStore and the extension are those that a user deploys.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/tokenkeep/tokenkeep/awssm"
	"github.com/tokenkeep/tokenkeep/internal/fakeaws"
	"github.com/tokenkeep/tokenkeep/internal/zohoaccounts"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

const (
	prefix = "oauth/crm"
	user   = "ann@example.com"
	client = "1000.CLIENT"
)

func main() {
	log.SetFlags(0)
	instances := flag.Int("instances", 10, "number of instances that start at the same time")
	root := flag.String("root", ".", "directory of the repository")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Stdout, *root, *instances)
	stop()
	if err != nil {
		log.Fatal(err)
	}
}

// run starts the services and the instances, invokes the function twice on each instance, and
// prints the results.
func run(ctx context.Context, out io.Writer, root string, instances int) error {
	if instances < 1 {
		return errors.New("-instances must be at least 1")
	}
	dir, err := os.MkdirTemp("", "tokenkeep-lambda-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	w := &world{dir: dir, out: out}
	if w.root, err = filepath.Abs(root); err != nil {
		return err
	}
	if err := w.build(ctx); err != nil {
		return err
	}
	stop, err := w.services(ctx)
	if err != nil {
		return err
	}
	defer stop()
	w.say("Secrets Manager (a fake)  %s, with the record of %s: a refresh token, no access token\n", w.secrets.URL, user)
	w.say("Zoho (a fake)             %s, which takes half a second for a token\n\n", w.accounts)
	all, err := w.launch(ctx, instances)
	defer func() {
		for _, i := range all {
			i.kill()
		}
	}()
	if err != nil {
		return err
	}
	for _, round := range []string{"first", "second"} {
		if err := w.invoke(ctx, all, round); err != nil {
			return err
		}
	}
	return w.shutdown(ctx, all)
}

// A world holds the services and directories that all instances share.
type world struct {
	out       io.Writer
	root, dir string
	secrets   *fakeaws.Server
	zoho      *zohoaccounts.Server
	accounts  string // the URL of zoho
}

func (w *world) say(format string, args ...any) { _, _ = fmt.Fprintf(w.out, format, args...) }

// build builds the extension. Lambda requires an extension to register under the name of its file,
// which is tokenkeep.
func (w *world) build(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", w.extension(), "./examples/lambda-extension")
	cmd.Dir = w.root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s(-root names the directory of the repository)", err, out)
	}
	return nil
}

func (w *world) extension() string { return filepath.Join(w.dir, "extensions", "tokenkeep") }

// services starts the fakes, and stores a record without an access token. It returns a
// function that stops the fakes.
func (w *world) services(ctx context.Context) (stop func(), err error) {
	w.zoho = zohoaccounts.New(nil)
	w.zoho.AddClient(zohoaccounts.Client{ID: client, Secret: "secret"})
	refresh, _ := w.zoho.Tokens(zohoaccounts.Consent{ClientID: client, Email: user, ZGID: "6001"})
	w.zoho.Inject(func(r zohoaccounts.Request) *zohoaccounts.Fault {
		if r.Kind == zohoaccounts.API {
			return nil
		}
		return &zohoaccounts.Fault{Delay: 500 * time.Millisecond}
	})
	accounts, stopZoho, err := w.zoho.Listen()
	if err != nil {
		return nil, err
	}
	w.accounts = accounts
	w.secrets = fakeaws.New(nil)
	stop = func() { w.secrets.Close(); stopZoho() }
	store, err := awssm.New(secretsmanager.New(secretsmanager.Options{
		Region: "eu-central-1", BaseEndpoint: aws.String(w.secrets.URL), Credentials: credentials.NewStaticCredentialsProvider("key", "secret", ""),
	}), prefix, nil)
	if err == nil {
		_, err = store.SaveToken(ctx, tokenstore.Token{UserName: user, ClientID: client, ClientSecret: "secret", RefreshToken: tokenstore.Secret(refresh)})
	}
	if err != nil {
		stop()
		return nil, err
	}
	return stop, nil
}

// launch starts n instances concurrently, and waits until each instance has initialized or
// failed. It returns all instances, even if some instances have failed.
func (w *world) launch(ctx context.Context, n int) ([]*instance, error) {
	all, errs := make([]*instance, n), make([]error, n)
	var wg sync.WaitGroup
	for n := range all {
		all[n] = w.instance(n)
		wg.Go(func() { errs[n] = all[n].start(ctx) })
	}
	wg.Wait()
	return all, errors.Join(errs...)
}

// invoke invokes the function on all instances concurrently, and prints the results.
func (w *world) invoke(ctx context.Context, all []*instance, round string) error {
	errs, took := make([]error, len(all)), make([]time.Duration, len(all))
	calls, asked := len(w.secrets.Requests()), w.zoho.Count(zohoaccounts.Refresh)
	answers := map[string]int{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for n, i := range all {
		wg.Go(func() {
			begun := time.Now()
			answer, err := i.invoke(ctx)
			took[n], errs[n] = time.Since(begun), err
			mu.Lock()
			defer mu.Unlock()
			answers[string(answer)]++
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	var slowest time.Duration
	for _, t := range took {
		slowest = max(slowest, t)
	}
	for answer, n := range answers {
		w.say("%-24s  %d of %d instances answer %s\n", round+" invocation", n, len(all), strings.TrimSpace(answer))
	}
	w.say("%-24s  the slowest after %v; requests for a token: %d; calls of Secrets Manager: %d\n", "",
		slowest.Round(time.Millisecond), w.zoho.Count(zohoaccounts.Refresh)-asked, len(w.secrets.Requests())-calls)
	return nil
}

// shutdown ends all instances as Lambda does.
func (w *world) shutdown(ctx context.Context, all []*instance) error {
	errs := make([]error, len(all))
	var wg sync.WaitGroup
	for n, i := range all {
		wg.Go(func() { errs[n] = i.shutdown(ctx) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	w.say("%-24s  %d of %d extensions exited in time\n", "shutdown", len(all), len(all))
	return nil
}
