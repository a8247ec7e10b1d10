package tokenstore

import (
	"regexp"
	"strings"
	"testing"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// nothing is a driver of which only the facts are asked.
type nothing struct{ driver.Secrets }

func (nothing) Properties() driver.Properties { return driver.Properties{Name: "nothing"} }

func withKeys(t *testing.T, name string, index ...string) *Store {
	t.Helper()
	var o Options
	if name != "" {
		o.NameKey = []byte(name)
	}
	for _, key := range index {
		o.IndexKeys = append(o.IndexKeys, []byte(key))
	}
	s, err := New(nothing{}, &o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

const (
	nameKey  = "0123456789abcdef"
	indexKey = "fedcba9876543210"
)

// TestNamesNeverChange has names that were computed by another program, from the
// description of the derivation. Records are stored under such names: one that
// comes out differently is a record that is not found any more.
func TestNamesNeverChange(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		key  string
		want [5]string
	}{
		{"", [5]string{
			"uw32lfvujqhal7e5ppijpwir2peaeb556", "uhjiojw673i6nio7rhqlncrzwg7rwwola", "ga6gplfsyuk7hapbazl7rv22sg2tyhpn2",
			"rdqxfj7vu4wb5iss4bubt6wctzcc53juo", "a2hfdzjybpqnljf77tb2nod4hksjytbdq",
		}},
		{nameKey, [5]string{
			"uvqidldveahrmoezx6dwe3lsokg5dpa5t", "ugkbn5f47r6jo6ih5oz56646ub4sdqtpy", "gyjqu6dgmfzbkqqpuuvnahb3kyn7ii3fy",
			"radn2nvh2tzt6foohjgc6ony5gb37sa6a", "atyxuwrye7xokhgrt4bufdw5fqo3kzzod",
		}},
	} {
		s := withKeys(t, c.key)
		got := [5]string{
			s.derive(Token{UserName: "ann@example.com:6001", ClientID: "1000.CLIENT", GrantToken: "1000.gt", RefreshToken: "1000.rt", AccessToken: "1000.at"}),
			s.derive(Token{UserName: "ann@example.com:6001", AccessToken: "1000.at"}),
			s.derive(Token{ClientID: "1000.CLIENT", GrantToken: "1000.gt", RefreshToken: "1000.rt", AccessToken: "1000.at"}),
			s.derive(Token{ClientID: "1000.CLIENT", RefreshToken: "1000.rt", AccessToken: "1000.at"}),
			s.derive(Token{ClientID: "1000.CLIENT", AccessToken: "1000.at"}),
		}
		if got != c.want {
			t.Errorf("with key %q the names are\n%v, want\n%v", c.key, got, c.want)
		}
	}
}

// TestLabelsNeverChange does the same for what records are searched by.
func TestLabelsNeverChange(t *testing.T) {
	t.Parallel()
	r := codec.Record{Fields: codec.Fields{ID: "7", UserName: "ann@example.com:6001", ClientID: "1000.CLIENT", GrantToken: "1000.gt", RefreshToken: "1000.rt", AccessToken: "1000.at"}}
	for _, c := range []struct {
		s    *Store
		want map[string]string
	}{
		{withKeys(t, ""), map[string]string{
			"user": "5vxho2dxfnacxddf45nbgsxcon4vnosd", "client": "ntsnwe7iuuxlpkddshudwfbrk3txs7c2", "grant": "ohxckxkqytqv3e7qgemu3vn53cxrnlkx",
			"refresh": "un25xqyaaelxairh6ou3mritfb7rkks5", "access": "7eggtpyw7rbyopkkemsfxwbxkrxkyf6u", "id": "lfg5tnwiodktzje3ie3nzyduqc4kptvs",
		}},
		{withKeys(t, nameKey, indexKey), map[string]string{
			"user": "de2dphcx5oitnujn66b4nf6gxzzcpqgs", "client": "6lmaqdy6n4spw4we4hdxmf47lmnvoitc", "grant": "ti6be2iu7dgcga7bc55kfqofk64tt5mx",
			"refresh": "dtsts53wcsulitc353w3xspxukxjynjl", "access": "ntyalgia3oblcmgr7iv2jonk652uibae", "id": "cpsjaigy4yarjo3xeag2p75vae4kzz3i",
		}},
	} {
		got := c.s.labels(r, nil, "nonce")
		if len(got) != len(c.want) {
			t.Errorf("%d labels, want %d", len(got), len(c.want))
		}
		for _, l := range got {
			if c.want[l.Key] != l.Value || l.Nonce != "nonce" {
				t.Errorf("label %v, want value %q", l, c.want[l.Key])
			}
		}
	}
}

func TestADigestTellsPartsAndKindsAndKeysApart(t *testing.T) {
	t.Parallel()
	seen := map[string]int{}
	digests := []string{
		digest(nil, "u", "a", "bc"), digest(nil, "u", "ab", "c"), digest(nil, "u", "abc"), digest(nil, "u", "abc", ""), digest(nil, "u", "", "abc"),
		digest(nil, "u"), digest(nil, "u", ""), digest(nil, "u", "", ""), digest(nil, "ua", "bc"), digest(nil, "g", "a", "bc"), digest(nil, "", "a", "bc"),
		digest([]byte("key"), "u", "a", "bc"), digest([]byte("kez"), "u", "a", "bc"), digest(nil, "u", "A", "bc"), digest(nil, "u", "a ", "bc"),
		digest(nil, "u", "a\x00\x00\x00\x00\x00\x00\x00\x02bc"), digest(nil, "u", strings.Repeat("a", 1<<16)),
	}
	form := regexp.MustCompile(`^[a-z2-7]{32}$`)
	for i, d := range digests {
		if j, ok := seen[d]; ok {
			t.Errorf("digests %d and %d are equal", i, j)
		}
		seen[d] = i
		if !form.MatchString(d) {
			t.Errorf("digest %d is %q", i, d)
		}
	}
}

func TestNoKeyIsTheEmptyKey(t *testing.T) {
	t.Parallel()
	if digest(nil, "u", "a") != digest([]byte{}, "u", "a") {
		t.Error("a nil key and an empty one make different digests")
	}
}

func TestOnlyDerivedNamesHaveTheirForm(t *testing.T) {
	t.Parallel()
	for _, letter := range nameLetters {
		if id := string(letter) + alphabet; !derived(id) {
			t.Errorf("%q is not taken for derived", id)
		}
	}
	for _, id := range []string{
		"", "u", "1", alphabet, "u" + alphabet[:31], "u" + alphabet + "a", "i" + alphabet, "U" + alphabet, "u" + strings.ToUpper(alphabet),
		"u" + alphabet[:31] + "1", "u" + alphabet[:31] + "8", "u" + alphabet[:30] + "é", " " + alphabet,
	} {
		if derived(id) {
			t.Errorf("%q is taken for derived", id)
		}
	}
}

func TestNoncesAreDifferent(t *testing.T) {
	t.Parallel()
	form := regexp.MustCompile(`^[a-z2-7]{16}$`)
	seen := map[string]bool{}
	for range 1000 {
		n := nonce()
		if seen[n] || !form.MatchString(n) {
			t.Fatalf("nonce %q is of another form or comes twice", n)
		}
		seen[n] = true
	}
}

func TestLabelsThatAreThereKeepTheirNonces(t *testing.T) {
	t.Parallel()
	s := withKeys(t, nameKey, indexKey)
	r := codec.Record{Fields: codec.Fields{UserName: "ann", RefreshToken: "1"}}
	base := s.labels(r, nil, "first")
	r.RefreshToken = "2"
	for _, l := range s.labels(r, base, "second") {
		if want := map[string]string{"user": "first", "refresh": "second"}[l.Key]; l.Nonce != want {
			t.Errorf("label %s has nonce %q, want %q", l.Key, l.Nonce, want)
		}
	}
}

func TestLabelsAreSortedAndDifferent(t *testing.T) {
	t.Parallel()
	s := withKeys(t, nameKey, indexKey)
	r := codec.Record{Fields: codec.Fields{ID: "7", UserName: "ann", ClientID: "c", GrantToken: "g", RefreshToken: "r", AccessToken: "a"}}
	grant := s.grantName("c", "g")
	r.Earlier = []string{grant, s.grantName("c", "g0"), s.refreshName("c", "r0"), s.nameOfID("8")}
	r.Absorbed = []codec.Ref{{Name: grant}, {Name: s.accessName("a0")}}
	labels := s.labels(r, nil, "nonce")
	if len(labels) != 10 {
		t.Errorf("%d labels, want 10", len(labels))
	}
	for i := 1; i < len(labels); i++ {
		a, b := labels[i-1], labels[i]
		if a.Key > b.Key || a.Key == b.Key && a.Value >= b.Value {
			t.Errorf("label %v stands before %v", a, b)
		}
	}
}

func TestOfEarlierTokensTheFirstAndTheLastAreKept(t *testing.T) {
	t.Parallel()
	var earlier []string
	for _, name := range []string{"g1", "r1", "g2", "g3", "r2", "r1", "g3", "g4"} {
		earlier = addEarlier(earlier, name)
	}
	if got := strings.Join(earlier, " "); got != "r1 r2 g1 g4" {
		t.Errorf("kept are %s", got)
	}
}
