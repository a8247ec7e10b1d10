package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// sample returns results without failures.
func sample() *results {
	r := &results{
		sizes:     sizes{tokens: []int{10, 1000}, instances: 100, doubles: 5, histories: 2, mistakes: 50, records: 20, many: 1000},
		Args:      []string{"-doubles", "5"},
		Began:     time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC),
		Cells:     map[string][]cell{},
		Usage:     map[string]usage{},
		Measured:  map[string][]measurement{},
		Stampedes: map[string][]stampeded{},
		Mistaken:  map[string]int{"forgets": 3},
		Locals:    []localCost{{Name: localSource}},
		Fresh:     interval{Value: 1, Low: 0.9, High: 1.1},
		Virtual: virtual{
			Crowds:     []crowdResult{{Service: "aws", Processes: 300, Requests: 1, Calls: 1200, Throttled: 7, LastAfter: 2500 * time.Millisecond}},
			Peers:      []peerResult{{By: "redis", Within: time.Second, Requests: 1, Calls: 500, Took: 3 * time.Second}},
			Migrations: []migration{{Service: "aws", Records: 1000, Verified: 1000, Calls: 1100, Took: 20 * time.Second, Least: 19 * time.Second}},
		},
	}
	r.Started = map[string]startCost{}
	for _, service := range coldServices {
		r.Started[service] = startCost{Keep: 5 * time.Millisecond, Bare: 4500 * time.Microsecond, CPU: interval{Value: 1.1, Low: 1, High: 1.2}, Wall: interval{Value: 1, Low: 1, High: 1}}
	}
	for _, service := range services {
		for f := range faults {
			r.Cells[service] = append(r.Cells[service], cell{Service: service, Operation: "find", Fault: f, Calls: 2})
		}
		r.Usage[service] = usage{Service: service, Records: 20, Refreshes: 14_400, Versions: 3,
			Calls: map[string]int{"AccessSecretVersion": 14_400, "AddSecretVersion": 14_400, "PutSecretValue": 14_400}}
		for _, n := range r.tokens {
			r.Measured[service] = append(r.Measured[service],
				measurement{Service: service, Operation: byUser, Contender: tokenkeep, Tokens: n, Calls: 2, Ratio: interval{Value: 1, Low: 1, High: 1}},
				measurement{Service: service, Operation: byUser, Contender: listScan, Tokens: n, Calls: 1 + n, Ratio: interval{Value: 9, Low: 8, High: 10}},
				measurement{Service: service, Operation: byUser, Contender: oneBlob, Tokens: n, Missing: "does not fit"})
		}
		for _, strict := range []bool{false, true} {
			r.Stampedes[service] = append(r.Stampedes[service],
				stampeded{Service: service, Contender: tokenkeep, Strict: strict, Requests: 1, Usable: true},
				stampeded{Service: service, Contender: perUser, Strict: strict, Requests: 100, Failed: 90, Usable: !strict})
		}
	}
	return r
}

func everyPage(r *results) string {
	var all strings.Builder
	for _, page := range r.pages() {
		all.Write(page)
	}
	return all.String()
}

func TestDocument(t *testing.T) {
	t.Parallel()
	r := sample()
	if err := r.verdict(); err != nil {
		t.Error(err)
	}
	text := everyPage(r)
	for _, want := range []string{
		"| calls to find a token by its user alone, of 1,000 | 2 | 2 | 2 | 2 |",
		"| the same by listing and scanning | 1,001 | 1,001 | 1,001 | 1,001 |",
		"| secret per user | 100 (90) | 100 (90) | 100 (90) | 100 (90) |",
		"| Vault KV v2 | 22 | 0 | 5 | 0 |",
		"88 runs with one fault and 20 with two.",
		"| AWS Secrets Manager | 300 | 1 | 0 | 1,200 | 7 | 2.5s |",
		"| AWS Secrets Manager | 1,000 | 1,000 | 1,100 | 20s | 19s |",
		"| redis | 1s | 1 | 0 | 500 | 3s |",
		"go -C evidence run . -out ../docs -doubles 5\n",
		"| forgets | 3 |",
		"does not fit",
		"| Vault KV v2 | 5.0 and 4.5 ms | 1.10 [1.00, 1.20] |",
		"## What could not be proved",
		"`-doubles 25000` (here 5)",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %q", want)
		}
	}
	if host, err := os.Hostname(); err == nil && len(host) > 3 && strings.Contains(text, host) {
		t.Error("it has the name of this machine")
	}
	if strings.Contains(text, "%!") {
		t.Error("a text was formatted with what it has no room for")
	}
}

