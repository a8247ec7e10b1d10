package doctor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/ledger"
)

// labelProblems returns the problems of the labels that e was committed with.
func (c *checker) labelProblems(e ledger.Entry) []problem {
	is := c.ledger.CompareLabels(c.ledger.Namer(), e.Record)
	var problems []problem
	add := func(kind Kind, keys []string, remedy Remedy, action, text string) {
		if len(keys) == 0 {
			return
		}
		slices.Sort(keys)
		problems = append(problems, c.relabel(e, nil, problem{kind: kind, remedy: remedy, action: action,
			detail: fmt.Sprintf("%s (%s)", text, strings.Join(slices.Compact(keys), ", "))}))
	}
	add(KindLabelMissing, is.Missing, RemedyRepair, "add them", "it was committed without labels that it should have")
	add(KindLabelUnknownKey, is.Unknown, RemedyRepair, "replace them", "labels by a key that is not known")
	add(KindLabelUnkeyed, is.Unkeyed, RemedyRepair, "replace them", "labels without a key")
	add(KindLabelOldKey, is.Old, RemedyRekey, "replace them", "labels by an earlier index key")
	add(KindLabelStale, is.Stale, RemedyRepair, "remove them", "labels that nothing in it accounts for")
	return problems
}

// relabel returns p with a repair. The repair rewrites e with the labels that e should have.
// absent holds the labels that e was committed with but that the service lacks.
func (c *checker) relabel(e ledger.Entry, absent []driver.Label, p problem) problem {
	p.repair = func(ctx context.Context) error {
		_, err := c.ledger.Rewrite(ctx, e, absent)
		return ledger.Lost(err)
	}
	return p
}

// missing returns the problem that the service lacks some labels of e. The parameter absent holds
// these labels. A repair would compute the labels with the current keys. If the name of e does
// not fit these keys, the problem therefore has no repair.
func (c *checker) missing(e ledger.Entry, absent []driver.Label) problem {
	p := problem{kind: KindLabelMissing, remedy: RemedyManual,
		detail: fmt.Sprintf("labels that it was committed with are gone (%s)", kindsOf(absent))}
	if c.misnamed(e) != "" {
		return p
	}
	p.remedy, p.action = RemedyRepair, "add them"
	return c.relabel(e, absent, p)
}

// absent returns the labels that e was committed with but that the service lacks. It returns
// nil if the driver cannot read labels, or if a write of e may still be in progress.
func (c *checker) absent(ctx context.Context, e ledger.Entry) ([]driver.Label, error) {
	inspector := c.ledger.Inspector
	if inspector == nil || len(e.Secret().Labels) == 0 || c.underWay(e) {
		return nil, nil // a recent write may not be visible everywhere yet
	}
	present, err := inspector.Present(ctx, string(e.Name), e.Secret().Labels)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(slices.Clone(e.Secret().Labels), func(l driver.Label) bool { return ledger.Carried(present, l) }), nil
}

// leftOver reports each label of a secret that is not a label of the record in the secret. It
// removes abandoned labels if Repair is set, and all other reported labels if Purge is set.
func (c *checker) leftOver(ctx context.Context, inspector driver.Inspector) error {
	for _, name := range slices.Sorted(maps.Keys(c.beside)) {
		extra, id, err := c.extra(ctx, inspector, name)
		if err := c.goOn(ctx, name, err); err != nil {
			return err
		}
		abandoned := slices.DeleteFunc(slices.Clone(extra), func(l driver.Label) bool { return !slices.Contains(c.abandoned[name], l) })
		recent := slices.DeleteFunc(extra, func(l driver.Label) bool { return slices.Contains(abandoned, l) })
		for _, f := range []struct {
			labels []driver.Label
			remedy Remedy
			of     string
		}{
			{abandoned, RemedyRepair, "of a writer that was interrupted"},
			{recent, RemedyPurge, "of a writer that was interrupted or is about to write"},
		} {
			if err := c.removeLabels(ctx, inspector, name, id, f.labels, f.remedy, f.of); err != nil {
				return err
			}
		}
	}
	return nil
}

// removeLabels reports labels, which the record in the named secret does not have. It removes
// these labels if the options ask for the remedy.
func (c *checker) removeLabels(ctx context.Context, inspector driver.Inspector, name, id string, labels []driver.Label, remedy Remedy, of string) error {
	if len(labels) == 0 {
		return nil
	}
	f := Finding{
		Kind: KindLabelLeftOver, Name: name, ID: id, Remedy: remedy, Action: "remove them",
		Detail: fmt.Sprintf("%d labels (%s) that no write has committed, %s", len(labels), kindsOf(labels), of),
	}
	if c.o.Wants(f.Remedy) {
		f.Err = inspector.Unlabel(ctx, name, labels)
		f.Repaired = f.Err == nil
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return c.emit(f)
}

// extra returns the labels of the named secret that are not labels of the record in the secret,
// and the ID of the record.
func (c *checker) extra(ctx context.Context, inspector driver.Inspector, name string) ([]driver.Label, string, error) {
	extra := slices.DeleteFunc(slices.Clone(c.beside[name]), func(l driver.Label) bool {
		return held(c.seen[name].labels, l)
	})
	if len(extra) == 0 {
		return nil, "", nil
	}
	// Other writers, or this check, may have changed labels since Inspect.
	extra, err := inspector.Present(ctx, name, extra)
	if err != nil || len(extra) == 0 {
		return nil, "", err
	}
	e, err := c.ledger.Newest(ctx, ledger.Name(name), ledger.Entry{})
	switch {
	case errors.Is(err, driver.ErrNotFound):
		return extra, "", nil
	case err != nil:
		return nil, "", err
	}
	labels := slices.Concat(e.Secret().Labels, e.Secret().Former)
	return slices.DeleteFunc(extra, func(l driver.Label) bool { return held(labels, l) }), e.Token.ID, nil
}

// kindsOf returns the keys of labels as a text, each key once.
func kindsOf(labels []driver.Label) string {
	keys := make([]string, 0, len(labels))
	for _, l := range labels {
		keys = append(keys, l.Key)
	}
	slices.Sort(keys)
	return strings.Join(slices.Compact(keys), ", ")
}

// lacks returns the labels that e was committed with but that Inspect did not find.
func (c *checker) lacks(e ledger.Entry) []driver.Label {
	beside, inspected := c.beside[string(e.Name)]
	if !inspected {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(e.Secret().Labels), func(l driver.Label) bool { return ledger.Carried(beside, l) })
}

// held reports whether the labels of a record include a label of a secret, the parameter beside.
func held(labels []driver.Label, beside driver.Label) bool {
	return slices.ContainsFunc(labels, func(l driver.Label) bool { return ledger.IsBeside(beside, l) })
}
