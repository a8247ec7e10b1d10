package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/tokenkeep/tokenkeep/cli/internal/files"
	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/codec/tokenfile"
	"github.com/tokenkeep/tokenkeep/internal/sdkid"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/migrate"
)

func (a *app) exportCommand() *cobra.Command {
	var (
		dialect, drop          string
		keepIDs, force, reveal bool
	)
	c := &cobra.Command{
		Use:     "export FILE",
		GroupID: groupFiles,
		Short:   "Write the records to a token file",
		Long: `Writes all records to a file that the FileStore of a Zoho SDK reads. The file contains
the tokens in plain text, and only its owner can read it. If the SDK could not read a
value back (such as a comma, if the SDK has no quoting), nothing is written. Unreadable
records are reported, and the others are exported; the exit code is then that of
"partial".

The SDKs number their records. Records are numbered from 1 unless --keep-ids is given.
Then records whose ID is a number of the SDK keep it, and the others get the numbers
after the highest one. Of two records with the same ID, one keeps it.

A token file has no column for issuer, resource, scope, token_type, id_token and extra. If
a record has one of them, nothing is written unless --drop names it. An issuer, a resource,
and a token_type other than Bearer and Zoho-oauthtoken cannot be dropped, because the SDK
would send the token to the wrong server or with the wrong type. 'tokenkeep migrate --to
file:FILE' keeps all of them, in a second file that the SDKs do not read.

FILE can be "-" for standard output. That requires --reveal, because it shows secrets.`,
		Args: oneArg("FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			d, err := knownDialect(dialect)
			if err != nil {
				return err
			}
			dropped, err := droppable(drop)
			if err != nil {
				return err
			}
			if err := a.exportTo(args[0], force, reveal); err != nil {
				return err
			}
			return a.reading().withStore(c.Context(), func(s *store) error {
				return a.export(c.Context(), dropping{s, dropped}, args[0], d, keepIDs, force)
			})
		},
	}
	dialectFlag(c, &dialect, string(codec.Python), "the SDK that will read the file")
	c.Flags().StringVar(&drop, "drop", "", "`members` that are not exported: "+strings.Join(canBeDropped, ","))
	c.Flags().BoolVar(&keepIDs, "keep-ids", false, "keep IDs that are numbers")
	c.Flags().BoolVar(&force, "force", false, "replace FILE if it is a file; a link or a device is never replaced")
	c.Flags().BoolVar(&reveal, "reveal", false, "write secrets to standard output")
	return c
}

// exportTo returns an error if the flags or an existing file forbid an export to the named file.
func (a *app) exportTo(name string, force, reveal bool) error {
	if name != "-" {
		if err := files.Replaceable(name); err != nil {
			return err
		}
	}
	switch {
	case name != "-" && !force && files.Exists(name):
		return usagef("%s already exists; --force replaces it", clean(name))
	case name == "-" && !reveal:
		return usagef("a token file on standard output shows secrets: add --reveal to allow it")
	case name == "-" && a.json:
		return usagef("standard output can hold a token file or a JSON document, not both")
	}
	return nil
}

func (a *app) export(ctx context.Context, s migrate.Reader, name string, d codec.Dialect, keepIDs, force bool) error {
	data, r, err := exported(ctx, s, d, keepIDs)
	if err != nil {
		return fmt.Errorf("nothing was written: %w", err)
	}
	var unreadable error
	if len(r.Problems) > 0 {
		unreadable = fmt.Errorf("%w: %s exported, without what cannot be read: %w", errPartial, records(r.Verified), errorsOf(r))
	}
	if name == "-" {
		_, err := a.out.Write(data)
		return errors.Join(err, unreadable)
	}
	write := files.Create
	if force {
		write = files.Replace
	}
	if err := write(name, data); err != nil {
		return withoutToken(err, name, maybeTokenFile)
	}
	if a.json {
		return errors.Join(unreadable, a.printJSON(struct {
			File    string        `json:"file"`
			Dialect codec.Dialect `json:"dialect"`
			Records int           `json:"records"`
		}{name, d, r.Verified}))
	}
	a.printf("%s: %d records, as %s writes them\n", clean(name), r.Verified, d)
	return unreadable
}

