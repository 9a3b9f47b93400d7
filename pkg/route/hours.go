package route

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // a gateway may have no zoneinfo: 0.4 MB buy that a config means the same everywhere

	"github.com/tandem-sbc/tandem/pkg/invalid"
)

// Time says when a route takes calls.
type Time struct {
	Days  []string `yaml:"days" json:"days,omitempty" doc:"Days of the week, alone or as ranges, e.g. [mon-thu, sat]; empty is every day. Hours across midnight belong to the day on which they begin."`
	Hours string   `yaml:"hours" json:"hours,omitempty" doc:"From and to which time of the day, the latter not included, in quotes, e.g. \"08:00-18:00\" or \"22:00-06:00\"; the end of a day is 24:00. Left out, all day."`
	Zone  string   `yaml:"zone" json:"zone,omitempty" doc:"Time zone that days and hours are of, by its name in the IANA database, e.g. Europe/Berlin. Left out, UTC."`
}

func (t Time) isZero() bool { return len(t.Days) == 0 && t.Hours == "" && t.Zone == "" }

var days = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

const (
	minutesOfDay  = 24 * 60
	minutesOfWeek = 7 * minutesOfDay
)

// hours are the minutes of a week at which a route takes calls, from Sunday on.
type hours struct {
	zone    *time.Location
	minutes [(minutesOfWeek + 63) / 64]uint64
	text    string
}

// compile reads the condition; nil if there is none.
func (t Time) compile(l *invalid.List) *hours {
	if t.isZero() {
		return nil
	}
	h := &hours{zone: time.UTC, text: strings.TrimSpace(strings.Join(t.Days, ", ") + " " + t.Hours)}
	if t.Zone != "" {
		zone, err := time.LoadLocation(t.Zone)
		if err != nil || t.Zone == "Local" { // Local is another zone on each machine
			l.Add("time.zone", "name one of the IANA database, e.g. Europe/Berlin", "%.40q is no time zone", t.Zone)
			return nil
		}
		h.zone = zone
	}
	from, to, ok := readHours(t.Hours)
	if !ok {
		l.Add("time.hours", `write it like "08:00-18:00"`, "%.40q is not a span of a day", t.Hours)
	}
	for _, day := range readDays(l, t.Days) {
		for m := from; m < to; m++ {
			at := (day*minutesOfDay + m) % minutesOfWeek
			h.minutes[at/64] |= 1 << (at % 64)
		}
	}
	return h
}

// readDays lists the days, 0 is Sunday.
func readDays(l *invalid.List, texts []string) (list []int) {
	if len(texts) == 0 {
		return []int{0, 1, 2, 3, 4, 5, 6}
	}
	for i, text := range texts {
		first, last, isRange := strings.Cut(text, "-")
		if !isRange {
			last = first
		}
		day, end := slices.Index(days, first), slices.Index(days, last)
		if day < 0 || end < 0 {
			l.Add(fmt.Sprintf("time.days[%d]", i), "give one of "+strings.Join(days, ", ")+", or two with a dash between", "%.40q is no day", text)
			continue
		}
		for ; day != end; day = (day + 1) % 7 {
			list = append(list, day)
		}
		list = append(list, end)
	}
	return list
}

// readHours gives the minutes of the day from and to; to is above from, also across midnight.
func readHours(text string) (from, to int, ok bool) {
	if text == "" {
		return 0, minutesOfDay, true
	}
	first, last, _ := strings.Cut(text, "-")
	from, okFrom := readClock(first)
	to, okTo := readClock(last)
	if !okFrom || !okTo || from == to || from == minutesOfDay {
		return 0, 0, false
	}
	if to < from {
		to += minutesOfDay
	}
	return from, to, true
}

// readClock reads HH:MM up to 24:00.
func readClock(text string) (minute int, ok bool) {
	hour, rest, _ := strings.Cut(text, ":")
	h, errHour := strconv.ParseUint(hour, 10, 8)
	m, errMinute := strconv.ParseUint(rest, 10, 8)
	minute = int(h*60 + m)
	return minute, len(text) == len("00:00") && errHour == nil && errMinute == nil && m < 60 && minute <= minutesOfDay
}

func (h *hours) contains(at time.Time) bool {
	at = at.In(h.zone)
	m := int(at.Weekday())*minutesOfDay + at.Hour()*60 + at.Minute()
	return h.minutes[m/64]>>(m%64)&1 != 0
}

// objection is why a time does not fit, or empty.
func (h *hours) objection(at time.Time) string {
	if h == nil || h.contains(at) {
		return ""
	}
	return fmt.Sprintf("%s is outside %s", h.clock(at), h.text)
}

func (h *hours) clock(at time.Time) string {
	return at.In(h.zone).Format("Mon 15:04 ") + h.zone.String()
}

// within reports whether o has every minute that h has; nil has all.
func (h *hours) within(o *hours) bool {
	if o == nil {
		return true
	}
	if h == nil {
		h = &hours{zone: o.zone}
		for i := range minutesOfWeek {
			h.minutes[i/64] |= 1 << (i % 64)
		}
	}
	if h.zone.String() != o.zone.String() {
		return false
	}
	for i := range h.minutes {
		if h.minutes[i]&^o.minutes[i] != 0 {
			return false
		}
	}
	return true
}
