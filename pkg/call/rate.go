package call

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Bounds of a Rate.
const (
	maxRateCount  = 1_000_000
	minRatePeriod = time.Second
	maxRatePeriod = 24 * time.Hour
)

// Rate is how many events there may be in a time (T4, T5), written "40/5s", "3.5/2m" or
// "2.5/1h": 0.001 to 1000000 in 1s to 24h. The zero Rate is no limit.
type Rate struct {
	// milli is the number of events in thousandths.
	milli uint64
	per   time.Duration
}

// ParseRate reads "COUNT/TIME"; COUNT has up to three decimals.
func ParseRate(text string) (Rate, error) {
	count, period, ok := strings.Cut(text, "/")
	if !ok {
		return Rate{}, fmt.Errorf("%q is not COUNT/TIME, such as 40/5s", text)
	}
	milli, err := parseMilli(count)
	if err != nil {
		return Rate{}, err
	}
	per, err := time.ParseDuration(period)
	switch {
	case err != nil || period != strings.TrimLeft(period, "+-"):
		return Rate{}, fmt.Errorf("%q is not a time with its unit, such as 5s, 2m or 1h", period)
	case per < minRatePeriod || per > maxRatePeriod:
		return Rate{}, fmt.Errorf("%s is not a time from 1s to 24h", period)
	}
	return Rate{milli, per}, nil
}

// parseMilli reads a number with up to three decimals in thousandths.
func parseMilli(text string) (uint64, error) {
	whole, part, dot := strings.Cut(text, ".")
	if len(part) > 3 || dot && part == "" {
		return 0, fmt.Errorf("%q is not a number with up to three decimals", text)
	}
	n, err := strconv.ParseUint(whole+part+"000"[len(part):], 10, 64)
	switch {
	case err != nil || whole == "":
		return 0, fmt.Errorf("%q is not a number with up to three decimals", text)
	case n == 0 || n > maxRateCount*1000:
		return 0, fmt.Errorf("%s is not a number from 0.001 to %d", text, maxRateCount)
	}
	return n, nil
}

// IsZero reports whether there is no limit.
func (r Rate) IsZero() bool { return r.milli == 0 }

// Every is the time from one event to the next if they come evenly; 0 without a limit.
func (r Rate) Every() time.Duration {
	if r.IsZero() {
		return 0
	}
	// At most 24 h x 1000 in ns: far from overflow.
	return time.Duration(uint64(r.per) * 1000 / r.milli)
}

// Burst is how many events may come at once: the count, at least 1.
func (r Rate) Burst() int { return max(1, int(r.milli/1000)) }

func (r Rate) String() string {
	if r.IsZero() {
		return ""
	}
	count := strconv.FormatUint(r.milli/1000, 10)
	if part := r.milli % 1000; part != 0 {
		count += "." + strings.TrimRight(fmt.Sprintf("%03d", part), "0")
	}
	per := r.per.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(per, zero) {
			per = per[:len(per)-2]
		}
	}
	return count + "/" + per
}

// MarshalText writes the rate as UnmarshalText reads it.
func (r Rate) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads a rate as ParseRate does.
func (r *Rate) UnmarshalText(text []byte) (err error) {
	*r, err = ParseRate(string(text))
	return err
}
