package tokenstore_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// sdkError stands for the error type of a service's SDK.
type sdkError struct{ status int }

func (e *sdkError) Error() string { return fmt.Sprintf("status %d", e.status) }

var errorClasses = map[string]error{
	"ErrNotFound": tokenstore.ErrNotFound, "ErrAmbiguous": tokenstore.ErrAmbiguous, "ErrConflict": tokenstore.ErrConflict,
	"ErrIDMismatch": tokenstore.ErrIDMismatch, "ErrInvalidToken": tokenstore.ErrInvalidToken, "ErrTooLarge": tokenstore.ErrTooLarge,
	"ErrDenied": tokenstore.ErrDenied, "ErrUnavailable": tokenstore.ErrUnavailable, "ErrCorrupt": tokenstore.ErrCorrupt,
	"ErrNotPersisted": tokenstore.ErrNotPersisted, "Canceled": context.Canceled, "DeadlineExceeded": context.DeadlineExceeded,
}

func TestClassesOfErrorsAreDifferent(t *testing.T) {
	t.Parallel()
	for a, err := range errorClasses {
		for b, class := range errorClasses {
			if errors.Is(err, class) != (a == b) {
				t.Errorf("%s matches %s", a, b)
			}
		}
	}
	for _, c := range []struct{ store, driver error }{
		{tokenstore.ErrNotFound, driver.ErrNotFound}, {tokenstore.ErrConflict, driver.ErrConflict}, {tokenstore.ErrDenied, driver.ErrDenied},
		{tokenstore.ErrUnavailable, driver.ErrUnavailable}, {tokenstore.ErrCorrupt, driver.ErrCorrupt},
	} {
		if !errors.Is(c.driver, c.store) {
			t.Errorf("the driver's %q is not the store's", c.driver)
		}
	}
}

func TestNewErrorKeepsCause(t *testing.T) {
	t.Parallel()
	for name, class := range errorClasses {
		err := tokenstore.NewError("save", "awssm", "1", fmt.Errorf("%w: %w", class, &sdkError{503}))
		var own *sdkError
		if !errors.Is(err, class) || !errors.As(err, &own) || own.status != 503 {
			t.Errorf("%s: %v lost its class or the service's error", name, err)
		}
		for other, class := range errorClasses {
			if other != name && errors.Is(err, class) {
				t.Errorf("an error of class %s matches %s", name, other)
			}
		}
	}
}

func TestNewErrorGivesAClassToWhatHasNone(t *testing.T) {
	t.Parallel()
	err := tokenstore.NewError("save", "awssm", "1", &sdkError{418})
	var own *sdkError
	if !errors.Is(err, tokenstore.ErrUnavailable) || !errors.As(err, &own) {
		t.Errorf("error %v, want ErrUnavailable around the service's error", err)
	}
}

func TestNewErrorKeepsARefusalApart(t *testing.T) {
	t.Parallel()
	refusal := &tokenstore.RefreshError{Code: "invalid_grant", Permanent: true, RetryAfter: time.Minute}
	err := tokenstore.NewError("refresh", "awssm", "1", refusal)
	var got *tokenstore.RefreshError
	if errors.Is(err, tokenstore.ErrUnavailable) || !errors.As(err, &got) || *got != *refusal {
		t.Errorf("error %v, want the refusal and no class of the store", err)
	}
}

func TestNewErrorWrapsOnce(t *testing.T) {
	t.Parallel()
	if err := tokenstore.NewError("save", "awssm", "1", nil); err != nil {
		t.Errorf("the error of nothing is %v", err)
	}
	first := tokenstore.NewError("save", "awssm", "1", tokenstore.ErrConflict)
	if again := tokenstore.NewError("find", "gcpsm", "2", first); !errors.Is(again, first) || again.Error() != first.Error() {
		t.Errorf("it is wrapped again: %v", again)
	}
	around := fmt.Errorf("around: %w", first)
	if again := tokenstore.NewError("find", "gcpsm", "2", around); again.Error() != around.Error() {
		t.Errorf("it is wrapped again: %v", again)
	}
}

func TestTextsOfErrors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err  error
		want string
	}{
		{tokenstore.NewError("save", "awssm", "u4fz", tokenstore.ErrConflict), `tokenstore: save "u4fz" (awssm): changed concurrently`},
		{tokenstore.NewError("list", "memstore", "", tokenstore.ErrDenied), `tokenstore: list (memstore): access denied`},
		{tokenstore.NewError("save", "", "1", tokenstore.ErrNotFound), `tokenstore: save "1": not found`},
		{tokenstore.NewError("save", "awssm", "a\"\n\xff", tokenstore.ErrInvalidToken), `tokenstore: save "a\"\n\xff" (awssm): invalid token`},
		{tokenstore.NewError("save", "awssm", "", &sdkError{418}), `tokenstore: save (awssm): store unavailable: status 418`},
		{&tokenstore.RefreshError{Code: "invalid_grant", Permanent: true}, `refresh refused: "invalid_grant" (permanent)`},
		{&tokenstore.RefreshError{Code: "Access Denied\n"}, `refresh refused: "Access Denied\n" (temporary)`},
	} {
		if c.err.Error() != c.want {
			t.Errorf("the text is\n%s, want\n%s", c.err, c.want)
		}
	}
}

func TestNewErrorLongID(t *testing.T) {
	t.Parallel()
	id := strings.Repeat("x", 256)
	if err := tokenstore.NewError("find", "awssm", id, tokenstore.ErrNotFound); strings.Contains(err.Error(), id) {
		t.Errorf("an ID of %d bytes is repeated", len(id))
	}
	id = id[:255]
	if err := tokenstore.NewError("find", "awssm", id, tokenstore.ErrNotFound); !strings.Contains(err.Error(), id) {
		t.Errorf("an ID of %d bytes is left out", len(id))
	}
}
