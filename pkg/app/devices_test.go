package app

import (
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tandem-sbc/tandem/pkg/admin"
	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/datapath"
	"github.com/tandem-sbc/tandem/tests/netspace"
)

// cabled is a site whose realms have their peers in a namespace at the far end.
type cabled struct {
	*site
	far *netspace.Space
}

// newCabled has the device of the realm inside alone.
func newCabled(t *testing.T) *cabled {
	t.Helper()
	s := &cabled{newSite(t), netspace.New(t)}
	s.space.IP(t, "link del tdmin") // and tdmout, its other end
	s.plug(t, "tdmin", "192.0.2.10")
	s.space.IP(t, "address add 192.0.2.1/24 dev tdmin")
	return s
}

// plug makes a realm's device, without its address, and the peer's.
func (s *cabled) plug(t *testing.T, device, peer string) {
	t.Helper()
	s.space.IP(t, "link add "+device+" type veth peer name "+device+" netns "+s.far.Path)
	s.space.IP(t, "link set "+device+" up")
	s.far.IP(t, "address add "+peer+"/24 dev "+device)
	s.far.IP(t, "link set "+device+" up")
}

// awaits polls until something holds.
func awaits(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// awaitAnswer asks a realm by OPTIONS until it answers.
func (s *cabled) awaitAnswer(t *testing.T, peer, realm string) {
	t.Helper()
	awaits(t, "an answer to OPTIONS from "+realm, func() bool {
		var conn net.Conn
		var err error
		local := net.UDPAddrFromAddrPort(netip.MustParseAddrPort(peer + ":5060"))
		s.far.Do(func() { conn, err = (&net.Dialer{LocalAddr: local}).DialContext(t.Context(), "udp4", realm+":5060") })
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_, err = fmt.Fprintf(conn, "OPTIONS sip:%[2]s SIP/2.0\r\nVia: SIP/2.0/UDP %[1]s:5060;branch=z9hG4bK%[3]d\r\nMax-Forwards: 70\r\n"+
			"From: <sip:%[1]s>;tag=1\r\nTo: <sip:%[2]s>\r\nCall-ID: %[3]d\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n",
			peer, realm, time.Now().UnixNano())
		if err != nil {
			return false
		}
		if err := conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		answer := make([]byte, 1500)
		n, err := conn.Read(answer)
		return err == nil && strings.HasPrefix(string(answer[:n]), "SIP/2.0 200 ")
	})
}

// serves reports whether the kernel engine is on a device.
func (s *cabled) serves(t *testing.T, device string) bool {
	t.Helper()
	status, err := admin.NewClient(filepath.Join(s.dir, "admin.sock")).Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(status.Kernel.Attachments, func(a admin.Attachment) bool { return a.Device == device })
}

// N9: a realm whose device is not there keeps neither the others down nor media out of the kernel, and
// is up once its device is there.
func TestRealmWithoutItsDevice(t *testing.T) {
	for _, engine := range []string{call.EngineKernel, "auto"} {
		t.Run(engine, func(t *testing.T) {
			s := newCabled(t)
			daemon, status := s.start(t, engine)
			if status.Engine.Engine != call.EngineKernel || !s.serves(t, "tdmin") || s.serves(t, "tdmout") {
				t.Errorf("status %+v, kernel %+v", status, status.Kernel)
			}
			s.awaitAnswer(t, "192.0.2.10", "192.0.2.1")
			s.plug(t, "tdmout", "198.51.100.10")
			s.space.IP(t, "address add 198.51.100.1/24 dev tdmout")
			awaits(t, "the kernel engine on the device", func() bool { return s.serves(t, "tdmout") })
			s.awaitAnswer(t, "198.51.100.10", "198.51.100.1")
			s.end(t, daemon, syscall.SIGTERM)
		})
	}
}

// A device with somebody else's XDP program is served as soon as that is gone, though nothing of its
// realm changes then.
func TestDeviceIsTaken(t *testing.T) {
	s := newCabled(t)
	daemon, _ := s.start(t, call.EngineKernel)
	s.plug(t, "tdmout", "198.51.100.10")
	var other *datapath.Engine
	var err error
	s.space.Do(func() {
		var device *net.Interface
		if device, err = net.InterfaceByName("tdmout"); err == nil {
			other, err = datapath.Open(datapath.Config{NextHops: nowhere{}, Realms: []datapath.Realm{{
				Number: 1, Points: []datapath.Point{{Ifindex: device.Index}},
				Addr: netip.MustParseAddr("203.0.113.1"), Media: call.PortRange{First: 10000, Last: 10001},
			}}})
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	s.space.IP(t, "address add 198.51.100.1/24 dev tdmout")
	awaits(t, "word of it", func() bool { return strings.Contains(s.said(t), datapath.ErrBusy.Error()) })
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	awaits(t, "the kernel engine on the device", func() bool { return s.serves(t, "tdmout") })
	s.end(t, daemon, syscall.SIGTERM)
	if n := strings.Count(s.said(t), "is not on all devices"); n != 1 {
		t.Errorf("it is said %d times:\n%s", n, s.said(t))
	}
}

// N9: a realm's device is made again, with another index: SIP is there again.
func TestSIPFollowsItsDevice(t *testing.T) {
	t.Run("existing", func(t *testing.T) {
		s := newCabled(t)
		daemon, _ := s.start(t, call.EngineUserspace)
		s.awaitAnswer(t, "192.0.2.10", "192.0.2.1")
		s.space.IP(t, "link del tdmin")
		s.plug(t, "tdmin", "192.0.2.10")
		s.space.IP(t, "address add 192.0.2.1/24 dev tdmin")
		s.awaitAnswer(t, "192.0.2.10", "192.0.2.1")
		s.end(t, daemon, syscall.SIGTERM)
	})
	t.Run("managed and its index is taken", func(t *testing.T) {
		s := newCabled(t)
		s.needVRF(t)
		s.managed = true
		s.space.IP(t, "address del 192.0.2.1/24 dev tdmin")
		s.space.IP(t, "link add tdmtaker index 10000 type veth peer name tdmtaker2")
		daemon, _ := s.start(t, call.EngineUserspace)
		s.awaitAnswer(t, "192.0.2.10", "192.0.2.1")
		s.space.IP(t, "link del tdm-inside")
		s.awaitAnswer(t, "192.0.2.10", "192.0.2.1")
		s.end(t, daemon, syscall.SIGTERM)
	})
}

// needVRF skips a test on a kernel without VRF devices.
func (s *cabled) needVRF(t *testing.T) {
	t.Helper()
	var out []byte
	var err error
	s.space.Do(func() {
		out, err = exec.Command("ip", strings.Fields("link add tdmprobe type vrf table 99")...).CombinedOutput()
	})
	if err != nil {
		t.Skipf("this kernel has no VRF devices: %s", out)
	}
	s.space.IP(t, "link del tdmprobe")
}

// The network of a realm comes late, and its SIP port is taken by then: that is said once, and SIP is
// up when the port is free.
func TestLatePortIsTaken(t *testing.T) {
	s := newCabled(t)
	daemon, _ := s.start(t, call.EngineUserspace)
	s.space.IP(t, "address add 198.51.100.1/32 dev lo")
	var taken *net.UDPConn
	var err error
	s.space.Do(func() {
		taken, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("198.51.100.1:5060")))
	})
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	s.plug(t, "tdmout", "198.51.100.10")
	s.space.IP(t, "address add 198.51.100.1/24 dev tdmout")
	awaits(t, "word of it", func() bool { return strings.Contains(s.said(t), "address already in use") })
	taken.Close()
	s.awaitAnswer(t, "198.51.100.10", "198.51.100.1")
	s.end(t, daemon, syscall.SIGTERM)
	if n := strings.Count(s.said(t), "address already in use"); n != 1 {
		t.Errorf("it is said %d times:\n%s", n, s.said(t))
	}
}
