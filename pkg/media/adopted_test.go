package media_test

import (
	"bytes"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/media"
)

// TestAdopted: flows of a former process forward on until they have been silent for 5
// minutes; until then, and a while longer, no session gets their ports (H5, M9).
func TestAdopted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := func(realm uint16, local string) call.FlowKey {
			return call.FlowKey{Realm: realm, Local: netip.MustParseAddrPort(local)}
		}
		busy, quiet := key(1, inside+":16386"), key(1, inside+":16388")
		others := []call.FlowKey{
			key(1, inside+":16387"), key(1, inside+":16389"),
			key(1, inside+":40000"), key(7, "192.0.2.99:16384"), // of a config that is no more
		}
		engine := newFakeEngine()
		all := append([]call.FlowKey{busy, quiet}, others...)
		for _, k := range all {
			engine.flows[k] = call.Flow{Key: k}
		}
		b := newBenchOn(t, engine, media.Config{Adopted: all, Quarantine: time.Minute}, call.PortRange{First: 16386, Last: 16391})
		b.run()
		if n := b.m.PortsInUse(); n != 2 {
			t.Errorf("%d port pairs in use, want the 2 adopted ones", n)
		}

		// Of the three pairs one is left for sessions.
		first := b.open()
		if offered := first.offer(call.Egress, callee); offered.desc.Audio().RTP.Port() != 16390 {
			t.Errorf("a session got port %d", offered.desc.Audio().RTP.Port())
		}
		full := func() bool {
			s, err := b.m.Open("inside", media.Terms{})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			return s.SetEgress("outside", media.Terms{}) != nil
		}
		for range 10 {
			engine.count(busy, call.FlowStats{Packets: uint64(time.Now().Unix())})
			time.Sleep(29 * time.Second)
		}
		if len(engine.flows) != len(all) || !full() {
			t.Errorf("after 4m50s: %d flows, %d port pairs", len(engine.flows), b.m.PortsInUse())
		}
		time.Sleep(15 * time.Second)
		synctest.Wait()
		if _, kept := engine.flows[busy]; !kept || len(engine.flows) != 2 || b.m.PortsInUse() != 3 {
			t.Errorf("after 5 minutes: %d flows, %d port pairs; want 2, 3", len(engine.flows), b.m.PortsInUse())
		}
		if !full() {
			t.Error("the port was not put into quarantine")
		}
		time.Sleep(time.Minute)
		if full() {
			t.Error("the port did not come back")
		}
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if len(engine.flows) != 0 {
			t.Errorf("left: %v", engine.flows)
		}
	})
}

// TestAdoptedStay: an engine that cannot remove them is asked again, and the log says so once.
func TestAdoptedStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := call.FlowKey{Realm: 1, Local: netip.MustParseAddrPort(inside + ":16384")}
		engine := newFakeEngine()
		engine.flows[key] = call.Flow{Key: key}
		engine.irremovable = errEngine
		var log bytes.Buffer
		b := newBenchOn(t, engine, media.Config{Adopted: []call.FlowKey{key}, Log: slog.New(slog.NewTextHandler(&log, nil))}, call.PortRange{First: 16384, Last: 16385})
		b.run()
		time.Sleep(6 * time.Minute)
		synctest.Wait()
		if b.m.PortsInUse() != 1 {
			t.Error("the port of a flow that is still there was given back")
		}
		if n := strings.Count(log.String(), "not removed"); n != 1 {
			t.Errorf("said %d times:\n%s", n, &log)
		}
		engine.refuse(nil, nil)
		time.Sleep(2 * time.Second)
		synctest.Wait()
	})
}

// TestIrremovable: the ports of a call whose flows the engine does not remove are nobody's
// until it does; they are asked for each second, and the log says so once (M9).
func TestIrremovable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		b := newBenchOn(t, newFakeEngine(), media.Config{Log: slog.New(slog.NewTextHandler(&log, nil))},
			call.PortRange{First: 16384, Last: 16385})
		b.run()
		k := b.open()
		k.established()
		b.engine.refuse(nil, errEngine)
		k.Close()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if n := strings.Count(log.String(), "not removed"); n != 1 {
			t.Errorf("said %d times:\n%s", n, &log)
		}
		if b.engine.installed() != 4 || b.m.PortsInUse() != 2 {
			t.Errorf("%d flows, %d port pairs; want those of the call", b.engine.installed(), b.m.PortsInUse())
		}
		b.engine.refuse(nil, nil)
		time.Sleep(time.Second + time.Millisecond)
		synctest.Wait()
		if b.engine.installed() != 0 || b.m.PortsInUse() != 0 {
			t.Errorf("%d flows, %d port pairs left", b.engine.installed(), b.m.PortsInUse())
		}
		b.open().established() // with the same port of ours towards the caller
	})
}

// TestIrremovableTry: of a try whose flows stay only the egress side's port is kept out of
// use; the caller's flows are the next try's (M9, T7).
func TestIrremovableTry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.run()
		k := b.open()
		k.established()
		b.engine.refuse(nil, errEngine)
		if err := k.SetEgress("outside3", media.Terms{}); err != nil {
			t.Fatal(err)
		}
		b.engine.refuse(nil, nil)
		k.established()
		if b.engine.installed() != 6 || b.m.PortsInUse() != 3 {
			t.Errorf("%d flows, %d port pairs; want 6, 3", b.engine.installed(), b.m.PortsInUse())
		}
		time.Sleep(time.Second + time.Millisecond)
		synctest.Wait()
		if b.engine.installed() != 4 || b.m.PortsInUse() != 2 {
			t.Errorf("%d flows, %d port pairs; want those of the second try", b.engine.installed(), b.m.PortsInUse())
		}
	})
}
