package relay

import (
	"encoding/binary"
	"hash/maphash"
	"net/netip"
	"sync"
	"time"
)

// quiet is after how long without a packet a refused source is new again.
const quiet = time.Minute

const (
	refusalSets = 2048
	refusalWays = 8
)

// refusals remembers the sources that were refused, 16,384 at most (280 kB): whoever forges
// sources in masses displaces other strangers, and nothing more. The hash is seeded,
// so that nobody can choose whom.
type refusals struct {
	seed maphash.Seed
	sets [refusalSets]refusalSet
}

// refusalSet holds the sources of equal hash.
type refusalSet struct {
	mu   sync.Mutex
	ways [refusalWays]stranger
}

// stranger is a source in a realm, and when it was refused last: zero if the way is free.
type stranger struct {
	id   uint64
	last int64 // ns since 1970
}

func newRefusals() *refusals { return &refusals{seed: maphash.MakeSeed()} }

// first reports whether a source has been quiet, in a realm, up to this packet.
func (r *refusals) first(realm uint16, source netip.Addr, at time.Time) bool {
	set, id := r.find(realm, source)
	now := stranger{id: id, last: at.UnixNano()}
	set.mu.Lock()
	defer set.mu.Unlock()
	longest := &set.ways[0]
	for i := range set.ways {
		w := &set.ways[i]
		if w.last != 0 && w.id == now.id {
			isNew := now.last-w.last >= int64(quiet)
			w.last = now.last
			return isNew
		}
		if w.last < longest.last {
			longest = w
		}
	}
	*longest = now
	return true
}

// find returns the set that a source belongs to, and its id there.
func (r *refusals) find(realm uint16, source netip.Addr) (*refusalSet, uint64) {
	var b [8]byte
	addr := source.As4()
	binary.BigEndian.PutUint16(b[:], realm)
	copy(b[4:], addr[:])
	return &r.sets[maphash.Bytes(r.seed, b[:])%refusalSets], binary.BigEndian.Uint64(b[:])
}
