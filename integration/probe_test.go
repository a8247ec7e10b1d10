package integration

import (
	"context"
	"database/sql"
	sqldriver "database/sql/driver"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// A probe observes the calls of one process to its store: each read of the record, and each
// request or SQL statement. A probe can kill its process at a given point.
type probe struct {
	death death

	mu        sync.Mutex
	armed     bool
	closers   []func()
	requests  int
	reads     []span
	answered  int64 // time after the accounts server had answered this process; 0 if the server has not answered
	committed int64 // time after the store had stored the answer; 0 if the answer is not stored
}

// A span is the time from Begin to End. All times of a probe are in nanoseconds since the Unix
// epoch, because tests compare them with times of other processes.
type span struct{ Begin, End int64 }

// A death is the point at which a process is killed with SIGKILL. The zero death means that
// the process is not killed.
type death struct {
	Request int  // before the request with this number, from 1
	After   bool // just after the request instead of before it

	Asking   bool // before the request to the accounts server
	Answered bool // just after the accounts server has answered

	Started time.Duration // if positive, the time from the beginning of the refresh
	Since   time.Duration // if positive, the time from the answer of the accounts server
}

// die kills this process immediately. The process does not flush, unlock or close anything.
func die() {
	self, err := os.FindProcess(os.Getpid())
	if err == nil {
		err = self.Kill()
	}
	if err != nil {
		panic(err)
	}
	select {}
}

func (p *probe) arm() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.armed = true
	if p.death.Started > 0 {
		time.AfterFunc(p.death.Started, die)
	}
}

// close closes the connections of the probed clients and databases.
func (p *probe) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.closers {
		c()
	}
	p.closers = nil
}

func (p *probe) closing(c func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closers = append(p.closers, c)
}

// request calls the function do, which makes one request to the store. Once the probe is armed,
// request counts the requests, and kills the process at the request that death names.
func (p *probe) request(do func()) {
	p.mu.Lock()
	n := 0
	if p.armed {
		p.requests++
		n = p.requests
	}
	p.mu.Unlock()
	dying := n > 0 && n == p.death.Request
	if dying && !p.death.After {
		die()
	}
	do()
	if dying {
		die()
	}
}

// read calls the function do, which reads the record. Once the probe is armed, read records the
// span of each read.
func (p *probe) read(do func()) {
	begin := time.Now().UnixNano()
	do()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.armed {
		p.reads = append(p.reads, span{begin, time.Now().UnixNano()})
	}
}

// looks returns a clock for a store whose reads the probe cannot observe. Each use of the
// clock is recorded as a read. The store uses the clock only after a read that returns a token
// other than the stale token. Each read after the commit returns another token, and is therefore
// recorded.
func (p *probe) looks(now func() time.Time) func() time.Time {
	return func() time.Time {
		p.read(func() {})
		return now()
	}
}

// ask calls the function do, which sends a request to the accounts server. ask records the time of
// the answer, and kills the process at the points that death names.
func (p *probe) ask(do func()) {
	if p.death.Asking {
		die()
	}
	do()
	if p.death.Answered {
		die()
	}
	if p.death.Since > 0 {
		time.AfterFunc(p.death.Since, die)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answered = time.Now().UnixNano()
}

func (p *probe) wrote() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.answered != 0 && p.committed == 0 {
		p.committed = time.Now().UnixNano()
	}
}

// client returns an HTTP client whose requests the probe observes.
func (p *probe) client() *http.Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	p.closing(transport.CloseIdleConnections)
	return &http.Client{Transport: probedTransport{transport, p}}
}

type probedTransport struct {
	http.RoundTripper
	probe *probe
}

func (t probedTransport) RoundTrip(r *http.Request) (resp *http.Response, err error) {
	t.probe.request(func() { resp, err = t.RoundTripper.RoundTrip(r) })
	return resp, err
}

// interceptor is a gRPC interceptor that lets the probe observe calls.
func (p *probe) interceptor(ctx context.Context, method string, req, reply any, c *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) (err error) {
	p.request(func() { err = invoke(ctx, method, req, reply, c, opts...) })
	return err
}

