package app

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tandem-sbc/tandem/pkg/b2bua"
	"github.com/tandem-sbc/tandem/pkg/config"
	"github.com/tandem-sbc/tandem/pkg/datapath"
	"github.com/tandem-sbc/tandem/pkg/realm"
	"github.com/tandem-sbc/tandem/pkg/trunk"
)

func nobodyInUse() b2bua.InUse { return b2bua.InUse{} }

// tableOf makes trunks of one realm, written "name address address".
func tableOf(t *testing.T, trunks ...string) *trunk.Table {
	t.Helper()
	var configs trunk.Configs
	for _, text := range trunks {
		words := strings.Fields(text)
		c := trunk.Config{Name: words[0], Realm: "here", Kind: trunk.Carrier, Targets: words[1:]}
		c.SetDefaults()
		configs.Trunks = append(configs.Trunks, c)
	}
	table, err := trunk.New(configs, nil)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// hold takes a slot of a trunk.
func hold(t *testing.T, tr *trunk.Trunk) {
	t.Helper()
	release, refusal := tr.Acquire(trunk.Out, false)
	if refusal.Reason != trunk.NotRefused {
		t.Fatalf("trunk %s refuses a call: %s", tr.Name(), refusal.Reason)
	}
	t.Cleanup(release)
}

// known lists the addresses of leavers by their last part.
func known(l *leavers) string {
	var list []string
	for _, addr := range l.in("here") {
		list = append(list, fmt.Sprint(addr.As4()[3]))
	}
	slices.Sort(list)
	return strings.Join(list, " ")
}

// T1: a peer that was taken out of the config is heard for as long as a call has to do with its
// very address, or may come to have, and for SIP's timers behind that.
func TestLeaversStayWhileInUse(t *testing.T) {
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	speaking := func(addr string) b2bua.InUse {
		return b2bua.InUse{Peers: map[b2bua.Peer]struct{}{{Realm: "here", Addr: netip.MustParseAddr(addr)}: {}}}
	}
	former, next := tableOf(t, "a 192.0.2.1 192.0.2.2", "b 192.0.2.3"), tableOf(t, "b 192.0.2.3")
	hold(t, former.Trunk("a")) // that the trunk has a call says nothing of its addresses
	hunting := func(table *trunk.Table) b2bua.InUse {
		return b2bua.InUse{Hunting: map[*trunk.Table]struct{}{table: {}}}
	}
	type look struct {
		after time.Duration
		use   b2bua.InUse
		want  string
	}
	for name, looks := range map[string][]look{
		"no call": {
			{5 * time.Second, b2bua.InUse{}, "1 2"}, {lingering, b2bua.InUse{}, "1 2"}, {lingering + time.Second, b2bua.InUse{}, ""},
		},
		"a call at one address": {
			{5 * time.Second, speaking("192.0.2.1"), "1 2"}, {lingering + time.Second, speaking("192.0.2.1"), "1"}, {10 * time.Hour, speaking("192.0.2.1"), "1"},
			// It got CANCEL or BYE just after that look.
			{10*time.Hour + 5*time.Second, b2bua.InUse{}, "1"}, {10*time.Hour + lingering, b2bua.InUse{}, "1"}, {10*time.Hour + lingering + time.Second, b2bua.InUse{}, ""},
		},
		"a call in the same place of another realm": {
			{lingering + time.Second, b2bua.InUse{Peers: map[b2bua.Peer]struct{}{{Realm: "there", Addr: netip.MustParseAddr("192.0.2.1")}: {}}}, ""},
		},
		"a call of the former plan that still hunts": {
			{lingering + time.Second, hunting(former), "1 2"}, {2 * time.Minute, hunting(former), "1 2"},
			{2*time.Minute + lingering + time.Second, b2bua.InUse{}, ""},
		},
		"a call of the next plan that hunts": {{lingering + time.Second, hunting(next), ""}},
	} {
		t.Run(name, func(t *testing.T) {
			var l leavers
			l.begin(former, next, start)
			for _, k := range looks {
				before := known(&l)
				gone := l.look(start.Add(k.after), func() b2bua.InUse { return k.use })
				if got := known(&l); got != k.want || gone != (got != before) {
					t.Errorf("after %s: known are %q, want %q; that some are gone: %t", k.after, got, k.want, gone)
				}
			}
		})
	}
}

// A trunk that comes to a source which another one has left, and leaves it too, takes nothing
// from that one; neither does a plan that does not come.
func TestLeaversAtOneSource(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	here := netip.MustParseAddr("192.0.2.1")
	none := tableOf(t)
	a, c := tableOf(t, "a 192.0.2.1"), tableOf(t, "c 192.0.2.1")
	hold(t, a.Trunk("a"))
	hold(t, c.Trunk("c"))
	names := func(l *leavers) string {
		var list []string
		for _, tr := range l.removed(none) {
			list = append(list, tr.Name())
		}
		return strings.Join(list, " ")
	}
	var l leavers
	l.begin(a, none, now)
	end := l.begin(c, none, now)
	if got := names(&l); got != "a c" || l.of("here", here).Name() != "c" {
		t.Errorf("removed are %q, and the last one there was %s", got, l.of("here", here).Name())
	}
	end()
	if got := names(&l); got != "a" || l.of("here", here).Name() != "a" {
		t.Errorf("the second plan does not come: removed are %q", got)
	}
	l.begin(a, none, now.Add(time.Hour))()
	if l.look(now.Add(time.Hour+lingering), nobodyInUse); known(&l) != "1" {
		t.Error("a plan that did not come has taken away who had left before")
	}
	if !l.look(now.Add(time.Hour+lingering+time.Second), nobodyInUse) || l.of("here", here) != nil {
		t.Error("without calls it is known for good")
	}
}

// fakeKernel has what the kernel engine was told last.
type fakeKernel struct {
	mu      sync.Mutex
	peers   [][]netip.Addr // of each realm
	deny    []netip.Prefix
	refuses error
	// during runs while the first list is written, and not again.
	during func()
}

func (k *fakeKernel) Relist(realms []datapath.Realm, deny []netip.Prefix) error {
	if k.during != nil {
		k.during()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.refuses != nil {
		return k.refuses
	}
	k.peers, k.deny = nil, slices.Clone(deny)
	for _, r := range realms {
		k.peers = append(k.peers, r.Peers)
	}
	return nil
}

func (k *fakeKernel) Update([]datapath.Realm) error      { return nil }
func (k *fakeKernel) Attachments() []datapath.Attachment { return nil }

func (k *fakeKernel) want(t *testing.T, when string, deny string, outside ...string) {
	t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	var peers []netip.Addr
	for _, addr := range outside {
		peers = append(peers, netip.MustParseAddr(addr))
	}
	if len(k.peers) != 2 || !cmp.Equal(k.peers[1], peers, cmpopts.EquateComparable(netip.Addr{})) || fmt.Sprint(k.deny) != deny {
		t.Errorf("%s: the kernel knows %v and denies %v, want %v and %s", when, k.peers, k.deny, peers, deny)
	}
}

// listing is a daemon that only reloads, with a kernel that listens; file is what it reads.
func listing(t *testing.T) (d *daemon, k *fakeKernel, file *string) {
	t.Helper()
	text := scrapeConfig
	file = &text
	parse := func() (*config.Config, error) { return config.Parse("gw.yaml", []byte(*file)) }
	cfg, err := parse()
	if err != nil {
		t.Fatal(err)
	}
	k = new(fakeKernel)
	d = &daemon{cfg: cfg, reread: parse, log: slog.New(slog.DiscardHandler)}
	d.networkList = cfg.Networks()
	if d.networks, err = realm.NewNetworks(nobody, d.networkList, d.log); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.networks.Close(); err != nil {
			t.Error(err)
		}
	})
	d.kernel, d.bells = k, newBells(d.networkList)
	first, err := newPlan(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	d.plan.Store(first)
	return d, k, file
}

// S13 and issue 5: after a reload the kernel denies what the file denies, and knows who is in it
// and who has just left it. Without room for that nothing has changed.
func TestReloadTellsTheKernel(t *testing.T) {
	d, k, file := listing(t)
	reload := func(text string) error {
		t.Helper()
		*file = text
		_, _, err := d.reload(false, "")
		return err
	}
	const more = "  - {name: more, realm: outside, kind: carrier, targets: [198.51.100.77]}\nroutes:\n"
	with := "guard: {deny: [203.0.113.0/24]}\n" + strings.Replace(scrapeConfig, "routes:\n", more, 1)
	if err := reload(with); err != nil {
		t.Fatal(err)
	}
	k.want(t, "a trunk and a denial more", "[203.0.113.0/24]", "198.51.100.10", "198.51.100.77")

	k.refuses = errors.New("there is no room")
	if err := reload(scrapeConfig); err == nil || !strings.Contains(err.Error(), "there is no room") {
		t.Errorf("no room: %v", err)
	}
	k.refuses = nil
	if d.trunks().Trunk("more") == nil || len(d.leaving.in("outside")) > 0 {
		t.Errorf("no room: the trunk is gone, or leaving: %v", d.leaving.in("outside"))
	}

	if err := reload(scrapeConfig); err != nil {
		t.Fatal(err)
	}
	k.want(t, "both are taken out", "[]", "198.51.100.10", "198.51.100.77")
	d.leaving.look(time.Now().Add(time.Hour), nobodyInUse)
	if err := d.relist(); err != nil {
		t.Fatal(err)
	}
	k.want(t, "nobody speaks with it any more", "[]", "198.51.100.10")
}

// Whoever has the kernel's lists written while a reload runs does not bring the former ones back:
// they wait, and write those of the plan that there is then.
func TestRelistDuringAReload(t *testing.T) {
	d, k, file := listing(t)
	relisted := make(chan error, 1)
	k.during = func() {
		k.during = nil
		go func() { relisted <- d.relist() }()
		eventually(t, "the other one waits", func() bool {
			stacks := make([]byte, 1<<20)
			for _, stack := range strings.Split(string(stacks[:runtime.Stack(stacks, true)]), "\n\n") {
				if strings.Contains(stack, "(*daemon).relist(") && strings.Contains(stack, "[sync.Mutex.Lock") {
					return true
				}
			}
			return false
		})
	}
	*file = "guard: {deny: [203.0.113.0/24]}\n" + strings.Replace(scrapeConfig, "198.51.100.10", "198.51.100.77", 1)
	if _, _, err := d.reload(false, ""); err != nil {
		t.Fatal(err)
	}
	if err := <-relisted; err != nil {
		t.Fatal(err)
	}
	k.want(t, "after both", "[203.0.113.0/24]", "198.51.100.77", "198.51.100.10")
}
