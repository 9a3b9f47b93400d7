package tunnels

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tandem-sbc/tandem/tests/netlab"
)

// silence is how long nothing may come for an answer to count as refused: many times what an
// answer takes here.
const silence = 500 * time.Millisecond

// through is how sockets of this host leave by a device, whatever the routes prefer.
func through(device string) func(string, string, syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) error {
		if device == "" {
			return nil
		}
		var failed error
		err := c.Control(func(fd uintptr) { failed = unix.BindToDevice(int(fd), device) })
		return errors.Join(err, failed)
	}
}

// datagrams sends some at a host, half of them OPTIONS and half like RTP, and reports whether
// any was answered.
func (l *lab) datagrams(t *testing.T, host, device string, from, to netip.AddrPort, n int) (answered bool) {
	t.Helper()
	var conn net.PacketConn
	err := l.Do(host, func() (err error) {
		config := net.ListenConfig{Control: through(device)}
		conn, err = config.ListenPacket(t.Context(), "udp4", from.String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	options := fmt.Sprintf("OPTIONS sip:%[2]v SIP/2.0\r\nVia: SIP/2.0/UDP %[1]v;branch=z9hG4bKstray\r\nMax-Forwards: 70\r\n"+
		"From: <sip:x@%[1]v>;tag=1\r\nTo: <sip:%[2]v>\r\nCall-ID: stray\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n", from, to)
	rtp := append([]byte{0x80, 8, 0, 1, 0, 0, 0, 160, 1, 2, 3, 4}, make([]byte, 160)...)
	for i := range n {
		packet := rtp
		if i%2 == 0 {
			packet = []byte(options)
		}
		// An ICMP error for the one before is no failure of this one.
		if _, err := conn.WriteTo(packet, net.UDPAddrFromAddrPort(to)); err != nil && !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, syscall.EHOSTUNREACH) {
			t.Fatalf("%v to %v: %v", from, to, err)
		}
	}
	return heard(t, conn)
}

// heard reports whether anything comes in.
func heard(t *testing.T, conn net.PacketConn) bool {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(silence)); err != nil {
		t.Fatal(err)
	}
	_, _, err := conn.ReadFrom(make([]byte, 2048))
	return err == nil
}

// get reads the metrics at an address, from a host.
func (l *lab) get(t *testing.T, host, device, address string) (string, error) {
	t.Helper()
	conn, err := l.dial(t, host, device, address, patience)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	client := http.Client{Timeout: patience, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(context.Context, string, string) (net.Conn, error) { return conn, nil },
	}}
	resp, err := client.Get("http://" + address + "/metrics")
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}

func (l *lab) dial(t *testing.T, host, device, address string, limit time.Duration) (conn net.Conn, err error) {
	t.Helper()
	err = l.Do(host, func() (err error) {
		dialer := net.Dialer{Timeout: limit, Control: through(device)}
		conn, err = dialer.DialContext(t.Context(), "tcp4", address)
		return err
	})
	return conn, err
}

