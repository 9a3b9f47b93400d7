package ports

import (
	"errors"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// clock is a time that the test moves.
type clock struct{ now time.Time }

func (c *clock) read() time.Time { return c.now }

func newClock() *clock { return &clock{now: time.Unix(1_700_000_000, 0)} }

// TestPoolSize: only whole pairs count, and nothing below 1024 (M9).
func TestPoolSize(t *testing.T) {
	for _, tt := range []struct {
		r    call.PortRange
		want int
	}{
		{call.PortRange{First: 16384, Last: 16387}, 2},
		{call.PortRange{First: 16385, Last: 16388}, 1},
		{call.PortRange{First: 16384, Last: 16384}, 0},
		{call.PortRange{First: 0, Last: 1025}, 1},
		{call.PortRange{First: 65534, Last: 65535}, 1},
		{call.PortRange{First: 65535, Last: 65535}, 0},
		{call.PortRange{First: 0, Last: 65535}, 32256},
	} {
		p := New(tt.r, 0, newClock().read)
		got := 0
		for {
			port, err := p.Get()
			if errors.Is(err, ErrExhausted) {
				break
			}
			if port%2 != 0 || port < 1024 || !tt.r.Contains(port) || !tt.r.Contains(port+1) {
				t.Fatalf("%v: got port %d", tt.r, port)
			}
			got++
		}
		if got != tt.want || p.Size() != tt.want || p.InUse() != tt.want {
			t.Errorf("%v: got %d, size %d, in use %d; want %d", tt.r, got, p.Size(), p.InUse(), tt.want)
		}
	}
}

// TestQuarantine: a pair rests after its call, also when it is the only one (M9).
func TestQuarantine(t *testing.T) {
	c := newClock()
	p := New(call.PortRange{First: 2000, Last: 2001}, 5*time.Second, c.read)
	port, err := p.Get()
	if err != nil {
		t.Fatal(err)
	}
	p.Put(port)
	if p.InUse() != 0 {
		t.Errorf("%d in use after Put", p.InUse())
	}
	c.now = c.now.Add(5*time.Second - 1)
	if _, err := p.Get(); !errors.Is(err, ErrExhausted) {
		t.Errorf("in quarantine: got %v, want ErrExhausted", err)
	}
	c.now = c.now.Add(1)
	if again, err := p.Get(); err != nil || again != port {
		t.Errorf("after quarantine: got %d, %v; want %d", again, err, port)
	}
}

// TestOrderAfterRestart: two pools over one range do not begin alike, so that a
// restarted daemon does not walk into its predecessor's calls.
func TestOrderAfterRestart(t *testing.T) {
	order := func() (ports [64]uint16) {
		p := New(call.PortRange{First: 16384, Last: 24575}, 0, newClock().read)
		for i := range ports {
			ports[i], _ = p.Get()
		}
		return ports
	}
	if first, second := order(), order(); first == second {
		t.Error("the same 64 ports in the same order twice")
	}
}

// TestReserve: a pair that is taken by name is not handed out, rested or not, until it is
// given back (M9, H5).
func TestReserve(t *testing.T) {
	c := newClock()
	p := New(call.PortRange{First: 2000, Last: 2003}, 5*time.Second, c.read)
	if !p.Reserve(2002) || p.Reserve(2002) || p.Reserve(2003) || p.Reserve(3000) || p.InUse() != 1 {
		t.Fatalf("%d in use", p.InUse())
	}
	if port, err := p.Get(); err != nil || port != 2000 {
		t.Errorf("got %d, %v; want the other pair", port, err)
	}
	p.Put(2000)
	if !p.Reserve(2000) {
		t.Error("one in quarantine cannot be reserved")
	}
	p.Put(2002)
	if _, err := p.Get(); !errors.Is(err, ErrExhausted) {
		t.Errorf("reserved, and in quarantine: got %v, want ErrExhausted", err)
	}
	c.now = c.now.Add(5 * time.Second)
	if port, err := p.Get(); err != nil || port != 2002 {
		t.Errorf("got %d, %v; want what was given back", port, err)
	}
}

// TestPoolProperties (M9): whatever the order of calls,
//   - a pair is never handed out twice, nor before its quarantine has ended,
//   - a pair comes again only after all others that were free longer (FIFO),
//   - pairs are neither lost nor made up.
func TestPoolProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := newClock()
		first := rapid.Uint16Range(0, 65000).Draw(t, "first")
		last := first + rapid.Uint16Range(0, 40).Draw(t, "width")
		quarantine := time.Duration(rapid.IntRange(0, 3).Draw(t, "quarantine")) * time.Second
		r := call.PortRange{First: first, Last: last}
		p := New(r, quarantine, c.read)

		out := map[uint16]bool{}
		var held []uint16
		rested := map[uint16]time.Time{} // when each free pair that was used before came back
		t.Repeat(map[string]func(*rapid.T){
			"": func(t *rapid.T) {
				if p.InUse() != len(out) {
					t.Fatalf("%d in use, want %d", p.InUse(), len(out))
				}
			},
			"get": func(t *rapid.T) {
				port, err := p.Get()
				if errors.Is(err, ErrExhausted) {
					for other, since := range rested {
						if c.now.Sub(since) >= quarantine {
							t.Fatalf("exhausted, but %d is free and rested", other)
						}
					}
					if len(out)+len(rested) != p.Size() {
						t.Fatalf("%d out and %d resting of %d", len(out), len(rested), p.Size())
					}
					return
				}
				if err != nil || port%2 != 0 || port < 1024 || !r.Contains(port) || !r.Contains(port+1) {
					t.Fatalf("got %d, %v", port, err)
				}
				if out[port] {
					t.Fatalf("%d is handed out already", port)
				}
				since, used := rested[port]
				if used && c.now.Sub(since) < quarantine {
					t.Fatalf("%d is in quarantine for %v more", port, quarantine-c.now.Sub(since))
				}
				for other, earlier := range rested {
					if used && earlier.Before(since) {
						t.Fatalf("%d before %d, which was free for longer", port, other)
					}
				}
				if used && len(out)+len(rested) < p.Size() {
					t.Fatalf("%d again, though others were never used", port)
				}
				delete(rested, port)
				out[port] = true
				held = append(held, port)
			},
			"put": func(t *rapid.T) {
				if len(held) == 0 {
					t.Skip("none held")
				}
				i := rapid.IntRange(0, len(held)-1).Draw(t, "which")
				port := held[i]
				held = append(held[:i], held[i+1:]...)
				delete(out, port)
				rested[port] = c.now
				p.Put(port)
				p.Put(port) // harmless
			},
			"reserve": func(t *rapid.T) {
				port := rapid.Uint16Range(first, last).Draw(t, "reserved")
				whole := port%2 == 0 && port >= 1024 && r.Contains(port) && port < 65535 && r.Contains(port+1)
				if got := p.Reserve(port); got != (whole && !out[port]) {
					t.Fatalf("reserve %d: %t, in use %t", port, got, out[port])
				}
				if whole && !out[port] {
					delete(rested, port)
					out[port] = true
					held = append(held, port)
				}
			},
			"put foreign": func(t *rapid.T) {
				port := rapid.Uint16().Draw(t, "port")
				if !out[port] {
					p.Put(port)
				}
			},
			"wait": func(t *rapid.T) {
				c.now = c.now.Add(time.Duration(rapid.IntRange(1, 2000).Draw(t, "ms")) * time.Millisecond)
			},
		})
	})
}
