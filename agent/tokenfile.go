package agent

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// TokenFile returns the token in the named file, for Config.Token. If the file does not exist,
// TokenFile creates the file with a random token of 130 bits, and creates its directory if
// necessary. Only the owner can read the new file. Programs that use the agent read the token from
// the file. If the token is not valid for Config.Token, TokenFile returns an error. On Unix,
// TokenFile also returns an error if all users can read, write or execute the file.
func TokenFile(name string) (tokenstore.Secret, error) {
	err := writeToken(name)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("agent: write a token: %w", err)
	}
	at, err := os.Stat(name)
	if err != nil {
		return "", fmt.Errorf("agent: read a token: %w", err)
	}
	if at.Mode().Perm()&0o007 != 0 && os.PathSeparator == '/' {
		return "", fmt.Errorf("agent: read a token: all users can open %s: its mode should be 0600", name)
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return "", fmt.Errorf("agent: read a token: %w", err)
	}
	token := tokenstore.Secret(strings.TrimSpace(string(data)))
	return token, checkToken(token)
}

// checkToken returns an error if token is too short or has a character that is not allowed in a
// header.
func checkToken(token tokenstore.Secret) error {
	if len(token) < minToken {
		return fmt.Errorf("agent: the token is shorter than %d characters", minToken)
	}
	for _, c := range token {
		if c <= ' ' || c > '~' {
			return errors.New("agent: the token has a character that a header cannot have")
		}
	}
	return nil
}

// writeToken creates a file with a random token. The error matches fs.ErrExist if the file exists
// or cannot be examined. Other processes never see an incomplete token.
func writeToken(name string) error {
	if _, err := os.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
		return fs.ErrExist
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".token-")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }()
	_, err = f.WriteString(rand.Text() + "\n")
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Link(f.Name(), name) // unlike os.Rename, os.Link never replaces a file
}