// driver returns a driver whose calls to d the probe observes. The driver is a
// driver.Leaser if d is a driver.Leaser.
func (p *probe) driver(d driver.Secrets) driver.Secrets {
	seen := probedDriver{d, p}
	if l, ok := d.(driver.Leaser); ok {
		return probedLeaser{seen, l}
	}
	return seen
}

type probedDriver struct {
	driver.Secrets
	probe *probe
}

func (d probedDriver) Get(ctx context.Context, name string) (s driver.Secret, err error) {
	d.probe.read(func() { s, err = d.Secrets.Get(ctx, name) })
	return s, err
}

func (d probedDriver) Fresh(ctx context.Context, name string, than driver.Secret) (s driver.Secret, err error) {
	d.probe.read(func() { s, err = d.Secrets.Fresh(ctx, name, than) })
	return s, err
}

func (d probedDriver) Update(ctx context.Context, name string, base driver.Secret, p driver.Payload) (driver.Version, error) {
	v, err := d.Secrets.Update(ctx, name, base, p)
	if err == nil {
		d.probe.wrote()
	}
	return v, err
}

type probedLeaser struct {
	probedDriver
	leaser driver.Leaser
}

func (d probedLeaser) Note(ctx context.Context, name string, base driver.Secret, note string) error {
	return d.leaser.Note(ctx, name, base, note)
}

// db opens a database whose statements the probe observes.
func (p *probe) db(name, dsn string) (*sql.DB, error) {
	db, err := sql.Open(name, dsn)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	seen := sql.OpenDB(probedConnector{db.Driver(), dsn, p})
	p.closing(func() { _ = seen.Close() })
	return seen, nil
}

type probedConnector struct {
	driver sqldriver.Driver
	dsn    string
	probe  *probe
}

func (c probedConnector) Driver() sqldriver.Driver { return c.driver }

func (c probedConnector) Connect(context.Context) (sqldriver.Conn, error) {
	conn, err := c.driver.Open(c.dsn)
	if err != nil {
		return nil, err
	}
	return probedConn{conn, c.probe}, nil
}

// A probedConn is a connection whose statements the probe observes, except for prepared
// statements. The connection must implement QueryerContext, ExecerContext, ConnPrepareContext,
// ConnBeginTx and Pinger, as the connections of MySQL and SQLite do.
type probedConn struct {
	sqldriver.Conn
	probe *probe
}

func (c probedConn) QueryContext(ctx context.Context, query string, args []sqldriver.NamedValue) (rows sqldriver.Rows, err error) {
	ask := func() {
		c.probe.request(func() { rows, err = c.Conn.(sqldriver.QueryerContext).QueryContext(ctx, query, args) })
	}
	if strings.HasPrefix(query, "SELECT") && strings.Contains(query, "oauthtoken`") {
		c.probe.read(ask)
	} else {
		ask()
	}
	return rows, err
}

func (c probedConn) ExecContext(ctx context.Context, query string, args []sqldriver.NamedValue) (result sqldriver.Result, err error) {
	c.probe.request(func() { result, err = c.Conn.(sqldriver.ExecerContext).ExecContext(ctx, query, args) })
	if err == nil && query == "COMMIT" {
		c.probe.wrote()
	}
	return result, err
}

func (c probedConn) PrepareContext(ctx context.Context, query string) (sqldriver.Stmt, error) {
	return c.Conn.(sqldriver.ConnPrepareContext).PrepareContext(ctx, query)
}

func (c probedConn) BeginTx(ctx context.Context, opts sqldriver.TxOptions) (sqldriver.Tx, error) {
	return c.Conn.(sqldriver.ConnBeginTx).BeginTx(ctx, opts)
}

func (c probedConn) Ping(ctx context.Context) error { return c.Conn.(sqldriver.Pinger).Ping(ctx) }

func (c probedConn) ResetSession(ctx context.Context) error {
	if r, ok := c.Conn.(sqldriver.SessionResetter); ok {
		return r.ResetSession(ctx)
	}
	return nil
}

func (c probedConn) IsValid() bool {
	v, ok := c.Conn.(sqldriver.Validator)
	return !ok || v.IsValid()
}

func (c probedConn) CheckNamedValue(v *sqldriver.NamedValue) error {
	if n, ok := c.Conn.(sqldriver.NamedValueChecker); ok {
		return n.CheckNamedValue(v)
	}
	return sqldriver.ErrSkip
}
