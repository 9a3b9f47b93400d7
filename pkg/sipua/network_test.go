package sipua

import (
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/tests/netspace"
)

// binding is how the stack's socket belongs to its realm.
type binding string

const (
	// toDevice is for networks that are somebody else's.
	toDevice binding = "bound to a device"
	// toVRF is for those that are ours. Only here the routing table has the last word: the
	// kernel takes a socket that is bound to any other device for one that knows its way.
	toVRF binding = "bound to a VRF"
	// toNothing stands in for it on kernels without VRF.
	toNothing binding = "not bound"
)

// each runs a story for several bindings.
func each(t *testing.T, list []binding, story func(*testing.T, *realmNet)) {
	for _, b := range list {
		t.Run(string(b), func(t *testing.T) { story(t, newRealmNet(t, b)) })
	}
}

// realmNet is a realm's network as realm makes it: a device with an index of our choice, and a
// peer behind it.
type realmNet struct {
	t            *testing.T
	gateway, far *netspace.Space
	binding      binding
}

const realmDevice = "tdmrealm"

func newRealmNet(t *testing.T, b binding) *realmNet {
	t.Helper()
	n := &realmNet{t: t, gateway: netspace.New(t), far: netspace.New(t), binding: b}
	if b == toVRF {
		var out []byte
		var err error
		n.gateway.Do(func() {
			out, err = exec.Command("ip", strings.Fields("link add tdmprobe type vrf table 99")...).CombinedOutput()
		})
		if err != nil {
			t.Skipf("this kernel has no VRF devices: %s", out)
		}
		n.gateway.IP(t, "link add tdmwire type veth peer name tdmfar netns "+n.far.Path)
	}
	n.make()
	return n
}

// make makes the device, always with the same index.
func (n *realmNet) make() {
	n.t.Helper()
	n.makeAs("4242")
}

func (n *realmNet) makeAs(index string) {
	n.t.Helper()
	if n.binding == toVRF {
		n.gateway.IP(n.t, "link add "+realmDevice+" index "+index+" type vrf table 100")
		n.gateway.IP(n.t, "addr add 192.0.2.1/32 dev "+realmDevice)
		n.gateway.IP(n.t, "link set "+realmDevice+" up")
		n.gateway.IP(n.t, "link set tdmwire master "+realmDevice+" up")
		n.gateway.IP(n.t, "route replace unreachable default metric 4278198272 table 100")
		n.gateway.IP(n.t, "route replace 192.0.2.2 dev tdmwire src 192.0.2.1 table 100")
	} else {
		n.gateway.IP(n.t, "link add "+realmDevice+" index "+index+" type veth peer name tdmfar netns "+n.far.Path)
		n.gateway.IP(n.t, "addr add 192.0.2.1/24 dev "+realmDevice)
		n.gateway.IP(n.t, "link set "+realmDevice+" up")
	}
	n.far.IP(n.t, "addr replace 192.0.2.2/24 dev tdmfar")
	n.far.IP(n.t, "link set tdmfar up")
}

// unmake takes the device away.
func (n *realmNet) unmake() {
	n.t.Helper()
	n.gateway.IP(n.t, "link del "+realmDevice)
}

// cut takes the route to the peer away, as when no tunnel of the realm is up; mend brings it back.
func (n *realmNet) cut() {
	n.t.Helper()
	if n.binding == toVRF {
		n.gateway.IP(n.t, "route del 192.0.2.2 table 100")
	} else {
		n.gateway.IP(n.t, "route add unreachable 192.0.2.2")
	}
}

func (n *realmNet) mend() {
	n.t.Helper()
	if n.binding == toVRF {
		n.gateway.IP(n.t, "route replace 192.0.2.2 dev tdmwire src 192.0.2.1 table 100")
	} else {
		n.gateway.IP(n.t, "route del unreachable 192.0.2.2")
	}
}

func (n *realmNet) rig() *rig {
	n.t.Helper()
	return newRigIn(n.t, n.gateway.Do, func(c *Config) {
		c.Listen = netip.MustParseAddrPort("192.0.2.1:0")
		if n.binding != toNothing {
			c.Device = realmDevice
		}
	})
}

func (n *realmNet) peer(r *rig) *peer {
	n.t.Helper()
	return r.peerIn(n.far.Do, "192.0.2.2")
}

// N9: somebody deletes a realm's device, and realm makes it again with the same index: the
// socket, which holds the index and not the name, goes on both ways.
func TestSocketOutlivesItsDevice(t *testing.T) {
	each(t, []binding{toDevice, toVRF}, func(t *testing.T, n *realmNet) {
		r := n.rig()
		p := n.peer(r)
		bothWays(t, r, p)
		n.unmake()
		if a := <-r.ask(p, patience); !errors.Is(a.err, ErrUnreachable) {
			t.Errorf("without its device: %+v", a)
		}
		n.make()
		bothWays(t, r, p)
	})
}

// bothWays asks the peer, and is asked.
func bothWays(t *testing.T, r *rig, p *peer) {
	t.Helper()
	came := r.ask(p, patience)
	p.send(p.answer(p.want("OPTIONS"), 200, "x", ""))
	if a := <-came; a.Status != 200 {
		t.Fatalf("our OPTIONS: %+v", a)
	}
	c := p.caller()
	p.send(c.request(methodOptions, ""))
	p.want("200")
}

