package metrics

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// ratings are the categories of speech transmission quality of ITU-T G.109 table 1 with
// their least MOS: R of 90, 80, 70, 60 and 50 by ITU-T G.107 annex B.
var ratings = []struct {
	name string
	mos  float64
}{
	{"best", 4.34}, {"high", 4.03}, {"medium", 3.60}, {"low", 3.10}, {"poor", 2.58}, {"unacceptable", 0},
}

// unrated is the category of a leg without a MOS: no packets yet, or a codec without
// published values.
const unrated = "unknown"

func rating(mos float64) string {
	if mos <= 0 {
		return unrated
	}
	for _, r := range ratings {
		if mos >= r.mos {
			return r.name
		}
	}
	return unrated
}

// media sends what answered calls are like, by trunk. Live values are aggregated here: a
// label per call would be one per call ever made (O1).
func (c *Collector) media(e emitter) {
	if c.sources.Ended != nil {
		if c.sources.Trunks != nil {
			c.sources.Ended.prepare(c.sources.Trunks())
		}
		c.sources.Ended.collect(e.ch)
	}
	if c.sources.Media == nil {
		return
	}
	trunks, err := c.sources.Media()
	if err != nil {
		c.fail("read the media of calls", err)
	}
	for _, t := range trunks {
		c.mediaCounters(e, t)
		c.liveMedia(e, t)
	}
}

func (c *Collector) mediaCounters(e emitter, t TrunkMedia) {
	n := t.Counters
	for _, counter := range []struct {
		family
		value uint64
	}{
		{mediaPackets, n.Packets}, {mediaBytes, n.Bytes}, {mediaLost, n.Lost}, {mediaReordered, n.Reordered},
		{mediaDuplicated, n.Duplicated}, {mediaRefused, n.Refused}, {mediaOutOfPolicy, n.OutOfPolicy}, {mediaRemoteLost, n.RemoteLost},
	} {
		e.add(counter.family, float64(c.floor.atLeast(floorKey{counter.desc, t.Trunk}, counter.value)), t.Trunk, t.Realm)
	}
}

func (c *Collector) liveMedia(e emitter, t TrunkMedia) {
	legs := make(map[string]int, len(ratings)+1)
	var mos, jitter, rtt spread
	for _, m := range t.Live {
		legs[rating(m.MOS)]++
		if m.MOS > 0 {
			mos.add(m.MOS)
		}
		if m.JitterMS > 0 {
			jitter.add(m.JitterMS / 1000)
		}
		if m.RTTMS > 0 {
			rtt.add(m.RTTMS / 1000)
		}
	}
	for _, r := range ratings {
		e.add(mediaLegs, float64(legs[r.name]), t.Trunk, t.Realm, r.name)
	}
	e.add(mediaLegs, float64(legs[unrated]), t.Trunk, t.Realm, unrated)
	// A trunk of which nothing is known has no sample: 0 would be a value, and a bad MOS.
	if mos.n > 0 {
		e.add(mediaMOS, mos.mean(), t.Trunk, t.Realm)
		e.add(mediaMOSMin, mos.least, t.Trunk, t.Realm)
	}
	if jitter.n > 0 {
		e.add(mediaJitter, jitter.mean(), t.Trunk, t.Realm)
		e.add(mediaJitterMax, jitter.most, t.Trunk, t.Realm)
	}
	if rtt.n > 0 {
		e.add(mediaRTT, rtt.mean(), t.Trunk, t.Realm)
		e.add(mediaRTTMax, rtt.most, t.Trunk, t.Realm)
	}
}

// spread is the mean and the ends of some values.
type spread struct {
	n                int
	sum, least, most float64
}

func (s *spread) add(v float64) {
	if s.n == 0 || v < s.least {
		s.least = v
	}
	if s.n == 0 || v > s.most {
		s.most = v
	}
	s.n++
	s.sum += v
}

func (s *spread) mean() float64 { return s.sum / float64(s.n) }

// floor keeps counters from going down. Loss does so by itself when a late packet comes
// (RFC 3550 section A.3), and a sum does while some calls cannot be read; Prometheus would
// take either for a restart of the daemon and count everything again.
type floor struct {
	mu   sync.Mutex
	seen map[floorKey]uint64
}

type floorKey struct {
	desc  *prometheus.Desc
	trunk string
}

// atLeast is a counter's value, or what it was before if that was more.
func (f *floor) atLeast(key floorKey, value uint64) uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.seen == nil {
		f.seen = make(map[floorKey]uint64)
	}
	f.seen[key] = max(f.seen[key], value)
	return f.seen[key]
}
