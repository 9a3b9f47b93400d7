package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/tandem-sbc/tandem/tests/netlab"
)

// The media load. Every path gets the same packets: G.711 of 20 ms, 214 bytes with
// Ethernet, one direction of 1,000 calls, the calls in shuffled order.
const (
	mediaFlows  = 1000
	mediaRounds = 9
	// transferTime is the length of one transfer; a search takes searchSteps of them at most,
	// and the first one.
	transferTime = 200 * time.Millisecond
	searchSteps  = 6
	// With more loss than lossLimit, or less than keepUp of the packets through while they
	// are sent (the rest waits in queues), a rate is too much.
	lossLimit = 0.001
	keepUp    = 0.98
	// Latency is taken at 10,000 packets a second, what 200 calls have: no path has a queue.
	// More than probeLoss of the probes must not be missing.
	probeGap  = 100 * time.Microsecond
	probes    = 4000
	probeLoss = 0.01
	// Before it each flow has warmUps/mediaFlows packets, at a rate that every path can take.
	warmUps    = 2 * mediaFlows
	warmUpRate = 50000
)

// What issue 3 aims at. The forwarder is an XDP program with one look-up, its rate
// without loss measured elsewhere, on a machine of 2 cores; only ratios within one run
// really say something.
const (
	relayAim           = 3.0
	forwarderAim       = 1.2
	forwarderElsewhere = 4.6e6
)

// media measures packets per second, latency and CPU end to end on every path, round by
// round, so that what else the machine does meets all of them.
func (b *bench) media(ctx context.Context) (err error) {
	meter, err := newMeter()
	if err != nil {
		return err
	}
	var paths []*path
	defer func() {
		for _, p := range paths {
			err = errors.Join(err, p.close())
		}
	}()
	for _, kind := range pathKinds() {
		p, err := openPath(ctx, kind)
		if err != nil {
			return fmt.Errorf("path %s: %w", kind.name, err)
		}
		paths = append(paths, p)
	}
	all := mediaResult{}
	for range mediaRounds {
		for _, p := range paths {
			m, err := p.measure(ctx, meter)
			if err != nil {
				return fmt.Errorf("path %s: %w", p.name, err)
			}
			all[p.name] = append(all[p.name], m)
		}
	}
	for _, p := range paths {
		b.recordMedia(all, p.name)
	}
	for _, other := range []string{pathRelay, pathNAT, pathFloor} {
		b.record("e2e_kernel_over_"+other, all.over(pathKernel, other), "ratio")
	}
	return all.print(b.out)
}

// measured is one round on one path.
type measured struct {
	// pps is the rate that the path is known by, with its loss (share of packets) and CPU
	// time per packet in ns; lossless is the highest rate without loss.
	pps, loss, cpu, lossless float64
	// p50 and p99 are of the time from sender to receiver, in µs.
	p50, p99 float64
}

// mediaResult has the rounds of each path by name.
type mediaResult map[string][]measured

// median of a figure over the rounds of a path.
func (r mediaResult) median(path string, figure func(measured) float64) float64 {
	var values []float64
	for _, m := range r[path] {
		values = append(values, figure(m))
	}
	return median(values)
}

// added is the median of what a path takes more than the cable does, in the same round.
func (r mediaResult) added(path string, figure func(measured) float64) float64 {
	var values []float64
	for i, m := range r[path] {
		values = append(values, figure(m)-figure(r[pathDirect][i]))
	}
	return median(values)
}

// over is the median of the rate of one path over that of another in the same round.
func (r mediaResult) over(path, other string) float64 {
	var values []float64
	for i, m := range r[path] {
		values = append(values, m.pps/r[other][i].pps)
	}
	return median(values)
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}

func pps(m measured) float64      { return m.pps }
func lossless(m measured) float64 { return m.lossless }
func loss(m measured) float64     { return m.loss }
func cpu(m measured) float64      { return m.cpu }
func p50(m measured) float64      { return m.p50 }
func p99(m measured) float64      { return m.p99 }

func (b *bench) recordMedia(r mediaResult, path string) {
	name := func(figure string) string { return "e2e_" + path + "_" + figure }
	b.record(name("pps"), r.median(path, pps), "packets/s")
	b.record(name("lossless_pps"), r.median(path, lossless), "packets/s")
	b.record(name("loss_percent"), 100*r.median(path, loss), "%")
	b.record(name("cpu_ns"), r.median(path, cpu), "ns")
	if path == pathDirect {
		b.record(name("us_p50"), r.median(path, p50), "us")
		b.record(name("us_p99"), r.median(path, p99), "us")
		return
	}
	b.record(name("added_cpu_ns"), r.added(path, cpu), "ns")
	b.record(name("added_us_p50"), r.added(path, p50), "us")
	b.record(name("added_us_p99"), r.added(path, p99), "us")
}

// print shows the paths beside each other.
func (r mediaResult) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "\n  media, %d flows\tpackets/s\tof floor\twithout loss\tloss\tCPU/packet\tadded\t"+
		"latency p50\tp99\tadded p50\tp99\t\n", mediaFlows)
	for _, kind := range pathKinds() {
		path := kind.name
		addedCPU, addedP50, addedP99 := "-", "-", "-"
		if path != pathDirect {
			addedCPU = fmt.Sprintf("%.0f ns", r.added(path, cpu))
			addedP50 = fmt.Sprintf("%.2f us", r.added(path, p50))
			addedP99 = fmt.Sprintf("%.2f us", r.added(path, p99))
		}
		fmt.Fprintf(w, "  %s\t%s\t%.2f\t%s\t%.2f %%\t%.0f ns\t%s\t%.2f us\t%.2f us\t%s\t%s\t\n", path,
			grouped(uint64(r.median(path, pps))), r.over(path, pathFloor), grouped(uint64(r.median(path, lossless))),
			100*r.median(path, loss), r.median(path, cpu), addedCPU, r.median(path, p50), r.median(path, p99), addedP50, addedP99)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "\n  direct: a cable. floor: an XDP forwarder with one look-up. nat, relay: the most that came through.\n"+
		"  The kernel engine does %.1f times the relay (aim: %.0f), %.1f times nftables NAT (aim: more than 1)\n"+
		"  and %.2f of the floor; %.2f of %.1f times the %.1f M packets/s that such a forwarder did on another machine (aim: 1).\n\n",
		r.over(pathKernel, pathRelay), relayAim, r.over(pathKernel, pathNAT), r.over(pathKernel, pathFloor),
		r.median(pathKernel, pps)/(forwarderAim*forwarderElsewhere), forwarderAim, forwarderElsewhere/1e6)
	return err
}

