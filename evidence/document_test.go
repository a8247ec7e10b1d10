package main

import (
	"os"
	"strings"
	"testing"
	"time"
)

// sample are results in which nothing went wrong.
func sample() *results {
	r := &results{
		sizes:     sizes{tokens: []int{10, 1000}, instances: 100, doubles: 5, histories: 2, mistakes: 50, records: 20, many: 1000},
		args:      []string{"-out", "../docs"},
		began:     time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC),
		cells:     map[string][]cell{},
		usage:     map[string]usage{},
		measured:  map[string][]measurement{},
		stampedes: map[string][]stampeded{},
		mistaken:  map[string]int{"forgets": 3},
		locals:    []localCost{{Name: localSource}},
		fresh:     interval{Value: 1, Low: 0.9, High: 1.1},
	}
	for _, service := range services {
		for f := range faults {
			r.cells[service] = append(r.cells[service], cell{Service: service, Operation: "find", Fault: f, Calls: 2})
		}
		r.usage[service] = usage{Service: service, Records: 20, Refreshes: 14_400, Versions: 3,
			Calls: map[string]int{"AccessSecretVersion": 14_400, "AddSecretVersion": 14_400, "TagResource": 14_400}}
		for _, n := range r.tokens {
			r.measured[service] = append(r.measured[service],
				measurement{Service: service, Operation: byUser, Contender: tokenkeep, Tokens: n, Calls: 2, Ratio: interval{Value: 1, Low: 1, High: 1}},
				measurement{Service: service, Operation: byUser, Contender: listScan, Tokens: n, Calls: 1 + n, Ratio: interval{Value: 9, Low: 8, High: 10}},
				measurement{Service: service, Operation: byUser, Contender: oneBlob, Tokens: n, Missing: "does not fit"})
		}
		for _, strict := range []bool{false, true} {
			r.stampedes[service] = append(r.stampedes[service],
				stampeded{Service: service, Contender: tokenkeep, Strict: strict, Requests: 1, Usable: true},
				stampeded{Service: service, Contender: perUser, Strict: strict, Requests: 100, Failed: 90, Usable: !strict})
		}
	}
	return r
}

func TestTheDocumentHasWhatWasMeasured(t *testing.T) {
	t.Parallel()
	r := sample()
	if err := r.verdict(); err != nil {
		t.Error(err)
	}
	text := string(r.document())
	for _, want := range []string{
		"| calls to find a token by its user alone, of 1,000 | 2 | 2 | 2 |",
		"| the same by listing and scanning | 1,001 | 1,001 | 1,001 |",
		"| of them without a token (with Get and Put) | 0 (90) | 0 (90) | 0 (90) |",
		"| one fault at every call of every operation | 66 runs, 0 went wrong |",
		"go -C evidence run . -out ../docs\n",
		"| forgets | 3 |",
		"does not fit",
		"## What we could not prove",
		"`-doubles 100000` (here 5)",
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

func TestWhatWentWrongIsInTheDocumentAndInTheExitStatus(t *testing.T) {
	t.Parallel()
	r := sample()
	r.cells["aws"][0].Failures = []string{"call 0: a record is lost"}
	r.mistaken["forgets"] = 0
	text := string(r.document())
	for _, want := range []string{"**1 of 2 wrong**", "a record is lost", "**none of 50**"} {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %q", want)
		}
	}
	if err := r.verdict(); err == nil || !strings.Contains(err.Error(), "aws runs with one fault") || !strings.Contains(err.Error(), "forgets") {
		t.Errorf("the verdict is %v", err)
	}
}
