package lease

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/internal/stored"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/ledger"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/refreshing"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rules"
)

// TestPrinting checks that package fmt does not print the tokens in the values that refreshes
// and saves handle.
func TestPrinting(t *testing.T) {
	t.Parallel()
	f := codec.Fields{ID: "id", RefreshToken: "canary"}
	e := ledger.Entry{Record: stored.Record{Fields: f}, Token: f, Frozen: []ledger.Entry{{Token: f}}}
	r := &record{entry: e, noted: noted{on: e}}
	for _, v := range []any{
		refreshing.State{Fields: f}, rules.Candidate{Fields: f}, rules.Plan{Fields: f}, rules.RefreshPlan{Fields: f},
		e, []ledger.Entry{e}, (&ledger.Ledger{}).ViewOf(e), r, &held{record: r, entry: e}, inNote{record: r}, inRecord{r},
	} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
			text := fmt.Sprintf(verb, v)
			if strings.Contains(text, "canary") || strings.Contains(strings.ToLower(text), fmt.Sprintf("%x", "canary")) {
				t.Errorf("%s of a %T shows the token", verb, v)
			}
		}
	}
}