// measure is one round on a path.
func (p *path) measure(ctx context.Context, meter *meter) (m measured, err error) {
	all := func(n int, send func() error) error {
		before, err := p.receiver.Counts()
		if err != nil {
			return err
		}
		if err := send(); err != nil {
			return err
		}
		_, err = p.receiver.Settle(ctx, before.Packets+uint64(n))
		return err
	}
	if err := all(warmUps, func() error { return p.sender.Send(ctx, warmUps, warmUpRate) }); err != nil {
		return m, err
	}
	before, err := p.receiver.Latency()
	if err != nil {
		return m, err
	}
	if err := all(probes, func() error { return p.sender.Probe(ctx, probes, probeGap) }); err != nil {
		return m, err
	}
	took, err := p.receiver.Latency()
	if err != nil {
		return m, err
	}
	took = took.Sub(before)
	if got := took.Count(); float64(got) < probes*(1-probeLoss) {
		return m, fmt.Errorf("%d of %d probes came through", got, probes)
	}
	us := func(q float64) float64 { return float64(took.Quantile(q)) / float64(time.Microsecond) }
	best, peak, err := search(func(rate int) (transfer, error) { return p.transfer(ctx, meter, rate) })
	if err != nil {
		return m, err
	}
	if p.lossless {
		peak = best
	}
	return measured{
		pps: peak.delivered, loss: peak.loss, cpu: peak.cpu, lossless: best.delivered,
		p50: us(0.5), p99: us(0.99),
	}, nil
}

// transfer is what came of sending for a time.
type transfer struct {
	// offered and delivered are packets per second while sending.
	offered, delivered float64
	// loss is the share of packets that never came.
	loss float64
	// cpu is time in ns per packet that came: of sender, gateway and receiver together.
	cpu float64
}

func (t transfer) taken() bool { return t.loss < lossLimit && t.delivered > keepUp*t.offered }

// search finds the transfer of the highest rate without loss (a zero one if each has some),
// and the one that delivers most. send sends at a rate, or as fast as it can at 0.
func search(send func(rate int) (transfer, error)) (best, peak transfer, err error) {
	if peak, err = send(0); err != nil || peak.taken() {
		return peak, peak, err
	}
	low, high := 0.0, min(peak.offered, 2*peak.delivered)
	for range searchSteps {
		rate := (low + high) / 2
		t, err := send(int(rate))
		if err != nil {
			return best, peak, err
		}
		if t.delivered > peak.delivered {
			peak = t
		}
		if t.taken() {
			low, best = rate, t
		} else {
			high = rate
		}
	}
	return best, peak, nil
}

// transfer sends at a rate, or as fast as one CPU can at 0, and waits for the last packet.
func (p *path) transfer(ctx context.Context, meter *meter, rate int) (t transfer, err error) {
	before, err := p.receiver.Counts()
	if err != nil {
		return t, err
	}
	cpuBefore, err := meter.read()
	if err != nil {
		return t, err
	}
	begun := time.Now()
	sent := int(float64(rate) * transferTime.Seconds())
	if rate > 0 {
		err = p.sender.Send(ctx, sent, rate)
	} else {
		sent, err = p.sender.Flood(ctx, transferTime)
	}
	if err != nil {
		return t, err
	}
	sending := time.Since(begun).Seconds()
	during, err := p.receiver.Counts()
	if err != nil {
		return t, err
	}
	after, err := p.receiver.Settle(ctx, before.Packets+uint64(sent))
	if err != nil {
		return t, err
	}
	cpuAfter, err := meter.read()
	if err != nil {
		return t, err
	}
	came := float64(after.Packets - before.Packets)
	switch {
	case came == 0:
		return t, errors.New("no packet came through")
	case after.Wrong > 0:
		return t, fmt.Errorf("%d packets came where they should not", after.Wrong)
	}
	return transfer{
		offered:   float64(sent) / sending,
		delivered: float64(during.Packets-before.Packets) / sending,
		loss:      1 - came/float64(sent),
		cpu:       float64(cpuAfter-cpuBefore) / came,
	}, nil
}

// meter reads the CPU time of all that handles a packet: this process, in which sender,
// engines and receiver run, and the kernel's threads for interrupt work that was put off.
type meter struct{ pids []int }

func newMeter() (*meter, error) {
	m := &meter{pids: []int{os.Getpid()}}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		var pid int
		if _, err := fmt.Sscanf(e.Name(), "%d", &pid); err != nil {
			continue // not a process
		}
		comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		if err != nil {
			continue // ended meanwhile
		}
		if strings.HasPrefix(string(comm), "ksoftirqd/") {
			m.pids = append(m.pids, pid)
		}
	}
	return m, nil
}

func (m *meter) read() (total time.Duration, err error) {
	for _, pid := range m.pids {
		t, err := netlab.CPUTime(pid)
		if err != nil {
			return 0, err
		}
		total += t
	}
	return total, nil
}
