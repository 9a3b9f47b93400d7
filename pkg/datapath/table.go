package datapath

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"runtime"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// table is the kernel's flow table, mapped into the process: a flow is installed, read
// and removed by loads and stores, without a system call. The program reads it at the
// same time, hence the rules about order below. Engine.mu guards it on our side.
type table struct {
	flows    []tandemFlow
	rares    []tandemRare
	policies []tandemPolicy
	maps     [][]byte
}

func mapTable(objs *tandemObjects) (_ *table, err error) {
	t := new(table)
	defer func() {
		if err != nil {
			t.unmap()
		}
	}()
	if t.flows, err = mapArray[tandemFlow](t, objs.Flows); err != nil {
		return nil, err
	}
	if t.rares, err = mapArray[tandemRare](t, objs.Rares); err != nil {
		return nil, err
	}
	if t.policies, err = mapArray[tandemPolicy](t, objs.Policies); err != nil {
		return nil, err
	}
	return t, nil
}

// mapArray maps an array map whose value is a T.
func mapArray[T any](t *table, m *ebpf.Map) ([]T, error) {
	var value T
	if size := unsafe.Sizeof(value); size != uintptr(m.ValueSize()) || size%8 != 0 {
		return nil, fmt.Errorf("%s: value of %d bytes, not %d", m, m.ValueSize(), size)
	}
	page := unix.Getpagesize()
	size := (int(m.MaxEntries())*int(m.ValueSize()) + page - 1) / page * page
	b, err := unix.Mmap(m.FD(), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("%s: map into memory: %w", m, err)
	}
	t.maps = append(t.maps, b)
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(b))), m.MaxEntries()), nil
}

func (t *table) unmap() {
	for _, b := range t.maps {
		_ = unix.Munmap(b) // fails only for what is not mapped
	}
	*t = table{}
}

// prepare writes a rule where no packet looks yet, and returns which one it is. A new
// flow starts its counters at zero; it takes the rule that the port's former flow did not
// have, so that a packet that is still on its way by that one cannot meet this one.
func (t *table) prepare(at uint32, f call.Flow, rule tandemRule, now uint64) (active uint32) {
	flow := &t.flows[at]
	if flow.Active == 0 {
		flow.Counters = tandemCounters{}
		t.rares[at] = tandemRare{}
		t.policies[at] = tandemPolicy{}
	}
	active = 3 - flow.Former
	if flow.Former == 0 {
		active = 1
	}
	flow.Rule[active-1] = t.apply(at, f, rule, now)
	return active
}

// apply brings the policy of a flow in step, and the rule with what was learned. Payload
// types are single stores each: a packet meets the old agreement or the new one.
func (t *table) apply(at uint32, f call.Flow, rule tandemRule, now uint64) tandemRule {
	policy := &t.policies[at]
	for pt, payload := range payloadTable(f.Payloads) {
		policy.Payload[pt] = payload
	}
	if f.Latch.Window <= 0 {
		t.closeLatch(policy)
		return rule
	}
	state := t.latchState(policy)
	if state != tandemLatchStateLATCH_CLOSED && policy.Generation == f.Latch.Generation {
		if state != tandemLatchStateLATCH_LOCKED {
			return rule
		}
		// What was learned is let in from the new rule's first packet on.
		rule.Addresses = checksumSum(rule.Addresses, checksumDelta(policy.Learned, rule.Remote))
		rule.Remote, rule.RemotePort = policy.Learned, policy.LearnedPort
		rule.Flags &^= tandemRuleFlagRULE_LATCH
		return rule
	}
	t.closeLatch(policy) // nobody learns by half of the new terms
	policy.Until = now + uint64(f.Latch.Window)
	policy.Generation = f.Latch.Generation
	policy.Prefixes = uint8(len(f.Latch.Allowed))
	for i, prefix := range f.Latch.Allowed {
		policy.Allowed[i].Addr = prefix.Masked().Addr().As4()
		binary.BigEndian.PutUint32(policy.Allowed[i].Mask[:], ^uint32(0)<<(32-prefix.Bits()))
	}
	atomic.StoreUint32((*uint32)(&policy.State), uint32(tandemLatchStateLATCH_OPEN))
	return rule
}

