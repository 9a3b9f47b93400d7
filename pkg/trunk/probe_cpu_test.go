package trunk_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/sipua"
	"github.com/tandem-sbc/tandem/pkg/trunk"
)

// noCalls is the handler of a stack that is there for probes.
type noCalls struct{}

func (noCalls) Invite(call.Leg, call.Invite) {}

// stackProber probes by a real stack. It sends all to one peer, whatever the target is: which
// address it has makes no difference to what a probe costs.
type stackProber struct {
	stack   *sipua.Stack
	peer    netip.AddrPort
	answers atomic.Int64
}

func (p *stackProber) Probe(ctx context.Context, _ string, _ netip.AddrPort) (trunk.Answer, error) {
	answer, err := p.stack.Options(ctx, p.peer)
	if err == nil {
		p.answers.Add(1)
	}
	return trunk.Answer(answer), err
}

// answerAll is a peer that answers each OPTIONS with 200 by the request's own fields.
func answerAll(t *testing.T) netip.AddrPort {
	t.Helper()
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() {
		_ = conn.Close()
		<-done
	})
	go func() {
		defer close(done)
		buf := make([]byte, 4096)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return // the test is over
			}
			_, fields, _ := bytes.Cut(buf[:n], []byte("\r\n"))
			fields = bytes.Replace(fields, []byte("\r\nCall-ID"), []byte(";tag=there\r\nCall-ID"), 1) // To is in front of it
			_, _ = conn.WriteToUDPAddrPort(append([]byte("SIP/2.0 200 OK\r\n"), fields...), from)
		}
	}()
	return conn.LocalAddr().(*net.UDPAddr).AddrPort()
}

// processTime is what the process has used of the CPUs.
func processTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// T6, issue 5: probing 200 trunks costs less than 1 % of a core. It is measured over a real
// stack at an interval of 1 s, peer included, and scaled to 25 s, the shortest by default.
func TestProbingIsCheap(t *testing.T) {
	const (
		trunks  = 200
		fast    = time.Second
		slow    = 25 * time.Second
		seconds = 4
	)
	p := &stackProber{peer: answerAll(t)}
	var err error
	p.stack, err = sipua.Listen(sipua.Config{
		Realm: "outside", Listen: netip.MustParseAddrPort("127.0.0.1:0"), Handler: noCalls{}, Log: slog.New(slog.DiscardHandler),
		Peer: func(netip.Addr) sipua.PeerKind { return sipua.PeerCarrier },
	})
	if err != nil {
		t.Fatal(err)
	}
	var configs []trunk.Config
	for i := range trunks {
		c := trunk.Config{Name: fmt.Sprintf("trunk-%d", i), Realm: "outside", Kind: trunk.Carrier, Targets: []string{fmt.Sprintf("192.0.2.%d", i+1)}}
		c.SetDefaults()
		c.ProbeInterval = fast
		configs = append(configs, c)
	}
	table, err := trunk.New(trunk.Configs{Trunks: configs}, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	go func() { ended <- p.stack.Run(ctx) }()
	go func() {
		ended <- trunk.Supervise(ctx, p, func() *trunk.Table { return table }, slog.New(slog.DiscardHandler))
	}()
	time.Sleep(fast) // each trunk had its first turn

	answers, began, used := p.answers.Load(), time.Now(), processTime(t)
	time.Sleep(seconds * time.Second)
	used, took := processTime(t)-used, time.Since(began)
	answers = p.answers.Load() - answers
	cancel()
	for range 2 {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	each := used / time.Duration(max(answers, 1))
	share := used.Seconds() / took.Seconds() * fast.Seconds() / slow.Seconds() * 100
	t.Logf("%d probes in %s, %s of CPU each with the peer: 200 trunks take %.3f %% of a core", answers, took.Round(time.Millisecond), each, share)
	if answers < trunks*(seconds-1) {
		t.Errorf("only %d probes were answered", answers)
	}
	if share >= 1 {
		t.Errorf("200 trunks take %.2f %% of a core, want less than 1 %%", share)
	}
	for _, tr := range table.All() {
		if c := tr.Condition(); c.State != trunk.InService {
			t.Errorf("%s is %+v", tr.Name(), c)
		}
	}
}
