package cdr

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/goleak"

	"github.com/tandem-sbc/tandem/pkg/call"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(crashEnv); path != "" {
		os.Exit(writeUntilKilled(path))
	}
	goleak.VerifyTestMain(m)
}

// record returns the n-th record of a test.
func record(n int) call.Record {
	started := time.Date(2026, 3, 29, 0, 59, 59, 123_456_789, time.FixedZone("CET", 3600)).Add(time.Duration(n) * time.Second)
	leg := call.LegRecord{
		Trunk: "genesys", Realm: "platform", CallID: "a84b4c76e66710@192.0.2.10",
		Local: netip.MustParseAddrPort("192.0.2.2:5060"), Remote: netip.MustParseAddrPort("192.0.2.10:5060"),
		Media: call.Media{
			Codec: "PCMA/8000", Packets: 500, Bytes: 86000, Lost: 1, Reordered: 2, Duplicated: 3, OutOfPolicy: 4, Digits: 16, SSRCChanges: 1,
			JitterMS: 0.25, GapMS: 60.5, First: started.Add(2*time.Second + 1), Last: started.Add(12 * time.Second),
			RemoteLost: 5, RemoteJitterMS: 1.5, RTTMS: 31.25, MOS: 4.31,
		},
	}
	return call.Record{
		ID: call.ID(id(n)), Node: "gw1", From: "+4930111", To: "+4930222", Started: started, Answered: started.Add(2 * time.Second), Ended: started.Add(12 * time.Second),
		SetupMS: 80, DurationMS: 10000, Ingress: leg, Egress: leg, Engine: call.EngineKernel,
		Cause:    call.Cause{Code: "normal-clearing", By: "ingress", SIP: 200, Q850: 16, Text: "The caller <hung up> & left."},
		Attempts: []call.Attempt{{Trunk: "carrier-a", Cause: call.Cause{Code: "busy", By: "egress", SIP: 486}, DurationMS: 75}},
	}
}

func id(n int) string { return fmt.Sprintf("%026d", n) }

func testConfig(t *testing.T) Config {
	return Config{File: filepath.Join(t.TempDir(), "cdr.jsonl"), MaxSizeMB: 100, Keep: 3}
}

func open(t *testing.T, cfg Config) *Writer {
	t.Helper()
	w, err := Open(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeWriter(t, w) })
	return w
}

func closeWriter(t *testing.T, w *Writer) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := w.Close(ctx); err != nil {
		t.Error(err)
	}
}

func read(t *testing.T, path string) []call.Record {
	t.Helper()
	var records []call.Record
	if err := Read(path, func(r call.Record) error {
		records = append(records, r)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return records
}

// TestRecordComesBack (O3, M11): what is written is read again, times in UTC milliseconds.
func TestRecordComesBack(t *testing.T) {
	cfg := testConfig(t)
	w := open(t, cfg)
	want := record(1)
	w.Write(want)
	closeWriter(t, w)

	for _, at := range []*time.Time{
		&want.Started, &want.Answered, &want.Ended,
		&want.Ingress.Media.First, &want.Ingress.Media.Last, &want.Egress.Media.First, &want.Egress.Media.Last,
	} {
		*at = at.UTC().Truncate(time.Millisecond)
	}
	if diff := cmp.Diff([]call.Record{want}, read(t, cfg.File), cmpopts.EquateComparable(netip.AddrPort{})); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	text, err := os.ReadFile(cfg.File)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{`"started":"2026-03-29T00:00:00.123Z"`, `The caller <hung up> & left.`,
		`"first":"2026-03-29T00:00:02.123Z"`, `"mos":4.31`, `"rtt_ms":31.25`, `"gap_ms":60.5`, `"remote_lost":5`, `"duplicated":3`, `"out_of_policy":4`, `"digits":16`,
	} {
		if !bytes.Contains(text, []byte(part)) {
			t.Errorf("%s is not in %s", part, text)
		}
	}
	if info, err := os.Stat(cfg.File); err != nil || info.Mode().Perm()&0o007 != 0 {
		t.Errorf("others have access to callers' numbers: %v, %v", info.Mode(), err)
	}
}

// TestCallsWriteTogether (O3): records of calls that end at once all arrive, once each.
func TestCallsWriteTogether(t *testing.T) {
	cfg := testConfig(t)
	w := open(t, cfg)
	const callers, each = 8, 250
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			for i := range each {
				w.Write(record(c*each + i))
			}
		})
	}
	wg.Wait()
	closeWriter(t, w)

	seen := make(map[call.ID]int)
	for _, r := range read(t, cfg.File) {
		seen[r.ID]++
	}
	for n := range callers * each {
		if seen[call.ID(id(n))] != 1 {
			t.Errorf("record %d is there %d times", n, seen[call.ID(id(n))])
		}
	}
	st := w.Stats()
	if st.Written != callers*each || st.Dropped != 0 || st.Queued != 0 || st.Causes["normal-clearing"] != callers*each {
		t.Errorf("stats: %+v", st)
	}
	w.Write(record(0))
	if st := w.Stats(); st.Dropped != 1 {
		t.Errorf("a record behind Close is not counted as lost: %+v", st)
	}
}

