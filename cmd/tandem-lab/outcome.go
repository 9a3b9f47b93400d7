package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/tests/netlab"
)

// outcome is what the demo found; the exported part is what is written.
type outcome struct {
	Calls    int `json:"calls"`
	Answered int `json:"answered"`
	Failed   int `json:"failed"`
	// Packets counted by captures on the peers' interfaces. RTPLost leaves out what was lost
	// while the primary tunnel was dead and traffic not yet on the backup: RTPLostInCut.
	RTPSent      uint64 `json:"rtp_sent"`
	RTPReceived  uint64 `json:"rtp_received"`
	RTPLost      uint64 `json:"rtp_lost"`
	RTPLostInCut uint64 `json:"rtp_lost_in_cut"`
	// MediaAwayMS is the longest time in which a running call's media was away for the cut; what
	// did not come back was away until its sender's end.
	MediaAwayMS int64 `json:"media_away_ms"`
	// Cut and Backup are the tunnel that was cut, and the one that stood in.
	Cut    string `json:"cut"`
	Backup string `json:"backup"`
	// Tunnels that were up at the end.
	TunnelsUp int `json:"tunnels_up"`
	// Frames on the tunnelled VLANs of the gateway's trunk, by what they were.
	WireESP   uint64 `json:"wire_esp"`
	WireIKE   uint64 `json:"wire_ike"`
	WireARP   uint64 `json:"wire_arp"`
	WireOther uint64 `json:"wire_other"`
	// Packets forwarded, as the gateway's engine counted them.
	KernelPackets    uint64 `json:"kernel_packets"`
	UserspacePackets uint64 `json:"userspace_packets"`
	// DSCPOK: every RTP packet that reached a peer was marked EF.
	DSCPOK bool `json:"dscp_ok"`

	engine                           string
	wanted                           int // calls that were to be made
	failedAtCallers, failedAtCallees int // by SIPp's own count
	clean                            bool
	disordered                       int
	setup                            netlab.Percentiles
	tunnels                          []call.Tunnel
	cutAt, mendedAt                  time.Time
	duration                         time.Duration
	findings                         []string
}

// count takes over what the captures saw.
func (o *outcome) count(calls []netlab.Call, media netlab.MediaReport) {
	o.Calls = len(calls)
	for _, c := range calls {
		if c.Caller.Status == 200 && c.Callee() != nil {
			o.Answered++
		}
		o.disordered += c.Caller.Disordered
	}
	o.Failed = max(o.Calls-o.Answered, o.failedAtCallers)
	o.RTPSent, o.RTPReceived = media.Sent, media.Received
	for _, at := range media.LostAt {
		if !o.cutAt.IsZero() && at.After(o.cutAt.Add(-cutMargin)) && at.Before(o.cutAt.Add(awayLimit)) {
			o.RTPLostInCut++
		}
	}
	o.RTPLost = media.Lost - o.RTPLostInCut
	o.DSCPOK = media.DSCPOnly(netlab.MediaDSCP)
	media.Lost = o.RTPLost
	o.clean = media.Clean()
	o.setup = netlab.SetupAdded(calls)
	if o.RTPLost > 0 || !o.clean {
		o.findings = append(o.findings, media.Problems...)
	}
}

// cutMargin is for packets that are under way when the cable is cut.
const cutMargin = 200 * time.Millisecond

// countCut takes over what the cut of the primary tunnel did to running calls.
func (o *outcome) countCut(cut, mended time.Time, calls []netlab.Call, logs []*netlab.Log) {
	o.cutAt, o.mendedAt = cut, mended
	uplinks := netlab.SiteOf(netlab.CarrierA).Uplinks
	o.Cut, o.Backup = uplinks[0].Name, uplinks[1].Name
	for _, t := range o.tunnels {
		if t.State == call.TunnelUp {
			o.TunnelsUp++
		}
	}
	for i := range calls {
		if !cut.IsZero() {
			o.MediaAwayMS = max(o.MediaAwayMS, calls[i].Away(cut, cut.Add(awayLimit), logs...).Milliseconds())
		}
	}
}

// countWire takes over what was on the tunnelled VLANs.
func (o *outcome) countWire(census netlab.Census, sites []netlab.Site) {
	for _, s := range sites {
		for _, u := range s.Uplinks {
			o.findings = append(o.findings, census.Without(u.VLAN, netlab.FrameESP, netlab.FrameIKE, netlab.FrameARP, netlab.FrameControl)...)
			for f, n := range census {
				switch {
				case f.VLAN != u.VLAN || f.Kind == netlab.FrameControl:
				case f.Kind == netlab.FrameESP:
					o.WireESP += n
				case f.Kind == netlab.FrameIKE:
					o.WireIKE += n
				case f.Kind == netlab.FrameARP:
					o.WireARP += n
				default:
					o.WireOther += n
				}
			}
		}
	}
}

