package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"testing"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
)

// A Proxy forwards connections from clients to a server. Break disturbs the connections. The
// address of the proxy stays the same if the server's address changes.
type Proxy struct {
	Addr  string // host:port
	proxy *toxiproxy.Proxy
}

// NewProxy returns a proxy for the server at upstream. The proxy is stopped when the test
// ends.
func NewProxy(t testing.TB, upstream string) *Proxy {
	t.Helper()
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	p := toxiproxy.NewProxy(server, "proxy", "127.0.0.1:0", upstream)
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Stop)
	return &Proxy{Addr: p.Listen, proxy: p}
}

// Move makes the proxy forward new connections to upstream. If upstream differs from the present
// address, Move closes all connections.
func (p *Proxy) Move(t testing.TB, upstream string) {
	t.Helper()
	if err := p.proxy.Update(&toxiproxy.Proxy{Listen: p.Addr, Upstream: upstream, Enabled: true}); err != nil {
		t.Fatal(err)
	}
}

// Break applies toxiproxy's toxic of the given kind, with the attributes, to all connections until
// the returned function is called. stream is "upstream" for data from clients, or "downstream" for
// data from the server.
func (p *Proxy) Break(t testing.TB, kind, stream string, attributes map[string]any) (repair func()) {
	t.Helper()
	toxic, err := json.Marshal(map[string]any{"name": kind, "type": kind, "stream": stream, "attributes": attributes})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.proxy.Toxics.AddToxicJson(bytes.NewReader(toxic)); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := p.proxy.Toxics.RemoveToxic(context.Background(), kind); err != nil {
			t.Error(err)
		}
	}
}
