package ipsec

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// wholeNamespace is the key of what belongs to no tunnel; 0 is no if_id.
const wholeNamespace = 0

// Kinds of errors that an association counts itself. With extended sequence numbers a packet
// older than the replay window is taken for one of 2^32 packets later (RFC 4303 appendix A2),
// so it counts as errorIntegrity.
const (
	errorReplay       = "replay"
	errorReplayWindow = "replay_window"
	errorIntegrity    = "integrity"
)

// netlinkTimeout bounds how long the kernel may take for one answer.
const netlinkTimeout = 5 * time.Second

// traffic is what a tunnel carried and dropped since the first reading.
type traffic struct {
	In, Out call.TunnelTraffic
	// Errors counts dropped packets by kind; kinds with none are left out.
	Errors map[string]uint64
}

// associations counts what the security associations of a namespace carry, over all that come
// and go: what one had counted when it ended stays in its tunnel's sum. Not for concurrent use.
type associations struct {
	path    string
	tunnels map[uint32]netip.Addr
	sums    map[uint32]*traffic
	known   map[stateID]counted
	stat    statistics
	broken  uint64 // integrity failures of all tunnels
	kernel  *kernelView
}

// counted is an association at its last reading.
type counted struct {
	state
	// missing means that it was not in the last list; its deletion event is on its way.
	missing bool
}

// kernelView is what is open in the namespace.
type kernelView struct {
	inode, device uint64
	socket        *nl.SocketHandle
	ended         *deletions
	stat          *os.File
}

// newAssociations reads nothing yet. tunnels are those of the namespace at path.
func newAssociations(path string, tunnels []Tunnel) *associations {
	a := &associations{
		path: path, tunnels: make(map[uint32]netip.Addr, len(tunnels)), sums: map[uint32]*traffic{wholeNamespace: newTraffic()},
		known: make(map[stateID]counted),
	}
	for _, t := range tunnels {
		a.tunnels[t.IfID] = t.Local.Addr()
		a.sums[t.IfID] = newTraffic()
	}
	return a
}

func newTraffic() *traffic { return &traffic{Errors: make(map[string]uint64)} }

// read returns the sums by if_id, with errors that belong to no tunnel at wholeNamespace. After
// an error they are those of the last reading.
func (a *associations) read() (map[uint32]traffic, error) {
	err := a.update()
	sums := make(map[uint32]traffic, len(a.sums))
	for id, sum := range a.sums {
		sums[id] = traffic{In: sum.In, Out: sum.Out, Errors: maps.Clone(sum.Errors)}
	}
	return sums, err
}

// close gives back what read has opened.
func (a *associations) close() {
	if a.kernel != nil {
		a.kernel.close()
		a.kernel = nil
	}
}

func (a *associations) update() error {
	var st unix.Stat_t
	if err := unix.Stat(a.path, &st); err != nil {
		return fmt.Errorf("network namespace %s: %w", a.path, err)
	}
	if a.kernel != nil && (a.kernel.inode != st.Ino || a.kernel.device != st.Dev) {
		a.close()
		clear(a.known)
		a.stat.begin()
	}
	if a.kernel == nil {
		if err := a.open(&st); err != nil {
			return err
		}
	}
	if err := a.count(); err != nil {
		a.close()
		return err
	}
	return nil
}

// open opens the namespace. What it had counted before the first reading is not ours.
func (a *associations) open(st *unix.Stat_t) error {
	view := &kernelView{inode: st.Ino, device: st.Dev}
	if err := inNamespace(a.path, view.open); err != nil {
		view.close()
		return err
	}
	a.kernel = view
	if a.stat.begun {
		return nil
	}
	err := a.first()
	if err != nil {
		a.close()
		clear(a.known)
	}
	return err
}