// exported returns a token file with the records of a store. It parses the file again to verify the
// records. The problems in the report describe unreadable records.
func exported(ctx context.Context, s migrate.Reader, d codec.Dialect, keepIDs bool) ([]byte, *migrate.Report, error) {
	f, err := newExportFile(d)
	if err != nil {
		return nil, nil, err
	}
	m, err := migrate.Plan(ctx, s, f, &migrate.Options{
		KeepIDs:    keepIDs,
		OnConflict: migrate.Newer, // if two records have the same ID, one of them gets another ID
		Duplicates: migrate.Keep,
	})
	if err != nil {
		return nil, nil, err
	}
	if err := m.Ready(); err != nil {
		return nil, nil, errorsOf(m.Report())
	}
	switch r, err := m.Run(ctx); {
	case len(r.Failed) > 0:
		return nil, nil, errorsOf(r)
	case err != nil && r.Verified+len(r.Problems) < r.Records:
		return nil, nil, err
	}
	data, err := f.bytes()
	return data, m.Report(), err
}

// canBeDropped lists the members that an export can leave out.
var canBeDropped = []string{"scope", "token_type", "id_token", "extra"}

// droppable returns the members in list, or a usage error if one of them cannot be dropped. The
// parameter list is the value of --drop.
func droppable(list string) (names []string, err error) {
	for name := range strings.SplitSeq(list, ",") {
		switch {
		case slices.Contains(canBeDropped, name):
			names = append(names, name)
		case list != "":
			return nil, usagef("--drop of export takes %s", strings.Join(canBeDropped, ","))
		}
	}
	return names, nil
}

// A dropping reads the records of a store, and leaves out the members that the field names lists.
// A token_type that the SDKs do not send correctly remains, so that the export fails.
type dropping struct {
	migrate.Reader
	names []string
}

// GetTokens implements migrate.Reader.
func (d dropping) GetTokens(ctx context.Context) ([]tokenstore.Token, error) {
	tokens, err := d.Reader.GetTokens(ctx)
	for i, t := range tokens {
		f := t.Fields()
		for field, text := range f.All() {
			if !slices.Contains(d.names, field.Column) || field.Name == "TokenType" && !bearer(text) {
				continue
			}
			_ = field.Set(&f, "")
		}
		tokens[i] = tokenstore.FromFields(f)
	}
	return tokens, err
}

// errorsOf returns an error with the problems and failures of r, or nil if r has none.
func errorsOf(r *migrate.Report) error {
	var errs []error
	for _, p := range r.Problems {
		err := p.Err
		if p.Kind != migrate.KindUnreadable {
			err = fmt.Errorf("record %q: %w", p.ID, err)
		}
		errs = append(errs, err)
	}
	for _, f := range r.Failed {
		errs = append(errs, fmt.Errorf("record %q: %w", f.ID, f.Err))
	}
	return problems(errs)
}

// An exportFile is the target of an export: a token file in memory. Its exported methods are safe
// for concurrent use, because a migration can save records concurrently.
type exportFile struct {
	dialect codec.Dialect
	numbers *tokenfile.File // a file without rows, whose NextID assigns numbers

	mu     sync.Mutex
	tokens []tokenstore.Token
	last   int64 // the highest ID that Fits has accepted or SaveAll has assigned
}

func newExportFile(d codec.Dialect) (*exportFile, error) {
	numbers, err := tokenfile.New(d)
	return &exportFile{dialect: d, numbers: numbers}, err
}

