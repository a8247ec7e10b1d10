package stored

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/codec"
)

// A peer is a record for package encoding/json, to which Encode and Decode are compared. Unlike
// Decode, package json drops unknown members, ignores the case of names, and accepts repeated
// members.
type peer struct {
	V            int      `json:"v"`
	ID           string   `json:"id,omitempty"`
	UserName     string   `json:"user_name,omitempty"`
	ClientID     string   `json:"client_id,omitempty"`
	ClientSecret string   `json:"client_secret,omitempty"`
	RefreshToken string   `json:"refresh_token,omitempty"`
	AccessToken  string   `json:"access_token,omitempty"`
	GrantToken   string   `json:"grant_token,omitempty"`
	ExpiryTime   int64    `json:"expiry_time,omitempty"`
	RedirectURL  string   `json:"redirect_url,omitempty"`
	APIDomain    string   `json:"api_domain,omitempty"`
	Issuer       string   `json:"issuer,omitempty"`
	Resource     string   `json:"resource,omitempty"`
	Scope        string   `json:"scope,omitempty"`
	TokenType    string   `json:"token_type,omitempty"`
	IDToken      string   `json:"id_token,omitempty"`
	Extra        string   `json:"extra,omitempty"`
	Born         string   `json:"born,omitempty"`
	Nonces       []string `json:"nonces,omitempty"`
	Updated      int64    `json:"updated,omitempty"`
	Writes       []int    `json:"writes,omitempty"`
	Labels       []Label  `json:"labels,omitempty"`
	Earlier      []string `json:"earlier,omitempty"`
	Lease        *Lease   `json:"lease,omitempty"`
	Failure      *Failure `json:"failure,omitempty"`
}

// typical returns a record of typical content and size, about 940 bytes.
func typical() Record {
	r := plainRecord(func(r *Record) {
		r.ClientID, r.ClientSecret = "1000.ABCDEFGHIJKLMNOPQRSTUVWXYZ012345", "0123456789abcdef0123456789abcdef0123456789"
		r.RefreshToken = "1000.0123456789abcdef0123456789abcdef.0123456789abcdef0123456789abcdef"
		r.AccessToken = "1000.fedcba9876543210fedcba9876543210.fedcba9876543210fedcba9876543210"
		r.ExpiryTime, r.APIDomain = 4000000000123, "https://www.zohoapis.eu"
		r.Nonces = []string{nonceE, nonceA}
	})
	for _, key := range []string{"access", "client", "refresh", "user"} {
		r.Labels = append(r.Labels, Label{Key: key, Value: letters, Nonce: nonceA})
	}
	return r
}

// Limits of Encode and Decode: the maximum ratio of their running times to those of package
// encoding/json, and the maximum number of additional allocations.
const (
	mostTimes  = 1.5
	moreAllocs = 5
)

// TestCodec_Time checks that Encode and Decode take at most mostTimes the time of encoding/json,
// and at most moreAllocs more allocations. It checks records with and without the members of a
// token response. It compares the shortest times, which depend less on other programs on the
// machine.
func TestCodec_Time(t *testing.T) { // not parallel: AllocsPerRun counts the allocations of all goroutines
	if testing.Short() {
		t.Skip("it measures times")
	}
	extended := typical()
	extended.Fields = codec.Fields{Issuer: "https://as.example", Resource: "https://mcp.example", Scope: "openid offline_access", TokenType: "Bearer", Extra: `{"ext_expires_in":3599}`}.Or(extended.Fields)
	for name, r := range map[string]Record{"typical": typical(), "with an answer": extended} {
		data, err := Encode(r)
		if err != nil {
			t.Fatal(err)
		}
		var p peer
		if err := json.Unmarshal(data, &p); err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			what         string
			ours, theirs func()
		}{
			{"Decode", func() { _, _ = Decode(data) }, func() { var p peer; _ = json.Unmarshal(data, &p) }},
			{"Encode", func() { _, _ = Encode(r) }, func() { _, _ = json.Marshal(&p) }},
		} {
			ratio := times(c.ours, c.theirs)
			allocs, theirs := testing.AllocsPerRun(100, c.ours), testing.AllocsPerRun(100, c.theirs)
			t.Logf("%s of a record %s, %d bytes: %.2f times the time of encoding/json, %v allocations to %v", c.what, name, len(data), ratio, allocs, theirs)
			if ratio > mostTimes {
				t.Errorf("%s of a record %s takes %.2f times as long as encoding/json, the limit is %v", c.what, name, ratio, mostTimes)
			}
			if allocs > theirs+moreAllocs {
				t.Errorf("%s of a record %s needs %v allocations, encoding/json %v", c.what, name, allocs, theirs)
			}
		}
	}
}

// times returns the ratio of the running times of the functions ours and theirs. It alternates
// rounds of ours and theirs, and compares the fastest rounds. After 20 rounds, it returns as soon
// as the ratio is less than 90% of mostTimes.
func times(ours, theirs func()) (ratio float64) {
	const calls = 100
	round := func(f func()) time.Duration {
		begun := time.Now()
		for range calls {
			f()
		}
		return time.Since(begun)
	}
	a, b := round(ours), round(theirs)
	for n := range 400 {
		a, b = min(a, round(ours)), min(b, round(theirs))
		if ratio = float64(a) / float64(b); n >= 20 && ratio < mostTimes*0.9 {
			break
		}
	}
	return ratio
}

func BenchmarkDecode(b *testing.B) {
	data, err := Encode(typical())
	if err != nil {
		b.Fatal(err)
	}
	b.Run("stored", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := Decode(data); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("json", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var p peer
			if err := json.Unmarshal(data, &p); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	r := typical()
	data, err := Encode(r)
	var p peer
	if err == nil {
		err = json.Unmarshal(data, &p)
	}
	if err != nil {
		b.Fatal(err)
	}
	b.Run("stored", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := Encode(r); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("json", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := json.Marshal(&p); err != nil {
				b.Fatal(err)
			}
		}
	})
}
