package app

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tandem-sbc/tandem/pkg/admin"
	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/config"
	"github.com/tandem-sbc/tandem/pkg/sipua"
	"github.com/tandem-sbc/tandem/pkg/trunk"
	"github.com/tandem-sbc/tandem/tests/dnsd"
)

// sipPeer is a peer of the gateway on loopback that takes all calls.
type sipPeer struct {
	*sipua.Stack
	calls chan call.Leg
}

func newSIPPeer(t *testing.T, address string) *sipPeer {
	t.Helper()
	p := &sipPeer{calls: make(chan call.Leg, 8)}
	end := make(chan struct{})
	var err error
	p.Stack, err = sipua.Listen(sipua.Config{
		Realm: "peer", Listen: netip.MustParseAddrPort(address), Log: slog.New(slog.DiscardHandler), Handler: peerHandler(func(leg call.Leg) {
			if leg.Accept(willingSDP("127.0.0.1", 50000)) == nil {
				p.calls <- leg
				<-end
			}
		}),
		Peer: func(netip.Addr) sipua.PeerKind { return sipua.PeerCarrier },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	t.Cleanup(func() {
		close(end)
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return p
}

type peerHandler func(call.Leg)

func (h peerHandler) Invite(leg call.Leg, _ call.Invite) { h(leg) }

// await takes what comes, within a time that is long for any machine.
func await[T any](t *testing.T, what string, from <-chan T) T {
	t.Helper()
	select {
	case got := <-from:
		return got
	case <-time.After(20 * time.Second):
		t.Fatalf("%s does not come", what)
		panic("not reached")
	}
}

// awaitEvent skips what else happens on a leg.
func awaitEvent[T call.Event](t *testing.T, leg call.Leg) T {
	t.Helper()
	for {
		switch ev := await(t, "an event", leg.Events()).(type) {
		case T:
			return ev
		case call.Ended:
			t.Fatalf("the call ended: %+v", ev.Cause)
		}
	}
}

// call has a caller call the gateway, and be answered.
func (p *sipPeer) call(t *testing.T) call.Leg {
	t.Helper()
	leg, err := p.Dial(call.Target{Addr: netip.MustParseAddrPort("127.0.0.1:25060")}, call.Invite{
		Number: "+4930123456", MaxForwards: 70, Body: willingSDP("127.0.0.8", 40000),
	})
	if err != nil {
		t.Fatal(err)
	}
	awaitEvent[call.Accepted](t, leg)
	if err := leg.Ack(nil); err != nil {
		t.Fatal(err)
	}
	return leg
}

// namesConfig is a gateway on lo whose carrier is a name.
func namesConfig(t *testing.T, server string) *config.Config {
	t.Helper()
	dir := t.TempDir()
	cfg, err := config.Parse("test.yaml", fmt.Appendf(nil, `
engine: userspace
log: {level: error, format: json}
realms:
  - {name: here, network: existing, interface: lo, address: 127.0.0.1/8, sip_port: 25060, media_ports: 17000-17099, dns: {servers: ["%s"]}}
trunks:
  - {name: caller, realm: here, kind: platform, targets: ["127.0.0.8:25060"], probe: none}
  - {name: carrier, realm: here, kind: carrier, targets: ["sip.carrier.test:25060"], probe: none}
  - {name: greedy, realm: here, kind: carrier, targets: ["caller.carrier.test:25060"], probe: none}
routes:
  - {name: all, trunk: carrier}
metrics: {address: ""}
admin: {socket: %s/admin.sock}
cdr: {file: %s/cdr.jsonl}
node: %s
`, server, dir, dir, testNode))
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// T9: DNS changes while a call runs. The call goes on and ends by its peer's own BYE; the next one
// takes the new address. Whose name leads to another trunk's address does not get it.
func TestDNSChangesUnderACall(t *testing.T) {
	server := dnsd.Serve(t, "sip.carrier.test. 1 IN A 127.0.0.11", "caller.carrier.test. 1 IN A 127.0.0.8")
	caller, before, after := newSIPPeer(t, "127.0.0.8:25060"), newSIPPeer(t, "127.0.0.11:25060"), newSIPPeer(t, "127.0.0.12:25060")
	cfg := namesConfig(t, server.Addr())
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, cfg, nil, "v0", nil) }()
	defer func() {
		stop()
		if err := await(t, "the end", ended); err != nil {
			t.Error(err)
		}
	}()
	api := admin.NewClient(cfg.Admin.Socket)
	// status waits for what a trunk becomes.
	status := func(name string, is func(admin.TrunkStatus) bool) admin.TrunkStatus {
		t.Helper()
		var last admin.TrunkStatus
		for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
			list, err := api.Trunks(t.Context())
			if i := slices.IndexFunc(list, func(s admin.TrunkStatus) bool { return s.Name == name }); err == nil && i >= 0 {
				if last = list[i]; is(last) {
					return last
				}
			}
		}
		t.Fatalf("trunk %s is %+v", name, last)
		panic("not reached")
	}
	at := func(address string) func(admin.TrunkStatus) bool {
		return func(s admin.TrunkStatus) bool {
			return len(s.Targets) == 1 && s.Targets[0].Address == netip.MustParseAddrPort(address) && s.State == trunk.InService
		}
	}

	status("carrier", at("127.0.0.11:25060"))
	greedy := status("greedy", func(s admin.TrunkStatus) bool { return s.State == trunk.OutOfService && len(s.RefusedTargets) == 1 })
	if want := "caller.carrier.test:25060 is 127.0.0.8 by DNS, which is trunk caller's already"; greedy.Reason != want {
		t.Errorf("trunk greedy is out because %q, want %q", greedy.Reason, want)
	}
	first := caller.call(t)
	running := await(t, "the first call", before.calls)

	server.Set("sip.carrier.test. 1 IN A 127.0.0.12")
	status("carrier", at("127.0.0.12:25060"))
	second := caller.call(t)
	next := await(t, "the second call", after.calls)
	if next.Peer().Addr() != netip.MustParseAddr("127.0.0.1") || len(before.calls) > 0 {
		t.Errorf("the second call came from %s, %d went to the old address", next.Peer(), len(before.calls))
	}
	// DNS dead: the last known address goes on, and the status says so.
	server.Die(true)
	s := status("carrier", func(s admin.TrunkStatus) bool { return len(s.Names) == 1 && s.Names[0].State == "stale" })
	if s.State != trunk.InService || !strings.Contains(s.Names[0].Text, "last known targets") {
		t.Errorf("DNS is dead: %+v", s)
	}
	third := caller.call(t)
	await(t, "the third call", after.calls)

	// The gateway hears the first call's peer, which no name leads to any more.
	running.Close(t.Context(), call.Cause{})
	for isOver := false; !isOver; {
		_, isOver = await(t, "the end of the first call", first.Events()).(call.Ended)
	}
	second.Close(t.Context(), call.Cause{})
	third.Close(t.Context(), call.Cause{})
}

// N8, T9: a reload gives a trunk a name in place of an address. The next call goes to where the name
// leads; while DNS is dead it goes where it went before, and no call fails.
func TestReloadBringsAName(t *testing.T) {
	server := dnsd.Serve(t, "sip.carrier.test. 1 IN A 127.0.0.12")
	caller, before, after := newSIPPeer(t, "127.0.0.8:25060"), newSIPPeer(t, "127.0.0.11:25060"), newSIPPeer(t, "127.0.0.12:25060")
	cfg := namesConfig(t, server.Addr())
	var target atomic.Value
	target.Store("127.0.0.11:25060")
	reread := func() (*config.Config, error) {
		next := *cfg
		next.Trunks = slices.Clone(cfg.Trunks[:2])
		next.Trunks[1].Targets = []string{target.Load().(string)}
		return &next, nil
	}
	first, err := reread()
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, first, reread, "v0", nil) }()
	defer func() {
		stop()
		if err := await(t, "the end", ended); err != nil {
			t.Error(err)
		}
	}()
	api := admin.NewClient(cfg.Admin.Socket)
	eventually(t, "the daemon is up", func() bool {
		_, err := api.Status(t.Context())
		return err == nil
	})
	for _, row := range []struct {
		target string
		dead   bool
		peer   *sipPeer
	}{
		{"127.0.0.11:25060", false, before},
		{"sip.carrier.test:25060", true, before},
		{"127.0.0.11:25060", true, before},
		{"sip.carrier.test:25060", false, after},
	} {
		server.Die(row.dead)
		target.Store(row.target)
		if _, err := api.Reload(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		leg := caller.call(t)
		await(t, "the call at "+row.target, row.peer.calls)
		leg.Close(t.Context(), call.Cause{})
	}
}

// However often DNS leads a trunk with running calls elsewhere, a bounded number of its former
// addresses is known: the last ones.
func TestLeaversAreBounded(t *testing.T) {
	c := trunk.Config{Name: "a", Realm: "here", Kind: trunk.Carrier, Targets: []string{"192.0.2.1"}}
	c.SetDefaults()
	table, err := trunk.New(trunk.Configs{Trunks: []trunk.Config{c}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var l leavers
	now := time.Now()
	addr := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}) }
	for i := range 200 {
		l.leave(table.Trunk("a"), []netip.Addr{addr(i)}, now.Add(time.Duration(i)*time.Second))
	}
	if n := len(l.in("here")); n != maxLeft {
		t.Errorf("%d addresses are known", n)
	}
	if l.of("here", addr(199)).Name() != "a" || l.of("here", addr(200-maxLeft)).Name() != "a" || l.of("here", addr(199-maxLeft)) != nil {
		t.Error("it is not the last ones that are known")
	}
	if !l.look(now.Add(time.Hour)) || len(l.in("here")) > 0 {
		t.Error("without calls they are known for good")
	}
}

// DNS leads nobody to the gateway itself or to who is denied.
func TestRefusedByDNS(t *testing.T) {
	cfg := namesConfig(t, "127.0.0.1:53")
	cfg.Guard.Deny = []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}
	d := &daemon{}
	d.plan.Store(&plan{cfg: cfg})
	for target, want := range map[string]string{
		"127.0.0.1:25060":  "is this gateway's own address",
		"203.0.113.7:5060": "guard.deny has with 203.0.113.0/24",
		"127.0.0.11:25060": "",
	} {
		if got := d.refuse("here", netip.MustParseAddrPort(target)); got != want {
			t.Errorf("%s: %q, want %q", target, got, want)
		}
	}
}
