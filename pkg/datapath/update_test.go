package datapath

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// update is Engine.Update in the gateway's namespace.
func (w *wire) update(t *testing.T, e *Engine, realms []Realm) {
	t.Helper()
	var err error
	w.gateway.Do(func() { err = e.Update(realms) })
	if err != nil {
		t.Fatal(err)
	}
}

// pointed are realms with other points for one of them.
func pointed(realms []Realm, number uint16, points ...Point) []Realm {
	realms = slices.Clone(realms)
	at := slices.IndexFunc(realms, func(r Realm) bool { return r.Number == number })
	realms[at].Points = points
	return realms
}

// index is that of one of the gateway's devices.
func (w *wire) index(t *testing.T, name string) (index int) {
	t.Helper()
	var ifi *net.Interface
	var err error
	w.gateway.Do(func() { ifi, err = net.InterfaceByName(name) })
	if err != nil {
		t.Fatal(err)
	}
	return ifi.Index
}

// hooksOn are our hooks on a device, by the engine's own account.
func hooksOn(e *Engine, ifindex int) (list []string) {
	for _, a := range e.Attachments() {
		if a.Ifindex == ifindex {
			list = append(list, a.Hook)
		}
	}
	return list
}

// TestUpdateUnderCalls: realms get devices and lose them, and change their tags, while 20,000 packets per second
// of calls go through places that stay: not one is lost, and each is counted (N9). A restart in between finds
// the same.
func TestUpdateUnderCalls(t *testing.T) {
	w := newWire(t)
	d := w.openTun(t)
	w.gateway.IP(t, "link add tdmmore type veth peer name tdmmore2")
	more := w.index(t, "tdmmore")
	cfg := w.config(newPins(t))
	third := Realm{Number: 3, Media: mediaPorts, Addr: platformAddr.Next()}
	cfg.Realms = append(cfg.Realms, third)
	e := w.start(t, cfg)
	flows := twoWay()
	if err := e.Install(flows); err != nil {
		t.Fatal(err)
	}
	here := Point{Ifindex: w.peer.index}
	s := w.newStream(t)
	for i := range 3 {
		for _, points := range [][]Point{
			{{Ifindex: more}},
			{{Ifindex: more, VLAN: 201}, {Ifindex: d.index, Bare: true}},
			{{Ifindex: w.platform.index, VLAN: 202}, {Ifindex: w.platform.index, VLAN: 203, Underlay: true}},
			{{Ifindex: w.platform.index, OuterVLAN: 300, VLAN: 202}, {Ifindex: 4711}},
			nil,
		} {
			cfg.Realms = pointed(cfg.Realms, 3, points...)
			w.update(t, e, cfg.Realms)
			// Another place more for the realm that packets leave by; its own stays.
			w.update(t, e, pointed(cfg.Realms, carrier, here, Point{Ifindex: w.peer.index, VLAN: 300 + uint16(i)}))
			s.advance(t, 200)
			wantTables(t, e)
		}
		if got := hooksOn(e, more); len(got) != 0 {
			t.Errorf("hooks %v are on a device that no realm has any more", got)
		}
		if i == 1 {
			cfg.Realms = pointed(cfg.Realms, 3, Point{Ifindex: d.index, Bare: true})
			w.update(t, e, cfg.Realms)
			shut(t, e)
			e = w.start(t, cfg)
			wantAdopted(t, e, flows)
			wantTables(t, e)
		}
	}
	sent := s.end(t)
	stats, err := e.Remove(keys(flows))
	if err != nil {
		t.Fatal(err)
	}
	if got := stats[0]; got.Packets != uint64(sent) || got.Lost != 0 || got.Reordered != 0 {
		t.Errorf("%d packets were sent, counted are %+v", sent, got)
	}
	if got := generationsIn(t, cfg.Pins); !slices.Equal(got, []string{"1"}) {
		t.Errorf("generations %v are pinned, want the first alone", got)
	}
	shut(t, e)
	w.unload(t, cfg.Pins)
}

// wantTables asserts that the kernel's tables are what the engine believes, and no more.
func wantTables(t *testing.T, e *Engine) {
	t.Helper()
	got, err := readTables(e.objs)
	if err != nil {
		t.Fatal(err)
	}
	if a, b := fmt.Sprint(got), fmt.Sprint(e.tables); a != b {
		t.Errorf("the tables are\n%s\nand not\n%s", a, b)
	}
	if a, b := fmt.Sprint(e.tables), fmt.Sprint(e.next); a != b {
		t.Errorf("the tables stay\n%s\nand not\n%s", a, b)
	}
}