func TestDocumentFailures(t *testing.T) {
	t.Parallel()
	r := sample()
	r.Cells["aws"][0].Failures = []string{"call 0: a record is lost"}
	r.Mistaken["forgets"] = 0
	r.Started["gcp"] = startCost{CPU: interval{Value: 2.5, Low: 2.4, High: 2.6}}
	r.Virtual.Failed = []string{"TestCrowd/aws"}
	text := everyPage(r)
	for _, want := range []string{"**1 of 2 wrong**", "a record is lost", "**none of 50**", "These tests failed: **TestCrowd/aws**"} {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %q", want)
		}
	}
	if err := r.verdict(); err == nil || !strings.Contains(err.Error(), "aws runs with one fault") || !strings.Contains(err.Error(), "forgets") ||
		!strings.Contains(err.Error(), "cold start on gcp") || !strings.Contains(err.Error(), "TestCrowd/aws") {
		t.Errorf("the verdict is %v", err)
	}
}

// TestResume checks that a run resumes with the results of an earlier run, and refuses the
// results of a run with other flags.
func TestResume(t *testing.T) {
	t.Parallel()
	kept := filepath.Join(t.TempDir(), "results.json")
	r := sample()
	if fresh, err := resume(kept, r); fresh != r || err != nil {
		t.Errorf("without a file: error %v", err)
	}
	if err := r.keep(kept); err != nil {
		t.Fatal(err)
	}
	again, err := resume(kept, &results{sizes: r.sizes, Args: r.Args})
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(again.pages(), r.pages()) {
		t.Error("the pages differ after a restart")
	}
	if _, err := resume(kept, &results{sizes: r.sizes, Args: []string{"-doubles", "6"}}); err == nil {
		t.Error("the results of other sizes are accepted")
	}
}

func TestReadVirtual(t *testing.T) {
	t.Parallel()
	v, err := readVirtual([]byte(`{"Action":"attr","Test":"TestCrowd/a","Key":"crowd","Value":"{\"Service\":\"aws\",\"Requests\":1}"}
{"Action":"output","Test":"TestCrowd/a","Output":"text"}
{"Action":"fail","Test":"TestCrowd/a"}
{"Action":"fail"}
`))
	if want := (virtual{Crowds: []crowdResult{{Service: "aws", Requests: 1}}, Failed: []string{"TestCrowd/a"}}); err != nil || !reflect.DeepEqual(v, want) {
		t.Errorf("%+v, error %v; want %+v", v, err, want)
	}
}

func TestReadByService(t *testing.T) {
	t.Parallel()
	read := func(wrong string, more string) (map[string]doubled, error) {
		out := more
		for _, service := range services {
			out += `{"Action":"attr","Test":"TestTwoFaults/` + service + `","Key":"doubles","Value":"{\"Service\":\"` + service + `\",\"Wrong\":[` + wrong + `]}"}` + "\n"
		}
		return readByService([]byte(out), attrDoubles, func(d doubled) (string, bool) { return d.Service, len(d.Wrong) > 0 })
	}
	const failed = `{"Action":"fail","Test":"TestTwoFaults/gcp"}` + "\n"
	if all, err := read("", `{"Action":"output","Test":"TestTwoFaults"}`+"\n"); err != nil || len(all) != len(services) || all["gcp"].Service != "gcp" {
		t.Errorf("without failures: %v, %v", all, err)
	}
	if all, err := read(`{\"Seed\":7}`, failed); err != nil || len(all["k8s"].Wrong) != 1 || all["k8s"].Wrong[0].Seed != 7 {
		t.Errorf("with a failed run: %v, %v", all, err)
	}
	if _, err := read("", failed); err == nil {
		t.Error("a failed test without a failed run is no error")
	}
	if _, err := readByService([]byte(failed), attrDoubles, func(d doubled) (string, bool) { return d.Service, true }); err == nil {
		t.Error("a service without a result is no error")
	}
}
