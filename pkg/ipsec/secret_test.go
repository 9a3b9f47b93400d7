package ipsec

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const hushed = "correct-horse-battery-staple"

func TestSecretTakesSourcesAlone(t *testing.T) {
	for _, source := range []string{"file:/etc/tandem/psk", "file:/x", "env:PSK", "env:_a9"} {
		s, err := NewSecret(source)
		if err != nil || s.String() != source || s.IsZero() {
			t.Errorf("%s: %q, error %v", source, s, err)
		}
	}
	for _, text := range []string{
		"", hushed, "file:", "file:etc/psk", "file:/", "file:/etc/../psk", "file://etc/psk", "file:/a\nb", "file:/" + strings.Repeat("x", 5000), "env:",
		"env:9A", "env:A-B", "env:A B", "env:" + strings.Repeat("A", 256), "FILE:/x", " file:/x", "0x" + strings.Repeat("1", 72),
	} {
		var s Secret
		if err := s.UnmarshalText([]byte(text)); !errors.Is(err, errNoSource) || !s.IsZero() {
			t.Errorf("%.40q: taken as %q, error %v", text, s, err)
		}
	}
}

// What is not a source may be the secret itself: no error shows any of it.
func FuzzSecretIsNeverRepeated(f *testing.F) {
	for _, text := range []string{hushed, "file:/etc/tandem/psk", "env:PSK", "file:relative", "\x00"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := NewSecret(text)
		switch {
		case err == nil && s.String() != text:
			t.Errorf("%q became %q", text, s)
		case err != nil && (err.Error() != errNoSource.Error() || !s.IsZero()):
			t.Errorf("refusing %q left %q and said %v", text, s, err)
		}
	})
}

func TestSecretReads(t *testing.T) {
	dir := t.TempDir()
	for name, c := range map[string]struct{ content, want, problem string }{
		"line":           {content: hushed + "\n", want: hushed},
		"no line end":    {content: hushed, want: hushed},
		"DOS line end":   {content: hushed + "\r\n", want: hushed},
		"one line end":   {content: hushed + "\n\n", want: hushed + "\n"},
		"spaces stay":    {content: " " + hushed + " \n", want: " " + hushed + " "},
		"longest":        {content: strings.Repeat("x", maxSecret), want: strings.Repeat("x", maxSecret)},
		"empty":          {content: "", problem: "is empty"},
		"line end alone": {content: "\r\n", problem: "is empty"},
		"too long":       {content: strings.Repeat("x", maxSecret+1), problem: "longer than"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, strings.ReplaceAll(name, " ", "-"))
			if err := os.WriteFile(path, []byte(c.content), 0o600); err != nil {
				t.Fatal(err)
			}
			t.Setenv("TANDEM_TEST_SECRET", c.content)
			for _, source := range []string{"file:" + path, "env:TANDEM_TEST_SECRET"} {
				got, err := Secret{source}.Read()
				if c.problem != "" {
					if err == nil || !strings.Contains(err.Error(), c.problem) || !strings.Contains(err.Error(), source) {
						t.Errorf("%s: error %v does not say %q", source, err, c.problem)
					}
				} else if err != nil || string(got) != c.want {
					t.Errorf("%s: %d bytes, error %v; want %d", source, len(got), err, len(c.want))
				}
			}
		})
	}
}

// A key that others could have read or written is no secret.
func TestSecretFileOfOthersIsRefused(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(hushed), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, problem := range map[string]string{
		file("group", 0o640):            "chmod 0600",
		file("world", 0o604):            "chmod 0600",
		file("writable", 0o620):         "chmod 0600",
		fifo:                            "not a regular file",
		dir:                             "not a regular file",
		filepath.Join(dir, "not-there"): "no such file",
	} {
		_, err := Secret{"file:" + path}.Read()
		if err == nil || !strings.Contains(err.Error(), problem) || strings.Contains(err.Error(), hushed) {
			t.Errorf("%s: error %v does not say %q", path, err, problem)
		}
	}
	err := checkSecretFile(&unix.Stat_t{Mode: unix.S_IFREG | 0o400, Uid: 1234}, 0)
	if err == nil || !strings.Contains(err.Error(), "chown root") {
		t.Errorf("file of another user: error %v", err)
	}
	if err := checkSecretFile(&unix.Stat_t{Mode: unix.S_IFREG | 0o400, Uid: 1234}, 1234); err != nil {
		t.Errorf("own file: %v", err)
	}
	if _, err := (Secret{"env:TANDEM_TEST_UNSET"}).Read(); err == nil || !strings.Contains(err.Error(), "environment") {
		t.Errorf("variable that is not there: error %v", err)
	}
	if _, err := (Secret{}).Read(); !errors.Is(err, errNoSource) {
		t.Errorf("no source: error %v", err)
	}
}

// Whoever prints a config prints where its secrets are.
func TestSecretPrintsItsSource(t *testing.T) {
	t.Setenv("TANDEM_TEST_SECRET", hushed)
	const source = "env:TANDEM_TEST_SECRET"
	c := struct{ PSK Secret }{Secret{source}}
	if _, err := c.PSK.Read(); err != nil {
		t.Fatal(err)
	}
	asJSON, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("loaded", "psk", c.PSK)
	text, err := c.PSK.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	for how, got := range map[string]string{
		"%v": fmt.Sprintf("%v", c), "%+v": fmt.Sprintf("%+v", c), "%#v": fmt.Sprintf("%#v", c),
		"%s": fmt.Sprintf("%s", c.PSK), "%q": fmt.Sprintf("%q", c.PSK),
		"%x": fmt.Sprintf("%x", c.PSK), "JSON": string(asJSON), "log": log.String(), "text": string(text),
	} {
		if !strings.Contains(got, source) || strings.Contains(got, hushed) {
			t.Errorf("%s gave %q", how, got)
		}
	}
}
