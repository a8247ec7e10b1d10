package ledger

import (
	"regexp"
	"strings"
	"testing"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/internal/stored"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// nothing is a driver of which only the facts are asked.
type nothing struct{ driver.Secrets }

func (nothing) Properties() driver.Properties { return driver.Properties{Name: "nothing"} }

func withKeys(t *testing.T, name string, index ...string) *Ledger {
	t.Helper()
	key := func(text string) []byte {
		if text == "" {
			return nil
		}
		return []byte(text)
	}
	c := Config{NameKeys: [][]byte{key(name)}}
	for _, text := range index {
		c.IndexKeys = append(c.IndexKeys, key(text))
	}
	if len(index) == 0 {
		c.IndexKeys = c.NameKeys
	}
	return New(nothing{}, c)
}

const (
	nameKey  = "0123456789abcdef"
	indexKey = "fedcba9876543210"
)

// TestNames has names that were computed by another program, from the
// description of the derivation. Records are stored under such names: one that
// comes out differently is a record that is not found any more.
func TestNames(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		key  string
		want [5]Name
	}{
		{"", [5]Name{
			"uw32lfvujqhal7e5ppijpwir2peaeb556", "uhjiojw673i6nio7rhqlncrzwg7rwwola", "ga6gplfsyuk7hapbazl7rv22sg2tyhpn2",
			"rdqxfj7vu4wb5iss4bubt6wctzcc53juo", "a2hfdzjybpqnljf77tb2nod4hksjytbdq",
		}},
		{nameKey, [5]Name{
			"uvqidldveahrmoezx6dwe3lsokg5dpa5t", "ugkbn5f47r6jo6ih5oz56646ub4sdqtpy", "gyjqu6dgmfzbkqqpuuvnahb3kyn7ii3fy",
			"radn2nvh2tzt6foohjgc6ony5gb37sa6a", "atyxuwrye7xokhgrt4bufdw5fqo3kzzod",
		}},
	} {
		n := withKeys(t, c.key).Namer()
		got := [5]Name{
			n.Of(codec.Fields{UserName: "ann@example.com:6001", ClientID: "1000.CLIENT", GrantToken: "1000.gt", RefreshToken: "1000.rt", AccessToken: "1000.at"}),
			n.Of(codec.Fields{UserName: "ann@example.com:6001", AccessToken: "1000.at"}),
			n.Of(codec.Fields{ClientID: "1000.CLIENT", GrantToken: "1000.gt", RefreshToken: "1000.rt", AccessToken: "1000.at"}),
			n.Of(codec.Fields{ClientID: "1000.CLIENT", RefreshToken: "1000.rt", AccessToken: "1000.at"}),
			n.Of(codec.Fields{ClientID: "1000.CLIENT", AccessToken: "1000.at"}),
		}
		if got != c.want {
			t.Errorf("with key %q the names are\n%v, want\n%v", c.key, got, c.want)
		}
	}
}

// TestLabels does the same for what records are searched by.
func TestLabels(t *testing.T) {
	t.Parallel()
	r := stored.Record{Fields: codec.Fields{ID: "7", UserName: "ann@example.com:6001", ClientID: "1000.CLIENT", GrantToken: "1000.gt", RefreshToken: "1000.rt", AccessToken: "1000.at"}}
	for _, c := range []struct {
		s    *Ledger
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

func TestDigest(t *testing.T) {
	t.Parallel()
	seen := map[string]int{}
	digests := []string{
		Digest(nil, "u", "a", "bc"), Digest(nil, "u", "ab", "c"), Digest(nil, "u", "abc"), Digest(nil, "u", "abc", ""), Digest(nil, "u", "", "abc"),
		Digest(nil, "u"), Digest(nil, "u", ""), Digest(nil, "u", "", ""), Digest(nil, "ua", "bc"), Digest(nil, "g", "a", "bc"), Digest(nil, "", "a", "bc"),
		Digest([]byte("key"), "u", "a", "bc"), Digest([]byte("kez"), "u", "a", "bc"), Digest(nil, "u", "A", "bc"), Digest(nil, "u", "a ", "bc"),
		Digest(nil, "u", "a\x00\x00\x00\x00\x00\x00\x00\x02bc"), Digest(nil, "u", strings.Repeat("a", 1<<16)),
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

func TestDigest_NoKey(t *testing.T) {
	t.Parallel()
	if Digest(nil, "u", "a") != Digest([]byte{}, "u", "a") {
		t.Error("a nil key and an empty one make different digests")
	}
}

func TestName_Derived(t *testing.T) {
	t.Parallel()
	for _, kind := range ofRecords {
		if id := Name(kind) + alphabet; !id.Derived() {
			t.Errorf("%q is not taken for derived", id)
		}
	}
	for _, id := range []string{
		"", "u", "1", alphabet, "u" + alphabet[:31], "u" + alphabet + "a", "i" + alphabet, "U" + alphabet, "u" + strings.ToUpper(alphabet),
		"u" + alphabet[:31] + "1", "u" + alphabet[:31] + "8", "u" + alphabet[:30] + "é", " " + alphabet,
	} {
		if Name(id).Derived() {
			t.Errorf("%q is taken for derived", id)
		}
	}
}

func TestNonce(t *testing.T) {
	t.Parallel()
	form := regexp.MustCompile(`^[a-z2-7]{16}$`)
	seen := map[string]bool{}
	for range 1000 {
		n := Nonce()
		if seen[n] || !form.MatchString(n) {
			t.Fatalf("nonce %q is of another form or comes twice", n)
		}
		seen[n] = true
	}
}

func TestLabels_Nonces(t *testing.T) {
	t.Parallel()
	s := withKeys(t, nameKey, indexKey)
	r := stored.Record{Fields: codec.Fields{UserName: "ann", RefreshToken: "1"}}
	base := s.labels(r, nil, "first")
	r.RefreshToken = "2"
	for _, l := range s.labels(r, base, "second") {
		if want := map[string]string{"user": "first", "refresh": "second"}[l.Key]; l.Nonce != want {
			t.Errorf("label %s has nonce %q, want %q", l.Key, l.Nonce, want)
		}
	}
}

func TestLabels_Order(t *testing.T) {
	t.Parallel()
	s := withKeys(t, nameKey, indexKey)
	r := stored.Record{Fields: codec.Fields{ID: "7", UserName: "ann", ClientID: "c", GrantToken: "g", RefreshToken: "r", AccessToken: "a"}}
	n := s.Namer()
	grant := string(n.Grant("c", "g"))
	r.Earlier = []string{grant, string(n.Grant("c", "g0")), string(n.Refresh("c", "r0")), string(n.ID("8"))}
	r.Absorbed = []stored.Ref{{Name: grant}, {Name: string(n.Access("a0"))}}
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

func TestAddEarlier(t *testing.T) {
	t.Parallel()
	var earlier []string
	for _, name := range []Name{"g1", "r1", "g2", "g3", "r2", "r1", "g3", "g4"} {
		earlier = addEarlier(earlier, name)
	}
	if got := strings.Join(earlier, " "); got != "r1 r2 g1 g4" {
		t.Errorf("kept are %s", got)
	}
}
