package cdr

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/tandem-sbc/tandem/pkg/call"
)

const crashEnv = "TANDEM_TEST_CDR_CRASH"

// writeUntilKilled is the child of TestKilledWhileWriting: it tells how many records
// are on disk and never stops.
func writeUntilKilled(path string) int {
	w, err := Open(Config{File: path, MaxSizeMB: 1, Keep: 1000}, slog.New(slog.DiscardHandler))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for n := 0; ; n++ {
		w.Write(record(n))
		if n%16 == 0 {
			fmt.Println(w.Stats().Written)
		}
	}
}

// TestKilledWhileWriting (O3): after kill -9 every record that was reported as written is
// there, in order, and a new daemon goes on behind it.
func TestKilledWhileWriting(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "cdr.jsonl")
	child := exec.CommandContext(t.Context(), self)
	child.Env = append(os.Environ(), crashEnv+"="+path)
	var stderr bytes.Buffer
	child.Stderr = &stderr
	stdout, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	written := 0
	for lines := bufio.NewScanner(stdout); written < 3000 && lines.Scan(); {
		if written, err = strconv.Atoi(lines.Text()); err != nil {
			t.Fatal(err)
		}
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait() // "signal: killed"
	if written < 3000 {
		t.Fatalf("the child stopped at %d: %s", written, &stderr)
	}

	w := open(t, Config{File: path, MaxSizeMB: 1, Keep: 1000})
	w.Write(record(-1))
	closeWriter(t, w)
	records := readRotated(t, path)
	if last := records[len(records)-1]; last.ID != record(-1).ID {
		t.Errorf("the last record is %s", last.ID)
	}
	records = records[:len(records)-1]
	if len(records) < written {
		t.Errorf("%d records of %d that were on disk", len(records), written)
	}
	for n, r := range records {
		if r.ID != call.ID(id(n)) {
			t.Fatalf("record %d is %s", n, r.ID)
		}
	}
}

// readRotated reads the rotated files and then the file itself.
func readRotated(t *testing.T, path string) []call.Record {
	t.Helper()
	rotated, err := filepath.Glob(path + ".[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	var records []call.Record
	for n := len(rotated); n >= 1; n-- {
		records = append(records, read(t, fmt.Sprintf("%s.%d", path, n))...)
	}
	return append(records, read(t, path)...)
}

// TestTornLine (O3): half a line at the end is set aside, whole, and nothing else.
func TestTornLine(t *testing.T) {
	full, err := encode(record(1))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name    string
		content string
		records int
		torn    string
	}{
		{name: "empty"},
		{name: "whole", content: string(full), records: 1},
		{name: "half a line", content: string(full) + string(full[:40]), records: 1, torn: string(full[:40])},
		{name: "all but the newline", content: string(full) + string(full[:len(full)-1]), records: 1, torn: string(full[:len(full)-1])},
		{name: "only half a line", content: "{", torn: "{"},
		{name: "blocks that were never written", content: string(full) + strings.Repeat("\x00", 150_000), records: 1, torn: strings.Repeat("\x00", 150_000)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := testConfig(t)
			if err := os.WriteFile(cfg.File, []byte(tt.content), 0o600); err != nil {
				t.Fatal(err)
			}
			// A reader does not have to wait for the daemon to mend it.
			if got := len(read(t, cfg.File)); got != tt.records {
				t.Errorf("%d records before, not %d", got, tt.records)
			}
			w := open(t, cfg)
			w.Write(record(2))
			closeWriter(t, w)
			if got := len(read(t, cfg.File)); got != tt.records+1 {
				t.Errorf("%d records, not %d", got, tt.records+1)
			}
			aside, err := filepath.Glob(cfg.File + ".torn-*")
			if err != nil {
				t.Fatal(err)
			}
			var torn []byte
			for _, name := range aside {
				if torn, err = os.ReadFile(name); err != nil {
					t.Fatal(err)
				}
			}
			if len(aside) > 1 || string(torn) != tt.torn {
				t.Errorf("set aside in %v: %d bytes, not %d", aside, len(torn), len(tt.torn))
			}
		})
	}
}

