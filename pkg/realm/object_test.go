package realm

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/tests/netspace"
)

// TestFilters: when the reverse path filter of all devices is switched off for the sake of our
// xfrm interfaces, the others' devices go on filtering as before.
func TestFilters(t *testing.T) {
	s := netspace.New(t)
	devices := []struct {
		name, alias string
		had, has    int
	}{
		{"tdmoff", "", 0, 1},
		{"tdmloose", "", 2, 2},
		{"tdmours", mark{"node", "a", ""}.String(), 0, 0},
		{"tdmnode", mark{"another", "a", ""}.String(), 0, 0},
	}
	for _, d := range devices {
		s.IP(t, "link add "+d.name+" type veth peer name "+d.name+"2")
		sysctl(t, s, "conf/"+d.name+"/rp_filter", strconv.Itoa(d.had))
	}
	sysctl(t, s, "conf/all/rp_filter", "1")
	s.Do(func() {
		v, err := hereView("node")
		if err != nil {
			t.Error(err)
			return
		}
		defer v.home.close()
		for _, d := range devices {
			v.home.devices[d.name].alias = d.alias
		}
		if err := (sysctls{list: host}).mend(v); err != nil {
			t.Error(err)
		}
		for _, d := range devices {
			if is, err := readFilter(d.name); err != nil || is != d.has {
				t.Errorf("%s has rp_filter %d (%v), want %d", d.name, is, err, d.has)
			}
		}
		if all, err := readFilter("all"); err != nil || all != 0 {
			t.Errorf("rp_filter of all devices is %d (%v)", all, err)
		}
	})
}

// hereView is a view of the namespace of the calling thread.
func hereView(node string) (*view, error) {
	home, err := hereSpace()
	if err != nil {
		return nil, err
	}
	if err := home.read(); err != nil {
		home.close()
		return nil, err
	}
	return &view{node: node, home: home, unfit: make(map[spot]bool)}, nil
}

// TestContested: what something else changes as often as we put it right is not reported as right.
func TestContested(t *testing.T) {
	s := netspace.New(t)
	var err error
	s.Do(func() { // in mounts of the thread's own, a parameter that takes a value and does not keep it
		err = errors.Join(
			unix.Unshare(unix.CLONE_NEWNS),
			unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
			unix.Mount(os.DevNull, "/proc/sys/net/ipv4/conf/all/accept_redirects", "", unix.MS_BIND, ""),
		)
	})
	if err != nil {
		t.Fatal(err)
	}
	n := hereNetworks(t, s, clearRealm(1, "a", 201, "192.0.2.2/24"))
	s.Do(func() {
		if err := n.Apply(); err == nil {
			t.Error("no error")
		}
	})
	for _, o := range status(t, n, "a").Objects {
		if o.Kind != kindSysctl || o.Name != "host" {
			continue
		}
		if o.State != call.ObjectDiffers || !strings.Contains(o.Problem, "something else changes it") {
			t.Errorf("sysctl host is %s: have %q, %q", o.State, o.Have, o.Problem)
		}
		return
	}
	t.Error("sysctl host is not among the objects")
}
