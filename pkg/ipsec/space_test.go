package ipsec

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tandem-sbc/tandem/tests/netspace"
)

// Outer and inner addresses of the lab: the gateway and the carrier.
var (
	outerGateway, outerCarrier = netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("192.0.2.2/24")
	carriers                   = netip.MustParsePrefix("10.50.0.0/24")
)

// lab is a gateway with a tunnelled realm as the daemon makes it (an underlay namespace whose xfrm
// interface is in the home namespace, in a VRF), and a carrier at the other end of a cable.
type lab struct {
	home, outer, carrier *netspace.Space
	log                  *lines
	gateway, far         *manual
	dir                  string
}

const (
	testVRF, testDevice = "tdmvrf", "tdx1-test"
	underlay            = "tdmout"
)

// missing is what the kernel lacks for tunnels; empty if nothing.
var missing = sync.OnceValue(func() string {
	for _, probe := range []struct{ feature, command string }{
		{"xfrm interfaces (CONFIG_XFRM_INTERFACE)", "ip link add tdmprobe type xfrm dev lo if_id 1"},
		{"VRF (CONFIG_NET_VRF)", "ip link add tdmprobe type vrf table 100"},
		{"AES-GCM in ESP (CONFIG_INET_ESP, CONFIG_CRYPTO_GCM)",
			"ip xfrm state add src 192.0.2.1 dst 192.0.2.2 proto esp spi 0x1001 mode tunnel aead rfc4106(gcm(aes)) 0x" + key("1") + " 128"},
	} {
		// In a namespace that ends with the command.
		words := append([]string{"-n"}, strings.Fields(probe.command)...)
		if out, err := exec.Command("unshare", words...).CombinedOutput(); err != nil {
			return fmt.Sprintf("%s: %s", probe.feature, out)
		}
	}
	return ""
})

func newLab(t *testing.T) *lab {
	t.Helper()
	netspace.NeedRoot(t)
	if lacks := missing(); lacks != "" {
		netspace.Lacks(t, "needs a kernel with %s", lacks)
	}
	l := &lab{home: netspace.New(t), outer: netspace.New(t), carrier: netspace.New(t), log: &lines{}, dir: t.TempDir()}
	l.ip(t, l.outer,
		"link add "+underlay+" type veth peer name tdmwan netns "+l.carrier.Path,
		"addr add "+outerGateway.String()+" dev "+underlay,
		"link set "+underlay+" up",
	)
	l.ip(t, l.home,
		"link add "+testVRF+" type vrf table 101",
		"link set "+testVRF+" up",
		"addr add "+us.String()+"/32 dev "+testVRF,
		"route add table 101 unreachable default metric 4278198272",
	)
	l.addDevice(t)
	l.ip(t, l.carrier,
		"addr add "+outerCarrier.String()+" dev tdmwan",
		"link set tdmwan up",
		"addr add "+them.String()+"/32 dev lo",
		"link add tdmxf type xfrm dev tdmwan if_id 1",
		"link set tdmxf mtu 1200 up",
		"route add "+us.String()+" dev tdmxf src "+them.String(),
	)

	log := slog.New(slog.NewTextHandler(l.log, nil))
	l.write(t, "gateway.in", "0x1001 "+key("1"))
	l.write(t, "gateway.out", "0x2001 "+key("2"))
	l.write(t, "carrier.in", "0x2001 "+key("2"))
	l.write(t, "carrier.out", "0x1001 "+key("1"))
	l.gateway = newManual(l.tunnel("gateway", outerGateway, outerCarrier, carriers), us, l.outer.Path, log)
	l.far = newManual(l.tunnel("carrier", outerCarrier, outerGateway, netip.PrefixFrom(us, 32)), them, l.carrier.Path, log)
	return l
}

// addDevice makes the tunnel's xfrm interface in the underlay, and moves it to the VRF.
func (l *lab) addDevice(t *testing.T) {
	t.Helper()
	l.ip(t, l.outer, "link add "+testDevice+" type xfrm dev "+underlay+" if_id 1", "link set "+testDevice+" netns "+l.home.Path)
	l.ip(t, l.home, "link set "+testDevice+" master "+testVRF+" mtu 1200 up")
}

// ip runs several commands of iproute2: a process for each takes long under emulation.
func (l *lab) ip(t *testing.T, space *netspace.Space, commands ...string) {
	t.Helper()
	l.write(t, "batch", commands...)
	space.Run(t, "ip", "-batch "+filepath.Join(l.dir, "batch"))
}

// activate routes the realm's traffic by the tunnel.
func (l *lab) activate(t *testing.T) {
	l.home.IP(t, "route add table 101 "+carriers.String()+" dev "+testDevice)
}

