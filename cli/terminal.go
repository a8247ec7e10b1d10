package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
	"unicode/utf8"

	"golang.org/x/term"
)

// A prompt asks for text at a terminal.
type prompt struct {
	ask  string                 // tells the user what to paste, and what ends the text
	ends func(text []byte) bool // reports whether text is complete; nil if only Ctrl-D ends the text
}

// The kinds of text that commands read from a terminal.
var (
	typedRecord  = prompt{"paste a record as JSON, which stays hidden; the last brace or Ctrl-D ends the record, and Ctrl-C cancels", isWholeJSON}
	typedFile    = prompt{"paste a token file, which stays hidden; Ctrl-D ends the file, and Ctrl-C cancels", nil}
	typedAddress = prompt{"paste the address that the browser then shows, which stays hidden, and press Enter; Ctrl-C cancels", hasLine}
)

// isWholeJSON reports whether text ends with a bracket, and leaves no bracket or string open.
// isWholeJSON ignores other faults, because a parser describes faults better.
func isWholeJSON(text []byte) bool {
	text = bytes.TrimSpace(text)
	if !bytes.HasSuffix(text, []byte("}")) && !bytes.HasSuffix(text, []byte("]")) {
		return false
	}
	depth, quoted, escaped := 0, false, false
	for _, c := range text {
		switch {
		case escaped:
			escaped = false
		case quoted && c == '\\':
			escaped = true
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			depth++
		case c == '}' || c == ']':
			depth--
		}
	}
	return depth <= 0 && !quoted
}

// hasLine reports whether text has a line end.
func hasLine(text []byte) bool { return bytes.ContainsRune(text, '\n') }

// isTerminal reports whether stream is an *os.File on a terminal.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// readInput reads standard input to its end, or to the end of the text that a user types at a
// terminal. readInput asks for the text only at a terminal. Text of more than limit bytes is an
// error.
func (a *app) readInput(ctx context.Context, limit int64, what prompt) ([]byte, error) {
	if !isTerminal(a.in) {
		return readAll(ctx, a.in, limit)
	}
	data, err := a.readTyped(ctx, a.in.(*os.File), limit, what)
	if err == nil {
		a.note("read %d bytes", len(data)) // nothing else shows that the text has arrived
	}
	return data, err
}

// quiet is the time without input after which a paste counts as complete. A terminal passes on a
// long paste in parts. The shell would show and execute the parts that the command does not read.
const quiet = 100 * time.Millisecond

// readTyped asks for text, and reads the text from a terminal without echo. Meanwhile the terminal
// is in raw mode, because in other modes Linux cuts lines after 4,095 bytes. After Ctrl-C, which
// sends no signal in raw mode, readTyped returns context.Canceled.
func (a *app) readTyped(ctx context.Context, terminal *os.File, limit int64, what prompt) ([]byte, error) {
	fd := int(terminal.Fd())
	before, err := term.MakeRaw(fd)
	if err != nil {
		return nil, fmt.Errorf("read standard input: %w", err)
	}
	defer func() { _ = term.Restore(fd, before) }()
	a.note("%s", what.ask) // printed in raw mode, so that the terminal does not show the answer
	if isTerminal(a.errs) {
		_, _ = io.WriteString(a.errs, "\r") // in raw mode, a newline does not return the cursor
	}
	done := make(chan struct{})
	defer close(done)
	var (
		parts = partsOf(terminal, done)
		text  = typedText{limit: limit}
		rest  <-chan time.Time
	)
	for {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-rest:
			return text.result()
		case part := <-parts:
			text.add(part.data)
			switch {
			case text.canceled:
				return nil, context.Canceled
			case errors.Is(part.err, io.EOF):
				return text.result()
			case part.err != nil:
				return nil, part.err
			}
			rest = nil
			if text.closed || what.ends != nil && what.ends(text.data) {
				rest = time.After(quiet)
			}
		}
	}
}

// A part is the outcome of one read.
type part struct {
	data []byte
	err  error
}

// partsOf reads r in a goroutine, and returns a channel of the parts. The goroutine ends after an
// error, or when a read ends after done was closed.
func partsOf(r io.Reader, done <-chan struct{}) <-chan part {
	parts := make(chan part)
	go func() {
		for {
			data := make([]byte, 4<<10)
			n, err := r.Read(data)
			select {
			case parts <- part{data[:n], err}:
			case <-done:
				return
			}
			if err != nil {
				return
			}
		}
	}()
	return parts
}

// Characters that a terminal in raw mode passes on.
const (
	ctrlC     = 3
	ctrlD     = 4
	backspace = '\b'
	ctrlU     = 21
	ctrlQuit  = 28 // Ctrl-\
	del       = 127
)

// A typedText collects the characters that a terminal in raw mode passes on.
type typedText struct {
	data     []byte
	limit    int64
	closed   bool // Ctrl-D ended the text, or the text is longer than limit
	canceled bool // by Ctrl-C or Ctrl-\
}

// add appends the characters of a part. It interprets the control characters above, which a
// terminal in raw mode does not interpret. After the end of the text, add ignores all characters
// except Ctrl-C and Ctrl-\.
func (t *typedText) add(part []byte) {
	for _, c := range part {
		switch {
		case c == ctrlC || c == ctrlQuit:
			t.canceled = true
		case t.closed:
		case c == ctrlD:
			t.closed = true
		case c == backspace || c == del:
			_, size := utf8.DecodeLastRune(t.data)
			t.data = t.data[:len(t.data)-size]
		case c == ctrlU:
			t.data = t.data[:bytes.LastIndexByte(t.data, '\n')+1]
		case c == '\r':
			t.data = append(t.data, '\n')
		default:
			t.data = append(t.data, c)
		}
		t.closed = t.closed || int64(len(t.data)) > t.limit
	}
}

// result returns the text. The error matches errInput if the text is longer than the limit.
func (t *typedText) result() ([]byte, error) {
	if int64(len(t.data)) > t.limit {
		return nil, tooLong(t.limit)
	}
	return t.data, nil
}
