package app

import (
	"context"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// Leaks are looked at every leakInterval, and told of once a leakSilence for each realm and reason.
const (
	leakInterval = 5 * time.Second
	leakSilence  = time.Minute
)

// leakReasons are the engine's exits for packets that had no business in a realm (N5), with
// what an operator has to know of them.
var leakReasons = map[string]string{
	"clear-text":  "came in clear where only ESP is due",
	"wrong-realm": "have the addresses of another realm",
}

// leaks are the packets of a realm that had no business there, by reason. None is a number too:
// a rate needs something to begin with.
func leaks(stats call.EngineStats, realm uint16) map[string]uint64 {
	var found map[string]uint64
	for _, x := range stats.Exits {
		if x.Realm != realm || leakReasons[x.Reason] == "" {
			continue
		}
		if found == nil {
			found = make(map[string]uint64)
		}
		found[x.Reason] += x.Packets
	}
	return found
}

// watchLeaks raises the alarm when packets come where they have no business (N5).
func (d *daemon) watchLeaks(ctx context.Context) error {
	type leak struct {
		realm  uint16
		reason string
	}
	seen, told := make(map[leak]uint64), make(map[leak]time.Time)
	var unseen lastError
	tick := time.NewTicker(leakInterval)
	defer tick.Stop()
	for first := true; ; {
		stats, err := d.engine.Stats()
		if unseen.changes(err) {
			d.log.Warn("packets that have no business in their realm go unseen", "error", err)
		}
		for i, r := range d.cfg.Realms {
			for reason, packets := range leaks(stats, realmNumber(i)) {
				key := leak{realmNumber(i), reason}
				// What a former process has counted is no news.
				if packets > seen[key] && !first && time.Since(told[key]) >= leakSilence {
					d.log.Warn("packets were dropped that "+leakReasons[reason], "realm", r.Name, "reason", reason,
						"packets", packets-seen[key], "total", packets)
					told[key], seen[key] = time.Now(), packets
				}
				if first {
					seen[key] = packets
				}
			}
		}
		first = first && err != nil
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
