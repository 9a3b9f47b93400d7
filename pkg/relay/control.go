package relay

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// tosMessage is the control message that gives one packet its DSCP. The mark thus
// belongs to the flow, and no socket option has to be kept in step with it.
func tosMessage(dscp uint8) []byte {
	const size = 4 // an int
	b := make([]byte, unix.CmsgSpace(size))
	// struct cmsghdr: size_t length, int level, int type; then the data.
	header := unix.CmsgLen(0)
	if header == 16 {
		binary.NativeEndian.PutUint64(b, uint64(unix.CmsgLen(size)))
	} else {
		binary.NativeEndian.PutUint32(b, uint32(unix.CmsgLen(size)))
	}
	binary.NativeEndian.PutUint32(b[header-8:], unix.IPPROTO_IP)
	binary.NativeEndian.PutUint32(b[header-4:], unix.IP_TOS)
	binary.NativeEndian.PutUint32(b[header:], uint32(dscp)<<2)
	return b
}
