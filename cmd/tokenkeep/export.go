package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"slices"
	"strconv"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/codec/tokenfile"
	"github.com/tokenkeep/tokenkeep/internal/bulk"
	"github.com/tokenkeep/tokenkeep/internal/sdkid"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

func (a *app) exportCommand() *cobra.Command {
	var (
		dialect                string
		keepIDs, force, reveal bool
	)
	c := &cobra.Command{
		Use:     "export FILE",
		GroupID: groupFiles,
		Short:   "Write the records to a token file",
		Long: `Writes all records to a file that the FileStore of a Zoho SDK reads. Only its owner
can read it: it holds the tokens as they are. If the SDK could not read a value
back (a comma, for those that know no quoting) nothing is written. Records that the
store cannot read are named, and the others are exported; the exit code is then that
of "partial".

The SDKs number their records. Records are numbered from 1 unless --keep-ids is
given: then those whose ID is a number keep it, and the others get the numbers
after the highest.

FILE can be "-", standard output, if --reveal says that showing secrets is meant.`,
		Args: oneArg("FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			d, err := knownDialect(dialect)
			if err != nil {
				return err
			}
			if err := a.exportTo(args[0], force, reveal); err != nil {
				return err
			}
			return a.reading().withStore(c.Context(), func(s *store) error {
				return a.export(c.Context(), s, args[0], d, keepIDs, force)
			})
		},
	}
	dialectFlag(c, &dialect, string(codec.Python), "the SDK that is to read the file")
	c.Flags().BoolVar(&keepIDs, "keep-ids", false, "records whose ID is a number keep it")
	c.Flags().BoolVar(&force, "force", false, "replace FILE if it is a file; a link or a device is never replaced")
	c.Flags().BoolVar(&reveal, "reveal", false, "write secrets to standard output")
	return c
}

// exportTo reports what speaks against writing to the file, before the store is
// asked.
func (a *app) exportTo(name string, force, reveal bool) error {
	if name != "-" {
		if err := replaceable(name); err != nil {
			return err
		}
	}
	switch {
	case name != "-" && !force && exists(name):
		return usagef("%s is there already; --force replaces it", clean(name))
	case name == "-" && !reveal:
		return usagef("a token file on standard output shows secrets: say --reveal if that is meant")
	case name == "-" && a.json:
		return usagef("standard output can hold a token file or a JSON document, not both")
	}
	return nil
}

func (a *app) export(ctx context.Context, s *store, name string, d codec.Dialect, keepIDs, force bool) error {
	tokens, unreadable, err := bulk.Readable(s.GetTokens(ctx))
	if err != nil {
		return fmt.Errorf("nothing was written: %w", err)
	}
	data, err := fileOf(tokens, d, keepIDs)
	if err != nil {
		return fmt.Errorf("nothing was written: %w", err)
	}
	if unreadable != nil {
		unreadable = fmt.Errorf("%w: %s exported, without what cannot be read: %w", errPartial, records(len(tokens)), unreadable)
	}
	if name == "-" {
		_, err := a.out.Write(data)
		return errors.Join(err, unreadable)
	}
	write := createFile
	if force {
		write = replaceFile
	}
	if err := write(name, data); err != nil {
		return withoutToken(err, name, maybeTokenFile)
	}
	if a.json {
		return errors.Join(unreadable, a.printJSON(struct {
			File    string        `json:"file"`
			Dialect codec.Dialect `json:"dialect"`
			Records int           `json:"records"`
		}{name, d, len(tokens)}))
	}
	a.printf("%s: %d records, as %s writes them\n", clean(name), len(tokens), d)
	return unreadable
}

// fileOf returns a token file of the records. It has been read back, and holds
// what they hold.
func fileOf(tokens []tokenstore.Token, d codec.Dialect, keepIDs bool) ([]byte, error) {
	f, err := tokenfile.New(d)
	if err != nil {
		return nil, err
	}
	records := number(tokens, keepIDs)
	var errs []error
	for _, r := range records {
		if err := f.Append(r.token.Fields()); err != nil {
			errs = append(errs, fmt.Errorf("record %q: %w", r.id, err))
		}
	}
	if len(errs) > 0 {
		return nil, problems(errs)
	}
	data := f.Bytes()
	if err := readBack(data, d, records); err != nil {
		return nil, err
	}
	return data, nil
}

// readBack checks that a token file holds the records.
func readBack(data []byte, d codec.Dialect, records []numbered) error {
	f, err := tokenfile.Parse(data, d)
	if err != nil {
		return err
	}
	if f.Len() != len(records) {
		return errors.New("the file would have another number of rows")
	}
	for i, r := range records {
		if got, err := fromRow(f.Row(i)); err != nil || !sameToken(got, r.token) {
			return fmt.Errorf("row %d of the file would read differently", i+1)
		}
	}
	return nil
}

// A numbered is a record with the number that it has in a token file.
type numbered struct {
	id    string // in the store
	token tokenstore.Token
}

// number gives records the numbers that the SDKs have for IDs, and returns them
// in the order in which they are written. If keep is set, those whose IDs are
// such numbers keep them, and come first.
func number(tokens []tokenstore.Token, keep bool) []numbered {
	var kept, others []numbered
	var last int64
	for _, t := range tokens {
		if own, ok := sdkid.Number(t.ID); keep && ok {
			kept = append(kept, numbered{t.ID, t})
			last = max(last, own)
		} else {
			others = append(others, numbered{t.ID, t})
		}
	}
	slices.SortFunc(kept, func(a, b numbered) int { return sdkid.Compare(a.id, b.id) })
	for i := range others {
		last++
		others[i].token.ID = strconv.FormatInt(last, 10)
	}
	return append(kept, others...)
}
