package ipsec

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/tests/netspace"
)

// Addresses of the lab: the outer ones of both sides, and the inner ones.
var (
	ourOuter, peerOuter = netip.MustParsePrefix("192.0.2.1/30"), netip.MustParsePrefix("192.0.2.2/30")
	ourInner, peerInner = netip.MustParseAddr("10.60.0.1"), netip.MustParseAddr("10.50.0.10")
	peerNet             = netip.MustParsePrefix("10.50.0.0/24")
)

// needsXfrm skips where the kernel has no xfrm interfaces or no AES-GCM for ESP; the VM has.
func needsXfrm(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: network namespaces")
	}
	err := onOwnThread(func() error {
		ns, err := netns.New()
		if err != nil {
			return err
		}
		defer ns.Close()
		return netlink.LinkAdd(&netlink.Xfrmi{LinkAttrs: netlink.LinkAttrs{Name: "tdmprobe", ParentIndex: 1}, Ifid: 1})
	})
	if err != nil {
		netspace.Lacks(t, "the kernel has no xfrm interfaces (CONFIG_XFRM_INTERFACE): %v", err)
	}
}

// onOwnThread runs f on a thread that is thrown away.
func onOwnThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		done <- f()
	}()
	return <-done
}

// ikeLab is a gateway's namespace and a peer's, with a cable between them.
type ikeLab struct {
	t         *testing.T
	name      string
	run       string
	ours      string
	theirs    string
	peer      *charon
	peerRules *client
}

var ikeLabs int

// newIKELab makes both namespaces. The peer has no charon yet.
func newIKELab(t *testing.T) *ikeLab {
	t.Helper()
	needsXfrm(t)
	ikeLabs++
	name := fmt.Sprintf("tdmike%d", ikeLabs)
	run, err := os.MkdirTemp("/tmp", "tdm")
	if err != nil {
		t.Fatal(err)
	}
	l := &ikeLab{t: t, name: name, run: run, ours: "/run/netns/" + name + "-gw", theirs: "/run/netns/" + name + "-peer"}
	for _, path := range []string{l.ours, l.theirs} {
		namespace(t, path)
	}
	l.cable()
	t.Cleanup(func() {
		if t.Failed() {
			for _, f := range []string{filepath.Join(run, "gw", "carrier-a", logFile), filepath.Join(run, "peer", "carrier-a", logFile)} {
				b, err := os.ReadFile(f)
				t.Logf("%s (%v):\n%s", f, err, b[max(0, len(b)-6000):])
			}
		}
		for _, node := range []string{"gw", "peer"} {
			if _, err := Sweep(run, node, nil); err != nil {
				t.Error(err)
			}
		}
		if err := os.RemoveAll(run); err != nil {
			t.Error(err)
		}
	})
	var p *charon
	if p, err = newCharon(run, "peer", "carrier-a", l.theirs, DefaultCharon); err != nil {
		t.Fatal(err)
	}
	l.peer = p
	return l
}

// namespace makes a network namespace with a name, as `ip netns add` does.
func namespace(t *testing.T, path string) {
	t.Helper()
	if err := onOwnThread(func() error {
		ns, err := netns.NewNamed(filepath.Base(path))
		if err != nil {
			return err
		}
		defer ns.Close()
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(lo)
	}); err != nil {
		t.Fatalf("namespace %s: %v", path, err)
	}
	t.Cleanup(func() {
		if err := netns.DeleteNamed(filepath.Base(path)); err != nil && !os.IsNotExist(err) {
			t.Error(err)
		}
	})
}

// cable connects the two, with outer and inner addresses, and our xfrm interface.
func (l *ikeLab) cable() {
	l.t.Helper()
	theirs, err := netns.GetFromPath(l.theirs)
	if err != nil {
		l.t.Fatal(err)
	}
	defer theirs.Close()
	l.in(l.ours, func() error {
		veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "tdmwire"}, PeerName: "tdmwire", PeerNamespace: netlink.NsFd(theirs)}
		if err := netlink.LinkAdd(veth); err != nil {
			return fmt.Errorf("veth: %w", err)
		}
		if err := addressed("tdmwire", ourOuter); err != nil {
			return err
		}
		wire, err := netlink.LinkByName("tdmwire")
		if err != nil {
			return err
		}
		x := &netlink.Xfrmi{LinkAttrs: netlink.LinkAttrs{Name: "tdx1-carrier-a", ParentIndex: wire.Attrs().Index, MTU: 1200}, Ifid: 1}
		if err := netlink.LinkAdd(x); err != nil {
			return fmt.Errorf("xfrm interface: %w", err)
		}
		if err := addressed("tdx1-carrier-a", netip.PrefixFrom(ourInner, 32)); err != nil {
			return err
		}
		dev, err := netlink.LinkByName("tdx1-carrier-a")
		if err != nil {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{LinkIndex: dev.Attrs().Index, Dst: ipNet(peerNet), Src: ourInner.AsSlice()})
	})
	l.in(l.theirs, func() error {
		if err := addressed("tdmwire", peerOuter); err != nil {
			return err
		}
		if err := addressed("lo", netip.PrefixFrom(peerInner, 32)); err != nil {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{Dst: ipNet(netip.PrefixFrom(ourInner, 32)), Gw: ourOuter.Addr().AsSlice(), Src: peerInner.AsSlice()})
	})
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 32)}
}

