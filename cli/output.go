package cli

import (
	"encoding/json"
	"fmt"
)

// report prints an error on standard error: as text, or as one line of JSON.
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

// note prints a remark on standard error: as text, or as one line of JSON.
func (a *app) note(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if a.json {
		a.noteJSON(map[string]string{"note": text})
		return
	}
	_, _ = fmt.Fprintf(a.errs, "tokenkeep: %s\n", text)
}

// noteJSON prints v on standard error, as one line of JSON.
func (a *app) noteJSON(v map[string]string) {
	e := json.NewEncoder(a.errs)
	e.SetEscapeHTML(false)
	_ = e.Encode(v)
}

func (a *app) printf(format string, args ...any) { _, _ = fmt.Fprintf(a.out, format, args...) }

// printJSON prints the JSON document of a command on standard output.
func (a *app) printJSON(v any) error {
	e := json.NewEncoder(a.out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// announce prints a line about the next action on standard output, and flushes the line. With
// --json, announce prints nothing.
func (a *app) announce(format string, args ...any) {
	if a.json {
		return
	}
	a.printf(format+"\n", args...)
	_ = a.out.Flush() // the Flush in run returns the error again
}

// records returns the text "n records", or "1 record" if n is 1.
func records(n int) string {
	if n == 1 {
		return "1 record"
	}
	return fmt.Sprintf("%d records", n)
}
