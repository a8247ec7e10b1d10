package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
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
	cmd := exec.CommandContext(ctx, "go", "test", "-json", "-count=1", "-timeout=1h", "-run=^(TestCrowd|TestPeers|TestMigrate_Quota)$", ".", "-evidence.crowd")
	cmd.Dir = sourceFolder()
	out, err := cmd.Output()
	var failed *exec.ExitError
	if err != nil && !errors.As(err, &failed) {
		return virtual{}, err
	}
	v, err := readVirtual(out)
	if err == nil && len(v.Crowds) == 0 {
		err = fmt.Errorf("the tests have no results:\n%s", out)
	}
	return v, err
}

// readVirtual returns the results and the names of failed tests in out, the output of go test
// -json.
func readVirtual(out []byte) (v virtual, err error) {
	for line := range bytes.Lines(out) {
		var e struct{ Action, Test, Key, Value string }
		if err := json.Unmarshal(line, &e); err != nil {
			return v, fmt.Errorf("go test: %w: %s", err, line)
		}
		switch {
		case e.Action == "fail" && e.Test != "":
			v.Failed = append(v.Failed, e.Test)
		case e.Action == "attr" && e.Key == attrCrowd:
			err = appendJSON(&v.Crowds, e.Value)
		case e.Action == "attr" && e.Key == attrPeer:
			err = appendJSON(&v.Peers, e.Value)
		case e.Action == "attr" && e.Key == attrMigration:
			err = appendJSON(&v.Migrations, e.Value)
		}
		if err != nil {
			return v, err
		}
	}
	return v, nil
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
