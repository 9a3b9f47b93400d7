// Package sdp reads session descriptions (RFC 4566) into call.MediaDesc and writes
// them from it. It is pure.
//
// Reading is tolerant: what peers get wrong is put in order before pion/sdp sees
// it, and remembered in MediaDesc.SetAside. Writing is strict: a description is
// built from an allow list, so nothing of one leg reaches the other unless Tandem
// knows what it means (topology hiding, S18).
package sdp

import (
	"errors"
	"fmt"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// Bounds of what Parse reads; beyond them a description is ErrSyntax.
const (
	MaxBody    = 64 << 10 // bytes
	MaxStreams = 32       // m= lines
	MaxFormats = 64       // formats of one m= line
)

// maxSetAside bounds the remarks, so that a hostile body does not become a long log line.
const maxSetAside = 16

// ErrSyntax means that a body is no session description, or one beyond the bounds.
var ErrSyntax = errors.New("malformed session description")

// Parse reads a session description. At most one stream is carried: the first
// audio stream over RTP/AVP that has an IPv4 unicast address (or 0.0.0.0), a port
// from 1024 on and a codec; every other is marked Refused and keeps its place and
// formats, so that an answer can refuse it there (RFC 3264 section 6, M10). A
// description in which no stream is carried is not an error: Audio returns nil.
//
// The error is ErrSyntax.
func Parse(body []byte) (call.MediaDesc, error) {
	t, err := tidy(body)
	if err != nil {
		return call.MediaDesc{}, err
	}
	desc, err := read(t)
	if err != nil {
		return call.MediaDesc{}, err
	}
	desc.SetAside = t.remarks
	return desc, nil
}

func syntax(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrSyntax, fmt.Sprintf(format, args...))
}
