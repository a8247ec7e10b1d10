package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/tokenkeep/tokenkeep/cli/internal/files"
	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/filestore"
	"github.com/tokenkeep/tokenkeep/tokenstore/migrate"
)

// maxFile is the maximum size of a token file in bytes.
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
		Long: `Saves the records of a file that the FileStore of a Zoho SDK has written. "-" means
standard input. At a terminal, import does not show what the user types, and Ctrl-D ends
the file. The file is checked before anything is saved. Rows that cannot be saved, and
rows that would become the same record, are reported, and nothing is imported unless
--skip-bad is given.

An existing record is updated, as by "tokenkeep save". The store derives IDs instead of
the SDK's numbers, unless --keep-ids is given.

The exit code is 0 only if every row was imported.`,
		Args: oneArg("FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			d, err := knownDialect(dialect)
			if err != nil {
				return err
			}
			data, err := a.readFile(c.Context(), args[0], maxFile, typedFile)
			if err != nil {
				return err
			}
			f, err := readTokenFile(data, d)
			if err == nil {
				err = alone(args[0])
			}
			if err != nil {
				return err
			}
			return a.importFile(c.Context(), args[0], f, o)
		},
	}
	dialectFlag(c, &dialect, "", "the SDK that wrote the file (default: detected)")
	c.Flags().BoolVar(&o.keepIDs, "keep-ids", false, "keep the SDK's numbers as IDs")
	c.Flags().BoolVar(&o.skipBad, "skip-bad", false, "import the other rows if some cannot be imported")
	return c
}

// alone returns a usage error if a second file exists beside the token file, because import does
// not read the fields in the second file.
func alone(name string) error {
	beside := name + filestore.Beside
	if name == "-" || !files.Exists(beside) {
		return nil
	}
	return usagef("%s holds fields of the records, which import does not read: 'tokenkeep migrate --from file:%s' moves them all", clean(beside), clean(name))
}

type importOptions struct{ keepIDs, skipBad bool }

// A tokenFile is a parsed token file, the source of an import.
type tokenFile struct {
	dialects []codec.Dialect
	rows     []tokenstore.Token // readable rows
	lines    []int              // the line number of each element of rows
	bad      error              // joins a rowError for each unreadable row; nil if all rows are readable
}

// readTokenFile parses a token file. Errors about individual rows are in tokenFile.bad.
func readTokenFile(data []byte, d codec.Dialect) (*tokenFile, error) {
	f, err := parseFile(data, d)
	if err != nil {
		return nil, err
	}
	file := &tokenFile{dialects: f.Dialects(), rows: []tokenstore.Token{}}
	var bad []error
	for i := range f.Len() {
		row, damage := f.Row(i)
		t, err := fromRow(row, damage)
		if err != nil {
			bad = append(bad, rowError{f.Line(i), row.UserName, err})
			continue
		}
		file.rows, file.lines = append(file.rows, t), append(file.lines, f.Line(i))
	}
	file.bad = errors.Join(bad...)
	return file, nil
}

// GetTokens implements migrate.Reader.
func (f *tokenFile) GetTokens(context.Context) ([]tokenstore.Token, error) { return f.rows, f.bad }

// label implements migrate.Options.Label.
func (f *tokenFile) label(i int) string { return fmt.Sprintf("line %d", f.lines[i]) }

// A rowError is the reason why a row was not imported.
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

// problemsOf returns an error for each row that cannot be imported, ordered by line.
func (f *tokenFile) problemsOf(r *migrate.Report) []rowError {
	var rows []rowError
	for _, p := range r.Problems {
		row := rowError{user: p.User, err: p.Err}
		if !errors.As(p.Err, &row) {
			row.line = f.lines[p.Record]
		}
		if classOf(row.err) == classOther {
			row.err = fmt.Errorf("%w: %w", errInput, row.err)
		}
		rows = append(rows, row)
	}
	slices.SortFunc(rows, func(a, b rowError) int { return cmp.Compare(a.line, b.line) })
	return rows
}

func (a *app) importFile(ctx context.Context, name string, f *tokenFile, o importOptions) error {
	var s *store
	bar := a.progress("importing", len(f.rows))
	m, err := migrate.Plan(ctx, f, nil, &migrate.Options{
		OnConflict: migrate.Merge,
		KeepIDs:    o.keepIDs,
		SkipBad:    true, // without --skip-bad, importFile returns before the run if a row is bad
		Label:      f.label,
		Writable:   func(context.Context) (tokenstore.TokenStore, error) { return s.TokenStore, nil },
		Progress:   func(p migrate.Progress) { bar.set(p.Done) },
	})
	if err != nil {
		return err
	}
	r := &importReport{File: name, Dialects: f.dialects, Rows: m.Report().Records, Failed: []importFailure{}}
	for _, row := range f.problemsOf(m.Report()) {
		r.fail(row)
	}
	if len(r.errs) > 0 && !o.skipBad {
		return fmt.Errorf("%w: nothing was imported, because of %d of %d rows:\n%w", errInput, len(r.errs), r.Rows, problems(r.errs))
	}
	return a.withStore(ctx, func(opened *store) error {
		s = opened
		did, err := m.Run(ctx)
		bar.done()
		r.Imported, r.New, r.Updated, r.Unchanged = did.Verified, did.Create, did.Update, did.Unchanged
		for _, failure := range did.Failed {
			r.fail(rowError{f.lines[failure.Record], failure.User, failure.Err})
		}
		if errors.Is(ctx.Err(), context.Canceled) { // r.err ignores err if a row failed
			r.errs = append(r.errs, context.Cause(ctx))
		}
		if a.json {
			return errors.Join(r.err(err), a.printJSON(r))
		}
		a.printf("%s: %d rows, as %s writes them\n", fileName(name), r.Rows, dialectNames(r.Dialects, " or "))
		a.printf("imported %d of %d: %s\n", r.Imported, r.Rows, r.counts())
		return r.err(err)
	})
}

// An importReport is the outcome of an import.
type importReport struct {
	File      string          `json:"file"`
	Dialects  []codec.Dialect `json:"dialects"` // the dialects in which the file is valid
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

// err returns the error that the command returns, or nil if all rows were imported. The parameter
// ended is the error that stopped the import, or nil.
func (r *importReport) err(ended error) error {
	switch {
	case len(r.errs) == 0:
		return ended
	case r.Imported == 0:
		return fmt.Errorf("nothing was imported:\n%w", problems(r.errs))
	}
	untried := ""
	if n := r.Rows - r.Imported - len(r.Failed); n > 0 {
		untried = fmt.Sprintf(", %d were not tried", n)
	}
	return fmt.Errorf("%w: %d of %d rows were imported%s:\n%w", errPartial, r.Imported, r.Rows, untried, problems(r.errs))
}

func fileName(name string) string {
	if name == "-" {
		return "standard input"
	}
	return clean(name)
}