// TestCausesAreBounded: peers cannot make the number of metric series grow.
func TestCausesAreBounded(t *testing.T) {
	w := open(t, testConfig(t))
	for n := range 2 * maxCauses {
		r := record(n)
		r.Cause.Code = strconv.Itoa(n)
		w.Write(r)
	}
	if st := w.Stats(); len(st.Causes) != maxCauses+1 || st.Causes["other"] != maxCauses {
		t.Errorf("%d causes, %d other", len(st.Causes), st.Causes["other"])
	}
}

// flaky is a file whose disk can be full, or loses what it was given.
type flaky struct {
	*os.File
	mu               sync.Mutex
	full, failedSync int // how many of the next calls fail
	synced           bool
	// Non-nil: a write says that it is there, and waits for release.
	entered, release chan struct{}
}

func (f *flaky) WriteAt(p []byte, off int64) (int, error) {
	if f.entered != nil {
		f.entered <- struct{}{}
		<-f.release
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.full > 0 {
		f.full--
		n, _ := f.File.WriteAt(p[:len(p)/2], off)
		return n, fs.ErrInvalid
	}
	return f.File.WriteAt(p, off)
}

func (f *flaky) Sync() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failedSync > 0 {
		f.failedSync--
		return fs.ErrInvalid
	}
	f.synced = true
	return f.File.Sync()
}

// openFlaky returns a writer on a disk that fails, with a small queue and little patience.
func openFlaky(t *testing.T, cfg Config, disk *flaky, log *slog.Logger) *Writer {
	t.Helper()
	j, err := openJournal(cfg.File, 1_000_000, cfg.Keep, log)
	if err != nil {
		t.Fatal(err)
	}
	disk.File = j.file.(*os.File)
	j.file = disk
	w := newWriter(j, 4, log)
	w.retry, w.patience = time.Millisecond, time.Millisecond
	go w.run()
	return w
}

// TestDiskFailsAndRecovers (O3): a full disk and a failed fsync cost time, no record, and
// one line in the log.
func TestDiskFailsAndRecovers(t *testing.T) {
	cfg := testConfig(t)
	var log bytes.Buffer
	disk := &flaky{full: 3, failedSync: 2}
	w := openFlaky(t, cfg, disk, slog.New(slog.NewTextHandler(&log, nil)))
	w.Write(record(1))
	w.Write(record(2))
	closeWriter(t, w)

	if got := read(t, cfg.File); len(got) != 2 || got[0].ID != call.ID(id(1)) || got[1].ID != call.ID(id(2)) {
		t.Errorf("%d records: %+v", len(got), got)
	}
	if st := w.Stats(); st.Written != 2 || st.WriteErrors != 5 || st.Dropped != 0 || !disk.synced {
		t.Errorf("stats: %+v", st)
	}
	if n := strings.Count(log.String(), "level=ERROR"); n != 1 {
		t.Errorf("%d errors in the log, not 1:\n%s", n, &log)
	}
}

// TestDiskStaysFull (O3): calls wait a bounded time, what is lost is counted, and the
// daemon can stop.
func TestDiskStaysFull(t *testing.T) {
	w := openFlaky(t, testConfig(t), &flaky{full: 1 << 30}, slog.New(slog.DiscardHandler))
	const records = 20
	for n := range records {
		w.Write(record(n))
	}
	if st := w.Stats(); st.Dropped == 0 || int(st.Dropped)+st.Queued != records {
		t.Errorf("stats: %+v", st)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := w.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Close says %v", err)
	}
	if st := w.Stats(); st.Dropped != records || st.Written != 0 {
		t.Errorf("stats: %+v", st)
	}
}

// TestRecordsShareAnFsync: what waits while the disk is busy goes out with one write.
func TestRecordsShareAnFsync(t *testing.T) {
	cfg := testConfig(t)
	disk := &flaky{entered: make(chan struct{}, 5), release: make(chan struct{})}
	w := openFlaky(t, cfg, disk, slog.New(slog.DiscardHandler))
	w.patience = time.Minute
	w.Write(record(0)) // the one that the disk is busy with
	<-disk.entered
	for n := 1; n <= 4; n++ {
		w.Write(record(n))
	}
	close(disk.release)
	closeWriter(t, w)
	if got, more := len(read(t, cfg.File)), len(disk.entered); got != 5 || more != 1 {
		t.Errorf("%d records, 4 of them in %d writes", got, more)
	}

	line, err := encode(record(1))
	if err != nil {
		t.Fatal(err)
	}
	batch, n := (&Writer{queue: queueOf(line, 2*batchLength)}).gather(line)
	if n != batchLength || len(batch) != batchLength*len(line) {
		t.Errorf("a batch of %d records, %d bytes", n, len(batch))
	}
}

func queueOf(line []byte, n int) chan []byte {
	q := make(chan []byte, n)
	for range n {
		q <- line
	}
	return q
}
