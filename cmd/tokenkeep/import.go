package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// maxFile is how long a token file may be.
const maxFile = 256 << 20

func (a *app) importCommand() *cobra.Command {
	var (
		dialect string
		o       importOptions
	)
	c := &cobra.Command{
		Use:     "import FILE",
		GroupID: groupFiles,
		Short:   "Save the records of a token file",
		Long: `Saves the records of a file that the FileStore of a Zoho SDK has written; "-" is
standard input. The file is checked before anything is saved: rows that cannot be
saved, and rows that would become one record, are named, and nothing is imported
unless --skip-bad is given.

A record that is there already is updated, as by "tokenkeep save". The SDK's
numbers are dropped, and the store makes up IDs, unless --keep-ids is given.

The exit code is 0 only if every row was imported.`,
		Args: oneArg("FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			d, err := knownDialect(dialect)
			if err != nil {
				return err
			}
			data, err := a.readFile(c.Context(), args[0], maxFile)
			if err != nil {
				return err
			}
			p, err := planImport(data, d, o)
			if err != nil {
				return err
			}
			return a.withStore(c.Context(), func(s store) error { return a.importPlan(c.Context(), s, args[0], p) })
		},
	}
	dialectFlag(c, &dialect, "", "the SDK that wrote the file (default: found out)")
	c.Flags().BoolVar(&o.keepIDs, "keep-ids", false, "keep the SDK's numbers as IDs")
	c.Flags().BoolVar(&o.skipBad, "skip-bad", false, "import the other rows if some cannot be")
	return c
}

type importOptions struct{ keepIDs, skipBad bool }

// An importPlan is what an import is going to save.
type importPlan struct {
	dialects []codec.Dialect
	rows     []importRow // those that can be saved
	bad      []rowError  // those that cannot
}

// An importRow is a row of the file.
type importRow struct {
	line  int
	token tokenstore.Token
}

// A rowError says why a row was not imported.
type rowError struct {
	line int
	user string
	err  error
}

func (e rowError) Error() string {
	if e.user == "" {
		return fmt.Sprintf("line %d: %v", e.line, e.err)
	}
	return fmt.Sprintf("line %d, user %s: %v", e.line, clean(e.user), e.err)
}

func (e rowError) Unwrap() error { return e.err }

// planImport reads a token file and checks it. Nothing is saved yet.
func planImport(data []byte, d codec.Dialect, o importOptions) (importPlan, error) {
	f, err := parseFile(data, d)
	if err != nil {
		return importPlan{}, err
	}
	p := importPlan{dialects: f.Dialects()}
	seen := seen{index: newIndex()}
	for i := range f.Len() {
		line := f.Line(i)
		t, err := fromRow(f.Row(i))
		if !o.keepIDs {
			t.ID = ""
		}
		if err == nil {
			err = seen.add(line, t)
		}
		if err != nil {
			of, _ := f.Row(i)
			p.bad = append(p.bad, rowError{line, of.UserName, err})
			continue
		}
		p.rows = append(p.rows, importRow{line, t})
	}
	if len(p.bad) > 0 && !o.skipBad {
		var errs []error
		for _, e := range p.bad {
			errs = append(errs, e)
		}
		return importPlan{}, fmt.Errorf("%w: nothing was imported, because of %d of %d rows:\n%w",
			errInput, len(p.bad), f.Len(), problems(errs))
	}
	return p, nil
}

// seen are the rows of a file up to one, by what a record is known by.
type seen struct {
	*index
	lines []int // of the records of the index
}

// add adds a row, unless it would be saved to a record that a row before has
// made.
func (s *seen) add(line int, t tokenstore.Token) error {
	plan, err := s.plan(t)
	switch {
	case errors.Is(err, tokenstore.ErrNotFound):
		return fmt.Errorf("%w: it has neither an access nor a refresh nor a grant token", errInput)
	case errors.Is(err, tokenstore.ErrInvalidToken), errors.Is(err, tokenstore.ErrTooLarge):
		return err
	case err != nil:
		var lines []string
		for _, i := range s.near(t) {
			lines = append(lines, strconv.Itoa(s.lines[i]))
		}
		return fmt.Errorf("%w: it does not go together with line %s", errInput, strings.Join(lines, ", "))
	case plan.Record >= 0:
		return fmt.Errorf("%w: it is the same record as line %d", errInput, s.lines[plan.Record])
	}
	s.index.add(t)
	s.lines = append(s.lines, line)
	return nil
}

// An importReport is what became of an import.
type importReport struct {
	File      string          `json:"file"`
	Dialects  []codec.Dialect `json:"dialects"` // the one it is in, or those that it may be in
	Rows      int             `json:"rows"`
	Imported  int             `json:"imported"`
	New       int             `json:"new"`
	Updated   int             `json:"updated"`
	Unchanged int             `json:"unchanged"`
	Failed    []importFailure `json:"failed"`
	errs      []error
}

type importFailure struct {
	Line  int    `json:"line"`
	Error string `json:"error"`
	Class string `json:"class"`
}

