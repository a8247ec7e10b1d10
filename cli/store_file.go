package cli

import (
	"context"
	"regexp"
	"strings"
	"sync"

	"github.com/tokenkeep/tokenkeep/cli/internal/files"
	"github.com/tokenkeep/tokenkeep/cli/scheme"
	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore/filestore"
)

// fileScheme returns the scheme of URLs of the form file:PATH. The store is a token file of an
// SDK.
func fileScheme() scheme.Scheme {
	return scheme.Scheme{
		Name: "file",
		Form: "file:PATH",
		Text: `the token file of a Zoho SDK, created if it does not exist; if its contents
do not show which SDK wrote it, use file:PATH?dialect=csharp; the dialects are
` + dialectNames(codec.Dialects(), ", "),
		Open: openFile,
	}
}

var dialectSuffix = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^(.*)\?dialect=([a-z]*)$`) })

// unknownSuffix matches a path with a parameter. A misspelled parameter must not become part of the
// name of a file with tokens.
var unknownSuffix = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`\?([A-Za-z_-]+)=[^/]*$`) })

func openFile(_ context.Context, o *scheme.Opening) (*scheme.Opened, error) {
	rest, opts := o.Rest, &filestore.Options{Observer: o.Observer}
	if m := dialectSuffix().FindStringSubmatch(rest); m != nil {
		d, err := knownDialect(m[2])
		if err != nil {
			return nil, err
		}
		rest, opts.Dialect = m[1], d
	} else if m := unknownSuffix().FindStringSubmatch(rest); m != nil {
		return nil, usagef("file: has no parameter %q: it has dialect", m[1])
	}
	if strings.HasPrefix(rest, "///") { // file:///path
		rest = rest[2:]
	}
	if rest == "" {
		return nil, usagef("file: needs a path")
	}
	if err := files.Check(rest, o.MustExist); err != nil {
		return nil, err
	}
	o.WithoutKeys("a token file")
	s, err := filestore.New(rest, opts)
	if err != nil {
		return nil, scheme.Usage(err)
	}
	return &scheme.Opened{Store: s, Place: "file " + files.Real(rest)}, nil
}
