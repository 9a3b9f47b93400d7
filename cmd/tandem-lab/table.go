package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// sample is one look at the run.
type sample struct {
	elapsed time.Duration
	// What the gateway says.
	active            int
	answered, failed  uint64 // so far
	kernel, userspace uint64
	// What the captures say of the packets that reached the peers.
	missing             uint64
	jitter, worstJitter time.Duration
	// tunnels as the gateway sees them.
	tunnels []call.Tunnel
}

// table shows samples: redrawn in place on a terminal, a line each otherwise.
type table struct {
	out   io.Writer
	live  bool
	drawn int // lines on the screen
}

func (t *table) show(s sample) {
	if !t.live {
		fmt.Fprintf(t.out, "%4.0f s  calls: %d active, %d answered, %d failed, %s answered  packets: %s kernel, %s user space, %d lost  jitter: %s  tunnels: %s\n",
			s.elapsed.Seconds(), s.active, s.answered, s.failed, rate(s.answered, s.answered+s.failed),
			grouped(s.kernel), grouped(s.userspace), s.missing, milliseconds(s.jitter), tunnelWords(s.tunnels))
		return
	}
	rows := []string{
		"",
		fmt.Sprintf("  %-8s %12s %12s %12s %14s", "calls", "active", "answered", "failed", "answer rate"),
		fmt.Sprintf("  %-8s %12d %12d %12d %14s", clock(s.elapsed), s.active, s.answered, s.failed, rate(s.answered, s.answered+s.failed)),
		"",
		fmt.Sprintf("  %-8s %12s %12s %12s %14s %14s", "packets", "kernel", "user space", "lost", "jitter", "worst jitter"),
		fmt.Sprintf("  %-8s %12s %12s %12d %14s %14s", "RTP", grouped(s.kernel), grouped(s.userspace), s.missing, milliseconds(s.jitter), milliseconds(s.worstJitter)),
		"",
		fmt.Sprintf("  %-12s %-12s %-12s %12s %12s %-8s", "tunnel", "realm", "state", "in", "out", "traffic"),
	}
	for _, n := range s.tunnels {
		rows = append(rows, fmt.Sprintf("  %-12s %-12s %-12s %12s %12s %-8s", n.Name, n.Realm, n.State, grouped(n.In.Packets), grouped(n.Out.Packets), carries(n)))
	}
	rows = append(rows, "")
	var b strings.Builder
	if t.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", t.drawn) // up to the table's first line
	}
	for _, row := range rows {
		b.WriteString(row + "\x1b[K\n") // and clear what an older row had more
	}
	t.drawn = len(rows)
	_, _ = io.WriteString(t.out, b.String()) // a lost terminal is no reason to stop
}

// note prints a line that stays above the table.
func (t *table) note(format string, args ...any) {
	fmt.Fprintf(t.out, format+"\n", args...)
	t.drawn = 0
}

// tunnelWords are the tunnels in a line; the one that carries its realm's traffic has an asterisk.
func tunnelWords(tunnels []call.Tunnel) string {
	words := make([]string, len(tunnels))
	for i, n := range tunnels {
		words[i] = n.Name + " " + n.State
		if n.Active {
			words[i] += "*"
		}
	}
	return strings.Join(words, ", ")
}

// carries marks the tunnel that its realm's traffic goes by.
func carries(n call.Tunnel) string {
	if n.Active {
		return "here"
	}
	return ""
}

func clock(d time.Duration) string {
	return fmt.Sprintf("%d:%02d", int(d.Minutes()), int(d.Seconds())%60)
}

func milliseconds(d time.Duration) string {
	return strconv.FormatFloat(float64(d)/float64(time.Millisecond), 'f', 2, 64) + " ms"
}

// rate is part of all in percent; nothing of nothing is not a rate.
func rate(part, all uint64) string {
	if all == 0 {
		return "-"
	}
	return strconv.FormatFloat(float64(part)*100/float64(all), 'f', 1, 64) + " %"
}

// grouped writes a number with a space between thousands.
func grouped(n uint64) string {
	s := strconv.FormatUint(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + " " + s[i:]
	}
	return s
}
