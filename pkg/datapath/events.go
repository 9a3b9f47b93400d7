package datapath

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"

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
		out:    make(chan call.MediaEvent, 256),
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
		event, err := decodeEvent(record.RawSample)
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

func decodeEvent(raw []byte) (call.MediaEvent, error) {
	var event tandemEvent
	if err := binary.Read(bytes.NewReader(raw), binary.NativeEndian, &event); err != nil {
		return call.MediaEvent{}, fmt.Errorf("%d bytes: %w", len(raw), err)
	}
	decoded := call.MediaEvent{
		Key: call.FlowKey{
			Realm: event.Realm,
			Local: netip.AddrPortFrom(netip.AddrFrom4(event.Local), port16(event.LocalPort)),
		},
		Source: netip.AddrPortFrom(netip.AddrFrom4(event.Source), port16(event.SourcePort)),
	}
	switch event.Kind {
	case tandemEventKindEVENT_STARTED:
		decoded.Kind = call.MediaStarted
	case tandemEventKindEVENT_REFUSED:
		decoded.Kind = call.MediaRefused
	default:
		return call.MediaEvent{}, fmt.Errorf("kind %d", event.Kind)
	}
	return decoded, nil
}
