package traffic

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

const (
	// tick is the time between two bursts of a paced stream.
	tick = time.Millisecond
	// maxBurst bounds what is made up for after the sender was kept from running.
	maxBurst = 5 * tick
	// chunk is the number of packets in a program run: long enough for its set-up not to
	// count (some 20 µs), short enough to end in time.
	chunk = 20000
	// batch is how many frames are made before the first of them is sent.
	batch = 64
	// loopback is the interface index of lo in every namespace.
	loopback = 1
)

// Sender sends a Stream. One goroutine at a time may use it.
type Sender struct {
	namespace string
	objs      generator
	lo        link.Link
	frame     []byte
	// context is the program's struct xdp_md.
	context struct{ Data, DataEnd, DataMeta, Ingress, Queue, Egress uint32 }
}

// generator is the part of the objects that a sender needs.
type generator struct {
	trafficVariables
	Program *ebpf.Program `ebpf:"generate"`
}

// NewSender prepares a stream out of a device in the namespace at path, such as
// "/run/netns/NAME". Until Close, no other Sender can be in that namespace.
func NewSender(path, device string, s Stream) (*Sender, error) {
	if s.Payload == 0 {
		s.Payload = defaultPayload
	}
	if err := s.validate(); err != nil {
		return nil, fmt.Errorf("stream: %w", err)
	}
	snd := &Sender{namespace: path}
	if err := within(path, func() error { return snd.open(device, s) }); err != nil {
		return nil, fmt.Errorf("sender on %s: %w", device, errors.Join(err, snd.Close()))
	}
	return snd, nil
}

func (s *Sender) open(device string, stream Stream) error {
	ifi, err := net.InterfaceByName(device)
	if err != nil {
		return err
	}
	s.frame = stream.frame(ifi.HardwareAddr)
	s.context.DataEnd = uint32(len(s.frame))
	s.context.Ingress = uint32(ifi.Index)
	if err := loadTrafficObjects(&s.objs, nil); err != nil {
		return fmt.Errorf("load the generator: %w", err)
	}
	// A program that is attached nowhere is put into the dispatcher for each run, and taken
	// out again: 20 ms of waiting.
	s.lo, err = link.AttachXDP(link.XDPOptions{Program: s.objs.Program, Interface: loopback, Flags: link.XDPGenericMode})
	if err != nil {
		return fmt.Errorf("attach the generator to lo: %w", err)
	}
	var head [headLen / 8]uint64
	for i := range head {
		head[i] = binary.NativeEndian.Uint64(s.frame[8*i:])
	}
	v := &s.objs.trafficVariables
	return errors.Join(
		v.Head.Set(head),
		v.Checksum.Set(checksum(s.frame)),
		v.FirstSource.Set(stream.Source.Port()),
		v.FirstDest.Set(stream.Dest.Port()),
		v.Flows.Set(uint32(stream.Flows)),
		v.Stride.Set(uint32(stride(stream.Flows))),
		v.Samples.Set(uint32(stream.Payload)),
	)
}

// Close frees the programs. It may be called more than once.
func (s *Sender) Close() error {
	var errs []error
	if s.lo != nil {
		errs = append(errs, s.lo.Close())
	}
	if s.objs.Program != nil {
		errs = append(errs, s.objs.Program.Close())
	}
	s.lo, s.objs.Program = nil, nil
	return errors.Join(errs...)
}

// Send sends n packets, rate a second, in a burst per millisecond. Time that the machine
// did not give is made up for up to 5 ms; beyond that the stream takes longer.
func (s *Sender) Send(ctx context.Context, n, rate int) error {
	if rate < 1 {
		return fmt.Errorf("%d packets per second", rate)
	}
	return s.inside(func() error {
		credit := float64(0) // packets that are due
		for last := time.Now(); n > 0; {
			now := time.Now()
			credit += float64(rate) * min(now.Sub(last), maxBurst).Seconds()
			last = now
			burst := min(int(credit), n)
			if err := s.run(ctx, burst, batch); err != nil {
				return err
			}
			n -= burst
			credit -= float64(burst)
			if n > 0 {
				time.Sleep(tick - time.Since(now))
			}
		}
		return nil
	})
}

// Flood sends as fast as one CPU can, for a time, and returns the number of packets.
func (s *Sender) Flood(ctx context.Context, d time.Duration) (n int, err error) {
	err = s.inside(func() error {
		for begun := time.Now(); time.Since(begun) < d; n += chunk {
			if err := s.run(ctx, chunk, batch); err != nil {
				return err
			}
		}
		return nil
	})
	return n, err
}

// maxGap is the longest time that the program can wait.
const maxGap = time.Millisecond

// Probe sends n packets one by one, gap apart (at most 1 ms), and marks them for
// Receiver.Latency. It keeps a CPU busy between them: nothing has to wake up.
func (s *Sender) Probe(ctx context.Context, n int, gap time.Duration) error {
	if gap <= 0 || gap > maxGap {
		return fmt.Errorf("gap of %v is not up to %v", gap, maxGap)
	}
	return s.inside(func() (err error) {
		v := &s.objs.trafficVariables
		if err := errors.Join(v.Interval.Set(uint64(gap)), v.Timed.Set(uint32(1))); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, v.Interval.Set(uint64(0)), v.Timed.Set(uint32(0))) }()
		return s.run(ctx, n, 1)
	})
}

// inside runs f in the namespace and names its error.
func (s *Sender) inside(f func() error) error {
	if err := within(s.namespace, f); err != nil {
		return fmt.Errorf("sending: %w", err)
	}
	return nil
}

// run sends n packets at once, of which batch are made before they leave. The thread is in
// the namespace.
func (s *Sender) run(ctx context.Context, n, batch int) error {
	for n > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		part := min(n, chunk)
		if err := s.objs.Left.Set(uint64(part)); err != nil {
			return err
		}
		_, err := s.objs.Program.Run(&ebpf.RunOptions{
			Data:      s.frame,
			Context:   s.context,
			Repeat:    uint32(part),
			Flags:     unix.BPF_F_TEST_XDP_LIVE_FRAMES,
			BatchSize: uint32(batch),
		})
		if err != nil {
			return err
		}
		var left uint64
		if err := s.objs.Left.Get(&left); err != nil {
			return err
		}
		if left != 0 {
			return fmt.Errorf("%d of %d packets were not sent", left, part)
		}
		n -= part
	}
	return nil
}
