package header

import (
	"strconv"
	"strings"
)

// Q850 returns the cause of a Reason header's Q.850 value (RFC 3326), or 0. Causes
// are 1 to 127.
func Q850(reason string) int {
	for part := range strings.SplitSeq(reason, ",") {
		protocol, list := cutBefore(part, ';')
		if !strings.EqualFold(Trim(protocol), "Q.850") {
			continue
		}
		value, _ := Param(list, "cause")
		if n, err := strconv.Atoi(value); err == nil && n > 0 && n < 128 {
			return n
		}
	}
	return 0
}

// AppendReason appends the value of a Reason header for a Q.850 cause.
func AppendReason(b []byte, q850 int) []byte {
	b = append(b, "Q.850;cause="...)
	return strconv.AppendInt(b, int64(q850), 10)
}

// Phrase makes a reason phrase safe for a status line: one line, no control
// characters, at most 128 bytes.
func Phrase(s string) string {
	clean := strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, ""))
	if len(clean) > 128 {
		clean = strings.ToValidUTF8(clean[:128], "")
	}
	return clean
}