// TestRotation (O3): the file is rotated by size, so many are kept, and the rest is gone.
func TestRotation(t *testing.T) {
	cfg := testConfig(t)
	line, err := encode(record(0))
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	j, err := openJournal(cfg.File, int64(2*len(line)), cfg.Keep, log)
	if err != nil {
		t.Fatal(err)
	}
	const records = 11 // files of 2 records: 1 in the file, 6 in the kept ones, 4 gone
	for n := range records {
		line, err := encode(record(n))
		if err != nil {
			t.Fatal(err)
		}
		if err := j.append(line); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.close(); err != nil {
		t.Fatal(err)
	}
	got := readRotated(t, cfg.File)
	if len(got) != 7 || got[0].ID != call.ID(id(4)) || got[6].ID != call.ID(id(10)) {
		t.Errorf("%d records from %s", len(got), got[0].ID)
	}
	if _, err := os.Stat(cfg.File + ".4"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a fourth file is kept: %v", err)
	}
}

// TestRotationFails: a file that cannot be rotated grows on, and no record is lost.
func TestRotationFails(t *testing.T) {
	cfg := testConfig(t)
	// A folder that is not empty stands where the rotated file should go.
	if err := os.MkdirAll(cfg.File+".1/x", 0o700); err != nil {
		t.Fatal(err)
	}
	cfg.Keep = 1
	var log bytes.Buffer
	j, err := openJournal(cfg.File, 10, cfg.Keep, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	for n := range 3 {
		line, err := encode(record(n))
		if err != nil {
			t.Fatal(err)
		}
		if err := j.append(line); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.close(); err != nil {
		t.Fatal(err)
	}
	if got := read(t, cfg.File); len(got) != 3 {
		t.Errorf("%d records", len(got))
	}
	if n := strings.Count(log.String(), "cannot be rotated"); n != 1 {
		t.Errorf("said %d times:\n%s", n, &log)
	}
}

// TestFileIsTakenAway: whoever moves, removes or cuts the file loses no later record.
func TestFileIsTakenAway(t *testing.T) {
	for name, take := range map[string]func(path string) error{
		"moved":   func(path string) error { return os.Rename(path, path+".moved") },
		"removed": os.Remove,
		"cut":     func(path string) error { return os.Truncate(path, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig(t)
			j, err := openJournal(cfg.File, 1_000_000, cfg.Keep, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			for n := range 2 {
				line, err := encode(record(n))
				if err != nil {
					t.Fatal(err)
				}
				if err := j.append(line); err != nil {
					t.Fatal(err)
				}
				if n == 0 {
					if err := take(cfg.File); err != nil {
						t.Fatal(err)
					}
				}
			}
			if err := j.close(); err != nil {
				t.Fatal(err)
			}
			if got := read(t, cfg.File); len(got) != 1 || got[0].ID != call.ID(id(1)) {
				t.Errorf("%+v", got)
			}
		})
	}
}

// TestOpenRefuses: what cannot work is said at the start, with the remedy.
func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	open(t, Config{File: filepath.Join(dir, "used"), MaxSizeMB: 1, Keep: 1})
	if err := os.Symlink("used", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"used":       ErrInUse.Error(),
		"link":       "symbolic link",
		"absent/cdr": "mkdir -p",
		".":          "directory",
	} {
		w, err := Open(Config{File: filepath.Join(dir, name), MaxSizeMB: 1, Keep: 1}, slog.New(slog.DiscardHandler))
		if err == nil {
			closeWriter(t, w)
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
}

// TestReadNamesTheLine: a line that is not a record is found by its number, and the
// caller can stop.
func TestReadNamesTheLine(t *testing.T) {
	line, err := encode(record(1))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "cdr.jsonl")
	for content, want := range map[string]string{
		string(line) + "nonsense\n":                        ":2: ",
		string(line) + strings.Repeat("x", maxLine) + "\n": "longer",
	} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		n := 0
		err := Read(path, func(call.Record) error { n++; return nil })
		if n != 1 || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%d records, %v", n, err)
		}
		enough := errors.New("enough")
		if err := Read(path, func(call.Record) error { return enough }); !errors.Is(err, enough) {
			t.Errorf("the caller's error becomes %v", err)
		}
	}
	if err := Read(path+".absent", nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
}
