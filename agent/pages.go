package agent

import (
	"context"
	_ "embed" // for openapi.json
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

//go:embed openapi.json
var document []byte

// Document returns a copy of the OpenAPI document that describes the operations.
func Document() []byte { return append([]byte(nil), document...) }

var healthy = []byte(`{"status":"ok"}`)

// page returns the answer to r if path is the path of a page, and nil otherwise. Pages require no
// token, because they reveal nothing about records.
func (h *Handler) page(r *http.Request, path string) *answer {
	var a answer
	switch path {
	case "/healthz":
		a = answer{status: http.StatusOK, body: healthy}
	case "/readyz":
		a = answer{status: http.StatusOK, body: healthy}
	case "/v1/openapi.json":
		a = answer{status: http.StatusOK, body: document}
	default:
		return nil
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		a = refuse(errPage)
	} else if path == "/readyz" {
		if err := h.readiness.check(r.Context(), h); err != nil {
			a = refuse(err)
		}
	}
	return &a
}

// readyAge is the duration for which the result of a readiness check is reused, and the timeout of
// a check.
const readyAge = 5 * time.Second

// A readiness caches the result of the last readiness check.
type readiness struct {
	mu   sync.Mutex
	at   time.Time
	last error
}

// absentID is an ID that no record has.
const absentID = "tokenkeep-readiness"

// check looks up absentID in the store, and returns the error from the store unless the error
// matches tokenstore.ErrNotFound. If the last result is younger than readyAge, check returns the
// last result.
func (r *readiness) check(ctx context.Context, h *Handler) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := h.now()
	if !r.at.IsZero() && now.Sub(r.at) < readyAge {
		return r.last
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), readyAge)
	defer cancel()
	_, err := h.conf.Store.FindTokenByID(ctx, absentID)
	if errors.Is(err, tokenstore.ErrNotFound) {
		err = nil
	}
	r.at, r.last = h.now(), err
	return err
}
