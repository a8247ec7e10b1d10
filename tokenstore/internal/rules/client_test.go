package rules_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rules"
)

func oneAnn(id, client, issuer, resource string) token {
	return token{ID: id, UserName: "ann", ClientID: client, Issuer: issuer, Resource: resource, RefreshToken: "r" + id, AccessToken: "a" + id}
}

func TestSelect_Issuer(t *testing.T) {
	t.Parallel()
	var records []candidate
	for _, r := range []token{oneAnn("1", "c", "", ""), oneAnn("2", "c", "i", ""), oneAnn("3", "c", "j", ""), oneAnn("4", "c", "i", "x"), oneAnn("5", "", "j", "x")} {
		records = append(records, candidate{Fields: r})
	}
	for _, test := range []struct {
		what string
		like token
		want int // index of the record
		err  error
	}{
		{"no issuer", token{UserName: "ann", ClientID: "c"}, 0, nil},
		{"an issuer", token{UserName: "ann", ClientID: "c", Issuer: "i"}, 1, nil},
		{"an issuer and a resource", token{UserName: "ann", ClientID: "c", Issuer: "i", Resource: "x"}, 3, nil},
		{"a resource", token{UserName: "ann", ClientID: "c", Resource: "x"}, -1, driver.ErrNotFound},
		{"no client, and the same issuer and resource", token{UserName: "ann", Issuer: "j", Resource: "x"}, 4, nil},
		{"no client, and one of two at the issuer", token{UserName: "ann", Issuer: "i"}, -1, rules.ErrAmbiguous},
		{"no client, and the only one at the issuer and for the resource", token{UserName: "ann", Issuer: "i", Resource: "x"}, 3, nil},
		{"an ID", token{ID: "4"}, 3, nil},
		{"an ID and its issuer", token{ID: "4", Issuer: "i"}, 3, nil},
		{"an ID and another issuer", token{ID: "4", Issuer: "j"}, -1, driver.ErrNotFound},
		{"an ID and a resource that it lacks", token{ID: "2", Resource: "x"}, -1, driver.ErrNotFound},
		{"a refresh token at its issuer", token{ClientID: "c", Issuer: "j", RefreshToken: "r3"}, 2, nil},
		{"a refresh token without its issuer", token{ClientID: "c", RefreshToken: "r3"}, -1, driver.ErrNotFound},
		{"an access token", token{AccessToken: "a5", Issuer: "i"}, 4, nil},
	} {
		got, err := rules.Select(test.like, records)
		if got != test.want || !errors.Is(err, test.err) {
			t.Errorf("%s: record %d, error %v, want %d, %v", test.what, got, err, test.want, test.err)
		}
	}
	for _, c := range records {
		like := token{UserName: "ann", ClientID: c.ClientID}
		if rules.Settled(like, c) != (c.Issuer == "" && c.Resource == "") {
			t.Errorf("whether %q is settled without an issuer", c.ID)
		}
	}
}

