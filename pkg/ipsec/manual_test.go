package ipsec

import (
	"context"
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// isComplete is true if all that m has made is there.
func isComplete(t *testing.T, m *manual) bool {
	t.Helper()
	up, err := m.up()
	if err != nil {
		t.Error(err)
	}
	return up
}

// I5: manual keys carry traffic both ways, and what is there is left alone: applying again, also
// by a daemon that has just started, changes no association, so that sequence numbers go on.
func TestManualKeysCarryAndStay(t *testing.T) {
	l := newLab(t)
	if isComplete(t, l.gateway) {
		t.Error("up before the keys are applied")
	}
	l.apply(t, l.gateway, l.far)
	l.activate(t)
	wire := sniff(t, l)
	out := streamTo(t, l.home, l.carrier, us, them, testVRF, "")
	back := streamTo(t, l.carrier, l.home, them, us, "", testVRF)
	const expedited = 46 << 2
	back.mark(t, expedited)
	for range 20 {
		out.send(t)
		back.send(t)
	}
	out.arrive(t, "to the carrier")
	back.arrive(t, "from the carrier")
	if tos := wire.next(t)[1]; tos != expedited {
		t.Errorf("the outer header has TOS %#x, the inner one %#x", tos, expedited)
	}
	if !isComplete(t, l.gateway) || l.gateway.changes() != 0 {
		t.Errorf("up is %v, %d changes", isComplete(t, l.gateway), l.gateway.changes())
	}
	if warnings := strings.Count(l.log.String(), "level=WARN"); warnings != 2 {
		t.Errorf("%d warnings of keys that may have been used, want one of each side:\n%s", warnings, l.log)
	}

	before := l.outer.IP(t, "-s xfrm state")
	restarted := newManual(l.gateway.tunnel, us, l.outer.Path, l.gateway.log)
	l.apply(t, l.gateway, restarted)
	if after := l.outer.IP(t, "-s xfrm state"); after != before {
		t.Errorf("a restart changed\n%s\nto\n%s", before, after)
	}
	if warnings := strings.Count(l.log.String(), "level=WARN"); warnings != 2 || restarted.changes() != 0 || !isComplete(t, restarted) {
		t.Errorf("after the restart %d warnings, %d changes, up is %v", warnings, restarted.changes(), isComplete(t, restarted))
	}
	for range 20 {
		out.send(t)
		back.send(t)
	}
	out.arrive(t, "to the carrier after the restart")
	back.arrive(t, "from the carrier after the restart")
	l.log.noKeys(t)
}

// I5: a change of keys in mid-call loses nothing, and every packet is counted once.
func TestManualKeyChangeLosesNothing(t *testing.T) {
	l := newLab(t)
	l.apply(t, l.gateway, l.far)
	l.activate(t)
	counts := newAssociations(l.outer.Path, []Tunnel{l.gateway.tunnel})
	defer counts.close()
	if _, err := counts.read(); err != nil {
		t.Fatal(err)
	}
	out := streamTo(t, l.home, l.carrier, us, them, testVRF, "")
	back := streamTo(t, l.carrier, l.home, them, us, "", testVRF)
	ctx, stop := context.WithCancel(context.Background())
	sent, begun := make(chan struct{}), time.Now()
	go func() {
		defer close(sent)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			<-tick.C
			out.send(t)
			back.send(t)
		}
	}()
	// As an operator does it without IKE: both sides take the new inbound keys, then use them,
	// then drop the old ones.
	type pair struct{ in, out string } // lines of the gateway's keys
	old := pair{"0x1001 " + key("1"), "0x2001 " + key("2")}
	for _, next := range []pair{{"0x1002 " + key("3"), "0x2002 " + key("4")}, {"0x1003 " + key("5"), "0x2003 " + key("6")}} {
		l.write(t, "gateway.in", old.in, next.in)
		l.write(t, "carrier.in", old.out, next.out)
		l.apply(t, l.gateway, l.far)
		l.write(t, "gateway.out", next.out)
		l.write(t, "carrier.out", next.in)
		l.apply(t, l.gateway, l.far)
		l.write(t, "gateway.in", next.in)
		l.write(t, "carrier.in", next.out)
		l.apply(t, l.gateway, l.far)
		old = next
		if n := len(heldBy(t, l.gateway)); n != 4 {
			t.Errorf("%d associations within the grace, want the old pair and the new one", n)
		}
		swept := eventually(10*time.Second, func() bool {
			again, err := l.gateway.sweep(time.Now())
			other, farErr := l.far.sweep(time.Now())
			if err != nil || farErr != nil {
				t.Fatal(err, farErr)
			}
			return again.IsZero() && other.IsZero()
		})
		if n := len(heldBy(t, l.gateway)); !swept || n != 2 {
			t.Errorf("%d associations after the grace, want the new pair", n)
		}
	}
	stop()
	<-sent
	rate := float64(out.sent) / time.Since(begun).Seconds()
	out.arrive(t, "to the carrier")
	back.arrive(t, "from the carrier")
	t.Logf("%d datagrams each way, %.0f a second, over %d changes", out.sent, rate, l.gateway.changes())
	if l.gateway.changes() != 4 {
		t.Errorf("%d changes, want 2 of inbound keys and 2 of outbound ones", l.gateway.changes())
	}

	got, err := counts.read()
	if err != nil {
		t.Fatal(err)
	}
	sum := got[1]
	wantIn, wantOut := call.TunnelTraffic{Packets: back.sent, Bytes: back.sent * datagram}, call.TunnelTraffic{Packets: out.sent, Bytes: out.sent * datagram}
	if sum.In != wantIn || sum.Out != wantOut {
		t.Errorf("counted %+v, sent %d and %d of %d bytes", sum, out.sent, back.sent, datagram)
	}
	if len(sum.Errors) != 0 || len(got[wholeNamespace].Errors) != 0 {
		t.Errorf("errors %v and %v", sum.Errors, got[wholeNamespace].Errors)
	}
	if strings.Count(l.log.String(), "level=WARN") != 2 {
		t.Errorf("a change to fresh keys warns:\n%s", l.log)
	}
	l.log.noKeys(t)
}

