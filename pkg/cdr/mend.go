package cdr

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"
)

// mend moves a torn last line of f, which is size bytes long, to a file of its own and
// returns where the full lines end. Nothing that was once on disk is thrown away.
func mend(f *os.File, path string, size int64, log *slog.Logger) (end int64, err error) {
	end, err = endOfLines(f, size)
	if err != nil || end == size {
		return end, err
	}
	torn := path + ".torn-" + time.Now().UTC().Format("20060102T150405.000000000Z")
	aside, err := os.OpenFile(torn, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fileMode)
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(aside, io.NewSectionReader(f, end, size-end))
	if err := errors.Join(err, aside.Sync(), aside.Close()); err != nil {
		return 0, fmt.Errorf("keep the torn line in %s: %w", torn, err)
	}
	if err := errors.Join(f.Truncate(end), f.Sync()); err != nil {
		return 0, err
	}
	log.Warn("the last call record was torn by a crash and is set aside", "file", path, "aside", torn, "bytes", size-end)
	return end, nil
}

// endOfLines returns the offset behind the last newline, or 0.
func endOfLines(r io.ReaderAt, size int64) (int64, error) {
	chunk := make([]byte, 64<<10)
	for end := size; end > 0; {
		start := max(0, end-int64(len(chunk)))
		part := chunk[:end-start]
		if _, err := r.ReadAt(part, start); err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		if i := bytes.LastIndexByte(part, '\n'); i >= 0 {
			return start + int64(i) + 1, nil
		}
		end = start
	}
	return 0, nil
}
