package realm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/tests/netspace"
)

// needDevices skips where the kernel lacks what managed realms are made of.
func needDevices(t testing.TB) {
	t.Helper()
	s := netspace.New(t)
	s.IP(t, "link add tdmprobe type veth peer name tdmprobe2")
	attrs := func(name string, parent int) netlink.LinkAttrs {
		a := netlink.NewLinkAttrs()
		a.Name, a.ParentIndex = name, parent
		return a
	}
	parent := indexOf(t, s, "tdmprobe")
	for _, probe := range []struct {
		feature string
		device  netlink.Link
	}{
		{"802.1Q (module 8021q)", &netlink.Vlan{LinkAttrs: attrs("tdmprobe.2", parent), VlanId: 2, VlanProtocol: netlink.VLAN_PROTOCOL_8021Q}},
		{"VRF (module vrf)", &netlink.Vrf{LinkAttrs: attrs("tdmprobevrf", 0), Table: 2}},
		{"xfrm interfaces (module xfrm_interface)", &netlink.Xfrmi{LinkAttrs: attrs("tdmprobexf", parent), Ifid: 2}},
	} {
		var err error
		s.Do(func() { err = netlink.LinkAdd(probe.device) })
		if errors.Is(err, unix.EOPNOTSUPP) {
			netspace.Lacks(t, "the kernel has no %s", probe.feature)
		}
		if err != nil {
			t.Fatalf("probe for %s: %v", probe.feature, err)
		}
	}
}

// rig is a gateway's namespace whose trunk ends in a carriers' namespace.
type rig struct {
	home, far *netspace.Space
	node      string
	log       *logged
}

const (
	trunk    = "tdmt"
	farTrunk = "tdmfar"
)

func newRig(t testing.TB) *rig {
	t.Helper()
	needDevices(t)
	r := &rig{home: netspace.New(t), far: netspace.New(t), node: fmt.Sprintf("tdm%d", os.Getpid()), log: &logged{}}
	r.trunk(t)
	t.Cleanup(func() {
		r.home.Do(func() {
			if _, err := Remove(r.node); err != nil {
				t.Errorf("remove what is left: %v", err)
			}
		})
		if t.Failed() {
			t.Logf("log:\n%s", r.log)
		}
	})
	return r
}

// trunk makes the trunk.
func (r *rig) trunk(t testing.TB) {
	r.home.IP(t, "link add "+trunk+" type veth peer name "+farTrunk+" netns "+r.far.Path)
	sysctl(t, r.home, "../ipv6/conf/"+trunk+"/disable_ipv6", "1") // duplicate address detection makes events of its own
	r.far.IP(t, "link set "+farTrunk+" up")
}

// realms for tests: number n has media ports from 10000 + 1000 n.
func clearRealm(number int, name string, vlan int, address string) Network {
	n := Network{Number: uint16(number), Config: Config{
		Name: name, Interface: trunk, VLAN: uint16(vlan), Address: netip.MustParsePrefix(address),
		MediaPorts: call.PortRange{First: uint16(10000 + 1000*number), Last: uint16(10099 + 1000*number)},
	}}
	n.SetDefaults()
	return n
}

func tunnelRealm(number int, name, address string, tunnels ...Tunnel) Network {
	n := clearRealm(number, name, 0, address)
	n.Tunnels = tunnels
	return n
}

func tunnel(name string, vlan int, local, remote string, networks ...string) Tunnel {
	t := Tunnel{
		Name: name, Interface: trunk, VLAN: uint16(vlan), Local: netip.MustParsePrefix(local), Remote: netip.MustParseAddr(remote), MTU: 1200,
	}
	for _, to := range networks {
		t.Networks = append(t.Networks, netip.MustParsePrefix(to))
	}
	return t
}

// networks are those of the realms, not applied yet.
func (r *rig) networks(t testing.TB, list ...Network) *Networks {
	t.Helper()
	return networksIn(t, r.home, r.node, slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug}), list...)
}

