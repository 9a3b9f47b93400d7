package vmlab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// bootLimit is what a machine and a short command get on a busy host without KVM; the
// files that it boots from may have to be fetched first.
const bootLimit = 10 * time.Minute

// requireMachine skips where none can run. A host that is only without QEMU fails later.
func requireMachine(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a machine needs root")
	}
}

type outputs struct{ stdout, stderr bytes.Buffer }

// boot runs the command with its working directory in a shared folder of its own.
func boot(t *testing.T, o Options) (*outputs, string, int, error) {
	t.Helper()
	requireMachine(t)
	ctx, cancel := context.WithTimeout(t.Context(), bootLimit)
	defer cancel()
	out := &outputs{}
	if o.Stdout == nil {
		o.Stdout = &out.stdout
	}
	o.Stderr, o.Progress = &out.stderr, os.Stderr
	o.Share = t.TempDir()
	o.Dir = o.Share
	code, err := Run(ctx, o)
	return out, o.Dir, code, err
}

// slow is a reader that the machine must wait for.
type slow struct{ bytes.Buffer }

func (s *slow) Write(p []byte) (int, error) {
	time.Sleep(2 * time.Millisecond)
	return s.Buffer.Write(p)
}

// TestOutcomeComesOut: a command's exit code, its output to the last byte and what it
// writes into the shared folder are here when Run returns.
func TestOutcomeComesOut(t *testing.T) {
	const size = 1 << 20
	t.Setenv("TANDEM_VMLAB_WORD", "it's $HOME")
	t.Setenv("OTHER_WORD", "hidden")
	var stdout slow
	out, dir, code, err := boot(t, Options{
		Command: []string{"bash", "-c", `
			head -c "$1" /dev/urandom | tee artefact
			pwd >&2
			echo "$TANDEM_VMLAB_WORD${OTHER_WORD-}, $MORE, $(id -u)" >/dev/stderr
			exit 200`, "bash", fmt.Sprint(size)},
		Env:    []string{"MORE=two\nlines"},
		Stdout: &stdout,
	})
	if err != nil {
		t.Fatal(err)
	}
	if code != 200 {
		t.Errorf("exit code %d, want 200", code)
	}
	if want := dir + "\nit's $HOME, two\nlines, 0\n"; out.stderr.String() != want {
		t.Errorf("stderr %q, want %q", out.stderr.String(), want)
	}
	artefact, err := os.ReadFile(filepath.Join(dir, "artefact"))
	if err != nil {
		t.Fatal(err)
	}
	if len(artefact) != size || !bytes.Equal(artefact, stdout.Bytes()) {
		t.Errorf("%d bytes in the file and %d on stdout, want %d and the same", len(artefact), stdout.Len(), size)
	}
}

// features are those that the tests need; each line fails by itself.
const features = `
set -ex
ip link add tdmtrunk type veth peer name tdmfar
ip link set tdmtrunk up
ip link add link tdmtrunk name tdmouter type vlan proto 802.1ad id 100
ip link add link tdmouter name tdmvlan type vlan id 200
ip link add tdmvrf type vrf table 3000
ip link set tdmvlan master tdmvrf
ip netns add tdmspace
ip link add tdmxfrm type xfrm dev tdmvlan if_id 1
ip link set tdmxfrm netns tdmspace
ip xfrm state add src 192.0.2.1 dst 192.0.2.2 proto esp spi 0x1001 reqid 1 mode tunnel if_id 1 replay-window 64 \
	aead 'rfc4106(gcm(aes))' 0x000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20212223 128
tc qdisc add dev tdmfar root netem loss 100%
tc qdisc add dev tdmtrunk clsact
nft add table inet tdm
bpftool map create /sys/fs/bpf/tdm type hash key 4 value 4 entries 4 name tdm
ethtool -k tdmtrunk
ping -c 1 127.0.0.1
test -x /usr/sbin/charon-systemd
swanctl --help
pki --gen --type ecdsa --size 384
tcpdump --version
command -v sipp
uname -r >release
`

