package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore/filestore"
)

var fileScheme = scheme{
	name: "file",
	form: "file:PATH",
	text: `the token file of a Zoho SDK, which is made if need be; where its bytes
do not tell which SDK that is, write file:PATH?dialect=csharp; there are
` + dialectNames(codec.Dialects(), ", "),
	open: openFile,
}

// noKeys tells people who have set keys that the keys do nothing for this kind of store.
func (a *app) noKeys(what string) {
	if a.env(envKeys) != "" {
		a.note("%s has no room for what the keys of %s do: its records are not encrypted", what, envKeys)
	}
}

// realPath returns the path of a file without links in it, as far as there is
// such a file.
func realPath(name string) string {
	if abs, err := filepath.Abs(name); err == nil {
		name = abs
	}
	if real, err := filepath.EvalSymlinks(name); err == nil {
		return real
	}
	if dir, err := filepath.EvalSymlinks(filepath.Dir(name)); err == nil {
		return filepath.Join(dir, filepath.Base(name))
	}
	return name
}

// checkPath reports what is wrong with the path of a store, in the same words for
// all kinds that are files, and before they ask for a lock or make one.
func (a *app) checkPath(name string) error {
	info, err := os.Stat(name)
	if err == nil && info.IsDir() {
		return fmt.Errorf("%s is a directory", clean(name))
	}
	if exists(name) {
		return nil
	}
	dir := filepath.Dir(name)
	switch {
	case a.isThere:
		return fmt.Errorf("there is no file %s", clean(name))
	case !exists(dir):
		return fmt.Errorf("there is no directory %s", clean(dir))
	}
	return nil
}

var dialectSuffix = regexp.MustCompile(`^(.*)\?dialect=([a-z]*)$`)

func openFile(_ context.Context, a *app, rest string) (*store, error) {
	opts := &filestore.Options{}
	if m := dialectSuffix.FindStringSubmatch(rest); m != nil {
		d, err := knownDialect(m[2])
		if err != nil {
			return nil, err
		}
		rest, opts.Dialect = m[1], d
	}
	if strings.HasPrefix(rest, "///") { // file:///path
		rest = rest[2:]
	}
	if rest == "" {
		return nil, usagef("file: needs a path")
	}
	if err := a.checkPath(rest); err != nil {
		return nil, err
	}
	a.noKeys("a token file")
	s, err := filestore.New(rest, opts)
	if err != nil {
		return nil, usage{err}
	}
	return &store{TokenStore: s, place: "file " + realPath(rest)}, nil
}
