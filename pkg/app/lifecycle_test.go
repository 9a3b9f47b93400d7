package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tandem-sbc/tandem/pkg/admin"
	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/config"
	"github.com/tandem-sbc/tandem/pkg/datapath"
	"github.com/tandem-sbc/tandem/pkg/realm"
	"github.com/tandem-sbc/tandem/tests/netspace"
)

// configEnv makes the test binary a daemon with this config: one that can be killed.
const configEnv = "TDM_APP_CONFIG"

func runDaemon(path string) int {
	cfg, err := config.Load(path)
	if err == nil {
		signals := make(chan os.Signal, 2)
		signal.Notify(signals, syscall.SIGTERM)
		err = Run(context.Background(), cfg, func() (*config.Config, error) { return config.Load(path) }, "v0", signals)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// site is a namespace with two devices for daemons that are processes of their own.
type site struct {
	space *netspace.Space
	dir   string
	pins  string
	user  *syscall.Credential // nil is root
	// managed makes the network of the realm inside the daemon's business.
	managed bool
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{space: netspace.New(t), dir: t.TempDir(), pins: fmt.Sprintf("/sys/fs/bpf/tdm-%s-%d", t.Name(), os.Getpid())}
	for _, args := range []string{
		"link add tdmin type veth peer name tdmout",
		"address add 192.0.2.1/24 dev tdmin", "address add 198.51.100.1/24 dev tdmout", "link set tdmin up", "link set tdmout up",
	} {
		s.space.IP(t, args)
	}
	t.Cleanup(func() {
		s.space.Do(func() {
			if _, err := datapath.Unload(s.pins); err != nil {
				t.Error(err)
			}
		})
	})
	return s
}

// config is that of one of the site's daemons.
func (s *site) config(t *testing.T, engine string) string {
	t.Helper()
	path := filepath.Join(s.dir, engine+".yaml")
	text := fmt.Sprintf("engine: %s\npins: %s\nmax_calls: 16\nlog: {level: warn, format: json}\nmetrics: {address: \"\"}\n"+
		"admin: {socket: %s/admin.sock}\ncdr: {file: %s/cdr.jsonl}\n%s", engine, s.pins, s.dir, s.dir, scrapeConfig)
	if s.managed {
		text = strings.ReplaceAll(text, "network: existing, interface: tdmin", "network: managed, interface: tdmin")
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// start runs a daemon and returns it with its status once it is up.
func (s *site) start(t *testing.T, engine string) (*exec.Cmd, admin.Status) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe") // its folder is closed to other users
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.user}
	cmd.Env = append(os.Environ(), configEnv+"="+s.config(t, engine))
	said, err := os.Create(s.log())
	if err != nil {
		t.Fatal(err)
	}
	defer said.Close()
	cmd.Stderr = said
	s.space.Do(func() { err = cmd.Start() })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill() // it may have ended already
			_ = cmd.Wait()
		}
	})
	api := admin.NewClient(filepath.Join(s.dir, "admin.sock"))
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		status, err := api.Status(t.Context())
		if err == nil {
			return cmd, status
		}
		if time.Now().After(deadline) {
			s.end(t, cmd, syscall.SIGKILL)
			t.Fatalf("the daemon does not come up: %v, %s", err, s.said(t))
		}
	}
}

// log is what the last daemon has said, and said its text.
func (s *site) log() string { return filepath.Join(s.dir, "log") }

func (s *site) said(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(s.log())
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// end sends a signal and waits for the end.
func (s *site) end(t *testing.T, cmd *exec.Cmd, sig syscall.Signal) {
	t.Helper()
	if err := cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil && sig != syscall.SIGKILL {
		t.Errorf("the daemon ended with %v: %s", err, s.said(t))
	}
}

func (s *site) pinned(t *testing.T) bool {
	t.Helper()
	_, err := os.Stat(s.pins)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return err == nil
}

// unload does what tandemd --unload does, and returns what it says.
func (s *site) unload(t *testing.T) (string, error) {
	t.Helper()
	cfg, err := config.Load(s.config(t, call.EngineKernel))
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	s.space.Do(func() { err = Unload(cfg, &out) })
	return out.String(), err
}

// H5: the programs outlive the daemon, however it ends, and the next one goes on with
// them; --unload takes them away when nobody uses them, and not before.
func TestKernelStateOutlivesTheDaemon(t *testing.T) {
	s := newSite(t)
	daemon, status := s.start(t, call.EngineKernel)
	k := status.Kernel
	if k == nil || k.ABI == 0 || k.Pins != s.pins || k.Adopted != 0 || len(k.Attachments) < 2 {
		t.Fatalf("status of the kernel engine: %+v", k)
	}
	for _, a := range k.Attachments {
		if !a.Pinned || a.Hook == "" || a.Hook == "xdp" && a.Mode == "" {
			t.Errorf("attachment %+v", a)
		}
	}
	if said, err := s.unload(t); !errors.Is(err, ErrRunning) || !strings.Contains(err.Error(), "stop it first") || said != "" {
		t.Errorf("unloaded under a running daemon: %q, %v", said, err)
	}
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		s.end(t, daemon, sig)
		if out := s.space.IP(t, "-details link show tdmin"); !strings.Contains(out, "prog/xdp") || !s.pinned(t) {
			t.Errorf("after %s the program is gone:\n%s", sig, out)
		}
		daemon, status = s.start(t, call.EngineKernel)
		if diff := cmp.Diff(k, status.Kernel); diff != "" {
			t.Errorf("the successor after %s (-first +successor):\n%s", sig, diff)
		}
	}
	s.end(t, daemon, syscall.SIGTERM)
	if said, err := s.unload(t); err != nil || !strings.HasPrefix(said, "unloaded: ") || s.pinned(t) {
		t.Errorf("unload: %q, %v", said, err)
	}
	if out := s.space.IP(t, "-details link show tdmin"); strings.Contains(out, "prog/xdp") {
		t.Errorf("a program is left after unload:\n%s", out)
	}
	if said, err := s.unload(t); err != nil || !strings.HasPrefix(said, "nothing to unload: ") {
		t.Errorf("unload again: %q, %v", said, err)
	}
}

