package realm

import (
	"bytes"
	"context"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/tests/netspace"
)

// lan is a gateway's namespace with one device towards a peer's.
type lan struct {
	gateway, peer *netspace.Space
	config        Config
	log           slog.Handler
}

func newLAN(t *testing.T) *lan {
	t.Helper()
	l := &lan{gateway: netspace.New(t), peer: netspace.New(t), log: slog.DiscardHandler, config: Config{
		Name:      "platform",
		Network:   Existing,
		Interface: "tdmgw",
		Address:   netip.MustParsePrefix("192.0.2.2/24"),
		Gateway:   netip.MustParseAddr("192.0.2.1"),
	}}
	l.gateway.IP(t, "link add tdmgw address 02:00:00:00:00:02 type veth peer name tdmpeer address 02:00:00:00:00:10 netns "+l.peer.Path)
	l.gateway.IP(t, "addr add 192.0.2.2/24 dev tdmgw")
	l.gateway.IP(t, "link set tdmgw up")
	for _, addr := range []string{"192.0.2.1/24", "192.0.2.10/24"} {
		l.peer.IP(t, "addr add "+addr+" dev tdmpeer")
	}
	l.peer.IP(t, "link set tdmpeer up")
	return l
}

// inside runs f on a thread of its own in the namespace, until f returns.
func inside(t *testing.T, s *netspace.Space, f func()) (done <-chan struct{}) {
	t.Helper()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		fd, err := os.Open(s.Path)
		if err != nil {
			t.Error(err)
			return
		}
		defer fd.Close()
		if err := unix.Setns(int(fd.Fd()), unix.CLONE_NEWNET); err != nil {
			t.Error(err)
			return
		}
		f()
	}()
	return ended
}

// start makes the realm's neighbours and follows events until the test ends.
func (l *lan) start(t *testing.T) *Neighbours {
	t.Helper()
	n := l.make(t)
	l.run(t, n)
	return n
}

func (l *lan) make(t *testing.T) *Neighbours {
	t.Helper()
	var n *Neighbours
	var err error
	l.gateway.Do(func() { n, err = NewNeighbours([]Network{{Number: 1, Config: l.config}}, slog.New(l.log)) })
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (l *lan) run(t *testing.T, n *Neighbours) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := inside(t, l.gateway, func() {
		if err := n.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(func() {
		cancel()
		<-done
	})
}

// watch returns what the watcher of an address is told.
func (l *lan) watch(t *testing.T, n *Neighbours, dst string) <-chan call.NextHop {
	t.Helper()
	updates := make(chan call.NextHop, 1000)
	l.watchBy(t, n, dst, func(h call.NextHop) { updates <- h })
	return updates
}

func (l *lan) watchBy(t *testing.T, n *Neighbours, dst string, update func(call.NextHop)) (stop func()) {
	t.Helper()
	var err error
	l.gateway.Do(func() { stop, err = n.Watch(1, netip.MustParseAddr(dst), update) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return stop
}

// limit is far beyond what any change may take.
const limit = 20 * time.Second

// await waits for the update that has this header; nil is unresolved.
func await(t *testing.T, updates <-chan call.NextHop, l2 []byte) call.NextHop {
	t.Helper()
	return awaitWithin(t, updates, limit, func(h call.NextHop) bool { return bytes.Equal(h.L2, l2) })
}

// awaitVia waits for the update that names this neighbour; "" is no route.
func awaitVia(t *testing.T, updates <-chan call.NextHop, neighbour string) call.NextHop {
	t.Helper()
	want := netip.Addr{}
	if neighbour != "" {
		want = netip.MustParseAddr(neighbour)
	}
	return awaitWithin(t, updates, limit, func(h call.NextHop) bool { return h.Neighbour == want })
}

func awaitWithin(t *testing.T, updates <-chan call.NextHop, within time.Duration, want func(call.NextHop) bool) call.NextHop {
	t.Helper()
	late := time.After(within)
	var last call.NextHop
	for {
		select {
		case last = <-updates:
			if want(last) {
				return last
			}
		case <-late:
			t.Fatalf("not in %v; the last next hop is %+v", within, last)
		}
	}
}

// at returns what the watcher has been told already.
func at(t *testing.T, updates <-chan call.NextHop) call.NextHop {
	t.Helper()
	select {
	case h := <-updates:
		return h
	default:
		t.Fatal("nothing was told at once")
		return call.NextHop{}
	}
}

// poll waits until a condition holds.
func poll(t *testing.T, what string, holds func() bool) {
	t.Helper()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	late := time.After(limit)
	for !holds() {
		select {
		case <-again.C:
		case <-late:
			t.Fatalf("not in %v: %s", limit, what)
		}
	}
}

// tune sets one of the kernel's neighbour parameters of the realm's device.
func (l *lan) tune(t *testing.T, parameter, value string) {
	t.Helper()
	sysctl(t, l.gateway, "neigh/tdmgw/"+parameter, value)
}

func sysctl(t testing.TB, s *netspace.Space, key, value string) {
	t.Helper()
	s.Do(func() {
		if err := os.WriteFile(filepath.Join("/proc/sys/net/ipv4", key), []byte(value), 0); err != nil {
			t.Errorf("set net.ipv4.%s: %v", key, err)
		}
	})
}

// index returns a device's ifindex.
func (l *lan) index(t *testing.T, device string) int {
	t.Helper()
	return indexOf(t, l.gateway, device)
}

func header(to, from byte) []byte {
	return []byte{2, 0, 0, 0, 0, to, 2, 0, 0, 0, 0, from, 8, 0}
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }
