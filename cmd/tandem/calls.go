package main

import (
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/tandem-sbc/tandem/pkg/admin"
	"github.com/tandem-sbc/tandem/pkg/call"
)

func (c *cli) calls() *cobra.Command {
	return reader(c, "calls", "Calls now, oldest first", (*admin.Client).Calls, c.showCalls)
}

// showCalls prints a line per call. Packets, loss, jitter and MOS are of what each side
// sent; all else that is counted is in the JSON.
func (c *cli) showCalls(calls []call.Info) error {
	t := newTable(c.stdout)
	t.row("ID", "STATE", "FROM", "TO", "AGE", "INGRESS", "EGRESS", "CODEC",
		"PACKETS IN", "LOST", "JITTER", "MOS", "PACKETS OUT", "LOST", "JITTER", "MOS", "RTT")
	now := c.now()
	for _, i := range calls {
		in, out := i.Ingress.Media, i.Egress.Media
		t.row(string(i.ID), string(i.State), i.From, i.To, shortDuration(now.Sub(i.Started)), i.Ingress.Trunk, i.Egress.Trunk, codecs(in, out),
			count(in.Packets), lost(in), jitter(in), mos(in), count(out.Packets), lost(out), jitter(out), mos(out), roundTrips(in, out))
	}
	return t.flush()
}

// codecs is the codec of both sides, or one for each where they differ.
func codecs(in, out call.Media) string {
	if in.Codec == out.Codec {
		return in.Codec
	}
	return in.Codec + "|" + out.Codec
}

func jitter(m call.Media) string {
	if m.Packets == 0 {
		return "-"
	}
	return strconv.FormatFloat(m.JitterMS, 'f', 1, 64) + " ms"
}

// lost is the number of packets and its share of those expected.
func lost(m call.Media) string {
	if m.Lost == 0 {
		return "0"
	}
	return fmt.Sprintf("%d (%.1f%%)", m.Lost, 100*m.LossRatio())
}

// mos is the E-model's estimate; it is not known without packets or for some codecs.
func mos(m call.Media) string {
	if m.MOS == 0 {
		return "-"
	}
	return strconv.FormatFloat(m.MOS, 'f', 2, 64)
}

// roundTrips are those to both peers, as far as they report.
func roundTrips(in, out call.Media) string {
	if in.RTTMS == 0 && out.RTTMS == 0 {
		return "-"
	}
	return milliseconds(in.RTTMS) + "|" + milliseconds(out.RTTMS)
}

func milliseconds(ms float64) string {
	if ms == 0 {
		return "-"
	}
	return strconv.FormatFloat(ms, 'f', 0, 64) + " ms"
}
