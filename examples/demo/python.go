package main

import (
	"context"
	"crypto/rand"
	_ "embed"
	"errors"
	"fmt"
	"os/exec"

	"github.com/tokenkeep/tokenkeep/agent"
	"github.com/tokenkeep/tokenkeep/initializer"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// The number of machines that pythonStep simulates, and the number of processes on each.
const (
	machines    = 2
	eachMachine = 5
)

// pythonProgram is the source of a program that gets an access token from an agent, and calls
// the CRM with the token. The program uses only Python's standard library.
//
//go:embed program.py
var pythonProgram string

// findPython returns the path of a Python interpreter of version 3.6 or later, or "" if this
// machine has none.
func findPython(ctx context.Context) string {
	for _, name := range []string{"python3", "python"} {
		cmd := exec.CommandContext(ctx, name, "-c", "import sys; sys.exit(sys.version_info < (3, 6))")
		if cmd.Run() == nil {
			return cmd.Path
		}
	}
	return ""
}

// An agentOrder is the input of a process that runs an agent.
type agentOrder struct {
	Zoho  string `json:"zoho"`  // the base URL
	Token string `json:"token"` // the token that programs must send to the agent
}

type pythonOrder struct {
	Agent  string `json:"agent"` // the URL of the agent
	Token  string `json:"token"` // the token that the program must send to the agent
	User   string `json:"user"`
	Client string `json:"client"`
	CRM    string `json:"crm"` // the URL that the program calls
}

// pythonStep runs several Python processes that find the same token expired at the same time.
// The processes run on this machine, in groups that stand for separate machines. Each group
// has its own agent.
func (d *demo) pythonStep(ctx context.Context) error {
	const processes = machines * eachMachine
	d.title(fmt.Sprintf("%d processes in Python, on %d machines with an agent each", processes, machines), "tokenkeep serve")
	if d.python == "" {
		d.say("   --  left out: there is no Python on this machine")
		return nil
	}
	if err := d.expire(ctx); err != nil {
		d.check(false, "there is a record of %s to expire: %v", lifeUser, err)
		return nil
	}
	var orders []pythonOrder
	for range machines {
		o := agentOrder{Zoho: d.zoho.url, Token: rand.Text()}
		address, stop, err := d.startAgent(ctx, o)
		defer stop()
		if err != nil {
			return err
		}
		for range eachMachine {
			orders = append(orders, pythonOrder{address, o.Token, lifeUser, lifeClient, d.zoho.url + lifeCall})
		}
	}
	answers, err := together[crmAnswer](ctx, d, rolePython, orders)
	if err != nil {
		return err
	}
	succeeded(d, answers)
	n := d.zoho.tally()
	d.check(n.refreshes == 1 && n.exchanges == 0, "%d refresh at Zoho's accounts server, for both machines", n.refreshes)
	d.check(n.calls == processes && n.tokens == 1, "%d calls of the CRM with the same new token", n.calls)
	d.say("       the program in Python has no refresh token, and no credential of the store")
	return nil
}

// startAgent starts a process that runs an agent. It returns the URL of the agent, and a
// function that ends the process. The function is not nil, even if there is an error.
func (d *demo) startAgent(ctx context.Context, o agentOrder) (url string, stop func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, processTime)
	p, err := d.startChild(ctx, roleAgent)
	if err != nil {
		return "", cancel, err
	}
	stop = func() {
		cancel()
		_ = p.cmd.Wait() // the error says only that the process was killed
	}
	if err := p.ask(o, func() {}, &url); err != nil {
		return "", cancel, p.end(err)
	}
	return url, stop, nil
}

// runAgent serves an agent until ctx is done, like "tokenkeep serve". Once the agent listens,
// runAgent calls listening with the URL of the agent.
func runAgent(ctx context.Context, s store, o agentOrder, listening func(url string) error) error {
	h, err := agent.New(agent.Config{
		Store:       s,
		Initializer: initializer.Config{Environment: initializer.Environment{AccountsURL: o.Zoho, APIURL: o.Zoho}},
		Token:       tokenstore.Secret(o.Token),
	})
	if err != nil {
		return err
	}
	l, err := agent.Listen(ctx, "127.0.0.1:0", nil)
	if err != nil {
		return err
	}
	if err := listening("http://" + l.Addr().String()); err != nil {
		return errors.Join(err, l.Close())
	}
	return agent.Serve(ctx, l, h, nil)
}
