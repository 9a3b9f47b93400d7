// Package tunnels holds the scenarios of carriers behind VLANs and tunnels: a real tandemd, a
// real strongSwan at each carrier, SIPp peers, and captures on the wire that say what became
// of it. It needs root, bin/tandemd and bin/tandem (make build), and a kernel with 802.1Q, VRF
// and xfrm interfaces: `make test-vm` brings one.
package tunnels

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tandem-sbc/tandem/pkg/admin"
	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/tests/netlab"
	"github.com/tandem-sbc/tandem/tests/netspace"
	"github.com/tandem-sbc/tandem/tests/sipp"
)

// binaries are built by `make build`.
const binaries = "../../bin"

// patience is how long something may take that has no limit of its own, on an emulated
// machine that is busy.
const patience = 60 * time.Second

// lab is one with the trunk topology, its gateway and its carriers' charons.
type lab struct {
	*netlab.Lab
	sites  []netlab.Site
	peers  map[string]*netlab.Charon
	daemon *netlab.Daemon
	// said is all that the daemons have logged; read it only when the last one has ended.
	said bytes.Buffer
	api  *admin.Client
	// callees at all sites talk for that long.
	callees []*sipp.Agent
	talk    time.Duration
	// callers so far, to tell them apart.
	callers uint16
}

// need skips where the kernel cannot.
func need(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("namespaces need root")
	}
	lack, err := netlab.TunnelsLack()
	if err != nil {
		t.Fatal(err)
	}
	if len(lack) > 0 {
		netspace.Lacks(t, "this kernel lacks %s: use `make test-vm`", strings.Join(lack, ", "))
	}
}

// wire brings the sites up, each tunnelled one with a charon that is started and has nothing
// loaded.
func wire(t *testing.T, sites ...netlab.Site) *lab {
	t.Helper()
	need(t)
	return wireTo(t, netlab.Trunked(sites), sites, sites)
}

// wireTo is wire with a topology in which the ends of the gateway's sites are elsewhere.
func wireTo(t *testing.T, topology netlab.Topology, sites, ends []netlab.Site) *lab {
	t.Helper()
	l := &lab{sites: sites, peers: map[string]*netlab.Charon{}}
	l.up(t, topology)
	for _, s := range ends {
		if len(s.Uplinks) == 0 {
			continue
		}
		if err := l.Terminate(s); err != nil {
			t.Fatal(err)
		}
		peer, err := l.Charon(s.Name)
		if err != nil {
			t.Fatal(err)
		}
		l.peers[s.Name] = peer
		t.Cleanup(func() {
			if t.Failed() {
				t.Logf("charon of %s said:\n%s", s.Name, last(peer.Log(), 30))
			}
		})
		l.startPeer(t, s.Name)
	}
	return l
}

// up makes the lab real.
func (l *lab) up(t *testing.T, topology netlab.Topology) {
	t.Helper()
	var err error
	if l.Lab, err = netlab.Up(t.Context(), topology); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("the lab left something behind: %v", err)
		}
	})
}

// last lines of a text.
func last(text string, lines int) string {
	all := strings.Split(text, "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

func (l *lab) site(name string) netlab.Site {
	for _, s := range l.sites {
		if s.Name == name {
			return s
		}
	}
	return netlab.Site{}
}

func (l *lab) startPeer(t *testing.T, site string) {
	t.Helper()
	if err := l.peers[site].Start(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// load makes a site's charon accept its tunnels, each connection as with changes it.
func (l *lab) load(t *testing.T, site string, with ...func(*netlab.Connection)) {
	t.Helper()
	connections := l.site(site).Connections()
	for i := range connections {
		for _, change := range with {
			change(&connections[i])
		}
	}
	if err := l.peers[site].Load(t.Context(), connections...); err != nil {
		t.Fatal(err)
	}
}

// run starts the gateway for all sites.
func (l *lab) run(t *testing.T, o netlab.TrunkOptions) {
	t.Helper()
	if o.Sites == nil {
		o.Sites = l.sites
	}
	var err error
	l.daemon, err = l.StartTrunkGateway(t.Context(), binary(t, "tandemd"), o, &l.said)
	if err != nil {
		t.Fatal(err)
	}
	l.api = admin.NewClient(l.daemon.Socket)
	daemon := l.daemon
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the daemon said:\n%s", daemon.Said())
		}
	})
}

func binary(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join(binaries, name))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v: use `make test-vm`, or `make build` first", err)
	}
	return path
}

