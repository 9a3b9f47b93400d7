package relay

import (
	"errors"
	"net"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// TestForward: packets cross unchanged, both ways, from the port that the far peer
// was told (symmetric RTP, M1), with the mark of the realm they leave in (M3).
func TestForward(t *testing.T) {
	p := newPair(t)
	for seq := range uint16(10) {
		p.a.send(p.flows[0].Key.Local, rtp(seq))
		if from, dscp := p.b.expect(rtp(seq)); from != p.flows[0].Source || dscp != 46 {
			t.Fatalf("from %v with DSCP %d", from, dscp)
		}
		p.b.send(p.flows[1].Key.Local, rtp(seq+100))
		if from, dscp := p.a.expect(rtp(seq + 100)); from != p.flows[1].Source || dscp != 34 {
			t.Fatalf("from %v with DSCP %d", from, dscp)
		}
	}
	for i, s := range p.stats(t) {
		if s.Key != p.flows[i].Key || s.Packets != 10 || s.Bytes != 1720 || s.Lost != 0 || s.First.IsZero() || s.Last.Before(s.First) {
			t.Errorf("%+v", s)
		}
	}
	if s, err := p.Engine.Stats(); err != nil || s.Engine != call.EngineUserspace || s.Flows != 2 {
		t.Errorf("%+v, %v", s, err)
	}
	// A packet is counted by its exit after it was sent: Remove waits for that.
	if _, err := p.Remove(p.keys()); err != nil {
		t.Fatal(err)
	}
	if s, err := p.Engine.Stats(); err != nil || s.Flows != 0 || s.UserspacePackets != 20 || s.KernelPackets != 0 {
		t.Errorf("%+v, %v", s, err)
	}
}

// TestSourceCheck: only the peer named in the SDP gets through; a sprayer gets
// nothing back, is counted, and is reported once (M7).
func TestSourceCheck(t *testing.T) {
	p := newPair(t)
	sprayer := newPeer(t)
	for seq := range uint16(3) {
		sprayer.send(p.in(), rtp(seq))
	}
	p.a.send(p.in(), rtp(7)) // behind them in the same socket
	p.b.expect(rtp(7))

	if s := p.stats(t)[0]; s.Refused != 3 || s.Packets != 1 {
		t.Errorf("refused %d, let in %d", s.Refused, s.Packets)
	}
	waitExitAbove(t, p.Engine, call.ExitSourceRefused, 2)
	if n := exitCount(t, p.Engine, call.ExitSourceRefused); n != 3 {
		t.Errorf("source-refused is %d", n)
	}
	wantEvents(t, p.Engine,
		call.MediaEvent{Key: p.flows[0].Key, Kind: call.MediaRefused, Source: sprayer.addr()},
		call.MediaEvent{Key: p.flows[0].Key, Kind: call.MediaStarted, Source: p.a.addr()})
}

// TestExitsAreOfTheRealmOfArrival: what came in by which realm, and how it left.
func TestExitsAreOfTheRealmOfArrival(t *testing.T) {
	p := newPair(t)
	p.a.send(p.in(), rtp(1))
	p.b.expect(rtp(1))
	p.a.send(p.flows[1].Key.Local, rtp(2)) // not from b
	waitExit(t, p.Engine, call.ExitSourceRefused)
	if _, err := p.Remove(p.keys()); err != nil {
		t.Fatal(err)
	}
	s, err := p.Engine.Stats()
	if err != nil {
		t.Fatal(err)
	}
	var got []call.Exit
	for _, x := range s.Exits {
		if x.Packets > 0 {
			got = append(got, x)
		}
	}
	want := []call.Exit{
		{Realm: 1, Reason: call.ExitForwarded, Verdict: "forward", Packets: 1},
		{Realm: 2, Reason: call.ExitSourceRefused, Verdict: "drop", Packets: 1},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// TestPlausible: what cannot be media is not passed on.
func TestPlausible(t *testing.T) {
	bare := rtp(1)[:12]
	version1, mixed := rtp(1), append([]byte{}, bare...)
	version1[0], mixed[0] = 0x40, 0x82
	tests := map[string]struct {
		packet []byte
		rtcp   bool
		want   string
	}{
		"RTP":                {rtp(1), false, "forwarded"},
		"RTP, header only":   {bare, false, "forwarded"},
		"RTP, cut":           {bare[:11], false, "not-rtp"},
		"RTP, CSRCs cut":     {mixed, false, "not-rtp"},
		"RTP, version 1":     {version1, false, "not-rtp"},
		"empty":              {nil, false, "not-rtp"},
		"RTCP among RTP":     {receiverReport(), false, "forwarded"},
		"longest":            {append(rtp(1), make([]byte, maxPacket-172)...), false, "forwarded"},
		"too long":           {append(rtp(1), make([]byte, maxPacket-171)...), false, "too-long"},
		"RTCP":               {receiverReport(), true, "forwarded"},
		"RTCP, cut":          {receiverReport()[:7], true, "not-rtcp"},
		"RTP where RTCP is":  {rtp(1), true, "not-rtcp"},
		"RTCP, header empty": {make([]byte, 8), true, "not-rtcp"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p := newPair(t)
			p.flows[0].RTCP = tt.rtcp
			if err := p.Install(p.flows[:1]); err != nil {
				t.Fatal(err)
			}
			good := rtp(2)
			if tt.rtcp {
				good = receiverReport()
			}
			p.a.send(p.in(), tt.packet)
			p.a.send(p.in(), good)
			if tt.want == "forwarded" {
				p.b.expect(tt.packet)
			}
			p.b.expect(good)
			// A packet is counted by its exit after it was sent: Remove waits for that.
			if _, err := p.Remove(p.keys()); err != nil {
				t.Fatal(err)
			}
			want := uint64(1)
			if tt.want == "forwarded" {
				want = 2
			}
			if n := exitCount(t, p.Engine, tt.want); n != want {
				t.Errorf("%s is %d, want %d", tt.want, n, want)
			}
		})
	}
}

// TestHold: while the far side has no address nothing is sent, everything is
// counted, and the stream goes on where it was afterwards (S7).
func TestHold(t *testing.T) {
	p := newPair(t)
	p.a.send(p.in(), rtp(1))
	p.b.expect(rtp(1))

	held := p.flows[0]
	held.Hold = true
	if err := p.Install([]call.Flow{held}); err != nil {
		t.Fatal(err)
	}
	p.a.send(p.in(), rtp(2))
	p.b.send(p.flows[1].Key.Local, rtp(50)) // music goes on
	p.a.expect(rtp(50))
	waitExit(t, p.Engine, "hold")
	if err := p.Install(p.flows[:1]); err != nil {
		t.Fatal(err)
	}
	p.a.send(p.in(), rtp(3))
	p.b.expect(rtp(3))
	if s := p.stats(t)[0]; s.Packets != 3 || s.Lost != 0 {
		t.Errorf("counted %d, lost %d; want 3, 0", s.Packets, s.Lost)
	}
}

// TestUpdateInPlace: a peer that moves is followed, on the same port, and the
// counters stay (S7).
func TestUpdateInPlace(t *testing.T) {
	p := newPair(t)
	p.a.send(p.in(), rtp(1))
	p.b.expect(rtp(1))

	moved := newPeer(t)
	flows := between(p.a.addr(), p.flows[0].Key.Local, p.flows[1].Key.Local, moved.addr())
	if err := p.Install(flows); err != nil {
		t.Fatal(err)
	}
	p.a.send(p.in(), rtp(2))
	moved.expect(rtp(2))
	moved.send(p.flows[1].Key.Local, rtp(9))
	p.a.expect(rtp(9))
	p.b.send(p.flows[1].Key.Local, rtp(10)) // no longer the peer
	moved.send(p.flows[1].Key.Local, rtp(11))
	p.a.expect(rtp(11))

	s := p.stats(t)
	if s[0].Packets != 2 || s[1].Packets != 2 || s[1].Refused != 1 {
		t.Errorf("%+v", s)
	}
	if st, err := p.Engine.Stats(); err != nil || st.Flows != 2 || len(p.sockets) != 2 {
		t.Errorf("%d flows, %d sockets, %v", st.Flows, len(p.sockets), err)
	}
}

// TestInstallAllOrNone: if one flow cannot be installed none is, and those from
// before go on as they were.
func TestInstallAllOrNone(t *testing.T) {
	p := newPair(t)
	other := newPeer(t)
	free, taken := loopback(freePort(t)), other.addr()
	bad := map[string][]call.Flow{
		"port taken by someone else": between(p.a.addr(), free, taken, p.b.addr()),
		"unknown realm": {
			between(p.a.addr(), free, loopback(freePort(t)), p.b.addr())[0],
			{Key: call.FlowKey{Realm: 9, Local: free}, Remote: p.a.addr(), OutRealm: 1, Source: free, Dest: p.b.addr()},
		},
		"zero flow":    {between(p.a.addr(), free, loopback(freePort(t)), p.b.addr())[0], {}},
		"DSCP too big": {func() call.Flow { f := p.flows[0]; f.Dest, f.DSCP = other.addr(), 64; return f }()},
		"given twice":  slices.Repeat(between(p.a.addr(), free, loopback(freePort(t)), p.b.addr())[:1], 2),
		"update and port taken": append([]call.Flow{func() call.Flow { f := p.flows[0]; f.Dest = other.addr(); return f }()},
			between(p.a.addr(), free, taken, p.b.addr())...),
	}
	for name, flows := range bad {
		t.Run(name, func(t *testing.T) {
			err := p.Install(flows)
			if err == nil {
				t.Fatal("installed")
			}
			if name == "port taken by someone else" && !errors.Is(err, syscall.EADDRINUSE) {
				t.Errorf("%v does not say that the port is taken", err)
			}
			if len(p.Engine.flows) != 2 || len(p.sockets) != 2 {
				t.Errorf("%d flows, %d sockets; want 2, 2", len(p.Engine.flows), len(p.sockets))
			}
			conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(free))
			if err != nil {
				t.Fatalf("a port was not given back: %v", err)
			}
			if err := conn.Close(); err != nil {
				t.Error(err)
			}
			p.a.send(p.in(), rtp(1))
			p.b.expect(rtp(1))
		})
	}
}

// TestRemove: final counters come with the removal, in the order of the keys; the
// ports are free at once; unknown keys count nothing.
func TestRemove(t *testing.T) {
	p := newPair(t)
	p.a.send(p.in(), rtp(1))
	p.b.expect(rtp(1))
	unknown := call.FlowKey{Realm: 1, Local: loopback(9)}
	stats, err := p.Remove([]call.FlowKey{p.flows[1].Key, unknown, p.flows[0].Key})
	if err != nil {
		t.Fatal(err)
	}
	if stats[0].Key != p.flows[1].Key || stats[0].Packets != 0 || stats[1] != (call.FlowStats{Key: unknown}) ||
		stats[2].Key != p.flows[0].Key || stats[2].Packets != 1 {
		t.Errorf("%+v", stats)
	}
	for _, f := range p.flows {
		conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(f.Key.Local))
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}
	if again, err := p.Remove(p.keys()); err != nil || again[0].Packets != 0 {
		t.Errorf("removed twice: %+v, %v", again, err)
	}
}

