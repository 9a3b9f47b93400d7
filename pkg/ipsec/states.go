package ipsec

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// stateID is what the kernel finds an inbound SA by (RFC 4301 section 4.1).
type stateID struct {
	dst   netip.Addr
	spi   uint32
	proto uint8
}

// Directions of an SA; kernels before 6.10 do not know them.
const (
	dirUnknown = 0
	dirIn      = 1
	dirOut     = 2
)

// state is a security association as the kernel reports it, without its keys. The netlink
// library's own type carries them, and panics when it is printed.
type state struct {
	id          stateID
	src         netip.Addr
	ifID, reqID uint32
	mode, dir   uint8
	// added is when it was made, in seconds of the wall clock; of two outbound ones the kernel
	// uses the newer.
	added uint64
	// bytes and packets count what was encrypted or decrypted, in bytes of inner packets.
	bytes, packets uint64
	// replayed, late and broken count packets that were dropped: seen before, older than the
	// replay window, and those whose integrity check failed.
	replayed, late, broken uint32
	// esn means extended sequence numbers, window is the replay window in packets.
	esn    bool
	window uint32
}

// aead is the algorithm and the key of a state.
type aead struct {
	name string
	icv  uint32
	// key aliases the message that it was read from.
	key []byte
}

var errState = errors.New("message of a security association is cut short")

// maxKey bounds a key, in bytes; the kernel's own limit is a page.
const maxKey = 512

// parseState reads struct xfrm_usersa_info and the attributes behind it (linux/xfrm.h).
// keyed is called with the key, if it is not nil and there is one; it must not keep it.
func parseState(b []byte, keyed func(state, aead)) (state, error) {
	if len(b) < nl.SizeofXfrmUsersaInfo {
		return state{}, errState
	}
	s := fromInfo(b)
	return s, attributes(b[nl.SizeofXfrmUsersaInfo:], &s, keyed)
}

// parseDeleted reads struct xfrm_usersa_id and the attributes behind it, one of which holds the
// last state of the association, counters and all.
func parseDeleted(b []byte) (state, error) {
	if len(b) < nl.SizeofXfrmUsersaId {
		return state{}, errState
	}
	var s state
	found := false
	rest := b[nl.SizeofXfrmUsersaId:]
	err := eachAttribute(rest, func(kind uint16, value []byte) error {
		if kind == nl.XFRMA_SA && len(value) >= nl.SizeofXfrmUsersaInfo {
			s, found = fromInfo(value), true
		}
		return nil
	})
	if err != nil || !found {
		return state{}, errState
	}
	return s, attributes(rest, &s, nil)
}

func fromInfo(b []byte) state {
	info := nl.DeserializeXfrmUsersaInfo(b)
	s := state{
		id:  stateID{dst: address(info.Family, info.Id.Daddr), spi: nl.Swap32(info.Id.Spi), proto: info.Id.Proto},
		src: address(info.Family, info.Saddr), reqID: info.Reqid, mode: info.Mode,
		added: info.Curlft.AddTime, bytes: info.Curlft.Bytes, packets: info.Curlft.Packets,
		replayed: info.Stats.Replay, late: info.Stats.ReplayWindow, broken: info.Stats.IntegrityFailed,
		esn: info.Flags&nl.XFRM_STATE_ESN != 0, window: uint32(info.ReplayWindow),
	}
	return s
}

func address(family uint16, a nl.XfrmAddress) netip.Addr {
	if family == unix.AF_INET {
		return netip.AddrFrom4([4]byte(a[:4]))
	}
	return netip.AddrFrom16(a)
}

// Offsets in struct xfrm_algo_aead and struct xfrm_replay_state_esn.
const (
	aeadName, aeadKeyBits, aeadICV, aeadKey = 64, 64, 68, 72
	esnWindow                               = 20
)

