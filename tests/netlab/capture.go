package netlab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrCaptureDropped means that the kernel dropped packets that a capture should have
// seen, so that its counts are not to be trusted.
var ErrCaptureDropped = errors.New("the capture lost packets")

// The ring between kernel and capture: 32 MiB, handed over a block at a time, at the
// latest after blockTimeout. So it lasts for two and a half seconds without a reader even if
// only few packets come.
const (
	blockSize    = 1 << 18
	blockCount   = 128
	frameSize    = 1 << 11
	blockTimeout = 20 * time.Millisecond
)

// Capture records what crosses one interface of a host, both ways: RTP per stream and
// SIP messages, with the kernel's timestamps.
type Capture struct {
	// Host where the capture runs.
	Host string

	wire   bool
	fd     int
	ring   []byte
	stop   chan struct{}
	done   chan struct{}
	failed error // set before done is closed

	mu  sync.Mutex
	log Log

	stopOnce sync.Once
	stopErr  error
}

// Capture starts to record on a device of a host. What is sent after it has returned
// is seen.
func (l *Lab) Capture(host, device string) (*Capture, error) {
	return l.capture(&Capture{log: newLog(host)}, host, device)
}

// CaptureWire is Capture, and counts each frame that crosses the interface, those for other
// hosts too: for the port of a switch.
func (l *Lab) CaptureWire(host, device string) (*Capture, error) {
	c := &Capture{log: newLog(host), wire: true}
	c.log.Wire = Census{}
	return l.capture(c, host, device)
}

func (l *Lab) capture(c *Capture, host, device string) (*Capture, error) {
	c.Host, c.fd, c.stop, c.done = host, -1, make(chan struct{}), make(chan struct{})
	if err := l.Do(host, func() error { return c.open(device) }); err != nil {
		c.close()
		return nil, fmt.Errorf("capture on %s/%s: %w", host, device, err)
	}
	go c.run()
	return c, nil
}

// open must run within the host's namespace.
func (c *Capture) open(device string) error {
	ifi, err := net.InterfaceByName(device)
	if err != nil {
		return err
	}
	// No protocol yet, so that nothing arrives before the socket is bound to the device.
	if c.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	if err := unix.SetsockoptInt(c.fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V3); err != nil {
		return fmt.Errorf("TPACKET_V3: %w", err)
	}
	request := unix.TpacketReq3{
		Block_size:     blockSize,
		Block_nr:       blockCount,
		Frame_size:     frameSize,
		Frame_nr:       blockCount * blockSize / frameSize,
		Retire_blk_tov: uint32(blockTimeout.Milliseconds()),
	}
	if err := unix.SetsockoptTpacketReq3(c.fd, unix.SOL_PACKET, unix.PACKET_RX_RING, &request); err != nil {
		return fmt.Errorf("ring: %w", err)
	}
	c.ring, err = unix.Mmap(c.fd, 0, blockCount*blockSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("mapping the ring: %w", err)
	}
	// Outgoing packets are shown only to sockets that ask for every protocol.
	all := binary.BigEndian.Uint16([]byte{unix.ETH_P_ALL & 0xff, unix.ETH_P_ALL >> 8})
	if err := unix.Bind(c.fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: ifi.Index}); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	return nil
}

func (c *Capture) close() {
	if c.ring != nil {
		_ = unix.Munmap(c.ring) // cannot fail on a mapping of ours
	}
	if c.fd >= 0 {
		_ = unix.Close(c.fd)
	}
}

// run reads blocks until it is told to stop and has seen the kernel hand over what was in
// the block it was filling.
func (c *Capture) run() {
	defer close(c.done)
	poll := []unix.PollFd{{Fd: int32(c.fd), Events: unix.POLLIN}}
	var stopped time.Time
	for block := 0; ; {
		select {
		case <-c.stop:
			if stopped.IsZero() {
				stopped = time.Now()
			}
		default:
		}
		desc := (*unix.TpacketBlockDesc)(unsafe.Pointer(&c.ring[block*blockSize]))
		header := (*unix.TpacketHdrV1)(unsafe.Pointer(&desc.Hdr))
		if atomic.LoadUint32(&header.Block_status)&unix.TP_STATUS_USER != 0 {
			begun := time.Unix(int64(header.Ts_first_pkt.Sec), int64(header.Ts_first_pkt.Usec)) // nanoseconds in version 3
			if !stopped.IsZero() && begun.After(stopped) {
				return
			}
			c.read(c.ring[block*blockSize:][:blockSize], header)
			atomic.StoreUint32(&header.Block_status, unix.TP_STATUS_KERNEL)
			block = (block + 1) % blockCount
			continue
		}
		if !stopped.IsZero() && time.Since(stopped) > 4*blockTimeout {
			return
		}
		_, err := unix.Poll(poll, int(2*blockTimeout.Milliseconds()))
		if err != nil && !errors.Is(err, unix.EINTR) {
			c.failed = fmt.Errorf("poll: %w", err)
			return
		}
	}
}

// read takes the packets out of one block.
func (c *Capture) read(block []byte, header *unix.TpacketHdrV1) {
	c.mu.Lock()
	defer c.mu.Unlock()
	offset := header.Offset_to_first_pkt
	for range header.Num_pkts {
		pkt := (*unix.Tpacket3Hdr)(unsafe.Pointer(&block[offset]))
		// The link-layer address stands behind the header: TPACKET_ALIGN(sizeof(tpacket3_hdr)).
		ll := (*unix.RawSockaddrLinklayer)(unsafe.Pointer(&block[offset+uint32(unsafe.Sizeof(*pkt))]))
		frame := block[offset+uint32(pkt.Mac):][:pkt.Snaplen]
		out := ll.Pkttype == unix.PACKET_OUTGOING
		// A frame for another address crosses a cable, but the host does not take it in.
		if c.wire || ll.Pkttype != unix.PACKET_OTHERHOST {
			bare := ll.Hatype == unix.ARPHRD_NONE
			c.log.add(time.Unix(int64(pkt.Sec), int64(pkt.Nsec)), out, bare, frame)
		}
		if c.wire {
			c.log.Wire[readFrame(out, tagOf(pkt), frame)]++
		}
		offset += pkt.Next_offset
	}
}

// tagOf is the VLAN tag that the kernel has taken off a frame, or nil.
func tagOf(pkt *unix.Tpacket3Hdr) *uint16 {
	if pkt.Status&unix.TP_STATUS_VLAN_VALID == 0 {
		return nil
	}
	tci := uint16(pkt.Hv1.Vlan_tci)
	return &tci
}

// Wire is the census so far, while the capture runs.
func (c *Capture) Wire() Census {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.log.Wire)
}

// Totals are the counts so far, while the capture runs.
func (c *Capture) Totals() Totals {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.log.Totals()
}

// Stop ends the capture and returns what it recorded, to the last packet that crossed
// the interface before the call. [ErrCaptureDropped] says that there is a hole in it.
// It may be called more than once.
func (c *Capture) Stop() (*Log, error) {
	c.stopOnce.Do(func() {
		close(c.stop)
		<-c.done
		stats, err := unix.GetsockoptTpacketStatsV3(c.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
		switch {
		case c.failed != nil:
			c.stopErr = fmt.Errorf("capture in %s: %w", c.Host, c.failed)
		case err != nil:
			c.stopErr = fmt.Errorf("capture in %s: statistics: %w", c.Host, err)
		case stats.Drops > 0:
			c.stopErr = fmt.Errorf("capture in %s: %d of %d: %w", c.Host, stats.Drops, stats.Packets, ErrCaptureDropped)
		}
		c.close()
	})
	return &c.log, c.stopErr
}
