package main

import (
	"context"
	"errors"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/memstore"
)

// brokenServices maps the description of a bug to a function that adds the bug to a driver. The
// checks must find each bug. Otherwise, the success of the checks on other services would prove
// nothing.
var brokenServices = map[string]func(d *memstore.Driver) driver.Secrets{
	"ignores the base of an update": func(d *memstore.Driver) driver.Secrets { return blindUpdate{d} },
	"answers reads from a cache":    func(d *memstore.Driver) driver.Secrets { return &cached{Driver: d, known: map[string]driver.Secret{}} },
	"brings back what was deleted":  func(d *memstore.Driver) driver.Secrets { return reviving{d} },
	"reports a lost write as done":  func(d *memstore.Driver) driver.Secrets { return careless{d} },
}

// startBroken returns a bed whose service is in memory, and has the bug that mistake describes.
func startBroken(mistake string) *bed {
	memory := memstore.NewDriver()
	return &bed{
		name:    mistake,
		advance: func(time.Duration) {},
		driver:  func() (driver.Secrets, error) { return brokenServices[mistake](memory.Reopen()), nil },
		inject:  func(strike, <-chan struct{}) {},
		close:   func() {},
	}
}

// gap is the delay that some broken services add before a write. During the delay, other
// clients can change the secret.
const gap = 2 * time.Millisecond

type blindUpdate struct{ *memstore.Driver }

func (b blindUpdate) Update(ctx context.Context, name string, base driver.Secret, p driver.Payload) (driver.Version, error) {
	<-time.After(gap)
	now, err := b.Driver.Get(ctx, name)
	if err != nil {
		return "", err
	}
	return b.Driver.Update(ctx, name, now, p)
}

type cached struct {
	*memstore.Driver
	known map[string]driver.Secret
	turn  int
}

func (c *cached) Get(ctx context.Context, name string) (driver.Secret, error) {
	if s, ok := c.known[name]; ok && c.turn%4 != 0 {
		c.turn++
		return s, nil
	}
	c.turn++
	s, err := c.Driver.Get(ctx, name)
	if err == nil {
		c.known[name] = s
	}
	return s, err
}

type reviving struct{ *memstore.Driver }

func (r reviving) Delete(ctx context.Context, name string, base driver.Secret) error {
	was, err := r.Get(ctx, name)
	if err != nil {
		return r.Driver.Delete(ctx, name, base)
	}
	if err := r.Driver.Delete(ctx, name, base); err != nil {
		return err
	}
	// Simulate a replica that missed the deletion and restores the secret, unless another
	// process has created the secret in the meantime.
	if _, err = r.Create(ctx, name, was.Payload); errors.Is(err, driver.ErrExists) {
		return nil
	}
	return err
}

type careless struct{ *memstore.Driver }

func (c careless) Update(ctx context.Context, name string, base driver.Secret, p driver.Payload) (driver.Version, error) {
	<-time.After(gap)
	v, err := c.Driver.Update(ctx, name, base, p)
	if err != nil {
		return base.Version, nil
	}
	return v, nil
}

// findMistakes checks at most the given number of histories of each broken service. findMistakes
// returns a map from the description of a bug to the number of the first history that fails the
// check. Numbers begin at 1. The number is 0 if no history reveals the bug.
func findMistakes(ctx context.Context, histories int) (map[string]int, error) {
	found := map[string]int{}
	for mistake := range brokenServices {
		found[mistake] = 0
		for i := range histories {
			if _, err := explained(ctx, startBroken(mistake), plain, uint64(i)); ctx.Err() != nil {
				return nil, ctx.Err()
			} else if err != nil {
				found[mistake] = i + 1
				break
			}
		}
	}
	return found, nil
}