// closeLatch ends learning. A packet that is about to learn comes before it or not at all:
// else the program would lock the latch behind our back.
func (t *table) closeLatch(policy *tandemPolicy) {
	for !atomic.CompareAndSwapUint32(
		(*uint32)(&policy.State), uint32(t.latchState(policy)), uint32(tandemLatchStateLATCH_CLOSED)) {
	}
}

// latchState waits out the few stores between winning the latch and having written who won.
func (t *table) latchState(policy *tandemPolicy) tandemLatchState {
	for {
		state := tandemLatchState(atomic.LoadUint32((*uint32)(&policy.State)))
		if state != tandemLatchStateLATCH_LEARNING {
			return state
		}
		runtime.Gosched()
	}
}

// settle tells the active rule of a flow who was learned, if that was while the rule was being
// written. It does as the program does (lock_in in source.h), which leaves it to us then: the
// port is written last.
func (t *table) settle(at uint32) {
	f, policy := &t.flows[at], &t.policies[at]
	rule := &f.Rule[f.Active-1]
	if rule.Flags&tandemRuleFlagRULE_LATCH == 0 || t.latchState(policy) != tandemLatchStateLATCH_LOCKED {
		return
	}
	if rule.Remote != policy.Learned || rule.RemotePort != policy.LearnedPort {
		rule.RemotePort = 0
		rule.Addresses = checksumSum(rule.Addresses, checksumDelta(policy.Learned, rule.Remote))
		rule.Remote = policy.Learned
		rule.RemotePort = policy.LearnedPort
	}
	rule.Flags &^= tandemRuleFlagRULE_LATCH
}

// activate lets packets follow a prepared rule, or none if it is 0. The store is ordered
// after what prepare wrote.
func (t *table) activate(at, active uint32) {
	f := &t.flows[at]
	if active != 0 {
		f.Former = active
	}
	atomic.StoreUint32(&f.Active, active)
}

// remote is who is let in by a flow that was installed with own. What was learned is read
// where it is whole: the program writes it into the rule later, and in two steps.
func (t *table) remote(at uint32, own netip.AddrPort) netip.AddrPort {
	policy := &t.policies[at]
	if tandemLatchState(atomic.LoadUint32((*uint32)(&policy.State))) == tandemLatchStateLATCH_LOCKED {
		return toRemote(policy.Learned, policy.LearnedPort)
	}
	return own
}

// read returns a flow's counters while packets go on. A reading during which another run of
// sequence numbers began is one of two runs, and made again; a sender that begins one with
// each packet does not hold us up.
func (t *table) read(at uint32, key call.FlowKey, c clock) call.FlowStats {
	s := t.load(at)
	for range 3 {
		next := t.load(at)
		same := next.base == s.base && next.lost == s.lost && next.ssrc == s.ssrc
		if s = next; same {
			break
		}
	}
	return s.stats(key, c)
}

// load reads the counters once. Packets is loaded last, since the program counts a packet
// before it moves the highest sequence number on: so loss is never seen where none is.
func (t *table) load(at uint32) snapshot {
	counters, rare := &t.flows[at].Counters, &t.rares[at]
	return snapshot{
		highest:     atomic.LoadUint32(&counters.Highest),
		base:        atomic.LoadUint32(&rare.Base),
		before:      atomic.LoadUint64(&rare.Before),
		lost:        atomic.LoadUint64(&rare.Lost),
		reordered:   atomic.LoadUint32(&rare.Reordered),
		duplicated:  atomic.LoadUint32(&rare.Duplicated),
		refused:     atomic.LoadUint64(&rare.Refused),
		outOfPolicy: atomic.LoadUint64(&rare.OutOfPolicy),
		digits:      atomic.LoadUint32(&rare.Digits),
		ssrc:        atomic.LoadUint32(&counters.Ssrc),
		ssrcs:       atomic.LoadUint32(&rare.SsrcChanges),
		jitter:      atomic.LoadUint32(&counters.Jitter),
		gap:         atomic.LoadUint32(&counters.Gap),
		first:       atomic.LoadUint64(&rare.First),
		last:        atomic.LoadUint64(&counters.Last),
		control:     atomic.LoadUint64(&rare.Control),
		controls:    atomic.LoadUint32(&rare.Controls),
		bytes:       atomic.LoadUint64(&counters.Bytes),
		packets:     atomic.LoadUint64(&counters.Packets),
	}
}
