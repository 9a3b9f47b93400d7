package relay

import (
	"encoding/binary"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Sizes in bytes of what stands before a control message's data (struct cmsghdr: size_t
// length, int level, int type), and of the messages that are used.
var (
	cmsgHeader = unix.CmsgLen(0)
	tosSpace   = unix.CmsgSpace(4) // an int
)

// controlSize has room for what the kernel says of a packet: its arrival (struct
// timespec) and its TOS (a byte), 56 bytes.
const controlSize = 64

// ecnBits of the TOS byte are the sender's and stay (RFC 3168).
const ecnBits = 0x03

// putTOS writes the control message that gives one packet its TOS byte, and returns its
// length. The mark thus belongs to the flow: no socket option has to be kept in step.
func putTOS(b []byte, tos uint8) int {
	size := unix.CmsgLen(4)
	if cmsgHeader == 16 {
		binary.NativeEndian.PutUint64(b, uint64(size))
	} else {
		binary.NativeEndian.PutUint32(b, uint32(size))
	}
	binary.NativeEndian.PutUint32(b[cmsgHeader-8:], unix.IPPROTO_IP)
	binary.NativeEndian.PutUint32(b[cmsgHeader-4:], unix.IP_TOS)
	binary.NativeEndian.PutUint32(b[cmsgHeader:], uint32(tos))
	return tosSpace
}

// readControl returns the TOS byte of a packet that was received and its time of
// arrival in ns since 1970, 0 if they are not there.
func readControl(b []byte) (tos uint8, arrival int64) {
	for len(b) >= cmsgHeader {
		size := int(binary.NativeEndian.Uint32(b)) // of either width on a little-endian machine
		if cmsgHeader == 16 {
			size = int(binary.NativeEndian.Uint64(b))
		}
		if size < cmsgHeader || size > len(b) {
			return tos, arrival
		}
		level, kind := binary.NativeEndian.Uint32(b[cmsgHeader-8:]), binary.NativeEndian.Uint32(b[cmsgHeader-4:])
		data := b[cmsgHeader:size]
		switch {
		case level == unix.IPPROTO_IP && kind == unix.IP_TOS && len(data) >= 1:
			tos = data[0]
		case level == unix.SOL_SOCKET && kind == unix.SCM_TIMESTAMPNS && len(data) >= int(unsafe.Sizeof(unix.Timespec{})):
			arrival = (*unix.Timespec)(unsafe.Pointer(&data[0])).Nano()
		}
		b = b[min(len(b), unix.CmsgSpace(size-cmsgHeader)):]
	}
	return tos, arrival
}

// maxQueued bounds how long a packet is taken to have waited for its reader: by more the
// kernel's clock has been set meanwhile.
const maxQueued = time.Second

// arrivedAt places the arrival of a packet on Go's clock, which no one sets. Packets that
// waited for their reader together did not come together: without it the jitter and the
// gaps that are measured would be our own.
func arrivedAt(now time.Time, arrival int64) time.Time {
	queued := time.Duration(now.UnixNano() - arrival)
	if arrival == 0 || queued < 0 || queued > maxQueued {
		return now
	}
	return now.Add(-queued)
}
