package cdr

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// maxLine bounds one record in bytes: a call tries a few trunks, not thousands.
const maxLine = 1 << 20

// Read calls each with the records of one file, oldest first, until it returns an error,
// which is then Read's. A last line without its end is not a record yet, or never became
// one: it is left out. A line that is not a record is an error that names it.
func Read(path string, each func(call.Record) error) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("call records: %w", err)
	}
	defer f.Close()
	r := bufio.NewReaderSize(f, maxLine)
	for n := 1; ; n++ {
		line, err := r.ReadSlice('\n')
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, bufio.ErrBufferFull):
			return fmt.Errorf("call records: %s:%d: the line is longer than %d bytes", path, n, maxLine)
		case err != nil:
			return fmt.Errorf("call records: %s:%d: %w", path, n, err)
		}
		var rec call.Record
		if err := json.Unmarshal(bytes.TrimSuffix(line, []byte("\n")), &rec); err != nil {
			return fmt.Errorf("call records: %s:%d: %w", path, n, err)
		}
		if err := each(rec); err != nil {
			return err
		}
	}
}