func TestPlanSave_Issuer(t *testing.T) {
	t.Parallel()
	users := []candidate{{Fields: oneAnn("1", "c", "", "")}, {Fields: oneAnn("2", "c", "i", "")}}
	free := candidate{Fields: token{ID: "9", ClientID: "c", RefreshToken: "r9"}}
	for _, test := range []struct {
		what    string
		save    token
		records []candidate
		record  int
		absorbs int
		owner   token // the user and client of the stored record
		err     string
	}{
		{"another issuer is another record", token{UserName: "ann", ClientID: "c", Issuer: "j", AccessToken: "n"}, users, -1, 0, token{UserName: "ann", ClientID: "c", Issuer: "j"}, ""},
		{"the issuer's record", token{UserName: "ann", ClientID: "c", Issuer: "i", AccessToken: "n"}, users, 1, 0, token{UserName: "ann", ClientID: "c", Issuer: "i"}, ""},
		{"an ID at another issuer", token{ID: "2", Issuer: "j"}, users, 0, 0, token{}, "of another issuer"},
		{"an ID at an issuer that the record lacks", token{ID: "1", Issuer: "j"}, users, 0, 0, token{}, "of another issuer"},
		{"an ID for a resource that the record lacks", token{ID: "2", Resource: "x"}, users, 0, 0, token{}, "for another resource"},
		{"an access token at another issuer", token{AccessToken: "a2", Issuer: "j"}, users, 0, 0, token{}, "of another issuer"},
		{"a record without a user gets an issuer", token{ID: "9", Issuer: "i"}, []candidate{free}, 0, 0, token{ClientID: "c", Issuer: "i"}, ""},
		{"it gets a user and an issuer", token{ID: "9", Issuer: "j", UserName: "ann"}, append(users[:2:2], free), 2, 0, token{UserName: "ann", ClientID: "c", Issuer: "j"}, ""},
		{"it becomes part of the user's record at the issuer", token{ID: "9", Issuer: "i", UserName: "ann"}, append(users[:2:2], free), 1, 1, token{UserName: "ann", ClientID: "c", Issuer: "i"}, ""},
		{"a refresh token at an issuer", token{ClientID: "c", Issuer: "i", RefreshToken: "r9"}, []candidate{free}, -1, 0, token{ClientID: "c", Issuer: "i"}, ""},
	} {
		p, err := rules.PlanSave(test.save, test.records)
		if test.err != "" {
			if !errors.Is(err, rules.ErrIDMismatch) || !strings.Contains(err.Error(), test.err) {
				t.Errorf("%s: error %v, want ErrIDMismatch that says %q", test.what, err, test.err)
			}
			continue
		}
		if err != nil || p.Record != test.record || len(p.Absorb) != test.absorbs || rules.Identity(p.Fields) != test.owner {
			t.Errorf("%s: record %d, %d absorbed, of %+v, error %v", test.what, p.Record, len(p.Absorb), shown(rules.Identity(p.Fields)), err)
		}
	}
}

func TestSameRecord_Issuer(t *testing.T) {
	t.Parallel()
	ann := oneAnn("1", "c", "i", "")
	for _, test := range []struct {
		what  string
		other token
		want  bool
	}{
		{"the same", oneAnn("1", "c", "i", ""), true},
		{"another issuer", oneAnn("1", "c", "j", ""), false},
		{"no issuer", oneAnn("1", "c", "", ""), false},
		{"a resource", oneAnn("1", "c", "i", "x"), false},
		{"its token without a user", token{ClientID: "c", Issuer: "i", RefreshToken: "r1"}, true},
		{"its token without an issuer", token{ClientID: "c", RefreshToken: "r1"}, true},
		{"its token at another issuer", token{ClientID: "c", Issuer: "j", RefreshToken: "r1"}, false},
		{"its token for a resource", token{ClientID: "c", Issuer: "i", Resource: "x", RefreshToken: "r1"}, false},
	} {
		if got := rules.SameRecord(ann, test.other); got != test.want {
			t.Errorf("%s: %v", test.what, got)
		}
	}
}

// TestPlanRefresh_Issuer checks that a minted token is not stored if the issuer of a user's
// record changed while mint ran.
func TestPlanRefresh_Issuer(t *testing.T) {
	t.Parallel()
	minted := token{AccessToken: "n", Issuer: "k", Resource: "y"}
	for _, test := range []struct {
		what      string
		used, now token
		stored    bool
	}{
		{"the same", oneAnn("1", "c", "i", ""), oneAnn("1", "c", "i", ""), true},
		{"another issuer", oneAnn("1", "c", "i", ""), oneAnn("1", "c", "j", ""), false},
		{"an issuer that the user's record lacked", oneAnn("1", "c", "", ""), oneAnn("1", "c", "j", ""), false},
		{"no issuer", oneAnn("1", "c", "i", ""), oneAnn("1", "c", "", ""), false},
		{"an issuer that a record without a user lacked", token{ID: "1", ClientID: "c", RefreshToken: "r"}, token{ID: "1", ClientID: "c", Issuer: "i", RefreshToken: "r"}, true},
	} {
		p := rules.PlanRefresh(test.used, test.now, minted, test.now.AccessToken, at(10))
		if (p.AccessToken == "n") != test.stored || rules.Identity(p.Fields) != rules.Identity(test.now) {
			t.Errorf("%s: stored %v, of %+v", test.what, p.AccessToken == "n", shown(rules.Identity(p.Fields)))
		}
	}
}
