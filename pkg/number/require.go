package number

import (
	"fmt"
	"strings"
)

// Incomplete says why a call has no number of E.164 (T12): 484 Address Incomplete.
type Incomplete struct {
	RequestURI, To string
}

// Error implements error: words for the record and the log.
func (i *Incomplete) Error() string {
	if i.To == i.RequestURI {
		return fmt.Sprintf("Neither Request-URI nor To has a number of E.164: %s.", flaw(i.To))
	}
	return fmt.Sprintf("Neither Request-URI nor To has a number of E.164: in the Request-URI %s, in To %s.", flaw(i.RequestURI), flaw(i.To))
}

// Require returns an *Incomplete if neither of two normalised numbers is one of E.164.
func Require(requestURI, to string) error {
	if IsE164(requestURI) || IsE164(to) {
		return nil
	}
	return &Incomplete{RequestURI: requestURI, To: to}
}

// flaw says what keeps a number from being one of E.164.
func flaw(number string) string {
	digits, hasPlus := strings.CutPrefix(number, "+")
	switch {
	case number == "":
		return "there is no number"
	case !allDigits(digits):
		return fmt.Sprintf("%.40q is not made of digits", number)
	case !hasPlus:
		return fmt.Sprintf("%.40q does not begin with +", number)
	case digits == "" || len(digits) < minDigits:
		return fmt.Sprintf("%q has fewer than %d digits", number, minDigits)
	case len(digits) > maxDigits:
		return fmt.Sprintf("%.40q has more than %d digits", number, maxDigits)
	}
	return fmt.Sprintf("%q begins with 0, and no country code does", number)
}