func (r *importReport) fail(e rowError) {
	r.errs = append(r.errs, e)
	r.Failed = append(r.Failed, importFailure{e.line, e.err.Error(), classOf(e.err).name})
}

// importPlan saves the rows of a plan, and reports.
func (a *app) importPlan(ctx context.Context, s store, name string, p importPlan) error {
	r := a.saveRows(ctx, s, name, p)
	if a.json {
		return errors.Join(r.err(), a.printJSON(r))
	}
	a.printf("%s: %d rows, as %s writes them\n", fileName(name), r.Rows, dialectNames(r.Dialects, " or "))
	a.printf("imported %d of %d: %s\n", r.Imported, r.Rows, r.counts())
	return r.err()
}

// saveRows saves the rows of a plan. It stops at an error that the next row would
// meet too.
func (a *app) saveRows(ctx context.Context, s store, name string, p importPlan) *importReport {
	r := &importReport{File: name, Dialects: p.dialects, Rows: len(p.rows) + len(p.bad), Failed: []importFailure{}}
	for _, e := range p.bad {
		r.fail(e)
	}
	bar := a.progress("importing", len(p.rows))
	defer bar.done()
	if b, ok := s.(batcher); ok && r.saveAll(ctx, s, b, p.rows, bar) == nil {
		return r
	}
	// A batch has said of none of its rows why it cannot be saved: one by one they
	// do. Those that are there by now are found to be.
	for _, row := range p.rows[r.Imported:] {
		err := r.save(ctx, s, row.token)
		if err != nil {
			r.fail(rowError{row.line, row.token.UserName, err})
		}
		if hopeless(err) {
			break
		}
		bar.step()
	}
	return r
}

// saveAll saves rows many at a time. After an error none of those that were not
// counted is saved.
func (r *importReport) saveAll(ctx context.Context, s store, b batcher, rows []importRow, bar *bar) error {
	tokens, _, err := readable(s.GetTokens(ctx))
	if err != nil {
		return err
	}
	before := newIndex(tokens...)
	for chunk := range slices.Chunk(rows, migrateChunk) {
		tokens := make([]tokenstore.Token, len(chunk))
		plans := make([]tokenstore.Plan, len(chunk))
		for i, row := range chunk {
			tokens[i] = row.token
			if plans[i], err = before.plan(row.token); err != nil {
				return err
			}
		}
		if _, err := b.SaveAll(ctx, tokens); err != nil {
			return err
		}
		for _, plan := range plans {
			r.count(plan.Record >= 0, plan.Changed)
		}
		bar.add(len(chunk))
	}
	return nil
}

// hopeless reports whether an error is the store's, not the row's.
func hopeless(err error) bool {
	for _, e := range []error{context.Canceled, context.DeadlineExceeded, tokenstore.ErrDenied, tokenstore.ErrUnavailable} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// save saves one record and counts it.
func (r *importReport) save(ctx context.Context, s store, t tokenstore.Token) error {
	before, notFound := s.FindToken(ctx, identity(t))
	if hopeless(notFound) {
		return notFound
	}
	saved, err := s.SaveToken(ctx, t)
	if err != nil {
		return err
	}
	r.count(notFound == nil, !sameToken(before, saved))
	return nil
}

// count counts a row that is saved.
func (r *importReport) count(found, changed bool) {
	r.Imported++
	switch {
	case !found:
		r.New++
	case changed:
		r.Updated++
	default:
		r.Unchanged++
	}
}

// identity returns what t's record is found by.
func identity(t tokenstore.Token) tokenstore.Token {
	switch tokenstore.KeyOf(t) {
	case tokenstore.KeyID:
		return tokenstore.Token{ID: t.ID}
	case tokenstore.KeyUser:
		return tokenstore.Token{UserName: t.UserName, ClientID: t.ClientID}
	case tokenstore.KeyAccess:
		return tokenstore.Token{AccessToken: t.AccessToken}
	case tokenstore.KeyGrant, tokenstore.KeyNone: // these have no more than that
	}
	return tokenstore.Token{ClientID: t.ClientID, GrantToken: t.GrantToken, RefreshToken: t.RefreshToken}
}

// counts returns what the imported records were.
func (r *importReport) counts() string {
	text := fmt.Sprintf("%d new", r.New)
	if r.Updated > 0 {
		text += fmt.Sprintf(", %d updated", r.Updated)
	}
	if r.Unchanged > 0 {
		text += fmt.Sprintf(", %d there already", r.Unchanged)
	}
	return text
}

// err returns the error of an import, if a row is missing.
func (r *importReport) err() error {
	switch {
	case len(r.errs) == 0:
		return nil
	case r.Imported == 0:
		return fmt.Errorf("nothing was imported:\n%w", problems(r.errs))
	}
	untried := ""
	if n := r.Rows - r.Imported - len(r.errs); n > 0 {
		untried = fmt.Sprintf(", %d were not tried", n)
	}
	return fmt.Errorf("%w: %d of %d rows were imported%s:\n%w", errPartial, r.Imported, r.Rows, untried, problems(r.errs))
}

// fileName returns the name of a file as it can be shown.
func fileName(name string) string {
	if name == "-" {
		return "standard input"
	}
	return clean(name)
}