func addressed(device string, p netip.Prefix) error {
	link, err := netlink.LinkByName(device)
	if err != nil {
		return err
	}
	if err := netlink.AddrAdd(link, &netlink.Addr{IPNet: ipNet(p)}); err != nil {
		return fmt.Errorf("%s on %s: %w", p, device, err)
	}
	return netlink.LinkSetUp(link)
}

func (l *ikeLab) in(path string, f func() error) {
	l.t.Helper()
	if err := inNamespace(path, f); err != nil {
		l.t.Fatal(err)
	}
}

// secret writes a secret to a file.
func (l *ikeLab) secret(name, value string) Secret {
	l.t.Helper()
	path := filepath.Join(l.run, name)
	if err := os.WriteFile(path, []byte(value+"\n"), 0o600); err != nil {
		l.t.Fatal(err)
	}
	s, err := NewSecret("file:" + path)
	if err != nil {
		l.t.Fatal(err)
	}
	return s
}

// tunnel is our side's, with times that suit a test.
func (l *ikeLab) tunnel() Tunnel {
	var c Config
	c.SetDefaults()
	c.Name, c.Realm = "primary", "carrier-a"
	c.Local, c.Remote = ourOuter, peerOuter.Addr()
	c.Networks = []netip.Prefix{peerNet}
	c.Monitor = MonitorNone
	c.IKE.PSK = l.secret("psk", "correct horse")
	c.IKE.DPDDelay, c.IKE.DPDTries, c.IKE.DPDTimeout = 2*time.Second, 2, time.Second
	return Tunnel{Config: c, Device: "tdx1-carrier-a", IfID: 1}
}

// mirrored is what the peer needs to have for t.
func (l *ikeLab) mirrored(t Tunnel) Tunnel {
	t.Local, t.Remote = peerOuter, ourOuter.Addr()
	t.Networks = []netip.Prefix{netip.PrefixFrom(ourInner, 32)}
	t.IKE.LocalID, t.IKE.RemoteID = t.IKE.RemoteID, t.IKE.LocalID
	t.IfID = 0
	return t
}

// startPeer starts the peer's charon, which knows nothing yet.
func (l *ikeLab) startPeer(t Tunnel) {
	l.t.Helper()
	if err := l.peer.start(l.t.Context(), t.IKE); err != nil {
		l.t.Fatal(err)
	}
	c, err := dial(l.t.Context(), l.peer.socket(), listings[:1])
	if err != nil {
		l.t.Fatal(err)
	}
	l.peerRules = c
	l.t.Cleanup(func() { _ = c.close() })
}

// loadPeer gives the peer its config: strongSwan's defaults where they are not ours, with the
// network as its local selector.
func (l *ikeLab) loadPeer(t Tunnel) {
	l.t.Helper()
	if _, err := l.loader(t).client.names(l.t.Context(), "get-conns", "conns"); err != nil {
		l.t.Fatal(err)
	}
	c, err := readPeerCredentials(t)
	if err != nil {
		l.t.Fatal(err)
	}
	if err := l.loader(t).tunnel(l.t.Context(), t, c, false, make(map[string]bool)); err != nil {
		l.t.Fatal(err)
	}
	// The loader has taken the realm's address for the selector; a peer has a network.
	conn, err := connection(t, peerInner, c)
	if err != nil {
		l.t.Fatal(err)
	}
	body := section(conn, t.Name)
	child := section(section(body, "children"), t.Name)
	for _, err := range []error{
		child.Set("local_ts", []string{peerNet.String()}), body.Set("unique", "replace"),
	} {
		if err != nil {
			l.t.Fatal(err)
		}
	}
	child.Unset("reqid")
	if err := l.loader(t).conn(l.t.Context(), conn, t.Name); err != nil {
		l.t.Fatal(err)
	}
}

// readPeerCredentials reads them without our checks: a peer may have an expired certificate.
func readPeerCredentials(t Tunnel) (credentials, error) {
	if t.IKE.Auth == PSK {
		return readCredentials(t, time.Now())
	}
	own, err := readCertificates(t.IKE.Certificate)
	if err != nil {
		return credentials{}, err
	}
	ca, err := readCertificates(t.IKE.CA)
	if err != nil {
		return credentials{}, err
	}
	key, err := t.IKE.Key.Read()
	return credentials{chain: [][]byte{own[0].Raw}, ca: [][]byte{ca[0].Raw}, key: key}, err
}