// The user-space engine's sockets would see no packet under the programs that a daemon
// with the kernel engine left: they drop what they have no flow for.
func TestUserspaceEngineClearsTheKernel(t *testing.T) {
	s := newSite(t)
	daemon, _ := s.start(t, call.EngineKernel)
	s.end(t, daemon, syscall.SIGTERM)
	if !s.pinned(t) {
		t.Fatal("nothing was left in the kernel")
	}
	daemon, status := s.start(t, call.EngineUserspace)
	if s.pinned(t) || status.Kernel != nil {
		t.Errorf("the kernel's state is still there: %+v", status.Kernel)
	}
	s.end(t, daemon, syscall.SIGTERM)
}

// Programs that other pins keep would drop the media just so: the user-space engine does not start above
// them, and says how to take them away.
func TestUserspaceEngineMeetsOtherPins(t *testing.T) {
	s := newSite(t)
	daemon, _ := s.start(t, call.EngineKernel)
	s.end(t, daemon, syscall.SIGTERM)
	unpinned := *s
	unpinned.pins = "none"
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), configEnv+"="+unpinned.config(t, call.EngineUserspace))
	var out []byte
	var err error
	s.space.Do(func() { out, err = cmd.CombinedOutput() })
	var failed *exec.ExitError
	if !errors.As(err, &failed) || !strings.Contains(string(out), "is attached to tdmin (xdp)") || !strings.Contains(string(out), "tandemd --unload") {
		t.Errorf("the user-space engine under programs of other pins: %v, %s", err, out)
	}
	if said, err := s.unload(t); err != nil {
		t.Errorf("unload: %q, %v", said, err)
	}
	daemon, _ = unpinned.start(t, call.EngineUserspace)
	s.end(t, daemon, syscall.SIGTERM)
}

// A config whose pins are on no bpffs says nothing of what the kernel has: that is no success.
func TestUnloadWithoutBPFFS(t *testing.T) {
	var out strings.Builder
	err := Unload(&config.Config{Node: testNode, Pins: t.TempDir()}, &out)
	if !errors.Is(err, datapath.ErrNoBPFFS) || !strings.Contains(err.Error(), "nsenter") || out.Len() > 0 {
		t.Errorf("unload: %q, %v", out.String(), err)
	}
}

// The kernel engine is told of each realm's device, tags, SIP port and known peers (S13).
func TestKernelRealms(t *testing.T) {
	cfg, err := config.Parse("realms.yaml", []byte(`
node: test
realms:
  - {name: inside, network: existing, interface: eth1, address: 192.0.2.1/24, sip_port: 5070, media_ports: 10000-19999}
  - {name: outside, network: existing, interface: eth2, outer_vlan: 100, vlan: 201, address: 198.51.100.1/24, media_ports: 20000-29999}
trunks:
  - {name: platform, realm: inside, kind: platform, targets: [192.0.2.10, "192.0.2.10:5080", 192.0.2.11]}
  - {name: a, realm: outside, kind: carrier, targets: [198.51.100.10]}
  - {name: b, realm: outside, kind: carrier, targets: [198.51.100.20]}
routes:
  - {name: out, trunk: a}
`))
	if err != nil {
		t.Fatal(err)
	}
	addr := netip.MustParseAddr
	want := []datapath.Realm{
		{Number: 1, Points: []datapath.Point{{Ifindex: 7, Bare: true}}, Addr: addr("192.0.2.1"), Media: call.PortRange{First: 10000, Last: 19999}, SIPPort: 5070,
			Peers: []netip.Addr{addr("192.0.2.10"), addr("192.0.2.11")}, Room: 6},
		{Number: 2, Points: []datapath.Point{{Ifindex: 8, VLAN: 201, OuterVLAN: 100}}, Addr: addr("198.51.100.1"), Media: call.PortRange{First: 20000, Last: 29999}, SIPPort: 5060,
			Peers: []netip.Addr{addr("198.51.100.10"), addr("198.51.100.20")}, Room: 4},
	}
	first, err := newPlan(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	got := kernelRealms(cfg, first.trunks, []realm.Attachment{
		{Points: []realm.Point{{Ifindex: 7, Bare: true}}},
		{Points: []realm.Point{{Ifindex: 8, VLAN: 201, OuterVLAN: 100}}},
	})
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
