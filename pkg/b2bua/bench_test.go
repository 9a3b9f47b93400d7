package b2bua

import (
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/media"
	"github.com/tandem-sbc/tandem/pkg/route"
	"github.com/tandem-sbc/tandem/pkg/trunk"
)

// bench is a gateway between one platform and two carriers, all of them played by the test.
type bench struct {
	*Gateway
	engine  *fakeEngine
	dialer  *fakeDialer
	records fakeRecorder
	media   *media.Media
	trunks  *trunk.Table
	plan    atomic.Pointer[Plan]
	done    chan struct{}
}

func newBench(t *testing.T, legs ...*fakeLeg) *bench {
	t.Helper()
	return newBenchWith(t, nil, legs...)
}

// newBenchWith lets a test change the trunks' configs first.
func newBenchWith(t *testing.T, change func([]trunk.Config), legs ...*fakeLeg) *bench {
	t.Helper()
	return newBenchOf(t, func(c *trunk.Configs, _ *[]route.Config) {
		if change != nil {
			change(c.Trunks)
		}
	}, legs...)
}

// newBenchOf lets a test change all that calls go by.
func newBenchOf(t *testing.T, change func(*trunk.Configs, *[]route.Config), legs ...*fakeLeg) *bench {
	t.Helper()
	configs, routeConfigs := testConfigs()
	change(&configs, &routeConfigs)
	table, err := trunk.New(configs, nil)
	if err != nil {
		t.Fatal(err)
	}
	routes, err := route.New(routeConfigs)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{
		engine:  newFakeEngine(),
		dialer:  &fakeDialer{legs: legs, dialled: make(chan dial, 8), failure: errors.New("there is no SIP stack")},
		records: make(fakeRecorder, 8),
		trunks:  table,
		done:    make(chan struct{}),
	}
	b.plan.Store(&Plan{Trunks: table, Routes: routes})
	b.media, err = media.New(media.Config{
		Realms: []media.Realm{
			{Name: "inside", Number: 1, Addr: netip.MustParseAddr("192.0.2.1"), Ports: call.PortRange{First: 16384, Last: 16391}, DSCP: 46},
			{Name: "outside", Number: 2, Addr: netip.MustParseAddr("192.0.2.2"), Ports: call.PortRange{First: 24576, Last: 24583}, DSCP: 46},
			{Name: "elsewhere", Number: 3, Addr: netip.MustParseAddr("192.0.2.3"), Ports: call.PortRange{First: 25576, Last: 25583}, DSCP: 46},
		},
		Engine: b.engine, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	b.Gateway = New(Config{
		Node: "test", Engine: "fake", MaxCalls: 100, Media: b.media,
		Plan:   func() Plan { return *b.plan.Load() },
		Dialer: b.dialer, Records: b.records, Log: slog.New(slog.DiscardHandler),
	})
	return b
}

// call sends an INVITE into the gateway and returns the caller's leg.
func (b *bench) call(sdp string) *fakeLeg {
	return b.callFrom("inside", platformPeer, "+4930123456", sdp)
}

// callFrom sends it from a peer of a realm.
func (b *bench) callFrom(realm, peer, number, sdp string) *fakeLeg {
	leg := newFakeLeg("caller", peer)
	invite := call.Invite{Number: number, From: call.Party{User: "+15550100"}, To: call.Party{User: number}, MaxForwards: 70}
	if sdp != "" {
		invite.Body = []byte(sdp)
	}
	go func() {
		b.Invite(realm, leg, invite)
		b.done <- struct{}{}
	}()
	return leg
}

// record waits for the call's end and checks that it left nothing behind.
func (b *bench) record(t *testing.T) call.Record {
	t.Helper()
	var rec call.Record
	select {
	case rec = <-b.records:
	case <-time.After(10 * time.Second):
		t.Fatal("no record was written")
	}
	<-b.done
	if n := b.engine.installed(); n != 0 {
		t.Errorf("%d flows are left", n)
	}
	if n := b.media.PortsInUse(); n != 0 {
		t.Errorf("%d ports are left", n)
	}
	for _, tr := range b.trunks.All() {
		if s := tr.Status(); s.In.Active != 0 || s.Out.Active != 0 {
			t.Errorf("trunk %s holds slots: %+v", s.Name, s)
		}
	}
	if n := b.Totals().Active; n != 0 {
		t.Errorf("%d calls are left", n)
	}
	if rec.Cause.Text == "" || !strings.HasSuffix(strings.TrimSpace(rec.Cause.Text), ".") {
		t.Errorf("the cause is no sentence: %q", rec.Cause.Text)
	}
	return rec
}

// live waits until the one call that is up has reached a state.
func (b *bench) live(t *testing.T, want call.State) call.Info {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(5 * time.Second)
	for {
		infos := b.Calls()
		if len(infos) == 1 && infos[0].State == want {
			return infos[0]
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("no call is %s: %+v", want, infos)
		}
	}
}

// establish brings a call up to the caller's ACK.
func establish(t *testing.T, b *bench, callee *fakeLeg) *fakeLeg {
	t.Helper()
	caller := b.call(callerSDP)
	<-b.dialer.dialled
	callee.emit(call.Accepted{Body: []byte(calledSDP)})
	callee.expect(t, "ack")
	caller.expect(t, "accept")
	caller.emit(call.Acked{})
	return caller
}

// testConfigs are a platform and two carriers that stand in for each other.
func testConfigs() (trunk.Configs, []route.Config) {
	trunks := []trunk.Config{
		{Name: "platform", Realm: "inside", Kind: "platform", Transport: "udp", Targets: []string{platformPeer}, Codecs: []string{"PCMA", "PCMU"}, MaxCalls: 2, RingTimeout: 3 * time.Second, HealthWindow: 5 * time.Minute},
		{Name: "carrier", Realm: "outside", Kind: "carrier", Transport: "udp", Targets: []string{carrierPeer}, Codecs: []string{"PCMA", "PCMU"}, RingTimeout: 3 * time.Second, HealthWindow: 5 * time.Minute},
		{Name: "backup", Realm: "outside", Kind: "carrier", Transport: "udp", Targets: []string{backupPeer}, Codecs: []string{"PCMA"}, RingTimeout: 3 * time.Second, HealthWindow: 5 * time.Minute},
	}
	groups := []trunk.GroupConfig{{Name: "carriers", Trunks: []string{"carrier", "backup"}, Strategy: trunk.Priority}}
	return trunk.Configs{Trunks: trunks, Groups: groups}, []route.Config{
		{Name: "out", From: []string{"platform"}, Prefix: "+49", Group: "carriers"},
		{Name: "one", From: []string{"platform"}, Prefix: "+48", Trunk: "carrier"},
		{Name: "in", From: []string{"carrier"}, Prefix: "+1", Trunk: "platform"},
	}
}