// TestDeviceMadeAgain: somebody deletes a device and makes one with the same index: the links are dead, though
// their pins and the index are what they were. Update puts the programs on the new one; the calls are there
// still, and packets go on; so they do after a restart (N9).
func TestDeviceMadeAgain(t *testing.T) {
	for _, hook := range []string{hookTCX, hookClsact} {
		t.Run(hook, func(t *testing.T) {
			w := newWire(t)
			cfg := w.config(newPins(t))
			cfg.noTCX = hook == hookClsact
			e := w.start(t, cfg)
			flow := twoWay()[0]
			if err := e.Install([]call.Flow{flow}); err != nil {
				t.Fatal(err)
			}
			w.wantForwarded(t, flow, 1)
			w.gateway.IP(t, "link del tdmcarr")
			w.update(t, e, cfg.Realms) // while there is none
			if got := hooksOn(e, w.peer.index); len(got) != 0 {
				t.Errorf("hooks %v are on a device that is gone", got)
			}
			for _, pin := range []string{pinXDP, pinTC} {
				if _, err := os.Stat(filepath.Join(cfg.Pins, fmt.Sprint(pin, w.peer.index))); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("%s is pinned still, of a device that is gone: %v", pin, err)
				}
			}
			for range 2 { // the second time nobody tells of the device that was gone
				w.peer = w.connectAs(t, "tdmcarr", "198.51.100.2/24", carrierPeer, carrier, w.peer.index)
				w.hops.updates[carrier](w.hops.byRealm[carrier]) // other hardware addresses
				w.update(t, e, cfg.Realms)
				if got := hooksOn(e, w.peer.index); !slices.Equal(got, []string{hookXDP, hook}) {
					t.Fatalf("hooks %v are on the new device", got)
				}
				w.wantForwarded(t, flow, 5)
				shut(t, e)
				e = w.start(t, cfg)
				wantAdopted(t, e, []call.Flow{flow})
				w.wantForwarded(t, flow, 5)
				w.gateway.IP(t, "link del tdmcarr")
			}
			shut(t, e)
			w.unload(t, cfg.Pins)
		})
	}
}

// wantForwarded sends packets of a flow from the platform, and sees them come to the carrier.
func (w *wire) wantForwarded(t *testing.T, f call.Flow, n int) {
	t.Helper()
	conn := w.platform.dial(t, f.Remote, f.Key.Local)
	defer conn.Close()
	for seq := range n {
		if _, err := conn.Write(rtp(uint16(seq), uint32(seq)*160, 7)); err != nil {
			t.Fatal(err)
		}
		w.peer.receive(t)
	}
}

// TestDeviceThatComesLater: a realm's device may be missing when the gateway starts; calls may be set up, and its
// next hop be told, before the engine is told of it. Then packets flow at once. When the realm leaves it,
// nothing of ours stays there.
func TestDeviceThatComesLater(t *testing.T) {
	w := newWire(t)
	w.gateway.Run(t, "ethtool", "-K tdmcarr rxvlan on")
	cfg := w.config(newPins(t))
	later := cfg.Realms
	cfg.Realms = pointed(cfg.Realms, carrier, Point{Ifindex: 4711})
	e := w.start(t, cfg)
	flow := twoWay()[0]
	if err := e.Install([]call.Flow{flow}); err != nil {
		t.Fatal(err)
	}
	w.wantVLANOffload(t, "tdmcarr", "on")
	for range 2 {
		w.update(t, e, later)
		w.wantForwarded(t, flow, 3)
		w.wantVLANOffload(t, "tdmcarr", "off")
		w.update(t, e, pointed(later, carrier))
		w.wantVLANOffload(t, "tdmcarr", "on")
		if out := w.gateway.IP(t, "link show tdmcarr"); strings.Contains(out, "xdp") {
			t.Errorf("something is attached still:\n%s", out)
		}
	}
	shut(t, e)
	w.unload(t, cfg.Pins)
}

