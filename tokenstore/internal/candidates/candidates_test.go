package candidates

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rules"
)

// TestPlan checks that Plan and Select of an index return the same results as PlanSave and
// Select of package rules. Put has stored random records in the index.
func TestPlan(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 1))
		pick := func(kind string) string {
			if n := random.IntN(4); n > 0 {
				return fmt.Sprint(kind, n)
			}
			return ""
		}
		fields := func() codec.Fields {
			return codec.Fields{ID: pick("i"), UserName: pick("u"), ClientID: pick("c"), RefreshToken: pick("r"), AccessToken: pick("a"), GrantToken: pick("g")}
		}
		var x Index
		for range 20 {
			i := random.IntN(len(x.Records) + 1)
			x.Put(i, rules.Candidate{Fields: fields(), Updated: time.Unix(int64(random.IntN(3)), 0)})
			f := fields()
			got, gotErr := x.Plan(f)
			want, wantErr := rules.PlanSave(f, x.Records)
			if fmt.Sprint(gotErr) != fmt.Sprint(wantErr) || !reflect.DeepEqual(got, want) {
				t.Fatalf("seed %d: record %d, absorb %v (%v), want %d, %v (%v)", seed, got.Record, got.Absorb, gotErr, want.Record, want.Absorb, wantErr)
			}
			for _, x := range []Index{x, New(x.Records)} {
				got, gotErr := x.Select(f)
				want, wantErr := rules.Select(f, x.Records)
				if fmt.Sprint(gotErr) != fmt.Sprint(wantErr) || got != want {
					t.Fatalf("seed %d: record %d (%v), want %d (%v)", seed, got, gotErr, want, wantErr)
				}
			}
		}
	}
}
