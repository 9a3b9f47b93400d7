package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/tandem-sbc/tandem/pkg/invalid"
)

// maxProblem bounds what one finding quotes of the file, in bytes.
const maxProblem = 400

// Finding is one thing that is wrong with a config file.
type Finding struct {
	File string `json:"file"`
	// Line and Column start at 1. A key that is missing is reported at what it
	// is missing from.
	Line   int `json:"line"`
	Column int `json:"column"`
	// Key is the path of the key, e.g. "realms[1].media_ports"; empty for the file.
	Key     string `json:"key"`
	Problem string `json:"problem"`
	Remedy  string `json:"remedy"`
}

// Error implements error: "FILE:LINE: key: problem; remedy".
func (f Finding) Error() string {
	return fmt.Sprintf("%s:%d: %s", f.File, f.Line, invalid.Field{Key: f.Key, Problem: f.Problem, Remedy: f.Remedy})
}

// Errors is everything that is wrong with a config file, in the order of its lines.
// Load and Parse return it as *Errors.
type Errors struct {
	Findings []Finding
}

// Error implements error: one finding a line.
func (e *Errors) Error() string {
	lines := make([]string, len(e.Findings))
	for i, f := range e.Findings {
		lines[i] = f.Error()
	}
	return strings.Join(lines, "\n")
}

// position is where a key stands in the file.
type position struct{ line, column int }

// report collects findings while a file is read and checked.
type report struct {
	file     string
	findings []Finding
	// places has the position of every key that the file holds, by its path.
	places map[string]position
	// bad has the paths whose value could not be read: what Validate finds about
	// the zero value there is no news.
	bad map[string]bool
}

func newReport(file string) *report {
	return &report{file: file, places: map[string]position{"": {1, 1}}, bad: make(map[string]bool)}
}

// add reports a finding at a position.
func (r *report) add(at position, f invalid.Field) {
	if len(f.Problem) > maxProblem {
		f.Problem = strings.ToValidUTF8(f.Problem[:maxProblem], "") + "..."
	}
	r.findings = append(r.findings, Finding{
		File: r.file, Line: at.line, Column: at.column, Key: f.Key, Problem: f.Problem, Remedy: f.Remedy,
	})
}

// unreadable reports a key whose value is not of its type.
func (r *report) unreadable(at position, key, remedy, problem string, args ...any) {
	r.bad[key] = true
	r.add(at, invalid.Field{Key: key, Problem: fmt.Sprintf(problem, args...), Remedy: remedy})
}

// addList reports what Validate found, at the nearest place that the file has for it.
func (r *report) addList(l invalid.List) {
	for _, f := range l {
		place, found := position{}, false
		for key := f.Key; ; key = parent(key) {
			if r.bad[key] {
				break
			}
			if place, found = r.places[key]; found {
				break
			}
		}
		if found {
			r.add(place, f)
		}
	}
}

// parent is the path without its last step: "a.b[1]" -> "a.b" -> "a" -> "".
func parent(key string) string {
	return key[:max(0, strings.LastIndexAny(key, ".["))]
}

// err is nil if nothing was found.
func (r *report) err() error {
	if len(r.findings) == 0 {
		return nil
	}
	slices.SortStableFunc(r.findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return &Errors{Findings: r.findings}
}