// TestOpenLeavesOut: at the start too, a device that is not what its realm says is said, and keeps no other from
// being served.
func TestOpenLeavesOut(t *testing.T) {
	w := newWire(t)
	cfg := w.config("")
	fit := cfg.Realms
	cfg.Realms = pointed(fit, carrier, Point{Ifindex: w.peer.index, Bare: true})
	var said bytes.Buffer
	cfg.Log = slog.New(slog.NewTextHandler(&said, nil))
	e := w.start(t, cfg)
	if got, left := hooksOn(e, w.platform.index), hooksOn(e, w.peer.index); len(got) != 2 || len(left) != 0 {
		t.Errorf("hooks %v are on the device that fits, %v on the other", got, left)
	}
	if !strings.Contains(said.String(), "tdmcarr has a link layer") {
		t.Errorf("the log says\n%s", said.String())
	}
	w.update(t, e, fit)
	if got := hooksOn(e, w.peer.index); len(got) != 2 {
		t.Errorf("hooks %v are on the device once its realm says what it is", got)
	}
}

// TestUpdateRefuses what takes a restart, and what contradicts itself.
func TestUpdateRefuses(t *testing.T) {
	w := newWire(t)
	d := w.openTun(t)
	cfg := w.config("")
	e := w.start(t, cfg)
	changed := func(change func(*Realm)) []Realm {
		realms := slices.Clone(cfg.Realms)
		change(&realms[1])
		return realms
	}
	for _, tt := range []struct {
		name   string
		realms []Realm
		want   string
	}{
		{"a realm less", cfg.Realms[:1], "1 realms instead of 2"},
		{"another number", changed(func(r *Realm) { r.Number = 7 }), "realm 7 has another number"},
		{"another address", changed(func(r *Realm) { r.Addr = r.Addr.Next() }), "realm 2 has another number, address or ports"},
		{"other ports", changed(func(r *Realm) { r.Media.Last-- }), "realm 2 has another"},
		{"another SIP port", changed(func(r *Realm) { r.SIPPort++ }), "realm 2 has another"},
		{"a place twice", pointed(cfg.Realms, carrier, cfg.Realms[0].Points...), "have a realm already"},
		{"a link layer where none is", pointed(cfg.Realms, carrier, Point{Ifindex: d.index}), "tdmtun has no link layer"},
		{"no link layer where one is", pointed(cfg.Realms, carrier, Point{Ifindex: w.peer.index, Bare: true}), "tdmcarr has a link layer"},
		{"tags without link layer", pointed(cfg.Realms, carrier, Point{Ifindex: d.index, VLAN: 3, Bare: true}), "neither tags"},
		{"an index out of range", pointed(cfg.Realms, carrier, Point{Ifindex: maxIfindex + 1}), "is not 1 to"},
		{"an outer tag alone", pointed(cfg.Realms, carrier, Point{Ifindex: 7, OuterVLAN: 3}), "needs an inner one"},
		{"too many", pointed(cfg.Realms, carrier, make([]Point, maxPoints+1)...), "17 points"},
	} {
		var err error
		w.gateway.Do(func() { err = e.Update(tt.realms) })
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v does not say %q", tt.name, err, tt.want)
		}
	}
	w.update(t, e, cfg.Realms) // devices that are not what their realm says are left out until then
	wantTables(t, e)
	if got := e.Attachments(); len(got) != 4 {
		t.Errorf("attachments %+v", got)
	}
	shut(t, e)
	if err := e.Update(cfg.Realms); !errors.Is(err, ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

// TestUpdateCannotRead: a device that the kernel could not tell of, as under memory pressure, is no device that does
// not fit. Programs and tables stay, media goes on, and what else changed is done by the next Update.
func TestUpdateCannotRead(t *testing.T) {
	w := newWire(t)
	cfg := w.config(newPins(t))
	e := w.start(t, cfg)
	flow := twoWay()[0]
	if err := e.Install([]call.Flow{flow}); err != nil {
		t.Fatal(err)
	}
	read := e.space.link
	e.space.link = func(ifindex int) (netlink.Link, error) {
		if ifindex == w.platform.index {
			return nil, unix.ENOBUFS
		}
		return read(ifindex)
	}
	var err error
	w.gateway.Do(func() { err = e.Update(pointed(cfg.Realms, carrier)) })
	if !errors.Is(err, unix.ENOBUFS) {
		t.Errorf("Update returns %v", err)
	}
	for _, ifindex := range []int{w.platform.index, w.peer.index} {
		if got := hooksOn(e, ifindex); len(got) != 2 {
			t.Errorf("hooks %v are on device %d", got, ifindex)
		}
	}
	wantTables(t, e)
	w.wantForwarded(t, flow, 5)

	e.space.link = read
	w.update(t, e, pointed(cfg.Realms, carrier))
	if got := hooksOn(e, w.peer.index); len(got) != 0 {
		t.Errorf("hooks %v are on a device that no realm has any more", got)
	}
	shut(t, e)
	w.unload(t, cfg.Pins)
}

// TestUpdateServesOthers: a device that is taken is an error that says so, and all others are served.
func TestUpdateServesOthers(t *testing.T) {
	w := newWire(t)
	taken := w.start(t, Config{
		Realms:   []Realm{{Number: 1, Points: []Point{{Ifindex: w.platform.index}}, Media: mediaPorts, Addr: platformAddr}},
		NextHops: w.hops,
	})
	cfg := w.config("")
	full := cfg.Realms
	cfg.Realms = pointed(pointed(cfg.Realms, platform), carrier)
	e := w.start(t, cfg)
	var err error
	w.gateway.Do(func() { err = e.Update(full) })
	if !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), "tdmplat") {
		t.Errorf("a device that is taken: %v", err)
	}
	if got := hooksOn(e, w.peer.index); len(got) != 2 {
		t.Errorf("hooks %v are on the other device", got)
	}
	shut(t, taken)
	w.update(t, e, full)
	if got := hooksOn(e, w.platform.index); len(got) != 2 {
		t.Errorf("hooks %v are on the device that was taken", got)
	}
}