// metrics is a scrape by the management host.
func (l *lab) metrics(t *testing.T) string {
	t.Helper()
	body, err := l.get(t, netlab.Management, "", metricsAddress)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// metricsAddress is where the gateway is scraped.
var metricsAddress = netip.AddrPortFrom(netlab.GatewayManagement.Addr(), 9464).String()

// managementIsApart: N6. What listens on the gateway's management address, or on all its
// addresses as an SSH daemon does, is there for the management network and for nobody else,
// by whatever way packets for it arrive (weak host model).
func managementIsApart(t *testing.T, l *lab) {
	const ssh, echo = 2222, 2223
	l.services(t, ssh, echo)
	management := netlab.GatewayManagement.Addr()
	// reaches lists what of the gateway a host gets at an address.
	reaches := func(host, device string, address netip.Addr) (found []string) {
		for _, port := range []uint16{9464, ssh} {
			if conn, err := l.dial(t, host, device, netip.AddrPortFrom(address, port).String(), silence); err == nil {
				conn.Close()
				found = append(found, fmt.Sprintf("TCP %d", port))
			}
		}
		var conn net.PacketConn
		if err := l.Do(host, func() (err error) {
			config := net.ListenConfig{Control: through(device)}
			conn, err = config.ListenPacket(t.Context(), "udp4", ":0")
			return err
		}); err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := conn.WriteTo([]byte("anybody?"), net.UDPAddrFromAddrPort(netip.AddrPortFrom(address, echo))); err == nil && heard(t, conn) {
			found = append(found, "UDP")
		}
		ping := "ping -q -n -c 1 -W 1 "
		if device != "" {
			ping += "-I " + device + " "
		}
		if _, err := l.try(t, host, ping+address.String()); err == nil {
			found = append(found, "ICMP")
		}
		return found
	}
	if got := strings.Join(reaches(netlab.Management, "", management), ", "); got != "TCP 9464, TCP 2222, UDP, ICMP" {
		t.Fatalf("the management host reaches only %q: the test could not tell", got)
	}
	a, c, platform := l.site(netlab.CarrierA), l.site(netlab.CarrierC), l.site(netlab.Platform)
	for _, way := range []struct {
		host, device, route string
		vlan                uint16
	}{
		{netlab.CarrierC, "", fmt.Sprintf("via %v", c.Gateway.Addr()), c.VLAN},
		{netlab.Platform, "", fmt.Sprintf("via %v", platform.Gateway.Addr()), platform.VLAN},
		{netlab.CarrierA, netlab.Device(0), fmt.Sprintf("via %v dev %s", a.Uplinks[0].Gateway.Addr(), netlab.Device(0)), a.Uplinks[0].VLAN},
	} {
		l.sh(t, way.host, fmt.Sprintf("ip route add %v/32 %s", management, way.route))
		wire := l.tap(t)
		if found := reaches(way.host, way.device, management); len(found) > 0 {
			t.Errorf("%s reaches the management address (%s): %v", way.host, way.route, found)
		}
		l.sh(t, way.host, fmt.Sprintf("ip route del %v/32 %s", management, way.route))
		census := stopped(t, wire).Wire
		for _, kind := range []string{netlab.FrameTCP, netlab.FrameUDP, netlab.FrameICMP} {
			if census.Count(func(f netlab.Frame) bool {
				return f.Out && f.VLAN == way.vlan && f.Kind == kind && f.Dst == management
			}) == 0 {
				t.Errorf("no %s of %s (%s) came to the gateway: the test could not tell", kind, way.host, way.route)
			}
		}
	}
	t.Run("through the tunnel", func(t *testing.T) {
		l.widen(t, management)
		before := l.refused(t, netlab.CarrierA)
		if found := reaches(netlab.CarrierA, netlab.TunnelDevice(0), management); len(found) > 0 {
			t.Errorf("carrier-a reaches the management address through its tunnel: %v", found)
		}
		// Two of TCP, and one each of UDP and ICMP.
		if n := l.refused(t, netlab.CarrierA) - before; n < 4 {
			t.Errorf("%d packets were refused behind the tunnel: the test could not tell:\n%s", n, l.xfrmStat(t, netlab.CarrierA))
		}
	})
	// A realm's own address is for SIP and RTP; echo requests may be answered.
	for _, way := range []struct {
		host    string
		address netip.Addr
	}{{netlab.CarrierA, a.Gateway.Addr()}, {netlab.CarrierC, c.Gateway.Addr()}, {netlab.CarrierA, a.Uplinks[0].Gateway.Addr()}} {
		for _, found := range reaches(way.host, "", way.address) {
			if found != "ICMP" {
				t.Errorf("%s reaches %s at %v", way.host, found, way.address)
			}
		}
	}
}

// refused counts what came as ESP to a realm and was dropped, e.g. for a policy.
func (l *lab) refused(t *testing.T, realm string) (n int) {
	t.Helper()
	for line := range strings.Lines(l.xfrmStat(t, realm)) {
		var name string
		var count int
		if _, err := fmt.Sscan(line, &name, &count); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if strings.HasPrefix(name, "XfrmIn") {
			n += count
		}
	}
	return n
}

// xfrmStat is /proc/net/xfrm_stat in the namespace of a realm's outer side.
func (l *lab) xfrmStat(t *testing.T, realm string) string {
	t.Helper()
	return l.sh(t, netlab.Gateway, fmt.Sprintf("ip netns exec tdm-%s-%s cat /proc/net/xfrm_stat", l.ID(), realm))
}

// services stand for an SSH daemon, and for a server of datagrams: they listen on all
// addresses of the gateway.
func (l *lab) services(t *testing.T, tcp, udp uint16) {
	t.Helper()
	var listener net.Listener
	var conn net.PacketConn
	if err := l.Do(netlab.Gateway, func() (err error) {
		if listener, err = net.Listen("tcp4", fmt.Sprintf(":%d", tcp)); err != nil {
			return err
		}
		conn, err = net.ListenPacket("udp4", fmt.Sprintf(":%d", udp))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = listener.Close(), conn.Close() })
	go func() {
		buf := make([]byte, 100)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = conn.WriteTo(buf[:n], from)
		}
	}()
}

