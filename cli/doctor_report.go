package cli

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/doctor"
)

// A doctorReport is the result of a check. With --json, the command prints this struct.
type doctorReport struct {
	Store    string        `json:"store"`
	Before   *int          `json:"records_before,omitempty"` // number of records before repairs
	After    *int          `json:"records_after,omitempty"`
	Checked  int           `json:"checked"` // number of secrets or rows
	Repaired int           `json:"repaired"`
	Left     int           `json:"left"` // number of harmful findings that were not repaired
	Findings []findingJSON `json:"findings"`
}

type findingJSON struct {
	Kind     string `json:"kind"`
	Name     string `json:"name,omitempty"`
	ID       string `json:"id,omitempty"`
	Detail   string `json:"detail"`
	Remedy   string `json:"remedy,omitempty"`
	Action   string `json:"action,omitempty"`
	Harmless bool   `json:"harmless"`
	Repaired bool   `json:"repaired"`
	Error    string `json:"error,omitempty"`
}

func (r *doctorReport) add(f doctor.Finding) {
	j := findingJSON{
		Kind: string(f.Kind), Name: f.Name, ID: f.ID, Detail: f.Detail, Remedy: string(f.Remedy), Action: f.Action,
		Harmless: f.Kind.Harmless(), Repaired: f.Repaired,
	}
	if f.Err != nil {
		j.Error = f.Err.Error()
	}
	switch {
	case f.Repaired:
		r.Repaired++
	case !j.Harmless:
		r.Left++
	}
	r.Findings = append(r.Findings, j)
}

// err returns the error that the command returns. The parameter ended is the error that stopped the
// check, or nil. If ended is not nil, the result wraps ended. Otherwise, the result matches
// errFindings if harmful findings are left, and is nil if not.
func (r *doctorReport) err(ended error) error {
	switch {
	case ended != nil:
		return fmt.Errorf("the check was abandoned: %w", ended)
	case r.Left > 0:
		return fmt.Errorf("%w: harmful findings: %d", errFindings, r.Left)
	}
	return nil
}

// printFindings prints the report. The parameter whole reports whether the check is complete.
func (a *app) printFindings(r doctorReport, whole bool) error {
	if a.json {
		return a.printJSON(r)
	}
	groups := groupFindings(r.Findings)
	t := table{}
	t.row("FINDING", "WHERE", "WHAT", "REMEDY")
	for _, g := range groups {
		t.row(g.Kind, g.where(), clean(g.Detail), g.remedy())
	}
	if len(groups) > 0 {
		a.printf("%s\n", t.String())
		a.explain(groups)
	}
	if r.doubtsKeys() {
		a.printf("%s\n", wrapText(a.keysHint(), ""))
	}
	if !whole {
		return nil
	}
	unkeyed := slices.ContainsFunc(r.Findings, isRemark)
	found := len(r.Findings)
	if unkeyed {
		found--
	}
	a.printf("checked %d secrets or rows of %s: found %d, repaired %d, harmful %d\n", r.Checked, clean(r.Store), found, r.Repaired, r.Left)
	if r.After != nil {
		a.printf("%d records before, %d after\n", *r.Before, *r.After)
	}
	if unkeyed {
		a.printf("the store has no name key: see 'tokenkeep keys --help'\n")
	}
	return nil
}

// isRemark reports whether a finding is a remark about the configuration of the store, which
// doctor cannot repair.
func isRemark(f findingJSON) bool { return f.Kind == string(doctor.KindStoreUnkeyed) }

// A group is a set of findings with the same cause.
type group struct {
	findingJSON // the first finding
	count       int
}

// groupFindings groups findings that differ only in their record, and omits remarks.
func groupFindings(findings []findingJSON) []*group {
	var groups []*group
	at := map[string]*group{}
	for _, f := range findings {
		if isRemark(f) {
			continue
		}
		key := strings.Join([]string{f.Kind, f.cause(f.Detail), f.Action, f.cause(f.Error), strconv.FormatBool(f.Repaired)}, "\x00")
		if f.Kind == string(doctor.KindPermission) {
			key += "\x00" + f.Name // Name is the call that is not allowed
		}
		if g := at[key]; g != nil {
			g.count++
			continue
		}
		at[key] = &group{f, 1}
		groups = append(groups, at[key])
	}
	return groups
}

// cause returns text without the name of the secret and the ID of the record.
func (f findingJSON) cause(text string) string {
	for _, name := range []string{f.Name, f.ID} {
		if name != "" {
			text = strings.ReplaceAll(text, name, "")
		}
	}
	return text
}

// where returns the ID and the name of the first finding and, if there are several findings, their
// number. It omits a name that equals the ID.
func (g *group) where() string {
	one := orDash(g.ID)
	switch {
	case g.ID == "":
		one = orDash(g.Name)
	case g.Name != "" && g.Name != g.ID:
		one = fmt.Sprintf("%s (%s)", clean(g.ID), clean(g.Name))
	}
	if g.count == 1 {
		return one
	}
	return fmt.Sprintf("%d times, first %s", g.count, one)
}

// remedy returns the outcome of the repair or, if no repair was tried, advice on how to repair.
func (g *group) remedy() string {
	command := map[string]string{
		string(doctor.RemedyRepair): "doctor --repair",
		string(doctor.RemedyMerge):  "doctor --merge-duplicates",
		string(doctor.RemedyPurge):  "doctor --purge --alone",
		string(doctor.RemedyRekey):  "rekey",
	}[g.Remedy]
	switch {
	case g.Repaired:
		return "repaired: " + clean(g.Action)
	case command != "" && g.Error != "":
		return "not repaired: " + clean(strings.ReplaceAll(g.Error, "tokenstore: ", ""))
	case g.Remedy == string(doctor.RemedyPurge) && !g.Harmless:
		return "bring it back, or remove it for good: " + command
	case command != "":
		return command
	case g.Harmless:
		return "none"
	case g.Kind == string(doctor.KindKeysForeign):
		return "the keys of the store"
	case g.Kind == string(doctor.KindNameUnkeyed):
		return "keys add --none, then rekey"
	}
	return "by hand"
}

// explain prints the meaning of each kind of finding once.
func (a *app) explain(groups []*group) {
	var kinds []string
	for _, g := range groups {
		kinds = append(kinds, g.Kind)
	}
	slices.Sort(kinds)
	for _, kind := range slices.Compact(kinds) {
		a.printf("%s\n", wrapText(kind+": "+doctor.Kind(kind).Meaning(), "  "))
	}
}

// doubtsKeys reports whether the findings suggest that the keys are wrong.
func (r *doctorReport) doubtsKeys() bool {
	unreadable := 0
	for _, f := range r.Findings {
		switch doctor.Kind(f.Kind) {
		case doctor.KindUnreadable:
			unreadable++
		case doctor.KindKeysForeign:
			return true
		default:
		}
	}
	return unreadable > 0 && unreadable >= r.Checked
}

// keysHint returns a question that asks whether the keys are right.
func (a *app) keysHint() string {
	if name := a.env(envKeys); name != "" {
		return fmt.Sprintf("Are the keys in %s (%s) the right ones?", clean(name), envKeys)
	}
	return fmt.Sprintf("Does the store need keys? %s is not set.", envKeys)
}

// noteKeys prints keysHint as a remark if s can have keys and err matches tokenstore.ErrCorrupt.
// The parameter err is the error about the unreadable records of s.
func (a *app) noteKeys(s *store, err error) {
	if _, keyed := s.TokenStore.(doctor.Rekeyer); keyed && errors.Is(err, tokenstore.ErrCorrupt) {
		a.note("%s", a.keysHint())
	}
}
