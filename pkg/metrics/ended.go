package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// Ended keeps the distribution of the media quality of answered calls that have ended: a
// leg is one observation. Live calls cannot be in a histogram, whose buckets are counters.
type Ended struct {
	mos, jitter, rtt, loss *prometheus.HistogramVec
}

// Buckets have the thresholds of our alerts among their bounds: MOS 4.0, jitter 30 ms,
// loss 1 %, latency 150 ms one way (O2), and the categories of ITU-T G.109.
var (
	mosBuckets    = []float64{1.5, 2, 2.58, 3.1, 3.6, 4, 4.2, 4.34}
	jitterBuckets = []float64{.001, .002, .005, .01, .02, .03, .05, .1, .2}
	rttBuckets    = []float64{.01, .02, .05, .1, .15, .2, .3, .5, 1}
	lossBuckets   = []float64{0, .001, .005, .01, .02, .05, .1, .2}
)

// NewEnded returns distributions without a call.
func NewEnded() *Ended {
	histogram := func(name, help string, buckets []float64) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "tandem_trunk_call_" + name, Help: help, Buckets: buckets}, []string{"trunk", "realm"})
	}
	return &Ended{
		mos:    histogram("mos", "MOS of what the peer sent in an answered call, by the E-model, at its end.", mosBuckets),
		jitter: histogram("jitter_seconds", "Interarrival jitter of what the peer sent in an answered call, at its end.", jitterBuckets),
		rtt:    histogram("rtt_seconds", "Round trip to the peer of an answered call, by its last reports.", rttBuckets),
		loss:   histogram("loss_ratio", "Lost of expected packets of what the peer sent in an answered call.", lossBuckets),
	}
}

// Observe takes an ended call into account. What is not known of a leg is not observed.
func (d *Ended) Observe(r call.Record) {
	if r.Answered.IsZero() {
		return
	}
	for _, leg := range []call.LegRecord{r.Ingress, r.Egress} {
		m := leg.Media
		if m.MOS > 0 {
			d.mos.WithLabelValues(leg.Trunk, leg.Realm).Observe(m.MOS)
		}
		if m.RTTMS > 0 {
			d.rtt.WithLabelValues(leg.Trunk, leg.Realm).Observe(m.RTTMS / 1000)
		}
		if m.Packets > 0 {
			d.jitter.WithLabelValues(leg.Trunk, leg.Realm).Observe(m.JitterMS / 1000)
			d.loss.WithLabelValues(leg.Trunk, leg.Realm).Observe(m.LossRatio())
		}
	}
}

// prepare makes the series of trunks that have had no call, so that a rate sees the first.
func (d *Ended) prepare(trunks []Trunk) {
	for _, t := range trunks {
		for _, v := range d.all() {
			v.WithLabelValues(t.Name, t.Realm)
		}
	}
}

func (d *Ended) all() []*prometheus.HistogramVec {
	return []*prometheus.HistogramVec{d.mos, d.jitter, d.rtt, d.loss}
}

func (d *Ended) describe(ch chan<- *prometheus.Desc) {
	for _, v := range d.all() {
		v.Describe(ch)
	}
}

func (d *Ended) collect(ch chan<- prometheus.Metric) {
	for _, v := range d.all() {
		v.Collect(ch)
	}
}
