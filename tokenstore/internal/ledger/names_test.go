package ledger

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/internal/stored"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rules"
)

// nothing is a driver that implements only Properties.
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

// TestNames compares names with those that an independent program computed from the
// specification. If the derivation changed, stores would not find their existing records.
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

// TestNamesAtAnIssuer compares names for clients with an issuer or a resource with those that
// the program of TestNames computed. The term of an access token must not depend on the
// issuer and resource.
func TestNamesAtAnIssuer(t *testing.T) {
	t.Parallel()
	n := withKeys(t, "").Namer()
	for _, c := range []struct {
		issuer, resource string
		want             [4]Name
	}{
		{"https://as.example", "", [4]Name{
			"u5qgvhi4c4th7xdtxqsfuv5f3tyf3bbv2", "gpceqpv4qa6ktltoommh5zepy27xfelwr", "rfainouohlgiidqtovdlnbeje5j2hkc3d", "a5cihr3u7ojukatqjehn63o2imn3hric6",
		}},
		{"", "https://mcp.example", [4]Name{
			"uipow7dmxiy5g7dnrywnwaeddpriomn3d", "gliuuuehhcton3wkmgvjigyvwclrogk72", "rwxxb7b6l3l5xjckfopv6ialh6v5bjqpw", "a4hewaalqltefvirypkhsi4i37h3zfs5i",
		}},
		{"https://as.example", "https://mcp.example", [4]Name{
			"umdoq74vayf4dp7nel6afxntpk37z6oaz", "g5ya62ykwpbyayrly4a2drwfmqe3tv2u7", "rjalphg2a2szy2utbxxoewyyq2v2nxqku", "agsrpfreiymkcxumklx47wsadssbbmw7i",
		}},
	} {
		f := codec.Fields{
			UserName: "ann@example.com:6001", ClientID: "1000.CLIENT", GrantToken: "1000.gt", RefreshToken: "1000.rt", AccessToken: "1000.at",
			Issuer: c.issuer, Resource: c.resource,
		}
		got := [4]Name{0: n.Of(f)}
		f.UserName = ""
		got[1] = n.Of(f)
		terms := n.Terms(stored.Record{Fields: f})
		f.GrantToken = ""
		got[2] = n.Of(f)
		f.RefreshToken = ""
		got[3] = n.Of(f)
		if got != c.want {
			t.Errorf("at %q for %q the names are\n%v, want\n%v", c.issuer, c.resource, got, c.want)
		}
		want := []Term{{"client", Digest(nil, "client", "1000.CLIENT")}, {"grant", string(c.want[1][1:])}, {"refresh", string(c.want[2][1:])}, {"access", Digest(nil, "a", "1000.at")}}
		if !slices.Equal(terms, want) {
			t.Errorf("at %q for %q the terms are\n%v, want\n%v", c.issuer, c.resource, terms, want)
		}
		names, by := n.keys(codec.Fields{AccessToken: "1000.at", Issuer: c.issuer, Resource: c.resource})
		if !slices.Equal(names, []Name{n.Access("1000.at"), c.want[3]}) || !slices.Contains(by, want[3]) {
			t.Errorf("an access token is searched for as %v, %v", names, by)
		}
	}
}

// TestFits_ClientLater checks that a name still fits a record if parts of the client were set
// after the record was created.
func TestFits_ClientLater(t *testing.T) {
	t.Parallel()
	n := withKeys(t, nameKey).Namer()
	is := rules.Client{ID: "c", Issuer: "i", Resource: "r"}
	was := before(is)
	if len(was) != 8 || len(before(rules.Client{ID: "c"})) != 2 {
		t.Fatalf("earlier clients: %v", was)
	}
	f := codec.Fields{ClientID: "c", Issuer: "i", Resource: "r", GrantToken: "g", RefreshToken: "r", AccessToken: "a"}
	for _, c := range was {
		for _, name := range []Name{n.Grant(c, "g"), n.Refresh(c, "r")} {
			if !n.Fits(Entry{Record: stored.Record{Fields: f}, Name: name, Token: f}) {
				t.Errorf("the name that %v derives does not fit", c)
			}
		}
		if e := (Entry{Name: n.AccessAt(c, "a"), Token: f}); !n.HadAccess(e, "a") || n.HadAccess(e, "b") {
			t.Errorf("the access token of a record created by %v", c)
		}
	}
	for _, c := range []rules.Client{{ID: "d"}, {ID: "c", Issuer: "j"}, {Resource: "i"}} {
		for _, name := range []Name{n.Grant(c, "g"), n.Refresh(c, "r"), n.User("", c)} {
			if n.Fits(Entry{Record: stored.Record{Fields: f}, Name: name, Token: f}) {
				t.Errorf("the name that %v derives fits", c)
			}
		}
	}
}

