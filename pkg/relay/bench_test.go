package relay

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// burst is how many packets wait for the relay at a time in the benchmark.
const burst = 256

// BenchmarkForward is one busy flow over loopback: the relay's whole cost per packet, and
// the sender's part, who uses batches too. Nobody reads at the far end.
func BenchmarkForward(b *testing.B) {
	for name, treatment := range map[string]call.Treatment{"plain": call.AsIs, "alaw": call.ALawToULaw} {
		b.Run(name, func(b *testing.B) {
			p := newPair(b)
			p.flows[0].Payloads = []call.Payload{{In: 8, Out: 0, Treatment: treatment}}
			if err := p.Install(p.flows[:1]); err != nil {
				b.Fatal(err)
			}
			packets := make([][]byte, burst)
			for i := range packets {
				packets[i] = rtp(1)
			}
			q := newQuiver(p.a, p.in(), packets)
			forwarded := func() uint64 { return p.Engine.realms[1].exits[exitForwarded].Load() }
			b.ReportAllocs()
			b.ResetTimer()
			before := cpuTime(b)
			for sent := uint64(0); sent < uint64(b.N); {
				q.send()
				sent += burst
				for deadline := time.Now().Add(patience); forwarded() < sent; time.Sleep(100 * time.Microsecond) {
					if time.Now().After(deadline) {
						b.Fatalf("%d of %d forwarded", forwarded(), sent)
					}
				}
			}
			b.ReportMetric(float64(cpuTime(b)-before)/float64(forwarded()), "cpu-ns/packet")
		})
	}
}

// cpuTime is what the process has used, in the kernel too, where packets are sent and received.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t); err != nil {
		b.Fatal(err)
	}
	return time.Duration(t.Nano())
}
