package vaultstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// The faults of a mount: it is something else, or nothing is there.
var (
	errNotKV2   = fmt.Errorf("%w: not a KV version 2 secrets engine", driver.ErrRefused)
	errNoEngine = fmt.Errorf("%w: no KV version 2 engine", driver.ErrRefused)
)

// wrongEngine reports whether err is about the mount, and so about all secrets.
func wrongEngine(err error) bool { return errors.Is(err, errNotKV2) || errors.Is(err, errNoEngine) }

// do makes a call. If nothing is mounted where it leads the error says so.
func (s *secrets) do(ctx context.Context, q request, out any) error {
	err := s.vault.do(ctx, q, out)
	if cause := (*refusal)(nil); says(err, textNoRoute) && strings.HasPrefix(q.path, s.mount+"/") && errors.As(err, &cause) {
		return fmt.Errorf("%w at %q: %w", errNoEngine, s.mount, cause)
	}
	return err
}

// An engine is what is known of the secrets engine at a mount. Version 1 of KV
// answers reads and lists as version 2 does where there is nothing, and keeps what
// a write sends it in the clear, whatever that is. So nothing is written, and "not
// found" is not said, before an answer has shown which it is.
type engine struct {
	turn   chan struct{}          // holds one look at a time
	proved atomic.Pointer[string] // where it is KV version 2
	hidden atomic.Bool            // neither the mount nor its configuration may be read
}

// where is what an engine belongs to. The caller may point the client elsewhere.
func (s *secrets) where() string { return s.client.Namespace() + " " + s.client.Address() }

// prove notes that the engine at where is KV version 2.
func (s *secrets) prove(where string) {
	if !s.proved() {
		s.engine.proved.Store(&where)
	}
}

func (s *secrets) proved() bool {
	where := s.engine.proved.Load()
	return where != nil && *where == s.where()
}

// reads returns nil if the engine is KV version 2, or if the token is not allowed
// to find that out by reading.
func (s *secrets) reads(ctx context.Context) error {
	if s.proved() || s.engine.hidden.Load() {
		return nil
	}
	return s.look(ctx, false)
}

// writes returns nil if the engine is KV version 2.
func (s *secrets) writes(ctx context.Context) error {
	if s.proved() {
		return nil
	}
	return s.look(ctx, true)
}

func (s *secrets) look(ctx context.Context, write bool) error {
	select {
	case s.engine.turn <- struct{}{}:
		defer func() { <-s.engine.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if s.proved() {
		return nil
	}
	where := s.where()
	for _, look := range []func(context.Context) error{s.mounted, s.configured} {
		switch err := look(ctx); {
		case err == nil:
			s.prove(where)
			return nil
		case !errors.Is(err, errHidden):
			return err
		}
	}
	if !write {
		s.engine.hidden.Store(true)
		return nil
	}
	err := s.compares(ctx)
	if err == nil {
		s.prove(where)
	}
	return err
}

// errHidden means that an answer does not tell what is mounted.
var errHidden = errors.New("it is not to be seen")

// hidden returns err, or errHidden if it is a refusal that says nothing about the
// mount.
func hidden(err error) error {
	if errors.Is(err, driver.ErrCredentials) {
		return err
	}
	if errors.Is(err, driver.ErrDenied) || errors.Is(err, driver.ErrNotFound) || errors.Is(err, driver.ErrRefused) {
		return errHidden
	}
	return err
}

// mounted asks what is mounted, as "vault kv" does. Every token may that has a
// policy for a path of the mount.
func (s *secrets) mounted(ctx context.Context) error {
	var answer struct {
		Data struct {
			Path    string            `json:"path"`
			Type    string            `json:"type"`
			Options map[string]string `json:"options"`
		} `json:"data"`
	}
	err := s.do(ctx, request{method: http.MethodGet, path: "sys/internal/ui/mounts/" + s.mount}, &answer)
	switch at := strings.Trim(answer.Data.Path, "/"); {
	case err != nil:
		return hidden(err)
	case answer.Data.Type == "":
		return errHidden
	case at != s.mount:
		return fmt.Errorf("%w at %q: that path is in the engine at %q", errNoEngine, s.mount, at)
	case answer.Data.Type == "kv" && answer.Data.Options["version"] == "2":
		return nil
	case answer.Data.Type == "kv" || answer.Data.Type == "generic":
		return fmt.Errorf("mount %q: %w: it is KV version 1; 'vault kv enable-versioning %s' makes it version 2", s.mount, errNotKV2, s.mount)
	}
	return fmt.Errorf("mount %q: %w: it is of the type %q", s.mount, errNotKV2, answer.Data.Type)
}

// configured reads the configuration of the engine, which version 1 has none of.
func (s *secrets) configured(ctx context.Context) error {
	var answer struct {
		Data map[string]json.RawMessage `json:"data"`
	}
	err := s.do(ctx, request{method: http.MethodGet, path: s.mount + "/config"}, &answer)
	switch {
	case errors.Is(err, driver.ErrNotFound):
		return fmt.Errorf("mount %q: %w: it has no configuration", s.mount, errNotKV2)
	case err != nil && !wrongEngine(err):
		return hidden(err)
	case err != nil:
		return err
	}
	for _, setting := range []string{"max_versions", "cas_required"} {
		if answer.Data[setting] == nil {
			return fmt.Errorf("mount %q: %w: its configuration has no %s", s.mount, errNotKV2, setting)
		}
	}
	return nil
}

// compares writes what is no record on the condition that there is a version that
// there is not. Version 2 refuses that.
func (s *secrets) compares(ctx context.Context) error {
	_, err := s.put(ctx, probeName, never, field{fieldDeleted, "a look at the mount"})
	switch {
	case errors.Is(err, driver.ErrConflict):
		return nil
	case err != nil && !errors.Is(err, errNotKV2):
		return err
	case err == nil:
		err = errNotKV2
	}
	// It is version 1, and has kept that.
	_ = s.do(ctx, request{method: http.MethodDelete, path: s.data(probeName)}, nil)
	return fmt.Errorf("mount %q: %w: it does not compare versions", s.mount, err)
}