// TestLabels compares labels with those that the program of TestNames computed.
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
		got := c.s.WriterOf("nonce").labels(r, stored.Record{})
		if len(got) != len(c.want) {
			t.Errorf("%d labels, want %d", len(got), len(c.want))
		}
		for _, l := range got {
			if c.want[l.Key] != l.Value || l.Nonce != got[0].Nonce || !nonceForm.MatchString(l.Nonce) {
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

var nonceForm = regexp.MustCompile(`^[a-z2-7]{16}$`)

func TestNonce(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for range 1000 {
		n := Nonce()
		if seen[n] || !nonceForm.MatchString(n) {
			t.Fatalf("nonce %q is of another form or comes twice", n)
		}
		seen[n] = true
	}
}

// TestLabels_Nonces checks that a repeated write adds the same labels. A write for another
// incarnation must add other labels. A later write must neither replace unchanged labels nor
// add labels in Former.
func TestLabels_Nonces(t *testing.T) {
	t.Parallel()
	s := withKeys(t, nameKey, indexKey)
	first, second := s.WriterOf("first"), s.WriterOf("second")
	r := stored.Record{Fields: codec.Fields{UserName: "ann", RefreshToken: "1"}, Born: "born"}
	base := stored.Record{Labels: first.labels(r, stored.Record{}), Born: r.Born}
	if again := s.WriterOf("first").labels(r, stored.Record{}); !slices.Equal(again, base.Labels) {
		t.Errorf("a repeated write has the labels %v, want %v", again, base.Labels)
	}
	reborn := r
	reborn.Born = "later"
	for _, l := range first.labels(reborn, stored.Record{}) {
		if slices.Contains(base.Labels, l) {
			t.Errorf("two incarnations have the label %v", l)
		}
	}
	r.RefreshToken = "2"
	added := second.labels(r, base)
	for _, l := range added {
		if kept := slices.Contains(base.Labels, l); kept != (l.Key == "user") {
			t.Errorf("label %v is kept: %v", l, kept)
		}
	}
	base.Former = added
	for _, l := range second.labels(r, base) {
		if l.Key == "refresh" && slices.Contains(added, l) {
			t.Error("a label that another writer may be removing is added again")
		}
	}
}

// TestFormer checks that a write leaves replaced labels to a later write, and that a later
// write removes these labels.
func TestFormer(t *testing.T) {
	t.Parallel()
	label := func(key string, n int) stored.Label {
		return stored.Label{Key: key, Value: strconv.Itoa(n), Nonce: "n"}
	}
	for _, batch := range []int{0, 1, 10} {
		l := withKeys(t, "")
		l.Properties.LabelBatch = batch
		e := Entry{Name: "u", Record: stored.Record{Labels: []stored.Label{label("access", 0), label("user", 0)}}}
		removals, most := 0, 0
		for n := range 40 {
			next := e.Record
			next.Labels = []stored.Label{label("access", n+1), label("user", 0)}
			next.Former = l.former(e, next, leaveReplaced)
			left := slices.Concat(e.Former, []stored.Label{label("access", n)})
			if len(next.Former) < len(left) {
				removals++
			}
			if batch > 0 && !slices.Contains(next.Former, label("access", n)) {
				t.Fatalf("batch %d: what write %d replaces is not left", batch, n)
			}
			e.Record = next
			most = max(most, len(next.Former))
			if same := l.former(e, next, keepFormer); !slices.Equal(same, next.Former) {
				t.Fatalf("batch %d: a write without other labels leaves %d, want %d", batch, len(same), len(next.Former))
			}
			if kept := l.former(e, next, removeFormer); len(kept) > 0 {
				t.Fatalf("batch %d: a rewrite leaves %d", batch, len(kept))
			}
		}
		if most > batch || batch > 0 && (removals < 40/batch-1 || removals > 40/batch) {
			t.Errorf("batch %d: %d labels are left at most, and some are removed %d times", batch, most, removals)
		}
		other := e.Record
		other.Labels = []stored.Label{label("access", 99), label("user", 99)}
		if left := l.former(e, other, leaveReplaced); len(left) > 0 {
			t.Errorf("batch %d: %d labels under another key are left", batch, len(left))
		}
		moved := e.Record
		moved.Moved = &stored.Ref{}
		if left := l.former(e, moved, keepFormer); len(left) > 0 {
			t.Errorf("batch %d: %d labels of a record that has moved are left", batch, len(left))
		}
	}
}

func TestLabels_Order(t *testing.T) {
	t.Parallel()
	s := withKeys(t, nameKey, indexKey)
	r := stored.Record{Fields: codec.Fields{ID: "7", UserName: "ann", ClientID: "c", GrantToken: "g", RefreshToken: "r", AccessToken: "a"}}
	n := s.Namer()
	grant := string(n.Grant(rules.Client{ID: "c"}, "g"))
	r.Earlier = []string{grant, string(n.Grant(rules.Client{ID: "c"}, "g0")), string(n.Refresh(rules.Client{ID: "c"}, "r0")), string(n.ID("8"))}
	r.Absorbed = []stored.Ref{{Name: grant}, {Name: string(n.Access("a0"))}}
	labels := s.WriterOf("nonce").labels(r, stored.Record{})
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