// TestLayOut: what stays keeps its entries; what comes gets some that nobody has had just before; one entry
// more than there is room for is an error.
func TestLayOut(t *testing.T) {
	room := spots{devices: 2, single: 3}
	if got := spotsOf(room.entries()); got != room {
		t.Errorf("%+v becomes %+v", room, got)
	}
	realm := func(number uint16, points ...Point) Realm {
		return Realm{Number: number, Points: points, Addr: platformAddr, Media: mediaPorts}
	}
	tunnel := func(ifindex int) Point { return Point{Ifindex: ifindex, Bare: true} }
	const single = 2 * vlans
	now := newTables()
	for i, tt := range []struct {
		realms  []Realm
		devices map[int]uint32
		full    bool
	}{
		{[]Realm{realm(1, Point{Ifindex: 7}), realm(2, tunnel(9))}, map[int]uint32{7: 0, 9: single}, false},
		{
			[]Realm{realm(1, Point{Ifindex: 8, VLAN: 5}), realm(2, tunnel(10), tunnel(9))},
			map[int]uint32{8: vlans, 9: single, 10: single + 1}, false,
		},
		// Entries of the former are not given out yet.
		{
			[]Realm{realm(1, Point{Ifindex: 7}, Point{Ifindex: 8, VLAN: 5}), realm(2, Point{Ifindex: 8, OuterVLAN: 3, VLAN: 4})},
			map[int]uint32{7: 0, 8: vlans}, false,
		},
		{[]Realm{realm(1, Point{Ifindex: 11})}, nil, true},
		{[]Realm{realm(2, tunnel(1), tunnel(2), tunnel(3))}, nil, true},
		// A device that had a link layer, and has none.
		{[]Realm{realm(1, tunnel(7))}, map[int]uint32{7: single}, false},
	} {
		places := placesOf([]Realm{realm(1), realm(2)})
		next, err := now.layOut(room, tt.realms, places)
		if tt.full != errors.Is(err, errNoRoom) {
			t.Fatalf("step %d: error %v", i, err)
		}
		if tt.full {
			continue
		}
		if fmt.Sprint(next.devices) != fmt.Sprint(tt.devices) {
			t.Errorf("step %d: devices %v, want %v", i, next.devices, tt.devices)
		}
		for tags, at := range next.tags {
			if next.realms[at].Number != 2 || at != single+2 || tags.Device != 8 {
				t.Errorf("step %d: tags %+v lead to %d: %+v", i, tags, at, next.realms[at])
			}
		}
		now = next
	}
	if got := now.realms[single]; got.Number != 1 || got.FirstPort != mediaPorts.First || got.Addr != addr4(platformAddr) {
		t.Errorf("the realm is %+v", got)
	}
}

