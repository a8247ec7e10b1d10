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
)

// TestMain runs the tests, stops what they shared, and prints what they ran on.
func TestMain(m *testing.M) {
	if os.Getenv(workerEnv) != "" {
		os.Exit(work())
	}
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-interrupted
		_ = finish() // nobody waits for what it says
		os.Exit(1)
	}()
	// The driver prints each connection that breaks, and here they do.
	if err := mysql.SetLogger(log.New(io.Discard, "", 0)); err != nil {
		panic(err) // it fails for nil alone
	}
	code := m.Run()
	if err := finish(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// finish stops the servers that are left, and reports.
func finish() error {
	var errs []error
	for _, b := range backends {
		errs = append(errs, b.stopShared())
	}
	errs = append(errs, nothingIsLeft())
	if missing := Report(os.Stderr); len(missing) > 0 {
		errs = append(errs, fmt.Errorf("TOKENKEEP_REQUIRE asks for backends on which no case passed: %s", strings.Join(missing, ", ")))
	}
	return errors.Join(errs...)
}

// nothingIsLeft checks that the tests leave no container, network or volume.
func nothingIsLeft() error {
	e, err := docker()
	if err != nil {
		return nil // there was none, so nothing is there
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
