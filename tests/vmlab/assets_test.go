package vmlab

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func dup(t *testing.T, f *os.File) int {
	t.Helper()
	fd, err := unix.Dup(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

func makeAssets(t *testing.T, cache, name string, used time.Time) *assets {
	t.Helper()
	a := &assets{dir: filepath.Join(cache, name)}
	if err := os.Mkdir(a.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	var err error
	if a.lock, err = os.Create(a.dir + lockSuffix); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.lock.Close() })
	if err := os.Chtimes(a.lock.Name(), used, used); err != nil {
		t.Fatal(err)
	}
	return a
}

// TestOldAssetsGo: what nobody has used for long goes, unless a machine runs from it.
func TestOldAssetsGo(t *testing.T) {
	cache, now := t.TempDir(), time.Now()
	old := makeAssets(t, cache, "old", now.Add(-48*time.Hour))
	inUse := makeAssets(t, cache, "inuse", now.Add(-48*time.Hour))
	fresh := makeAssets(t, cache, "fresh", now)
	if err := inUse.open(t.Context(), io.Discard); err != nil {
		t.Fatal(err)
	}
	if err := removeOthers(cache, now.Add(-24*time.Hour)); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		a    *assets
		want bool
	}{{old, false}, {inUse, true}, {fresh, true}} {
		if _, err := os.Stat(tt.a.dir); (err == nil) != tt.want {
			t.Errorf("%s: there %v, want %v", tt.a.dir, err == nil, tt.want)
		}
	}
}

// TestMissingToolsHaveARemedy: without mmdebstrap and the rest the error says what installs them.
func TestMissingToolsHaveARemedy(t *testing.T) {
	requireMachine(t)
	t.Setenv("PATH", t.TempDir())
	err := able()
	if err == nil || !strings.Contains(err.Error(), "mmdebstrap") || !strings.Contains(err.Error(), "tests/deps.sh vm") {
		t.Errorf("%v", err)
	}
}

// TestFolders: a run's folder goes with it, and what a killed run has left behind goes with
// the next run; one in use stays.
func TestFolders(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	killed := filepath.Join(os.TempDir(), "tandem-vm-killed")
	if err := os.Mkdir(killed, 0o755); err != nil {
		t.Fatal(err)
	}
	first, removeFirst, err := newFolder()
	if err != nil {
		t.Fatal(err)
	}
	second, removeSecond, err := newFolder()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(killed); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what was left behind: %v", err)
	}
	for _, dir := range []string{first, second} {
		if _, err := os.Stat(dir); err != nil {
			t.Errorf("a folder in use: %v", err)
		}
	}
	if err := errors.Join(removeFirst(), removeSecond()); err != nil {
		t.Fatal(err)
	}
	if left, err := filepath.Glob(filepath.Join(os.TempDir(), "*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