func (l *lab) tunnel(who string, local, remote netip.Prefix, network netip.Prefix) Tunnel {
	source := func(way string) Secret { return Secret{"file:" + filepath.Join(l.dir, who+"."+way)} }
	c := Config{Name: who, Realm: "test", Local: local, Remote: remote.Addr(), Networks: []netip.Prefix{network}}
	c.SetDefaults()
	c.Keying = Manual
	c.Manual = ManualConfig{Inbound: source("in"), Outbound: source("out"), Grace: time.Second}
	return Tunnel{Config: c, Device: testDevice, IfID: 1}
}

func (l *lab) write(t *testing.T, file string, keys ...string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(l.dir, file), []byte(strings.Join(keys, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (l *lab) apply(t *testing.T, sides ...*manual) {
	t.Helper()
	for _, m := range sides {
		if err := m.apply(context.Background()); err != nil {
			t.Fatalf("%s: %v", m.tunnel.Name, err)
		}
	}
}

// heldBy lists the associations of one side.
func heldBy(t *testing.T, m *manual) []held {
	t.Helper()
	keys, err := readManualKeys(m.tunnel.Manual)
	if err != nil {
		t.Fatal(err)
	}
	defer keys.clear()
	var list []held
	if err := inNamespace(m.path, func() error { list, err = m.look(keys); return err }); err != nil {
		t.Fatal(err)
	}
	return list
}

// stream sends numbered datagrams one way and counts those that arrive.
type stream struct {
	out, in *net.UDPConn
	mu      sync.Mutex
	got     map[uint64]int
	sent    uint64
}

// datagram is the size of a stream's datagrams with their headers, in bytes.
const datagram = 200

// streamTo opens a stream between two spaces; device binds the sender, or receiver, in home.
func streamTo(t *testing.T, from, to *netspace.Space, source, target netip.Addr, fromDevice, toDevice string) *stream {
	t.Helper()
	s := &stream{got: make(map[uint64]int)}
	s.in = socket(t, to, target, toDevice)
	s.out = socket(t, from, source, fromDevice)
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 2048)
		for {
			n, err := s.in.Read(b)
			if err != nil {
				return
			}
			if n == datagram-28 {
				s.mu.Lock()
				s.got[binary.BigEndian.Uint64(b)]++
				s.mu.Unlock()
			}
		}
	}()
	t.Cleanup(func() {
		s.in.Close()
		s.out.Close()
		<-done
	})
	return s
}

func socket(t *testing.T, space *netspace.Space, address netip.Addr, device string) *net.UDPConn {
	t.Helper()
	var c net.PacketConn
	var err error
	space.Do(func() {
		config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
			if device == "" {
				return nil
			}
			var bound error
			if err := raw.Control(func(fd uintptr) {
				bound = unix.SetsockoptString(int(fd), unix.SOL_SOCKET, unix.SO_BINDTODEVICE, device)
			}); err != nil {
				return err
			}
			return bound
		}}
		c, err = config.ListenPacket(context.Background(), "udp4", address.String()+":0")
	})
	if err != nil {
		t.Fatal(err)
	}
	return c.(*net.UDPConn)
}

// send sends one datagram.
func (s *stream) send(t *testing.T) {
	t.Helper()
	b := make([]byte, datagram-28)
	binary.BigEndian.PutUint64(b, s.sent)
	if _, err := s.out.WriteTo(b, s.in.LocalAddr()); err != nil {
		t.Errorf("datagram %d: %v", s.sent, err)
	}
	s.sent++
}

// mark sets the type of service of what is sent.
func (s *stream) mark(t *testing.T, tos int) {
	t.Helper()
	raw, err := s.out.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_TOS, tos) })
	if err := errors.Join(err, failed); err != nil {
		t.Fatal(err)
	}
}

// received says how many different datagrams have arrived.
func (s *stream) received() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return uint64(len(s.got))
}

// arrive waits until all datagrams have arrived.
func (s *stream) arrive(t *testing.T, what string) {
	t.Helper()
	if !eventually(2*time.Second, func() bool { return s.received() == s.sent }) {
		t.Errorf("%s: %d of %d datagrams arrived", what, s.received(), s.sent)
	}
}

// eventually polls until f is true or limit is over, and says which.
func eventually(limit time.Duration, f func() bool) bool {
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if f() {
			return true
		}
	}
	return f()
}

// lines is a log that many write.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// noKeys checks that no key shows, in whole or in its first half.
func (l *lines) noKeys(t *testing.T) {
	t.Helper()
	for digit := range 10 {
		if strings.Contains(l.String(), key(fmt.Sprint(digit))[:16]) {
			t.Errorf("the log shows key %d:\n%s", digit, l)
		}
	}
}
