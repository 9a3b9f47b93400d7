package trunk

import (
	"fmt"
	"strconv"
	"strings"
)

// CodeRange is one number or an inclusive range of them: SIP statuses or Q.850 causes,
// written "408" or "500-599".
type CodeRange struct{ First, Last uint16 }

// maxCode bounds what a CodeRange may name.
const maxCode = 999

func (r CodeRange) String() string {
	if r.First == r.Last {
		return strconv.Itoa(int(r.First))
	}
	return fmt.Sprintf("%d-%d", r.First, r.Last)
}

// MarshalText writes the range as UnmarshalText reads it.
func (r CodeRange) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads "CODE" or "FIRST-LAST".
func (r *CodeRange) UnmarshalText(text []byte) error {
	first, last, isRange := strings.Cut(string(text), "-")
	if !isRange {
		last = first
	}
	f, err := parseCode(first)
	if err != nil {
		return err
	}
	l, err := parseCode(last)
	if err != nil {
		return err
	}
	if f > l {
		return fmt.Errorf("%d is above %d", f, l)
	}
	*r = CodeRange{f, l}
	return nil
}

func parseCode(text string) (uint16, error) {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n > maxCode {
		return 0, fmt.Errorf("%q is not a number from 0 to %d", text, maxCode)
	}
	return uint16(n), nil
}

// codeSet holds the numbers 0 to maxCode.
type codeSet [maxCode/64 + 1]uint64

func newCodeSet(ranges []CodeRange) *codeSet {
	s := new(codeSet)
	for _, r := range ranges {
		for n := int(r.First); n <= min(int(r.Last), maxCode); n++ {
			s[n/64] |= 1 << (n % 64)
		}
	}
	return s
}

func (s *codeSet) has(n int) bool { return n >= 0 && n <= maxCode && s[n/64]>>(n%64)&1 != 0 }
