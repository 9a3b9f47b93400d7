package tunnels

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/tests/netlab"
)

// only are sites of those names, each with its primary tunnel alone.
func only(names ...string) []netlab.Site {
	var sites []netlab.Site
	for _, name := range names {
		s := netlab.SiteOf(name)
		s.Uplinks = s.Uplinks[:min(1, len(s.Uplinks))]
		sites = append(sites, s)
	}
	return sites
}

// TestRekey: I2. New keys of IKE and of ESP in mid-call cost no packet, whoever asks for
// them: the gateway at carrier-a, the carrier itself, and often, at carrier-b.
func TestRekey(t *testing.T) {
	l := wire(t, only(netlab.Platform, netlab.CarrierA, netlab.CarrierB)...)
	// The shortest lifetimes that the config allows; new keys come some time before.
	l.answering(t, 66*time.Second)
	l.load(t, netlab.CarrierA)
	l.load(t, netlab.CarrierB, func(c *netlab.Connection) {
		c.IKE = []string{"rekey_time = 10s", "over_time = 5s"}
		c.Child = []string{"rekey_time = 5s", "life_time = 10s", "rand_time = 1s"}
	})
	l.run(t, netlab.TrunkOptions{
		Engine: call.EngineKernel,
		IKE:    map[string][]string{"a-primary": {"lifetime: 1m", "child_lifetime: 30s"}},
	})
	l.ready(t)
	logs := l.watch(t, netlab.Platform, netlab.CarrierA, netlab.CarrierB)
	callers := []agent{l.call(t, netlab.Platform, netlab.PrefixA, 1), l.call(t, netlab.Platform, netlab.PrefixB, 1)}
	wait(t, callers...)
	captured := logs()
	// A kernel drops a packet that it has chosen a SA for if that goes before the packet gets there.
	// That is a matter of microseconds, but of milliseconds on emulated processors, and what the
	// carriers' own kernels lose that way is no loss of the gateway's.
	var carriers uint64
	for _, site := range []string{netlab.CarrierA, netlab.CarrierB} {
		carriers += counter(t, l.sh(t, site, "cat /proc/net/xfrm_stat"), "XfrmOutStateInvalid")
	}
	report := netlab.CompareMedia(netlab.Calls(captured...), captured...)
	if report.Lost == 0 || report.Lost > carriers {
		media(t, 2, captured...)
	}
	for _, at := range report.LostAt {
		t.Logf("lost at %v; %d packets in all by the carriers themselves", at.Format("15:04:05.000"), carriers)
	}
	if t.Failed() {
		for _, site := range []string{netlab.CarrierA, netlab.CarrierB} {
			t.Logf("drops at %s:\n%s", site, drops(l.sh(t, site, "cat /proc/net/xfrm_stat")))
			t.Logf("drops at the gateway's side of %s:\n%s", site, drops(l.xfrmStat(t, site)))
		}
	}
	for name, want := range map[string]struct{ ike, child uint64 }{"a-primary": {1, 1}, "b-primary": {3, 6}} {
		tunnel := l.tunnel(t, name)
		t.Logf("%s: %d new keys of IKE, %d of ESP", name, tunnel.IKERekeys, tunnel.ChildRekeys)
		if tunnel.IKERekeys < want.ike || tunnel.ChildRekeys < want.child || tunnel.State != call.TunnelUp {
			t.Errorf("%s: %d new keys of IKE, %d of ESP, want %d and %d at least; it is %s",
				name, tunnel.IKERekeys, tunnel.ChildRekeys, want.ike, want.child, tunnel.State)
		}
	}
}

