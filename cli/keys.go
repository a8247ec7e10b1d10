package cli

import (
	"errors"
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/tokenkeep/tokenkeep/cli/internal/files"
	"github.com/tokenkeep/tokenkeep/cli/scheme"
	"github.com/tokenkeep/tokenkeep/keys"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// storeOptions returns the options for a tokenstore.Store, including the keys from the keys file
// if there is one.
func (a *app) storeOptions() (*tokenstore.Options, error) {
	name := a.env(envKeys)
	if name == "" {
		return &tokenstore.Options{Observer: a.observer}, nil
	}
	k, err := keys.Load(name)
	if err != nil {
		return nil, usagef("the keys file %s: %w", name, files.Bare(err))
	}
	o := k.Options()
	o.Observer = a.observer
	return o, nil
}

func (a *app) keysCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "keys",
		Short: "Make and change keys for names, labels and encryption",
		Long: `Without keys, anyone who can list a store can test guesses of user names against the
names of the records, and anyone who can read it can read the tokens. A keys file, named
by TOKENKEEP_KEYS_FILE, prevents both. It is JSON with the keys in base64; programs read
it with package keys.

  v                1
  name_keys        names of records: the first key is current ("name_key" if it is
                   the only one)
  index_keys       labels by which records are found: the first key writes, searches
                   use all keys
  encryption_keys  AES-256-GCM: the first key encrypts, all keys decrypt
  place            the original place of the store, if its secrets were copied

A store records its keys. A program with other keys, or none, gets an error of class
"wrong_keys" where it would otherwise find nothing or create a record.

To change keys, to add them to a store that has records, or to remove them:

  1  tokenkeep keys add FILE      and give the file to every program
  2  tokenkeep keys switch FILE   and give the file to every program
  3  tokenkeep rekey
  4  tokenkeep keys drop FILE     and give the file to every program

In a list, null means no key, while keys are being added or removed.`,
		Args: knownCommand,
		RunE: a.showHelp,
	}
	c.AddCommand(a.keysNewCommand(), a.keysAddCommand(),
		a.keysStep("switch", "Put the new keys first, so that programs write with them", "Puts the new keys first, so that programs write with the new keys", (*keys.Keys).Switch,
			"writes with the new keys. When every program has it: tokenkeep rekey"),
		a.keysStep("drop", "Keep only the first key of each kind", "Keeps only the first key of each kind", (*keys.Keys).Drop,
			"has only the new keys. Give it to every program"))
	return c
}

// A kindsFlag is the value of the flag --for, a list of kinds of keys.
type kindsFlag []string

func (f *kindsFlag) add(c *cobra.Command) {
	c.Flags().StringSliceVar((*[]string)(f), "for", nil, "kinds of keys: names, labels or encryption, joined by commas (default: all)")
}

func (f kindsFlag) kinds() ([]keys.Kind, error) {
	var kinds []keys.Kind
	for _, name := range f {
		kind := keys.Kind(strings.TrimSpace(name))
		if !slices.Contains(keys.Kinds(), kind) {
			return nil, usagef("--for takes kinds of keys: names, labels or encryption, joined by commas")
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
		Long: `Writes a new file that only its owner can read, for an empty store. An existing file is
never replaced, because records are lost without its keys.

For a store with records, see "tokenkeep keys add".`,
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

// newKeys writes k to a new file, and prints how to use the file. The printed text begins with the
// file name and the parameter what. If the file exists, newKeys returns a usage error.
func (a *app) newKeys(name string, k *keys.Keys, what string) error {
	switch err := files.Create(name, k.Encode()); {
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
		Short: "Add new keys after the current ones",
		Long: `Adds a new random key of each kind after the current ones. Programs with the file know
both, and keep writing with the current ones. If the file does not exist, it is created
for a store without keys, with "none" before the new keys.

With --none, "none" is added after the current keys, in order to remove them.`,
		Args: oneArg("FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			kinds, err := of.kinds()
			if err != nil {
				return err
			}
			if c.Flags().Changed("for") && len(kinds) == 0 {
				return usagef("--for is empty")
			}
			if !files.Exists(args[0]) && !without {
				k, err := keys.Unused().Add(kinds...)
				if err != nil {
					return scheme.Usage(err)
				}
				return a.newKeys(args[0], k, "has new keys, after none. Give it to every program")
			}
			add := (*keys.Keys).Add
			if without {
				add = (*keys.Keys).AddNone
			}
			return a.changeKeys(args[0], func(k *keys.Keys) (*keys.Keys, error) { return add(k, kinds...) },
				"has the new keys after the current ones. Give it to every program")
		},
	}
	of.add(c)
	c.Flags().BoolVar(&without, "none", false, "add no key, in order to remove the current ones")
	return c
}

func (a *app) keysStep(name, short, long string, change func(*keys.Keys) (*keys.Keys, error), done string) *cobra.Command {
	return &cobra.Command{
		Use:   name + " FILE",
		Short: short,
		Long:  long + `: a step of the change that "tokenkeep keys --help" describes.`,
		Args:  oneArg("FILE"),
		RunE:  func(_ *cobra.Command, args []string) error { return a.changeKeys(args[0], change, done) },
	}
}

// changeKeys calls the function change with the keys in a file, replaces the content of the file
// with the result, and prints the parameter done. If no keys would remain, changeKeys leaves the
// file unchanged.
func (a *app) changeKeys(name string, change func(*keys.Keys) (*keys.Keys, error), done string) error {
	k, err := keys.Load(name)
	if err != nil {
		return usagef("the keys file %s: %w", clean(name), files.Bare(err))
	}
	if k, err = change(k); err != nil {
		return scheme.Usage(err)
	}
	if k == nil { // programs may still use the file, so the user must remove it
		done = "has no keys to use: unset " + envKeys + " in every program, and remove it"
	} else if err := files.Replace(name, k.Encode()); err != nil {
		return err
	}
	if a.json {
		return a.printJSON(map[string]any{"file": name, "keys": k != nil})
	}
	a.printf("%s %s\n", clean(name), done)
	return nil
}

var shellSafe = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z0-9_./:@%+=-]+$`) })

// shellQuote returns s as one word for a POSIX shell.
func shellQuote(s string) string {
	if shellSafe().MatchString(s) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