func (v *kernelView) open() error {
	var err error
	if v.ended, err = watchDeletions(); err != nil {
		return err
	}
	socket, err := nl.GetNetlinkSocketAt(netns.None(), netns.None(), unix.NETLINK_XFRM)
	if err != nil {
		return fmt.Errorf("netlink socket: %w", err)
	}
	v.socket = &nl.SocketHandle{Socket: socket}
	limit := unix.NsecToTimeval(netlinkTimeout.Nanoseconds())
	if err := errors.Join(socket.SetSendTimeout(&limit), socket.SetReceiveTimeout(&limit)); err != nil {
		return fmt.Errorf("netlink socket: %w", err)
	}
	v.stat, err = os.Open("/proc/thread-self/net/xfrm_stat")
	return err
}

func (v *kernelView) close() {
	if v.ended != nil {
		v.ended.close()
	}
	if v.socket != nil {
		v.socket.Close()
	}
	if v.stat != nil {
		v.stat.Close()
	}
}

// first takes what is there for the point to count from.
func (a *associations) first() error {
	values, err := readStatistics(a.kernel.stat)
	if err != nil {
		return err
	}
	err = eachState(a.kernel.socket, func(message []byte) error {
		s, err := parseState(message, nil)
		a.known[s.id] = counted{state: s}
		return err
	})
	if err != nil {
		return err
	}
	a.stat.from(values)
	// One that ended before the list was made is unknown, and none of ours.
	return a.kernel.ended.drain(func(s state) {
		if _, ok := a.known[s.id]; ok {
			a.end(s)
		}
	})
}

// count is one reading. The statistics come first: they count what the associations count too,
// and are never ahead of them then.
func (a *associations) count() error {
	values, err := readStatistics(a.kernel.stat)
	if err != nil {
		return err
	}
	// Events before the list: an SPI may have been used again since.
	if err := a.kernel.ended.drain(a.end); err != nil {
		return err
	}
	seen := make(map[stateID]bool, len(a.known))
	err = eachState(a.kernel.socket, func(message []byte) error {
		s, err := parseState(message, nil)
		if err != nil {
			return err
		}
		seen[s.id] = true
		a.add(s)
		return nil
	})
	complete := !errors.Is(err, netlink.ErrDumpInterrupted)
	if err != nil && complete {
		return err
	}
	if err := a.kernel.ended.drain(a.end); err != nil {
		return err
	}
	if complete {
		a.sweep(seen)
	}
	a.stat.add(values, a.broken, a.sums[wholeNamespace].Errors)
	return nil
}

// sweep forgets those that have been missing twice: their event came in between, or was lost.
func (a *associations) sweep(seen map[stateID]bool) {
	for id, s := range a.known {
		switch {
		case seen[id]:
		case s.missing:
			delete(a.known, id)
		default:
			s.missing = true
			a.known[id] = s
		}
	}
}

// end takes in the last state of an association.
func (a *associations) end(s state) {
	a.add(s)
	delete(a.known, s.id)
}

// add adds to a tunnel's sums what an association has counted since its last reading.
func (a *associations) add(s state) {
	if s.id.spi == 0 || s.id.proto != unix.IPPROTO_ESP {
		return // an acquire that waits for its association
	}
	last := a.known[s.id]
	if last.added != s.added || last.packets > s.packets || last.bytes > s.bytes {
		last.state = state{} // another one with an SPI that was used before
	}
	a.known[s.id] = counted{state: s}
	replayed, late, broken := uint64(s.replayed-last.replayed), uint64(s.late-last.late), uint64(s.broken-last.broken)
	a.broken += broken
	local, ok := a.tunnels[s.ifID]
	if !ok {
		return
	}
	sum := a.sums[s.ifID]
	way := &sum.Out
	if s.dir == dirIn || s.dir == dirUnknown && s.id.dst == local {
		way = &sum.In
	}
	way.Packets += s.packets - last.packets
	way.Bytes += s.bytes - last.bytes
	addError(sum.Errors, errorReplay, replayed)
	addError(sum.Errors, errorReplayWindow, late)
	addError(sum.Errors, errorIntegrity, broken)
}

func addError(kinds map[string]uint64, kind string, n uint64) {
	if n > 0 {
		kinds[kind] += n
	}
}
