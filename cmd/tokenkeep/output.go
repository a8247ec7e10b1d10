package main

import (
	"encoding/json"
	"fmt"
)

// report writes an error to standard error: as text, or as one line of JSON.
func (a *app) report(err error) {
	class := classOf(err)
	if a.json {
		_ = json.NewEncoder(a.errs).Encode(struct {
			Error string `json:"error"`
			Class string `json:"class"`
			Code  int    `json:"code"`
			Hint  string `json:"hint,omitempty"`
		}{textOf(err), class.name, class.code, a.hint(err)})
		return
	}
	_, _ = fmt.Fprintf(a.errs, "tokenkeep: %s\n", textOf(err))
	if text := a.hint(err); text != "" {
		_, _ = fmt.Fprintf(a.errs, "tokenkeep: %s\n", text)
	}
}

// note writes a remark to standard error.
func (a *app) note(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if a.json {
		_ = json.NewEncoder(a.errs).Encode(map[string]string{"note": text})
		return
	}
	_, _ = fmt.Fprintf(a.errs, "tokenkeep: %s\n", text)
}

// printf writes to standard output.
func (a *app) printf(format string, args ...any) { _, _ = fmt.Fprintf(a.out, format, args...) }

// printJSON writes the one JSON document of a command to standard output.
func (a *app) printJSON(v any) error {
	e := json.NewEncoder(a.out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// announce says what is about to be done, before it is.
func (a *app) announce(format string, args ...any) {
	if a.json {
		return
	}
	a.printf(format+"\n", args...)
	_ = a.out.Flush() // the next write reports it
}

// records returns a number of records in words.
func records(n int) string {
	if n == 1 {
		return "1 record"
	}
	return fmt.Sprintf("%d records", n)
}
