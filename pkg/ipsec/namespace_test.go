package ipsec

import (
	"errors"
	"os"
	"testing"

	"github.com/tandem-sbc/tandem/tests/netspace"
)

func threadNamespace(t *testing.T) string {
	t.Helper()
	name, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	return name
}

func TestInNamespace(t *testing.T) {
	there := netspace.New(t)
	home := threadNamespace(t)
	var want, got string
	there.Do(func() { want = threadNamespace(t) })
	broken := errors.New("as f says")
	if err := inNamespace(there.Path, func() error { got = threadNamespace(t); return broken }); !errors.Is(err, broken) {
		t.Errorf("error %v, want that of f", err)
	}
	if got != want || got == home {
		t.Errorf("f ran in %s, want %s", got, want)
	}
	for range 100 {
		done := make(chan string)
		go func() { done <- threadNamespace(t) }()
		if now := <-done; now != home {
			t.Fatalf("a thread was left in %s", now)
		}
	}
	for _, path := range []string{"", "/run/netns/tdm-not-there", "/dev/null", "/proc/self/ns/uts"} {
		if err := inNamespace(path, func() error { t.Errorf("f runs in %q", path); return nil }); err == nil {
			t.Errorf("%q is a network namespace", path)
		}
	}
}
