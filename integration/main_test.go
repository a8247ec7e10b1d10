package integration

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"

	"github.com/go-sql-driver/mysql"

	"github.com/tokenkeep/tokenkeep/internal/languages"
)

// TestMain runs the tests, stops the shared servers, and reports the servers on which the
// tests ran. In a process that a test started as a worker, TestMain carries out jobs instead.
func TestMain(m *testing.M) {
	if os.Getenv(workerEnv) != "" {
		os.Exit(work())
	}
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-interrupted
		_ = finish() // the process ends anyway
		os.Exit(1)
	}()
	// The MySQL driver logs each broken connection, and the tests break many connections.
	if err := mysql.SetLogger(log.New(io.Discard, "", 0)); err != nil {
		panic(err) // SetLogger fails only for a nil logger
	}
	code := m.Run()
	if err := finish(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// finish stops the remaining servers, and prints the report. finish returns an error if a server
// cannot be stopped, if a container, network or volume remains, or if no case of a required
// backend passed.
func finish() error {
	var errs []error
	for _, b := range backends {
		errs = append(errs, b.stopShared())
	}
	errs = append(errs, nothingIsLeft(), languages.CleanUp())
	if missing := Report(os.Stderr); len(missing) > 0 {
		errs = append(errs, fmt.Errorf("TOKENKEEP_REQUIRE asks for backends on which no case passed: %s", strings.Join(missing, ", ")))
	}
	return errors.Join(errs...)
}

// nothingIsLeft removes the remaining containers, and then returns an error if a container,
// network or volume of this run remains.
func nothingIsLeft() error {
	e, err := docker()
	if err != nil {
		return nil // without an engine, no containers were started
	}
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	if err := e.stopAll(ctx); err != nil {
		return err
	}
	left, err := e.left(ctx)
	if err != nil {
		return err
	}
	logf("containers, networks and volumes left: %d", len(left))
	if len(left) > 0 {
		return fmt.Errorf("left behind: %s", strings.Join(left, ", "))
	}
	return nil
}
