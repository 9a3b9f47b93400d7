package relay

import (
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// batchSize is how many packets one system call receives and sends at most. A batch
// takes 74 kB, and there are no more of them than readers with packets in hand.
const batchSize = 32

// mmsghdr is struct mmsghdr of recvmmsg(2) and sendmmsg(2).
type mmsghdr struct {
	unix.Msghdr
	length uint32 // received or sent, in bytes
}

// slot holds one packet and what the kernel says or is told of it.
type slot struct {
	addr    unix.RawSockaddrInet4 // where it is from
	iov     unix.Iovec
	control [controlSize]byte
	data    [maxPacket + 1]byte // one more, to tell a longer packet
}

// batch receives packets into its slots and sends them from there. Everything that it
// takes is in it, so that nothing is allocated per packet.
type batch struct {
	in, out  [batchSize]mmsghdr
	slots    [batchSize]slot
	ways     [batchSize]*path // nil for a packet that was dropped
	received int
	readErr  unix.Errno

	// sending are packets in out; write sends them from the socket it is called for.
	sending  []mmsghdr
	sent     int
	writeErr unix.Errno
	write    func(fd uintptr) bool
}

func newBatch() *batch {
	b := &batch{received: batchSize}
	b.write = func(fd uintptr) bool {
		b.sent, b.writeErr = sendmmsg(fd, b.sending)
		return true // what cannot be sent now would be late: its reader does not wait
	}
	for i := range b.slots {
		s, h := &b.slots[i], &b.in[i]
		s.iov.Base = &s.data[0]
		h.Name = (*byte)(unsafe.Pointer(&s.addr))
		h.Iov = &s.iov
		h.SetIovlen(1)
		h.Control = &s.control[0]
	}
	return b
}

// receive fills the batch from a socket. It reports false when there is nothing to read.
func (b *batch) receive(fd uintptr) bool {
	for i := range b.received { // the last time: the kernel and send have written there
		h := &b.in[i]
		h.Namelen = uint32(unsafe.Sizeof(b.slots[i].addr))
		h.SetControllen(controlSize)
		b.slots[i].iov.SetLen(len(b.slots[i].data))
		b.ways[i] = nil
	}
	b.received, b.readErr = recvmmsg(fd, b.in[:])
	return b.readErr != unix.EAGAIN
}

// packet returns what came in slot i, and the TOS byte it came with.
func (b *batch) packet(i int, now time.Time) (p packet, tos uint8) {
	s, h := &b.slots[i], &b.in[i]
	tos, arrival := readControl(s.control[:h.Controllen])
	return packet{
		data:    s.data[:min(h.length, maxPacket)],
		from:    addrPort(&s.addr),
		at:      arrivedAt(now, arrival),
		tooLong: h.length > maxPacket,
	}, tos
}

// leave has the packet in slot i sent on a path.
func (b *batch) leave(i int, w *path, length int, tos uint8) {
	s, h := &b.slots[i], &b.in[i]
	s.addr, h.Namelen = w.dest, uint32(unsafe.Sizeof(s.addr))
	s.iov.SetLen(length)
	h.SetControllen(putTOS(s.control[:], w.flow.DSCP<<2|tos&ecnBits))
	b.ways[i] = w
}

// send sends what leaves, by one system call for each socket that it leaves from, and
// returns how many packets could not be sent.
func (b *batch) send() (failed int) {
	for first := range b.received {
		if b.ways[first] == nil {
			continue
		}
		from, n := b.ways[first].out, 0
		for i := first; i < b.received; i++ {
			if w := b.ways[i]; w != nil && w.out == from {
				b.out[n], b.ways[i] = b.in[i], nil
				n++
			}
		}
		failed += b.sendFrom(from, b.out[:n])
	}
	return failed
}

// sendFrom returns how many of the packets could not be sent.
func (b *batch) sendFrom(s *socket, packets []mmsghdr) (failed int) {
	for len(packets) > 0 {
		b.sending, b.sent, b.writeErr = packets, 0, 0
		if err := s.raw.Write(b.write); err != nil {
			return failed + len(packets) // closed meanwhile
		}
		packets = packets[b.sent:]
		if b.writeErr != 0 && len(packets) > 0 {
			failed++ // the error is that of the first that was not sent
			packets = packets[1:]
		}
	}
	return failed
}

func recvmmsg(fd uintptr, messages []mmsghdr) (int, unix.Errno) {
	for {
		n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&messages[0])), uintptr(len(messages)),
			unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			return int(n), 0
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}

func sendmmsg(fd uintptr, messages []mmsghdr) (int, unix.Errno) {
	for {
		n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&messages[0])), uintptr(len(messages)),
			unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			return int(n), 0
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}
