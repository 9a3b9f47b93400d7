package b2bua

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tandem-sbc/tandem/pkg/media"
	"github.com/tandem-sbc/tandem/pkg/trunk"
)

// M4, M5, M7, M8: each side's media is under the terms of its own trunk's config.
func TestTermsAreTheTrunks(t *testing.T) {
	prefix := netip.MustParsePrefix
	for _, row := range []struct {
		name   string
		change func(*trunk.Config)
		want   media.Terms
	}{
		{"defaults are strict", func(*trunk.Config) {}, media.Terms{
			Codecs: []string{"opus", "PCMA", "PCMU", "G722", "G729"}, DTMF: media.Events, EventType: 101,
			Latch: media.LatchTerms{Allowed: []netip.Prefix{prefix("203.0.113.10/32")}, Described: true},
			Idle:  5 * time.Minute, IdleOneWay: 12 * time.Hour,
		}},
		{"everything set", func(c *trunk.Config) {
			c.Codecs, c.DTMF, c.DTMFPayloadType = []string{"PCMA"}, trunk.DTMFInband, 96
			c.MediaSource, c.LatchWindow, c.MediaPrefixes = trunk.Latch, 9*time.Second, []netip.Prefix{prefix("192.0.2.0/24")}
			c.IdleTimeout, c.IdleTimeoutOneWay = time.Minute, 0
		}, media.Terms{
			Codecs: []string{"PCMA"}, DTMF: media.Inband, EventType: 96,
			Latch: media.LatchTerms{Window: 9 * time.Second, Allowed: []netip.Prefix{prefix("192.0.2.0/24")}}, Idle: time.Minute,
		}},
		{"no keys", func(c *trunk.Config) {
			c.DTMF, c.Codecs, c.IdleTimeout, c.IdleTimeoutOneWay = trunk.DTMFNone, nil, 0, 0
		}, media.Terms{
			DTMF: media.None, EventType: 101, Latch: media.LatchTerms{Allowed: []netip.Prefix{prefix("203.0.113.10/32")}, Described: true},
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := trunk.Config{Name: "carrier", Realm: "outside", Kind: trunk.Carrier, Targets: []string{carrierPeer}}
			c.SetDefaults()
			row.change(&c)
			table, err := trunk.New(trunk.Configs{Trunks: []trunk.Config{c}}, nil)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(row.want, terms(table.Trunk("carrier")), cmpopts.EquateComparable(netip.Prefix{})); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}
