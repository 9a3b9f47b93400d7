package ipsec

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// key is 36 bytes as 72 digits.
func key(digit string) string { return strings.Repeat(digit, 72) }

func TestParseManualKeys(t *testing.T) {
	for name, c := range map[string]struct {
		text    string
		spis    []uint32
		problem string
	}{
		"decimal":              {text: "256 " + key("1"), spis: []uint32{256}},
		"hexadecimal":          {text: "0xFFFFFFFF " + key("a"), spis: []uint32{0xffffffff}},
		"several":              {text: "# ours\n0x1001 " + key("1") + " # old\n\n\t0x1002\t" + key("2") + "\r\n", spis: []uint32{0x1001, 0x1002}},
		"empty":                {problem: "has no key"},
		"comments alone":       {text: "# none\n", problem: "has no key"},
		"reserved SPI":         {text: "255 " + key("1"), problem: "line 1: the first word is not an SPI"},
		"SPI of 33 bits":       {text: "4294967296 " + key("1"), problem: "not an SPI"},
		"negative SPI":         {text: "-300 " + key("1"), problem: "not an SPI"},
		"SPI with underscores": {text: "1_000 " + key("1"), problem: "not an SPI"},
		"SPI without a prefix": {text: "1f00 " + key("1"), problem: "not an SPI"},
		"prefix alone":         {text: "0x " + key("1"), problem: "not an SPI"},
		"key first":            {text: key("1") + " 0x1001", problem: "not an SPI"},
		"key alone":            {text: "# c\n" + key("1"), problem: "line 2: has 1 words"},
		"three words":          {text: "0x1001 " + key("1") + " " + key("2"), problem: "has 3 words"},
		"short key":            {text: "0x1001 " + key("1")[1:], problem: "has 71 characters"},
		"key with a prefix":    {text: "0x1001 0x" + key("1"), problem: "has 74 characters"},
		"no hexadecimal key":   {text: "0x1001 " + key("g"), problem: "not of hexadecimal digits"},
		"zero key":             {text: "0x1001 " + key("0"), problem: "the key is zero"},
		"second line":          {text: "0x1001 " + key("1") + "\n0x1002 " + key("x"), problem: "line 2"},
	} {
		t.Run(name, func(t *testing.T) {
			keys, err := parseManualKeys([]byte(c.text))
			if c.problem != "" {
				if err == nil || !strings.Contains(err.Error(), c.problem) || keys != nil {
					t.Fatalf("%d keys, error %v does not say %q", len(keys), err, c.problem)
				}
				return
			}
			if err != nil || len(keys) != len(c.spis) {
				t.Fatalf("%d keys, error %v; want %d", len(keys), err, len(c.spis))
			}
			for i, spi := range c.spis {
				if keys[i].spi != spi {
					t.Errorf("SPI %#x, want %#x", keys[i].spi, spi)
				}
			}
		})
	}
}

// keyErrors are all that parseManualKeys says, with N for numbers.
var keyErrors = []string{
	"has no key; give a line SPI KEY",
	"line N: has N words; give SPI KEY",
	"line N: the first word is not an SPI; give a number from N to N, decimal or Nx and hexadecimal",
	"line N: the key has N characters; give N hexadecimal digits: AES-N key and salt",
	"line N: the key is not of hexadecimal digits; give N",
	"line N: the key is zero; make one with: openssl rand -hex N",
}

// I5: whatever a key file holds, no error shows a part of it, and what is taken keeps the SPI rules.
func FuzzManualKeys(f *testing.F) {
	for _, text := range []string{
		"256 " + key("1"), "# c\n0x1001 " + key("1") + "\n0x1002 " + key("2"), key("1") + " 300", "0x1001 " + key("g"), "1 2 3", "\x00\xff",
	} {
		f.Add([]byte(text))
	}
	numbers := regexp.MustCompile(`[0-9]{1,10}`)
	f.Fuzz(func(t *testing.T, text []byte) {
		keys, err := parseManualKeys(text)
		if (err == nil) == (len(keys) == 0) {
			t.Fatalf("%d keys and error %v", len(keys), err)
		}
		for _, k := range keys {
			if k.spi < lowestSPI || k.key == ([manualKeySize]byte{}) {
				t.Errorf("took SPI %d", k.spi)
			}
		}
		if err != nil && !slices.Contains(keyErrors, numbers.ReplaceAllString(err.Error(), "N")) {
			t.Errorf("the error is %v", err)
		}
	})
}

func TestReadManualKeys(t *testing.T) {
	dir := t.TempDir()
	source := func(name, text string) Secret {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return Secret{"file:" + path}
	}
	one, two := source("one", "0x1001 "+key("1")), source("two", "0x2001 "+key("2"))
	keys, err := readManualKeys(ManualConfig{Inbound: one, Outbound: two})
	if err != nil || len(keys.inbound) != 1 || keys.inbound[0].spi != 0x1001 || keys.outbound.spi != 0x2001 {
		t.Fatalf("error %v", err)
	}
	keys.clear()
	if keys.inbound[0] != (manualKey{}) || keys.outbound != (manualKey{}) {
		t.Error("keys are left in memory")
	}
	for name, c := range map[string]struct {
		inbound, outbound Secret
		problem           string
	}{
		"one key both ways":        {one, source("same", "0x2001 "+key("1")), "SPI 0x2001 and 0x1001 have the same key"},
		"one key twice":            {source("twice", "0x1001 "+key("1")+"\n0x1002 "+key("1")), two, "SPI 0x1001 and 0x1002 have the same key"},
		"one SPI twice":            {source("spi", "0x1001 "+key("1")+"\n4097 "+key("3")), two, "inbound SPI 0x1001 is given twice"},
		"two outbound keys":        {one, source("several", "0x2001 "+key("2")+"\n0x2002 "+key("3")), "outbound: secret file:"},
		"no inbound source":        {Secret{}, two, "inbound: "},
		"outbound file is missing": {one, Secret{"file:" + dir + "/none"}, "outbound: secret file:"},
		"inbound file is wrong":    {source("wrong", hushed), two, "line 1: has 1 words"},
	} {
		_, err := readManualKeys(ManualConfig{Inbound: c.inbound, Outbound: c.outbound})
		if err == nil || !strings.Contains(err.Error(), c.problem) {
			t.Errorf("%s: error %v does not say %q", name, err, c.problem)
		} else if strings.Contains(err.Error(), "111") || strings.Contains(err.Error(), hushed) {
			t.Errorf("%s: error %v shows a key", name, err)
		}
	}
	// Each direction has its own SPIs: the outbound one is the peer's.
	if _, err := readManualKeys(ManualConfig{Inbound: one, Outbound: source("equal", "0x1001 "+key("2"))}); err != nil {
		t.Errorf("same SPI both ways: %v", err)
	}
}
