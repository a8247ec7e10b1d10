//go:build linux

package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/fakeaws"
)

// The budgets of an agent with one kind of store.
const (
	mostSize  = 12_000_000             // bytes of the executable
	mostRSS   = 20 << 20               // bytes of resident memory
	mostCPU   = 100 * time.Microsecond // for a request for a record that is in memory
	mostStart = 10 * time.Millisecond  // from exec to the answer of /healthz
)

func TestBudget_Time(t *testing.T) {
	if testing.Short() {
		t.Skip("it measures times")
	}
	dir, err := program()
	if err != nil {
		t.Fatal(err)
	}
	at, err := os.Stat(filepath.Join(dir, "tokenkeep"))
	if err != nil {
		t.Fatal(err)
	}
	if at.Size() > mostSize {
		t.Errorf("the program has %d bytes, more than %d", at.Size(), mostSize)
	}
	secrets := fakeaws.New(nil)
	t.Cleanup(secrets.Close)
	const all = 1000
	users(t, secrets, all)
	// The fastest start counts, because a busy machine only makes starts slower.
	var starts []time.Duration
	for range 10 {
		p := start(t, secrets)
		starts = append(starts, p.healthy())
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
	p := start(t, secrets)
	p.healthy()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}}
	for i := range all {
		name := user
		if i > 0 {
			name = fmt.Sprintf("user%d@example.com:6001", i)
		}
		if status, answer := p.find(client, name); status != http.StatusOK {
			t.Fatalf("%s: status %d: %s", name, status, answer)
		}
	}
	rss := p.rss()
	const finds = 5000
	before, begin := p.cpu(), time.Now()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range finds / 4 {
				if status, _ := p.find(client, user); status != http.StatusOK {
					t.Errorf("status %d", status)
				}
			}
		})
	}
	wg.Wait()
	each := (p.cpu() - before) / finds
	t.Logf("%.1f MB; /healthz %v after exec (the fastest of 10), %v (median); %.1f MiB with %d records; a warm find %v of CPU, %.0f a second with the client beside it",
		float64(at.Size())/1e6, slices.Min(starts).Round(10*time.Microsecond), median(starts).Round(10*time.Microsecond), float64(rss)/(1<<20), all, each, finds/time.Since(begin).Seconds())
	// Other programs on the machine increase the times. The limits on times are therefore
	// multiples of the budgets.
	if rss > mostRSS*11/10 {
		t.Errorf("it takes %d bytes of memory, more than %d", rss, mostRSS)
	}
	if each > 5*mostCPU {
		t.Errorf("a warm find takes %v, more than five times %v", each, mostCPU)
	}
	if slices.Min(starts) > 10*mostStart {
		t.Errorf("it answers after %v, more than ten times %v", slices.Min(starts), mostStart)
	}
}

func median(all []time.Duration) time.Duration {
	slices.Sort(all)
	return all[len(all)/2]
}

// rss returns the resident memory of the process in bytes.
func (p *process) rss() int64 {
	p.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		p.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if kb, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			n, err := strconv.ParseInt(strings.Fields(kb)[0], 10, 64)
			if err != nil {
				p.t.Fatal(err)
			}
			return n << 10
		}
	}
	p.t.Fatal("there is no VmRSS")
	return 0
}

// cpu returns the processor time that the process has used.
func (p *process) cpu() time.Duration {
	p.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		p.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	ticks := 0
	for _, i := range []int{11, 12} { // utime and stime
		n, err := strconv.Atoi(fields[i])
		if err != nil {
			p.t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// TestTenThousandConnections holds as many connections as the agent accepts. It checks that
// the agent refuses each of 10,000 more connections with status 429. It also checks that the
// agent answers again after the held connections are closed.
func TestTenThousandConnections(t *testing.T) {
	if os.Getenv("TOKENKEEP_FULL") == "" {
		t.Skip("it takes ten thousand sockets: set TOKENKEEP_FULL")
	}
	const all = 10_000
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Max < all+100 {
		t.Skipf("%d files may be open, and %d are needed: %v", limit.Max, all+100, err)
	}
	secrets := fakeaws.New(nil)
	t.Cleanup(secrets.Close)
	p := start(t, secrets)
	p.healthy()
	var held []net.Conn // as many connections as the agent accepts
	for range 800 {
		c, err := net.Dial("tcp", p.address)
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, c)
	}
	var refused, other atomic.Int64
	var longest atomic.Int64
	var wg sync.WaitGroup
	begin := time.Now()
	for range all {
		wg.Go(func() {
			from := time.Now()
			c, err := net.Dial("tcp", p.address)
			if err != nil {
				other.Add(1)
				return
			}
			defer func() { _ = c.Close() }()
			_ = c.SetDeadline(time.Now().Add(time.Minute))
			_, _ = fmt.Fprintf(c, "GET /healthz HTTP/1.1\r\nHost: %s\r\n\r\n", p.address)
			if answer, _ := io.ReadAll(c); strings.HasPrefix(string(answer), "HTTP/1.1 429 ") {
				refused.Add(1)
			} else {
				other.Add(1)
			}
			for took := time.Since(from).Nanoseconds(); ; {
				if old := longest.Load(); old >= took || longest.CompareAndSwap(old, took) {
					return
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%d of %d refused with 429 in %v, the longest after %v; %.1f MiB", refused.Load(), all, time.Since(begin).Round(time.Millisecond),
		time.Duration(longest.Load()).Round(time.Millisecond), float64(p.rss())/(1<<20))
	if refused.Load() != all {
		t.Errorf("%d of %d connections are refused with 429, and %d are not", refused.Load(), all, other.Load())
	}
	for _, c := range held {
		_ = c.Close()
	}
	p.healthy()
}
