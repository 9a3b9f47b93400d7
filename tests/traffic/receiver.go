package traffic

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// Counts is what came to a Receiver since it was made.
type Counts struct {
	Packets uint64
	// Skipped packets were missing when a later one of their flow came; Late ones came then.
	// The difference is lost, but for what each flow lost at its end.
	Skipped, Late uint64
	// Wrong packets had another port or RTP sequence number than their flow.
	Wrong uint64
}

// Receiver takes a Sender's packets off a device and counts them. Its methods may be called
// from any goroutine.
type Receiver struct {
	objs receiver
	link link.Link
}

type receiver struct {
	Program  *ebpf.Program `ebpf:"receive"`
	Counts   *ebpf.Map     `ebpf:"counts"`
	NextPass *ebpf.Map     `ebpf:"next_pass"`
	Latency  *ebpf.Map     `ebpf:"latency"`
}

// NewReceiver counts packets of so many flows on a device in the namespace at path. The
// first flow arrives at port, each further one 2 above. What is not the Sender's goes to
// the stack.
func NewReceiver(path, device string, flows int, port uint16) (*Receiver, error) {
	r := &Receiver{}
	if err := within(path, func() error { return r.open(device, flows, port) }); err != nil {
		return nil, fmt.Errorf("receiver on %s: %w", device, errors.Join(err, r.Close()))
	}
	return r, nil
}

func (r *Receiver) open(device string, flows int, port uint16) error {
	ifi, err := net.InterfaceByName(device)
	if err != nil {
		return err
	}
	spec, err := loadTraffic()
	if err != nil {
		return err
	}
	spec.Maps[trafficMapNextPass].MaxEntries = uint32(flows)
	if err := spec.Variables[trafficVarDestPort].Set(port); err != nil {
		return err
	}
	if err := spec.LoadAndAssign(&r.objs, nil); err != nil {
		return fmt.Errorf("load: %w", err)
	}
	r.link, err = link.AttachXDP(link.XDPOptions{Program: r.objs.Program, Interface: ifi.Index, Flags: link.XDPDriverMode})
	return err
}

// Close detaches the receiver. It may be called more than once.
func (r *Receiver) Close() error {
	var errs []error
	if r.link != nil {
		errs = append(errs, r.link.Close())
		r.link = nil
	}
	if r.objs.Program != nil {
		errs = append(errs, r.objs.Program.Close(), r.objs.Counts.Close(), r.objs.NextPass.Close(), r.objs.Latency.Close())
		r.objs = receiver{}
	}
	return errors.Join(errs...)
}

// Counts returns what came up to now.
func (r *Receiver) Counts() (c Counts, err error) {
	var perCPU []trafficCount
	if err := r.objs.Counts.Lookup(uint32(0), &perCPU); err != nil {
		return c, fmt.Errorf("read the receiver's counters: %w", err)
	}
	for _, n := range perCPU {
		c.Packets += n.Packets
		c.Skipped += n.Skipped
		c.Late += n.Late
		c.Wrong += n.Wrong
	}
	return c, nil
}

// quiet is how long nothing comes when all has come: more than a gateway that shares its
// CPU is kept waiting.
const quiet = 50 * time.Millisecond

// Settle waits until n packets came, or none for 50 ms, and returns the counts.
func (r *Receiver) Settle(ctx context.Context, n uint64) (Counts, error) {
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	last, err := r.Counts()
	for since := time.Now(); err == nil && last.Packets < n && time.Since(since) < quiet; {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return last, ctx.Err()
		}
		var now Counts
		now, err = r.Counts()
		if now.Packets != last.Packets {
			since = time.Now()
		}
		last = now
	}
	return last, err
}

// Latency returns how long packets of Sender.Probe took, from before their making to
// their arrival.
func (r *Receiver) Latency() (Histogram, error) {
	h := Histogram{counts: make([]uint64, r.objs.Latency.MaxEntries())}
	var perCPU []uint64
	for i := range h.counts {
		if err := r.objs.Latency.Lookup(uint32(i), &perCPU); err != nil {
			return Histogram{}, fmt.Errorf("read the latencies: %w", err)
		}
		for _, n := range perCPU {
			h.counts[i] += n
		}
	}
	return h, nil
}