// outboundReqid finds the outbound policy of the first tunnel.
var outboundReqid = regexp.MustCompile(`dir out .*\n\ttmpl src 192\.0\.2\.2 dst 192\.0\.2\.1\n\t\tproto esp .*reqid (\d+)`)

// widen makes carrier-a's router send more through its tunnel than was agreed on.
func (l *lab) widen(t *testing.T, to netip.Addr) {
	t.Helper()
	u := l.site(netlab.CarrierA).Uplinks[0]
	policies := l.sh(t, netlab.CarrierA, "ip xfrm policy list")
	found := outboundReqid.FindStringSubmatch(policies)
	if found == nil {
		t.Fatalf("carrier-a has no outbound policy:\n%s", policies)
	}
	policy := fmt.Sprintf("src 0.0.0.0/0 dst %v/32 dir out if_id 1", to)
	l.sh(t, netlab.CarrierA, fmt.Sprintf("ip xfrm policy add %s tmpl src %v dst %v proto esp reqid %s mode tunnel", policy, u.Peer.Addr(), u.Gateway.Addr(), found[1]))
	route := fmt.Sprintf("%v/32 dev %s", to, netlab.TunnelDevice(0))
	l.sh(t, netlab.CarrierA, "ip route add "+route)
	t.Cleanup(func() {
		l.sh(t, netlab.CarrierA, "ip route del "+route)
		l.sh(t, netlab.CarrierA, "ip xfrm policy delete "+policy)
	})
}

// pathMTU: N7. What is larger than the tunnel's MTU is fragmented before it is encrypted, or
// refused with that MTU if it must not be; what fits goes as it is.
func pathMTU(t *testing.T, l *lab) {
	const mtu, headers = 1200, 28 // the default; IPv4 and ICMP
	echo := func(flags string, size int) (string, error) {
		return l.try(t, netlab.Gateway, fmt.Sprintf("ip vrf exec tdm-carrier-a ping -n -c 1 -W 3 -M %s -s %d %v", flags, size-headers, l.site(netlab.CarrierA).Peer))
	}
	if out, err := echo("do", mtu); err != nil {
		t.Errorf("%d bytes: %s", mtu, out)
	}
	if out, err := echo("dont", 1700); err != nil {
		t.Errorf("1700 bytes that may be fragmented: %s", out)
	}
	if out, err := echo("do", mtu+1); err == nil || !strings.Contains(strings.ToLower(out), "message too long") {
		t.Errorf("%d bytes that may not: %v, %s", mtu+1, err, out)
	}
}
