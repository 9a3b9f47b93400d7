package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
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

// flush prints the table and, below it, the reasons.
func (t table) flush(why ...string) error {
	if len(why) > 0 {
		_, _ = io.WriteString(t.w, "\n"+strings.Join(why, "\n")+"\n")
	}
	return printed(t.w.Flush())
}

// reasons are the sentences that belong to rows of a table. In a column of it they would
// break its lines on any terminal.
type reasons []string

// add takes the reason of one row, if it has one.
func (r *reasons) add(name, state, reason string) {
	if reason != "" {
		*r = append(*r, harmless(fmt.Sprintf("%s is %s: %s", name, state, reason)))
	}
}

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

// age is the time since, or empty if that is not known.
func (c *cli) age(since time.Time) string {
	if since.IsZero() {
		return ""
	}
	return shortDuration(c.now().Sub(since))
}

// size is bytes to three digits, in decimal units: "812 B", "1.24 GB".
func size(n uint64) string {
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	value, unit := float64(n), -1
	for ; value >= 999.5 && unit < len(units)-1; unit++ {
		value /= 1000
	}
	return strconv.FormatFloat(value, 'f', decimals(value), 64) + " " + units[unit]
}

var units = []string{"kB", "MB", "GB", "TB", "PB", "EB"}

// decimals leaves three digits of a value from 1 to 999.
func decimals(value float64) int {
	switch {
	case value < 9.995:
		return 2
	case value < 99.95:
		return 1
	}
	return 0
}

// tally lists counts by word, the largest first: "12 replay, 3 integrity".
func tally(counts map[string]uint64) string {
	words := slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b))
	})
	var parts []string
	for _, word := range words {
		if counts[word] > 0 {
			parts = append(parts, count(counts[word])+" "+word)
		}
	}
	return strings.Join(parts, ", ")
}

func sum(counts map[string]uint64) (total uint64) {
	for _, n := range counts {
		total += n
	}
	return total
}

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
