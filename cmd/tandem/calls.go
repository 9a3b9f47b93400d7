package main

import (
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/tandem-sbc/tandem/pkg/admin"
	"github.com/tandem-sbc/tandem/pkg/call"
)

func (c *cli) calls() *cobra.Command {
	return reader(c, "calls", "Calls now, oldest first", (*admin.Client).Calls, c.showCalls)
}

// showCalls prints a line per call. Packets, loss and jitter are of what each side sent.
func (c *cli) showCalls(calls []call.Info) error {
	t := newTable(c.stdout)
	t.row("ID", "STATE", "FROM", "TO", "AGE", "INGRESS", "EGRESS", "CODEC", "PACKETS IN", "LOST", "JITTER", "PACKETS OUT", "LOST", "JITTER")
	now := time.Now()
	for _, i := range calls {
		in, out := i.Ingress.Media, i.Egress.Media
		t.row(string(i.ID), string(i.State), i.From, i.To, shortDuration(now.Sub(i.Started)), i.Ingress.Trunk, i.Egress.Trunk, codecs(in, out),
			count(in.Packets), count(in.Lost), jitter(in), count(out.Packets), count(out.Lost), jitter(out))
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
