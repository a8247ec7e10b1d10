package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/fakeaws"
	"github.com/tokenkeep/tokenkeep/internal/fakegcp"
	"github.com/tokenkeep/tokenkeep/internal/fakeserver"
	"github.com/tokenkeep/tokenkeep/internal/fakevault"
	"github.com/tokenkeep/tokenkeep/tokenstore/doctor"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// brief returns the arguments of a short measurement.
func brief(more ...string) []string {
	return append([]string{"doctor", "--races", "--yes", "--rounds", "3", "--racers", "4", "--samples", "2", "--within", "1s", "--json"}, more...)
}

// noProbesLeft waits at most ten seconds until doctor finds no temporary secret, because lists of
// the service can lag. It ignores tombstones.
func noProbesLeft(t *testing.T, e env) {
	t.Helper()
	var left []findingJSON
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); <-time.After(10 * time.Millisecond) {
		left = nil
		for _, f := range decode[doctorReport](t, e.tk(t, "", "doctor", "--json", "--grace", "0s").out).Findings {
			if strings.HasPrefix(f.Name, "tokenkeepprobe") && f.Kind != string(doctor.KindTombstone) {
				left = append(left, f)
			}
		}
		if len(left) == 0 {
			return
		}
	}
	t.Errorf("left: %+v", left)
}

// onlyWinners checks that both kinds of race have the given number of rounds, each with one
// winner.
func onlyWinners(t *testing.T, r racesReport, rounds int) {
	t.Helper()
	if len(r.Races) != 2 {
		t.Fatalf("%+v", r)
	}
	for _, races := range r.Races {
		if n := tallyOf(races); n != (tally{one: rounds}) {
			t.Errorf("%s: %+v", races.Of, n)
		}
	}
}

// TestRaces checks that a measurement of each service reports one winner in each round and no
// harmful findings, and leaves no temporary secrets.
func TestRaces(t *testing.T) {
	t.Parallel()
	for _, k := range storeKinds[3:] {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			e := k.open(t)
			e.ok(t, `{"user_name":"ann","client_id":"c","refresh_token":"`+canary+`"}`, "save")
			before := contents(t, e)
			out := e.ok(t, "", brief()...)
			r := decode[racesReport](t, out)
			onlyWinners(t, r, 3)
			for _, l := range r.Lags {
				if l.Samples != 2 || l.Later != 0 {
					t.Errorf("%+v", l)
				}
			}
			if r.Stopped != "" || len(r.Findings) != 0 || r.Calls == 0 || r.Requests < int64(r.Calls) || r.Requests > r.MostRequests || r.Drivers != 2 {
				t.Errorf("%s", out)
			}
			if shown(out) != "" {
				t.Errorf("a secret is shown: %s", out)
			}
			if priced := r.Driver == "awssm" || r.Driver == "gcpsm"; (r.MostDollars != nil) != priced {
				t.Errorf("the price of %s is %v", r.Driver, r.MostDollars)
			}
			noProbesLeft(t, e)
			if after := contents(t, e); len(after) != len(before) {
				t.Errorf("%d records before, %d after", len(before), len(after))
			}
		})
	}
}

// TestRacesLag checks that a measurement detects lags, and that a lag is a finding only if it
// exceeds the bound that the driver promises.
func TestRacesLag(t *testing.T) {
	t.Parallel()
	const lag = 300 * time.Millisecond
	lagged := func(t *testing.T, e env, code int) racesReport {
		t.Helper()
		res := e.tk(t, "", brief()...)
		if res.code != code {
			t.Fatalf("exit code %d, want %d: %s", res.code, code, res.err)
		}
		noProbesLeft(t, e)
		r := decode[racesReport](t, res.out)
		onlyWinners(t, r, 3)
		return r
	}
	missed := func(t *testing.T, l doctor.Lag) {
		t.Helper()
		if l.Samples != 2 || l.Later != 0 || l.LongestMS <= 0 {
			t.Errorf("a lag of %v is not seen: %+v", lag, l)
		}
	}
	t.Run("awssm", func(t *testing.T) {
		t.Parallel()
		e, _ := awsEnvOn(t, &fakeaws.Options{ReadLag: lag, ListLag: lag, DeleteDelay: lag})
		for _, l := range lagged(t, e, 0).Lags {
			missed(t, l)
		}
	})
	t.Run("gcpsm", func(t *testing.T) {
		t.Parallel()
		e, server := gcpEnv(t)
		server.SetLag(fakegcp.All(lag))
		for _, l := range lagged(t, e, 0).Lags {
			missed(t, l)
		}
	})
	for name, test := range map[string]struct {
		params string
		code   int
		kind   doctor.Kind
	}{
		"vault":                     {"?read-lag=30s&list-lag=30s", 0, ""},
		"vault, above the promised": {"?read-lag=1ms&list-lag=1ms", 13, doctor.KindLag},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := fakevault.New(&fakevault.Options{Lag: lag})
			t.Cleanup(server.Close)
			e := env{envStore: "vault:secret/oauth/test" + test.params, "VAULT_ADDR": server.URL, "VAULT_TOKEN": fakevault.RootToken}
			r := lagged(t, e, test.code)
			missed(t, r.Lags[0])
			if found := slices.ContainsFunc(r.Findings, func(f doctor.Deviation) bool { return f.Kind == test.kind }); found != (test.kind != "") {
				t.Errorf("%+v", r.Findings)
			}
		})
	}
}

