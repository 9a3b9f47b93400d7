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
	// Packets counted by captures on the peers' interfaces.
	RTPSent     uint64 `json:"rtp_sent"`
	RTPReceived uint64 `json:"rtp_received"`
	RTPLost     uint64 `json:"rtp_lost"`
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
	o.RTPSent, o.RTPReceived, o.RTPLost = media.Sent, media.Received, media.Lost
	o.DSCPOK = media.DSCPOnly(netlab.MediaDSCP)
	o.clean = media.Clean()
	o.setup = netlab.SetupAdded(calls)
	o.findings = append(o.findings, media.Problems...)
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
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("result: %w", err)
	}
	if err := os.WriteFile(path, append(data, '\n'), 0o644); err != nil {
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
	fmt.Fprintf(w, "  %-20s %s sent, %s received, %d lost, each compared byte for byte\n", "RTP at the peers", grouped(o.RTPSent), grouped(o.RTPReceived), o.RTPLost)
	fmt.Fprintf(w, "  %-20s %s in the kernel, %s in user space (engine %s)\n", "RTP in the gateway", grouped(o.KernelPackets), grouped(o.UserspacePackets), o.engine)
	fmt.Fprintf(w, "  %-20s %s\n", "DSCP", dscp)
	fmt.Fprintf(w, "  %-20s p50 %s, p99 %s\n", "set-up time added", milliseconds(o.setup.P50), milliseconds(o.setup.P99))
	fmt.Fprintf(w, "  %-20s %.0f s\n", "took", o.duration.Seconds())
	for _, finding := range o.findings {
		fmt.Fprintf(w, "  ! %s\n", finding)
	}
	fmt.Fprintf(w, "\nwritten to %s\n", path)
}
