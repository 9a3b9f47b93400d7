package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tandem-sbc/tandem/pkg/admin"
)

// orders are what can be wanted of a trunk, and the states that they ask for.
var orders = map[string]string{"drain": "draining", "in-service": "in-service", "out-of-service": "out-of-service"}

func (c *cli) trunks() *cobra.Command {
	var watch bool
	cmd := &cobra.Command{
		Use:   "trunks [NAME [drain|in-service|out-of-service]]",
		Short: "Trunks with their state and calls, everything of one, or a change of its state",
		Long: `Trunks with their state and calls, in and out apart, or everything of one. ASR, NER, PDD
and ACD are those of the trunk's health_window, of calls in and of calls out; RTT is the
round trip of the last OPTIONS. With an order the trunk is taken out of service or put back:
drain and out-of-service take no new calls, and running ones go on.`,
		Args: cobra.MaximumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 2 {
				return c.orderTrunk(cmd.Context(), args[0], args[1])
			}
			return c.look(cmd.Context(), watch, func(ctx context.Context, c *cli) error { return c.trunkList().show(ctx, c, args) })
		},
	}
	cmd.Flags().BoolVar(&watch, "watch", false, "look again each second, until Ctrl-C")
	return cmd
}

// look shows something once, or until ctx is done.
func (c *cli) look(ctx context.Context, watch bool, show func(context.Context, *cli) error) error {
	if watch {
		return c.watch(ctx, show)
	}
	return show(ctx, c)
}

func (c *cli) trunkList() list[admin.TrunkStatus] {
	return list[admin.TrunkStatus]{
		noun: "trunk", use: "trunks", get: (*admin.Client).Trunks, name: func(t admin.TrunkStatus) string { return t.Name },
		all: c.showTrunks, one: c.showTrunk,
	}
}

func (c *cli) orderTrunk(ctx context.Context, name, order string) error {
	state, known := orders[order]
	if !known {
		return fmt.Errorf("%q is nothing that a trunk can be told: say drain, in-service or out-of-service", order)
	}
	t, err := ask(ctx, c, func(api *admin.Client, ctx context.Context) (admin.TrunkStatus, error) {
		return api.SetTrunk(ctx, name, state)
	})
	if err != nil {
		return err
	}
	if c.json {
		return c.printJSON(t)
	}
	return c.showTrunks([]admin.TrunkStatus{t})
}

// showTrunks prints a line per trunk.
func (c *cli) showTrunks(trunks []admin.TrunkStatus) error {
	t := newTable(c.stdout)
	t.row("TRUNK", "REALM", "STATE", "AGE", "IN", "OUT", "MAX", "RATE", "REFUSED", "ASR IN|OUT", "NER IN|OUT", "PDD IN|OUT", "ACD IN|OUT", "RTT")
	var why reasons
	for _, tr := range trunks {
		t.row(tr.Name, tr.Realm, stateOf(tr), c.age(tr.Since), strconv.Itoa(tr.In.Active), strconv.Itoa(tr.Out.Active), limit(tr.MaxCalls), tr.MaxRate,
			count(sum(tr.In.Refused)+sum(tr.Out.Refused)), bothWays(tr, asr), bothWays(tr, ner), bothWays(tr, pdd), bothWays(tr, acd), probeRTT(tr.Targets))
		why.add(tr.Name, tr.State, tr.Reason)
	}
	return t.flush(why...)
}

// stateOf marks a trunk that has not its full weight back, or is not in the config any more.
func stateOf(t admin.TrunkStatus) string {
	switch {
	case t.Removed:
		return "removed"
	case t.Share > 0 && t.Share < 100:
		return fmt.Sprintf("%s (%d%%)", t.State, t.Share)
	}
	return t.State
}

func limit(maxCalls int) string {
	if maxCalls == 0 {
		return ""
	}
	return strconv.Itoa(maxCalls)
}

// bothWays is a figure of calls in and one of calls out.
func bothWays(t admin.TrunkStatus, figure func(admin.TrunkWindow) string) string {
	in, out := figure(t.In.Recent), figure(t.Out.Recent)
	if in == "-" && out == "-" {
		return "-"
	}
	return in + "|" + out
}

func asr(w admin.TrunkWindow) string { return percent(w.ASR, w) }
func ner(w admin.TrunkWindow) string { return percent(w.NER, w) }
func pdd(w admin.TrunkWindow) string { return milliseconds(w.PDDMS) }

func acd(w admin.TrunkWindow) string {
	if w.ACDMS == 0 {
		return "-"
	}
	return shortDuration(time.Duration(w.ACDMS * float64(time.Millisecond)))
}

// percent of the attempts whose outcome is known, if there are any.
func percent(value float64, w admin.TrunkWindow) string {
	if len(w.Classes) == 0 {
		return "-"
	}
	return strconv.FormatFloat(value, 'f', 1, 64) + "%"
}

// probeRTT is the shortest round trip to any target.
func probeRTT(targets []admin.TrunkTarget) string {
	least := 0.0
	for _, t := range targets {
		if t.RoundTripMS > 0 && (least == 0 || t.RoundTripMS < least) {
			least = t.RoundTripMS
		}
	}
	return roundTrip(least)
}

// roundTrip of a target that may be near.
func roundTrip(ms float64) string {
	if ms == 0 {
		return "-"
	}
	return strconv.FormatFloat(ms, 'f', 1, 64) + " ms"
}