// drops are the lines of /proc/net/xfrm_stat that count something.
func drops(stat string) string {
	var lines []string
	for line := range strings.Lines(stat) {
		if fields := strings.Fields(line); len(fields) == 2 && fields[1] != "0" {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}

// counter is one line of /proc/net/xfrm_stat.
func counter(t *testing.T, stat, name string) uint64 {
	t.Helper()
	for line := range strings.Lines(stat) {
		if fields := strings.Fields(line); len(fields) == 2 && fields[0] == name {
			n, err := strconv.ParseUint(fields[1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("no %s in:\n%s", name, stat)
	return 0
}

// manualKey is a line of a key file: an SPI and 36 octets of AES-256 key and salt.
type manualKey struct {
	spi uint32
	key string
}

func newKey(spi uint32) manualKey {
	var key [36]byte
	_, _ = rand.Read(key[:]) // never fails
	return manualKey{spi, hex.EncodeToString(key[:])}
}

func (k manualKey) line() string { return fmt.Sprintf("0x%x %s\n", k.spi, k.key) }

// manualPeer is a carrier's equipment without IKE.
type manualPeer struct {
	l    *lab
	site netlab.Site
}

// state adds a security association, ours seen from the site.
func (p manualPeer) state(t *testing.T, k manualKey, inbound bool) {
	t.Helper()
	u := p.site.Uplinks[0]
	src, dst := u.Peer.Addr(), u.Gateway.Addr()
	if inbound {
		src, dst = dst, src
	}
	p.l.sh(t, p.site.Name, fmt.Sprintf("ip xfrm state add src %v dst %v proto esp spi 0x%x reqid 1 mode tunnel aead rfc4106(gcm(aes)) 0x%s 128 "+
		"replay-window 128 flag af-unspec esn if_id 1", src, dst, k.spi, k.key))
}

func (p manualPeer) remove(t *testing.T, k manualKey, inbound bool) {
	t.Helper()
	u := p.site.Uplinks[0]
	src, dst := u.Peer.Addr(), u.Gateway.Addr()
	if inbound {
		src, dst = dst, src
	}
	p.l.sh(t, p.site.Name, fmt.Sprintf("ip xfrm state delete src %v dst %v proto esp spi 0x%x", src, dst, k.spi))
}

func (p manualPeer) policies(t *testing.T) {
	t.Helper()
	u := p.site.Uplinks[0]
	for _, d := range []struct {
		dir        string
		from, to   any
		outer, end any
	}{
		{"out", netlab.CarrierNetwork, netlab.GatewayNetwork, u.Peer.Addr(), u.Gateway.Addr()},
		{"in", netlab.GatewayNetwork, netlab.CarrierNetwork, u.Gateway.Addr(), u.Peer.Addr()},
	} {
		p.l.sh(t, p.site.Name, fmt.Sprintf("ip xfrm policy add src %v dst %v dir %s if_id 1 tmpl src %v dst %v proto esp reqid 1 mode tunnel", d.from, d.to, d.dir, d.outer, d.end))
	}
}

// TestManualKeys: I5. A carrier without IKE; its keys are changed in mid-call, inbound before
// outbound, and not a packet is lost. The keys are in the files and nowhere else.
func TestManualKeys(t *testing.T) {
	sites := only(netlab.Platform, netlab.CarrierB)
	need(t)
	l := &lab{sites: sites}
	l.up(t, netlab.Trunked(sites))
	if err := l.Terminate(sites[1]); err != nil {
		t.Fatal(err)
	}
	peer := manualPeer{l, sites[1]}
	in, out := []manualKey{newKey(0x1001), newKey(0x1002)}, []manualKey{newKey(0x2001), newKey(0x2002)}
	peer.policies(t)
	peer.state(t, in[0], false)
	peer.state(t, out[0], true)
	keys := func(inbound, outbound string) (in, out string) {
		t.Helper()
		paths := make([]string, 2)
		for i, f := range []struct{ name, content string }{{"b.inbound", inbound}, {"b.outbound", outbound}} {
			var err error
			if paths[i], err = l.SecretFile(f.name, f.content); err != nil {
				t.Fatal(err)
			}
		}
		return paths[0], paths[1]
	}
	inFile, outFile := keys(in[0].line(), out[0].line())
	l.answering(t, 20*time.Second)
	l.run(t, netlab.TrunkOptions{Engine: call.EngineKernel, LogLevel: "debug", Tunnels: map[string][]string{
		"b-primary": {"keying: manual", fmt.Sprintf("manual: {inbound: \"file:%s\", outbound: \"file:%s\", grace: 2s}", inFile, outFile)},
	}})
	l.ready(t)
	wire, logs := l.tap(t), l.watch(t, netlab.Platform, netlab.CarrierB)
	caller := l.call(t, netlab.Platform, netlab.PrefixB, 1)
	l.talking(t, 1)
	time.Sleep(2 * time.Second) // speech on the old keys
	reload := func(what string, left func() string) {
		t.Helper()
		if err := l.daemon.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		l.await(t, what, left)
	}
	// gone looks for an association at the gateway.
	gone := func(k manualKey) string {
		states := l.underlay(t, netlab.CarrierB, "xfrm state list nokeys")
		if strings.Contains(states, fmt.Sprintf("spi 0x%08x", k.spi)) {
			return states
		}
		return ""
	}
	// Each side first takes the new keys in, then uses them.
	peer.state(t, out[1], true)
	keys(in[0].line()+in[1].line(), out[1].line())
	reload("new keys in use", func() string {
		if n := l.tunnel(t, "b-primary").KeyChanges; n != 1 {
			return fmt.Sprintf("%d changes of keys", n)
		}
		return ""
	})
	l.await(t, "the old outbound key gone", func() string { return gone(out[0]) })
	peer.state(t, in[1], false)
	peer.remove(t, in[0], false)
	time.Sleep(time.Second)
	keys(in[1].line(), out[1].line())
	reload("the old inbound key gone", func() string { return gone(in[0]) })
	peer.remove(t, out[0], true)
	wait(t, caller)
	media(t, 1, logs()...)
	l.onlyIPsec(t, stopped(t, wire).Wire)
	tunnel := l.tunnel(t, "b-primary")
	if tunnel.State != call.TunnelUp || tunnel.In.Packets < uint64(packets(l.talk)) || tunnel.Out.Packets < uint64(packets(l.talk)) || tunnel.Errors["replay"]+tunnel.Errors["integrity"] != 0 {
		t.Errorf("after the change: %+v", tunnel)
	}
	l.secret(t, in[0], in[1], out[0], out[1])
}

// secret asserts that keys are in no log, no answer of the API and no command line. It ends the
// daemon.
func (l *lab) secret(t *testing.T, keys ...manualKey) {
	t.Helper()
	api, err := json.Marshal([]any{l.tunnels(t), l.realms(t), l.status(t), l.trunks(t)})
	if err != nil {
		t.Fatal(err)
	}
	said := map[string]string{"the API": string(api), "the CLI": l.sh(t, netlab.Management, binary(t, "tandem")+" --socket "+l.AdminSocket()+" tunnels b-primary")}
	commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range commands {
		if line, err := os.ReadFile(path); err == nil {
			said["a command line"] += string(line)
		}
	}
	maps.Copy(said, l.written(t))
	if !strings.Contains(said["the log"], "manual keys changed") {
		t.Error("the log does not have the change of keys: the test could not tell")
	}
	for _, k := range keys {
		for where, text := range said {
			if strings.Contains(strings.ToLower(text), k.key[:16]) {
				t.Errorf("a key is in %s", where)
			}
		}
	}
}
