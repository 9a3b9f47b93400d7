package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
)

// table aligns columns for a terminal.
type table struct{ w *tabwriter.Writer }

func newTable(w io.Writer) table { return table{tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)} }

// row adds a line. Cells hold what peers wrote: nothing in them may steer the terminal.
func (t table) row(cells ...string) {
	for i, cell := range cells {
		cells[i] = harmless(cell)
		if cell == "" && i > 0 {
			cells[i] = "-"
		}
	}
	// Errors stay in the tabwriter's output until flush.
	_, _ = io.WriteString(t.w, strings.Join(cells, "\t")+"\n")
}

func (t table) flush() error { return printed(t.w.Flush()) }

// printed makes a failure of an error of writing to standard output.
func printed(err error) error {
	if err != nil {
		return failure{fmt.Errorf("print: %w", err)}
	}
	return nil
}

func harmless(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}

func count(n uint64) string { return strconv.FormatUint(n, 10) }

// shortDuration is to the second below a day and to the minute above: "1m23s", "3d4h5m".
func shortDuration(d time.Duration) string {
	d = max(d, 0).Truncate(time.Second)
	days := d / (24 * time.Hour)
	if days == 0 {
		return d.String()
	}
	d -= days * 24 * time.Hour
	return fmt.Sprintf("%dd%dh%dm", days, int(d.Hours()), int(d.Minutes())%60)
}
