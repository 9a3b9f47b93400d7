package app

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/tandem-sbc/tandem/pkg/admin"
	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/config"
	"github.com/tandem-sbc/tandem/pkg/sipua"
)

// reloadConfig is a gateway on lo between a platform and two carriers; calls go to a.
const reloadConfig = `
engine: userspace
drain: 1s
log: {level: error, format: json}
realms:
  - {name: here, network: existing, interface: lo, address: 127.0.0.1/8, sip_port: 25160, media_ports: 17200-17399}
trunks:
  - {name: platform, realm: here, kind: platform, targets: ["127.0.0.11:25161"], probe: none}
  - {name: a, realm: here, kind: carrier, targets: ["127.0.0.12:25161"], probe: none, max_calls: 50}
  - {name: b, realm: here, kind: carrier, targets: ["127.0.0.13:25161"], probe: none, max_calls: 50}
routes:
  - {name: out, from: [platform], trunk: a}
metrics: {address: ""}
media: {quarantine: 0s}
`

// running is a daemon that was started from a file.
type running struct {
	*admin.Client
	file    string
	text    string
	signals chan os.Signal
	gateway netip.AddrPort
}

func startReloadable(t *testing.T) *running {
	t.Helper()
	dir := t.TempDir()
	g := &running{
		file: filepath.Join(dir, "gw.yaml"), signals: make(chan os.Signal), gateway: netip.MustParseAddrPort("127.0.0.1:25160"),
		text: reloadConfig + fmt.Sprintf("node: %s\nadmin: {socket: %s/admin.sock}\ncdr: {file: %s/cdr.jsonl}\n", testNode, dir, dir),
	}
	g.edit(t)
	load := func() (*config.Config, error) { return config.Load(g.file) }
	cfg, err := load()
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- Run(context.Background(), cfg, load, "v0", g.signals) }()
	g.Client = admin.NewClient(cfg.Admin.Socket)
	t.Cleanup(func() {
		g.signals <- syscall.SIGTERM
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	eventually(t, "the daemon is up", func() bool {
		_, err := g.Status(t.Context())
		return err == nil
	})
	return g
}

// edit replaces pairs of texts in the config file.
func (g *running) edit(t *testing.T, pairs ...string) {
	t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(g.text, pairs[i]) {
			t.Fatalf("%q is not in the config", pairs[i])
		}
	}
	g.text = strings.NewReplacer(pairs...).Replace(g.text)
	if err := os.WriteFile(g.file, []byte(g.text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// reloadWants has the daemon reload, and compares what it says has changed.
func (g *running) reloadWants(t *testing.T, dry bool, want ...string) {
	t.Helper()
	r, err := g.Reload(t.Context(), dry)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range r.Changes {
		got = append(got, c.Text)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("changes, -want +got:\n%s", diff)
	}
}

func (g *running) trunk(t *testing.T, name string) admin.TrunkStatus {
	t.Helper()
	all, err := g.Trunks(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, tr := range all {
		if tr.Name == name {
			return tr
		}
	}
	return admin.TrunkStatus{}
}

// eventually waits for what other goroutines are about to do.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// phone is a peer, which answers every call.
type phone struct {
	*sipua.Stack
	media string
	// hangup is closed to end the calls in; taken counts them.
	hangup chan struct{}

	mu    sync.Mutex
	taken int
}

func newPhone(t *testing.T, address string) *phone {
	t.Helper()
	p := &phone{hangup: make(chan struct{}), media: address}
	stack, err := sipua.Listen(sipua.Config{
		Realm: address, Listen: netip.AddrPortFrom(netip.MustParseAddr(address), 25161), Handler: p, Log: slog.New(slog.DiscardHandler),
		Peer: func(netip.Addr) sipua.PeerKind { return sipua.PeerCarrier },
	})
	if err != nil {
		t.Fatal(err)
	}
	p.Stack = stack
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- stack.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return p
}

func (p *phone) sdp() []byte {
	return fmt.Appendf(nil, "v=0\r\no=- 1 1 IN IP4 %[1]s\r\ns=-\r\nc=IN IP4 %[1]s\r\nt=0 0\r\nm=audio 40000 RTP/AVP 8\r\n", p.media)
}

func (p *phone) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.taken
}

// Invite implements sipua.Handler.
func (p *phone) Invite(leg call.Leg, _ call.Invite) {
	p.mu.Lock()
	p.taken++
	p.mu.Unlock()
	if err := leg.Accept(p.sdp()); err != nil {
		return
	}
	for {
		select {
		case <-p.hangup:
			leg.Close(context.Background(), call.Cause{SIP: 200})
			return
		case e := <-leg.Events():
			if _, over := e.(call.Ended); over {
				return
			}
		}
	}
}

// dial calls through the gateway, and returns the leg of a call that was answered, or the
// status that it was refused with.
func (p *phone) dial(g *running, number string) (leg call.Leg, status int, err error) {
	leg, err = p.Dial(call.Target{Addr: g.gateway, Transport: "udp"}, call.Invite{
		Number: number, From: call.Party{User: "+4930654321"}, To: call.Party{User: number}, MaxForwards: 70, Body: p.sdp(),
	})
	if err != nil {
		return nil, 0, err
	}
	timeout := time.After(20 * time.Second)
	for {
		select {
		case <-timeout:
			return nil, 0, fmt.Errorf("the call to %s has no answer", g.gateway)
		case e := <-leg.Events():
			switch e := e.(type) {
			case call.Accepted:
				return leg, 200, leg.Ack(nil)
			case call.Rejected:
				return nil, e.Code, nil
			case call.Ended:
				return nil, 0, fmt.Errorf("the call ended: %+v", e.Cause)
			}
		}
	}
}

func (p *phone) wantStatus(t *testing.T, g *running, want int) call.Leg {
	t.Helper()
	return p.wantStatusTo(t, g, "+4930123456", want)
}

func (p *phone) wantStatusTo(t *testing.T, g *running, number string, want int) call.Leg {
	t.Helper()
	leg, status, err := p.dial(g, number)
	if err != nil || status != want {
		t.Fatalf("a call from %s to %s: status %d, %v; want %d", p.media, number, status, err, want)
	}
	if leg != nil {
		t.Cleanup(func() { leg.Close(context.Background(), call.Cause{SIP: 200}) })
	}
	return leg
}

// T1, T3 and the reload of issue 5: a trunk that is taken out of the config drains: its
// running call goes on, either side can end it, and new calls go elsewhere. A dry run only
// tells.
func TestReloadMovesNewCalls(t *testing.T) {
	g := startReloadable(t)
	caller, a, b := newPhone(t, "127.0.0.11"), newPhone(t, "127.0.0.12"), newPhone(t, "127.0.0.13")
	first := caller.wantStatus(t, g, 200)

	g.edit(t, `  - {name: a, realm: here, kind: carrier, targets: ["127.0.0.12:25161"], probe: none, max_calls: 50}`+"\n", "",
		"trunk: a}", "trunk: b}", "max_calls: 50", "max_calls: 1")
	want := []string{"trunks[a] removed: drain", "trunks[b].max_calls 50 -> 1: hot", "routes[out].trunk a -> b: hot"}
	g.reloadWants(t, true, want...)
	second := caller.wantStatus(t, g, 200)
	if a.count() != 2 || b.count() != 0 || g.trunk(t, "a").Removed {
		t.Errorf("after a dry run %d calls went to a and %d to b, want 2 and 0", a.count(), b.count())
	}
	second.Close(t.Context(), call.Cause{SIP: 200})

	g.reloadWants(t, false, want...)
	eventually(t, "the second call ends", func() bool { return g.trunk(t, "a").Out.Active == 1 })
	if tr := g.trunk(t, "a"); !tr.Removed || tr.State != "draining" || tr.Reason == "" {
		t.Errorf("trunk a is not seen to drain: %+v", tr)
	}
	caller.wantStatus(t, g, 200)
	if a.count() != 2 || b.count() != 1 {
		t.Errorf("%d calls went to a and %d to b, want 2 and 1", a.count(), b.count())
	}
	caller.wantStatus(t, g, 503) // b is full
	a.wantStatus(t, g, 403)      // a is a stranger now

	close(a.hangup)
	select {
	case e := <-first.Events():
		if _, over := e.(call.Ended); !over {
			t.Errorf("the first call's leg says %T", e)
		}
	case <-time.After(10 * time.Second):
		t.Error("the removed trunk cannot end its call")
	}
	eventually(t, "trunk a has gone", func() bool { return g.trunk(t, "a").Name == "" })
	g.reloadWants(t, false)
}

// Issue 5: a bad config changes nothing, and the error names place and remedy; what takes a
// restart is listed and left alone, and the rest is taken over.
func TestReloadIsAllOrNothing(t *testing.T) {
	g := startReloadable(t)
	good := g.text
	g.edit(t, "max_calls: 50", "max_calls: 7", "kind: platform", "kind: platfrom")
	_, err := g.Reload(t.Context(), false)
	if err == nil || !strings.Contains(err.Error(), "nothing has changed: "+g.file+":8: trunks[0].kind: ") || !strings.Contains(err.Error(), "platform") {
		t.Errorf("a bad config: %v", err)
	}
	if got := g.trunk(t, "a").MaxCalls; got != 50 {
		t.Errorf("max_calls is %d after a bad config", got)
	}
	if err := os.Remove(g.file); err != nil {
		t.Fatal(err)
	}
	if _, err := g.Reload(t.Context(), false); err == nil || !strings.Contains(err.Error(), g.file) {
		t.Errorf("without a file: %v", err)
	}

	g.text = good
	g.edit(t, "max_calls: 50", "max_calls: 7", "17200-17399", "17200-17299", "node: "+testNode, "node: other")
	waiting := []string{"node " + testNode + " -> other: restart", "realms[here].media_ports 17200-17399 -> 17200-17299: restart"}
	g.reloadWants(t, false, append([]string{"trunks[a].max_calls 50 -> 7: hot", "trunks[b].max_calls 50 -> 7: hot"}, waiting...)...)
	if got := g.trunk(t, "a").MaxCalls; got != 7 {
		t.Errorf("max_calls is %d, want 7", got)
	}
	status, err := g.Status(t.Context())
	if err != nil || status.Node != testNode {
		t.Errorf("node %q, %v", status.Node, err)
	}
	g.reloadWants(t, false, waiting...) // still
}

// Issue 5: what is applied is what was shown. If the file, or what runs, is another by then
// nothing is done.
func TestReloadAppliesWhatWasShown(t *testing.T) {
	g := startReloadable(t)
	limit := func(want int) {
		t.Helper()
		if got := g.trunk(t, "a").MaxCalls; got != want {
			t.Errorf("max_calls is %d, want %d", got, want)
		}
	}
	g.edit(t, "max_calls: 50", "max_calls: 7")
	shown, err := g.Reload(t.Context(), true)
	if err != nil || len(shown.Changes) != 2 || shown.Fingerprint == "" {
		t.Fatalf("dry run: %+v, %v", shown, err)
	}
	g.edit(t, "max_calls: 7", "max_calls: 8")
	if _, err := g.Apply(t.Context(), shown.Fingerprint); !errors.Is(err, admin.ErrConfigMoved) {
		t.Errorf("the file is another: %v", err)
	}
	limit(50)
	g.edit(t, "max_calls: 8", "max_calls: 7")
	if done, err := g.Apply(t.Context(), shown.Fingerprint); err != nil || !cmp.Equal(done.Changes, shown.Changes) {
		t.Errorf("the file is as it was: %+v, %v", done, err)
	}
	limit(7)
	if _, err := g.Apply(t.Context(), shown.Fingerprint); !errors.Is(err, admin.ErrConfigMoved) {
		t.Errorf("the changes are made already: %v", err)
	}
}

// A daemon that was not given a file says so.
func TestReloadWithoutAFile(t *testing.T) {
	d := new(daemon)
	if _, _, err := d.reload(false, ""); err == nil || !strings.Contains(err.Error(), "config file") {
		t.Errorf("%v", err)
	}
}

// T1: SIGHUP reloads too, and is no request to stop. What an operator wants of a trunk outlives
// that, until the config's own word changes.
func TestOperatorAndSIGHUP(t *testing.T) {
	g := startReloadable(t)
	caller, a, b := newPhone(t, "127.0.0.11"), newPhone(t, "127.0.0.12"), newPhone(t, "127.0.0.13")
	g.edit(t, "trunk: a}", "group: both}", "routes:\n", "groups:\n  - {name: both, strategy: priority, trunks: [a, b]}\nroutes:\n")
	g.reloadWants(t, false, "groups[both] added: hot", `routes[out].group "" -> both: hot`, `routes[out].trunk a -> "": hot`)

	tr, err := g.SetTrunk(t.Context(), "a", "draining")
	if err != nil || tr.State != "draining" || tr.Admin != "draining" || tr.Reason == "" {
		t.Fatalf("drain: %+v, %v", tr, err)
	}
	g.edit(t, "max_calls: 50", "max_calls: 40")
	g.signals <- syscall.SIGHUP
	eventually(t, "the SIGHUP is obeyed", func() bool { return g.trunk(t, "a").MaxCalls == 40 })
	caller.wantStatus(t, g, 200)
	if tr := g.trunk(t, "a"); tr.State != "draining" || a.count() != 0 || b.count() != 1 {
		t.Errorf("a drained trunk is %s after a reload, and %d calls went by it", tr.State, a.count())
	}
	groups, err := g.Groups(t.Context())
	if err != nil || len(groups) != 1 || groups[0].Members[0].State != "draining" || groups[0].Members[1].Active != 1 {
		t.Errorf("groups %+v, %v", groups, err)
	}
	if _, err := g.SetTrunk(t.Context(), "a", "in-service"); err != nil {
		t.Fatal(err)
	}
	caller.wantStatus(t, g, 200)
	if a.count() != 1 {
		t.Errorf("trunk a is back and has %d calls", a.count())
	}
	for name, state := range map[string]string{"c": "draining", "a": "tired"} {
		if _, err := g.SetTrunk(t.Context(), name, state); err == nil {
			t.Errorf("trunk %s can be set to %s", name, state)
		}
	}
}

// T3 and issue 5: reloads in the midst of calls lose no call and no slot.
func TestReloadUnderCalls(t *testing.T) {
	g := startReloadable(t)
	caller, a, b := newPhone(t, "127.0.0.11"), newPhone(t, "127.0.0.12"), newPhone(t, "127.0.0.13")
	const callers, each = 4, 15
	var calling sync.WaitGroup
	for range callers {
		calling.Go(func() {
			for range each {
				leg, status, err := caller.dial(g, "+4930123456")
				if err != nil || status != 200 {
					t.Errorf("a call between reloads: %d, %v", status, err)
					return
				}
				leg.Close(context.Background(), call.Cause{SIP: 200})
			}
		})
	}
	done := make(chan struct{})
	go func() { calling.Wait(); close(done) }()
	reloads, to, other := 0, "a", "b"
	for over := false; !over; reloads++ {
		to, other = other, to
		g.edit(t, "trunk: "+other+"}", "trunk: "+to+"}")
		var asking sync.WaitGroup
		for range 2 { // one of both finds nothing to do
			asking.Go(func() {
				if _, err := g.Reload(t.Context(), false); err != nil {
					t.Errorf("reload %d: %v", reloads, err)
				}
			})
		}
		asking.Wait()
		select {
		case <-done:
			over = true
		default:
		}
	}
	eventually(t, "all slots are free", func() bool {
		return g.trunk(t, "platform").In.Active+g.trunk(t, "a").Out.Active+g.trunk(t, "b").Out.Active == 0
	})
	in, outA, outB := g.trunk(t, "platform").In, g.trunk(t, "a").Out, g.trunk(t, "b").Out
	if in.Answers != callers*each || outA.Answers+outB.Answers != callers*each || a.count()+b.count() != callers*each {
		t.Errorf("%d reloads: in %+v, out by a %+v, by b %+v", reloads, in, outA, outB)
	}
	if reloads < 3 || a.count() == 0 || b.count() == 0 {
		t.Errorf("%d reloads, %d calls by a, %d by b: that proves little", reloads, a.count(), b.count())
	}
}

// T3: the limits of a realm count all its trunks and both directions together, emergency numbers
// are exempt, and both are hot.
func TestRealmLimitsAreHot(t *testing.T) {
	g := startReloadable(t)
	caller := newPhone(t, "127.0.0.11")
	newPhone(t, "127.0.0.12")
	g.edit(t, "sip_port: 25160,", "sip_port: 25160, max_calls: 2,")
	g.reloadWants(t, false, "realms[here].max_calls 0 -> 2: hot")
	caller.wantStatus(t, g, 200) // takes two slots: in and out are the same realm
	caller.wantStatus(t, g, 503)
	caller.wantStatusTo(t, g, "112", 503)
	g.edit(t, "node: "+testNode+"\n", "node: "+testNode+"\nemergency: [\"112\"]\n")
	g.reloadWants(t, false, "emergency [] -> [112]: hot")
	caller.wantStatusTo(t, g, "112", 200)
	caller.wantStatus(t, g, 503)
	if refused := g.trunk(t, "platform").In.Refused["realm-full"]; refused != 3 {
		t.Errorf("%d calls were refused for the realm's limit, want 3", refused)
	}
	g.edit(t, "max_calls: 2,", "max_calls: 6, max_rate: 1/1h,")
	g.reloadWants(t, false, "realms[here].max_calls 2 -> 6: hot", "realms[here].max_rate none -> 1/1h: hot")
	caller.wantStatus(t, g, 200)
	caller.wantStatus(t, g, 503)
}

// S13 and issue 5: with the kernel engine a reload changes who is known and who is denied too, as
// packets tell.
func TestReloadWithTheKernelEngine(t *testing.T) {
	s := newSite(t)
	daemon, _ := s.start(t, call.EngineKernel)
	defer s.end(t, daemon, syscall.SIGTERM)
	file := filepath.Join(s.dir, call.EngineKernel+".yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	api := admin.NewClient(filepath.Join(s.dir, "admin.sock"))
	reload := func(guard, trunks string) (admin.Reload, error) {
		changed := strings.Replace("guard: "+guard+"\n"+string(text), "routes:\n", trunks+"routes:\n", 1)
		if err := os.WriteFile(file, []byte(changed), 0o600); err != nil {
			t.Fatal(err)
		}
		return api.Reload(t.Context(), false)
	}
	// exits of the outer realm's packets, by reason.
	exits := func() map[string]uint64 {
		t.Helper()
		status, err := api.Status(t.Context())
		if err != nil || status.Kernel == nil {
			t.Fatalf("status %+v, %v", status, err)
		}
		all := make(map[string]uint64)
		for _, x := range status.Engine.Exits {
			if x.Realm == 2 {
				all[x.Reason] += x.Packets
			}
		}
		return all
	}
	const burst = 200 // a stranger may send 50 a second
	const passed, denied, dropped = "not-media", "denied", "sip-budget"
	want := func(when, source, fate string) {
		t.Helper()
		before := exits()
		s.flood(t, source, burst)
		var after map[string]uint64
		eventually(t, when+": all packets of "+source+" are counted", func() bool {
			after = exits()
			return after[passed]+after[denied]+after[dropped] >= before[passed]+before[denied]+before[dropped]+burst
		})
		for _, reason := range []string{denied, dropped} {
			if n := after[reason] - before[reason]; (n > 0) != (reason == fate) || fate == denied && n > 0 && n != burst {
				t.Errorf("%s: of %d packets of %s are %d %s, want all %s", when, burst, source, n, reason, fate)
			}
		}
	}
	const newcomer, enemy, other = "198.51.100.77", "203.0.113.7", "172.16.3.7"
	want("at first", newcomer, dropped)
	want("at first", enemy, dropped)

	const more = "  - {name: more, realm: outside, kind: carrier, targets: [" + newcomer + "]}\n"
	r, err := reload("{deny: [203.0.113.0/24]}", more)
	if err != nil || len(r.Changes) != 2 || r.Changes[0].Text != "guard.deny [] -> [203.0.113.0/24]: hot" || r.Changes[1].Text != "trunks[more] added: hot" {
		t.Errorf("%+v, %v", r, err)
	}
	want("with a trunk more", newcomer, passed)
	want("with a trunk more", enemy, denied)

	var many []string
	for i := range 990 {
		many = append(many, fmt.Sprintf("172.16.%d.%d/32", i/256, i%256))
	}
	if r, err = reload("{deny: ["+strings.Join(many, ", ")+"]}", ""); err != nil || r.Changes[1].Text != "trunks[more] removed: drain" {
		t.Errorf("%+v, %v", r, err)
	}
	want("just after it was removed", newcomer, passed)
	want("without the denial", enemy, dropped)
	want("with many denials", other, denied)
	// The last of a list that is too long to be shown.
	last := many[len(many)-1]
	if r, err = reload("{deny: ["+strings.Join(many[:len(many)-1], ", ")+"]}", ""); err != nil || len(r.Changes) != 1 || r.Changes[0].Text != "guard.deny -"+last+": hot" {
		t.Errorf("%+v, %v", r, err)
	}
	want("with one denial less", strings.TrimSuffix(last, "/32"), dropped)
}

// flood sends SIP to the gateway's outer address, by the wire that its outer device is at.
func (s *site) flood(t *testing.T, source string, packets int) {
	t.Helper()
	var err error
	s.space.Do(func() { err = flood(netip.MustParseAddr(source), packets) })
	if err != nil {
		t.Fatal(err)
	}
}

func flood(source netip.Addr, packets int) error {
	from, err := net.InterfaceByName("tdmin")
	if err != nil {
		return err
	}
	to, err := net.InterfaceByName("tdmout")
	if err != nil {
		return err
	}
	const payload = "OPTIONS sip:198.51.100.1 SIP/2.0\r\n\r\n"
	frame := slices.Concat(to.HardwareAddr, from.HardwareAddr, []byte{0x08, 0x00})
	header := []byte{0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, unix.IPPROTO_UDP, 0, 0}
	binary.BigEndian.PutUint16(header[2:], uint16(28+len(payload)))
	header = slices.Concat(header, source.AsSlice(), []byte{198, 51, 100, 1})
	sum := uint32(0)
	for i := 0; i < len(header); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(header[i:]))
	}
	binary.BigEndian.PutUint16(header[10:], ^uint16(sum+sum>>16)) // RFC 1071; the sum has less than 20 bits
	udp := binary.BigEndian.AppendUint16([]byte{0x13, 0xc4, 0x13, 0xc4}, uint16(8+len(payload)))
	frame = slices.Concat(frame, header, udp, []byte{0, 0}, []byte(payload))

	socket, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	if err != nil {
		return err
	}
	at := &unix.SockaddrLinklayer{Ifindex: from.Index}
	for range packets {
		err = errors.Join(err, unix.Sendto(socket, frame, 0, at))
	}
	return errors.Join(err, unix.Close(socket))
}
