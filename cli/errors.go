package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/tokenkeep/tokenkeep/cli/internal/files"
	"github.com/tokenkeep/tokenkeep/cli/scheme"
	"github.com/tokenkeep/tokenkeep/codec/tokenfile"
	"github.com/tokenkeep/tokenkeep/initializer"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/migrate"
)

// A class is success or a kind of failure, with its exit code and its name in JSON.
type class struct {
	code int
	name string // "class" in JSON
	is   error  // errors of the class match this error; nil in classOK and classOther
	text string // the meaning in the help; empty if another element with this name has a text
}

var (
	classOK    = class{code: 0, name: "ok", text: "done"}
	classOther = class{code: 1, name: "other", text: "anything else, such as a file that cannot be read"}
)

// classes lists the kinds of failure, except classOther. The class of an error is the first
// element that the error matches.
var classes = []class{
	{2, "usage", scheme.ErrUsage, "wrong arguments, flags, environment or keys file"},
	{2, "usage", migrate.ErrSameStore, ""},
	{130, "interrupted", context.Canceled, "a signal arrived; the operation may or may not be complete"},
	{10, "partial", errPartial, "part of the work is done: the report and the errors say what is not"},
	{10, "partial", migrate.ErrPartial, ""},
	{6, "invalid", errInput, "the record, file, answer or search is invalid"},
	{6, "invalid", tokenfile.ErrDialect, ""},
	{13, "findings", errFindings, "doctor, status: the store or a refresh has a fault that was not repaired"},
	{12, "conflicts", migrate.ErrConflicts, "migrate: some records have problems, and nothing was written"},
	{11, "not_persisted", tokenstore.ErrNotPersisted, "a new token is usable but was not stored"},
	{7, "denied", tokenstore.ErrDenied, "the store refused the credentials, or they lack a permission"},
	{14, "refused", tokenstore.ErrRefused, "the configuration of the store or server forbids it; an operator must act"},
	{14, "refused", initializer.ErrClient, ""},
	{14, "refused", initializer.ErrRefused, ""},
	{14, "refused", initializer.ErrTokenType, ""},
	{16, "reauth_required", initializer.ErrReauthRequired, "the user has to authorize the client again"},
	{8, "unavailable", tokenstore.ErrUnavailable, "the store or server could not be reached, failed, or throttled the call: try again"},
	{8, "unavailable", initializer.ErrServer, ""},
	{8, "unavailable", initializer.ErrThrottled, ""},
	{8, "unavailable", context.DeadlineExceeded, ""},
	{3, "not_found", tokenstore.ErrNotFound, "no record matches"},
	{4, "ambiguous", tokenstore.ErrAmbiguous, "more than one record matches; the text names their IDs"},
	{5, "conflict", tokenstore.ErrConflict, "other writers were repeatedly faster: try again"},
	{5, "id_mismatch", tokenstore.ErrIDMismatch, "ID, user and client belong to different records: trying again does not help"},
	{6, "invalid", tokenstore.ErrInvalidToken, ""},
	{6, "too_large", tokenstore.ErrTooLarge, "the record is larger than the store can hold"},
	{15, "wrong_keys", tokenstore.ErrWrongKeys, "the store uses other keys: TOKENKEEP_KEYS_FILE names different ones, or none"},
	{9, "corrupt", tokenstore.ErrCorrupt, "a record, or the file of the store, exists but cannot be read"},
}

// Errors for the classes of failure that this package detects.
var (
	errInput   = errors.New("invalid input")
	errPartial = errors.New("only part of the work is done")

	errFindings = errors.New("the store has faults")
)

// classOf returns the class of an error: classOK for nil, and classOther if no other class
// matches.
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

func usagef(format string, args ...any) error { return scheme.Usagef(format, args...) }

// textOf returns the text of an error without the names of the packages tokenstore and
// initializer, because messages begin with the program's name. It also omits most operations of
// package initializer, because the command names the operation.
func textOf(err error) string {
	return packages().Replace(err.Error())
}

// packages removes the package names and the operations that textOf omits.
var packages = sync.OnceValue(func() *strings.Replacer {
	pairs := []string{"tokenstore: ", ""}
	for _, operation := range []string{"open: ", "token: ", "rejected: ", "revoke: ", ""} {
		pairs = append(pairs, "initializer: "+operation, "")
	}
	return strings.NewReplacer(pairs...)
})

