package metrics

import (
	"log/slog"
	"runtime"
	"strconv"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// Collector reads its sources at scrape time. It implements prometheus.Collector.
type Collector struct {
	sources Sources
	errors  atomic.Uint64
	floor   floor
}

// New returns a Collector of the sources.
func New(sources Sources) *Collector {
	if sources.Log == nil {
		sources.Log = slog.New(slog.DiscardHandler)
	}
	return &Collector{sources: sources}
}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(ch chan<- *prometheus.Desc) {
	for _, f := range families {
		ch <- f.desc
	}
	if c.sources.Ended != nil {
		c.sources.Ended.describe(ch)
	}
}

// Collect implements prometheus.Collector. What cannot be read is left out and counted
// in tandem_collection_errors_total, which comes last, so that a half scrape can be seen.
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	e := emitter{collector: c, ch: ch}
	e.add(buildInfo, 1, c.sources.Version, runtime.Version(), c.sources.Node)
	c.calls(e)
	c.trunks(e)
	c.groups(e)
	c.networks(e)
	c.tunnels(e)
	c.media(e)
	c.engine(e)
	c.sip(e)
	c.cdr(e)
	e.add(collectionErrors, float64(c.errors.Load()))
}

func (c *Collector) calls(e emitter) {
	if c.sources.Calls == nil {
		return
	}
	n := c.sources.Calls()
	e.add(callsActive, float64(n.Active))
	e.add(callsTotal, float64(n.Total))
	e.add(callsAnswered, float64(n.Answered))
	e.add(callsFailed, float64(n.Failed))
}

func (c *Collector) engine(e emitter) {
	if c.sources.PortsInUse != nil {
		e.add(portsInUse, float64(c.sources.PortsInUse()))
	}
	if c.sources.Engine == nil {
		return
	}
	st, err := c.sources.Engine()
	if err != nil {
		c.fail("read the media engine", err)
		return
	}
	if c.sources.Attachments != nil {
		for _, a := range c.sources.Attachments() {
			e.add(attachment, 1, a.Device, a.Hook, a.Mode)
		}
	}
	e.add(engineInfo, 1, st.Engine)
	e.add(engineFlows, float64(st.Flows))
	e.add(enginePackets, float64(st.KernelPackets), "kernel")
	e.add(enginePackets, float64(st.UserspacePackets), "userspace")
	for x, packets := range c.byRealm(st.Exits) {
		e.add(engineExits, float64(packets), x.realm, x.reason, x.verdict)
	}
	e.add(engineEvents, float64(st.EventsLost))
}

// exit is the labels of one way out of the engine.
type exit struct{ realm, reason, verdict string }

// byRealm gives exits their realm's name. Realms that the config does not have, as flows
// of a former process may, count as none.
func (c *Collector) byRealm(exits []call.Exit) map[exit]uint64 {
	named := make(map[exit]uint64, len(exits))
	for _, x := range exits {
		key := exit{reason: x.Reason, verdict: x.Verdict}
		if i := int(x.Realm) - 1; i >= 0 && i < len(c.sources.Realms) {
			key.realm = c.sources.Realms[i]
		}
		named[key] += x.Packets
	}
	return named
}

func (c *Collector) sip(e emitter) {
	if c.sources.SIP == nil {
		return
	}
	for _, s := range c.sources.SIP() {
		for method, n := range s.Requests {
			e.inOut(sipRequests, n, s.Realm, method)
		}
		for class := 1; class < len(s.Responses); class++ {
			e.inOut(sipResponses, s.Responses[class], s.Realm, strconv.Itoa(class)+"xx")
		}
		e.inOut(sipRetransmissions, s.Retransmissions, s.Realm)
		e.add(sipUnknownSources, float64(s.UnknownSources), s.Realm)
		e.add(sipParseErrors, float64(s.ParseErrors), s.Realm)
		e.add(sipStrays, float64(s.Strays), s.Realm)
		e.add(sipOversize, float64(s.Oversize), s.Realm)
		e.inOut(sipSocketErrors, InOut{In: s.ReadErrors, Out: s.SendErrors}, s.Realm)
		e.add(sipLegs, float64(s.Legs), s.Realm)
		e.add(sipTransactions, float64(s.Transactions), s.Realm)
	}
}

func (c *Collector) cdr(e emitter) {
	if c.sources.CDR == nil {
		return
	}
	r := c.sources.CDR()
	e.add(cdrWritten, float64(r.Written))
	e.add(cdrWriteErrors, float64(r.WriteErrors))
	e.add(cdrDropped, float64(r.Dropped))
	e.add(cdrQueued, float64(r.Queued))
	for code, n := range r.Causes {
		e.add(callsEnded, float64(n), code)
	}
}

func (c *Collector) fail(what string, err error) {
	c.errors.Add(1)
	c.sources.Log.Warn("metrics: "+what, "err", err)
}

// emitter sends samples of one scrape.
type emitter struct {
	collector *Collector
	ch        chan<- prometheus.Metric
}

func (e emitter) add(f family, value float64, labels ...string) {
	m, err := prometheus.NewConstMetric(f.desc, f.kind, value, labels...)
	if err != nil {
		e.collector.fail("make a sample", err)
		return
	}
	e.ch <- m
}

// inOut sends a pair; the family's label "direction" follows the realm.
func (e emitter) inOut(f family, n InOut, realm string, rest ...string) {
	e.add(f, float64(n.In), append([]string{realm, "in"}, rest...)...)
	e.add(f, float64(n.Out), append([]string{realm, "out"}, rest...)...)
}
