package call

import (
	"testing"
	"time"
)

// T4, T5: the grammar of rates.
func TestParseRate(t *testing.T) {
	for _, row := range []struct {
		text, want string
		every      time.Duration
		burst      int
	}{
		{"40/5s", "40/5s", 125 * time.Millisecond, 40},
		{"3.5/2m", "3.5/2m", 34285714285 * time.Nanosecond, 3},
		{"2.5/1h", "2.5/1h", 24 * time.Minute, 2},
		{"0.5/1s", "0.5/1s", 2 * time.Second, 1},
		{"0.001/24h", "0.001/24h", 24000 * time.Hour, 1},
		{"1000000/1s", "1000000/1s", time.Microsecond, 1_000_000},
		{"10.250/90s", "10.25/1m30s", 8780487804, 10},
	} {
		r, err := ParseRate(row.text)
		if err != nil || r.String() != row.want || r.Every() != row.every || r.Burst() != row.burst || r.IsZero() {
			t.Errorf("%s: %s, one every %s, %d at once, %v", row.text, r, r.Every(), r.Burst(), err)
		}
	}
	for _, text := range []string{
		"", "40", "40/", "/5s", "40/5", "0/5s", "-1/5s", "+1/5s", "1/-5s", "1/+5s", ".5/1s", "1./1s", "1.2345/1s", "1e3/1s", "1000000.001/1s", "1/999ms", "1/25h",
		"40/5s ", "40 /5s", "1/1s/1s", "99999999999999999999/1s",
	} {
		if r, err := ParseRate(text); err == nil {
			t.Errorf("%q was read as %s", text, r)
		}
	}
	if zero := (Rate{}); !zero.IsZero() || zero.Every() != 0 || zero.String() != "" {
		t.Error("the zero rate is a limit")
	}
}

// Whatever is read is written so that it is read as the same.
func FuzzParseRate(f *testing.F) {
	for _, seed := range []string{"40/5s", "3.5/2m", "2.5/1h", "0.001/24h", "1/1h1m1.5s", "1/", "-"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := ParseRate(text)
		if err != nil {
			return
		}
		again, err := ParseRate(r.String())
		if err != nil || again != r {
			t.Errorf("%q is %s, which is read as %s: %v", text, r, again, err)
		}
		if r.Every() <= 0 || r.Burst() < 1 || r.Burst() > 1_000_000 {
			t.Errorf("%q is one every %s, %d at once", text, r.Every(), r.Burst())
		}
	})
}
