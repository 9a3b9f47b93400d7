package ipsec

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/strongswan/govici/vici"
)

// attempt is one that has ended.
type attempt struct {
	tunnel  *tunnel
	started time.Time
	lines   []string
	err     error
}

// abandon ends attempts of ours that the peer has not answered in time.
func (k *keeper) abandon(ctx context.Context, t *tunnel, sas []ikeSA) {
	for _, s := range sas {
		if s.Name == t.Name && s.State == ikeConnecting && s.Ours && !s.answered() && !t.trying {
			k.end(ctx, s)
		}
	}
}

func (k *keeper) end(ctx context.Context, s ikeSA) {
	if err := k.client.terminate(ctx, "ike-id", s.ID, true); err != nil {
		k.log.Debug("IKE_SA was not ended", "realm", k.realm.Name, "tunnel", s.Name, "error", err)
	}
}

// steerTime is how long our policies point to the SA that stays before the others are ended.
const steerTime = time.Second

// supersede ends SAs that do the same as the current one. Before the peer hears of it our policies
// point to the one that stays, so that nothing is under way by the others. While keys change,
// charon points them elsewhere.
func (k *keeper) supersede(ctx context.Context, t *tunnel, superfluous []sa, sas []ikeSA, states []state, now time.Time) {
	out := t.current.child.Out
	there := slices.ContainsFunc(states, func(s state) bool { return s.ifID == t.IfID && s.id.dst == t.Remote && s.id.spi == out })
	if len(superfluous) == 0 || !there || rekeying(t.Name, sas) {
		t.steered = 0
		return
	}
	moved, err := steer(k.realm.Namespace, t.IfID, out)
	if err != nil {
		k.log.Warn("superfluous security association is left", "realm", k.realm.Name, "tunnel", t.Name, "error", err)
		return
	}
	if moved || t.steered != out {
		t.steered, t.steeredAt = out, now
	}
	if now.Sub(t.steeredAt) < steerTime {
		return
	}
	for _, s := range superfluous {
		k.dismiss(ctx, t, s)
	}
}

// rekeying is true if a CHILD_SA of a tunnel is being replaced.
func rekeying(name string, sas []ikeSA) bool {
	for _, s := range sas {
		for _, c := range s.Children {
			if s.Name == name && (c.State == "REKEYING" || c.State == "REKEYED") {
				return true
			}
		}
	}
	return false
}

// dismiss ends a superfluous SA: with its IKE_SA, unless that is the current one's too.
func (k *keeper) dismiss(ctx context.Context, t *tunnel, s sa) {
	kind, id := "ike-id", s.ike.ID
	if s.ike.ID == t.current.ike.ID {
		kind, id = "child-id", s.child.ID
	}
	k.log.Info("superfluous security association is ended", "realm", k.realm.Name, "tunnel", t.Name, kind, id)
	if err := k.client.terminate(ctx, kind, id, false); err != nil {
		k.log.Debug("superfluous security association was not ended", "realm", k.realm.Name, "tunnel", t.Name, "error", err)
	}
}

// probe asks a silent peer for new keys. If it is gone, or has forgotten us, that
// shows sooner than by the next dead peer detection; if it is there nothing is lost.
func (k *keeper) probe(ctx context.Context, t *tunnel) {
	t.probed = true
	in, err := message("child-id", t.current.child.ID)
	if err == nil {
		_, err = k.client.call(ctx, "rekey", in)
	}
	if err != nil {
		k.log.Debug("silent peer was not asked", "realm", k.realm.Name, "tunnel", t.Name, "error", err)
	}
}

// attempt makes one attempt, in the background since it takes seconds.
func (k *keeper) attempt(ctx context.Context, t *tunnel, now time.Time) {
	t.trying = true
	socket := k.charon.socket()
	k.running.Go(func() {
		lines, err := initiate(ctx, socket, t.Name, attemptTimeout)
		// There is room for one attempt of each tunnel.
		k.attempts <- attempt{t, now, lines, err}
	})
}

// ended takes in an attempt that has ended. The next one waits also if this one came through: the
// peer may undo it at once.
func (k *keeper) ended(a attempt, now time.Time) {
	t := a.tunnel
	t.trying, t.next = false, later(t.next, now.Add(time.Second))
	if a.err == nil {
		return
	}
	answered := false
	for _, l := range a.lines {
		answered = answered || strings.Contains(l, "received packet: from")
	}
	if answered && isTimeout(a.err) {
		if cause, _ := recognise(a.lines); cause == "" {
			return // it is slow, and goes on in charon
		}
	}
	f := explain(t.Tunnel, a.lines, a.err, answered)
	t.failed, t.failedSince = &f, a.started
}

// notice takes in an event, and reports whether it is a reason to look.
func (k *keeper) notice(e vici.Event, now time.Time) bool {
	switch e.Name {
	case "log":
		return k.hear(e.Message, now)
	case "ike-rekey", "child-rekey":
		for _, s := range sections(e.Message) {
			if t := k.named(clip(s.name)); t != nil && e.Name == "ike-rekey" {
				t.ikeRekeys++
				t.renamed(section(s.body, "old"), section(s.body, "new"))
			} else if t != nil {
				t.childRekeys++
			}
		}
	}
	return true
}

// renamed takes in that an IKE_SA has another one in its place, which has its children: the end of
// the old one is none of the tunnel's.
func (t *tunnel) renamed(before, after *vici.Message) {
	if id := text(before, "uniqueid"); id != "" && id == t.current.ike.ID {
		t.current.ike.ID, t.current.ike.Initiator = text(after, "uniqueid"), text(after, "initiator-spi")
	}
}

func (k *keeper) named(name string) *tunnel {
	for _, t := range k.tunnels {
		if t.Name == name && t.Keying == IKE {
			return t
		}
	}
	return nil
}

// hear takes in a line of charon's log that is about something the peer began, or about
// an SA that was established, and reports whether an SA has ended by that. What attempts of
// ours say they say themselves.
func (k *keeper) hear(m *vici.Message, now time.Time) bool {
	line, id := text(m, "msg"), text(m, "ikesa-uniqueid")
	cause, _ := recognise([]string{line})
	t := k.named(text(m, "ikesa-name"))
	if t == nil && len(k.tunnels) == 1 && k.tunnels[0].Keying == IKE {
		t = k.tunnels[0] // a peer whose identity fits no connection has no name
	}
	if t == nil || cause == "" {
		return false
	}
	of := t.current.ike.ID == id && t.current.ike.ID != ""
	switch {
	case of && cause == causeUnreachable && strings.Contains(line, "giving up"):
		t.dpdFailures++
		t.lose(because(t.Tunnel, causeDPD, line), now)
		return true
	case of && cause == causeDeleted:
		t.lose(because(t.Tunnel, causeDeleted, line), now)
		return true
	case !t.found && !t.trying && unasked[cause]:
		if cause == t.why.cause {
			return false
		}
		t.failures[cause]++
		t.why = because(t.Tunnel, cause, line)
		t.report(now)
	}
	return false
}