// stop ends the daemon in good order; what it leaves running and in the kernel stays.
func (l *lab) stop(t *testing.T) {
	t.Helper()
	if err := l.daemon.Stop(syscall.SIGTERM, 30*time.Second); err != nil {
		t.Fatal(err)
	}
	if err := l.daemon.Wait(); err != nil {
		t.Fatalf("the daemon did not end well: %v", err)
	}
}

// carriers is the lab of most tests: platform, two carriers with the same addresses, and one
// on a clear VLAN, with all tunnels up and all trunks in service.
func carriers(t *testing.T, o netlab.TrunkOptions) *lab {
	t.Helper()
	l := wire(t, netlab.Sites()...)
	l.answering(t, 2*time.Second)
	for _, name := range []string{netlab.CarrierA, netlab.CarrierB} {
		l.load(t, name)
	}
	l.run(t, o)
	l.ready(t)
	return l
}

// answering has callees at all sites, who talk for that long in each call.
func (l *lab) answering(t *testing.T, talk time.Duration) {
	t.Helper()
	if l.talk == talk {
		return
	}
	l.talk = talk
	for _, c := range l.callees {
		if _, err := c.Stop(10 * time.Second); err != nil {
			t.Errorf("callee: %v", err)
		}
	}
	l.callees = nil
	for i, s := range l.sites {
		l.callees = append(l.callees, l.sipp(t, s.Name, sipp.Config{
			Scenario: sipp.Answer, Audio: sipp.Audio{Seed: uint64(100 + i), Packets: packets(talk)},
		}))
	}
}

// packets of 20 ms.
func packets(talk time.Duration) int { return int(talk / (20 * time.Millisecond)) }

// ready waits until all tunnels are up and all trunks in service.
func (l *lab) ready(t *testing.T) {
	t.Helper()
	l.await(t, "all tunnels up", func() string {
		for _, tunnel := range l.tunnels(t) {
			if tunnel.State != call.TunnelUp {
				return fmt.Sprintf("%s is %s: %s", tunnel.Name, tunnel.State, tunnel.Reason)
			}
		}
		return ""
	})
	l.await(t, "all trunks in service", func() string {
		for _, trunk := range l.trunks(t) {
			if trunk.State != "in-service" {
				return fmt.Sprintf("%s is %s: %s", trunk.Name, trunk.State, trunk.Reason)
			}
		}
		return ""
	})
}

// await waits until left, which says what is missing still, has nothing to say. It returns
// how long that took.
func (l *lab) await(t *testing.T, what string, left func() string) time.Duration {
	t.Helper()
	return awaitWithin(t, patience, what, left)
}