// failure says why the run was none that may be shown, or nil.
func (o *outcome) failure() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	check(o.Calls == o.wanted, "%d calls were made, not %d", o.Calls, o.wanted)
	check(o.Answered == o.Calls && o.Failed == 0, "%d of %d calls were answered, %d failed", o.Answered, o.Calls, o.Failed)
	check(o.failedAtCallees == 0, "%d calls failed at the callees", o.failedAtCallees)
	check(o.RTPSent > 0, "no RTP was sent")
	check(o.RTPLost == 0, "%d RTP packets were lost", o.RTPLost)
	check(!o.cutAt.IsZero() && !o.mendedAt.IsZero(), "the primary tunnel was not cut and mended while there were calls")
	check(o.MediaAwayMS >= awayLeast.Milliseconds(), "the cut of tunnel %s hit no running call: media was away for %d ms", o.Cut, o.MediaAwayMS)
	check(o.MediaAwayMS <= awayLimit.Milliseconds(), "media was away for %d ms when tunnel %s was cut, %v is the limit", o.MediaAwayMS, o.Cut, awayLimit)
	check(o.TunnelsUp == len(o.tunnels), "%d of %d tunnels are up at the end", o.TunnelsUp, len(o.tunnels))
	check(o.WireESP > 0 && o.WireIKE > 0, "there was no ESP or no IKE on the wire")
	check(o.WireOther == 0, "%d frames on tunnelled VLANs are neither ESP nor IKE nor ARP", o.WireOther)
	check(o.clean || o.RTPLost > 0, "RTP did not arrive as it was sent")
	check(o.DSCPOK, "RTP arrived without DSCP %d", netlab.MediaDSCP)
	check(o.disordered == 0, "%d responses came behind the final one", o.disordered)
	if o.engine == call.EngineKernel {
		check(o.UserspacePackets == 0, "%d packets went through user space", o.UserspacePackets)
	}
	check(o.KernelPackets+o.UserspacePackets >= o.RTPReceived, "the engine counted %d packets, the captures %d",
		o.KernelPackets+o.UserspacePackets, o.RTPReceived)
	return errors.Join(errs...)
}

func (o *outcome) write(path string) error {
	data, err := json.MarshalIndent(o, "", "  ")
	if err != nil {
		return fmt.Errorf("result: %w", err)
	}
	return writeResult(path, append(data, '\n'))
}

func writeResult(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("result: %w", err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		return fmt.Errorf("result: %w", err)
	}
	return nil
}

func (o *outcome) print(w io.Writer, path string) {
	dscp := "all EF (46)"
	if !o.DSCPOK {
		dscp = "NOT all EF (46)"
	}
	fmt.Fprintf(w, "\n  %-20s %d made, %d answered, %d failed\n", "calls", o.Calls, o.Answered, o.Failed)
	fmt.Fprintf(w, "  %-20s %s sent, %s received, %d lost, and %d in the cut; each compared byte for byte\n",
		"RTP at the peers", grouped(o.RTPSent), grouped(o.RTPReceived), o.RTPLost, o.RTPLostInCut)
	fmt.Fprintf(w, "  %-20s tunnel %s lost every packet for %.1f s: running calls' media was away for %d ms at most, then went by %s\n",
		"cut", o.Cut, o.mendedAt.Sub(o.cutAt).Seconds(), o.MediaAwayMS, o.Backup)
	fmt.Fprintf(w, "  %-20s %s\n", "tunnels at the end", tunnelWords(o.tunnels))
	fmt.Fprintf(w, "  %-20s %s ESP, %d IKE, %d ARP, %d other frames on the tunnelled VLANs\n", "on the wire", grouped(o.WireESP), o.WireIKE, o.WireARP, o.WireOther)
	fmt.Fprintf(w, "  %-20s %s in the kernel, %s in user space (engine %s)\n", "RTP in the gateway", grouped(o.KernelPackets), grouped(o.UserspacePackets), o.engine)
	fmt.Fprintf(w, "  %-20s %s\n", "DSCP", dscp)
	fmt.Fprintf(w, "  %-20s p50 %s, p99 %s\n", "set-up time added", milliseconds(o.setup.P50), milliseconds(o.setup.P99))
	fmt.Fprintf(w, "  %-20s %.0f s\n", "took", o.duration.Seconds())
	for _, finding := range o.findings {
		fmt.Fprintf(w, "  ! %s\n", finding)
	}
	fmt.Fprintf(w, "\nwritten to %s\n", path)
}