// showTrunk prints all that is known of one.
func (c *cli) showTrunk(tr admin.TrunkStatus) error {
	t := newTable(c.stdout)
	t.row("trunk", tr.Name)
	t.row("realm", tr.Realm)
	t.row("kind", tr.Kind)
	t.row("state", lasting(stateOf(tr), c.age(tr.Since)))
	if tr.Reason != "" {
		t.row("reason", tr.Reason)
	}
	t.row("wanted", tr.Admin)
	t.row("state changes", count(tr.Changes))
	t.row("max_calls", orNone(limit(tr.MaxCalls)))
	t.row("max_rate", orNone(tr.MaxRate))
	if err := t.flush(); err != nil {
		return err
	}
	if err := c.showDirections(tr); err != nil {
		return err
	}
	return c.showTargets(tr)
}

func (c *cli) showDirections(tr admin.TrunkStatus) error {
	if _, err := fmt.Fprintln(c.stdout); err != nil {
		return printed(err)
	}
	t := newTable(c.stdout)
	t.row("CALLS", "ACTIVE", "ATTEMPTS", "ANSWERED", "FAILED", "REFUSED", "RECENT", "ASR", "NER", "PDD", "ACD", "MOS")
	var outcomes []string
	for _, d := range []struct {
		name string
		admin.TrunkDirection
	}{{"in", tr.In}, {"out", tr.Out}} {
		r := d.Recent
		t.row(d.name, strconv.Itoa(d.Active), count(d.Attempts), count(d.Answers), count(d.Failures), orNone(tally(d.Refused)),
			strconv.FormatUint(uint64(r.Attempts), 10), asr(r), ner(r), pdd(r), acd(r), decimal(r.MOS))
		if len(r.Classes) > 0 {
			outcomes = append(outcomes, fmt.Sprintf("recent outcomes %s: %s", d.name, tally(widened(r.Classes))))
		}
		if all := tally(d.Outcomes); all != "" {
			outcomes = append(outcomes, fmt.Sprintf("outcomes %s since start: %s", d.name, harmless(all)))
		}
	}
	return t.flush(outcomes...)
}

func widened(counts map[string]uint32) map[string]uint64 {
	wide := make(map[string]uint64, len(counts))
	for word, n := range counts {
		wide[word] = uint64(n)
	}
	return wide
}

func decimal(value float64) string {
	if value == 0 {
		return "-"
	}
	return strconv.FormatFloat(value, 'f', 2, 64)
}

func (c *cli) showTargets(tr admin.TrunkStatus) error {
	if len(tr.Targets)+len(tr.Names)+len(tr.RefusedTargets) == 0 {
		return nil
	}
	if _, err := fmt.Fprintln(c.stdout); err != nil {
		return printed(err)
	}
	t := newTable(c.stdout)
	t.row("TARGET", "STATE", "AGE", "PROBES", "FAILED", "RTT", "NEXT")
	var why reasons
	for _, a := range tr.Targets {
		t.row(a.Address.String(), a.State, c.age(a.Since), count(a.Probes), count(a.Failures), roundTrip(a.RoundTripMS), c.until(a.Next))
		why.add(a.Address.String(), a.State, a.Reason)
	}
	for _, n := range tr.Names {
		why = append(why, harmless(fmt.Sprintf("%s is %s: %s", n.Target, n.State, n.Text)))
	}
	for _, refused := range tr.RefusedTargets {
		why = append(why, harmless("not used: "+refused))
	}
	return t.flush(why...)
}

// until is the time to a moment, or empty if there is none.
func (c *cli) until(moment time.Time) string {
	if moment.IsZero() {
		return ""
	}
	return shortDuration(moment.Sub(c.now()))
}

func (c *cli) groups() *cobra.Command {
	var watch bool
	cmd := &cobra.Command{
		Use:   "groups [NAME]",
		Short: "Groups of trunks with their members' weights, shares and states",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.look(cmd.Context(), watch, func(ctx context.Context, c *cli) error { return c.groupList().show(ctx, c, args) })
		},
	}
	cmd.Flags().BoolVar(&watch, "watch", false, "look again each second, until Ctrl-C")
	return cmd
}

func (c *cli) groupList() list[admin.GroupStatus] {
	return list[admin.GroupStatus]{
		noun: "group", use: "groups", get: (*admin.Client).Groups, name: func(g admin.GroupStatus) string { return g.Name },
		all: c.showGroups, one: func(g admin.GroupStatus) error { return c.showGroups([]admin.GroupStatus{g}) },
	}
}

// showGroups prints a line per member. Share is what a member gets of the first choices now.
func (c *cli) showGroups(groups []admin.GroupStatus) error {
	t := newTable(c.stdout)
	t.row("GROUP", "STRATEGY", "FALLBACK", "TRUNK", "WEIGHT", "SHARE", "STATE", "ACTIVE")
	for _, g := range groups {
		strategy := g.Strategy
		if g.Adaptive {
			strategy += ", adaptive"
		}
		for i, m := range g.Members {
			name, how, fallback := g.Name, strategy, g.Fallback
			if i > 0 {
				name, how, fallback = "", " ", " "
			}
			t.row(name, how, fallback, m.Trunk, weight(m), share(g, m), m.State, strconv.Itoa(m.Active))
		}
	}
	return t.flush()
}

// weight is that of the config and, where it differs, what counts of it.
func weight(m admin.GroupMember) string {
	if m.Multiplier == 1000 || m.Multiplier == 0 {
		return strconv.Itoa(m.Weight)
	}
	return fmt.Sprintf("%d x %.2f", m.Weight, float64(m.Multiplier)/1000)
}

// share is empty where the strategy does not go by weights.
func share(g admin.GroupStatus, m admin.GroupMember) string {
	weighs := slices.ContainsFunc(g.Members, func(m admin.GroupMember) bool { return m.Share > 0 })
	if !weighs {
		return ""
	}
	return strings.TrimSuffix(strconv.FormatFloat(m.Share, 'f', 1, 64), ".0") + "%"
}
