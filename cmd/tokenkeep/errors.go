package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/tokenkeep/tokenkeep/codec/tokenfile"
	"github.com/tokenkeep/tokenkeep/initializer"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/migrate"
)

// A class is a kind of failure, as programs are told of it.
type class struct {
	code int    // the exit code
	name string // "class" in JSON
	is   error  // what errors of the class match; nil: see classOf
	text string
}

var (
	classOK    = class{code: 0, name: "ok", text: "done"}
	classOther = class{code: 1, name: "other", text: "anything else, such as a file that cannot be read"}
)

// classes are the kinds of failure. The first that an error matches is its class:
// of several errors, one that is the store's counts more than one record's.
var classes = []class{
	{2, "usage", errUsage, "wrong arguments, flags, environment or keys file"},
	{2, "usage", migrate.ErrSameStore, ""},
	{130, "interrupted", context.Canceled, "a signal came; what was under way may or may not be done"},
	{10, "partial", errPartial, "some of it is done: the report and the errors say what is not"},
	{10, "partial", migrate.ErrPartial, ""},
	{6, "invalid", errInput, "the record, file or search cannot be used as it is"},
	{6, "invalid", tokenfile.ErrDialect, ""},
	{13, "findings", errFindings, "doctor: something is wrong with the store, and not repaired"},
	{12, "conflicts", migrate.ErrConflicts, "migrate: some records stand in the way, and nothing was written"},
	{11, "not_persisted", tokenstore.ErrNotPersisted, "a new token is usable but was not stored"},
	{7, "denied", tokenstore.ErrDenied, "the store refused the credentials, or they lack a permission"},
	{14, "refused", tokenstore.ErrRefused, "the set-up of store or OAuth server does not allow it: an operator has to change it"},
	{14, "refused", initializer.ErrClient, ""},
	{14, "refused", initializer.ErrRefused, ""},
	{8, "unavailable", tokenstore.ErrUnavailable, "store or OAuth server could not be reached, failed, or throttled the call: try again"},
	{8, "unavailable", initializer.ErrServer, ""},
	{8, "unavailable", initializer.ErrThrottled, ""},
	{8, "unavailable", context.DeadlineExceeded, ""},
	{3, "not_found", tokenstore.ErrNotFound, "no record matches"},
	{4, "ambiguous", tokenstore.ErrAmbiguous, "more than one record matches; the text names their IDs"},
	{5, "conflict", tokenstore.ErrConflict, "other writers were faster, again and again: try again"},
	{5, "id_mismatch", tokenstore.ErrIDMismatch, "ID, user and client belong to different records: trying again does not help"},
	{6, "invalid", tokenstore.ErrInvalidToken, ""},
	{6, "too_large", tokenstore.ErrTooLarge, "the record is larger than the store can hold"},
	{15, "wrong_keys", tokenstore.ErrWrongKeys, "the store is under other keys: TOKENKEEP_KEYS_FILE names others, or none"},
	{9, "corrupt", tokenstore.ErrCorrupt, "a record, or the store's file, is there but cannot be read"},
}

// Sentinels of the program itself. Their texts are part of messages.
var (
	errUsage   = errors.New("usage")
	errInput   = errors.New("invalid input")
	errPartial = errors.New("only a part is done")

	errFindings = errors.New("something is wrong with the store")
)

// classOf returns the class of an error.
func classOf(err error) class {
	if err == nil {
		return classOK
	}
	for _, c := range classes {
		if errors.Is(err, c.is) {
			return c
		}
	}
	return classOther
}

// A usage error says that the program was not called as it should be. Its text
// is that of the cause alone.
type usage struct{ error }

func (usage) Is(target error) bool { return target == errUsage }
func (u usage) Unwrap() error      { return u.error }

func usagef(format string, args ...any) error { return usage{fmt.Errorf(format, args...)} }

// textOf returns the text of an error. The names of packages that it begins with are
// left out: the program's own stands there.
func textOf(err error) string {
	return strings.NewReplacer("tokenstore: ", "", "initializer: revoke: ", "").Replace(err.Error())
}

// withoutPackage returns an error of a constructor without the name of its package:
// the text is about the store that was named.
func withoutPackage(err error) error {
	for _, name := range []string{"tokenstore: ", "awssm: ", "gcpsm: ", "vaultstore: "} {
		if text, ok := strings.CutPrefix(err.Error(), name); ok {
			return restated{err, text}
		}
	}
	return err
}

