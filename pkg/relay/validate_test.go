package relay

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// TestValidate: what the contract does not allow is refused, as in the kernel engine.
func TestValidate(t *testing.T) {
	v6 := netip.MustParseAddrPort("[2001:db8::1]:4000")
	prefix := netip.MustParsePrefix("192.0.2.0/24")
	for name, tt := range map[string]struct {
		change func(f *call.Flow)
		valid  bool
	}{
		"as it is":              {func(*call.Flow) {}, true},
		"no remote":             {func(f *call.Flow) { f.Remote = netip.AddrPort{} }, true},
		"remote IPv6":           {func(f *call.Flow) { f.Remote = v6 }, false},
		"local IPv6":            {func(f *call.Flow) { f.Key.Local = v6 }, false},
		"local port 0":          {func(f *call.Flow) { f.Key.Local = netip.AddrPortFrom(alice.Addr(), 0) }, false},
		"no destination":        {func(f *call.Flow) { f.Dest = netip.AddrPort{} }, false},
		"destination 0.0.0.0":   {func(f *call.Flow) { f.Dest = netip.MustParseAddrPort("0.0.0.0:4000") }, false},
		"destination multicast": {func(f *call.Flow) { f.Dest = netip.MustParseAddrPort("224.0.0.1:4000") }, false},
		"no source":             {func(f *call.Flow) { f.Source = netip.AddrPort{} }, false},
		"no way out, on hold":   {func(f *call.Flow) { f.Hold, f.Source, f.Dest = true, netip.AddrPort{}, netip.AddrPort{} }, true},
		"DSCP 63":               {func(f *call.Flow) { f.DSCP = 63 }, true},
		"DSCP 64":               {func(f *call.Flow) { f.DSCP = 64 }, false},
		"no clock rate":         {func(f *call.Flow) { f.ClockRate = 0 }, true},
		"clock rate too low":    {func(f *call.Flow) { f.ClockRate = 999 }, false},
		"clock rate too high":   {func(f *call.Flow) { f.ClockRate = 1_000_001 }, false},
		"types 0 and 127":       {func(f *call.Flow) { f.Payloads = []call.Payload{{In: 0, Out: 127}, {In: 127}} }, true},
		"type 128 in":           {func(f *call.Flow) { f.Payloads = []call.Payload{{In: 128}} }, false},
		"type 128 out":          {func(f *call.Flow) { f.Payloads = []call.Payload{{Out: 128}} }, false},
		"type given twice":      {func(f *call.Flow) { f.Payloads = []call.Payload{{In: 8}, {In: 8, Out: 8}} }, false},
		"unknown treatment":     {func(f *call.Flow) { f.Payloads = []call.Payload{{Treatment: call.TelephoneEvent + 1}} }, false},
		"latch":                 {func(f *call.Flow) { f.Latch = call.Latch{Window: 1, Allowed: allowedHere} }, true},
		"latch from nowhere":    {func(f *call.Flow) { f.Latch = call.Latch{Window: time.Second} }, false},
		"latch window negative": {func(f *call.Flow) { f.Latch = call.Latch{Window: -1, Allowed: allowedHere} }, false},
		"latch from 9 prefixes": {func(f *call.Flow) { f.Latch = call.Latch{Window: 1, Allowed: slices.Repeat([]netip.Prefix{prefix}, 9)} }, false},
		"latch from IPv6": {func(f *call.Flow) {
			f.Latch = call.Latch{Window: 1, Allowed: []netip.Prefix{netip.PrefixFrom(v6.Addr(), 64)}}
		}, false},
		"latch from no prefix":    {func(f *call.Flow) { f.Latch = call.Latch{Window: 1, Allowed: []netip.Prefix{{}}} }, false},
		"allowed without a latch": {func(f *call.Flow) { f.Latch = call.Latch{Allowed: allowedHere} }, true},
	} {
		f := between(alice, loopback(10000), loopback(20000), natted)[0]
		tt.change(&f)
		if err := validate(&f); (err == nil) != tt.valid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestCanonical: an address has one form, and what the caller changes later changes no flow.
func TestCanonical(t *testing.T) {
	mapped := netip.AddrPortFrom(netip.AddrFrom16(alice.Addr().As16()), alice.Port())
	f := call.Flow{Key: call.FlowKey{Local: mapped}, Remote: mapped, Source: mapped, Dest: mapped,
		Payloads: []call.Payload{{In: 8}}, Latch: call.Latch{Allowed: slices.Clone(allowedHere)}}
	got := canonical(f)
	for _, a := range []netip.AddrPort{got.Key.Local, got.Remote, got.Source, got.Dest} {
		if a != alice {
			t.Errorf("%v, want %v", a, alice)
		}
	}
	f.Payloads[0].In, f.Latch.Allowed[0] = 9, netip.Prefix{}
	if got.Payloads[0].In != 8 || got.Latch.Allowed[0] != allowedHere[0] {
		t.Errorf("%+v shares memory with its caller", got)
	}
}
