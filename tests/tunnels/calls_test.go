package tunnels

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/tests/netlab"
	"github.com/tandem-sbc/tandem/tests/sipp"
)

// TestOverlappingCarriers: N1-N6, M1, M3. Two carriers with the same outer and inner addresses, a third
// without a tunnel, all on one trunk. The tests share the lab.
func TestOverlappingCarriers(t *testing.T) {
	l := carriers(t, netlab.TrunkOptions{Engine: call.EngineKernel, Metrics: metricsAddress})
	t.Run("calls in all directions", func(t *testing.T) { callsInAllDirections(t, l, call.EngineKernel) })
	t.Run("marks", func(t *testing.T) { marks(t, l) })
	t.Run("clear text where ESP is due", func(t *testing.T) { clearText(t, l) })
	t.Run("another realm's addresses", func(t *testing.T) { wrongRealm(t, l) })
	t.Run("management", func(t *testing.T) { managementIsApart(t, l) })
	t.Run("path MTU", func(t *testing.T) { pathMTU(t, l) })
}

// TestUserspaceEngine: M1. The other engine does the same over the same tunnels.
func TestUserspaceEngine(t *testing.T) {
	l := carriers(t, netlab.TrunkOptions{Engine: call.EngineUserspace})
	callsInAllDirections(t, l, call.EngineUserspace)
}

// callsInAllDirections: both carriers are called and call, one calls the other, and the clear
// one: all that was said arrives, byte for byte, and on the wire there is nothing of it.
func callsInAllDirections(t *testing.T, l *lab, engine string) {
	l.answering(t, 2*time.Second)
	before := l.status(t).Engine
	wire := l.tap(t)
	logs := l.watch(t, netlab.Platform, netlab.CarrierA, netlab.CarrierB, netlab.CarrierC)
	ways := []struct{ from, prefix string }{
		{netlab.Platform, netlab.PrefixA}, {netlab.Platform, netlab.PrefixB}, {netlab.Platform, netlab.PrefixC},
		{netlab.CarrierA, netlab.PrefixPlatform}, {netlab.CarrierB, netlab.PrefixPlatform},
		{netlab.CarrierA, netlab.PrefixB}, // tunnel to tunnel
		{netlab.CarrierC, netlab.PrefixA}, // clear to tunnel, both carriers
	}
	const each = 1
	var callers []*sipp.Agent
	for _, way := range ways {
		callers = append(callers, l.call(t, way.from, way.prefix, each))
	}
	wait(t, callers...)
	l.idle(t)
	captured := logs()
	report := media(t, each*len(ways), captured...)
	// A busy machine may end a call before the last of what was to be said.
	if all := uint64(each * len(ways) * 2 * packets(l.talk)); report.Sent < all/2 {
		t.Errorf("%d packets were sent of %d", report.Sent, all)
	}
	if !report.DSCPOnly(netlab.MediaDSCP) {
		t.Errorf("DSCP of what arrived: %v, want %d only (M3)", report.DSCP, netlab.MediaDSCP)
	}
	l.onlyIPsec(t, stopped(t, wire).Wire)
	now := l.status(t).Engine
	kernel, userspace := now.KernelPackets-before.KernelPackets, now.UserspacePackets-before.UserspacePackets
	if engine == call.EngineKernel && (kernel < report.Sent || userspace != 0) || engine == call.EngineUserspace && (userspace < report.Sent || kernel != 0) {
		t.Errorf("engine %s: %d packets in the kernel, %d in user space, of %d", engine, kernel, userspace, report.Sent)
	}
}

// idle waits until the gateway has no call left.
func (l *lab) idle(t *testing.T) {
	t.Helper()
	l.await(t, "no call left", func() string {
		if n := l.status(t).Calls.Active; n > 0 {
			return fmt.Sprintf("%d are live", n)
		}
		return ""
	})
}

// marks: M3, N1. The code point of media and SIP is on the outer header too, the 802.1p
// priority in the tag.
func marks(t *testing.T, l *lab) {
	l.answering(t, 2*time.Second)
	wire := l.tap(t)
	caller := l.call(t, netlab.Platform, netlab.PrefixA, 1)
	wait(t, caller)
	l.idle(t)
	census := stopped(t, wire).Wire
	const voice, signalling = 5, 3 // the defaults of pcp and sip_pcp
	for _, want := range []struct {
		kind           string
		vlan           uint16
		dscp, priority uint8
		atLeast        uint64
	}{
		{netlab.FrameESP, 101, netlab.MediaDSCP, voice, uint64(packets(l.talk))},
		{netlab.FrameESP, 101, netlab.SIPDSCP, signalling, 2},
		{netlab.FrameUDP, 200, netlab.MediaDSCP, voice, uint64(packets(l.talk))},
		{netlab.FrameUDP, 200, netlab.SIPDSCP, signalling, 2},
	} {
		n := census.Count(func(f netlab.Frame) bool {
			return !f.Out && f.Kind == want.kind && f.VLAN == want.vlan && f.DSCP == want.dscp && f.Priority == want.priority
		})
		if n < want.atLeast {
			t.Errorf("%d frames of %s from the gateway on VLAN %d have DSCP %d and priority %d, want %d at least:\n%v",
				n, want.kind, want.vlan, want.dscp, want.priority, want.atLeast, census)
		}
	}
}

