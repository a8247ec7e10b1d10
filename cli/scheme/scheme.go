// Package scheme lets a program describe a kind of store to the command tokenkeep. A scheme is the
// part before the colon in the URL of a store: vault in vault:secret/oauth.
//
// A program passes its schemes to cli.Main. Every command that takes the URL of a store then
// accepts these schemes. The help and the completion in shells list the schemes.
//
//	func main() {
//		cli.Main(append(stores.All(), scheme.Scheme{
//			Name: "box",
//			Form: "box:NAME",
//			Text: "a box with the given name",
//			Open: func(_ context.Context, o *scheme.Opening) (*scheme.Opened, error) {
//				d, err := box.NewDriver(o.Rest)
//				if err != nil {
//					return nil, scheme.Usage(err)
//				}
//				return &scheme.Opened{Driver: d}, nil
//			},
//		})...)
//	}
//
// No text that a scheme returns or prints may contain a token, a key or a password. A URL can
// contain a password by mistake, so errors must not quote URLs.
package scheme

import (
	"context"
	"flag"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// A Scheme is a kind of store that a URL can name. Name, Form, Text and Open are required.
type Scheme struct {
	// Name is the part of the URL before the colon: a letter, followed by up to 11 letters,
	// digits and hyphens, in lower case. All names and aliases of a program's schemes must
	// differ.
	Name string

	// Alias is a second name for URLs, in the form of Name, or empty. The help does not list
	// aliases.
	Alias string

	// Form is the form of the URL, with the variable parts in capitals: "vault:MOUNT/PREFIX". If
	// Form contains two slashes, the URL may have them after the colon, and Opening.Rest contains
	// the slashes unless Slashes is set.
	Form string

	// Text describes the store in the help, in lines of at most 80 characters. The completion in
	// shells shows only the first line.
	Text string

	// Slashes reports whether the URL may have two slashes after the colon. Opening.Rest omits
	// these slashes. Slashes must be false if a file path follows the colon, because the slashes
	// would change the path.
	Slashes bool

	// Service is the name in errors from the store: driver.Properties.Name, or the name that a
	// store without a driver gives to tokenstore.NewError. The command shows SignIn or Denied with
	// errors of this service, and omits the name at the beginning of errors from Open.
	Service string

	// SignIn is advice for errors that match driver.ErrCredentials: how to renew the credentials
	// of the service. SignIn may be empty.
	SignIn string

	// Denied is advice for errors that match tokenstore.ErrDenied, if the command does not show
	// SignIn. If Denied is empty but SignIn is not, the advice is to run "tokenkeep doctor
	// --permissions".
	Denied string

	// Open opens the store. The command closes the result, as described in Opened. If
	// Opening.MustExist or Opening.ReadOnly is set, Open must create nothing that other programs
	// can see.
	//
	// Errors about the URL or the environment must match ErrUsage. If another error matches a class
	// of package tokenstore, the class determines the exit code. Otherwise, the exit code is 1.
	Open func(ctx context.Context, o *Opening) (*Opened, error)

	// Policy describes the command that prints the permissions for the store. If Policy is nil,
	// there is no such command.
	Policy *Policy
}

// An Opening holds the settings with which the command opens a store.
type Opening struct {
	// Rest is the part of the URL after the colon, including the parameters, which Query
	// separates.
	Rest string

	// Getenv returns the value of an environment variable, or "" if it is not set. For the two
	// stores of migrate, a variable with the prefix FROM_ or TO_ takes precedence.
	Getenv func(name string) string

	// MustExist reports whether a store that does not exist is an error. If a store is only a
	// prefix of names in a service, Open ignores MustExist.
	MustExist bool

	// ReadOnly reports whether the command only reads the store. A store that does not exist
	// then counts as empty, unless MustExist is also set. See Opened.Writable.
	ReadOnly bool

	// Note prints a remark on standard error. Note is not safe for concurrent use.
	Note func(format string, args ...any)

	// Observer is the observer for Opened.Store, or nil. The command itself applies the observer
	// to Opened.Driver.
	Observer *tokenstore.Observer
}

// EnvKeys is the environment variable that names the keys file. The command applies the keys to
// every Opened.Driver.
const EnvKeys = "TOKENKEEP_KEYS_FILE"

// WithoutKeys prints a remark that a store cannot use keys. It prints nothing unless the
// environment variable EnvKeys is set. The parameter kind describes the store, such as "a table".
func (o *Opening) WithoutKeys(kind string) {
	if o.Getenv(EnvKeys) != "" {
		o.Note("%s cannot use the keys of %s: its records are not encrypted", kind, EnvKeys)
	}
}

// Opened is an open store. Either Driver or Store must be set.
type Opened struct {
	// Driver is the driver of the store. The command creates a tokenstore.Store with this driver
	// and the keys of the user, and closes the driver.
	Driver driver.Secrets

	// Store is a store that has no driver. If it is an io.Closer, the command closes it.
	Store tokenstore.TokenStore

	// Place identifies the store: URLs with the same Place must name the same store. Place
	// contains no secret. The command migrate refuses two stores with the same Place. If Place
	// is empty, the command uses driver.Properties.Place. If both are empty, migrate does not
	// compare the places of its stores.
	Place string

	// Counted reports whether migrate shows the number of calls to the service. The command
	// itself counts requests of package net/http. The driver counts other calls with CountCall.
	Counted bool

	// Close, if not nil, releases other resources that Open allocated. The command closes Driver
	// or Store first.
	Close func() error

	// Writable opens the store again for writing, and creates the store if necessary. If
	// Writable is nil, the command writes to Driver or Store even if Opening.ReadOnly was set.
	Writable func(ctx context.Context) (*Opened, error)
}

// A Policy describes a command that prints the minimal permissions for using a store.
type Policy struct {
	// Name is the name of the command after "tokenkeep policy".
	Name string

	// Argument is the name of the argument in capitals: "MOUNT/PREFIX".
	Argument string

	// Short and Long describe the command in the help. Long may be empty.
	Short, Long string

	// New defines the flags of the command. The command parses its flags, and then calls the
	// function that New returned. This function returns the policy for argument in the format of
	// the service or, if terraform is set, as a Terraform resource.
	New func(flags *flag.FlagSet) func(argument string, terraform bool) (string, error)
}
