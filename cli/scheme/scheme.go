// Package scheme describes a kind of store to the command tokenkeep. A scheme is the part before
// the colon in the URL of a store: vault in vault:secret/oauth.
//
// A program gives its schemes to the function Main of package cli. All commands then accept
// them: commands about records, doctor, migrate, serve, keep, the help, and completion in
// shells.
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
// No text that a scheme returns or prints may contain a token, a key or a password. A URL may
// contain a password by mistake, so errors do not quote it.
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
	// digits and hyphens, in lower case. Each name of a command is unique.
	Name string

	// Alias is another Name, or empty. The help does not list it.
	Alias string

	// Form is the form of the URL, with the variable parts in capitals: "vault:MOUNT/PREFIX".
	// If two slashes follow the colon in Form, the URL may begin with them and Open gets them.
	Form string

	// Text describes the store in the help, in lines of at most 80 characters. Shells show the
	// first line beside the name.
	Text string

	// Slashes reports whether the URL may have two slashes after the colon, which Open does not
	// get. It is false for a path, because the slashes would change the path.
	Slashes bool

	// Service is the name in the errors of the store: driver.Properties.Name, or the name that
	// a store without a driver gives to tokenstore.NewError. The command finds SignIn and
	// Denied by it, and leaves it out at the beginning of errors of Open.
	Service string

	// SignIn is advice for errors that match driver.ErrCredentials: how to renew the
	// credentials of the service. It may be empty.
	SignIn string

	// Denied is advice for other errors that match tokenstore.ErrDenied. If it is empty and
	// SignIn is not, the advice is to run "tokenkeep doctor --permissions".
	Denied string

	// Open opens the store. The command closes what Open returns. Open creates nothing that
	// would be visible to other programs if Opening.MustExist or Opening.ReadOnly is set.
	//
	// An error about the URL or the environment is one of Usage or Usagef. Other errors wrap a
	// class of package driver or tokenstore, or have the exit code 1.
	Open func(ctx context.Context, o *Opening) (*Opened, error)

	// Policy is the command that prints the permissions that the store needs, or nil.
	Policy *Policy
}

// An Opening has the settings with which the command opens a store.
type Opening struct {
	// Rest is the part of the URL after the colon. It includes the parameters, which Query cuts
	// off. No parameter in it has an empty value.
	Rest string

	// Getenv returns the value of an environment variable, or "". With the command migrate, a
	// variable whose name begins with FROM_ or TO_ takes precedence for the store on that side.
	Getenv func(name string) string

	// MustExist reports whether a store that does not exist is an error, because the command
	// only reads or changes records. Services in which a store is a prefix ignore it.
	MustExist bool

	// ReadOnly reports whether the command does not write to the store. A store that does not
	// exist counts as empty, unless MustExist is also set. See Opened.Writable.
	ReadOnly bool

	// Note prints a remark on standard error. It is not safe for concurrent use.
	Note func(format string, args ...any)

	// Observer is the observer of the command, or nil. A Driver does not need it.
	Observer *tokenstore.Observer
}

// EnvKeys is the environment variable that names the keys file. The command applies the keys to
// every Driver.
const EnvKeys = "TOKENKEEP_KEYS_FILE"

// WithoutKeys prints a remark if the user has a keys file, for a store that cannot use keys.
// kind describes the store: "a table".
func (o *Opening) WithoutKeys(kind string) {
	if o.Getenv(EnvKeys) != "" {
		o.Note("%s cannot use the keys of %s: its records are not encrypted", kind, EnvKeys)
	}
}

// Opened is an open store. Either Driver or Store is set.
type Opened struct {
	// Driver is the driver of the store. The command makes a tokenstore.Store on it, with the
	// keys of the user.
	Driver driver.Secrets

	// Store is a store that has no driver. If it is an io.Closer, the command closes it.
	Store tokenstore.TokenStore

	// Place identifies the records: it is equal for two URLs if and only if they name the same
	// store. It contains no secret. The command migrate refuses two stores with the same Place.
	// If Place is empty, it is the Place of the driver's properties; if that is empty as well,
	// no other URL names the store.
	Place string

	// Counted reports whether migrate shows the number of calls to the service. Requests of
	// package net/http are counted without further code, other calls by CountCall.
	Counted bool

	// Close releases what Open allocated besides Driver or Store. It is called after they are
	// closed. It may be nil.
	Close func() error

	// Writable opens the store again for writing, and creates it if necessary. It is nil if the
	// store can be written although Opening.ReadOnly was set, as a prefix of a service can.
	Writable func(ctx context.Context) (*Opened, error)
}

// A Policy is a command that prints the minimal permissions of a program that uses a store.
type Policy struct {
	// Name is the name of the command after "tokenkeep policy".
	Name string

	// Argument is the name of the argument in capitals: "MOUNT/PREFIX".
	Argument string

	// Short and Long describe the command in the help. Long may be empty.
	Short, Long string

	// New defines the flags of the command, and returns a function that returns the policy for
	// an argument: in the format of the service, or as a Terraform resource.
	New func(flags *flag.FlagSet) func(argument string, terraform bool) (string, error)
}