func (l *ikeLab) loader(Tunnel) *loader {
	return &loader{client: l.peerRules, inner: peerInner, record: record{Connections: make(map[string]prints)}, now: time.Now()}
}

// killPeer is a crash: the process ends, and a reboot has emptied the kernel.
func (l *ikeLab) killPeer() {
	l.t.Helper()
	_ = l.peerRules.close()
	if err := l.peer.end(false); err != nil {
		l.t.Fatal(err)
	}
	l.in(l.theirs, func() error {
		if err := netlink.XfrmStateFlush(0); err != nil {
			return err
		}
		return netlink.XfrmPolicyFlush()
	})
}

// supervision is a Supervisor that runs, with what it says.
type supervision struct {
	*Supervisor
	t      *testing.T
	log    *logBuffer
	cancel context.CancelFunc
	done   chan error
	mu     sync.Mutex
	states []State
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// supervise starts a Supervisor of the lab's realm; it is stopped with the test.
func (l *ikeLab) supervise(tunnels ...Tunnel) *supervision {
	l.t.Helper()
	return l.superviseBy(DefaultCharon, tunnels...)
}

func (l *ikeLab) superviseBy(binary string, tunnels ...Tunnel) *supervision {
	l.t.Helper()
	s := &supervision{t: l.t, log: &logBuffer{}, done: make(chan error, 1)}
	var err error
	s.Supervisor, err = New(Options{
		Node: "gw", Run: l.run, Charon: binary,
		Realms: []Realm{{Name: "carrier-a", Namespace: l.ours, Inner: ourInner, Tunnels: tunnels}},
		Changed: func(_ string, state State) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.states = append(s.states, state)
		},
		Log: slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		l.t.Fatal(err)
	}
	var ctx context.Context
	ctx, s.cancel = context.WithCancel(context.WithoutCancel(l.t.Context()))
	go func() { s.done <- s.Run(ctx) }()
	l.t.Cleanup(s.stop)
	return s
}

// stop ends the daemon's part; charon goes on.
func (s *supervision) stop() {
	if s.cancel == nil {
		return
	}
	s.cancel()
	s.cancel = nil
	select {
	case err := <-s.done:
		if err != nil {
			s.t.Error(err)
		}
	case <-time.After(20 * time.Second):
		s.t.Error("the supervision does not end")
	}
	if s.t.Failed() {
		s.t.Logf("log:\n%s", s.log)
	}
}

// await polls the first tunnel until it is as wanted.
func (s *supervision) await(what string, within time.Duration, ok func(call.Tunnel) bool) call.Tunnel {
	s.t.Helper()
	var last call.Tunnel
	for deadline := time.Now().Add(within); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if last = s.Status()[0]; ok(last) {
			return last
		}
	}
	s.t.Fatalf("%s: not within %s, but %+v", what, within, last)
	return last
}

func isUp(t call.Tunnel) bool { return t.State == call.TunnelUp }

// spis are the SPIs that carry, from charon.
func (l *ikeLab) spis() []uint32 {
	l.t.Helper()
	return spisOf(l.sas(filepath.Join(l.run, "gw", "carrier-a", socketFile)))
}

func spisOf(sas []ikeSA) []uint32 {
	var all []uint32
	for _, s := range sas {
		for _, c := range s.Children {
			if c.State == childInstalled {
				all = append(all, c.In, c.Out)
			}
		}
	}
	return all
}

func (l *ikeLab) sas(socket string) []ikeSA {
	l.t.Helper()
	c, err := dial(l.t.Context(), socket, listings[:1])
	if err != nil {
		l.t.Fatal(err)
	}
	defer c.close()
	sas, err := c.sas(l.t.Context())
	if err != nil {
		l.t.Fatal(err)
	}
	return sas
}

// quietSPIs are the SPIs that carry, or none if charon is just not there.
func (l *ikeLab) quietSPIs() []uint32 {
	c, err := dial(l.t.Context(), filepath.Join(l.run, "gw", "carrier-a", socketFile), listings[:1])
	if err != nil {
		return nil
	}
	defer c.close()
	sas, err := c.sas(l.t.Context())
	if err != nil {
		return nil
	}
	return spisOf(sas)
}

// quiet is a file's content, or nothing.
func (l *ikeLab) quiet(path string) []byte {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	return b
}

// deleteNamespace takes a namespace's name away, which is what `ip netns del` does.
func (l *ikeLab) deleteNamespace(path string) {
	l.t.Helper()
	if err := netns.DeleteNamed(filepath.Base(path)); err != nil {
		l.t.Fatal(err)
	}
}

func contains(t *testing.T, text string, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("%q does not name %q", text, w)
		}
	}
}
