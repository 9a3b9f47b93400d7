// Package invalid is how a Config says what is wrong with it: the key, what is
// wrong, and what would be right. Package config adds the file and the line.
package invalid

import (
	"fmt"
	"strings"
)

// Field is one finding about one key of a configuration.
type Field struct {
	// Key is the path from the Config that found it, in YAML terms, e.g.
	// "media.ports" or "targets[2]". Empty means the whole object.
	Key string
	// Problem says what is wrong, with the value that was read.
	Problem string
	// Remedy says what would be right. It is a whole sentence fragment, such as
	// "give an even port from 1024 to 65534".
	Remedy string
}

// Error implements error: "key: problem; remedy".
func (f Field) Error() string {
	var b strings.Builder
	if f.Key != "" {
		b.WriteString(f.Key)
		b.WriteString(": ")
	}
	b.WriteString(f.Problem)
	if f.Remedy != "" {
		b.WriteString("; ")
		b.WriteString(f.Remedy)
	}
	return b.String()
}

// List collects findings, so that all of them are reported at once.
type List []Field

// Add appends a finding; problem is a format for args.
func (l *List) Add(key, remedy, problem string, args ...any) {
	*l = append(*l, Field{Key: key, Problem: fmt.Sprintf(problem, args...), Remedy: remedy})
}

// Under appends the findings of a part, each key prefixed by the part's own.
func (l *List) Under(key string, part List) {
	for _, f := range part {
		switch {
		case f.Key == "":
			f.Key = key
		case f.Key[0] == '[':
			f.Key = key + f.Key
		default:
			f.Key = key + "." + f.Key
		}
		*l = append(*l, f)
	}
}