func awaitWithin(t *testing.T, limit time.Duration, what string, left func() string) time.Duration {
	t.Helper()
	start := time.Now()
	for {
		missing := left()
		if missing == "" {
			return time.Since(start)
		}
		if time.Since(start) > limit {
			t.Fatalf("%s: not within %v: %s", what, limit, missing)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// ask reads one resource of the daemon's API.
func ask[T any](t *testing.T, get func(context.Context) (T, error)) T {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	value, err := get(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

func (l *lab) tunnels(t *testing.T) []call.Tunnel      { t.Helper(); return ask(t, l.api.Tunnels) }
func (l *lab) realms(t *testing.T) []call.Realm        { t.Helper(); return ask(t, l.api.Realms) }
func (l *lab) trunks(t *testing.T) []admin.TrunkStatus { t.Helper(); return ask(t, l.api.Trunks) }
func (l *lab) status(t *testing.T) admin.Status        { t.Helper(); return ask(t, l.api.Status) }

func (l *lab) tunnel(t *testing.T, name string) call.Tunnel {
	t.Helper()
	for _, tunnel := range l.tunnels(t) {
		if tunnel.Name == name {
			return tunnel
		}
	}
	t.Fatalf("no tunnel %s", name)
	return call.Tunnel{}
}

func (l *lab) realm(t *testing.T, name string) call.Realm {
	t.Helper()
	for _, realm := range l.realms(t) {
		if realm.Name == name {
			return realm
		}
	}
	t.Fatalf("no realm %s", name)
	return call.Realm{}
}

func (l *lab) trunk(t *testing.T, name string) admin.TrunkStatus {
	t.Helper()
	for _, trunk := range l.trunks(t) {
		if trunk.Name == name {
			return trunk
		}
	}
	t.Fatalf("no trunk %s", name)
	return admin.TrunkStatus{}
}

// sipp starts a SIPp process at a site; callers are aimed at the gateway.
func (l *lab) sipp(t *testing.T, site string, c sipp.Config) agent {
	t.Helper()
	s := l.site(site)
	c.Local = s.Peer
	if !c.Remote.IsValid() {
		c.Remote = netip.AddrPortFrom(s.Gateway.Addr(), 5060)
	}
	agent, err := sipp.Start(context.WithoutCancel(t.Context()), l.Lab, site, c)
	if err != nil {
		t.Fatal(err)
	}
	return agent
}

// call makes calls from a site, all at once, that talk as long as the callees do. No two
// calls of a lab have the same number.
func (l *lab) call(t *testing.T, from, prefix string, count int) agent {
	t.Helper()
	l.callers++
	n := l.callers
	return l.sipp(t, from, sipp.Config{
		// 100 ports of RTP each, more than there are calls.
		Scenario: sipp.Call, SIPPort: 5060 + n, MediaPort: 30000 + 200*n,
		Number: fmt.Sprintf("%s%02d", prefix, n), Calls: count, Rate: 10,
		Audio: sipp.Audio{Seed: uint64(n), Packets: packets(l.talk)},
		// An emulated machine is late at times.
		Talk: l.talk + 3*time.Second,
	})
}

// agent is a SIPp process.
type agent = *sipp.Agent

// wait lets calls end and fails the test for each that failed.
func wait(t *testing.T, callers ...agent) {
	t.Helper()
	for _, c := range callers {
		if stats, err := c.Wait(); err != nil || stats.Failed > 0 {
			t.Errorf("calls to %s...: %+v, %v", c.Config.Number, stats, err)
		}
	}
}

// talking waits until so many calls are answered and live.
func (l *lab) talking(t *testing.T, n int) {
	t.Helper()
	l.await(t, fmt.Sprintf("%d calls", n), func() string {
		answered := 0
		for _, c := range ask(t, l.api.Calls) {
			if c.State == call.Answered {
				answered++
			}
		}
		if answered == n {
			return ""
		}
		return fmt.Sprintf("%d are answered", answered)
	})
}

// sh runs a program in a host and returns what it printed.
func (l *lab) sh(t *testing.T, host, line string) string {
	t.Helper()
	out, err := l.try(t, host, line)
	if err != nil {
		t.Fatalf("%s: %s: %v: %s", host, line, err, out)
	}
	return out
}

// try is sh for what may fail.
func (l *lab) try(t *testing.T, host, line string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	args := strings.Fields(line)
	p := l.Command(context.WithoutCancel(t.Context()), host, args[0], args[1:]...) // clean-ups use it too
	p.Stdout, p.Stderr = &out, &out
	err := p.Run()
	return out.String(), err
}

// underlay runs iproute2 in the namespace of a realm's outer side.
func (l *lab) underlay(t *testing.T, realm, line string) string {
	t.Helper()
	return l.sh(t, netlab.Gateway, fmt.Sprintf("ip -n tdm-%s-%s %s", l.ID(), realm, line))
}

// cli runs bin/tandem with --json and decodes what it prints.
func cli[T any](t *testing.T, l *lab, args string) T {
	t.Helper()
	var value T
	out := l.sh(t, netlab.Management, fmt.Sprintf("%s --socket %s --json %s", binary(t, "tandem"), l.AdminSocket(), args))
	if err := json.Unmarshal([]byte(out), &value); err != nil {
		t.Fatalf("tandem %s printed %q: %v", args, out, err)
	}
	return value
}

// charons are the processes in the namespace of a realm's outer side.
func (l *lab) charons(t *testing.T, realm string) []int {
	t.Helper()
	var pids []int
	for _, field := range strings.Fields(l.sh(t, netlab.Gateway, fmt.Sprintf("ip netns pids tdm-%s-%s", l.ID(), realm))) {
		var pid int
		if _, err := fmt.Sscan(field, &pid); err != nil {
			t.Fatal(err)
		}
		name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(string(name), "charon") {
			pids = append(pids, pid)
		}
	}
	return pids
}

// written is what the daemons and the gateway's charons have written, by where; it ends the
// daemon.
func (l *lab) written(t *testing.T) map[string]string {
	t.Helper()
	l.stop(t)
	texts := map[string]string{"the log": l.said.String()}
	err := filepath.WalkDir(l.IPsecRun(), func(path string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist): // without IKE there is no charon
			return nil
		case err != nil || !entry.Type().IsRegular():
			return err
		}
		text, err := os.ReadFile(path)
		texts[path] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return texts
}

// alive reports whether a process is there.
func alive(pid int) bool { return syscall.Kill(pid, 0) == nil }
