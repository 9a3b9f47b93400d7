package ipsec

import (
	"bytes"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strconv"
)

// manualKeySize is the AES-256 key and the salt behind it, in bytes (RFC 4106 section 8.1).
const manualKeySize = 36

// lowestSPI is the first that is not reserved (RFC 4303 section 2.1).
const lowestSPI = 256

// manualKey is one security association's SPI and key.
type manualKey struct {
	spi uint32
	key [manualKeySize]byte
}

// manualKeys are those of a tunnel, whose outbound one is the peer's choice.
type manualKeys struct {
	inbound  []manualKey
	outbound manualKey
}

// clear leaves no key in memory.
func (k *manualKeys) clear() {
	clear(k.inbound)
	k.outbound = manualKey{}
}

// readManualKeys reads both sources. The caller clears the keys.
func readManualKeys(c ManualConfig) (*manualKeys, error) {
	inbound, err := readManualSource(c.Inbound)
	if err != nil {
		return nil, fmt.Errorf("inbound: %w", err)
	}
	outbound, err := readManualSource(c.Outbound)
	if err != nil {
		clear(inbound)
		return nil, fmt.Errorf("outbound: %w", err)
	}
	keys := &manualKeys{inbound: inbound, outbound: outbound[0]}
	several := len(outbound) > 1
	clear(outbound)
	if several {
		keys.clear()
		return nil, fmt.Errorf("outbound: secret %s: has %d keys; give one, the peer's inbound one", c.Outbound, len(outbound))
	}
	if err := keys.check(); err != nil {
		keys.clear()
		return nil, err
	}
	return keys, nil
}

func readManualSource(s Secret) ([]manualKey, error) {
	b, err := s.Read()
	if err != nil {
		return nil, err
	}
	defer clear(b)
	keys, err := parseManualKeys(b)
	if err != nil {
		return nil, fmt.Errorf("secret %s: %w", s, err)
	}
	return keys, nil
}

// check refuses a key that is used twice: two senders with one key use the same nonces, and
// AES-GCM gives both plain texts away then (RFC 4106 section 9).
func (k *manualKeys) check() error {
	all := append([]manualKey{k.outbound}, k.inbound...)
	defer clear(all)
	for i := range all {
		for j := range all[:i] {
			if subtle.ConstantTimeCompare(all[i].key[:], all[j].key[:]) == 1 {
				return fmt.Errorf("SPI %#x and %#x have the same key; each needs one of its own", all[j].spi, all[i].spi)
			}
		}
		for j := 1; j < i; j++ {
			if all[i].spi == all[j].spi {
				return fmt.Errorf("inbound SPI %#x is given twice; a new key needs a new SPI", all[i].spi)
			}
		}
	}
	return nil
}

// parseManualKeys reads lines of SPI and KEY; # begins a comment. Errors have the line's number
// alone: any word of it may be a key.
func parseManualKeys(b []byte) (keys []manualKey, err error) {
	defer func() {
		if err != nil {
			clear(keys)
			keys = nil
		}
	}()
	number := 0
	for line := range bytes.Lines(b) {
		number++
		line, _, _ = bytes.Cut(line, []byte{'#'})
		words := bytes.Fields(line)
		if len(words) == 0 {
			continue
		}
		keys = append(keys, manualKey{})
		if err := keys[len(keys)-1].parse(words); err != nil {
			return keys, fmt.Errorf("line %d: %w", number, err)
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("has no key; give a line SPI KEY")
	}
	return keys, nil
}

func (k *manualKey) parse(words [][]byte) error {
	if len(words) != 2 {
		return fmt.Errorf("has %d words; give SPI KEY", len(words))
	}
	spi, ok := parseSPI(words[0])
	if !ok {
		return fmt.Errorf("the first word is not an SPI; give a number from %d to %d, decimal or 0x and hexadecimal",
			lowestSPI, uint32(math.MaxUint32))
	}
	if len(words[1]) != 2*manualKeySize {
		return fmt.Errorf("the key has %d characters; give %d hexadecimal digits: AES-256 key and salt", len(words[1]), 2*manualKeySize)
	}
	// hex's own errors quote the digit.
	if _, err := hex.Decode(k.key[:], words[1]); err != nil {
		return fmt.Errorf("the key is not of hexadecimal digits; give %d", 2*manualKeySize)
	}
	// The kernel reports zeros in the place of keys when it keeps them to itself.
	if k.key == ([manualKeySize]byte{}) {
		return errors.New("the key is zero; make one with: openssl rand -hex 36")
	}
	k.spi = spi
	return nil
}

// parseSPI reads decimal digits, or 0x and hexadecimal ones.
func parseSPI(word []byte) (uint32, bool) {
	base, digits := 10, string(word)
	if len(word) > 2 && word[0] == '0' && (word[1] == 'x' || word[1] == 'X') {
		base, digits = 16, string(word[2:])
	}
	// ParseUint takes no sign, and no underscores in a given base.
	spi, err := strconv.ParseUint(digits, base, 32)
	return uint32(spi), err == nil && spi >= lowestSPI
}