// TestOldAbout: what engines wrote when a realm had one place is read as that place; and they read what is
// written now, of which they know the first.
func TestOldAbout(t *testing.T) {
	const old = `{"ABI":1,"Netns":4,"Realms":[{"Number":2,"VLAN":201,"OuterVLAN":100,"Ifindex":7,"Addr":"192.0.2.2",` +
		`"First":20000,"Last":20999,"Flows":5}]}`
	var was about
	if err := json.Unmarshal([]byte(old), &was); err != nil {
		t.Fatal(err)
	}
	want := []aboutPlace{{Ifindex: 7, VLAN: 201, OuterVLAN: 100}}
	if got := was.Realms[0].places(); !slices.Equal(got, want) {
		t.Errorf("places %v, want %v", got, want)
	}
	realms := []Realm{{
		Number: 2, Addr: netip.MustParseAddr("192.0.2.2"), Media: call.PortRange{First: 20000, Last: 20999},
		Points: []Point{{Ifindex: 8, Bare: true}, {Ifindex: 7, VLAN: 201, OuterVLAN: 100}},
	}}
	now := newAbout(realms, placesOf(realms), &space{cookie: 4})
	now.Realms[0].Flows = 5
	if was.moves(now) {
		t.Errorf("%+v does not fit %+v", was, now)
	}
	text, err := now.text()
	if err != nil {
		t.Fatal(err)
	}
	if len(text) != 2*aboutRoom || !strings.HasPrefix(string(text), strings.ReplaceAll(strings.ReplaceAll(old[:len(old)-3],
		`"VLAN":201,"OuterVLAN":100`, `"VLAN":0,"OuterVLAN":0`), `"Ifindex":7`, `"Ifindex":8`)) {
		t.Errorf("written is %s", text)
	}
}

// TestRelist: while the engine runs a prefix is denied and let in again, and an address becomes a known peer,
// whom no budget holds up, and a stranger again. More than there is room for changes nothing.
func TestRelist(t *testing.T) {
	w := newWire(t)
	cfg := w.config("")
	cfg.Guard = Guard{SIPPerSecond: 1}
	cfg.Realms[0].SIPPort = sipPort.Port()
	e := w.start(t, cfg)
	from, behind := newTap(t, w.platform.space, "tdmpeer"), newTap(t, w.gateway, "tdmplat")
	sip := []byte("OPTIONS sip:192.0.2.2 SIP/2.0\r\n\r\n")
	passed := func(addr netip.Addr, packets int) int {
		t.Helper()
		for range packets {
			from.send(t, w.toGateway(t, at(addr, 5060), sipPort, sip))
		}
		return w.marked(t, from, behind)[at(addr, sipPort.Port())]
	}
	relist := func(deny []netip.Prefix, peers ...netip.Addr) error {
		realms := slices.Clone(cfg.Realms)
		realms[0].Peers = append(slices.Clone(realms[0].Peers), peers...)
		return e.Relist(realms, deny)
	}
	if n := passed(deniedOne, 1); n != 1 {
		t.Errorf("%d packets of a source that is not denied yet have passed, want 1", n)
	}
	if err := relist([]netip.Prefix{denied}); err != nil {
		t.Fatal(err)
	}
	if n := passed(deniedOne, 3); n != 0 {
		t.Errorf("%d packets of a source that is denied now have passed", n)
	}
	if n := passed(stranger, 20); n > 5 {
		t.Errorf("%d packets of a stranger with a budget of 1 a second have passed", n)
	}
	if err := relist(nil, stranger, deniedOne); err != nil {
		t.Fatal(err)
	}
	for _, addr := range []netip.Addr{stranger, deniedOne} {
		if n := passed(addr, 20); n != 20 {
			t.Errorf("%d of 20 packets of %s, which is a peer now, have passed", n, addr)
		}
	}
	many := make([]netip.Addr, 4*leastListed)
	for i := range many {
		many[i] = netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})
	}
	if err := relist(nil, many...); err == nil || !strings.Contains(err.Error(), "restart") {
		t.Errorf("more peers than there is room for: %v", err)
	}
	if n := passed(stranger, 20); n != 20 {
		t.Errorf("after lists that were refused %d of 20 packets of a peer have passed", n)
	}
	if err := e.Relist(cfg.Realms[:1], nil); err == nil {
		t.Error("realms may become fewer")
	}
	shut(t, e)
	if err := relist(nil); !errors.Is(err, ErrClosed) {
		t.Errorf("after the end: %v", err)
	}
}
