package main

import (
	"errors"
	"io/fs"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"regexp"

	"github.com/tokenkeep/tokenkeep/keys"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// storeOptions returns the options of a portable store: what the keys file says,
// if there is one.
func (a *app) storeOptions() (*tokenstore.Options, error) {
	name := a.env(envKeys)
	if name == "" {
		return &tokenstore.Options{}, nil
	}
	k, err := keys.Load(name)
	if err != nil {
		return nil, usagef("the keys file %s: %w", name, bare(err))
	}
	return k.Options(), nil
}

// bare returns an error of package os without the name of the file, which the
// message has already.
func bare(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

func (a *app) keysCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "keys",
		Short: "Make and change keys for names, labels and encryption",
		Long: `Without keys, anyone who can list a store can test guesses of user names against the
names of the records, and anyone who can read it can read the tokens. A keys file,
named by TOKENKEEP_KEYS_FILE, keeps such people out. It is JSON, keys in base64;
programs read it with package keys.

  v                1
  name_keys        make the names of records: the first is current ("name_key", if
                   there is one)
  index_keys       make what records are searched by: the first one writes, all of
                   them are searched
  encryption_keys  AES-256-GCM: the first one writes, all of them read
  place            names the store, if its secrets were copied from elsewhere

A store remembers which keys it is under. A program with other keys, or none, is told
so (class "wrong_keys") where it would find nothing or create a record.

To change keys, bring them into a store that has records, or take them out:

  1  tokenkeep keys add FILE      and give the file to every program
  2  tokenkeep keys switch FILE   and give the file to every program
  3  tokenkeep rekey
  4  tokenkeep keys drop FILE     and give the file to every program

In a list null stands for no key, while keys come or go.`,
		Args: knownCommand,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(a.keysNewCommand(), a.keysAddCommand(),
		a.keysStep("switch", "Put the new keys first, for programs to write by", (*keys.Keys).Switch,
			"writes by the new keys. When every program has it: tokenkeep rekey"),
		a.keysStep("drop", "Keep the first key of each kind alone", (*keys.Keys).Drop,
			"has the new keys alone. Every program can have it"))
	return c
}

// A kindsFlag is the kinds of key that --for names.
type kindsFlag []string

func (f *kindsFlag) add(c *cobra.Command) {
	c.Flags().StringSliceVar((*[]string)(f), "for", nil, "what the keys are for, of names, labels and encryption (default: all)")
}

func (f kindsFlag) kinds() ([]keys.Kind, error) {
	var kinds []keys.Kind
	for _, name := range f {
		kind := keys.Kind(strings.TrimSpace(name))
		if !slices.Contains(keys.Kinds(), kind) {
			return nil, usagef("--for names kinds of keys: names, labels or encryption, joined by commas")
		}
		if !slices.Contains(kinds, kind) {
			kinds = append(kinds, kind)
		}
	}
	return kinds, nil
}

func (a *app) keysNewCommand() *cobra.Command {
	var of kindsFlag
	c := &cobra.Command{
		Use:   "new FILE",
		Short: "Write a file of new random keys",
		Long: `Writes a new file that only its owner can read, for a store that is empty. A file that
exists is never replaced: without the keys in it, records are lost.

For a store that has records see "tokenkeep keys add".`,
		Args: oneArg("FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			kinds, err := of.kinds()
			if err != nil {
				return err
			}
			if c.Flags().Changed("for") && len(kinds) == 0 {
				return usagef("--for is empty")
			}
			return a.newKeys(args[0], keys.New(kinds...), "has new keys. To use them")
		},
	}
	of.add(c)
	return c
}

// newKeys writes a new keys file.
func (a *app) newKeys(name string, k *keys.Keys, what string) error {
	switch err := createFile(name, k.Encode()); {
	case errors.Is(err, fs.ErrExist):
		return usagef("%s exists, and is not replaced", clean(name))
	case err != nil:
		return err
	}
	if a.json {
		return a.printJSON(map[string]string{"file": name})
	}
	a.printf(`%s %s:

  export %s=%s

Keep a copy in a safe place: without the keys the records cannot be found or read.
`, clean(name), what, envKeys, shellQuote(name))
	return nil
}

func (a *app) keysAddCommand() *cobra.Command {
	var of kindsFlag
	var without bool
	c := &cobra.Command{
		Use:   "add FILE",
		Short: "Put new keys behind the present ones",
		Long: `Puts a new random key of each kind behind the present one: programs with the file know
both, and go on writing by the present ones. A file that does not exist is made, for a
store without keys: there, "none" stands before the new keys.

With --none it is "none" that stands behind the present keys, to take them out.`,
		Args: oneArg("FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			kinds, err := of.kinds()
			if err != nil {
				return err
			}
			if c.Flags().Changed("for") && len(kinds) == 0 {
				return usagef("--for is empty")
			}
			if !exists(args[0]) && !without {
				k, err := keys.Unused().Add(kinds...)
				if err != nil {
					return usage{err}
				}
				return a.newKeys(args[0], k, "has new keys, behind none. Give it to every program")
			}
			add := (*keys.Keys).Add
			if without {
				add = (*keys.Keys).AddNone
			}
			return a.changeKeys(args[0], func(k *keys.Keys) (*keys.Keys, error) { return add(k, kinds...) },
				"has the new keys behind the present ones. Give it to every program")
		},
	}
	of.add(c)
	c.Flags().BoolVar(&without, "none", false, "add no key, to take the present ones out")
	return c
}

// keysStep returns the command of a step that changes a keys file.
func (a *app) keysStep(name, short string, change func(*keys.Keys) (*keys.Keys, error), done string) *cobra.Command {
	return &cobra.Command{
		Use:   name + " FILE",
		Short: short,
		Long:  short + `: a step of what "tokenkeep keys --help" describes.`,
		Args:  oneArg("FILE"),
		RunE:  func(_ *cobra.Command, args []string) error { return a.changeKeys(args[0], change, done) },
	}
}

// changeKeys replaces a keys file by what change makes of it. A file that would
// have no keys stays as it is.
func (a *app) changeKeys(name string, change func(*keys.Keys) (*keys.Keys, error), done string) error {
	k, err := keys.Load(name)
	if err != nil {
		return usagef("the keys file %s: %w", clean(name), bare(err))
	}
	if k, err = change(k); err != nil {
		return usage{err}
	}
	if k == nil { // the file stays as it is: to remove keys is not for a program
		done = "has no keys that are to be used: unset " + envKeys + " in every program, and remove it"
	} else if err := replaceFile(name, k.Encode()); err != nil {
		return err
	}
	if a.json {
		return a.printJSON(map[string]any{"file": name, "keys": k != nil})
	}
	a.printf("%s %s\n", clean(name), done)
	return nil
}

var shellSafe = regexp.MustCompile(`^[A-Za-z0-9_./:@%+=-]+$`)

// shellQuote returns s as one word of a shell.
func shellQuote(s string) string {
	if shellSafe.MatchString(s) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