// withoutPackage returns err without the name of package tokenstore or of the service at the
// beginning of the text, because users know the store by its URL. The parameter service may be
// empty.
func withoutPackage(err error, service string) error {
	for _, name := range []string{"tokenstore", service} {
		if text, ok := strings.CutPrefix(err.Error(), name+": "); ok && name != "" {
			return restated{err, text}
		}
	}
	return err
}

// A restated error has a different text from the error that it wraps.
type restated struct {
	error
	text string
}

func (e restated) Error() string { return e.text }
func (e restated) Unwrap() error { return e.error }

// derivedID matches IDs that a store derives.
var derivedID = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[ugra][a-z2-7]{32}$`) })

// shortID is the length in bytes up to which errors quote any argument. A longer argument that is
// not a derived ID might be a token. Tokens and keys of the known providers are longer.
const shortID = 12

// maybeToken reports whether text, an argument that should be a name or an ID, might be a token.
func maybeToken(text string) bool { return len(text) > shortID && !derivedID().MatchString(text) }

// fileSuffix matches file names with one or two suffixes of at most five characters. Tokens have
// no such suffixes.
var fileSuffix = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[^.]{1,64}(\.[A-Za-z0-9]{1,5}){1,2}$`) })

// maybeTokenFile reports whether the name of a file might be a token. It returns false for a name
// that is short or has a suffix, for a hidden file, and for a name that begins with an existing
// directory.
func maybeTokenFile(name string) bool {
	if !maybeToken(name) || fileSuffix().MatchString(filepath.Base(name)) {
		return false
	}
	dir := filepath.Dir(name)
	return dir == "." && !strings.HasPrefix(name, ".") || !files.Exists(dir)
}

// A cutError is an error whose text contains the first four bytes of an argument in place of the
// argument.
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

// withoutToken returns err. If may(arg) is true, the text of the error contains only the first
// four bytes of arg.
func withoutToken(err error, arg string, may func(string) bool) error {
	if err == nil || !may(arg) {
		return err
	}
	return cutError{err, arg}
}

// isPlain reports whether text, the text of an error, says that a server does not speak TLS. It
// returns false for the error with which package vaultstore already reports a wrong address.
// Some clients keep only the text of the cause, so isPlain cannot use errors.Is.
func isPlain(text string) bool {
	return strings.Contains(text, "does not look like a TLS handshake") ||
		strings.Contains(text, http.ErrSchemeMismatch.Error()) && !strings.Contains(text, "its address says https")
}

// hint returns advice for err, or "" if there is none. If a server does not speak TLS, the advice
// is to correct the address of the server. For other errors from a store, the advice comes from
// the store's scheme, or is to run doctor --permissions.
func (a *app) hint(err error) string {
	if isPlain(err.Error()) {
		return "the server answers without TLS, as one for http does, and its address says https: correct the address"
	}
	var of *tokenstore.Error
	if !errors.As(err, &of) {
		return ""
	}
	i := slices.IndexFunc(a.schemes, func(s scheme.Scheme) bool { return s.Service == of.Store && s.SignIn+s.Denied != "" })
	switch {
	case i < 0:
		return ""
	case errors.Is(err, driver.ErrCredentials) && a.schemes[i].SignIn != "":
		return "the credentials are expired, revoked or unknown, and no permission is missing: " + a.schemes[i].SignIn
	case !errors.Is(err, tokenstore.ErrDenied):
		return ""
	case a.schemes[i].Denied != "":
		return a.schemes[i].Denied
	case a.tried:
		return ""
	}
	return "'tokenkeep doctor --permissions' names the permissions that are missing"
}

func exitCodes() string {
	var b strings.Builder
	b.WriteString("Each error has an exit code and a class. With --json, each error is one line on standard\nerror: {\"error\":\"...\",\"class\":\"...\",\"code\":3}.\n\n")
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
what is already done is not changed. If there is advice for an error, its object has a
"hint".
`)
	return b.String()
}

// sortedClasses returns the classes that have a text, ordered by exit code.
func sortedClasses() []class {
	all := slices.DeleteFunc(slices.Concat([]class{classOK, classOther}, classes), func(c class) bool { return c.text == "" })
	slices.SortStableFunc(all, func(a, b class) int { return cmp.Compare(a.code, b.code) })
	return all
}

// problems joins the first 20 errors, and an error with the number of remaining errors. It
// returns nil if errs is empty.
func problems(errs []error) error {
	const most = 20
	if more := len(errs) - most; more > 0 {
		errs = append(errs[:most:most], fmt.Errorf("and %d more", more))
	}
	return errors.Join(errs...)
}