// TestKernelsHaveTheFeatures: both kernels boot, and have VLAN, VRF, IPsec with AES-GCM
// and all else that the tests use.
func TestKernelsHaveTheFeatures(t *testing.T) {
	for _, kernel := range Kernels {
		t.Run(kernel, func(t *testing.T) {
			out, dir, code, err := boot(t, Options{Kernel: kernel, Command: []string{"bash", "-c", features}})
			if err != nil {
				t.Fatal(err)
			}
			if code != 0 {
				t.Fatalf("exit code %d; the last line is what failed:\n%s", code, out.stderr.String())
			}
			release, err := os.ReadFile(filepath.Join(dir, "release"))
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(string(release), kernel+".") {
				t.Errorf("the kernel is %s, want %s", release, kernel)
			}
		})
	}
}

// insideVariable tells TestInside that a machine runs it.
const insideVariable = "TANDEM_VMLAB_INSIDE"

// TestInside is the test that TestTestBinary runs in the machine: it ends by a signal.
func TestInside(t *testing.T) {
	if os.Getenv(insideVariable) == "" {
		t.Skip("runs in the machine only")
	}
	fmt.Println("inside", os.Args[0])
	if err := exec.Command("sh", "-c", "kill -9 $PPID").Run(); err != nil {
		t.Error(err)
	}
}

// TestTestBinary: a test binary lies outside the module, as go test's do, and runs in the
// machine by its own path; the signal that ends it is in the exit code.
func TestTestBinary(t *testing.T) {
	out, _, code, err := boot(t, Options{
		Command: []string{os.Args[0], "-test.run=^TestInside$"},
		Env:     []string{insideVariable + "=1"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := "inside " + os.Args[0] + "\n"; code != 137 || out.stdout.String() != want {
		t.Errorf("exit code %d and %q, want 137 and %q; stderr: %s", code, out.stdout.String(), want, out.stderr.String())
	}
}

// TestKernelCrash: a kernel that crashes is an error that shows what the kernel said.
func TestKernelCrash(t *testing.T) {
	_, _, code, err := boot(t, Options{Command: []string{"sh", "-c", "echo c >/proc/sysrq-trigger; sleep 100"}})
	if err == nil {
		t.Fatalf("exit code %d, want an error", code)
	}
	if want := "Kernel panic - not syncing: sysrq triggered crash"; !strings.Contains(err.Error(), want) {
		t.Errorf("%q is not in: %v", want, err)
	}
}

// TestTimeLimit: when the time is up the machine ends at once, the error says what the
// command wrote last, and nothing stays behind.
func TestTimeLimit(t *testing.T) {
	requireMachine(t)
	t.Setenv("TMPDIR", t.TempDir())
	ctx, cancel := context.WithTimeout(t.Context(), bootLimit)
	defer cancel()
	ctx, expire := context.WithCancelCause(ctx)
	defer expire(nil)
	var ended time.Time
	code, err := Run(ctx, Options{
		Command: []string{"sh", "-c", "echo counting sheep; sleep 1000"},
		Stdout: writerFunc(func(p []byte) (int, error) {
			ended = time.Now()
			expire(context.DeadlineExceeded)
			return len(p), nil
		}),
		Progress: os.Stderr,
	})
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "counting sheep") {
		t.Errorf("exit code %d, %v; want %v and the last output", code, err, context.DeadlineExceeded)
	}
	if took := time.Since(ended); took > 10*time.Second {
		t.Errorf("the machine ended %v after its time", took)
	}
	if left, err := filepath.Glob(filepath.Join(os.TempDir(), "*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestLostReader: a machine whose output nobody can take ends, and is an error.
func TestLostReader(t *testing.T) {
	_, _, code, err := boot(t, Options{
		Command: []string{"sh", "-c", "while echo more; do sleep 1; done"},
		Stdout:  writerFunc(func([]byte) (int, error) { return 0, io.ErrClosedPipe }),
	})
	if !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("exit code %d, %v; want %v", code, err, io.ErrClosedPipe)
	}
}
