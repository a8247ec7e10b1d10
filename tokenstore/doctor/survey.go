package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/ledger"
)

// inspect reports the faults that only the driver can see, and makes the repairs that the
// options ask for. It records the labels that the driver finds beside each secret.
func (c *checker) inspect(ctx context.Context, inspector driver.Inspector) error {
	for i, err := range inspector.Inspect(ctx) {
		err = ledger.OfListed(ctx, i.Name, err)
		switch u := ledger.OnlyUnreadable(err); {
		case u != nil:
			err = c.cannotRead(u)
		case err == nil && i.Name != ledger.ProbeName: // the next Compare or SameAs removes the probe
			if ledger.Measures(i.Name) {
				i.Labels, i.Abandoned = nil, nil // the labels of a probe are not labels of a record
			}
			err = c.inspected(ctx, i)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *checker) inspected(ctx context.Context, i driver.Inspection) error {
	c.beside[i.Name], c.abandoned[i.Name] = i.Labels, i.Abandoned
	for _, fault := range i.Faults {
		f := Finding{Kind: Kind(fault.Kind), Name: i.Name, Detail: fault.Detail, Remedy: remedyOf(fault), Action: fault.Action}
		if c.o.Wants(f.Remedy) {
			f.Err = fault.Mend(ctx)
			f.Repaired = f.Err == nil
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
		if err := c.emit(f); err != nil {
			return err
		}
		if fault.Kind == driver.FaultEmpty {
			c.unread[i.Name] = driver.ErrCorrupt // the secret cannot be read, as the finding says
		}
	}
	return nil
}

func remedyOf(f driver.Fault) Remedy {
	switch {
	case f.Mend == nil:
		return RemedyManual
	case f.Exclusive:
		return RemedyPurge
	}
	return RemedyRepair
}

// survey lists and reads all secrets once, and records which of them must be read again.
func (c *checker) survey(ctx context.Context) error {
	var probes []driver.Named
	for e, err := range c.ledger.AllEntries(ctx, func(named driver.Named, _ error) { probes = append(probes, named) }) {
		switch u := ledger.OnlyUnreadable(err); {
		case u != nil:
			if err := c.cannotRead(u); err != nil {
				return err
			}
		case err != nil:
			return err
		default:
			c.note(e)
		}
		c.progress()
	}
	for _, named := range probes {
		if err := c.probe(ctx, named.Name); err != nil {
			return err
		}
	}
	return nil
}

// probe reports the named probe if a measurement left it behind, and removes it if Repair is
// set.
func (c *checker) probe(ctx context.Context, name string) error {
	now, err := c.ledger.Driver.Fresh(ctx, name, driver.Secret{})
	state := parseProbe(now.Data)
	switch {
	case errors.Is(err, driver.ErrNotFound), err == nil && c.o.Grace > 0 && !state.leftBehind(c.ledger.Now()):
		return nil
	case err != nil:
		return c.goOn(ctx, name, err)
	}
	f := Finding{
		Kind: KindProbeLeftBehind, Name: name, Remedy: RemedyRepair, Action: "delete it",
		Detail: "a measurement was killed before it could remove this secret",
	}
	if c.o.Wants(f.Remedy) {
		now.Labels = state.Labels
		f.Err = c.ledger.Driver.Delete(ctx, name, now)
		f.Repaired = f.Err == nil
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return c.emit(f)
}

// cannotRead reports u, the error about an unreadable secret, at most once for each secret.
func (c *checker) cannotRead(u *ledger.UnreadableError) error {
	// The labels that the record needs are unknown, so no label of the secret counts as left
	// over.
	delete(c.beside, u.Name)
	if c.unread[u.Name] != nil {
		return nil
	}
	c.unread[u.Name] = u
	return c.emit(Finding{Kind: KindUnreadable, Name: u.Name, Remedy: RemedyManual, Err: u, Detail: whyUnreadable(u)})
}

func whyUnreadable(err error) string {
	var u *ledger.UnreadableError
	if errors.As(err, &u) {
		err = u.Err
	}
	if errors.Is(err, driver.ErrCorrupt) {
		return "it is there and is not a record that the codec and keys of this store can read"
	}
	return fmt.Sprintf("it is there and cannot be read: %v", err)
}

// passes reports whether the check can continue with other secrets after err, an error from a
// read of the named secret. It returns true if err concerns only this secret, or if the check
// has already found the secret unreadable.
func (c *checker) passes(ctx context.Context, name string, err error) bool {
	return err != nil && ctx.Err() == nil && (ledger.OfOne(err) || c.unread[name] != nil)
}

// goOn reports a finding if the check can continue after err, an error from a read of the named
// secret. Otherwise, goOn returns err.
func (c *checker) goOn(ctx context.Context, name string, err error) error {
	if c.passes(ctx, name, err) {
		return c.cannotRead(ledger.Unreadable(ledger.Name(name), err))
	}
	return err
}

// note adds a sighting of e to c.seen, and counts the name and labels of e as evidence about the
// keys.
func (c *checker) note(e ledger.Entry) {
	at := sighting{born: e.Born, target: e.Target(), alias: e.Alias != nil, labels: slices.Concat(e.Secret().Labels, e.Secret().Former)}
	if at.target == nil {
		at.keys = c.identities(e.Token, e.ID)
		at.terms = c.ledger.Namer().Terms(e.Record)
		switch {
		case e.Name == ledger.ProbeName: // the probe says nothing about the keys
		case c.misnamed(e) == "":
			c.names.fits++
			l := c.ledger.CompareLabels(c.ledger.Namer(), e.Record)
			c.labels.fits += l.Fitting
			c.labels.misfits += len(l.Unknown) + len(l.Unkeyed)
		default:
			c.names.misfits++
			at.misnamed = true
		}
		at.suspect = len(c.local(e)) > 0 || len(e.Joining) > 0 || len(c.lacks(e)) > 0
	}
	c.seen[string(e.Name)] = at
}
