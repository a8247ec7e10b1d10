package duplicates

import (
	"cmp"
	"reflect"
	"testing"

	"github.com/tokenkeep/tokenkeep/codec"
)

func TestGroups(t *testing.T) {
	t.Parallel()
	got := Groups([][]string{{"i1", "a1", "uann"}, {"i1", "r1"}, nil, {"uann", "r1", "a2"}, {"a2"}}, func(a, b Group) int {
		return cmp.Compare(a.Identity, b.Identity)
	})
	want := []Group{{"uann", []int{0, 3}}, {"r1", []int{1, 3}}, {"a2", []int{3, 4}}, {"i1", []int{0, 1}}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestCompare(t *testing.T) {
	t.Parallel()
	ann := codec.Fields{ID: "1", UserName: "ann", ClientID: "c", RefreshToken: "r"}
	for _, test := range []struct {
		name  string
		other codec.Fields
		byID  bool
		want  Relation
	}{
		{"user and client", codec.Fields{ID: "2", UserName: "ann", ClientID: "c"}, false, Same},
		{"token without a user", codec.Fields{ID: "2", RefreshToken: "r"}, false, Same},
		{"token of another user", codec.Fields{ID: "2", UserName: "ben", ClientID: "c", RefreshToken: "r"}, false, TokenShared},
		{"ID of another user", codec.Fields{ID: "1", UserName: "ben", ClientID: "c"}, true, SameID},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if got := Compare(ann, test.other, test.byID); got != test.want {
				t.Errorf("got %d, want %d", got, test.want)
			}
		})
	}
	if Rank(ann) >= Rank(codec.Fields{ClientID: "c"}) || Rank(codec.Fields{ClientID: "c"}) >= Rank(codec.Fields{}) {
		t.Error("ranks are not user, client, neither")
	}
}