// TestRemoveOneWay: a socket that the opposite flow still leaves by stays, and drops
// what arrives.
func TestRemoveOneWay(t *testing.T) {
	p := newPair(t)
	if _, err := p.Remove(p.keys()[:1]); err != nil {
		t.Fatal(err)
	}
	p.b.send(p.flows[1].Key.Local, rtp(1))
	p.a.expect(rtp(1))
	p.a.send(p.in(), rtp(2))
	waitExit(t, p.Engine, "no-flow")
}

func TestClose(t *testing.T) {
	p := newPair(t)
	for range 2 {
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, open := <-p.Events(); open {
		t.Error("events after Close")
	}
	if err := p.Install(p.flows); !errors.Is(err, ErrClosed) {
		t.Errorf("Install: %v, want ErrClosed", err)
	}
	if _, err := p.Snapshot(p.keys()); !errors.Is(err, ErrClosed) {
		t.Errorf("Snapshot: %v, want ErrClosed", err)
	}
	if stats, err := p.Remove(p.keys()); err != nil || len(stats) != 2 {
		t.Errorf("Remove: %v, %v; want two empty counters", stats, err)
	}
}

// TestDevice: a realm's sockets are bound to its device.
func TestDevice(t *testing.T) {
	a, b := newPeer(t), newPeer(t)
	for device, works := range map[string]bool{"lo": true, "tdm-no-such": false} {
		e, err := New(Config{Realms: []Realm{{Number: 1, Device: device}, {Number: 2, Device: device}}})
		if err != nil {
			t.Fatal(err)
		}
		flows := between(a.addr(), loopback(freePort(t)), loopback(freePort(t)), b.addr())
		err = e.Install(flows)
		switch {
		case errors.Is(err, syscall.EPERM):
			t.Logf("%s: binding to a device needs CAP_NET_RAW here", device)
		case works && err != nil:
			t.Errorf("%s: %v", device, err)
		case works:
			a.send(flows[0].Key.Local, rtp(1))
			b.expect(rtp(1))
		case !errors.Is(err, syscall.ENODEV):
			t.Errorf("%s: got %v, want ENODEV", device, err)
		}
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestNewRefusesDuplicateRealm(t *testing.T) {
	if _, err := New(Config{Realms: []Realm{{Number: 1}, {Number: 1}}}); err == nil {
		t.Error("the same realm twice was taken")
	}
}

// TestConcurrent: everything at once, for the race detector.
func TestConcurrent(t *testing.T) {
	p := newPair(t)
	var wg sync.WaitGroup
	wg.Go(func() {
		for seq := range uint16(300) {
			p.a.send(p.in(), rtp(seq))
		}
	})
	wg.Go(func() {
		for i := range 100 {
			f := p.flows[0]
			f.Hold = i%2 == 0
			if err := p.Install([]call.Flow{f}); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Go(func() {
		for range 100 {
			if _, err := p.Snapshot(p.keys()); err != nil {
				t.Error(err)
			}
			if _, err := p.Remove(p.keys()[1:]); err != nil {
				t.Error(err)
			}
			if err := p.Install(p.flows[1:]); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Wait()
}
