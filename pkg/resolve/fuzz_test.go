package resolve

import (
	"context"
	"encoding/binary"
	"sync/atomic"
	"testing"

	"github.com/miekg/dns"
	"golang.org/x/net/dns/dnsmessage"
)

// FuzzAnswer turns what a server may send into a set: never a panic, always within
// bounds, and an error, a denial or targets, exactly one of them.
func FuzzAnswer(f *testing.F) {
	for _, seed := range seeds(f) {
		f.Add(seed[0], seed[1])
	}
	target, err := ParseTarget("example.com")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, srv, a []byte) {
		var questions atomic.Int32
		ask := asker(func(_ context.Context, q question) (answer, error) {
			questions.Add(1)
			msg := a
			if q.kind == dnsmessage.TypeSRV {
				msg = srv
			}
			id := uint16(0)
			if len(msg) > 1 {
				id = binary.BigEndian.Uint16(msg)
			}
			got, err := q.parse(msg, id)
			if err == nil && (got.ttl < shortestTTL || got.ttl > longestTTL || got.aliases > maxAliases || len(got.records) > maxRecords) {
				t.Errorf("out of bounds: %+v", got)
			}
			return got, err
		})
		got, err := ask.find(t.Context(), target, UDP, Set{})
		outcomes := 0
		for _, is := range []bool{err != nil, got.denied != nil, got.set.Len() > 0} {
			if is {
				outcomes++
			}
		}
		if outcomes != 1 {
			t.Errorf("%d outcomes: %+v, %v", outcomes, got, err)
		}
		if got.set.Len() > maxEndpoints || questions.Load() > 1+maxEndpoints*(maxAliases+2) {
			t.Errorf("%d targets after %d questions", got.set.Len(), questions.Load())
		}
		for i := range got.set.Len() {
			e := got.set.At(i)
			if _, err := parseName(e.Host); err != nil || !isHost(e.Addr.Addr()) || e.Addr.Port() == 0 {
				t.Errorf("%+v is no target", e)
			}
		}
	})
}

// seeds are answers of a real server: to the SRV question and to the one for addresses.
func seeds(f *testing.F) [][2][]byte {
	s := &dnsServer{t: f}
	s.set(
		"_sip._udp.example.com. 60 IN SRV 10 60 5060 example.com.",
		"_sip._udp.example.com. 60 IN SRV 20 0 5062 a.example.com.",
		"_sip._udp.alias.example.com. 60 IN CNAME _sip._udp.example.com.",
		"_sip._udp.gone.example.com. 60 IN SRV 0 0 0 .",
		"example.com. 60 IN A 192.0.2.1",
		"example.com. 4294967295 IN A 192.0.2.2",
		"a.example.com. 60 IN CNAME b.example.com.",
		"b.example.com. 0 IN A 192.0.2.3",
		"loop.example.com. 0 IN CNAME loop.example.com.",
	)
	pack := func(owner string, kind uint16, changes ...func(*dns.Msg)) []byte {
		reply := s.answer(new(dns.Msg).SetQuestion(owner, kind))
		for _, change := range changes {
			change(reply)
		}
		msg, err := reply.Pack()
		if err != nil {
			f.Fatal(err)
		}
		return msg
	}
	// as asks one thing and claims that it was another.
	as := func(name string) func(*dns.Msg) { return func(m *dns.Msg) { m.Question[0].Name = name } }
	rcode := func(code int) func(*dns.Msg) { return func(m *dns.Msg) { m.Rcode = code } }
	truncated := func(m *dns.Msg) { m.Truncated = true }

	const service = "_sip._udp.example.com."
	full, address := pack(service, dns.TypeSRV), pack("example.com.", dns.TypeA)
	return [][2][]byte{
		{full, address},
		{full, pack("a.example.com.", dns.TypeA)},
		{full, pack("loop.example.com.", dns.TypeA)},
		{pack("_sip._udp.alias.example.com.", dns.TypeSRV, as(service)), address},
		{pack("_sip._udp.gone.example.com.", dns.TypeSRV), address},
		{pack("_sip._udp.gone.example.com.", dns.TypeSRV, as(service)), address},
		{pack(service, dns.TypeSRV, func(m *dns.Msg) { m.Answer[0].(*dns.SRV).Target = "." }), address},
		{pack(service, dns.TypeSRV, func(m *dns.Msg) { m.Answer = m.Answer[:0] }), address},
		{pack(service, dns.TypeSRV, rcode(dns.RcodeNameError)), address},
		{pack(service, dns.TypeSRV, rcode(dns.RcodeServerFailure)), address},
		{pack(service, dns.TypeSRV, truncated), address},
		{full, pack("example.com.", dns.TypeA, rcode(dns.RcodeNameError))},
		{full[:len(full)-3], address},
		{full, address[:20]},
		{nil, nil},
	}
}