// leaks of a realm by a reason.
func (l *lab) leaks(t *testing.T, realm, reason string) uint64 {
	t.Helper()
	return l.realm(t, realm).Leaks[reason]
}

// clearText: N5. What comes in clear on a VLAN where ESP is due is dropped and counted,
// whether it looks like RTP of a call, like SIP, or like anything else.
func clearText(t *testing.T, l *lab) {
	l.answering(t, 6*time.Second)
	caller := l.call(t, netlab.Platform, netlab.PrefixA, 1)
	l.talking(t, 1)
	var port uint16
	for _, c := range ask(t, l.api.Calls) {
		port = c.Egress.Media.Local.Port()
	}
	before, scraped := l.leaks(t, netlab.CarrierA, "clear-text"), metric(t, l.metrics(t), clearTextLeaks)
	// The carrier's own router sends by the outer network what belongs into the tunnel.
	a := l.site(netlab.CarrierA)
	route := fmt.Sprintf("%v/32 via %v dev %s metric 500", a.Gateway.Addr(), a.Uplinks[0].Gateway.Addr(), netlab.Device(0))
	l.sh(t, netlab.CarrierA, "ip route add "+route)
	defer l.sh(t, netlab.CarrierA, "ip route del "+route)
	const sent = 20
	for _, to := range []uint16{port, 5060, 4000} {
		if l.datagrams(t, netlab.CarrierA, netlab.Device(0), netip.AddrPortFrom(a.Peer, 9999), netip.AddrPortFrom(a.Gateway.Addr(), to), sent) {
			t.Errorf("clear text to port %d was answered", to)
		}
	}
	l.await(t, "the clear text counted", func() string {
		if n := l.leaks(t, netlab.CarrierA, "clear-text") - before; n < 3*sent {
			return fmt.Sprintf("%d of %d", n, 3*sent)
		}
		return ""
	})
	wait(t, caller)
	l.idle(t)
	if n := metric(t, l.metrics(t), clearTextLeaks) - scraped; n < 3*sent {
		t.Errorf("%s has risen by %v, want %d at least", clearTextLeaks, n, 3*sent)
	}
}

const clearTextLeaks = `tandem_realm_leaks_total{realm="carrier-a",reason="clear-text"}`

// metric is the value of a series among those scraped.
func metric(t *testing.T, scraped, series string) float64 {
	t.Helper()
	for line := range strings.Lines(scraped) {
		if text, found := strings.CutPrefix(line, series+" "); found {
			value, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
			if err != nil {
				t.Fatal(err)
			}
			return value
		}
	}
	t.Fatalf("metrics have no %s", series)
	return 0
}

// wrongRealm: N5, N2. A carrier on a clear VLAN that uses the platform's address, or sends to
// another realm's, is refused and counted.
func wrongRealm(t *testing.T, l *lab) {
	platform, c := l.site(netlab.Platform), l.site(netlab.CarrierC)
	l.sh(t, netlab.CarrierC, fmt.Sprintf("ip addr add %v/32 dev lo", platform.Peer))
	defer l.sh(t, netlab.CarrierC, fmt.Sprintf("ip addr del %v/32 dev lo", platform.Peer))
	l.sh(t, netlab.CarrierC, fmt.Sprintf("ip route add %v/32 via %v", platform.Gateway.Addr(), c.Gateway.Addr()))
	defer l.sh(t, netlab.CarrierC, fmt.Sprintf("ip route del %v/32", platform.Gateway.Addr()))
	const sent = 20
	for _, way := range []struct{ from, to netip.AddrPort }{
		{netip.AddrPortFrom(platform.Peer, 5060), netip.AddrPortFrom(c.Gateway.Addr(), 5060)},
		{netip.AddrPortFrom(c.Peer, 4000), netip.AddrPortFrom(platform.Gateway.Addr(), 5060)},
	} {
		before := l.leaks(t, netlab.CarrierC, "wrong-realm")
		if l.datagrams(t, netlab.CarrierC, "", way.from, way.to, sent) {
			t.Errorf("%v to %v was answered", way.from, way.to)
		}
		l.await(t, fmt.Sprintf("%v to %v counted", way.from, way.to), func() string {
			if n := l.leaks(t, netlab.CarrierC, "wrong-realm") - before; n < sent {
				return fmt.Sprintf("%d of %d", n, sent)
			}
			return ""
		})
	}
}