// TestRacesThrottled checks that a measurement finds one winner in each round even if the service
// limits the changes of a secret, as Google Cloud does.
func TestRacesThrottled(t *testing.T) {
	t.Parallel()
	server := fakegcp.New(&fakegcp.Options{Quota: fakegcp.Quota{Change: fakeserver.Rate{Calls: 2, Per: 50 * time.Millisecond}}})
	t.Cleanup(server.Close)
	e := env{envStore: "gcpsm:my-project/oauth?endpoint=http://" + server.Addr}
	r := decode[racesReport](t, e.ok(t, "", brief()...))
	onlyWinners(t, r, 3)
	noProbesLeft(t, e)
}

// TestRacesCalls checks that a measurement ends early when it has made as many calls as --calls
// allows, and that a number below 18 is rejected.
func TestRacesCalls(t *testing.T) {
	t.Parallel()
	e, server := awsEnv(t)
	for _, calls := range []string{"18", "30", "40"} {
		before := total(server.Count())
		r := decode[racesReport](t, e.ok(t, "", brief("--calls", calls)...))
		if made := int64(total(server.Count()) - before); r.Stopped != doctor.StoppedCalls || r.Requests < made || r.Calls > r.MostCalls || strconv.Itoa(r.MostCalls) != calls {
			t.Errorf("%s: %+v, and %d requests were made", calls, r, made)
		}
	}
	if text := e.fails(t, 2, "", brief("--calls", "17")...); !strings.Contains(text, "below 18") {
		t.Errorf("message: %s", text)
	}
	noProbesLeft(t, e)
}

// TestRacesRequests checks that a measurement ends early if its requests are used up, and that the
// measurement then removes its temporary secrets.
func TestRacesRequests(t *testing.T) {
	t.Parallel()
	e, server := awsEnv(t)
	a := &app{schemes: allSchemes(), env: e.get, lookup: e.lookup, errs: io.Discard, now: time.Now}
	s, err := a.openURL(t.Context(), e[envStore])
	if err != nil {
		t.Fatal(err)
	}
	d := s.driver
	o, err := (&doctor.MeasureOptions{}).Complete(d.Properties())
	if err != nil {
		t.Fatal(err)
	}
	b := boundOf("awssm", o)
	b.requests = inProgress + 30
	r, err := a.measured(t.Context(), d, o, b)
	if err != nil || r.Stopped != "requests" || r.Requests < 30 || r.Requests > b.requests || r.Requests < int64(total(server.Count())) {
		t.Errorf("%+v, %v, %d requests", r, err, total(server.Count()))
	}
	noProbesLeft(t, e)
}

func total(counts map[string]int) (n int) {
	for _, c := range counts {
		n += c
	}
	return n
}

// TestRacesInterrupted checks that an interrupted measurement leaves no temporary secret.
func TestRacesInterrupted(t *testing.T) {
	t.Parallel()
	e, server := awsEnvOn(t, &fakeaws.Options{ListLag: time.Hour})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		for server.Count()["BatchGetSecretValue"] < 3 && ctx.Err() == nil {
			<-time.After(time.Millisecond)
		}
		cancel()
	}()
	var out, errs bytes.Buffer
	a := &app{schemes: allSchemes(), env: e.get, lookup: e.lookup, in: strings.NewReader(""), out: bufio.NewWriter(&out), errs: &errs, now: time.Now}
	code := a.run(ctx, []string{"doctor", "--races", "--yes", "--json", "--rounds", "0", "--within", "10m"})
	if r := decode[racesReport](t, out.String()); code != 130 || r.Stopped != doctor.StoppedContext || len(r.Left) != 0 {
		t.Errorf("exit code %d: %s%s", code, &out, &errs)
	}
	server.SetLag(0, 0)
	noProbesLeft(t, e)
}

