package vmlab

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestShares(t *testing.T) {
	const module = "/work/main"
	for _, tt := range []struct {
		name                string
		share, dir, command string
		want                []string // the folders, or
		refused             string   // a word of the error
	}{
		{name: "a command of the guest", share: module, dir: module, command: "ip", want: []string{module}},
		{name: "a command of the guest by its path", share: module, dir: module, command: "/usr/sbin/ip", want: []string{module}},
		{name: "a command in the module", share: module, dir: module + "/pkg", command: "../bin/tandemd", want: []string{module}},
		{name: "a test binary of go test", share: module, dir: module + "/pkg", command: "/tmp/go-build1/b001/x.test",
			want: []string{module, "/tmp/go-build1/b001"}},
		{name: "a folder beside with the same beginning", share: module, dir: module, command: "/work/mainly/x",
			want: []string{module, "/work/mainly"}},
		{name: "a command in /tmp itself", share: module, dir: module, command: "/tmp/x.test", refused: "/tmp of its own"},
		{name: "all of the host", share: "/", dir: module, command: "ip", refused: "/ of its own"},
		{name: "a working directory elsewhere", share: module, dir: "/work", command: "ip", refused: "working directory"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := Options{Share: tt.share, Dir: tt.dir, Command: []string{tt.command}}
			got, err := o.shares()
			if tt.refused != "" {
				if err == nil || !strings.Contains(err.Error(), tt.refused) {
					t.Fatalf("%v, %v; want an error with %q", got, err, tt.refused)
				}
				return
			}
			var paths []string
			for _, s := range got {
				paths = append(paths, s.path)
			}
			if err != nil || !slices.Equal(paths, tt.want) {
				t.Errorf("%v, %v; want %v", paths, err, tt.want)
			}
		})
	}
}

// TestCommandScript: any word arrives as it is, and of the environment only ours.
func TestCommandScript(t *testing.T) {
	words := []string{"", "two words", "it's", `"$HOME" \`, "`id`", "line\nbreak", "*", "-n", "ä\x01"}
	script := commandScript(Options{
		Dir:     t.TempDir(),
		Command: append([]string{"printf", `%s\0`}, words...),
	}, []string{"TANDEM_X=it's", "GOTRACEBACK=all", "SECRET=1", "GO"})
	for _, want := range []string{`export TANDEM_X='it'\''s'`, "export GOTRACEBACK='all'", "export HOME='/root'"} {
		if !strings.Contains(script, want+"\n") {
			t.Errorf("%s is not in\n%s", want, script)
		}
	}
	if strings.Contains(script, "SECRET") {
		t.Errorf("a foreign variable is in\n%s", script)
	}
	out, err := exec.CommandContext(t.Context(), "sh", "-c", script).Output()
	if err != nil {
		t.Fatal(err)
	}
	if want := strings.Join(words, "\x00") + "\x00"; string(out) != want {
		t.Errorf("%q, want %q", out, want)
	}
}

func TestSameWriter(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	again := os.NewFile(uintptr(dup(t, w)), "again")
	defer again.Close()
	other, err := os.Create(filepath.Join(t.TempDir(), "other"))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	var a, b bytes.Buffer
	for _, tt := range []struct {
		name string
		a, b io.Writer
		want bool
	}{
		{"one pipe twice", w, again, true},
		{"pipe and file", w, other, false},
		{"one buffer", &a, &a, true},
		{"two buffers", &a, &b, false},
		{"buffer and file", &a, w, false},
		{"functions, which cannot be compared", writerFunc(a.Write), writerFunc(a.Write), false},
	} {
		if got := sameWriter(tt.a, tt.b); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestModuleRoot(t *testing.T) {
	root := t.TempDir()
	below := filepath.Join(root, "pkg", "x")
	if err := os.MkdirAll(below, 0o755); err != nil {
		t.Fatal(err)
	}
	if got, err := moduleRoot(below); err == nil {
		t.Errorf("%s without a go.mod", got)
	}
	if err := os.WriteFile(filepath.Join(root, "go.mod"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if got, err := moduleRoot(below); err != nil || got != root {
		t.Errorf("%s, %v; want %s", got, err, root)
	}
}

func TestOptionsRefused(t *testing.T) {
	for name, o := range map[string]Options{
		"no command":       {},
		"unknown kernel":   {Command: []string{"true"}, Kernel: "2.4"},
		"without a module": {Command: []string{"true"}, Dir: t.TempDir()},
	} {
		if err := o.complete(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
