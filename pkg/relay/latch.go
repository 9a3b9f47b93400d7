package relay

import (
	"net/netip"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// latch is what became of a call.Latch.
type latch struct {
	// until is the end of the window.
	until time.Time
	// learned is the only source that is let in from then on; invalid until then.
	learned netip.AddrPort
}

// follow brings the latch in step with an Install: a repeated description keeps what
// was learned and the window that runs, another one begins anew.
func (l *latch) follow(was, is call.Latch, now time.Time) {
	if is.Window == 0 {
		*l = latch{}
		return
	}
	if was.Window == 0 || was.Generation != is.Generation {
		*l = latch{until: now.Add(is.Window)}
	}
}

// letIn is the source gate (M7). Without a latch only Remote gets in, so that nobody can
// pull a stream to himself (RTP bleed). With one, the first source that is allowed and
// sends media that is plausible for this very stream is locked in; RTCP is none on an
// RTP port. The caller holds f.mu.
func (f *flow) letIn(e *Engine, p *packet, plausible bool) bool {
	if f.latch.learned.IsValid() {
		return p.from == f.latch.learned
	}
	def := &f.path.flow
	// Nobody answers to port 0, neither as Remote nor as one who is learned.
	remote := p.from == def.Remote && p.from.Port() != 0
	if !plausible || p.from.Port() == 0 || p.rtcp != def.RTCP || !p.at.Before(f.latch.until) {
		return remote
	}
	if !remote && !allowed(def.Latch.Allowed, p.from.Addr()) {
		return false
	}
	f.latch.learned = p.from
	e.emit(p.event(f.key, call.MediaLatched))
	return true
}

// remote is who is let in now, the zero value if nobody is. The caller holds f.mu.
func (f *flow) remote() netip.AddrPort {
	is := f.path.flow.Remote
	if f.latch.learned.IsValid() {
		is = f.latch.learned
	}
	if is.Port() == 0 || !is.IsValid() || is.Addr().IsUnspecified() {
		return netip.AddrPort{}
	}
	return is
}

func allowed(prefixes []netip.Prefix, a netip.Addr) bool {
	for _, p := range prefixes {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