// TestRacesKilled checks that doctor finds an old temporary secret, which a killed measurement
// leaves behind, and that --repair removes it.
func TestRacesKilled(t *testing.T) {
	t.Parallel()
	for _, k := range storeKinds[3:] {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			e := k.open(t)
			a := &app{schemes: allSchemes(), env: e.get, lookup: e.lookup, errs: io.Discard, now: time.Now}
			s, err := a.openURL(t.Context(), e[envStore])
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = s.Close() }()
			d := s.driver
			label := driver.Label{Key: "probe", Value: strings.Repeat("a", 32), Nonce: strings.Repeat("b", 16)}
			data := `{"tokenkeep_probe":"x","nonce":"y","at":1,"labels":[{"Key":"probe","Value":"` + label.Value + `","Nonce":"` + label.Nonce + `"}]}`
			if _, err := d.Create(t.Context(), "tokenkeepprobeupdate", driver.Payload{Data: []byte(data), Labels: []driver.Label{label}}); err != nil {
				t.Fatal(err)
			}
			if tokens := contents(t, e); len(tokens) != 0 {
				t.Errorf("records: %v", tokens)
			}
			kinds := func(args ...string) (kinds []string) {
				for _, f := range decode[doctorReport](t, e.ok(t, "", append([]string{"doctor", "--json"}, args...)...)).Findings {
					if f.Kind != string(doctor.KindStoreUnkeyed) && f.Kind != string(doctor.KindTombstone) {
						kinds = append(kinds, f.Kind)
					}
				}
				return kinds
			}
			want := []string{string(doctor.KindProbeLeftBehind)}
			if got := kinds(); !slices.Equal(got, want) {
				t.Errorf("found %q", got)
			}
			if got := kinds("--repair"); !slices.Equal(got, want) {
				t.Errorf("repaired %q", got)
			}
			if got := kinds("--grace", "0s"); len(got) != 0 {
				t.Errorf("left: %q", got)
			}
		})
	}
}

func TestRacesUsage(t *testing.T) {
	t.Parallel()
	e, _ := vaultEnv(t)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink("x", link); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"--races"}, "add --yes"},
		{[]string{"--rounds", "3"}, "--rounds requires --races"},
		{[]string{"--yes"}, "--yes requires --races"},
		{[]string{"--races", "--repair"}, "cannot be used together"},
		{[]string{"--races", "--yes", "--racers", "1"}, "racers is not from 2 to 16"},
		{[]string{"--races", "--yes", "--within", "1h"}, "Within is not from"},
		{[]string{"--races", "--yes", "--within", "0s"}, "Within is not from"},
		{[]string{"--races", "--yes", "--rounds", "0", "--samples", "0"}, "nothing to measure"},
		{[]string{"--races", "--yes", "--svg", link}, "symbolic link"},
	} {
		if text := e.fails(t, 2, "y\n", append([]string{"doctor"}, test.args...)...); !strings.Contains(text, test.want) || strings.Contains(text, "token:") {
			t.Errorf("%q: %s", test.args, text)
		}
	}
	if text := (env{envStore: "file:" + writeFile(t, "tokens.csv", header)}).fails(t, 2, "", "doctor", "--races", "--yes"); !strings.Contains(text, "no service to measure") {
		t.Errorf("message: %s", text)
	}
}