// A restated error has another text.
type restated struct {
	error
	text string
}

func (e restated) Error() string { return e.text }
func (e restated) Unwrap() error { return e.error }

// derivedID is what IDs look like that a store makes up.
var derivedID = regexp.MustCompile(`^[ugra][a-z2-7]{32}$`)

// shortID is how long an ID may be that no store has made up, to be repeated in an
// error. The tokens and keys of the known providers are longer.
const shortID = 12

// maybeToken reports whether text, which was given as the name of something, may be
// a token that was put in the wrong place.
func maybeToken(text string) bool { return len(text) > shortID && !derivedID.MatchString(text) }

// fileSuffix is what a file's name ends with, and no token.
var fileSuffix = regexp.MustCompile(`^[^.]{1,64}(\.[A-Za-z0-9]{1,5}){1,2}$`)

// maybeTokenFile is maybeToken for the name of a file. Those with a suffix are shown,
// and those in a directory that is there.
func maybeTokenFile(name string) bool {
	if !maybeToken(name) || fileSuffix.MatchString(filepath.Base(name)) {
		return false
	}
	dir := filepath.Dir(name)
	return dir == "." && !strings.HasPrefix(name, ".") || !exists(dir)
}

// A cutError is an error whose text repeats only the beginning of an argument.
type cutError struct {
	error
	arg string
}

func (e cutError) Unwrap() error { return e.error }

func (e cutError) Error() string {
	const begin = 4
	cut := strings.ToValidUTF8(e.arg[:begin], "") + "…"
	return strings.NewReplacer(strconv.Quote(e.arg), strconv.Quote(cut), e.arg, cut).Replace(e.error.Error())
}

// withoutToken returns an error about an argument. If that may be a token, the text
// does not repeat it.
func withoutToken(err error, arg string, may func(string) bool) error {
	if err == nil || !may(arg) {
		return err
	}
	return cutError{err, arg}
}

// signIn says for each service how credentials are renewed.
var signIn = map[string]string{
	"awssm":      "renew them (aws sso login, or new keys)",
	"gcpsm":      "renew them (gcloud auth application-default login)",
	"vaultstore": "log in again (vault login), or set VAULT_TOKEN",
	"sqlstore":   "check the user and " + envMySQLPassword,
}

// hint returns what may help with an error, or "": of the causes that the class has,
// the one that the error tells of.
func (a *app) hint(err error) string {
	var of *tokenstore.Error
	if !errors.As(err, &of) {
		return ""
	}
	help, known := signIn[of.Store]
	switch {
	case !known:
		return ""
	case errors.Is(err, driver.ErrCredentials):
		return "the credentials are expired, revoked or unknown, and no permission is missing: " + help
	case !errors.Is(err, tokenstore.ErrDenied):
		return ""
	case of.Store == "sqlstore":
		return help
	case a.tried:
		return ""
	}
	return "'tokenkeep doctor --permissions' names the permissions that are missing"
}

// exitCodes is the help on exit codes.
func exitCodes() string {
	var b strings.Builder
	b.WriteString("What the exit codes mean, and the \"class\" of the errors that --json writes to\nstandard error, one object a line: {\"error\":\"...\",\"class\":\"...\",\"code\":3}.\n\n")
	t := table{indent: "  "}
	t.row("CODE", "CLASS", "MEANING")
	last := -1
	for _, c := range sortedClasses() {
		code := fmt.Sprint(c.code)
		if c.code == last {
			code = ""
		}
		last = c.code
		t.row(code, c.name, c.text)
	}
	b.WriteString(t.String())
	b.WriteString(`
After "partial", "unavailable" and "interrupted" the same command can be repeated:
what was done already is left as it is. The object of an error that something helps
with has a "hint".
`)
	return b.String()
}

// sortedClasses returns the classes that have something to say, by exit code.
func sortedClasses() []class {
	all := slices.DeleteFunc(slices.Concat([]class{classOK, classOther}, classes), func(c class) bool { return c.text == "" })
	slices.SortStableFunc(all, func(a, b class) int { return cmp.Compare(a.code, b.code) })
	return all
}

// problems makes one error of many.
func problems(errs []error) error {
	const most = 20
	if more := len(errs) - most; more > 0 {
		errs = append(errs[:most:most], fmt.Errorf("and %d more", more))
	}
	return errors.Join(errs...)
}
