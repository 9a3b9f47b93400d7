package ipsec

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// maxSecret bounds a secret, in bytes: the private key of a 4096-bit RSA certificate takes 3.3 KiB.
const maxSecret = 4 << 10

// Schemes of sources.
const (
	fromFile = "file:"
	fromEnv  = "env:"
)

// errNoSource has nothing of the text in it: that may be the secret itself.
var errNoSource = errors.New("is not a source of a secret; put the secret into a file that only root can read and give file:/path, " +
	"or into the environment and give env:NAME")

// Secret says where a secret is: file:/path or env:NAME. It never holds the secret, so it may
// be logged, compared and served. The zero value is a secret that is not given.
type Secret struct{ source string }

// NewSecret returns a source of a secret. The error never repeats the text.
func NewSecret(source string) (Secret, error) {
	if path, ok := strings.CutPrefix(source, fromFile); ok && isPath(path) {
		return Secret{source}, nil
	}
	if name, ok := strings.CutPrefix(source, fromEnv); ok && isVariable(name) {
		return Secret{source}, nil
	}
	return Secret{}, errNoSource
}

// isPath takes absolute paths in their shortest form alone: what the log shows is what is opened.
func isPath(s string) bool {
	return len(s) < unix.PathMax && filepath.IsAbs(s) && filepath.Clean(s) == s && s != "/" && strings.IndexFunc(s, isControl) < 0
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }

// isVariable takes names of POSIX.1-2017 section 8.1, lower-case letters too.
func isVariable(s string) bool {
	for i, r := range s {
		letter := r == '_' || 'A' <= r && r <= 'Z' || 'a' <= r && r <= 'z'
		if !letter && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	return s != "" && len(s) <= 255
}

// UnmarshalText takes a source.
func (s *Secret) UnmarshalText(text []byte) error {
	var err error
	*s, err = NewSecret(string(text))
	return err
}

// IsZero is true if no source is given.
func (s Secret) IsZero() bool { return s.source == "" }

// String is the source.
func (s Secret) String() string { return s.source }

// Format prints the source, whatever the verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.source) }

// MarshalText gives the source.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.source), nil }

// MarshalJSON gives the source.
func (s Secret) MarshalJSON() ([]byte, error) { return json.Marshal(s.source) }

// LogValue is the source.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.source) }

// Read returns the secret without the line end behind it: 1 byte to 4 KiB. A file has to be a
// regular one of root or of the daemon's user that nobody else can read. The caller clears the
// bytes when it is done with them. Errors name the source alone.
func (s Secret) Read() ([]byte, error) {
	var secret []byte
	var err error
	switch {
	case strings.HasPrefix(s.source, fromFile):
		secret, err = readSecretFile(strings.TrimPrefix(s.source, fromFile))
	case strings.HasPrefix(s.source, fromEnv):
		secret, err = readSecretVariable(strings.TrimPrefix(s.source, fromEnv))
	default:
		return nil, errNoSource
	}
	if err != nil {
		return nil, fmt.Errorf("secret %s: %w", s.source, err)
	}
	n := len(secret)
	if n > 0 && secret[n-1] == '\n' {
		n--
		if n > 0 && secret[n-1] == '\r' {
			n--
		}
	}
	if n == 0 {
		return nil, fmt.Errorf("secret %s: is empty", s.source)
	}
	return secret[:n], nil
}

var errLongSecret = fmt.Errorf("is longer than %d bytes", maxSecret)

// readSecretFile checks the file that it has opened, not one that may have taken its name since.
func readSecretFile(path string) ([]byte, error) {
	// Without O_NONBLOCK a FIFO would hold us until somebody writes.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, fmt.Errorf("fstat: %w", err)
	}
	if err := checkSecretFile(&st, os.Geteuid()); err != nil {
		return nil, err
	}
	// One byte more than allowed tells a file that grew since.
	b := make([]byte, maxSecret+1)
	n, err := io.ReadFull(f, b)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		clear(b)
		return nil, err
	}
	if n > maxSecret {
		clear(b)
		return nil, errLongSecret
	}
	return b[:n], nil
}

func checkSecretFile(st *unix.Stat_t, user int) error {
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return errors.New("is not a regular file")
	case st.Mode&0o077 != 0:
		return fmt.Errorf("others than its owner may use it (mode %04o); do: chmod 0600", st.Mode&0o7777)
	case st.Uid != 0 && int(st.Uid) != user:
		return fmt.Errorf("belongs to user %d; do: chown root", st.Uid)
	case st.Size > maxSecret:
		return errLongSecret
	}
	return nil
}

func readSecretVariable(name string) ([]byte, error) {
	value, ok := os.LookupEnv(name)
	switch {
	case !ok:
		return nil, errors.New("is not in the daemon's environment")
	case len(value) > maxSecret:
		return nil, errLongSecret
	}
	return []byte(value), nil
}