func TestAgreesTo(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{"y\n": true, " YES \n": true, "y": true, "n\n": false, "\n": false, "": false, "yesterday\n": false} {
		if got, err := agreesTo(t.Context(), strings.NewReader(text)); got != want || err != nil {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := agreesTo(ctx, endless{t.Context()}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestBoundText(t *testing.T) {
	t.Parallel()
	o := doctor.MeasureOptions{Rounds: 20, Racers: 8, Samples: 20, Calls: 1000}
	for driver, want := range map[string]string{
		"awssm":      "at most 1000 calls, which take at most 6000 requests. At list prices, the requests cost at most $0.04. Until they are removed, up to 2 secrets cost $0.80 a month.",
		"gcpsm":      "at most 1000 calls, which take at most 6000 requests. At list prices, the requests cost at most $0.02. Until they are removed, up to 342 versions cost $20.52 a month.",
		"vaultstore": "at most 1000 calls, which take at most 6000 requests. There is no list price for a request.",
	} {
		if got := boundOf(driver, o).text(); got != want {
			t.Errorf("%s: %s", driver, got)
		}
	}
}

func TestRacesAsText(t *testing.T) {
	t.Parallel()
	e, _ := vaultEnv(t)
	svg := filepath.Join(t.TempDir(), "races.svg")
	args := []string{"doctor", "--races", "--yes", "--rounds", "3", "--samples", "2", "--svg", svg}
	out := e.ok(t, "", args...)
	for _, want := range []string{"at most ", "no list price", "update  3       8       3", "create  3       8       3", "read after write: 2 writes, no lag is promised", "####", "harmful findings 0\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in %s", want, out)
		}
	}
	image := readFile(t, svg)
	wellFormed(t, image)
	for _, want := range []string{"prefers-color-scheme: dark", "<title id=\"title\">Races and lags of vaultstore", "3 of 3 rounds with one winner"} {
		if !strings.Contains(image, want) {
			t.Errorf("%q is not in %s", want, image)
		}
	}
	if strings.Contains(image, "oauth/test") {
		t.Error("the image names the store")
	}
}

func wellFormed(t *testing.T, text string) {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(text))
	for {
		_, err := d.Token()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatalf("%v: %s", err, text)
		}
	}
}

// TestRacesFigures checks the text and the image of a report with rounds of every outcome, and
// with a lag that was not measured.
func TestRacesFigures(t *testing.T) {
	t.Parallel()
	zero := 0.0
	minutes := 300_000.0
	r := racesReport{Measurement: doctor.Measurement{
		Driver: "a<b", Stopped: doctor.StoppedCalls,
		Races: []doctor.Races{{Of: doctor.RaceUpdate, Racers: 2, Rounds: []doctor.Round{{Winners: 2}, {}, {Failed: 2}, {Winners: 1, Lost: true}, {Winners: 1, Refused: 1}}}},
		Lags: []doctor.Lag{
			{Of: doctor.LagRead, PromisedMS: &zero, Samples: 3, Within: 60_000, Later: 1, Buckets: []doctor.Bucket{{WithinMS: 1}, {WithinMS: 60_000, Count: 2}}},
			{Of: doctor.LagSearch, PromisedMS: &minutes, Samples: 0, Within: 60_000},
			{Of: doctor.LagList, Within: 60_000, Skipped: "too many & more"},
		},
		Findings: []doctor.Deviation{{Kind: doctor.KindLag, Detail: "read: 1 < 2"}},
	}}
	text := r.text()
	for _, want := range []string{
		"update  5       2       1           1     1        1     1\n", "within 1m      2  ###########################\n", "not within 1m  1  ##############\n",
		"search after write: 0 writes, at most 5m is promised\n", "no bound is promised\n  not measured: too many & more\n",
		"lag-above-promise: read: 1 < 2\n", doctor.KindLag.Meaning()[:30], "the calls were used up\n", "harmful findings 1\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	image := racesSVG(r)
	wellFormed(t, image)
	if n := strings.Count(image, `<rect class="bad"`); n != 3 {
		t.Errorf("%d squares are bad: %s", n, image)
	}
	if n := strings.Count(image, `<rect class="open"`); n != 1 {
		t.Errorf("%d squares are open: %s", n, image)
	}
}

// TestRacesAsJSON checks the exact set of members of the JSON document that programs read.
func TestRacesAsJSON(t *testing.T) {
	t.Parallel()
	text, err := json.Marshal(racesReport{Measurement: doctor.Measurement{Stopped: doctor.StoppedCalls, Left: []string{"x"}}})
	if err != nil {
		t.Fatal(err)
	}
	got := slices.Sorted(maps.Keys(decode[map[string]any](t, string(text))))
	want := strings.Fields("began calls driver drivers findings lags left most_calls most_dollars most_requests races requests stopped took_ms version")
	if !slices.Equal(got, want) {
		t.Errorf("members %q, want %q", got, want)
	}
}
