package tokenfile_test

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/codec/tokenfile"
)

// tokenFile returns a token file with n rows in the form of the SDK for Python.
func tokenFile(n int) []byte {
	var b bytes.Buffer
	b.WriteString("id,user_name,client_id,client_secret,refresh_token,access_token,grant_token,expiry_time,redirect_uri,api_domain\r\n")
	for i := range n {
		fmt.Fprintf(&b, "%d,user%d@example.com:60012345,1000.ABCDEFGHIJKLMNOPQRSTUVWXYZ0123,%042x,1000.%032x.%032x,1000.%032x.%032x,,1767225600000,https://www.example.com/callback,https://www.zohoapis.com\r\n", i+1, i, i, i, i, i, i)
	}
	return b.Bytes()
}

// parse returns an error if Parse fails, or if data has no rows.
func parse(data []byte) error {
	f, err := tokenfile.Parse(data, "")
	if err == nil && f.Len() == 0 {
		err = errors.New("there are no rows")
	}
	return err
}

func scan(data []byte) error {
	r := csv.NewReader(bytes.NewReader(data))
	for {
		if _, err := r.Read(); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
}

// TestParse_Time checks that Parse takes at most twice as long as encoding/csv, which only
// splits the same bytes. It compares the shortest times, because other programs can only make
// times longer.
func TestParse_Time(t *testing.T) {
	if testing.Short() {
		t.Skip("it measures times")
	}
	data := tokenFile(10_000)
	shortest := func(least time.Duration, read func([]byte) error) time.Duration {
		begin := time.Now()
		if err := read(data); err != nil {
			t.Fatal(err)
		}
		return min(least, time.Since(begin))
	}
	const limit = 2
	parsed, scanned := time.Hour, time.Hour
	for range 1000 { // many, because other programs can delay most calls
		parsed, scanned = shortest(parsed, parse), shortest(scanned, scan)
		if parsed <= limit*scanned {
			return
		}
	}
	t.Errorf("10,000 rows take %v, and %v with encoding/csv: the limit is %d times that", parsed, scanned, limit)
}

func BenchmarkParse(b *testing.B) {
	data := tokenFile(10_000)
	for name, read := range map[string]func([]byte) error{"tokenfile": parse, "csv": scan} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := read(data); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