// Fits returns an element for each token: nil if the SDK could read the row of the token, or an
// error that says why not. A token whose ID is not a number gets an error.
func (f *exportFile) Fits(_ context.Context, tokens []tokenstore.Token) ([]error, error) {
	file, err := tokenfile.New(f.dialect)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	errs := make([]error, len(tokens))
	for i, t := range tokens {
		n, ok := sdkid.Number(cmp.Or(t.ID, "1"))
		if !ok {
			errs[i] = errors.New("the ID is not a number")
			continue
		}
		fields := t.Fields()
		fields.ID = strconv.FormatInt(n, 10)
		if errs[i] = file.Append(fields); errs[i] != nil {
			continue
		}
		file.Delete(0)
		if t.ID != "" {
			f.last = max(f.last, n)
		}
	}
	return errs, nil
}

// SaveAll adds all records or none. Records without an ID get the numbers after f.last. If no
// number is left, the error matches tokenfile.ErrDialect.
func (f *exportFile) SaveAll(_ context.Context, tokens []tokenstore.Token) ([]tokenstore.Token, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	saved, last := slices.Clone(tokens), f.last
	for i := range saved {
		if saved[i].ID != "" {
			continue
		}
		id, err := f.numbers.NextID(last)
		n, ok := sdkid.Number(id)
		if err == nil && (!ok || n <= last) {
			err = fmt.Errorf("%w: no number is left after %d", tokenfile.ErrDialect, last)
		}
		if err != nil {
			return nil, err
		}
		saved[i].ID, last = id, n
	}
	f.tokens, f.last = append(f.tokens, saved...), last
	return saved, nil
}

// SaveToken adds a record, and never merges records.
func (f *exportFile) SaveToken(ctx context.Context, t tokenstore.Token) (tokenstore.Token, error) {
	saved, err := f.SaveAll(ctx, []tokenstore.Token{t})
	if err != nil {
		return tokenstore.Token{}, err
	}
	return saved[0], nil
}

// FindToken always returns tokenstore.ErrNotFound, so that the export adds every record, even if
// several records have the same fields.
func (f *exportFile) FindToken(context.Context, tokenstore.Token) (tokenstore.Token, error) {
	return tokenstore.Token{}, tokenstore.ErrNotFound
}

// FindTokenByID returns the added record with the ID, or tokenstore.ErrNotFound.
func (f *exportFile) FindTokenByID(_ context.Context, id string) (tokenstore.Token, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, t := range f.tokens {
		if t.ID == id {
			return t, nil
		}
	}
	return tokenstore.Token{}, tokenstore.ErrNotFound
}

// DeleteToken removes the added record with the ID, if there is one.
func (f *exportFile) DeleteToken(_ context.Context, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tokens = slices.DeleteFunc(f.tokens, func(t tokenstore.Token) bool { return t.ID == id })
	return nil
}

// DeleteTokens removes all records.
func (f *exportFile) DeleteTokens(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tokens = nil
	return nil
}

// GetTokens encodes the file, parses it, and returns the parsed records. The error joins the
// errors about unreadable rows.
func (f *exportFile) GetTokens(context.Context) ([]tokenstore.Token, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.tokens) == 0 {
		return nil, nil
	}
	data, err := f.bytes()
	if err != nil {
		return nil, err
	}
	file, err := readTokenFile(data, f.dialect)
	if err != nil {
		return nil, err
	}
	return file.rows, file.bad
}

// bytes returns the encoded file, with the records ordered by ID. The caller must hold f.mu, or be
// the only user of f.
func (f *exportFile) bytes() ([]byte, error) {
	file, err := tokenfile.New(f.dialect)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(f.tokens, func(a, b tokenstore.Token) int { return sdkid.Compare(a.ID, b.ID) })
	for _, t := range f.tokens {
		if err := file.Append(t.Fields()); err != nil {
			return nil, fmt.Errorf("record %q: %w", t.ID, err)
		}
	}
	return file.Bytes(), nil
}