// networksIn are those of realms in a namespace.
func networksIn(t testing.TB, s *netspace.Space, node string, log slog.Handler, list ...Network) *Networks {
	t.Helper()
	var n *Networks
	var err error
	s.Do(func() { n, err = NewNetworks(node, list, slog.New(log)) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// applied are those of the realms, all of them up but for tunnels.
func (r *rig) applied(t testing.TB, list ...Network) *Networks {
	t.Helper()
	n := r.networks(t, list...)
	r.apply(t, n)
	return n
}

func (r *rig) apply(t testing.TB, n *Networks) {
	t.Helper()
	var err error
	r.home.Do(func() { err = n.Apply() })
	if err != nil {
		t.Fatalf("apply: %v", err)
	}
	if bad := drift(n); bad != "" {
		t.Fatalf("after apply:\n%s", bad)
	}
}

// run keeps the networks until the test ends, or until stop.
func (r *rig) run(t testing.TB, n *Networks) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := inside(t.(*testing.T), r.home, func() {
		if err := n.Run(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	stop = func() {
		cancel()
		<-done
	}
	t.Cleanup(stop)
	return stop
}

// drift lists the objects that are not as they are wanted.
func drift(n *Networks) string {
	var bad strings.Builder
	for _, r := range n.Status() {
		for _, o := range r.Objects {
			if o.State != call.ObjectOK {
				fmt.Fprintf(&bad, "realm %s: %s %s is %s: want %q, have %q %s\n", r.Name, o.Kind, o.Name, o.State, o.Want, o.Have, o.Problem)
			}
		}
		if len(r.Objects) == 0 && r.Network == Managed {
			fmt.Fprintf(&bad, "realm %s has no objects\n", r.Name)
		}
	}
	return bad.String()
}

func status(t testing.TB, n *Networks, name string) call.Realm {
	t.Helper()
	for _, r := range n.Status() {
		if r.Name == name {
			return r
		}
	}
	t.Fatalf("there is no realm %s", name)
	return call.Realm{}
}

// dial makes a UDP socket in a namespace, bound to a device if it has a name.
func dial(t testing.TB, s *netspace.Space, device, local string) *net.UDPConn {
	t.Helper()
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		if device == "" {
			return nil
		}
		if e := c.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), device) }); e != nil {
			return e
		}
		return err
	}}
	var conn net.PacketConn
	var err error
	s.Do(func() { conn, err = config.ListenPacket(context.Background(), "udp4", local) })
	if err != nil {
		t.Fatalf("socket %s on %q: %v", local, device, err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn.(*net.UDPConn)
}

// echo answers on a socket with a word of its own until the test ends.
func echo(t testing.TB, conn *net.UDPConn, word string) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1500)
		for {
			_, from, err := conn.ReadFromUDPAddrPort(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				_, _ = conn.WriteToUDPAddrPort([]byte(word), from) // a lost answer is asked for again
			}
		}
	}()
	t.Cleanup(func() {
		conn.Close()
		<-done
	})
}

// ask sends to an address until it answers, and returns the answer; "" is none within the time.
func ask(t testing.TB, conn *net.UDPConn, to string, within time.Duration) string {
	t.Helper()
	buf := make([]byte, 1500)
	for end := time.Now().Add(within); time.Now().Before(end); {
		_, _ = conn.WriteToUDPAddrPort([]byte("?"), netip.MustParseAddrPort(to)) // unreachable at first, maybe
		if err := conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if n, _, err := conn.ReadFromUDPAddrPort(buf); err == nil {
			return string(buf[:n])
		}
	}
	return ""
}

// listen takes TCP connections until the test ends.
func listen(t testing.TB, s *netspace.Space, at string) {
	t.Helper()
	var l net.Listener
	var err error
	s.Do(func() { l, err = net.Listen("tcp4", at) })
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn.Close()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
	})
}

// connect tries a TCP connection.
func connect(s *netspace.Space, to string) (err error) {
	s.Do(func() {
		var conn net.Conn
		if conn, err = net.DialTimeout("tcp4", to, time.Second); err == nil {
			conn.Close()
		}
	})
	return err
}
