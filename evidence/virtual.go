package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"time"
)

// virtual holds the results of the tests whose clock is virtual.
type virtual struct {
	Crowds     []crowdResult
	Peers      []peerResult
	Migrations []migration
	Failed     []string // names of the tests that failed
}

// The keys of the attributes in which the tests report their results.
const (
	attrCrowd     = "crowd"
	attrPeer      = "peer"
	attrMigration = "migration"
	attrMonth     = "month"
	attrDoubles   = "doubles"
)

// A crowdResult is the outcome of processes that find the same token expired.
type crowdResult struct {
	Service      string
	Processes    int
	Within       time.Duration // period in which the processes start
	Mint         time.Duration // duration of a token request at the authorization server
	Quotas       bool          // the service enforces its documented quotas
	Fixed        bool          // the quotas count the calls in whole seconds or minutes
	Into         time.Duration // time from the start of a minute until the token is saved
	Known        bool          // the record contains the duration of the previous token request
	Requests     int           // token requests
	Failed       int           // processes without the token
	Calls        int           // calls to the service
	Throttled    int           // calls that were refused because of a quota
	LastAfter    time.Duration // from the commit until the last process ended
	FromTheFirst time.Duration // from the start of the first process to the end of the last
}

// A peerResult is the outcome of a hundred processes that find the same token expired. The
// processes use this module or another lock.
type peerResult struct {
	By       string
	Within   time.Duration // period in which the processes start
	Requests int           // token requests
	Failed   int           // processes without the token
	Calls    int           // calls to the service
	Took     time.Duration
}

type migration struct {
	Service           string
	Records, Verified int
	Calls             int
	Took              time.Duration // time that the writes took
	Least             time.Duration // least time that the quota allows; zero without a quota
}

// measureVirtual runs TestCrowd, TestPeers and TestMigrate_Quota at full size with go test,
// because only tests can use package testing/synctest. If tests fail, the result lists the
// failed tests, and the error is nil.
func measureVirtual(ctx context.Context) (virtual, error) {
	out, err := goTest(ctx, nil, "-timeout=1h", "-run=^(TestCrowd|TestPeers|TestMigrate_Quota)$", ".", "-evidence.crowd")
	if err != nil {
		return virtual{}, err
	}
	v, err := readVirtual(out)
	if err == nil && len(v.Crowds) == 0 {
		err = fmt.Errorf("the tests have no results:\n%s", out)
	}
	return v, err
}

// goTest runs go test -json with the flags args, and returns the output of the command. goTest
// does not return an error for failed tests. The variables in env are added to the environment.
func goTest(ctx context.Context, env []string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", append([]string{"test", "-json", "-count=1"}, args...)...)
	cmd.Dir, cmd.Env = sourceFolder(), append(os.Environ(), env...)
	out, err := cmd.Output()
	if failed := (*exec.ExitError)(nil); errors.As(err, &failed) {
		err = ctx.Err()
	}
	return out, err
}

// measureMonth runs TestMonth with go test, and returns the results by service.
func measureMonth(ctx context.Context, records int) (map[string]usage, error) {
	return byService(ctx, "^TestMonth$", attrMonth, func(u usage) (string, bool) { return u.Service, u.Refused > 0 },
		"-evidence.records="+strconv.Itoa(records))
}

// A doubled holds the failed runs with two faults on a service.
type doubled struct {
	Service string
	Wrong   []double
}

// measureDoubles runs TestTwoFaults with go test, and returns the failed runs by service.
func measureDoubles(ctx context.Context, runs int, seed uint64) (map[string][]double, error) {
	all, err := byService(ctx, "^TestTwoFaults$", attrDoubles, func(d doubled) (string, bool) { return d.Service, len(d.Wrong) > 0 },
		"-evidence.doubles="+strconv.Itoa(runs), "-evidence.seed="+strconv.FormatUint(seed, 10))
	wrong := map[string][]double{}
	for service, d := range all {
		wrong[service] = d.Wrong
	}
	return wrong, err
}

// byService runs the tests that match pattern, and returns the result of readByService. The fakes
// allocate much and keep little, so infrequent garbage collections save time.
func byService[T any](ctx context.Context, pattern, key string, about func(T) (string, bool), flags ...string) (map[string]T, error) {
	out, err := goTest(ctx, []string{"GOGC=800", "GOMEMLIMIT=8GiB"}, append([]string{"-timeout=24h", "-run=" + pattern, "."}, flags...)...)
	if err != nil {
		return nil, err
	}
	return readByService(out, key, about)
}

// readByService returns the values of the attribute key in out, the output of go test -json, by
// service. The function about returns the service of a value, and reports whether the value
// explains a failed test. readByService returns an error if a service has no value, or if no value
// explains a failed test.
func readByService[T any](out []byte, key string, about func(T) (string, bool)) (map[string]T, error) {
	var values []T
	failed, err := readAttributes(out, func(k, value string) error {
		if k != key {
			return nil
		}
		return appendJSON(&values, value)
	})
	if err != nil {
		return nil, err
	}
	all, explained := map[string]T{}, false
	for _, v := range values {
		service, wrong := about(v)
		all[service], explained = v, explained || wrong
	}
	if len(all) < len(services) || len(failed) > 0 && !explained {
		return nil, fmt.Errorf("the tests failed or have no results:\n%s", out)
	}
	return all, nil
}

// readVirtual returns the results and the names of failed tests in out, the output of go test
// -json.
func readVirtual(out []byte) (v virtual, err error) {
	v.Failed, err = readAttributes(out, func(key, value string) error {
		switch key {
		case attrCrowd:
			return appendJSON(&v.Crowds, value)
		case attrPeer:
			return appendJSON(&v.Peers, value)
		case attrMigration:
			return appendJSON(&v.Migrations, value)
		}
		return nil
	})
	return v, err
}

// readAttributes calls the function read for each attribute in out, the output of go test -json.
// readAttributes returns the names of failed tests.
func readAttributes(out []byte, read func(key, value string) error) (failed []string, err error) {
	for line := range bytes.Lines(out) {
		var e struct{ Action, Test, Key, Value string }
		if err := json.Unmarshal(line, &e); err != nil {
			return failed, fmt.Errorf("go test: %w: %s", err, line)
		}
		switch {
		case e.Action == "fail" && e.Test != "":
			failed = append(failed, e.Test)
		case e.Action == "attr":
			err = read(e.Key, e.Value)
		}
		if err != nil {
			return failed, err
		}
	}
	return failed, nil
}

// appendJSON decodes data, and appends the value to *to.
func appendJSON[T any](to *[]T, data string) error {
	var v T
	if err := json.Unmarshal([]byte(data), &v); err != nil {
		return err
	}
	*to = append(*to, v)
	return nil
}

// sourceFolder returns the folder that contains this source file.
func sourceFolder() string {
	_, here, _, _ := runtime.Caller(0)
	return filepath.Dir(here)
}
