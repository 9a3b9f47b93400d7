package cdr

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
)

const (
	// queueLength is how many records may wait for the disk: 20 s at 200 calls per second.
	queueLength = 4096
	// batchLength is how many records share one fsync at most.
	batchLength = 256
	// writePatience bounds how long a call waits for room in a full queue.
	writePatience = 2 * time.Second
	// A failing disk is tried again after firstRetry, then ever later up to lastRetry.
	firstRetry = 100 * time.Millisecond
	lastRetry  = 5 * time.Second
	// maxCauses bounds Stats.Causes; codes beyond it count as "other".
	maxCauses = 128
)

// Stats counts records since Open.
type Stats struct {
	// Written are on disk. Dropped are lost: the disk stayed unusable for longer than
	// the queue could hold, or the writer was closed.
	Written, Dropped uint64
	// WriteErrors counts attempts to write a batch that failed and were repeated.
	WriteErrors uint64
	// Queued wait for the disk now.
	Queued int
	// Causes counts records by the code of their cause.
	Causes map[string]uint64
}

// Writer appends records. One goroutine owns the file; it is safe for use by any number of calls.
type Writer struct {
	log      *slog.Logger
	journal  *journal
	patience time.Duration
	retry    time.Duration

	// gate is held for reading by whoever puts into the queue, and for writing by
	// Close, so that nothing enters behind the last record.
	gate   sync.RWMutex
	closed bool
	queue  chan []byte
	giveUp context.Context
	cancel context.CancelFunc
	done   chan struct{}

	written, dropped, writeErrors atomic.Uint64
	waiting                       atomic.Int64

	causesMu sync.Mutex
	causes   map[string]uint64
}

// Open opens or makes the file. A last line without its end, which a crash left, is
// moved to FILE.torn-TIME. It fails if another process has the file open for writing (ErrInUse),
// or if the folder does not exist. Close is owed.
func Open(cfg Config, log *slog.Logger) (*Writer, error) {
	j, err := openJournal(cfg.File, int64(cfg.MaxSizeMB)*1_000_000, cfg.Keep, log)
	if err != nil {
		return nil, fmt.Errorf("call records: %w", err)
	}
	w := newWriter(j, queueLength, log)
	go w.run()
	return w, nil
}

func newWriter(j *journal, queue int, log *slog.Logger) *Writer {
	w := &Writer{
		log: log, journal: j, patience: writePatience, retry: firstRetry,
		queue: make(chan []byte, queue), done: make(chan struct{}), causes: make(map[string]uint64),
	}
	w.giveUp, w.cancel = context.WithCancel(context.Background())
	return w
}

// Write hands over a record. It does not wait for the disk: records that come together
// share one fsync. Only when 4096 of them wait already does it block, for 2 s at most, and
// then drops the record, which is counted and logged.
func (w *Writer) Write(rec call.Record) {
	w.count(rec.Cause.Code)
	line, err := encode(rec)
	if err != nil {
		w.drop(rec.ID, err)
		return
	}
	w.gate.RLock()
	defer w.gate.RUnlock()
	if w.closed {
		w.drop(rec.ID, errors.New("the writer is closed"))
		return
	}
	w.waiting.Add(1)
	select {
	case w.queue <- line:
		return
	default:
	}
	t := time.NewTimer(w.patience)
	defer t.Stop()
	select {
	case w.queue <- line:
	case <-t.C:
		w.waiting.Add(-1)
		w.drop(rec.ID, errors.New("the disk does not keep up"))
	}
}

// Close writes what waits and closes the file. When ctx is done first, it gives up what
// the disk does not take; the error says how many records are lost. A second Close does nothing.
func (w *Writer) Close(ctx context.Context) error {
	w.gate.Lock()
	if w.closed {
		w.gate.Unlock()
		return nil
	}
	w.closed = true
	close(w.queue)
	w.gate.Unlock()

	select {
	case <-w.done:
	case <-ctx.Done():
		w.cancel()
		<-w.done
	}
	w.cancel()
	err := w.journal.close()
	if lost := w.waiting.Load(); lost > 0 {
		return errors.Join(fmt.Errorf("%d call records could not be written: %w", lost, ctx.Err()), err)
	}
	return err
}

// Stats returns the counters.
func (w *Writer) Stats() Stats {
	st := Stats{
		Written: w.written.Load(), Dropped: w.dropped.Load(), WriteErrors: w.writeErrors.Load(),
		Queued: int(w.waiting.Load()),
	}
	w.causesMu.Lock()
	defer w.causesMu.Unlock()
	st.Causes = make(map[string]uint64, len(w.causes))
	for code, n := range w.causes {
		st.Causes[code] = n
	}
	return st
}

func (w *Writer) count(code string) {
	w.causesMu.Lock()
	defer w.causesMu.Unlock()
	if _, known := w.causes[code]; !known && len(w.causes) >= maxCauses {
		code = "other"
	}
	w.causes[code]++
}

// drop counts a lost record. The log has the call's id, so that it can be found there.
func (w *Writer) drop(id call.ID, err error) {
	w.dropped.Add(1)
	w.log.Error("call record lost", "call", id, "err", err)
}

// run owns the file until the queue is closed and empty, or it shall give up.
func (w *Writer) run() {
	defer close(w.done)
	for line := range w.queue {
		batch, n := w.gather(line)
		if w.giveUp.Err() != nil || !w.store(batch, n) {
			break
		}
		w.written.Add(uint64(n))
		w.waiting.Add(int64(-n))
	}
	w.dropped.Add(uint64(w.waiting.Load()))
}

// gather joins a line and those that wait behind it.
func (w *Writer) gather(line []byte) (batch []byte, n int) {
	for n = 1; n < batchLength; n++ {
		select {
		case next, ok := <-w.queue:
			if !ok {
				return line, n
			}
			line = append(line, next...)
		default:
			return line, n
		}
	}
	return line, n
}

// store puts a batch on disk, however long that takes; false means that it gave up.
// A disk that fails is logged when it begins and when it ends.
func (w *Writer) store(batch []byte, n int) bool {
	for wait, failures := w.retry, 0; ; wait = min(2*wait, lastRetry) {
		err := w.journal.append(batch)
		if err == nil {
			if failures > 0 {
				w.log.Warn("call records are written again", "failures", failures)
			}
			return true
		}
		w.writeErrors.Add(1)
		if failures == 0 {
			w.log.Error("call records cannot be written; trying again", "file", w.journal.path, "records", n, "err", err)
		}
		failures++
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-w.giveUp.Done():
			t.Stop()
			return false
		}
	}
}

// encode writes a record as one line, times in UTC to the millisecond.
func encode(rec call.Record) ([]byte, error) {
	for _, t := range []*time.Time{
		&rec.Started, &rec.Rang, &rec.Answered, &rec.Ended,
		&rec.Ingress.Media.First, &rec.Ingress.Media.Last, &rec.Egress.Media.First, &rec.Egress.Media.Last,
	} {
		if !t.IsZero() {
			*t = t.UTC().Truncate(time.Millisecond)
		}
	}
	var line bytes.Buffer
	e := json.NewEncoder(&line)
	e.SetEscapeHTML(false) // numbers and causes are not for a browser
	if err := e.Encode(rec); err != nil {
		return nil, fmt.Errorf("write the record as JSON: %w", err)
	}
	return line.Bytes(), nil
}
