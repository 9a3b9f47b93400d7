package e2e

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/tests/netlab"
	"github.com/tandem-sbc/tandem/tests/sipp"
)

// M1, M3, M9: what one peer says reaches the other byte for byte, both ways, marked
// EF, one hop older, with right checksums; with the kernel engine nothing of it
// reaches a socket.
func TestMediaByteForByte(t *testing.T) {
	engines(t, func(t *testing.T, engine string) {
		g := start(t, netlab.GatewayOptions{Engine: engine})
		logs := g.capture(t, netlab.Platform, netlab.CarrierA, netlab.CarrierB)
		noPorts := g.udpCounter(t, "NoPorts")

		const calls = 5
		speech := sipp.Audio{Packets: 100}
		answerA := g.agent(t, netlab.CarrierA, sipp.Config{Scenario: sipp.Answer, Audio: speech})
		answerB := g.agent(t, netlab.CarrierB, sipp.Config{Scenario: sipp.AnswerAndEnd, Audio: speech})
		toA := g.agent(t, netlab.Platform, sipp.Config{
			Scenario: sipp.Call, SIPPort: 5070, MediaPort: 6010, Number: netlab.PrefixA, Calls: calls, Rate: 5, Audio: speech,
		})
		toB := g.agent(t, netlab.Platform, sipp.Config{
			Scenario: sipp.CallAndWait, SIPPort: 5071, MediaPort: 6020, Number: netlab.PrefixB, Calls: calls, Rate: 5, Audio: speech,
		})
		if engine == call.EngineKernel {
			g.noMediaSockets(t)
		}
		finish(t, toA)
		finish(t, toB, answerA, answerB)

		captured := logs()
		seen := netlab.Calls(captured...)
		if len(seen) != 2*calls {
			t.Errorf("captured %d calls, want %d", len(seen), 2*calls)
		}
		report := netlab.CompareMedia(seen, captured...)
		if !report.Clean() {
			t.Errorf("media did not come through: %+v", report)
		}
		if want := uint64(2 * calls * 2 * speech.Packets); report.Sent != want || report.Received != want {
			t.Errorf("%d packets sent, %d received, want %d each", report.Sent, report.Received, want)
		}
		if !report.DSCPOnly(netlab.MediaDSCP) {
			t.Errorf("DSCP of what arrived: %v, want %d only (M3)", report.DSCP, netlab.MediaDSCP)
		}
		if ttl := report.TTL; engine == call.EngineKernel && (len(ttl) != 1 || ttl[63] == 0) {
			t.Errorf("TTL of what arrived: %v, want 63 only: one hop", ttl)
		}

		status := g.status(t)
		switch engine {
		case call.EngineKernel:
			if status.Engine.UserspacePackets != 0 || status.Engine.KernelPackets < report.Sent {
				t.Errorf("kernel %d, user space %d of %d packets", status.Engine.KernelPackets, status.Engine.UserspacePackets, report.Sent)
			}
			if now := g.udpCounter(t, "NoPorts"); now != noPorts {
				t.Errorf("%d datagrams found no socket: media reached the stack", now-noPorts)
			}
		case call.EngineUserspace:
			if status.Engine.KernelPackets != 0 || status.Engine.UserspacePackets < report.Sent {
				t.Errorf("kernel %d, user space %d of %d packets", status.Engine.KernelPackets, status.Engine.UserspacePackets, report.Sent)
			}
		}
		g.settled(t, status)

		records := g.records(t)
		if len(records) != 2*calls {
			t.Fatalf("%d records, want %d", len(records), 2*calls)
		}
		for _, r := range records {
			for side, m := range map[string]call.Media{"ingress": r.Ingress.Media, "egress": r.Egress.Media} {
				if m.Packets != uint64(speech.Packets) || m.Lost != 0 || m.Codec != "PCMA/8000" {
					t.Errorf("call %s: the record says of the %s side %+v, want %d packets of PCMA/8000", r.ID, side, m, speech.Packets)
				}
			}
		}
	})
}

// S7: hold and resume are relayed end to end, and speech passes before and after.
func TestHoldAndResume(t *testing.T) {
	engines(t, func(t *testing.T, engine string) {
		g := start(t, netlab.GatewayOptions{Engine: engine})
		logs := g.capture(t, netlab.Platform, netlab.CarrierA)
		callee := g.agent(t, netlab.CarrierA, sipp.Config{Scenario: sipp.AnswerHold})
		caller := g.agent(t, netlab.Platform, sipp.Config{Scenario: sipp.CallAndHold, SIPPort: 5070, MediaPort: 6010, Number: netlab.PrefixA, Calls: 2})
		finish(t, caller, callee)

		captured := logs()
		if report := netlab.CompareMedia(netlab.Calls(captured...), captured...); !report.Clean() {
			t.Errorf("media did not come through: %+v", report)
		}
		var holds, resumes int
		for _, m := range captured[1].Messages {
			if m.Method != "INVITE" || m.Status != 0 || m.Out {
				continue
			}
			switch {
			case bytes.Contains(m.Body(), []byte("a=sendonly")):
				holds++
			case m.CSeq > 1:
				resumes++
			}
		}
		if holds == 0 || resumes == 0 {
			t.Errorf("the carrier saw %d re-INVITEs to hold and others %d", holds, resumes)
		}
	})
}

// udpCounter reads one of the kernel's UDP counters in the gateway's namespace.
func (g *gateway) udpCounter(t *testing.T, name string) uint64 {
	t.Helper()
	var data []byte
	if err := g.Do(netlab.Gateway, func() (err error) {
		data, err = os.ReadFile("/proc/thread-self/net/snmp")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	var names []string
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(line)
		if len(fields) == 0 || fields[0] != "Udp:" {
			continue
		}
		if names == nil {
			names = fields
			continue
		}
		for i, n := range names {
			if n != name {
				continue
			}
			v, err := strconv.ParseUint(fields[i], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
	}
	t.Fatalf("the kernel has no UDP counter %q", name)
	return 0
}

// noMediaSockets fails if a UDP socket of the gateway is bound to a media port.
func (g *gateway) noMediaSockets(t *testing.T) {
	t.Helper()
	var data []byte
	if err := g.Do(netlab.Gateway, func() (err error) {
		data, err = os.ReadFile("/proc/thread-self/net/udp")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		var slot int
		var addr, port uint32
		if n, _ := fmt.Sscanf(line, "%d: %X:%X", &slot, &addr, &port); n != 3 {
			continue
		}
		for _, r := range netlab.Realms() {
			if uint32(r.FirstPort) <= port && port <= uint32(r.LastPort) {
				t.Errorf("a socket is bound to media port %d of realm %s", port, r.Name)
			}
		}
	}
}
