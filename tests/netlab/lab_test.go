package netlab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netns"

	"github.com/tandem-sbc/tandem/tests/netspace"
)

const ownerEnv = "TANDEM_TEST_LAB_OWNER"

// TestMain lets the test binary play the owner of a lab that dies.
func TestMain(m *testing.M) {
	if os.Getenv(ownerEnv) == "" {
		os.Exit(m.Run())
	}
	lab, err := Up(context.Background(), Default(false))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	p := lab.Command(context.Background(), Platform, "sleep", "600")
	if err := p.Start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(lab.ID(), p.PID())
	select {} // until killed
}

func requireRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a lab of network namespaces needs root")
	}
}

func up(t *testing.T, topology Topology) *Lab {
	t.Helper()
	requireRoot(t)
	lab, err := Up(t.Context(), topology)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lab.Close(); err != nil {
			t.Error(err)
		}
	})
	return lab
}

// remains lists what of a lab is still on this machine.
func remains(t *testing.T, id string) []string {
	t.Helper()
	var found []string
	for _, pattern := range []string{filepath.Join(netnsDir, id+"-*"), filepath.Join(stateDir, id+"*"), filepath.Join(bpffs, id+"*")} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, paths...)
	}
	return found
}

// alive reports whether a process runs; one that nobody has waited for yet does not.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(rest, "Z")
}

// eventually waits for something that another process does.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 5 s: %s", what)
		}
	}
}

// reach sends a datagram from one host to another.
func reach(t *testing.T, lab *Lab, from, to string) {
	t.Helper()
	addr := net.UDPAddrFromAddrPort(netip.AddrPortFrom(RealmOf(to).Peer, 7000))
	var listener, sender *net.UDPConn
	err := lab.Do(to, func() (err error) {
		listener, err = net.ListenUDP("udp4", addr)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	err = lab.Do(from, func() (err error) {
		sender, err = net.DialUDP("udp4", nil, addr)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer sender.Close()
	if _, err := sender.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if err := listener.SetReadDeadline(time.Now().Add(2 * time.Second)); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 16)
	n, peer, err := listener.ReadFromUDPAddrPort(got)
	if err != nil {
		t.Fatalf("%s to %s: %v", from, to, err)
	}
	if string(got[:n]) != "hello" || peer.Addr() != RealmOf(from).Peer {
		t.Errorf("%s to %s: %q from %v", from, to, got[:n], peer)
	}
}

// TestLabComesAndGoes: a lab works, and nothing of it stays after Close.
func TestLabComesAndGoes(t *testing.T) {
	lab := up(t, Default(true))
	for _, host := range []string{CarrierA, CarrierB} {
		reach(t, lab, Platform, host)
	}
	p := lab.Command(t.Context(), CarrierA, "sleep", "600")
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	if err := lab.Close(); err != nil {
		t.Fatal(err)
	}
	if err := lab.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	if alive(p.PID()) {
		t.Errorf("process %d outlived its lab", p.PID())
	}
	if left := remains(t, lab.ID()); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if err := lab.Command(t.Context(), CarrierA, "true").Run(); !errors.Is(err, errLabClosed) {
		t.Errorf("a command in a closed lab: %v, want %v", err, errLabClosed)
	}
}

// TestUpUnwinds: a topology that the kernel refuses half-way leaves nothing.
func TestUpUnwinds(t *testing.T) {
	requireRoot(t)
	topology := Default(false)
	topology.Links[2].B.Device = "lo" // is there already
	_, err := Up(t.Context(), topology)
	if !errors.Is(err, os.ErrExist) {
		t.Errorf("error %v, want one of %v", err, os.ErrExist)
	}
	if left := remains(t, fmt.Sprintf("tdm%dx", os.Getpid())); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Up(ctx, Default(false)); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if left := remains(t, fmt.Sprintf("tdm%dx", os.Getpid())); len(left) > 0 {
		t.Errorf("left behind after cancelling: %v", left)
	}
}

func TestTopologyIsChecked(t *testing.T) {
	addr := netip.MustParsePrefix("10.1.0.1/24")
	_, err := Up(t.Context(), Topology{
		Hosts: []Host{{Name: "a"}, {Name: "a"}},
		Links: []Link{{A: End{Host: "a", Device: "x0", Address: addr}, B: End{Host: "nobody", Device: "a-name-beyond-15"}, VLAN: 4095}},
	})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{`"a": the name`, "4094", "no such host"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q: %v", want, err)
		}
	}
}

// TestSweep: the remains of an owner that was killed go; a living lab, and namespaces
// that no lab made, stay.
func TestSweep(t *testing.T) {
	living := up(t, Default(false))
	foreign := fmt.Sprintf("tdm-foreign-%d", os.Getpid())
	ns, err := createNetns(foreign)
	if err != nil {
		t.Fatal(err)
	}
	ns.Close()
	t.Cleanup(func() {
		if err := deleteNetns(foreign); err != nil {
			t.Error(err)
		}
	})

	owner := exec.CommandContext(t.Context(), os.Args[0])
	owner.Env = append(os.Environ(), ownerEnv+"=1")
	owner.Stderr = os.Stderr
	out, err := owner.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := owner.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	id, pidText, _ := strings.Cut(strings.TrimSpace(line), " ")
	pid, err := strconv.Atoi(pidText)
	if err != nil {
		t.Fatal(err)
	}

	stale, err := Sweep()
	if err != nil {
		t.Fatal(err)
	}
	if slices.Contains(stale, id) || len(remains(t, id)) == 0 {
		t.Fatal("the lab of a living owner was swept")
	}
	if err := owner.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = owner.Wait() // killed: an error as it should be
	eventually(t, "the dead owner's process ends with it", func() bool { return !alive(pid) })
	if len(remains(t, id)) == 0 {
		t.Fatal("nothing to sweep: the test is wrong")
	}

	stale, err = Sweep()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(stale, id) {
		t.Errorf("swept %v, want %s among them", stale, id)
	}
	if left := remains(t, id); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if slices.Contains(stale, living.ID()) || len(remains(t, living.ID())) == 0 {
		t.Error("the living lab was swept")
	}
	if ns, err := netns.GetFromName(foreign); err != nil {
		t.Errorf("the namespace that no lab made: %v", err)
	} else {
		ns.Close()
	}
}

// TestVLAN: tagged cables work where the kernel has 802.1Q (N1).
func TestVLAN(t *testing.T) {
	requireRoot(t)
	supported, err := VLANSupported()
	if err != nil {
		t.Fatal(err)
	}
	if !supported {
		netspace.Lacks(t, "this kernel has no 802.1Q devices (CONFIG_VLAN_8021Q)")
	}
	topology := Default(true)
	for i := range topology.Links {
		topology.Links[i].VLAN = uint16(201 + i)
	}
	lab := up(t, topology)
	reach(t, lab, Platform, CarrierB)
}
