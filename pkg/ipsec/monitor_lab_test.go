package ipsec

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"
)

// I3, I6: a cut shows within the configured number of intervals and one, and its end at once,
// whatever the routes say: through a tunnel that is not active, and with rp_filter on.
func TestMonitorNoticesACut(t *testing.T) {
	l := newLab(t)
	l.apply(t, l.gateway, l.far)
	l.home.Do(func() {
		for _, name := range []string{"all", testVRF, testDevice} {
			if err := os.WriteFile("/proc/sys/net/ipv4/conf/"+name+"/rp_filter", []byte("1"), 0o644); err != nil {
				t.Error(err)
			}
		}
		if err := os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("1 0"), 0o644); err != nil {
			t.Error(err)
		}
	})
	const interval, lost = 200 * time.Millisecond, 3
	m := newMonitor(testDevice, us, them, interval, lost, false)
	changes := make(chan time.Time, 100)
	stop := runIn(t, l, m, func() { changes <- time.Now() })
	if !eventually(5*time.Second, func() bool { return m.status().Answers }) {
		t.Fatalf("no answer: %+v, %v", m.status(), m.failure())
	}
	<-changes
	for _, active := range []bool{false, true} {
		if active {
			l.activate(t)
		}
		cut := time.Now()
		l.outer.Run(t, "tc", "qdisc add dev "+underlay+" root netem loss 100%")
		cutBy := time.Now()
		select {
		case noticed := <-changes:
			// The cut is somewhere between the begin and the end of the command. A second more is for
			// scheduling under emulation; TestMonitorNoticesInTime is exact.
			earliest, latest := noticed.Sub(cutBy), noticed.Sub(cut)
			t.Logf("noticed %v to %v after the cut; %v are allowed", earliest, latest, (lost+1)*interval)
			if m.alive() || earliest > (lost+1)*interval+time.Second || latest < (lost-1)*interval {
				t.Errorf("alive is %v, active %v", m.alive(), active)
			}
		case <-time.After(5 * time.Second):
			t.Fatalf("the cut was not noticed: %+v", m.status())
		}
		l.outer.Run(t, "tc", "qdisc del dev "+underlay+" root")
		select {
		case <-changes:
			if !m.alive() || m.status().Missed != 0 {
				t.Errorf("after the end of the cut %+v", m.status())
			}
		case <-time.After(5 * time.Second):
			t.Fatalf("the end of the cut was not noticed: %+v", m.status())
		}
	}
	stop()
}

// N9: associations come, the device is deleted and made again, all under the monitor, which goes on.
func TestMonitorFollowsItsDevice(t *testing.T) {
	l := newLab(t)
	m := newMonitor(testDevice, us, them, 50*time.Millisecond, 3, true)
	defer runIn(t, l, m, nil)()
	if !eventually(5*time.Second, func() bool { return !m.alive() }) {
		t.Fatalf("a tunnel without associations is alive: %+v", m.status())
	}
	l.apply(t, l.gateway, l.far)
	if !eventually(5*time.Second, func() bool { return m.status().Answers }) {
		t.Fatalf("no answer: %+v, %v", m.status(), m.failure())
	}
	l.home.IP(t, "link del "+testDevice)
	if !eventually(5*time.Second, func() bool { return !m.alive() && m.failure() != nil }) {
		t.Fatalf("no device, and alive is %v: %+v", m.alive(), m.status())
	}
	if !strings.Contains(m.failure().Error(), testDevice) {
		t.Errorf("the failure %q does not name the device", m.failure())
	}
	l.addDevice(t)
	if !eventually(5*time.Second, func() bool { return m.alive() && m.failure() == nil }) {
		t.Errorf("the device is back, and alive is %v: %+v, %v", m.alive(), m.status(), m.failure())
	}
}

// runIn runs a monitor whose sockets are in the lab's home namespace, until stop.
func runIn(t *testing.T, l *lab, m *monitor, changed func()) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- inNamespace(l.home.Path, func() error { return m.run(ctx, changed) }) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// The device may come later than the monitor: until then requests are lost, and the failure says why.
func TestMonitorWithoutADevice(t *testing.T) {
	m := newMonitor("tdmnone", us, them, 10*time.Millisecond, 2, true)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- m.run(ctx, nil) }()
	if !eventually(3*time.Second, func() bool { return !m.alive() && m.failure() != nil }) {
		t.Errorf("alive is %v, failure %v", m.alive(), m.failure())
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
