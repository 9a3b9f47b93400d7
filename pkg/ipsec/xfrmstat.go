package ipsec

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// Words for what the kernel dropped in a namespace, from the lines of /proc/net/xfrm_stat
// (Documentation/networking/xfrm_proc.rst). Those of the outbound side begin with "out_": with
// a tunnel down out_no_state counts what it would have carried (N4).
var statWords = map[string]string{
	"XfrmInError":           "other",
	"XfrmInBufferError":     "buffer",
	"XfrmInHdrError":        "header",
	"XfrmInNoStates":        "no_state",
	"XfrmInStateProtoError": errorProtocol,
	"XfrmInStateModeError":  "mode",
	"XfrmInStateExpired":    "state_expired",
	"XfrmInStateMismatch":   "state_mismatch",
	"XfrmInStateInvalid":    "state_invalid",
	"XfrmInStateDirError":   "direction",
	"XfrmInTmplMismatch":    "template_mismatch",
	"XfrmInNoPols":          "no_policy",
	"XfrmInPolBlock":        "policy",
	"XfrmInPolError":        "policy",
	"XfrmFwdHdrError":       "header",
	// A packet by an SPI that is held for a negotiation, which has no keys yet.
	"XfrmAcquireError":        "acquire",
	"XfrmOutError":            "out_other",
	"XfrmOutBundleGenError":   "out_bundle",
	"XfrmOutBundleCheckError": "out_bundle",
	"XfrmOutNoStates":         "out_no_state",
	"XfrmOutStateProtoError":  "out_protocol",
	"XfrmOutStateModeError":   "out_mode",
	"XfrmOutStateSeqError":    "out_sequence",
	"XfrmOutStateExpired":     "out_state_expired",
	"XfrmOutStateInvalid":     "out_state_invalid",
	"XfrmOutStateDirError":    "out_direction",
	"XfrmOutPolBlock":         "out_policy",
	"XfrmOutPolDead":          "out_policy",
	"XfrmOutPolError":         "out_policy",
}

const (
	// errorProtocol is what ESP did not understand after decryption. The kernel's counter has
	// integrity failures in it, ours has not.
	errorProtocol = "protocol"
	// errorUnknown takes the lines of newer kernels.
	errorUnknown = "unknown"
	// statReplays is the sum of what the associations count as replayed and late.
	statReplays = "XfrmInStateSeqError"
)

// Bounds of /proc/net/xfrm_stat: 29 lines of about 30 bytes in Linux 6.12.
const (
	maxStat      = 8 << 10
	maxStatLines = 128
)

var errStat = errors.New("xfrm_stat: not lines of NAME VALUE")

// readStatistics reads the file from its start.
func readStatistics(f io.ReaderAt) (map[string]uint64, error) {
	b := make([]byte, maxStat)
	n, err := f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("xfrm_stat: %w", err)
	}
	return parseStatistics(b[:n])
}

func parseStatistics(b []byte) (map[string]uint64, error) {
	values := make(map[string]uint64, len(statWords))
	for line := range bytes.Lines(b) {
		fields := bytes.Fields(line)
		if len(fields) != 2 || len(values) == maxStatLines {
			return nil, errStat
		}
		value, err := strconv.ParseUint(string(fields[1]), 10, 64)
		if err != nil {
			return nil, errStat
		}
		values[string(fields[0])] = value
	}
	if len(values) == 0 {
		return nil, errStat
	}
	return values, nil
}

// statistics turns the kernel's counters into errors since the first reading.
type statistics struct {
	begun bool
	last  map[string]uint64
	// protocol is the growth of XfrmInStateProtoError.
	protocol uint64
}

// from sets the point to count from.
func (s *statistics) from(values map[string]uint64) { s.begun, s.last = true, values }

// begin makes the next reading count from zero: it is that of a new namespace.
func (s *statistics) begin() { s.last = nil }

// add adds what was counted since the last reading. broken is the sum of all integrity failures
// that are counted elsewhere.
func (s *statistics) add(values map[string]uint64, broken uint64, kinds map[string]uint64) {
	for name, value := range values {
		grown := value
		if last := s.last[name]; value >= last {
			grown -= last
		}
		word, known := statWords[name]
		switch {
		case name == statReplays:
		case word == errorProtocol:
			s.protocol += grown
		case known:
			addError(kinds, word, grown)
		default:
			addError(kinds, errorUnknown, grown)
		}
	}
	// Never less than before: some failures may be counted there a reading later than here.
	if s.protocol > broken+kinds[errorProtocol] {
		kinds[errorProtocol] = s.protocol - broken
	}
	s.last = values
}
