package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// shutdownTime is the time limit for requests in progress after SHUTDOWN. Lambda kills an
// extension two seconds after SHUTDOWN.
const shutdownTime = 1500 * time.Millisecond

// An extension is a client of Lambda's Extensions API:
// https://docs.aws.amazon.com/lambda/latest/dg/runtimes-extensions-api.html
type extension struct {
	base, name string
	http       *http.Client

	id string // assigned at registration
}

// An event is a message from Lambda to an extension.
type event struct {
	EventType string `json:"eventType"` // INVOKE or SHUTDOWN
}

// run registers the extension, calls serve at the first INVOKE, and cancels the context of
// serve at SHUTDOWN. If serve returns before SHUTDOWN, or a request for the next event fails,
// run reports the failure to Lambda and returns an error.
func (e *extension) run(ctx context.Context, serve func(context.Context) error) error {
	if err := e.register(ctx); err != nil {
		return err
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var served chan error
	for {
		next, err := e.next(ctx)
		switch {
		case err != nil:
			return errors.Join(err, e.failed(err))
		case next.EventType == "SHUTDOWN":
			stop(nil)
			if served == nil {
				return nil
			}
			return <-served
		case served == nil:
			served = make(chan error, 1)
			go func() {
				err := serve(ctx)
				stop(fmt.Errorf("the agent has ended: %w", err)) // interrupts next
				served <- err
			}()
		}
	}
}

func (e *extension) register(ctx context.Context) error {
	res, err := e.do(ctx, http.MethodPost, "/register", map[string][]string{"events": {"INVOKE", "SHUTDOWN"}})
	if err != nil {
		return fmt.Errorf("register: %w", err)
	}
	if e.id = res.header.Get("Lambda-Extension-Identifier"); e.id == "" {
		return errors.New("register: there is no identifier in the answer")
	}
	return nil
}

// next waits for the next event. If ctx is done first, next returns an error that wraps the
// cause.
func (e *extension) next(ctx context.Context) (event, error) {
	var next event
	res, err := e.do(ctx, http.MethodGet, "/event/next", nil)
	if err != nil {
		return next, fmt.Errorf("next event: %w", errors.Join(err, context.Cause(ctx)))
	}
	if err := json.Unmarshal(res.body, &next); err != nil {
		return next, fmt.Errorf("next event: %w", err)
	}
	return next, nil
}

func (e *extension) failed(why error) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_, err := e.do(ctx, http.MethodPost, "/exit/error", map[string]string{"errorType": "Extension.Failed", "errorMessage": why.Error()})
	return err
}

type reply struct {
	header http.Header
	body   []byte
}

func (e *extension) do(ctx context.Context, method, path string, body any) (reply, error) {
	text := []byte{}
	if body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			return reply{}, err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, e.base+path, bytes.NewReader(text))
	if err != nil {
		return reply{}, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Lambda-Extension-Name", e.name)
	if e.id != "" {
		req.Header.Set("Lambda-Extension-Identifier", e.id)
	}
	if path == "/exit/error" {
		req.Header.Set("Lambda-Extension-Function-Error-Type", "Extension.Failed")
	}
	res, err := e.http.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer func() { _ = res.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err == nil && res.StatusCode/100 != 2 {
		err = fmt.Errorf("status %d", res.StatusCode)
	}
	return reply{res.Header, answer}, err
}
