package ipsec

import (
	"context"
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

// supersede ends one of two SAs that do the same. Before the peer hears of it our policies
// point to the one that stays, so that nothing is under way by the other one.
func (k *keeper) supersede(ctx context.Context, t *tunnel, s sa) {
	if err := steer(k.realm.Namespace, t.IfID, t.current.child.Out); err != nil {
		k.log.Warn("superfluous security association is left", "realm", k.realm.Name, "tunnel", t.Name, "error", err)
		return
	}
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

// ended takes in an attempt that has ended.
func (k *keeper) ended(a attempt) {
	t := a.tunnel
	t.trying = false
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
			} else if t != nil {
				t.childRekeys++
			}
		}
	}
	return true
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
