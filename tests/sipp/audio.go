package sipp

import (
	"encoding/binary"
	"math/rand/v2"
	"time"
)

const (
	packetBytes = 160 // 20 ms of G.711
	packetTime  = 20 * time.Millisecond
)

// Audio is what a call sends: as many packets as said, all different, the same for
// the same seed. It is noise, not speech; what counts is that it arrives as it left.
type Audio struct {
	// Seed tells apart what different processes send.
	Seed uint64
	// Packets of 20 ms.
	Packets int
}

// Duration of the audio.
func (a Audio) Duration() time.Duration { return time.Duration(a.Packets) * packetTime }

// Bytes is the audio as G.711 octets.
func (a Audio) Bytes() []byte {
	var seed [32]byte
	binary.BigEndian.PutUint64(seed[:], a.Seed)
	b := make([]byte, a.Packets*packetBytes)
	_, _ = rand.NewChaCha8(seed).Read(b) // never fails
	return b
}
