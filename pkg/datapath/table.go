package datapath

import (
	"fmt"
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
	flows []tandemFlow
	rares []tandemRare
	maps  [][]byte
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
func (t *table) prepare(at uint32, rule tandemRule) (active uint32) {
	f := &t.flows[at]
	if f.Active == 0 {
		f.Counters = tandemCounters{}
		t.rares[at] = tandemRare{}
	}
	active = 3 - f.Former
	if f.Former == 0 {
		active = 1
	}
	f.Rule[active-1] = rule
	return active
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

// read returns a flow's counters while packets go on. Packets is loaded last, since the
// program counts a packet before it moves the highest sequence number on: so loss is never
// seen where none is.
func (t *table) read(at uint32, key call.FlowKey, c clock) call.FlowStats {
	counters, rare := &t.flows[at].Counters, &t.rares[at]
	s := snapshot{
		highest:   atomic.LoadUint32(&counters.Highest),
		base:      atomic.LoadUint32(&counters.Base),
		before:    atomic.LoadUint64(&rare.Before),
		lost:      atomic.LoadUint64(&rare.Lost),
		reordered: atomic.LoadUint32(&counters.Reordered),
		refused:   atomic.LoadUint64(&rare.Refused),
		jitter:    atomic.LoadUint32(&counters.Jitter),
		first:     atomic.LoadUint64(&rare.First),
		last:      atomic.LoadUint64(&counters.Last),
		bytes:     atomic.LoadUint64(&counters.Bytes),
		packets:   atomic.LoadUint64(&counters.Packets),
	}
	return s.stats(key, c)
}