// An outbound key that is used at once has to be the newest; going back to the one before it
// within the grace works too.
func TestManualOutboundKeyIsUsedAtOnce(t *testing.T) {
	l := newLab(t)
	l.write(t, "carrier.in", "0x2001 "+key("2"), "0x2002 "+key("4"))
	l.apply(t, l.gateway, l.far)
	l.activate(t)
	out := streamTo(t, l.home, l.carrier, us, them, testVRF, "")
	packets := func(spi uint32) uint64 {
		var n uint64
		err := inNamespace(l.outer.Path, func() error {
			return eachState(nil, func(message []byte) error {
				s, err := parseState(message, nil)
				if s.id.spi == spi {
					n = s.packets
				}
				return err
			})
		})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	burst := func(what string, spi uint32) {
		t.Helper()
		before := packets(spi)
		for range 10 {
			out.send(t)
		}
		out.arrive(t, what)
		if used := packets(spi) - before; used != 10 {
			t.Errorf("%s: %d of 10 packets by SPI %#x", what, used, spi)
		}
	}
	burst("first key", 0x2001)
	l.write(t, "gateway.out", "0x2002 "+key("4"))
	l.apply(t, l.gateway)
	burst("new key", 0x2002)
	l.write(t, "gateway.out", "0x2001 "+key("2"))
	l.apply(t, l.gateway)
	burst("the key before, within the grace", 0x2001)
	if again, err := l.gateway.sweep(time.Now()); err != nil || !again.IsZero() {
		t.Errorf("the key that was given up still waits for %v, error %v", again, err)
	}
}

// What somebody removes by hand is missed, and put back. Removing the tunnel leaves nothing of
// ours, and all that is not.
func TestManualRepairAndRemove(t *testing.T) {
	l := newLab(t)
	const state = "xfrm state add src 192.0.2.9 dst 192.0.2.1 proto esp spi 0x9001 reqid 1 mode tunnel if_id 1 aead rfc4106(gcm(aes)) 0x"
	l.outer.IP(t, state+key("9")+" 128")
	l.outer.IP(t, "xfrm policy add src 10.99.0.0/24 dst 10.98.0.0/24 dir out if_id 1 tmpl src 192.0.2.1 dst 192.0.2.9 proto esp reqid 1 mode tunnel")
	foreign := l.outer.IP(t, "xfrm state") + l.outer.IP(t, "xfrm policy")
	l.apply(t, l.gateway)
	for _, command := range []string{
		"xfrm state delete dst 192.0.2.1 proto esp spi 0x1001",
		"xfrm state delete dst 192.0.2.2 proto esp spi 0x2001",
		"xfrm policy delete src 10.60.0.1/32 dst 10.50.0.0/24 dir out if_id 1",
		"xfrm policy delete src 10.50.0.0/24 dst 10.60.0.1/32 dir in if_id 1",
	} {
		l.outer.IP(t, command)
		if isComplete(t, l.gateway) {
			t.Errorf("up after: ip %s", command)
		}
		if l.apply(t, l.gateway); !isComplete(t, l.gateway) {
			t.Errorf("not put back after: ip %s", command)
		}
	}
	moved := l.gateway.tunnel
	moved.Networks = append(moved.Networks[:0:0], carriers, outerCarrier.Masked())
	again := newManual(moved, us, l.outer.Path, l.gateway.log)
	if l.apply(t, again); strings.Count(l.outer.IP(t, "xfrm policy"), "if_id 0x1") != 7 {
		t.Errorf("two networks want 6 policies beside the foreign one:\n%s", l.outer.IP(t, "xfrm policy"))
	}
	l.apply(t, l.gateway)
	if strings.Count(l.outer.IP(t, "xfrm policy"), "if_id 0x1") != 4 {
		t.Errorf("one network wants 3 policies beside the foreign one:\n%s", l.outer.IP(t, "xfrm policy"))
	}
	if n, err := removeManual(l.outer.Path, map[uint32]bool{1: true}); n != 0 || err != nil || !isComplete(t, l.gateway) {
		t.Fatalf("%d are removed of a tunnel that is kept, %v", n, err)
	}
	if n, err := removeManual(l.outer.Path, nil); n != 5 || err != nil {
		t.Fatalf("%d are removed, want 2 associations and 3 policies: %v", n, err)
	}
	if left := l.outer.IP(t, "xfrm state") + l.outer.IP(t, "xfrm policy"); left != foreign || isComplete(t, l.gateway) {
		t.Errorf("removing left\n%s\nof\n%s", left, foreign)
	}
	if n, err := removeManual(l.outer.Path, nil); n != 0 || err != nil {
		t.Errorf("removing again: %d, %v", n, err)
	}
}

// keeperOf keeps one tunnel of the lab.
func (l *lab) keeperOf(t *testing.T, tunnel Tunnel) *keeper {
	t.Helper()
	c, err := newCharon(l.dir, "gw", "test", l.outer.Path, DefaultCharon)
	if err != nil {
		t.Fatal(err)
	}
	r := Realm{Name: "test", Namespace: l.outer.Path, Inner: us, Tunnels: []Tunnel{tunnel}}
	return newKeeper(r, c, slog.New(slog.NewTextHandler(l.log, nil)), func(State) {})
}

// A reload with keys that cannot be used leaves the tunnel up by the old ones, and says so.
func TestManualReloadOfBadKeys(t *testing.T) {
	l := newLab(t)
	k := l.keeperOf(t, l.gateway.tunnel)
	x := k.tunnels[0]
	k.lookManual(t.Context(), x, time.Now())
	l.write(t, "gateway.in", "0x1001")
	if err := k.apply(t.Context()); err == nil || !strings.Contains(err.Error(), "tunnel gateway") {
		t.Errorf("error %v does not name the tunnel", err)
	}
	k.lookManual(t.Context(), x, time.Now())
	if x.state != call.TunnelUp || x.failures[causeKey] != 1 {
		t.Errorf("%s, failures %v", x.state, x.failures)
	}
	contains(t, l.log.String(), "goes on with its old keys")
	if strings.Contains(l.log.String(), "tunnel is not up") {
		t.Errorf("taken for down:\n%s", l.log)
	}
	l.log.noKeys(t)
}

// A tunnel that is IKE's now has nothing of its manual keys in charon's way.
func TestManualBecomesIKE(t *testing.T) {
	l := newLab(t)
	l.apply(t, l.gateway)
	l.keeperOf(t, l.gateway.tunnel).sweepManual()
	if !isComplete(t, l.gateway) {
		t.Fatal("a tunnel that is still manual has lost its associations")
	}
	negotiated := l.gateway.tunnel
	negotiated.Keying = IKE
	l.keeperOf(t, negotiated).sweepManual()
	if left := l.outer.IP(t, "xfrm state") + l.outer.IP(t, "xfrm policy"); left != "" {
		t.Errorf("left are\n%s", left)
	}
}

// Keys that cannot be used change nothing, and the error names what is wrong and no key.
func TestManualErrors(t *testing.T) {
	l := newLab(t)
	l.apply(t, l.gateway)
	before := heldBy(t, l.gateway)
	const state = "xfrm state add src 192.0.2.9 dst 192.0.2.1 proto esp spi 0x9001 reqid 1 mode tunnel aead rfc4106(gcm(aes)) 0x"
	l.outer.IP(t, state+key("9")+" 128")
	for text, problem := range map[string]string{
		"0x9001 " + key("3"): "SPI 0x9001 is used by another security association",
		"0x1001 " + key("2"): "have the same key",
		"0x1001":             "line 1",
	} {
		l.write(t, "gateway.in", text)
		err := l.gateway.apply(context.Background())
		if err == nil || !strings.Contains(err.Error(), problem) {
			t.Errorf("error %v does not say %q", err, problem)
		} else if strings.Contains(err.Error(), "3333") || strings.Contains(err.Error(), "2222") {
			t.Errorf("error %v shows a key", err)
		}
		l.write(t, "gateway.in", "0x1001 "+key("1"))
		if after := heldBy(t, l.gateway); !reflect.DeepEqual(before, after) || !isComplete(t, l.gateway) {
			t.Errorf("%v became %v", before, after)
		}
	}
	gone := newManual(l.gateway.tunnel, us, "/run/netns/tdm-not-there", l.gateway.log)
	if err := gone.apply(context.Background()); err == nil || !strings.Contains(err.Error(), "tdm-not-there") {
		t.Errorf("namespace that is not there: error %v", err)
	}
	l.log.noKeys(t)
}