// N9: a device that is made again with another index is a stranger to the socket until it is bound
// anew; a call that is up then goes on, and ends in good order.
func TestRebind(t *testing.T) {
	each(t, []binding{toDevice, toVRF}, func(t *testing.T, n *realmNet) {
		r := n.rig()
		p := n.peer(r)
		rebind := func(want bool) {
			t.Helper()
			if moved, err := r.stack.Rebind(); moved != want || err != nil {
				t.Errorf("rebind: %t, %v", moved, err)
			}
		}
		_, l := r.dialled(p)
		rebind(false)
		n.unmake()
		if _, err := r.stack.Rebind(); !errors.Is(err, unix.ENODEV) {
			t.Errorf("rebind without a device: %v", err)
		}
		n.makeAs("4343")
		rebind(true)
		rebind(false)
		bothWays(t, r, p)
		done := make(chan struct{})
		go func() {
			defer close(done)
			closeLeg(t, l, hangup)
		}()
		p.send(p.answer(p.want("BYE"), 200, "", ""))
		<-done
	})
}

// N4: where the kernel has no way, a call and a probe hear of it at once, with the kernel's word.
func TestNoWay(t *testing.T) {
	for _, row := range []struct {
		name     string
		bindings []binding
		change   func(*realmNet)
		want     syscall.Errno
	}{
		{"no tunnel is up", []binding{toNothing, toVRF}, (*realmNet).cut, unix.EHOSTUNREACH},
		{"the device is down", []binding{toNothing, toDevice}, func(n *realmNet) {
			n.gateway.IP(n.t, "link set "+realmDevice+" down")
		}, unix.ENETUNREACH},
		{"the device is gone", []binding{toNothing, toDevice}, (*realmNet).unmake, unix.ENETUNREACH},
		{"the address is another", []binding{toNothing, toDevice}, func(n *realmNet) {
			n.gateway.IP(n.t, "addr del 192.0.2.1/24 dev "+realmDevice)
			n.gateway.IP(n.t, "addr add 192.0.2.3/24 dev "+realmDevice)
		}, unix.ENETUNREACH},
		{"the device is gone, and its address is on another", []binding{toDevice}, func(n *realmNet) {
			n.gateway.IP(n.t, "addr add 192.0.2.1/32 dev lo")
			n.unmake()
		}, unix.ENODEV},
	} {
		t.Run(row.name, func(t *testing.T) {
			each(t, row.bindings, func(t *testing.T, n *realmNet) {
				r := n.rig()
				p := n.peer(r)
				row.change(n)
				_, dialErr := r.stack.Dial(p.target(), call.Invite{Number: "1"})
				asked := <-r.ask(p, time.Minute)
				want := fmt.Sprintf("sipua: no way to %s: %s", p.addr(), row.want)
				for what, err := range map[string]error{"INVITE": dialErr, "OPTIONS": asked.err} {
					if !errors.Is(err, ErrUnreachable) || !errors.Is(err, row.want) || err.Error() != want {
						t.Errorf("%s: %v, want %q", what, err, want)
					}
				}
			})
		})
	}
}

// T11: the way to the peer goes while it has not answered the INVITE yet. The call hears of it
// with the next repetition, long before timer B, and may go elsewhere. When the way is back, the
// peer has the INVITE after all: it is cancelled with the first it says.
func TestWayLostWhileInviting(t *testing.T) {
	each(t, []binding{toNothing, toVRF}, func(t *testing.T, n *realmNet) {
		r := n.rig()
		p := n.peer(r)
		l, invite := r.dial(p)
		n.cut()
		start := time.Now()
		e := event[call.Ended](t, l)
		if want := "There is no way to " + p.addr().String() + " any more: no route to host."; e.Cause.Code != "unreachable" ||
			e.Cause.SIP != 503 || e.Cause.Text != want {
			t.Errorf("cause %+v, want text %q", e.Cause, want)
		}
		if took := time.Since(start); took > 32*testT1 {
			t.Errorf("told after %s; timer B is %s", took, 64*testT1)
		}
		n.mend()
		p.send(p.answer(invite, 180, "callee", ""))
		p.send(p.answer(p.want("CANCEL"), 200, "callee", ""))
		p.send(p.answer(invite, 487, "callee", ""))
		p.want("ACK")
		closeLeg(t, l, hangup)
		noEvent(t, l)
	})
}

// S7: a call ends while the way is gone. The call does not wait, and the peer is told as soon as
// there is a way again: it is not left with a call that nobody hears.
func TestByeWaitsForTheWay(t *testing.T) {
	each(t, []binding{toNothing, toVRF}, func(t *testing.T, n *realmNet) {
		r := n.rig()
		p := n.peer(r)
		_, l := r.dialled(p)
		n.cut()
		start := time.Now()
		closeLeg(t, l, hangup)
		if took := time.Since(start); took > 32*testT1 {
			t.Errorf("the call was kept for %s", took)
		}
		p.silence(testT1)
		n.mend()
		p.send(p.answer(p.want("BYE"), 200, "", ""))
	})
}

// N1, M3: SIP packets carry the priority that VLAN devices map to 802.1p, and the DSCP, which
// would set a priority of its own.
func TestPriorityOfTheSocket(t *testing.T) {
	for priority := range uint8(7) { // 7 needs CAP_NET_ADMIN
		r := newRigIn(t, here, func(c *Config) { c.Priority, c.DSCP = priority, 26 })
		raw, err := r.stack.conn.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		var got, tos int
		var priorityErr, tosErr error
		if err := raw.Control(func(fd uintptr) {
			got, priorityErr = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PRIORITY)
			tos, tosErr = unix.GetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_TOS)
		}); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(priorityErr, tosErr); err != nil {
			t.Fatal(err)
		}
		if got != int(priority) || tos != 26<<2 {
			t.Errorf("priority %d and DSCP %d, want %d and 26", got, tos>>2, priority)
		}
	}
	cfg := Config{Listen: netip.MustParseAddrPort("127.0.0.1:0"), Priority: 8}
	if _, err := Listen(cfg); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), "priority 8") {
		t.Errorf("priority 8: %v", err)
	}
}
