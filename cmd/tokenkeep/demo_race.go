package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/spf13/cobra"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

const (
	racers   = 8
	raceUser = "nina@example.com:60999999"
	raceTime = time.Minute // more than it can take
)

// raceStep has processes save the same new user at the same moment.
func (d *demo) raceStep() error {
	d.title(3, fmt.Sprintf("Save one user from %d processes at the same moment:  tokenkeep save", racers))
	d.say("   Each of them knows something else about a new user, and saves it:")
	d.say("       1 client_secret, 2 grant_token, 3 redirect_url, 4 api_domain, 5 to 8 an access_token each")
	brought := contributions()
	d.made = append(d.made, brought[0])
	results, err := d.race(brought)
	if err != nil {
		return err
	}
	failed, ids := 0, map[string]bool{}
	for _, r := range results {
		if r.err != nil {
			failed++
			d.say("       %v", r.err)
			continue
		}
		ids[r.id] = true
	}
	d.check(failed == 0, "%d of %d saves succeeded", racers-failed, racers)
	tokens, err := d.store.GetTokens(d.ctx)
	if err != nil {
		return err
	}
	tokens = slices.DeleteFunc(tokens, func(t tokenstore.Token) bool { return t.UserName != raceUser })
	d.check(len(tokens) == 1 && len(ids) == 1, "they made %d record, and all of them know it by the same ID", len(tokens))
	if len(tokens) == 0 {
		return nil
	}
	d.check(complete(tokens[0], brought), "nothing that one of them brought is lost")
	if d.json {
		return nil
	}
	t := d.listing(tokens)
	t.indent = "       "
	d.say("%s       client_secret %v, redirect_url %s, api_domain %s", t, tokens[0].ClientSecret, tokens[0].RedirectURL, tokens[0].APIDomain)
	return nil
}

// contributions returns what each process saves: what all of them know, and one
// thing more.
func contributions() []tokenstore.Token {
	secret := func() tokenstore.Secret { return tokenstore.Secret("1000." + rand.Text()) }
	all := tokenstore.Token{UserName: raceUser, ClientID: "1000.DEMOCLIENT", RefreshToken: secret()}
	tokens := slices.Repeat([]tokenstore.Token{all}, racers)
	tokens[0].ClientSecret = secret()
	tokens[1].GrantToken = secret()
	tokens[2].RedirectURL = "https://example.com/callback"
	tokens[3].APIDomain = "https://www.zohoapis.com"
	for i := range tokens[4:] {
		tokens[4+i].AccessToken = secret()
		tokens[4+i].ExpiresAt = time.Now().Add(time.Hour + time.Duration(i)*time.Second).UTC().Truncate(time.Millisecond)
	}
	return tokens
}

// complete reports whether a record has what every process brought, and an access
// token together with its own expiry.
func complete(got tokenstore.Token, brought []tokenstore.Token) bool {
	for _, last := range brought[4:] {
		want := tokenstore.Merge(brought[0], brought[1])
		want = tokenstore.Merge(tokenstore.Merge(want, brought[2]), brought[3])
		want = tokenstore.Merge(want, last)
		want.ID = got.ID
		if sameToken(got, want) {
			return true
		}
	}
	return false
}

// A raceResult is what one process said.
type raceResult struct {
	id  string
	err error
}

// race starts a process for each token, waits until all of them are ready, and
// then gives each its token, through a pipe.
func (d *demo) race(tokens []tokenstore.Token) ([]raceResult, error) {
	ctx, cancel := context.WithTimeout(d.ctx, raceTime)
	defer cancel()
	results := make([]raceResult, len(tokens))
	var ready, finished sync.WaitGroup
	ready.Add(len(tokens))
	start := make(chan struct{})
	for i, t := range tokens {
		finished.Go(func() {
			isReady := sync.OnceFunc(ready.Done)
			defer isReady()
			results[i].id, results[i].err = d.racer(ctx, t, func() {
				isReady()
				<-start
			})
		})
	}
	ready.Wait()
	close(start)
	finished.Wait()
	return results, ctx.Err()
}

// racer runs one process. It calls wait when the process is ready for the token.
func (d *demo) racer(ctx context.Context, t tokenstore.Token, wait func()) (id string, err error) {
	cmd, err := d.command(ctx, "demo-save")
	if err != nil {
		return "", err
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return "", err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return "", err
	}
	if err := cmd.Start(); err != nil {
		return "", err
	}
	answer := bufio.NewReader(stdout)
	if line, _ := answer.ReadString('\n'); line == readyLine {
		wait()
		err = json.NewEncoder(stdin).Encode(toJSON(t, true)) //nolint:gosec // A pipe to a process of ours, which saves it.
	}
	err = errors.Join(err, stdin.Close())
	text, readErr := io.ReadAll(answer)
	if waitErr := cmd.Wait(); waitErr != nil {
		return "", fmt.Errorf("%w: %s", waitErr, strings.TrimSpace(stderr.String()))
	}
	var saved recordJSON
	if err := errors.Join(err, readErr, json.Unmarshal(text, &saved)); err != nil {
		return "", err
	}
	return saved.ID, nil
}

// command returns the command that runs this program once more on the same store.
// Its arguments say which store that is, and nothing about records.
func (a *app) command(ctx context.Context, name string) (*exec.Cmd, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, program, name, "--json", "--store", a.storeURL) //nolint:gosec // It is this program.
	cmd.Env = a.environment()
	return cmd, nil
}

// environment returns the environment of another process: this one's, as far as
// a.env knows it, and what a.env has besides for stores.
func (a *app) environment() []string {
	names := []string{api.EnvVaultAddress, api.EnvVaultToken, api.EnvVaultNamespace, envKeys}
	for _, entry := range os.Environ() {
		if name, _, _ := strings.Cut(entry, "="); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	var entries []string
	for _, name := range names {
		if value := a.env(name); value != "" {
			entries = append(entries, name+"="+value)
		}
	}
	return entries
}

// readyLine is what a process of the demo says when it is ready for its token.
const readyLine = "ready\n"

// demoSaveCommand is what the processes of the demo run: save, after they have
// said that they are ready.
func (a *app) demoSaveCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "demo-save",
		Short:  "Save a record, as a process of the demo",
		Hidden: true,
		Args:   noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.withStore(c.Context(), func(s store) error {
				a.printf(readyLine)
				if err := a.out.Flush(); err != nil {
					return err
				}
				t, err := a.readRecord(c.Context(), "-")
				if err != nil {
					return err
				}
				return a.save(c.Context(), s, t, false)
			})
		},
	}
}