func attributes(b []byte, s *state, keyed func(state, aead)) error {
	var key *aead
	err := eachAttribute(b, func(kind uint16, value []byte) error {
		switch kind {
		case nl.XFRMA_IF_ID:
			if len(value) < 4 {
				return errState
			}
			s.ifID = binary.NativeEndian.Uint32(value)
		case nl.XFRMA_SA_DIR:
			if len(value) < 1 {
				return errState
			}
			s.dir = value[0]
		case nl.XFRMA_REPLAY_ESN_VAL:
			if len(value) < esnWindow+4 {
				return errState
			}
			s.window = binary.NativeEndian.Uint32(value[esnWindow:])
		case nl.XFRMA_ALG_AEAD:
			if keyed == nil {
				return nil
			}
			if len(value) < aeadKey {
				return errState
			}
			bits := binary.NativeEndian.Uint32(value[aeadKeyBits:])
			if bits > 8*maxKey || len(value)-aeadKey < int(bits/8) {
				return errState
			}
			key = &aead{
				name: unix.ByteSliceToString(value[:aeadName]), icv: binary.NativeEndian.Uint32(value[aeadICV:]),
				key: value[aeadKey : aeadKey+int(bits/8)],
			}
		}
		return nil
	})
	if err == nil && key != nil {
		keyed(*s, *key)
	}
	return err
}

// eachAttribute walks over netlink attributes without copying them.
func eachAttribute(b []byte, f func(kind uint16, value []byte) error) error {
	for len(b) >= unix.SizeofRtAttr {
		size := int(binary.NativeEndian.Uint16(b))
		if size < unix.SizeofRtAttr || size > len(b) {
			return errState
		}
		if err := f(binary.NativeEndian.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), b[unix.SizeofRtAttr:size]); err != nil {
			return err
		}
		b = b[min((size+unix.RTA_ALIGNTO-1)&^(unix.RTA_ALIGNTO-1), len(b)):]
	}
	return nil
}

// eachState lists the security associations of the socket's namespace, or of the thread's if
// socket is nil. An error of kind netlink.ErrDumpInterrupted means that some may be missing.
func eachState(socket *nl.SocketHandle, f func(message []byte) error) error {
	req := nl.NewNetlinkRequest(nl.XFRM_MSG_GETSA, unix.NLM_F_DUMP)
	if socket != nil {
		req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_XFRM: socket}
	}
	var bad error
	err := req.ExecuteIter(unix.NETLINK_XFRM, nl.XFRM_MSG_NEWSA, func(message []byte) bool {
		bad = f(message)
		return bad == nil
	})
	if bad != nil {
		return bad
	}
	if err != nil {
		return fmt.Errorf("list security associations: %w", err)
	}
	return nil
}

// deletions is a subscription to the end of security associations.
type deletions struct{ fd int }

// deletionBuffer holds some thousands of events, in bytes.
const deletionBuffer = 4 << 20

// watchDeletions subscribes in the thread's namespace.
func watchDeletions() (*deletions, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_XFRM)
	if err != nil {
		return nil, fmt.Errorf("netlink socket: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, deletionBuffer); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("event buffer: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1 << (nl.XFRMNLGRP_SA - 1)}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("subscribe to security associations: %w", err)
	}
	return &deletions{fd}, nil
}

func (d *deletions) close() { unix.Close(d.fd) }

// drain calls f for each association that ended since the last call. What the buffer could not
// hold is lost without an error: whoever lists the associations misses them there.
func (d *deletions) drain(f func(state)) error {
	b := make([]byte, 64<<10)
	for {
		n, from, err := unix.Recvfrom(d.fd, b, unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return nil
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.ENOBUFS):
			continue
		case err != nil:
			return fmt.Errorf("events of security associations: %w", err)
		}
		if kernel, ok := from.(*unix.SockaddrNetlink); !ok || kernel.Pid != nl.PidKernel {
			continue
		}
		if err := eachDeleted(b[:n], f); err != nil {
			return err
		}
	}
}

// eachDeleted reads the messages of one datagram.
func eachDeleted(b []byte, f func(state)) error {
	messages, err := syscall.ParseNetlinkMessage(b)
	if err != nil {
		return fmt.Errorf("events of security associations: %w", err)
	}
	for _, m := range messages {
		if m.Header.Type != nl.XFRM_MSG_DELSA {
			continue
		}
		s, err := parseDeleted(m.Data)
		if err != nil {
			return err
		}
		f(s)
	}
	return nil
}
