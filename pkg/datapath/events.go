package datapath

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// events carries the ring buffer into a channel.
type events struct {
	out    chan call.MediaEvent
	reader *ringbuf.Reader
	stop   chan struct{}
	done   chan struct{}
}

func readEvents(ring *ebpf.Map, log *slog.Logger) (*events, error) {
	reader, err := ringbuf.NewReader(ring)
	if err != nil {
		return nil, fmt.Errorf("open the event ring: %w", err)
	}
	ev := &events{
		out:    make(chan call.MediaEvent, 1024),
		reader: reader,
		stop:   make(chan struct{}),
		done:   make(chan struct{}),
	}
	go ev.run(log)
	return ev, nil
}

func (ev *events) run(log *slog.Logger) {
	defer close(ev.done)
	defer close(ev.out)
	var record ringbuf.Record
	for {
		if err := ev.reader.ReadInto(&record); err != nil {
			if !errors.Is(err, ringbuf.ErrClosed) {
				log.Error("no more media events", "error", err)
			}
			return
		}
		now, err := readClock() // anew each time: the time of day may have been set
		if err != nil {
			log.Error("media event without a time", "error", err)
			continue
		}
		event, err := decodeEvent(record.RawSample, now)
		if err != nil {
			log.Error("media event not understood", "error", err)
			continue
		}
		select {
		case ev.out <- event:
		case <-ev.stop:
			return
		}
	}
}

// close ends the reader and waits for it.
func (ev *events) close() error {
	close(ev.stop)
	err := ev.reader.Close()
	<-ev.done
	return err
}

// kinds of events by the kernel's number.
var kinds = map[tandemEventKind]call.MediaEventKind{
	tandemEventKindEVENT_STARTED: call.MediaStarted,
	tandemEventKindEVENT_REFUSED: call.MediaRefused,
	tandemEventKindEVENT_LATCHED: call.MediaLatched,
	tandemEventKindEVENT_DIGIT:   call.MediaDigit,
	tandemEventKindEVENT_SSRC:    call.MediaSSRC,
	tandemEventKindEVENT_REPORT:  call.MediaReport,
}

// decodeEvent copies what it keeps of raw.
func decodeEvent(raw []byte, c clock) (call.MediaEvent, error) {
	if len(raw) < int(unsafe.Sizeof(tandemEvent{})) {
		return call.MediaEvent{}, fmt.Errorf("%d bytes", len(raw))
	}
	event := *(*tandemEvent)(unsafe.Pointer(unsafe.SliceData(raw)))
	decoded := call.MediaEvent{
		Key: call.FlowKey{
			Realm: event.Realm,
			Local: netip.AddrPortFrom(netip.AddrFrom4(event.Local), port16(event.LocalPort)),
		},
		Kind:   kinds[event.Kind],
		At:     c.time(event.At),
		Source: netip.AddrPortFrom(netip.AddrFrom4(event.Source), port16(event.SourcePort)),
		Digit:  event.Digit,
		SSRC:   order32(event.Ssrc),
	}
	packet := raw[unsafe.Sizeof(tandemEvent{}):]
	switch {
	case decoded.Kind == 0:
		return call.MediaEvent{}, fmt.Errorf("kind %d", event.Kind)
	case int(event.Len) > len(packet):
		return call.MediaEvent{}, fmt.Errorf("%d bytes of %d", len(packet), event.Len)
	case decoded.Kind == call.MediaReport:
		decoded.Packet = bytes.Clone(packet[:event.Len])
	}
	return decoded, nil
}
