package route

import "testing"

func TestReadHours(t *testing.T) {
	for text, want := range map[string][2]int{
		"": {0, 1440}, "08:00-18:30": {480, 1110}, "00:00-24:00": {0, 1440}, "22:00-24:00": {1320, 1440}, "22:00-06:00": {1320, 1800}, "22:00-00:00": {1320, 1440},
	} {
		if from, to, ok := readHours(text); from != want[0] || to != want[1] || !ok {
			t.Errorf("%q: %d to %d, %t", text, from, to, ok)
		}
	}
	for _, text := range []string{"8:00-18:00", "08:00", "08:00-", "-08:00", "24:00-06:00", "08:60-09:00", "24:01-03:00", "25:00-26:00", "+8:00-09:00", "08:00-18:00-20:00", "08.00-18.00"} {
		if from, to, ok := readHours(text); ok {
			t.Errorf("%q is taken as %d to %d", text, from, to)
		}
	}
}
