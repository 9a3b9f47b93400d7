package traffic

import (
	"slices"
	"time"
)

// fine is FINE of bpf/traffic.bpf.c: 64 buckets for each power of two.
const fine = 6

// Histogram is a distribution of times, exact to 1.6 %.
type Histogram struct {
	counts []uint64 // by bucket
}

// Sub returns what came since an earlier state of the same histogram.
func (h Histogram) Sub(earlier Histogram) Histogram {
	d := Histogram{counts: slices.Clone(h.counts)}
	for i, n := range earlier.counts {
		d.counts[i] -= n
	}
	return d
}

// Count is the number of times recorded.
func (h Histogram) Count() (n uint64) {
	for _, c := range h.counts {
		n += c
	}
	return n
}

// Quantile is the time that q of all do not exceed, q from 0 to 1: the middle of its bucket.
// An empty histogram has 0.
func (h Histogram) Quantile(q float64) time.Duration {
	want := q * float64(h.Count())
	var seen uint64
	for i, n := range h.counts {
		if seen += n; n > 0 && float64(seen) >= want {
			return (lower(i) + lower(i+1)) / 2
		}
	}
	return 0
}

// lower is the shortest time in a bucket.
func lower(i int) time.Duration {
	if i < 1<<fine {
		return time.Duration(i)
	}
	power := i>>fine - 1
	return time.Duration(i-power<<fine) << power
}
